"""What a module's code reaches: the graph of imports, read from the sources, and a digest of everything below a module.

A stored run and an executed chapter stay valid as long as the code that they reach says the same. Comments, docstrings
and the layout of the text say nothing, so they are left out of a digest. Standard library only.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def modules(folder: Path = PACKAGE) -> dict[str, Path]:
    """Every module below a package's folder, by its dotted name."""
    return {module_name(path, folder): path for path in sorted(folder.rglob("*.py"))}


def module_name(path: Path, folder: Path) -> str:
    """dyniso/study/rl/ppo.py -> "dyniso.study.rl.ppo"; dyniso/__init__.py -> "dyniso"."""
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(*, lazy: bool = False, folder: Path = PACKAGE) -> dict[str, set[str]]:
    """Which module of a package imports which, read from the sources.

    A name that a package offers by a lazy table is an import of the module that defines it: `from dyniso import AdamO`
    imports dyniso.optim. Such a table is spelled out below `if TYPE_CHECKING:`, and read from there.

    Args:
        lazy: False: imports that run when the module is imported. True: those inside functions, which run on a call.
            `if TYPE_CHECKING:` blocks never run and are in neither.
        folder: of the package; dyniso's own by default.
    Returns:
        One entry a module, e.g. {"dyniso.optim": {"dyniso.isometry"}, "dyniso.isometry": {"dyniso.checks"}, ...}.

    >>> import_graph()["dyniso.checks"]
    set()
    """
    found = modules(folder)
    offered = lazy_tables(found)
    graph: dict[str, set[str]] = {}
    for module, path in found.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        wanted = imported_names(tree_of(path), package, lazy=lazy)
        graph[module] = set(resolved(wanted, found.keys(), offered)) - {module}
    return graph


def resolved(names: Iterable[str], known: Iterable[str], offered: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The modules that dotted names stand for: themselves, the module that a lazy table names, or that they are in."""
    known = set(known)
    for name in names:
        package, _, last = name.rpartition(".")
        target = name if name in known else offered.get(package, {}).get(last, package)
        if target in known:
            yield target


def offers(package: str, path: Path) -> dict[str, str]:
    """The names that a package's lazy table offers, with the module that each comes from: {"AdamO": "dyniso.optim"}."""
    table: dict[str, str] = {}
    for node in tree_of(path).body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for name in imported_names(ast.Module(node.body, []), package, lazy=False):
                module, _, last = name.rpartition(".")
                table[last] = module
    return table


def lazy_tables(found: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """`offers` of every package among some modules."""
    return {m: offers(m, path) for m, path in found.items() if path.name == "__init__.py"}


def imported_names(tree: ast.Module, package: str, *, lazy: bool) -> Iterator[str]:
    """Dotted names that a module imports; `from a import b` gives "a.b", whether b is a module or not."""
    for node, in_function in walk_imports(tree):
        if in_function != lazy:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def walk_imports(node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement below `node`, and whether it stands inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, in_function
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        else:
            yield from walk_imports(child, in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


@functools.cache
def whole_graph(folder: Path = PACKAGE) -> dict[str, frozenset[str]]:
    """Imports at the top of modules and inside functions together."""
    early, late = import_graph(folder=folder), import_graph(lazy=True, folder=folder)
    return {m: frozenset(early[m] | late[m]) for m in early}


def reach(start: Iterable[str], without: Iterable[str] = (), folder: Path = PACKAGE) -> set[str]:
    """Every module that code in `start` can run, imports inside functions included.

    Args:
        start: dotted names; what is no module of the package is passed over.
        without: modules that are left out, with what is reached by them alone; a name ending in "." leaves out all
            modules that begin with it.

    >>> "dyniso.isometry" in reach(["dyniso.optim"]), "dyniso.entk" in reach(["dyniso.optim"])
    (True, False)
    """
    graph, out = whole_graph(folder), tuple(without)

    def wanted(module: str) -> bool:
        return module in graph and not any(module == o or (o.endswith(".") and module.startswith(o)) for o in out)

    found: set[str] = set()
    todo = [m for m in start if wanted(m)]
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += [m for m in graph[module] if wanted(m)]
    return found


def reached_by_source(text: str, folder: Path = PACKAGE, without: Iterable[str] = ()) -> set[str]:
    """Every module of the package that a script reaches by its import statements; `without` as of `reach`.

    >>> "dyniso.optim" in reached_by_source("from dyniso import AdamO")
    True
    """
    found = modules(folder)
    offered = lazy_tables(found)
    tree = ast.parse(text)
    names = [*imported_names(tree, "", lazy=False), *imported_names(tree, "", lazy=True)]
    return reach(resolved(names, found.keys(), offered), without, folder)


def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file; it is shared, so nobody changes it."""
    return parsed(path.read_text(encoding="utf-8"))


@functools.cache
def parsed(text: str) -> ast.Module:
    """The syntax tree of a text, parsed once a process."""
    return ast.parse(text)


@functools.cache
def code(text: str) -> str:
    """A source without what does not run: comments, docstrings, and the layout of the text.

    >>> code('def f(x):  # a comment\\n    "A docstring."\\n    return ( x )') == code("def f(x):\\n    return x")
    True
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def digest_of(names: Iterable[str], folder: Path = PACKAGE) -> str:
    """Sixteen hex digits over the code of some modules, whatever the order in which they are named."""
    found = modules(folder)
    whole = hashlib.sha256()
    for name in sorted(names):
        whole.update(f"{name}\0{code(found[name].read_text(encoding='utf-8'))}\0".encode())
    return whole.hexdigest()[:16]
