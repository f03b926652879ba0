"""Several streams side by side: boards, gains and what goes with a score, from rows that are made by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_results

from dyniso.report import suite
from dyniso.report.results import SCORE


@pytest.fixture
def results(tiny):
    """Two streams on which the second arm scores .1 and .3 more than the first, and its weights are further off."""
    return {name: tiny_results(tiny, gain) for name, gain in (("a", 0.1), ("b", 0.3))}


def test_board_has_the_late_scores_with_the_best_mean_rank_first(results):
    board = suite.board(results)
    assert list(board.index) == ["adamo_0.1", "adam"]
    assert board.loc["adamo_0.1", "b"] == pytest.approx(results["b"].mean(SCORE, "adamo_0.1"))


def test_gain_over_a_rival_is_the_middle_of_the_streams_and_nothing_over_itself(results):
    gains = suite.gains(results, "adam")
    assert gains.loc["adamo_0.1", ["gain", "beats"]].tolist() == pytest.approx([0.2, 1.0])
    assert gains.loc["adam", ["gain", "low", "high", "beats"]].tolist() == pytest.approx([0, 0, 0, 0.5])


def test_a_metric_that_rises_with_the_score_orders_it(results):
    cloud = suite.predictors(results, ["sigma_max"])
    assert suite.orders_scores(cloud, ["sigma_max"])["sigma_max"].tolist() == pytest.approx([1.0, 1.0])


def test_tasks_taken_together_make_one_point_in_their_middle(results):
    points = suite.curves(results, ["adam"], {"b": 2})
    assert points[points["stream"] == "a"]["task"].tolist() == [1, 2]
    assert points[points["stream"] == "b"]["task"].tolist() == [1.5]


def test_a_protocol_says_what_is_published_and_what_is_not_known(results):
    rows = suite.protocol_rows(results["a"], {"adam": 0.5})
    assert [row["published"] for row in rows] == ["0.500", "none known to us"]
    assert rows[0]["mean over tasks"].endswith("± 0.000")


def test_curves_of_diverged_runs_count_as_the_worst(results):
    r = results["a"]
    broken = r.frame.assign(
        value=np.where((r.frame["method"] == "adam") & (r.frame["metric"] == "diverged"), 1.0, r.frame["value"])
    )
    again = type(r)(r.experiment, pd.DataFrame(broken))
    assert suite.late_scores({"a": again}, "adam").max() == 0


def test_gain_is_of_the_middle_half_so_one_stream_does_not_decide_it(tiny):
    gains = suite.gains(
        {name: tiny_results(tiny, g) for name, g in zip("abcd", (0.1, 0.1, 0.1, 9.0), strict=True)}, "adam"
    )
    assert gains.loc["adamo_0.1", ["gain", "low", "high"]].tolist() == pytest.approx([0.1] * 3)


def with_values(results, metric, value):
    """The same results with a metric whose value is a function of seed and task."""
    rows = results.frame[results.frame["metric"] == "sigma_max"]
    made = rows.assign(metric=metric, value=[value(s, t) for s, t in zip(rows["seed"], rows["task"], strict=True)])
    return type(results)(results.experiment, pd.concat([results.frame[results.frame["metric"] != metric], made]))


def test_standard_error_of_a_protocol_is_that_of_a_sample(results):
    spread = with_values(results["a"], "online_accuracy", lambda seed, task: 0.4 + 0.2 * seed)
    assert suite.protocol_rows(spread, {})[0]["mean over tasks"] == "0.500 ± 0.100"  # .2 / sqrt 2 / sqrt 2


def test_what_is_measured_at_the_ends_is_read_before_the_last_task(results):
    rising = {name: with_values(r, "P_100", lambda seed, task: float(task)) for name, r in results.items()}
    assert suite.predictors(rising, ["P_100"])["P_100"].unique().tolist() == [1.0]
