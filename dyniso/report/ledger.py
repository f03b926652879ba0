"""The book's ledger: what is stated about the method, where a chapter checks it, and which claims judge it.

The statements are a data file, book/statements.toml. Each names the observations that check it, and the claims of
`dyniso.report.claims` whose verdicts it stands on; `dyniso.report.words` makes one word of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ..checks import nearest, require_keys, suggestion
from .claims import SOURCES
from .notebook import ClaimLine, claim_lines, is_named

REASONS = {
    "unknown": "what the paper says or did is not known to us",
    "not run": "not run, or not in a way that decides it",
    "theory": "a theorem that is quoted, or open mathematics",
    "no line": "no line: held by a proof, a unit test or a table, or quick to check",
}


@dataclass(frozen=True)
class Statement:
    """One statement, with the lines that check it, the claims that judge it, or the reason why there are none."""

    id: str  # its section and a word, e.g. "3.2-flow"
    source: str  # a key of SOURCES
    statement: str  # in our words, MyST
    evidence: tuple[str, ...] = ()  # names of observations
    verdicts: tuple[str, ...] = ()  # ids of claims
    differ: str = ""  # how our measurement differs from the statement
    open: str = ""  # why it is not checked, or what is not settled
    why: str = ""  # a key of REASONS, beside open

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source={self.source!r}; {nearest(self.source, SOURCES)}")
        if self.open and self.why not in REASONS:
            raise ValueError(f"why={self.why!r}; {nearest(self.why, REASONS)}")
        if self.why and not self.open:
            raise ValueError("why without open")
        grounds = bool(self.evidence or self.verdicts)
        if self.differ and not grounds:
            raise ValueError("differ without evidence or verdicts")
        if grounds == bool(self.open) and not self.differ:
            raise ValueError("expected evidence or verdicts, or open, or differ beside both")

    @property
    def section(self) -> int:
        """The number before the first point of the id."""
        return int(self.id.split(".")[0])

    @property
    def lines(self) -> str:
        """How its lines stand: "differs", "checked", "open", or "" where verdicts stand alone."""
        if self.differ:
            return "differs"
        return "checked" if self.evidence else "open" if self.open else ""


@dataclass(frozen=True)
class Objection:
    """An objection to the paper's case, and what this book's experiments say to it."""

    id: str
    objection: str
    says: str
    open: str  # what remains
    evidence: tuple[str, ...] = ()  # names of observations


Entry = TypeVar("Entry", Statement, Objection)


@dataclass(frozen=True)
class Ledger:
    """The data file as values."""

    statements: tuple[Statement, ...]
    objections: tuple[Objection, ...]

    @property
    def entries(self) -> tuple[Statement | Objection, ...]:
        """Statements, then objections."""
        return (*self.statements, *self.objections)


def read(path: Path) -> Ledger:
    """The ledger of a TOML file with tables `[[statement]]` and `[[objection]]`.

    Raises:
        ValueError: a key is unknown (the message has the nearest one) or missing, an id is there twice, a source is
            unknown, or an entry has neither evidence nor verdicts nor a reason. The message names the entry.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    require_keys(path.name, tables, ("statement", "objection"))
    statements = tuple(entry(Statement, table) for table in tables.get("statement", []))
    objections = tuple(entry(Objection, table) for table in tables.get("objection", []))
    ledger = Ledger(statements, objections)
    ids = [one.id for one in ledger.entries]
    for name in ids:
        if ids.count(name) > 1:
            raise ValueError(f"{path.name}: the id {name!r} is there {ids.count(name)} times")
    return ledger


def entry(kind: type[Entry], table: Mapping[str, Any]) -> Entry:
    """One entry from its TOML table; ValueError that names it."""
    name = f"{kind.__name__.lower()} {table.get('id', '(without an id)')}"
    require_keys(name, table, [field.name for field in fields(kind)])
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    missing = [key for key in needed if not table.get(key)]
    if missing:
        raise ValueError(f"{name}: no {' and no '.join(missing)}")
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else " ".join(v.split()) for key, v in table.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def hard_lines(*lines: str) -> str:
    r"""Markdown lines of one list item, each on a line of its own.

    >>> print(hard_lines("A statement.", "Its reason."))
    A statement.\
      Its reason.
    """
    return "\\\n  ".join(lines)


def links(names: Iterable[str]) -> str:
    """Markdown: observations as references.

    >>> links(["adam-loses", "adamo-keeps"])
    '{prf:ref}`adam-loses`, {prf:ref}`adamo-keeps`'
    """
    return ", ".join(f"{{prf:ref}}`{name}`" for name in names)


class Chapters:
    """What the chapters in a folder claim, by name; each source is read and parsed once."""

    def __init__(self, folder: Path) -> None:
        self.lines: dict[str, list[ClaimLine]] = {
            path.stem: claim_lines(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))
        }

    def find(self, name: str) -> tuple[str, ClaimLine]:
        """Chapter and line of the observation of a name; LookupError, with the nearest name, unless one has it."""
        hits = [(chapter, one) for chapter, lines in self.lines.items() for one in lines if is_named(one, name)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise LookupError(f"{name!r} is in several chapters: {', '.join(chapter for chapter, _ in hits)}")
        known = [one.name for lines in self.lines.values() for one in lines]
        raise LookupError(f"no observation {name!r}{suggestion(name, known)}")

    def problems(self, ledger: Ledger) -> list[str]:
        """One line for each name in evidence that is not found, with its entry, and for each name that is doubled."""
        found = []
        for one in ledger.entries:
            for name in one.evidence:
                try:
                    self.find(name)
                except LookupError as error:
                    found.append(f"{one.id}: {error}")
        names = [one.name for lines in self.lines.values() for one in lines]
        return [
            *found,
            *(f"{name}: claimed {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1),
        ]
