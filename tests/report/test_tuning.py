"""Contracts of dyniso.report.tuning and tools/tuned.py: the best candidate of each sweep, the file that says so."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from dyniso.report import tuning
from dyniso.study import specs, store
from dyniso.study.specs import Experiment, Method
from dyniso.study.specs.tuned import TUNED

ROOT = Path(__file__).parents[2]


def sweep_rows(sweep: Experiment, score=lambda name, seed, task: 0.5) -> pd.DataFrame:
    """Rows of a sweep in long form, with a value for each (candidate, seed, task) and a second metric beside it."""
    keys = [(m.name, s, t) for m in sweep.methods for s in sweep.seeds for t in range(sweep.stream.tasks)]
    frame = pd.DataFrame(keys, columns=["method", "seed", "task"]).assign(layer="")
    scores = frame.assign(metric=sweep.stream.score, value=[score(*key) for key in keys])
    return pd.concat([scores, frame.assign(metric="weight_norm", value=9.0)], ignore_index=True)


def small_sweep(kind: str = "labels_mnist") -> Experiment:
    """The registered sweep of a stream with two methods of three candidates."""
    arms = tuple(Method(f"{name}.{k}", f"{name} {k}", lr=0.1 / (k + 1)) for name in ("adam", "b") for k in range(3))
    return replace(specs.get(f"tune_{kind}", "smoke"), methods=arms)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dyniso_tuned_tool", ROOT / "tools" / "tuned.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -------------------------------------------------------------------------------------------------- the best candidate


@pytest.mark.parametrize(
    ("scores", "index"),
    [
        ([0.1, 0.3, 0.2], 1),
        ([0.3, 0.1, 0.3], 0),
        ([np.nan, 0.0, np.nan], 1),
        ([np.nan, -5.0], 1),
        ([np.nan, np.nan], 0),
    ],
    ids=["highest", "ties -> the first", "diverged is worst", "worse than any number", "all diverged -> the first"],
)
def test_best_is_the_first_of_the_highest_scores(scores, index):
    assert tuning.best(np.array(scores)) == index


def test_best_candidate_has_the_highest_mean_over_seeds_and_the_last_third_of_the_tasks():
    sweep = small_sweep()
    values = {"adam.0": 0.2, "adam.1": 0.3, "adam.2": 0.1, "b.0": 0.5, "b.1": 0.5, "b.2": 0.4}
    early = {"adam.2": 0.9}  # learns fast and collapses
    rows = sweep_rows(
        sweep, lambda name, seed, task: (early if task < 2 else {}).get(name, values[name]) + 0.01 * (seed - 100.5)
    )
    assert tuning.best_candidates(sweep, rows) == {"adam": 1, "b": 0}
    assert tuning.late_scores(sweep, rows)["adam"] == pytest.approx([0.2, 0.3, 0.1])


@pytest.mark.parametrize("gone", [np.nan, np.inf])
def test_one_diverged_run_makes_its_candidate_the_worst(gone):
    sweep = small_sweep()
    better = {"adam.0": 0.9, "adam.1": 0.2, "adam.2": 0.1}
    rows = sweep_rows(
        sweep,
        lambda name, seed, task: gone if (name, seed, task) == ("adam.0", sweep.seeds[1], 2) else better.get(name, 0.5),
    )
    assert tuning.best_candidates(sweep, rows)["adam"] == 1


def test_of_a_loss_the_smallest_is_best():
    sweep = small_sweep("slow_regression")
    losses = {"adam.0": 0.3, "adam.1": 0.2, "adam.2": 0.4}
    rows = sweep_rows(sweep, lambda name, *_: losses.get(name, np.nan))
    assert sweep.stream.score == "online_loss"
    assert tuning.best_candidates(sweep, rows) == {"adam": 1, "b": 0}


def test_a_candidate_without_all_its_scores_is_an_error_that_names_it():
    sweep = small_sweep()
    rows = sweep_rows(sweep)
    lacking = rows[~((rows["method"] == "b.2") & (rows["task"] == 2) & (rows["metric"] == "online_accuracy"))]
    with pytest.raises(store.UnusableError, match=r"0 values of online_accuracy for b\.2, not 2"):
        tuning.late_scores(sweep, lacking)


# ---------------------------------------------------------------------------------------------- tables and the file


def reader(stored: dict[str, pd.DataFrame]):
    def read(experiment: Experiment) -> pd.DataFrame:
        if experiment.name not in stored:
            raise FileNotFoundError(experiment.name)
        return stored[experiment.name]

    return read


def test_choices_have_the_streams_whose_sweep_is_stored_and_no_other():
    sweep = specs.get("tune_pixels_mnist", "check")
    rows = sweep_rows(sweep, lambda name, *_: float(name == "adam.2"))
    chosen = tuning.choices(reader({sweep.name: rows}))
    assert list(chosen) == ["pixels_mnist"]
    assert chosen["pixels_mnist"] == dict.fromkeys(specs.CANDIDATES, 0) | {"adam": 2}


def test_choices_leave_out_no_unusable_table_in_silence():
    def read(experiment: Experiment) -> pd.DataFrame:
        raise store.UnusableError("other settings")

    with pytest.raises(store.UnusableError, match="other settings"):
        tuning.choices(read)


@pytest.mark.parametrize("chosen", [{}, {"a": {"adam": 3, "b": 0}, "c": {"adam": 1}}])
def test_written_module_says_what_was_chosen_in_the_project_s_format(chosen, tmp_path):
    path = tmp_path / "tuned.py"
    path.write_text(tuning.module_text(chosen))
    names: dict = {}
    exec(path.read_text(), names)
    assert names["TUNED"] == chosen
    for command in (["format", "--check"], ["check"]):
        call = [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(path)]
        done = subprocess.run(call, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_tuned_settings_are_the_best_of_every_committed_sweep():
    assert tuning.choices() == TUNED


def test_tool_checks_then_writes_then_agrees(tool, tmp_path, monkeypatch, capsys):
    sweep = specs.get("tune_labels_mnist", "check")
    chosen = tuning.choices(reader({sweep.name: sweep_rows(sweep)}))
    monkeypatch.setattr(tool, "TARGET", tmp_path / "tuned.py")
    monkeypatch.setattr(tuning, "choices", lambda: chosen)
    (tmp_path / "tuned.py").write_text(tuning.module_text({}))
    assert tool.main(["--check"]) == 1
    assert "tuned.py is not what the tables say" in capsys.readouterr().err
    assert (tmp_path / "tuned.py").read_text() == tuning.module_text({})
    assert tool.main([]) == 0
    assert "labels_mnist: 26 methods\nlabels_cifar10: not run\n" in capsys.readouterr().out
    assert tool.main(["--check"]) == 0


def test_tool_leaves_the_file_where_a_table_is_unusable(tool, tmp_path, monkeypatch, capsys):
    def broken() -> dict:
        raise store.UnusableError("tune_x-check.parquet is damaged")

    monkeypatch.setattr(tool, "TARGET", tmp_path / "tuned.py")
    monkeypatch.setattr(tuning, "choices", broken)
    assert tool.main([]) == 1
    assert capsys.readouterr().err == "tuned.py: tune_x-check.parquet is damaged\n"
    assert not (tmp_path / "tuned.py").exists()
