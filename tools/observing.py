"""Observations of the book: what `claim` showed as numbered Markdown, and a check of their names before a run."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dyniso.checks import suggestion

REFERENCE = re.compile(r"prf:ref\}+`(?:[^`<]*<)?([^`<>]+)>?`")
LABEL = re.compile(r"^[# ]*:label: (\S+)$", re.MULTILINE)


class Line(NamedTuple):
    """A name in a file of the project."""

    name: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def with_observations(cells: Iterable[Any]) -> Iterator[Any]:
    """The cells, with what `claim` showed as observations of the book: Markdown below the cell that checked them."""
    import nbformat

    for cell in cells:
        shown = [o for o in cell.get("outputs", []) if "claim" in o.get("metadata", {}).get("dyniso", {})]
        yield cell
        if shown:
            cell.outputs = [output for output in cell.outputs if output not in shown]
            blocks = [observation(cell.source, **output["metadata"]["dyniso"]) for output in shown]
            yield nbformat.v4.new_markdown_cell("\n\n".join(blocks), id=f"{cell.id}-observations")


def observation(source: str, claim: str, sentence: str) -> str:
    """One checked sentence in MyST: numbered, with its name as anchor, and what was checked behind a fold."""
    from dyniso.report.notebook import claim_lines, is_named

    condition = next((one.condition for one in claim_lines(source) if is_named(one, claim)), "")
    fold = f"::::{{dropdown}} What was checked\n```python\n{condition}\n```\n::::\n" if condition else ""
    return f":::::{{prf:observation}}\n:label: {claim}\n\n✓ {sentence}\n\n{fold}:::::"


def name_faults(root: Path) -> list[str]:
    """One line for each name of an observation that is doubled, or referred to and not there."""
    from dyniso.report.notebook import claim_lines, is_named

    chapters = {path: path.read_text(encoding="utf-8") for path in sorted((root / "notebooks").glob("*.py"))}
    pages = chapters | {path: path.read_text(encoding="utf-8") for path in sorted((root / "book").glob("*.md"))}
    faults = [f"{path.name}:{line}: no Python" for path, line in broken(chapters)]
    if faults:
        return faults
    claims = [(path, one) for path, text in chapters.items() for one in claim_lines(text)]
    owner: dict[str, Line] = {}
    for path, one in claims:
        here = Line(one.name, path.name, one.line)
        if one.name in owner:
            faults.append(f"{here}: observation {one.name} is also at {owner[one.name]}")
        owner.setdefault(one.name, here)
    labels = {label for text in pages.values() for label in LABEL.findall(text)}
    for used in references(root, pages):
        if used.name not in labels and not any(is_named(one, used.name) for _, one in claims):
            faults.append(f"{used}: no observation {used.name}{suggestion(used.name, [*owner, *labels])}")
    return faults


def broken(chapters: dict[Path, str]) -> Iterator[tuple[Path, int]]:
    """The chapters that are no Python, with the line."""
    for path, text in chapters.items():
        try:
            ast.parse(text)
        except SyntaxError as error:
            yield path, error.lineno or 0


def references(root: Path, pages: dict[Path, str]) -> Iterator[Line]:
    """Every name that prose or the ledger refers to; a name with an inserted value is left out."""
    for path, text in pages.items():
        for found in REFERENCE.finditer(text):
            if "{" not in found[1]:
                yield Line(found[1], path.name, text.count("\n", 0, found.start()) + 1)
    ledger = root / "book" / "statements.toml"
    text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
    for entries in tomllib.loads(text).values():
        for name in [name for entry in entries for name in entry.get("evidence", ())]:
            yield Line(name, ledger.name, text.count("\n", 0, text.find(f'"{name}"')) + 1)
