"""tools/notebooks.py: the grammar of parameters, content keys, and saving whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest

from dyniso import baselines
from dyniso.report import appendix
from dyniso.study import sources

TOOL = Path(__file__).parents[2] / "tools" / "notebooks.py"

pytest.importorskip("papermill")

CHAPTER = """\
# %% [markdown]
# # A toy

# %% tags=["parameters"]
tier = "check"  # smoke | check: how much
count = 3  # 1..9: how many points
rate = 0.5  # 1e-3..1.0: step size
fast = True  # True | False: skip the rest

# %%
import os
if False:
    from dyniso import a
print(tier, count, os.environ["TQDM_DISABLE"], os.environ["OMP_NUM_THREADS"])

# %%
from pathlib import Path
from IPython.display import display
folder = Path(os.environ["DYNISO_FIGURES"])
folder.mkdir()
(folder / "fig-toy.csv").write_text("x\\n1\\n")
mark = {"name": "fig-toy", "caption": "A point.", "alt": "One point."}
display({"image/png": "iVBORw0KGgo="}, metadata={"dyniso": mark}, raw=True)
display({"text/markdown": "A point."}, metadata={"dyniso": {"drop": True}}, raw=True)
"""


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dyniso_notebooks_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tool = load_tool()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one chapter that reaches dyniso.a and dyniso.b, a module that it does not reach, and a table."""
    library = {"__init__": "", "a": "from . import b\n", "b": "b = 1\n", "report": "from . import a\n"}
    files = {f"dyniso/{name}.py": text for name, text in library.items()}
    for name, text in (files | {"notebooks/01_toy.py": CHAPTER, "data/results/r.csv": "x\n"}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if anything is executed."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("papermill.execute_notebook", refuse)


def command(root: Path, *arguments: str) -> int:
    status: int = tool.main(["--root", str(root), *arguments])
    return status


# ------------------------------------------------------------------------------------------------------ parameters


def test_values_from_the_command_line_take_the_type_of_the_default(root: Path) -> None:
    declared = tool.parameters.declared_parameters(tool.execution.load(root / "notebooks" / "01_toy.py"))
    given = {"tier": "smoke", "count": "9", "rate": "1e-3", "fast": "False"}
    assert tool.parameters.checked_parameters(declared, given) == {
        "tier": "smoke",
        "count": 9,
        "rate": 0.001,
        "fast": False,
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("teir", "check", "unknown parameter teir; allowed are 'tier', 'count', 'rate', 'fast'; did you mean 'tier'?"),
        ("zzz", "1", "unknown parameter zzz; allowed are 'tier', 'count', 'rate', 'fast'"),
        ("tier", "chek", "tier = chek is not one of smoke | check; did you mean 'check'?"),
        ("count", "four", "count = four is not a whole number; allowed: 1..9"),
        ("count", "2.5", "count = 2.5 is not a whole number; allowed: 1..9"),
        ("count", "10", "count = 10 is out of range; allowed: 1..9"),
        ("rate", "fast", "rate = fast is not a number; allowed: 1e-3..1.0"),
        ("rate", "nan", "rate = nan is out of range; allowed: 1e-3..1.0"),
        ("fast", "1", "fast = 1 is not one of True | False"),
    ],
)
@pytest.mark.usefixtures("no_kernel")
def test_a_bad_parameter_is_one_line_and_status_2_before_any_kernel(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
) -> None:
    status = command(root, "run", str(root / "notebooks/01_toy.py"), "-p", name, value, "-o", str(root / "x.ipynb"))
    assert status == 2
    assert capsys.readouterr().err == f"notebooks.py: {message}\n"
    assert not (root / "x.ipynb").exists()


@pytest.mark.parametrize(
    "line",
    [
        "count = 3",
        "count = 3  # how many",
        "count = 3  # 1..9",
        "count = 3  # a..b: how many",
        "count = max(1, 2)  # 1..9: how many",
        "tier = 'a'  # 1..9: how much",
        "a, b = 1, 2  # 1..9: two",
        "import os",
        "count =",
        "count = 30  # 1..9: the default breaks its own range",
    ],
)
@pytest.mark.usefixtures("no_kernel")
def test_a_malformed_parameters_cell_stops_the_build_with_the_notebook_named(
    root: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    source = root / "notebooks" / "01_toy.py"
    source.write_text(CHAPTER.replace("count = 3  # 1..9: how many points", line))
    assert command(root, "build") == 2
    error = capsys.readouterr().err
    assert error.startswith("notebooks.py: 01_toy: ")
    assert error.count("\n") == 1


@pytest.mark.usefixtures("no_kernel")
def test_an_unknown_chapter_is_status_2_with_the_nearest_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(root, "build", "01_toi") == 2
    assert "did you mean '01_toy'?" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("changed", ["notebooks/01_toy.py", "dyniso/a.py", "dyniso/b.py", "constraints.txt"])
def test_key_changes_with_source_versions_and_the_code_that_the_chapter_reaches(root: Path, changed: str) -> None:
    source = root / "notebooks" / "01_toy.py"
    before = tool.Project(root).key(source, {})
    append(root / changed, "changed = 1\n")
    assert tool.Project(root).key(source, {}) != before


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ("dyniso/a.py", "# a comment\n"),
        ("dyniso/report.py", "changed = 1\n"),
        ("dyniso/__init__.py", "more = 1\n"),
        ("data/results/r.csv", "2\n"),
        ("book/x.md", "prose\n"),
    ],
)
def test_key_stays_with_comments_and_with_what_the_chapter_does_not_reach(root: Path, changed: str, text: str) -> None:
    source = root / "notebooks" / "01_toy.py"
    before = tool.Project(root).key(source, {})
    append(root / changed, text)
    assert tool.Project(root).key(source, {}) == before


def append(path: Path, text: str) -> None:
    """Change a file, or make it; trees and graphs that this process keeps of the package are forgotten."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    sources.whole_graph.cache_clear()


def test_key_changes_with_parameters_but_not_with_their_order(root: Path) -> None:
    source = root / "notebooks" / "01_toy.py"
    project = tool.Project(root)
    one_order = project.key(source, {"tier": "smoke", "count": 1})
    assert one_order == project.key(source, {"count": 1, "tier": "smoke"})
    assert one_order != project.key(source, {"tier": "smoke", "count": 2})


@pytest.mark.parametrize(
    ("changed", "stale"), [("notebooks/02_other.py", True), ("book/list.toml", True), ("book/x.md", False)]
)
def test_key_of_a_chapter_has_the_files_that_it_says_it_reads(root: Path, changed: str, stale: bool) -> None:
    (root / "book").mkdir()
    (root / "book" / "list.toml").write_text("a = 1\n")
    plain, reader = root / "notebooks" / "01_toy.py", root / "notebooks" / "03_reader.py"
    reader.write_text(CHAPTER + "\n# %%\n# reads: book/list.toml notebooks/*.py\n")
    before = [tool.Project(root).key(source, {}) for source in (plain, reader)]
    (root / changed).write_text("# %%\n1\n")
    after = [tool.Project(root).key(source, {}) for source in (plain, reader)]
    assert after[0] == before[0], "a chapter that reads none of it stays current"
    assert (after[1] != before[1]) is stale


@pytest.mark.parametrize(
    ("text", "stale"),
    [
        ('"""Another docstring."""\na = 1\n', True),
        ("a = 2\n", True),
        ("a = (1)  # a comment\n", False),
        ("a = (", True),
    ],
)
def test_of_a_module_that_a_chapter_says_it_reads_code_and_docstrings_count(root: Path, text: str, stale: bool) -> None:
    module, reader = root / "dyniso" / "shown.py", root / "notebooks" / "03_reader.py"
    module.write_text("a = 1\n")
    reader.write_text(CHAPTER + "\n# %%\n# reads: dyniso/shown.py\n")
    before = tool.Project(root).key(reader, {})
    module.write_text(text)
    assert (tool.Project(root).key(reader, {}) != before) is stale


@pytest.mark.usefixtures("no_kernel")
def test_reading_what_does_not_exist_is_status_2_with_chapter_and_pattern(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "notebooks" / "01_toy.py").write_text(CHAPTER + "\n# %%\n# reads: book/lst.toml\n")
    assert command(root, "build") == 2
    assert capsys.readouterr().err == "notebooks.py: 01_toy: it reads book/lst.toml, and there is no such file\n"


# --------------------------------------------------------------------------------------------------------- execution


@pytest.mark.slow
def test_build_executes_once_reproducibly_and_keeps_the_last_good_chapter(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DYNISO_FIGURES", raising=False)
    out, csv = root / "book/nb/01_toy.ipynb", root / "book/nb/figures/fig-toy.csv"
    assert command(root, "check") == 1
    assert command(root, "build") == 0
    assert command(root, "check") == 0
    first = out.read_bytes()
    assert "DYNISO_FIGURES" not in os.environ, "what is set for a kernel stays with the kernel"

    figure_cell = json.loads(first)["cells"][3]
    assert [output["output_type"] for output in figure_cell["outputs"]] == ["display_data"]
    assert figure_cell["metadata"]["mystnb"]["image"]["alt"] == "One point."
    assert figure_cell["metadata"]["mystnb"]["figure"]["name"] == "fig-toy"
    assert "figures/fig-toy.csv" in figure_cell["metadata"]["mystnb"]["figure"]["caption"]
    assert json.loads(first)["cells"][2]["outputs"][0]["text"] == ["check 3 1 1\n"]

    csv.unlink()
    assert command(root, "check") == 1, "a missing CSV makes its chapter stale"
    assert command(root, "build") == 0
    assert out.read_bytes() == first, "two executions give the same bytes"

    with monkeypatch.context() as patch:
        patch.setattr("papermill.execute_notebook", lambda *a, **k: pytest.fail("a current chapter was executed"))
        assert command(root, "build") == 0

    source = root / "notebooks" / "01_toy.py"
    source.write_text(CHAPTER + "\n# %%\n# why\nraise RuntimeError('no such\\nluck')\n")
    capsys.readouterr()
    assert command(root, "build") == 1
    assert "01_toy: cell 4 (`# why`): RuntimeError: no such luck" in capsys.readouterr().err
    assert out.read_bytes() == first
    assert sorted(path.name for path in out.parent.iterdir()) == ["01_toy.ipynb", "figures"]

    source.write_text(CHAPTER)
    source.rename(source.with_name("02_toy.py"))
    assert command(root, "build") == 0
    assert not out.exists(), "a chapter without a source is removed"


@pytest.mark.slow
def test_run_injects_parameters_and_exits_as_a_command(root: Path) -> None:
    call = [sys.executable, str(TOOL), "--root", str(root), "run", str(root / "notebooks" / "01_toy.py")]
    done = subprocess.run([*call, "-p", "count", "7", "-o", str(root / "mine.ipynb")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = json.loads((root / "mine.ipynb").read_text())["cells"]
    assert cells[2]["metadata"]["tags"] == ["injected-parameters"]
    assert cells[3]["outputs"][0]["text"] == ["check 7 1 1\n"]


def test_two_displays_in_a_figure_cell_are_refused() -> None:
    shown = {"output_type": "display_data", "metadata": {"dyniso": {"name": "f", "caption": "c", "alt": "a"}}}
    other = {"output_type": "display_data", "metadata": {}}
    with pytest.raises(ValueError, match="only display of its cell, found 2"):
        tool.execution.lift_figure(SimpleNamespace(outputs=[shown, other], metadata={}))


def test_neighbouring_stream_pieces_are_joined() -> None:
    pieces = [
        {"output_type": "stream", "name": name, "text": text} for name, text in (("a", "1"), ("a", "2"), ("b", "3"))
    ]
    assert [piece["text"] for piece in tool.execution.joined_streams(pieces)] == ["12", "3"]


READING = (
    CHAPTER
    + """
# %%
from dyniso.study import reads
for name in ("r", "none"):
    reads.note(Path.cwd().parent / "data" / "results" / f"{name}.csv")
reads.note(Path("/elsewhere/a.csv"))
"""
)


@pytest.mark.slow
def test_chapter_is_stale_with_the_tables_that_it_read_and_with_no_other(root: Path) -> None:
    (root / "notebooks/01_toy.py").write_text(READING)
    assert command(root, "build") == 0
    assert tool.Project(root).saved(root / "notebooks/01_toy.py")["reads"].keys() == {
        "data/results/none.csv",
        "data/results/r.csv",
    }
    (root / "data/results/other.csv").write_text("y\n")
    assert command(root, "check") == 0
    (root / "data/results/none.csv").write_text("y\n")
    assert command(root, "check") == 1, "a table that it looked for is there now"
    (root / "data/results/none.csv").unlink()
    assert command(root, "check") == 0
    (root / "data/results/r.csv").write_text("z\n")
    assert command(root, "check") == 1


def test_chapter_that_shows_docstrings_says_that_it_reads_their_modules() -> None:
    project = tool.Project(TOOL.parents[1])
    shown = [resolve_name(name) for name in appendix.PARTS.values() if name.startswith("dyniso")]
    modules = {sources.modules()[one.__module__] for one in [*shown, *baselines.CLASSES.values()]}
    assert len(modules) > 4
    assert modules <= set(project.reads(project.root / "notebooks" / "settings_and_costs.py"))


def test_chapters_of_the_book_reach_no_claims_and_no_specs_that_they_do_not_use() -> None:
    text = (TOOL.parents[1] / "notebooks" / "the_regulariser.py").read_text()
    reached = sources.reached_by_source(text, without=tool.NO_CODE)
    assert "dyniso.optim" in reached
    assert [m for m in reached if m.startswith(("dyniso.report.claims", "dyniso.report.appendix"))] == []


# ---------------------------------------------------------------------------------------------------- output of `run`


EXPECTED = "expected a folder that exists, or a file that ends in .ipynb"
NO_OUTPUT = {
    "notebooks/01_toy.py": EXPECTED,
    "notebooks/../notebooks/01_toy.py": EXPECTED,
    "mine.txt": EXPECTED,
    "nowhere/": EXPECTED,
    "link.ipynb": EXPECTED,
    "hard.ipynb": "is the source of a chapter; expected another file",
    "book/nb/01_toy.ipynb": "is a page of the book, made by `build`",
    "book/nb": "is a page of the book, made by `build`",
    "data/results/r.csv/x.ipynb": "expected a folder that can be written",
    "/proc/none/x.ipynb": "expected a folder that can be written",
    "taken.ipynb": "or taken-figures beside it is in the way",
}


@pytest.mark.parametrize(("out", "message"), NO_OUTPUT.items())
@pytest.mark.usefixtures("no_kernel")
def test_output_that_cannot_be_a_notebook_is_one_line_before_any_kernel(
    root: Path, capsys: pytest.CaptureFixture[str], out: str, message: str
) -> None:
    source = root / "notebooks/01_toy.py"
    (root / "book/nb").mkdir(parents=True)
    (root / "link.ipynb").symlink_to(source)
    (root / "hard.ipynb").hardlink_to(source)
    (root / "taken-figures").write_text("a file")
    assert command(root, "run", str(source), "-o", str(root / out)) == 2
    error = capsys.readouterr().err
    assert error.startswith("notebooks.py: ")
    assert message in error
    assert error.count("\n") == 1
    assert source.read_text() == CHAPTER


@pytest.mark.parametrize("source", ["mine.ipynb", "notebooks", "notebooks/01_toi.py"])
@pytest.mark.usefixtures("no_kernel")
def test_source_that_is_no_chapter_is_one_line_before_any_kernel(
    root: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    (root / "mine.ipynb").write_text("{}")
    assert command(root, "run", str(root / source), "-o", str(root / "mine.ipynb")) == 2
    assert "expected a file that ends in .py" in capsys.readouterr().err
    assert (root / "mine.ipynb").read_text() == "{}"


def test_output_into_a_folder_is_a_notebook_of_the_chapters_name(root: Path) -> None:
    project, source = tool.Project(root), root / "notebooks/01_toy.py"
    assert tool.output(project, source, root) == root / "01_toy.ipynb"
    assert tool.output(project, source, None) == root / "build" / "run" / "01_toy.ipynb"


def test_two_outputs_in_one_folder_keep_their_own_figures(root: Path) -> None:
    source = root / "notebooks/01_toy.py"
    jobs = [tool.execution.Job(root, source, root / name, {}) for name in ("a.ipynb", "b.ipynb")]
    assert len({job.figures for job in jobs}) == 2


@pytest.mark.slow
def test_chapter_that_stops_in_a_run_is_saved_as_far_as_it_ran(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = root / "notebooks/01_toy.py", root / "mine.ipynb"
    monkeypatch.chdir(root)
    monkeypatch.delenv("DYNISO_RUNS", raising=False)
    stop = "\n# %%\nprint(os.environ['DYNISO_RUNS'])\n\n# %%\nraise AssertionError('adam-loses: Adam loses.')\n"
    source.write_text(CHAPTER + stop)
    assert command(root, "run", str(source), "-o", str(out)) == 1
    error = capsys.readouterr().err
    assert "01_toy: cell 5 (`raise AssertionError('adam-loses: Adam loses.')`): AssertionError: adam-loses" in error
    assert error.endswith(f"saved what ran in {out}\n")
    printed = [o["text"] for c in json.loads(out.read_text())["cells"] for o in c.get("outputs", []) if "text" in o]
    assert printed == [["check 3 1 1\n"], [f"{root / 'runs'}\n"]], "runs go where the caller's would"
    assert (root / "mine-figures" / "fig-toy.csv").exists()
    assert not list(root.glob("**/.running-*"))


@pytest.mark.slow
def test_chapter_whose_kernel_dies_is_saved_as_far_as_it_ran(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = root / "notebooks/01_toy.py", root / "mine.ipynb"
    source.write_text("# %%\nprint('ran')\n\n# %%\nimport os\nos._exit(3)\n")
    assert command(root, "run", str(source), "-o", str(out)) == 1
    assert capsys.readouterr().err.endswith(f"01_toy: DeadKernelError: Kernel died\nsaved what ran in {out}\n")
    assert "ran\\n" in out.read_text()


def test_chapter_that_is_interrupted_is_saved_as_far_as_it_ran(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(nb: Any, partial: str, **_: Any) -> None:
        nbformat.write(nb, partial)
        raise KeyboardInterrupt

    source, out = root / "notebooks/01_toy.py", root / "mine.ipynb"
    monkeypatch.setattr("papermill.execute_notebook", interrupt)
    assert command(root, "run", str(source), "-o", str(out)) == 1
    assert capsys.readouterr().err == f"01_toy: interrupted\nsaved what ran in {out}\n"
    assert len(json.loads(out.read_text())["cells"]) == 4


@pytest.mark.slow
def test_chapter_with_two_displays_in_a_figure_cell_is_refused_by_the_book_and_not_lost_elsewhere(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = root / "notebooks/01_toy.py", root / "mine.ipynb"
    source.write_text(CHAPTER + "display(1)\n")
    assert command(root, "build") == 1
    assert "01_toy: cell 3: show('fig-toy') must be the only display of its cell, found 2" in capsys.readouterr().err
    assert command(root, "run", str(source), "-o", str(out)) == 0
    assert len(json.loads(out.read_text())["cells"][3]["outputs"]) == 2


def test_notebook_that_cannot_be_saved_at_the_end_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    source, out = root / "notebooks/01_toy.py", root / "mine.ipynb"
    monkeypatch.setattr(tool.execution, "executed", lambda job, scratch: (tool.execution.load(job.source), ""))
    monkeypatch.setattr(tool.execution, "save", no_room)
    assert command(root, "run", str(source), "-o", str(out)) == 1
    assert capsys.readouterr().err == f"01_toy: cannot save {out}: No space left on device\n"


def test_what_papermill_left_half_written_is_no_notebook(tmp_path: Path) -> None:
    (tmp_path / "partial.ipynb").write_text('{"cells": [')
    assert tool.execution.saved_by_papermill(tmp_path / "partial.ipynb") is None
    assert tool.execution.saved_by_papermill(tmp_path / "none.ipynb") is None


def test_kernel_finds_the_caller_s_folders_though_it_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, seen in (("mine", tmp_path / "mine"), ("~/mine", tmp_path / "home/mine")):
        monkeypatch.setenv("DYNISO_DATA", given)
        monkeypatch.setenv("DYNISO_RUNS", given)
        found = tool.execution.kernel_environment(tmp_path)
        assert (found["DYNISO_DATA"], found["DYNISO_RUNS"]) == (str(seen), str(seen))


# --------------------------------------------------------------------------------------------- names of observations

CLAIMS = """\
# %% [markdown]
# See {prf:ref}`two-three` and {prf:ref}`the theorem <thm-one>` and {prf:ref}`seed-3-agrees`.
# :::{prf:theorem} One
# :label: thm-one
# :::

# %%
claim("two-three", "Two is less than three.", 2 < 3)
claim(f"seed-{seed}-agrees", "It agrees.", True)
"""


def faults(root: Path, extra: str = "", ledger: str = "") -> list[str]:
    (root / "book").mkdir(exist_ok=True)
    (root / "book" / "statements.toml").write_text(ledger)
    (root / "notebooks" / "02_claims.py").write_text(CLAIMS + extra)
    found: list[str] = tool.observing.name_faults(root)
    return found


def test_names_that_are_there_once_have_no_fault(root: Path) -> None:
    assert faults(root, ledger='[[statement]]\nevidence = ["two-three", "seed-0-agrees"]\n') == []


def test_doubled_observation_is_one_line_that_names_both_places(root: Path) -> None:
    found = faults(root, 'claim("two-three", "Again.", True)\n')
    assert found == ["02_claims.py:10: observation two-three is also at 02_claims.py:8"]


def test_observation_that_is_there_three_times_is_told_of_its_first_place_twice(root: Path) -> None:
    found = faults(root, 2 * 'claim("two-three", "Again.", True)\n')
    assert found == [f"02_claims.py:{line}: observation two-three is also at 02_claims.py:8" for line in (10, 11)]


def test_unknown_observation_in_prose_is_one_line_with_the_nearest_name(root: Path) -> None:
    found = faults(root, "# See {prf:ref}`two-tree`.\n")
    assert found == ["02_claims.py:10: no observation two-tree; did you mean 'two-three'?"]


def test_unknown_observation_in_the_ledger_is_one_line(root: Path) -> None:
    found = faults(root, ledger='[[statement]]\nid = "1"\nevidence = ["two-threes"]\n')
    assert found == ["statements.toml:3: no observation two-threes; did you mean 'two-three'?"]


@pytest.mark.usefixtures("no_kernel")
def test_build_with_a_doubled_name_stops_before_any_kernel(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faults(root, 'claim("two-three", "Again.", True)\n')
    assert command(root, "build") == 1
    assert capsys.readouterr().err == "02_claims.py:10: observation two-three is also at 02_claims.py:8\n"


def test_chapter_that_is_no_python_is_one_line(root: Path) -> None:
    assert faults(root, "a =\n") == ["02_claims.py:10: no Python"]


def test_names_of_the_book_have_no_fault() -> None:
    assert tool.observing.name_faults(TOOL.parents[1]) == []
