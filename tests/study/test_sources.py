"""Contracts of dyniso.study.sources: what a module reaches, and digests that comments do not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from dyniso.study import sources


def test_import_graph_separates_top_level_from_lazy_imports(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    texts = {
        "__init__.py": "from . import b",
        "a.py": "import os\nif TYPE_CHECKING:\n    from .b import y\nfrom pack.sub.c import z",
        "b.py": "def f():\n    from . import a\n    import pack.sub.c",
        "sub/__init__.py": "",
        "sub/c.py": "from ..b import f",
    }
    for name, text in texts.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    top = {"pack": {"pack.b"}, "pack.a": {"pack.sub.c"}, "pack.b": set(), "pack.sub": set(), "pack.sub.c": {"pack.b"}}
    assert sources.import_graph(folder=package) == top
    assert sources.import_graph(lazy=True, folder=package)["pack.b"] == {"pack.a", "pack.sub.c"}


def test_import_graph_of_dyniso_has_every_module_and_no_cycle() -> None:
    graph = sources.import_graph()
    assert len(graph) == len(list(sources.PACKAGE.rglob("*.py")))
    left = dict(graph)
    while left:
        leaves = {module for module, imports in left.items() if not imports & left.keys()}
        assert leaves, f"these modules import each other in a circle: {sorted(left)}"
        left = {module: imports for module, imports in left.items() if module not in leaves}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a = 1  # why", "a = 1"),
        ('"""Module."""\na = 1', "a = 1"),
        ('def f():\n    "What."\n    return 1', "def f():\n    return 1"),
        ('class A:\n    "What."', "class A:\n    pass"),
        ("a = ( 1,\n  2 )", "a = (1, 2)"),
    ],
)
def test_code_is_the_same_without_comments_docstrings_and_layout(one: str, other: str) -> None:
    assert sources.code(one) == sources.code(other)


def test_code_differs_with_a_text_that_is_no_docstring() -> None:
    assert sources.code("a = 'x'") != sources.code("a = 'y'")


def test_reach_leaves_out_what_is_reached_by_what_is_left_out_alone(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    for name, text in {"__init__": "", "a": "from . import b, d", "b": "from . import c", "c": "", "d": ""}.items():
        (package / f"{name}.py").write_text(text)
    assert sources.reach(["pack.a"], folder=package) >= {"pack.a", "pack.b", "pack.c", "pack.d"}
    assert sources.reach(["pack.a"], ["pack.b", "pack"], package) == {"pack.a", "pack.d"}


def test_digest_does_not_depend_on_the_order_in_which_modules_are_named() -> None:
    names = ["dyniso.isometry", "dyniso.polar", "dyniso.checks"]
    assert sources.digest_of(names) == sources.digest_of(names[::-1])


def test_reach_follows_imports_of_imports(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "a": "from . import b",
        "b": "from . import c",
        "c": "from . import d",
        "d": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert sources.reach(["pack.a"], folder=package) >= {"pack.a", "pack.b", "pack.c", "pack.d"}
