"""The parameters cell of a chapter: the documentation and the check of its own values.

Each line is `name = value  # ALLOWED: help`, ALLOWED being `lo..hi` or `a | b | c`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dyniso.checks import nearest, suggestion

Value = bool | int | float | str


class UsageError(Exception):
    """The caller asked for something that does not exist or is not allowed; one line."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell. Either `choices` or `bounds` limits its values."""

    name: str
    default: Value
    allowed: str
    help: str
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def parse(cls, line: str) -> Parameter:
        """Read `name = value  # ALLOWED: help`.

        Raises UsageError if the line is something else, or the value is not allowed.
        """
        try:
            parameter = cls(*limits(*split_line(line)))
        except (SyntaxError, TypeError, ValueError):
            expected = "`name = value  # lo..hi: help` or `name = value  # a | b: help`"
            raise UsageError(f"parameters cell: expected {expected}, got `{line.strip()}`") from None
        parameter.read(parameter.default)
        return parameter

    def read(self, value: Value) -> Value:
        """`value`, which may be text from the command line, in the type of the default.

        Raises UsageError, naming the value and what is allowed, if it is ill-typed or not allowed.
        """
        got = value if isinstance(value, str) else repr(value)
        if self.choices:
            if got not in self.choices:
                raise UsageError(f"{self.name} = {got} is not one of {self.allowed}{suggestion(got, self.choices)}")
            return got == "True" if isinstance(self.default, bool) else type(self.default)(got)
        try:
            number = int(got) if isinstance(self.default, int) else float(got)
        except ValueError:
            wanted = "a whole number" if isinstance(self.default, int) else "a number"
            raise UsageError(f"{self.name} = {got} is not {wanted}; allowed: {self.allowed}") from None
        if not self.bounds[0] <= number <= self.bounds[1]:
            raise UsageError(f"{self.name} = {got} is out of range; allowed: {self.allowed}")
        return number


def split_line(line: str) -> tuple[str, Value, str, str]:
    """Name, value, ALLOWED and help of a line of a parameters cell; some ValueError if it has not all four.

    >>> split_line("seeds = 4  # 1..64: how many seeds")
    ('seeds', 4, '1..64', 'how many seeds')
    """
    (node,) = ast.parse(line).body
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
        raise ValueError("not an assignment to one name")
    comment = line.encode()[node.value.end_col_offset :].decode().strip().removeprefix("#")
    allowed, _, help_text = (part.strip() for part in comment.partition(":"))
    default = ast.literal_eval(node.value)
    if not isinstance(default, bool | int | float | str) or not help_text:
        raise ValueError("not a plain value with a range or choices, and a help text")
    return node.targets[0].id, default, allowed, help_text


def limits(name: str, default: Value, allowed: str, help_text: str) -> tuple[Any, ...]:
    """The fields of a Parameter; some ValueError if ALLOWED is neither a range of numbers nor choices."""
    if "|" in allowed:
        choices = tuple(word.strip().strip("'\"") for word in allowed.split("|"))
        return name, default, allowed, help_text, choices
    if isinstance(default, bool | str):
        raise ValueError("a range needs a number")
    low, high = (float(bound) for bound in allowed.split(".."))
    return name, default, allowed, help_text, (), (low, high)


def declared_parameters(nb: Any) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, from its cell tagged `parameters`; empty if it has none."""
    cells = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) > 1:
        raise UsageError(f"{len(cells)} cells are tagged `parameters`; expected one")
    lines = cells[0].source.splitlines() if cells else []
    found = [Parameter.parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return {parameter.name: parameter for parameter in found}


def checked_parameters(declared: Mapping[str, Parameter], given: Mapping[str, Value]) -> dict[str, Value]:
    """`given`, in the declared types; UsageError for a name that is not declared or a value that is not allowed."""
    for name in given:
        if name not in declared:
            raise UsageError(f"unknown parameter {name}; {nearest(name, declared)}")
    return {name: declared[name].read(value) for name, value in given.items()}
