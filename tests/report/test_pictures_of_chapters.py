"""Tables and pictures of three chapters: what a row is, and that a picture draws its table."""

import numpy as np
import pandas as pd
import pytest

from dyniso.report import lens, predictors
from dyniso.report.figures import predictors as predictor_figures
from dyniso.report.figures import strength as strength_figures
from dyniso.report.results import Results
from dyniso.stats import rank_correlation


@pytest.fixture(scope="module")
def measured():
    """The stored experiment on predictors and its table."""
    results = Results.stored("predictors")
    return results, predictors.table(results)


def test_table_has_a_row_a_run_and_task_with_the_defect_that_the_task_before_has_left(measured):
    results, table = measured
    e = results.experiment
    assert len(table) == len(e.methods) * len(e.seeds) * e.tasks
    row = table[(table["method"] == "adam") & (table["seed"] == e.seeds[0])].set_index("task").loc[3]
    assert row["isometry_defect"] == results.values("isometry_defect", "adam", 2)[0, 0]
    assert row["removed"] == pytest.approx(1 - row["loss_after_100"] / row["loss_start"])


def test_ranks_within_runs_forget_what_differs_between_runs():
    rows = pd.DataFrame({"method": list("aabb"), "seed": 0, "x": [1.0, 2.0, 11.0, 12.0], "y": [2.0, 3.0, 0.0, 1.0]})
    assert predictors.correlation(rows, "x", "y") < 0
    assert predictors.correlation(predictors.within_runs(rows, ["x", "y"]), "x", "y") == 1


def test_interval_holds_the_correlation_and_bars_are_both_kinds(measured):
    _, table = measured
    bars = predictors.bars(table, ["P_100", "sharpness"], "online_accuracy", np.random.default_rng(0), 50)
    whole = bars[bars["over"] == "all tasks of all runs"]
    assert ((whole["low"] < whole["rho"]) & (whole["rho"] < whole["high"])).all()
    expected = rank_correlation(table["P_100"].to_numpy(), table["online_accuracy"].to_numpy())
    assert whole.iloc[0]["rho"] == expected and len(bars) == 4
    fig, points = predictor_figures.bars_figure(bars, {"P_100": "P", "sharpness": "s"})
    assert points is bars and [t.get_text() for t in fig.axes[0].get_yticklabels()][-1] == "P"


def test_fit_on_ranks_explains_all_of_a_monotone_relation_and_nothing_of_an_unrelated_one():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=500), "noise": rng.normal(size=500)}).assign(y=lambda t: np.exp(t["x"]))
    assert predictors.explained(rows, ["x"], "y") == pytest.approx(1)
    assert predictors.explained(rows, ["noise"], "y") < 0.02


def test_side_by_side_draws_the_means_over_seeds(measured):
    results, _ = measured
    fig, points = predictor_figures.side_by_side(results, ["P_100", "online_accuracy"])
    adam = points[points["method"] == "adam"]["P_100"].to_numpy()
    np.testing.assert_allclose(adam, results.by_task("P_100", "adam"))
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_ydata(), adam)
    assert len(predictor_figures.side_by_side(results, ["P_100"])[0].axes) == 1


def test_sweep_has_each_strength_and_seed_and_its_lines_are_means_of_them():
    results = Results.stored("strengths")
    fig, sweep = strength_figures.strength_figure(results, ["decoupled", "coupled"])
    names = [name for name in results.labels if name.startswith(("decoupled_", "coupled_"))]
    assert len(sweep) == len(names) * len(results.experiment.seeds)
    strongest = sweep[(sweep["arm"] == "decoupled") & (sweep["strength"] == 1)]["accuracy"].mean()
    assert strongest == pytest.approx(results.mean("online_accuracy", "decoupled_1"))
    assert fig.axes[0].lines[0].get_ydata()[-1] == pytest.approx(strongest)


def test_lens_is_the_median_over_seeds_of_the_largest_hidden_singular_value():
    results = Results.stored("earlier_methods")
    v = lens.table(results)
    assert list(v.index) == list(results.labels)
    assert v["sigma_max"]["adam"] == np.median(results.per_seed("sigma_max", "adam", "last", over="max"))
    assert (v["block"] > 0).all() and np.isinf(v["block"]).any()


def test_matrix_prints_each_number_of_the_lens_where_it_stands():
    rows = pd.DataFrame({"mu_1": [1.0, 250.0], "block": [np.inf, 0.01]}, index=["a", "b"])
    fig, drawn = lens.matrix_figure(rows, {"mu_1": "m", "block": "k"}, ["A", "B"])
    assert [t.get_text() for t in fig.axes[0].texts] == ["1.00", "∞", "2e2", "0.01"]
    assert drawn["method"].tolist() == ["a", "b"]
