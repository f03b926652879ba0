"""The book's ledger: what is stated about the method, and where a chapter checks it.

The statements are a data file, book/statements.toml. Each names the lines of chapters that check it by a phrase of
their sentence, not by their number, so that chapters can grow; the numbers are looked up when a page is made.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from .book import ClaimLine, claim_lines, find_claim

SOURCES = {
    "paper": "the paper",
    "readers": "readers of the paper",
    "code": "the authors' public code",
    "literature": "cited literature",
    "derived": "our derivation",
}
REASONS = {
    "unknown": "what the paper says or did is not known to us",
    "not run": "not run, or not in a way that decides it",
    "theory": "a theorem that is quoted, or open mathematics",
    "no line": "no line: held by a proof, a unit test or a table, or quick to check",
}
STATUSES = ("checked", "differs", "open")


@dataclass(frozen=True)
class Evidence:
    """A line of a chapter: the chapter's name, e.g. "07_adamo", and a phrase of the line's sentence."""

    chapter: str
    says: str


@dataclass(frozen=True)
class Statement:
    """One statement, with the lines that check it or the reason why none does."""

    id: str  # its section and a word, e.g. "3.2-flow"
    source: str  # a key of SOURCES
    statement: str  # in our words, MyST
    evidence: tuple[Evidence, ...] = ()
    differ: str = ""  # how our measurement differs from the statement
    open: str = ""  # why it is not checked, or what is not settled
    why: str = ""  # a key of REASONS, beside open

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source = {self.source!r}{nearest(self.source, SOURCES)}")
        if self.open and self.why not in REASONS:
            raise ValueError(f"why = {self.why!r}{nearest(self.why, REASONS)}")
        if self.why and not self.open:
            raise ValueError("why without open")
        if self.differ and not self.evidence:
            raise ValueError("differ without evidence")
        if bool(self.evidence) == bool(self.open) and not self.differ:
            raise ValueError("expected either evidence or open, or differ with evidence")

    @property
    def section(self) -> int:
        """The number before the first point of the id."""
        return int(self.id.split(".")[0])

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return "differs" if self.differ else "checked" if self.evidence else "open"


@dataclass(frozen=True)
class Objection:
    """An objection to the paper's case, and what this book's experiments say to it."""

    id: str
    objection: str
    says: str
    open: str  # what remains
    evidence: tuple[Evidence, ...] = ()


Entry = TypeVar("Entry", Statement, Objection)


@dataclass(frozen=True)
class Ledger:
    """The data file as values."""

    statements: tuple[Statement, ...]
    objections: tuple[Objection, ...]

    def counts(self, section: int | None = None) -> dict[str, int]:
        """How many statements, of one section or of all, have each status."""
        chosen = [s.status for s in self.statements if section in (None, s.section)]
        return {status: chosen.count(status) for status in STATUSES}

    @property
    def entries(self) -> tuple[Statement | Objection, ...]:
        """Statements, then objections."""
        return (*self.statements, *self.objections)


def read(path: Path) -> Ledger:
    """The ledger of a TOML file with tables [[statement]] and [[objection]].

    Raises:
        ValueError: a key is unknown (the message has the nearest one) or missing, an id is there twice, a source is
            unknown, or an entry has neither evidence nor a reason. The message names the entry.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    check_keys(tables, ("statement", "objection"), path.name)
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
    check_keys(table, [field.name for field in fields(kind)], name)
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    missing = [key for key in needed if not table.get(key)]
    if missing:
        raise ValueError(f"{name}: no {' and no '.join(missing)}")
    for piece in table.get("evidence", ()):
        check_keys(piece, ("chapter", "says"), f"{name}, evidence")
    texts = {key: " ".join(value.split()) for key, value in table.items() if key != "evidence"}
    try:
        return kind(**texts, evidence=tuple(Evidence(**piece) for piece in table.get("evidence", ())))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def check_keys(table: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """ValueError for a key that is not allowed."""
    for key in table:
        if key not in allowed:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, allowed)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error message.

    >>> nearest("evidense", ["evidence", "open"])
    '; did you mean evidence? (known: evidence, open)'
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"{f'; did you mean {close[0]}?' if close else ''} (known: {', '.join(known)})"


def hard_lines(*lines: str) -> str:
    r"""Markdown lines of one list item, each on a line of its own.

    >>> print(hard_lines("A statement.", "Its reason."))
    A statement.\
      Its reason.
    """
    return "\\\n  ".join(lines)


class Chapters:
    """The sources of the chapters in a folder, each read and parsed once."""

    def __init__(self, folder: Path) -> None:
        self.paths = {path.stem: path for path in sorted(folder.glob("*.py"))}
        self.parsed: dict[str, list[ClaimLine]] = {}

    def lines(self, chapter: str) -> list[ClaimLine]:
        """The claim lines of a chapter; LookupError with the nearest name if there is no such chapter."""
        if chapter not in self.paths:
            raise LookupError(f"no chapter {chapter!r}{nearest(chapter, self.paths)}")
        if chapter not in self.parsed:
            self.parsed[chapter] = claim_lines(self.paths[chapter].read_text(encoding="utf-8"))
        return self.parsed[chapter]

    def title(self, chapter: str) -> str:
        """The first heading of a chapter."""
        lines = self.paths[chapter].read_text(encoding="utf-8").splitlines()
        return next(line.removeprefix("# # ") for line in lines if line.startswith("# # "))

    def find(self, piece: Evidence) -> ClaimLine:
        """The line that a piece of evidence means; LookupError that names chapter and phrase."""
        lines = self.lines(piece.chapter)
        try:
            return find_claim(lines, piece.says)
        except LookupError as error:
            raise LookupError(f"{piece.chapter}: {error}") from None

    def problems(self, ledger: Ledger) -> list[str]:
        """One line for each piece of evidence that is not found, with the id of its entry."""
        found = []
        for one in ledger.entries:
            for piece in one.evidence:
                try:
                    self.find(piece)
                except LookupError as error:
                    found.append(f"{one.id}: {error}")
        return found

    def links(self, evidence: Iterable[Evidence]) -> str:
        """Markdown: each chapter as a link, with the numbers of its lines (the phrase of a line without number)."""
        by_chapter: dict[str, list[ClaimLine]] = {}
        for piece in evidence:
            found = self.find(piece)
            if found not in by_chapter.setdefault(piece.chapter, []):
                by_chapter[piece.chapter].append(found)
        parts = []
        for chapter, lines in sorted(by_chapter.items()):
            lines.sort(key=lambda one: one.line)
            names = [f"“{one.sentence}”" if one.number is None else str(one.number) for one in lines]
            parts.append(f"[{self.title(chapter)}]({chapter}.ipynb) {', '.join(names)}")
        return "; ".join(parts)

    def row(self, one: Statement, *, differ: bool = True) -> str:
        """Markdown: a statement, its source, and where it is checked or why it is not.

        `differ=False` leaves out how a measurement differs, and says only that it does.
        """
        lines = [f"{one.statement} (*{SOURCES[one.source]}*)"]
        if one.evidence:
            text = {"checked": "Checked:", "differs": f"**Differs:** {one.differ}" if differ else "**Differs:**"}
            lines.append(f"{text[one.status]} {self.links(one.evidence)}")
        if one.open:
            lines.append(f"**Open:** {one.open}")
        return hard_lines(*lines)
