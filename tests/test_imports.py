"""Imports run one way, report above study above core, and a reader redraws every figure without torch."""

import ast
import subprocess
import sys
from functools import cache

import pytest

from dyniso.study.sources import import_graph, imported_names, modules

MODULES = modules()
GRAPH, LATE = import_graph(), import_graph(lazy=True)
COMMAND = {"dyniso.cli", "dyniso.__main__"}


def storey(module: str) -> str:
    """core, study, report, or command on top of them."""
    part = module.split(".")[1:2]
    return "command" if module in COMMAND else part[0] if part in (["study"], ["report"]) else "core"


CORE, STUDY, REPORT = ([m for m in MODULES if storey(m) == which] for which in ("core", "study", "report"))


@cache
def packages(module: str, late: bool = True) -> frozenset[str]:
    """Top-level packages that a module imports, those inside functions too unless `late` is False."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names = [name for when in {False, late} for name in imported_names(tree, module, lazy=when)]
    return frozenset(name.partition(".")[0] for name in names) - sys.stdlib_module_names - {"dyniso", "__future__"}


def imports(module: str) -> set[str]:
    """Modules of dyniso that a module imports, at its top or inside functions."""
    return GRAPH[module] | LATE[module]


def reached(module: str) -> set[str]:
    """Every module of dyniso that loads when this one is imported, and itself."""
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += GRAPH[name]
    return found


def loads_torch(module: str) -> bool:
    return any("torch" in packages(m, late=False) for m in reached(module))


TORCH_FREE = [m for m in MODULES if not loads_torch(m)]


@pytest.mark.parametrize("module", CORE)
def test_core_imports_only_torch_numpy_and_core(module):
    assert packages(module) <= {"torch", "numpy"}
    assert {m for m in imports(module) if storey(m) != "core"} == set()


@pytest.mark.parametrize("module", STUDY)
def test_study_imports_neither_report_nor_command(module):
    assert {m for m in imports(module) if storey(m) in ("report", "command")} == set()


@pytest.mark.parametrize("module", REPORT)
def test_report_imports_no_torch_and_only_modules_that_load_none(module):
    assert "torch" not in packages(module)
    assert {m for m in imports(module) if storey(m) == "command" or loads_torch(m)} == set()


def test_rules_see_all_three_storeys():
    assert {"dyniso.optim", "dyniso.baselines.units"} <= set(CORE)
    assert {"dyniso.study.rl.ppo", "dyniso.study.specs.model"} <= set(STUDY)
    assert {"dyniso.report.figures", "dyniso.report.claims"} <= set(REPORT)
    assert loads_torch("dyniso.optim")
    assert {"dyniso", "dyniso.checks", "dyniso.stats", "dyniso.study.store", "dyniso.cli"} <= set(TORCH_FREE)


def test_no_module_imports_itself_by_any_way_round():
    assert [m for m in GRAPH if any(m in reached(other) for other in GRAPH[m])] == []


def test_modules_can_be_read_in_one_sitting():
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values())
    assert lines[-1] < 450
    assert lines[len(lines) // 2] < 200


def test_specs_reach_only_names_and_refusals():
    beside = {f"dyniso{m}" for m in ("", ".checks", ".study", ".study.declared", ".study.sources")}
    assert {m for m in reached("dyniso.study.specs") if not m.startswith("dyniso.study.specs")} <= beside


def test_graph_finds_the_imports_of_train():
    assert {"dyniso.optim", "dyniso.isometry", "dyniso.study.specs"} <= reached("dyniso.study.train")


@pytest.mark.parametrize(
    "statement",
    [
        f"import {', '.join(TORCH_FREE)}",
        "from dyniso import cli; assert cli.main(['list']) == 0",
        "from dyniso import cli; assert cli.main(['claims']) == 0",
    ],
    ids=["every module that the sources say loads none", "list", "claims"],
)
def test_torch_is_not_loaded_by(statement):
    code = f"import sys; {statement}; sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_specs_need_only_the_standard_library():
    code = "import sys, dyniso.study.specs; sys.exit(bool({'numpy', 'pandas', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("module", ["dyniso.study.rl.train", "dyniso.study.rl.games", "dyniso.study.runner"])
def test_games_load_no_jax_until_one_is_made(module):
    code = f"import sys, {module}; sys.exit(bool({{'jax', 'gymnax', 'octax'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
