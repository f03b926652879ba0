"""Contracts of tools/mutants.py: the list is sound, and what tries it tells a caught mistake from one that survives."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dyniso_mutants_tool", ROOT / "tools" / "mutants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tool, tmp_path, monkeypatch) -> Path:
    """A project of one module and one test, as the tool sees it."""
    (tmp_path / "half.py").write_text("def half(x):\n    return x / 2\n")
    (tmp_path / "test_half.py").write_text("from half import half\n\n\ndef test_half():\n    assert half(4) == 2\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    return tmp_path


def entry(**changes):
    made = {"file": "half.py", "old": "x / 2", "new": "x / 3", "why": "a third", "tests": ["test_half.py"]}
    return made | changes


def test_list_is_sound_and_long_enough(tool):
    found = tool.entries()
    assert len(found) >= 60
    assert max(Counter(tool.key(e) for e in found).values()) == 1
    assert all(e["why"] and ("tests" in e) != ("equivalent" in e) for e in found)


def test_every_folder_of_the_library_has_mutants(tool):
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "dyniso").rglob("*.py")}
    assert folders - {Path(e["file"]).parent.as_posix() for e in tool.entries()} == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"old": "x / 5"}, "stands 0 times"),
        ({"old": "x"}, "stands 2 times"),
        ({"new": "x / 2"}, "it must stand once"),
        ({"tests": []}, "names no tests"),
        ({"tests": ["test_third.py"]}, r"tests that are not there: \['test_third\.py'\]"),
        ({"reason": "none"}, "allowed are"),
    ],
)
def test_entry_that_cannot_be_tried_is_an_error_that_says_why(tool, project, changes, message):
    with pytest.raises(ValueError, match=message):
        tool.require_entry(entry(**changes))


@pytest.mark.parametrize(("new", "result"), [("x / 3", "caught"), ("0.5 * x", "survived")])
def test_mistake_is_caught_by_a_test_that_fails_and_taken_back(tool, project, new, result):
    row = tool.tried(entry(new=new), project)
    assert (row["result"], bool(row["by"])) == (result, result == "caught")
    assert "x / 2" in (project / "half.py").read_text()


def test_what_saw_a_mistake_earlier_is_run_first_and_no_more_if_it_still_does(tool, project, monkeypatch):
    calls, run = [], tool.first_failure
    monkeypatch.setattr(tool, "first_failure", lambda tests, *rest: calls.append(tests) or run(tests, *rest))
    assert tool.tried(entry(), project, "test_half.py::test_half")["result"] == "caught"
    assert tool.tried(entry(new="0.5 * x"), project, "test_half.py::test_half")["result"] == "survived"
    assert tool.tried(entry(), project, "test_half.py::test_gone")["by"] == "test_half.py::test_half"
    assert tool.tried(entry(), project, "test_other.py::test_other")["by"] == "test_half.py::test_half"
    one, whole = ["test_half.py::test_half"], ["test_half.py"]
    assert calls == [one, one, whole, ["test_half.py::test_gone"], whole, whole]


def test_tests_that_fail_without_any_mutant_are_refused(tool, project):
    tool.require_passing([entry()], project)
    (project / "half.py").write_text("def half(x):\n    return x\n")
    with pytest.raises(RuntimeError, match=r"test_half\.py::test_half fails without any mutant"):
        tool.require_passing([entry()], project)


def test_result_is_known_until_its_tests_or_the_code_change(tool, project, monkeypatch):
    monkeypatch.setattr(tool, "TARGET", project / "table.json")
    tool.write([tool.tried(entry(), project)])
    assert [row["result"] for row in tool.known([entry()]).values()] == ["caught"]
    assert tool.known([entry(tests=["test_half.py::test_half"])]) == {}
    (project / "test_half.py").write_text("def test_half():\n    pass\n")
    assert tool.known([entry()]) == {}


def test_each_mutant_is_tried_once_and_none_after_the_time(tool, project, monkeypatch):
    monkeypatch.setattr(tool, "copied", lambda folder: project)
    both = [entry(), entry(new="0.5 * x")]
    assert {row["new"]: row["result"] for row in tool.try_all(both, 1, 1e9)} == {
        "x / 3": "caught",
        "0.5 * x": "survived",
    }
    assert list(tool.try_all(both, 1, -1)) == []
