"""Imports run one way, and a reader redraws every figure without torch."""

import subprocess
import sys

import pytest

from dyniso.report.notebook import import_graph

TORCH_SIDE = {
    f"dyniso.{m}"
    for m in (
        *("isometry", "optim", "nets", "entk", "dormancy", "streams", "stack", "measures", "checkpoint", "train"),
        *("runner", "rl.agent", "rl.envs", "rl.player", "rl.ppo", "rl.train"),
    )
}
GRAPH = import_graph()
TORCH_FREE = ["specs", "stats", "store", "returns", "figures", "claims", "book", "data", "cli"]


def reached(module: str) -> set[str]:
    """Every module of dyniso that loads when this one is imported."""
    found: set[str] = set()
    todo = [module]
    while todo:
        new = GRAPH[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_no_module_imports_itself_by_any_way_round():
    assert [m for m in GRAPH if m in reached(m)] == []


def test_every_module_of_these_rules_exists():
    assert TORCH_SIDE | {f"dyniso.{m}" for m in TORCH_FREE} <= GRAPH.keys()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_reaches_no_torch_side_module(module):
    assert reached(f"dyniso.{module}") & TORCH_SIDE == set()


def test_specs_reach_no_other_module():
    assert {name for name in reached("dyniso.study.specs") if not name.startswith("dyniso.study.specs.")} == set()


def test_graph_finds_the_imports_of_train():
    assert {"dyniso.optim", "dyniso.isometry", "dyniso.study.specs"} <= reached("dyniso.study.train")


@pytest.mark.parametrize(
    "statement",
    [
        "from dyniso import specs, stats, store, returns, figures, claims, book, data, cli",
        "from dyniso import cli; assert cli.main(['list']) == 0",
        "from dyniso import cli; assert cli.main(['claims']) == 0",
    ],
)
def test_torch_is_not_loaded_by(statement):
    code = f"import sys; {statement}; sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_specs_need_only_the_standard_library():
    code = "import sys; from dyniso import specs; sys.exit(bool({'numpy', 'pandas', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("module", ["dyniso.study.rl.train", "dyniso.study.rl.games", "dyniso.study.runner"])
def test_games_load_no_jax_until_one_is_made(module):
    code = f"import sys, {module}; sys.exit(bool({{'jax', 'gymnax', 'octax'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
