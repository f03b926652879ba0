"""One row a statement: the word that its lines and its verdicts make together, and how a page shows it.

The word of a row follows from one rule (`word_of`). A statement without verdicts is as its lines stand: checked,
differs or open, and not run where that is why it is open. One with verdicts has the word that
`dyniso.report.claims.word` makes of all experiments of all its claims; where its lines say how a measurement differs,
it is not reproduced but partly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..checks import nearest
from .claims import SOURCES, VERDICTS, Claim, Verdict, word
from .ledger import Ledger, Objection, Statement, hard_lines, links

WORDS = (*VERDICTS, "checked", "differs", "open")
BARE = "–"  # in the columns of verdicts, where a statement has none
Judged = Sequence[tuple[Claim, Verdict]]


@dataclass(frozen=True)
class Row:
    """One statement with its words."""

    statement: Statement
    word: str  # of WORDS
    on_paper: str  # of its verdicts on the paper's own benchmarks, of VERDICTS or "none"; BARE without verdicts
    on_ours: str
    verdicts: Mapping[str, str]  # claim -> its own word


def word_of(one: Statement, judged: str) -> str:
    """The word of a row, by the rule of this module.

    Args:
        judged: the word of the statement's verdicts; not read where it has none.
    """
    if not one.verdicts:
        return "not run" if one.lines == "open" and one.why == "not run" else one.lines
    return "partly" if judged == "reproduced" and one.differ else judged


def row(one: Statement, verdicts: Mapping[str, Verdict]) -> Row:
    """A statement with the words that its claims give it."""
    own = [verdicts[name] for name in one.verdicts]
    sides = [(f.side, f.of_the_paper) for v in own for f in v.findings]
    sides += [("missing", name in v.paper) for v in own for name in v.missing]
    paper, ours = ([side for side, paper in sides if paper is kind] for kind in (True, False))
    if not own:
        return Row(one, word_of(one, ""), BARE, BARE, {})
    judged = word([*paper, *ours])
    return Row(one, word_of(one, judged), word(paper), word(ours), {v.id: v.verdict for v in own})


def rows(ledger: Ledger, judged: Judged) -> list[Row]:
    """Every statement's row.

    Raises:
        ValueError: what `problems` finds, each with the id of its statement or claim.
    """
    if found := problems(ledger, judged):
        raise ValueError("; ".join(found))
    verdicts = {claim.id: verdict for claim, verdict in judged}
    return [row(one, verdicts) for one in ledger.statements]


def problems(ledger: Ledger, judged: Judged) -> list[str]:
    """One line for each claim that is named never or twice, and each statement that contradicts its claims."""
    claims = {claim.id: claim for claim, _ in judged}
    named = [name for one in ledger.statements for name in one.verdicts]
    found = [f"{name}: named by {named.count(name)} statements" for name in claims if named.count(name) != 1]
    verdicts = {claim.id: verdict for claim, verdict in judged}
    for one in ledger.statements:
        unknown = [name for name in one.verdicts if name not in claims]
        found += [f"{one.id}: no claim {name!r}; {nearest(name, claims)}" for name in unknown]
        found += [] if unknown else contradictions(one, [claims[name] for name in one.verdicts], verdicts)
    return found


def contradictions(one: Statement, claims: Iterable[Claim], verdicts: Mapping[str, Verdict]) -> list[str]:
    """What a statement says otherwise than its claims: who states it, or that lines agree where verdicts do not."""
    found = [
        f"{one.id} is by {SOURCES[one.source]}, {claim.id} by {SOURCES[claim.kind]}"
        for claim in claims
        if claim.kind != one.source
    ]
    if one.lines == "checked" and row(one, verdicts).word == "not":
        found.append(f"{one.id}: its lines agree and its verdicts say not; `differ` has to say how")
    return found


def counts(made: Iterable[Row]) -> dict[str, int]:
    """How many rows have each word, in the order of WORDS; words of no row are left out."""
    words = [one.word for one in made]
    return {word: words.count(word) for word in WORDS if word in words}


def cells(one: Row) -> dict[str, str]:
    """A row of a table in Markdown: the statement with all that is said of it, its word, and those of its verdicts."""
    s = one.statement
    parts = [f"{s.statement} (*{SOURCES[s.source]}*)"]
    parts += [f"**Differs:** {s.differ}"] if s.differ else []
    parts += [f"**Open:** {s.open}"] if s.open else []
    parts += (
        ["Judged by " + ", ".join(f"`{name}` ({said})" for name, said in one.verdicts.items())] if one.verdicts else []
    )
    parts += [links(s.evidence)] if s.evidence else []
    text = "<br>".join(parts).replace("|", r"\|")
    return {"statement": text, "word": f"**{one.word}**", "the paper's": one.on_paper, "ours": one.on_ours}


def reasons(some: Iterable[Statement]) -> str:
    """Statements with why each is open, as a list in Markdown."""
    return "\n".join("- " + hard_lines(one.statement, f"→ {one.open}") for one in some)


def objections(some: Iterable[Objection]) -> str:
    """Objections, what the experiments say and what remains, as a list in Markdown."""
    return "\n".join(
        "- " + hard_lines(f"**{one.objection}** {one.says}", f"Remains: {one.open}", f"See {links(one.evidence)}")
        for one in some
    )
