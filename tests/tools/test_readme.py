"""What the README says: its tables are what is stored, its code runs."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch

from dyniso.report import returns
from dyniso.report.claims.games import PENALTY
from dyniso.study import specs, store

ROOT = Path(__file__).parents[2]


def test_tables_of_the_readmes_are_what_is_stored():
    spec = importlib.util.spec_from_file_location("readme_tool", ROOT / "tools" / "readme.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for path in (ROOT / "README.md", ROOT / "benchmarks" / "README.md"):
        text = path.read_text()
        assert "<!-- benchmarks -->" in text
        assert tool.updated(text) == text, f"run `python tools/readme.py`: {path.name} is stale"


def test_failed_visits_of_the_readme_are_those_of_the_stored_runs():
    experiment = specs.find("minatar", "check")
    table = returns.normalised(returns.visits(store.read_compact(experiment), experiment))
    with_it, without = zip(*PENALTY, strict=True)
    low, runs = [], []
    for names in (without, with_it):
        rows = table[table["method"].isin(names)]
        low.append(rows[rows["score"] < 0.5])
        runs.append(len(rows))
    said = (
        f"{len(low[0])} of {runs[0]} without the penalty, in {low[0].groupby(['method', 'seed']).ngroups} of "
        f"{4 * len(experiment.seeds)} runs, and none of {runs[1]} with it"
    )
    assert low[1].empty
    assert said in " ".join((ROOT / "README.md").read_text().split())


def test_modules_of_the_readme_exist_and_have_the_names_beside_them():
    text = (ROOT / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`dyniso." in line]
    assert {line.split("|")[1].strip() for line in rows} == {"core", "", "study", "report"}
    for line in rows:
        modules = [importlib.import_module(name) for name in re.findall(r"`(dyniso\.[a-z_.]+)`", line)]
        names = re.findall(r"`([A-Za-z_]+)`", line.split("|")[3])
        missing = [n for n in names if n not in ("rl",) and not any(hasattr(m, n) for m in modules)]
        assert modules and missing == [], line


def test_python_of_the_readme_runs():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"model": model})


@pytest.mark.parametrize("text", ["PLACEHOLDER", "TODO", "TEST-TIME"])
def test_readme_has_nothing_left_to_fill_in(text):
    assert text not in (ROOT / "README.md").read_text()
