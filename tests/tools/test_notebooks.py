"""tools/notebooks.py: the grammar of parameters, content keys, and saving whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dyniso.report import notebook

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
    """A project with one chapter, one library file and one datum."""
    for name, text in (("notebooks/01_toy.py", CHAPTER), ("dyniso/a.py", "a = 1\n"), ("data/results/r.csv", "x\n")):
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
    declared = tool.declared_parameters(tool.load(root / "notebooks" / "01_toy.py"))
    given = {"tier": "smoke", "count": "9", "rate": "1e-3", "fast": "False"}
    assert tool.checked_parameters(declared, given) == {"tier": "smoke", "count": 9, "rate": 0.001, "fast": False}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("teir", "check", "unknown parameter teir; did you mean tier? (declared: tier, count, rate, fast)"),
        ("zzz", "1", "unknown parameter zzz (declared: tier, count, rate, fast)"),
        ("tier", "chek", "tier = chek is not one of smoke | check; did you mean check?"),
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
    assert "did you mean 01_toy?" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("changed", ["notebooks/01_toy.py", "dyniso/a.py", "dyniso/b.py", "data/results/r.csv"])
def test_key_changes_with_source_library_and_data(root: Path, changed: str) -> None:
    source = root / "notebooks" / "01_toy.py"
    before = tool.Project(root).key(source, {})
    with (root / changed).open("a") as file:
        file.write("# changed\n")
    assert tool.Project(root).key(source, {}) != before


def test_key_changes_with_parameters_but_not_with_their_order_or_with_downloads(root: Path) -> None:
    source = root / "notebooks" / "01_toy.py"
    project = tool.Project(root)
    one_order = project.key(source, {"tier": "smoke", "count": 1})
    assert one_order == project.key(source, {"count": 1, "tier": "smoke"})
    assert one_order != project.key(source, {"tier": "smoke", "count": 2})
    (root / "data" / "mnist").mkdir()
    (root / "data" / "mnist" / "images.gz").write_bytes(b"download")
    assert tool.Project(root).key(source, {"tier": "smoke", "count": 1}) == one_order


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
        tool.lift_figure(SimpleNamespace(outputs=[shown, other], metadata={}))


def test_neighbouring_stream_pieces_are_joined() -> None:
    pieces = [
        {"output_type": "stream", "name": name, "text": text} for name, text in (("a", "1"), ("a", "2"), ("b", "3"))
    ]
    assert [piece["text"] for piece in tool.joined_streams(pieces)] == ["12", "3"]


# ---------------------------------------------------------------------------------------- dyniso.report.notebook


@pytest.mark.parametrize("true", [True, np.bool_(True), torch.tensor(True)])
def test_claim_prints_what_holds(true: Any, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.claim("it holds", true)
    assert capsys.readouterr().out == "✓ it holds\n"


@pytest.mark.parametrize("false", [False, np.bool_(False), torch.tensor(False)])
def test_claim_stops_at_what_does_not_hold(false: Any) -> None:
    with pytest.raises(AssertionError, match="it holds"):
        notebook.claim("it holds", false)


@pytest.mark.parametrize("neither", [1, "yes", None, np.array([True]), torch.ones(2), lambda: True])
def test_claim_refuses_what_is_not_a_truth_value(neither: Any) -> None:
    with pytest.raises(TypeError, match="expected True or False"):
        notebook.claim("it holds", neither)


FIGURE = {"name": "fig-a", "caption": "A line.", "alt": "It rises."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alt": " "}, "alt is empty"),
        ({"caption": ""}, "caption is empty"),
        ({"caption": "One.\n\nTwo."}, "one paragraph"),
        ({"name": "Fig A"}, "lower-case words"),
    ],
)
def test_show_refuses_a_figure_that_not_everyone_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str
) -> None:
    monkeypatch.setenv("DYNISO_FIGURES", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        notebook.show(None, pd.DataFrame({"x": [1]}), **(FIGURE | change))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_show_saves_the_plotted_points_and_marks_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    shown: list[tuple[Any, Any]] = []
    monkeypatch.setenv("DYNISO_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(notebook, "display", lambda data, metadata: shown.append((data, metadata)))
    table = pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3]})
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(table.x, table.y)
    notebook.show(figure, table, **(FIGURE | {"caption": "A line,\nafter {cite:t}`roy2007`."}))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures" / "fig-a.csv"), table, check_exact=True)
    (image, image_metadata), (caption, caption_metadata) = shown
    assert image_metadata["dyniso"] == {
        "name": "fig-a",
        "caption": "A line, after {cite:t}`roy2007`.",
        "alt": "It rises.",
    }
    assert 300 < image_metadata["image/png"]["width"] < 420, "four inches at 96 pixels an inch, less the trimmed margin"
    assert image["image/png"].startswith("iVBOR")
    assert caption["text/markdown"] == "A line, after roy2007."
    assert caption_metadata["dyniso"] == {"drop": True}


def test_import_graph_separates_top_level_from_lazy_imports(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    sources = {
        "__init__.py": "from . import b",
        "a.py": "import os\nif TYPE_CHECKING:\n    from .b import y\nfrom pack.sub.c import z",
        "b.py": "def f():\n    from . import a\n    import pack.sub.c",
        "sub/__init__.py": "",
        "sub/c.py": "from ..b import f",
    }
    for name, text in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    top = {"pack": {"pack.b"}, "pack.a": {"pack.sub.c"}, "pack.b": set(), "pack.sub": set(), "pack.sub.c": {"pack.b"}}
    assert notebook.import_graph(folder=package) == top
    assert notebook.import_graph(lazy=True, folder=package)["pack.b"] == {"pack.a", "pack.sub.c"}


def test_import_graph_of_dyniso_has_every_module_and_no_cycle() -> None:
    graph = notebook.import_graph()
    assert {path.stem for path in Path(notebook.__file__).parent.glob("*.py")} - {"__init__"} <= {
        m.split(".")[-1] for m in graph
    }
    left = dict(graph)
    while left:
        leaves = {module for module, imports in left.items() if not imports & left.keys()}
        assert leaves, f"these modules import each other in a circle: {sorted(left)}"
        left = {module: imports for module, imports in left.items() if module not in leaves}
