"""What modules declare, read from their sources: the names in their tables, and the methods of `dyniso.baselines`.

So the specs know every allowed name without a second list and without torch. Standard library only.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .sources import PACKAGE, code, module_name, tree_of

METHODS = "baselines"  # the folder whose classes carry names


def names(module: str, table: str, folder: Path = PACKAGE) -> tuple[str, ...]:
    """The names in a table at the top of a module: keys of a dict, or items of a tuple, all written out.

    Args:
        module: below the package, e.g. "study.streams".
        table: e.g. "KINDS".
    Raises:
        LookupError: no such table, or one that is not written out.

    >>> names("initialisation", "INITS")
    ('orthogonal', 'kaiming', 'default')
    """
    node = assigned(module, table, folder)
    items = node.keys if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Tuple) else []
    found = tuple(item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str))
    if not found or len(found) < len(items):
        raise LookupError(f"{module}.{table} is no table of names that are written out")
    return found


def literal(module: str, table: str, folder: Path = PACKAGE) -> Any:
    """The value of a table that is a plain literal; LookupError where there is none of that name."""
    return ast.literal_eval(assigned(module, table, folder))


def assigned(module: str, name: str, folder: Path = PACKAGE) -> ast.expr:
    """What a module assigns to a name at its top."""
    for node in tree_of(folder.joinpath(*module.split(".")).with_suffix(".py")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ) if target == name:
                return value
    raise LookupError(f"{module} has no {name}")


class Declared(NamedTuple):
    """One method of `dyniso.baselines`."""

    file: Path
    node: ast.ClassDef


@functools.cache
def methods(folder: Path = PACKAGE) -> dict[str, Declared]:
    """Every method by its name: `class ReDo(Baseline, name="redo")` declares "redo".

    >>> methods()["redo"].node.name
    'ReDo'
    """
    found = {}
    for file in sorted((folder / METHODS).glob("*.py")):
        for node in [n for n in tree_of(file).body if isinstance(n, ast.ClassDef)]:
            for keyword in node.keywords:
                if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                    found[str(keyword.value.value)] = Declared(file, node)
    return found


def mentioned(nodes: Iterable[ast.AST]) -> set[str]:
    """Every name that code mentions, after a point too."""
    inside = [n for node in nodes for n in ast.walk(node)]
    return {n.id for n in inside if isinstance(n, ast.Name)} | {n.attr for n in inside if isinstance(n, ast.Attribute)}


def needed(name: str | None, folder: Path = PACKAGE) -> list[Declared]:
    """A method's own class, and those that it mentions, such as the one it derives from; none for no method."""
    by_class = {d.node.name: d for d in methods(folder).values()}
    todo = [methods(folder)[name]] if name is not None else []
    found: list[Declared] = []
    while todo:
        declared = todo.pop()
        if declared not in found:
            found.append(declared)
            helpers = [n for n in tree_of(declared.file).body if not isinstance(n, ast.ClassDef | ast.ImportFrom)]
            todo += [by_class[c] for c in mentioned([declared.node, *helpers]) if c in by_class]
    return found


def method_modules(folder: Path = PACKAGE) -> set[str]:
    """The modules that hold methods."""
    return {module_name(d.file, folder) for d in methods(folder).values()}


def method_code(name: str | None, folder: Path = PACKAGE) -> Iterator[tuple[str, str]]:
    """(module, code) of every module that a method's classes are in, without the classes of other methods."""
    classes = needed(name, folder)
    kept = {d.node.name for d in classes}
    other = {d.node.name for d in methods(folder).values()} - kept
    for file in sorted({d.file for d in classes}):
        body = [n for n in tree_of(file).body if not (isinstance(n, ast.ClassDef) and n.name in other)]
        yield module_name(file, folder), code(ast.unparse(ast.Module(body, [])))
