"""The ledger: its data file, the observations and the claims that it names, and the one word of each row."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dyniso.report import claims, ledger, words
from dyniso.report.claims import CLAIMS, Claim, Verdict
from dyniso.report.ledger import Statement
from dyniso.report.notebook import ClaimLine, claim_lines, is_named

ROOT = Path(__file__).parents[2]
BOOK = ledger.read(ROOT / "book" / "statements.toml")
CHAPTERS = ledger.Chapters(ROOT / "notebooks")


# ------------------------------------------------------------------------------------------------------ claim lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ('"Two is less than three.", True', "Two is less than three."),
        ("f'Off by {gap:.0e} of {a[0]}.', True", "Off by … of …."),
        ('"In two "\n    f"{kind} pieces.", True', "In two … pieces."),
        ('"From {:.2f} to {x}.".format(*pair, x=1), True', "From … to …."),
        ('"The " + name("x") if 0 else "Other", True', ""),
        ('"One " + f"{n} two", True', "One … two"),
        ('"One " + rest, True', ""),
        ("text, True", ""),
        ('holds=True, sentence="By keyword."', "By keyword."),
    ],
)
def test_sentence_of_a_claim_is_read_without_running_it(arguments: str, sentence: str) -> None:
    (line,) = claim_lines(f'claim("a-name", {arguments})')
    assert (line.name, line.sentence, line.condition) == ("a-name", sentence, "True")


def test_claim_lines_come_in_the_order_of_the_source_and_other_calls_are_not_among_them() -> None:
    source = 'if a:\n    book.claim("b", "B.", x < 1)\nclaims("no")\nclaim("c", "C.", y)\n'
    assert claim_lines(source) == [ClaimLine("b", "B.", "x < 1", 2), ClaimLine("c", "C.", "y", 4)]


@pytest.mark.parametrize(
    ("name", "fits"), [("best-adam", True), ("best-", False), ("the-best-adam", False), ("worst-adam", False)]
)
def test_name_with_an_inserted_value_is_that_of_each_line_that_it_makes(name: str, fits: bool) -> None:
    (line,) = claim_lines('claim(f"best-{method}", "Best.", True)')
    assert is_named(line, name) == fits


# ---------------------------------------------------------------------------------------------------- the data file


def test_every_name_in_the_ledger_is_one_observation_of_a_chapter() -> None:
    assert CHAPTERS.problems(BOOK) == []


def test_statements_are_in_the_order_of_their_sections() -> None:
    sections = [tuple(map(int, one.id.split("-")[0].split("."))) for one in BOOK.statements]
    assert sections == sorted(sections)


def test_no_statement_is_in_the_ledger_twice() -> None:
    texts = [one.statement for one in BOOK.statements]
    assert sorted(set(texts)) == sorted(texts)


GOOD = """
[[statement]]
id = "1.1-a"
source = "paper"
statement = "It is so."
evidence = ["so"]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("evidence =", "evidense =", "statement 1.1-a has no 'evidense'; allowed are"),
        ("[[statement]]", "[[statment]]", "x.toml has no 'statment'; allowed are"),
        ('"paper"', '"papers"', "statement 1.1-a: source='papers'; allowed are 'paper', 'readers'"),
        ('statement = "It is so."', "", "statement 1.1-a: no statement"),
        ('id = "1.1-a"', "", "statement (without an id): no id"),
        ("evidence =", 'differ = "by two"\n#', "statement 1.1-a: differ without evidence or verdicts"),
        ("evidence =", "#", "statement 1.1-a: expected evidence or verdicts, or open"),
        (
            "evidence =",
            'open = "not run"\nwhy = "not run"\nevidence =',
            "statement 1.1-a: expected evidence or verdicts, or open",
        ),
        (
            "evidence =",
            'open = "not run"\nwhy = "not run"\nverdicts =',
            "statement 1.1-a: expected evidence or verdicts, or open",
        ),
        ("evidence =", 'open = "why"\nwhy = "no lin"\n#', "statement 1.1-a: why='no lin'; allowed are"),
        ("evidence =", 'why = "not run"\nevidence =', "statement 1.1-a: why without open"),
    ],
)
def test_a_wrong_entry_is_an_error_that_names_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    (tmp_path / "x.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError) as error:
        ledger.read(tmp_path / "x.toml")
    assert str(error.value).startswith(message)


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(GOOD + GOOD)
    with pytest.raises(ValueError, match=r"x.toml: the id '1.1-a' is there 2 times"):
        ledger.read(tmp_path / "x.toml")


@pytest.fixture
def chapters(tmp_path: Path) -> ledger.Chapters:
    for stem, name in (("x", "it-is-so"), ("y", "or-not"), ("z", "or-not")):
        (tmp_path / f"{stem}.py").write_text(f'claim("{name}", "A sentence.", a)\n')
    return ledger.Chapters(tmp_path)


def test_problems_name_the_entry_and_the_nearest_observation(chapters: ledger.Chapters) -> None:
    wrong = Statement("1.1-a", "paper", "So.", ("it-is-sow", "else", "or-not"))
    assert chapters.problems(ledger.Ledger((wrong,), ())) == [
        "1.1-a: no observation 'it-is-sow'; did you mean 'it-is-so'?",
        "1.1-a: no observation 'else'",
        "1.1-a: 'or-not' is in several chapters: y, z",
        "or-not: claimed 2 times",
    ]


# -------------------------------------------------------------------------------------------------------- the words


CLAIM = next(claim for claim in CLAIMS if claim.id == "adam_loses_plasticity")  # by the paper
BOTH = Statement("1.1-a", "paper", "So.", ("so",), ("lost",))


def judged(*sides: str, paper: str = "", id: str = "lost") -> tuple[Claim, Verdict]:
    """A claim of the paper whose experiments on our benchmarks say `sides`, and one on the paper's says `paper`."""
    names = [f"e{i}" for i in range(len(sides) + bool(paper))]
    said = dict(zip(names, [*sides, *([paper] if paper else [])], strict=True))
    found = tuple(
        finding(name, side, name == names[-1] and bool(paper)) for name, side in said.items() if side != "missing"
    )
    missing = {name: "no table" for name, side in said.items() if side == "missing"}
    made = claims.word(said.values()), claims.word([paper] if paper else []), claims.word(sides)
    verdict = Verdict(
        id, "check", *made, None, None, None, None, "", "", found, missing, tuple(names[-1:] if paper else ())
    )
    return replace(CLAIM, id=id, experiments=tuple(names)), verdict


def finding(name: str, side: str, of_the_paper: bool) -> claims.Finding:
    """What an experiment says, with numbers that nothing here reads."""
    return claims.Finding(name, "check", 1, "", 4, "", "", (), 0.0, 0.0, 0.0, 0.0, side, of_the_paper, ())


def row_of(one: Statement, *made: tuple[Claim, Verdict]) -> words.Row:
    (row,) = words.rows(ledger.Ledger((one,), ()), made)
    return row


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (Statement("1.1-a", "derived", "So.", ("so",)), "checked"),
        (Statement("1.1-a", "derived", "So.", ("so",), differ="By two."), "differs"),
        (Statement("1.1-a", "derived", "So.", open="Why.", why="theory"), "open"),
        (Statement("1.1-a", "derived", "So.", open="Why.", why="not run"), "not run"),
    ],
)
def test_statement_without_verdicts_is_as_its_lines_stand(one: Statement, word: str) -> None:
    row = row_of(one)
    assert (row.word, row.on_paper, row.on_ours) == (word, words.BARE, words.BARE)


@pytest.mark.parametrize(
    ("sides", "paper", "made"),
    [
        (("for",), "for", ("reproduced", "reproduced", "reproduced")),
        (("against",), "for", ("partly", "reproduced", "not")),
        (("undecided", "undecided"), "", ("undecided", "none", "undecided")),
        (("not testable",), "undecided", ("undecided", "undecided", "not testable")),
        (("for", "missing"), "for", ("not run", "reproduced", "not run")),
    ],
)
def test_statement_with_verdicts_has_their_word_on_all_benchmarks_and_on_each_kind(sides, paper, made) -> None:
    row = row_of(BOTH, judged(*sides, paper=paper))
    assert (row.word, row.on_paper, row.on_ours) == made


@pytest.mark.parametrize(("side", "word"), [("for", "partly"), ("against", "not"), ("undecided", "undecided")])
def test_statement_whose_lines_differ_is_at_most_partly_reproduced(side: str, word: str) -> None:
    assert row_of(replace(BOTH, differ="By two."), judged(side)).word == word


def test_verdicts_of_several_claims_are_judged_as_one() -> None:
    one = replace(BOTH, verdicts=("a", "b"))
    row = row_of(one, judged("for", id="a"), judged("undecided", id="b"))
    assert (row.word, row.verdicts) == ("partly", {"a": "reproduced", "b": "undecided"})


@pytest.mark.parametrize(
    ("one", "made", "message"),
    [
        (BOTH, [judged("against")], "1.1-a: its lines agree and its verdicts say not"),
        (replace(BOTH, source="readers"), [judged("for")], "1.1-a is by readers of the paper, lost by the paper"),
        (BOTH, [judged("for"), judged("for", id="left")], "left: named by 0 statements"),
        (replace(BOTH, verdicts=("lost", "lost")), [judged("for")], "lost: named by 2 statements"),
        (
            replace(BOTH, verdicts=("lots",)),
            [judged("for")],
            "1.1-a: no claim 'lots'; allowed are 'lost'; did you mean",
        ),
    ],
)
def test_statement_that_contradicts_its_claims_is_refused_with_its_id(one, made, message) -> None:
    with pytest.raises(ValueError, match=message):
        row_of(one, *made)


def test_cells_have_all_that_is_said_of_a_statement_and_no_bar_that_would_end_them() -> None:
    one = replace(BOTH, statement="$|x|$ is so.", differ="By two.", open="Rest.", why="not run")
    assert words.cells(row_of(one, judged("for"))) == {
        "statement": r"$\|x\|$ is so. (*the paper*)<br>**Differs:** By two.<br>**Open:** Rest.<br>"
        "Judged by `lost` (reproduced)<br>{prf:ref}`so`",
        "word": "**partly**",
        "the paper's": "none",
        "ours": "reproduced",
    }


# ---------------------------------------------------------------------------------- the ledger and the stored results


@pytest.fixture(scope="module")
def committed() -> list[tuple[Claim, Verdict]]:
    return claims.judge_all("check")


def test_each_claim_is_named_once_and_checked_lines_agree_with_verdicts(committed) -> None:
    assert words.problems(BOOK, committed) == []


def test_every_row_has_one_known_word(committed) -> None:
    made = words.rows(BOOK, committed)
    assert {row.word for row in made} <= set(words.WORDS)
    assert sum(words.counts(made).values()) == len(BOOK.statements)


def test_that_training_costs_the_ability_to_learn_has_one_word_from_streams_and_games(committed) -> None:
    (row,) = [row for row in words.rows(BOOK, committed) if row.statement.id == "1.1-loss"]
    assert row.word == "partly"
    assert row.verdicts.keys() == {
        "adam_loses_plasticity",
        "minatar_adam_loses_plasticity",
        "octax_adam_loses_plasticity",
    }


def test_ledger_and_its_rows_need_no_torch() -> None:
    code = "import sys; from dyniso.report import ledger, rows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
