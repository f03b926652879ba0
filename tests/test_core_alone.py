"""The core with torch, numpy and what these require, and nothing else: a folder of links to installed files."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dyniso.study.sources import PACKAGE, modules

CORE = [m for m in modules() if m.split(".")[1:2] not in (["study"], ["report"], ["cli"], ["__main__"])]
DOCTESTS = """
import doctest, importlib, sys
tried = 0
for name in sys.argv[1:]:
    failed, count = doctest.testmod(importlib.import_module(name))
    tried += count
    assert not failed, name
print(tried)
"""


def requirements(*names: str) -> set[str]:
    """Installed distributions that some distributions need, with themselves."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop().lower()
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        if name not in found:
            found.add(name)
            needed = [Requirement(text) for text in wanted]
            todo += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to what torch and numpy need, and to the package."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "dyniso").symlink_to(PACKAGE)
    for name in requirements("torch", "numpy"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            target = Path(str(distribution.locate_file(top)))
            if target.exists() and not top.endswith(".pth") and not (folder / top).exists():
                (folder / top).symlink_to(target)
    return folder


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that sees the standard library and that folder, and nothing else."""
    start = f"import sys; sys.path.append({str(folder)!r}); "
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-I", "-S", "-c", start + code, *arguments]
    return subprocess.run(call, capture_output=True, text=True, env=environment, cwd=folder)


def test_folder_lacks_what_the_extras_bring(bare):
    lacking = ["pandas", "duckdb", "pytest", "jax"]
    code = f"from importlib.util import find_spec; print([name for name in {lacking} if find_spec(name)])"
    assert run(bare, code).stdout == "[]\n"


def test_every_core_module_imports_and_passes_its_doctests(bare):
    done = run(bare, f"exec({DOCTESTS!r})", *CORE)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.splitlines()[-1]) > 60


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("import dyniso.study", "study"),
        ("import dyniso.report", "report"),
        ("import dyniso; dyniso.study", "study"),
        ("from dyniso.study import specs", "study"),
        ("from dyniso.report import figures", "report"),
    ],
)
def test_study_and_report_without_their_extra_name_it_in_one_line(bare, code, extra):
    done = run(bare, code)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("dyniso.checks.MissingExtraError: duckdb, pandas")
    assert f"pip install 'dyniso[{extra}]'" in last


def test_command_without_its_extra_is_one_line_that_names_it(bare):
    done = run(bare, "from dyniso.__main__ import main; sys.exit(main())", "list")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("dyniso: duckdb") and "pip install 'dyniso[study]'" in done.stderr


def test_name_of_the_front_door_works_without_any_extra(bare):
    code = (
        "from dyniso import AdamO, isometry_groups, mlp; print(len(AdamO(isometry_groups(mlp(4, 2, 8))).param_groups))"
    )
    assert run(bare, code).stdout == "2\n"
