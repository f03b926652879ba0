"""The names that `import dyniso` offers, when they load what, and what a wrong one says."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dyniso
from dyniso.study.sources import offers

PUBLIC = [name for name in dyniso.__all__ if name != "__version__"]


def fresh(code: str) -> str:
    """What a fresh process prints; its stderr has to be empty."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_names_for_editors_are_those_that_load_at_run_time():
    spelled_out = offers("dyniso", Path(dyniso.__file__))
    assert spelled_out == {name: f"dyniso.{module}" for name, module in dyniso._HOME.items()}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_its_module_s_own_and_documented(name):
    value = getattr(dyniso, name)
    assert value is getattr(importlib.import_module(f"dyniso.{dyniso._HOME[name]}"), name)
    assert (value.__doc__ or "").strip()


def test_dir_lists_names_and_modules():
    assert {"AdamO", "optim", "baselines", "study", "report", "stats"} <= set(dir(dyniso))


def test_star_import_brings_every_public_name():
    assert fresh("from dyniso import *; import dyniso; print(set(dyniso.__all__) <= set(globals()))") == "True"


def test_module_is_an_attribute_without_being_imported_first():
    assert fresh("import dyniso; print(dyniso.baselines.make('redo').name)") == "redo"


def test_import_of_the_package_loads_neither_torch_nor_numpy():
    assert fresh("import sys, dyniso; print({'torch', 'numpy'} & sys.modules.keys())") == "set()"


def test_import_of_the_optimizer_builds_no_experiment():
    loaded = fresh("import sys, dyniso.optim; print(sorted(m for m in sys.modules if m.startswith('dyniso')))")
    core = ("", ".checks", ".copies", ".groups", ".heads", ".isometry", ".matrices", ".optim", ".options", ".pull")
    assert set(ast.literal_eval(loaded)) == {f"dyniso{m}" for m in core}


def test_unknown_name_is_an_attribute_error_with_the_nearest_one():
    with pytest.raises(AttributeError, match=r"no attribute 'AdamQ'; allowed are .* did you mean 'AdamO'\?"):
        dyniso.AdamQ  # noqa: B018


def test_unknown_name_in_an_import_statement_is_an_import_error():
    with pytest.raises(ImportError, match="cannot import name 'AdamQ'"):
        from dyniso import AdamQ  # noqa: F401


def test_error_inside_a_module_is_not_taken_for_an_unknown_name(monkeypatch):
    def broken(name, package=None):
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        dyniso.anything  # noqa: B018
