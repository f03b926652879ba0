"""Contracts of dyniso.report.figures.suite: what is drawn is what the tables of dyniso.report.suite say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import tiny_results

from dyniso.report import suite
from dyniso.report.figures import suite as pictures


@pytest.fixture
def results(tiny):
    """Three streams on which the second arm scores .1, .3 and .2 more than the first."""
    yield {name: tiny_results(tiny, gain) for name, gain in (("a", 0.1), ("b", 0.3), ("c", 0.2))}
    plt.close("all")


def test_each_stream_has_a_panel_with_the_curve_of_each_arm_and_no_panel_is_empty(results):
    fig, points = pictures.curves_figure(results, ["adam", "adamo_0.1"], {})
    assert [ax.get_title() for ax in fig.axes if ax.axison] == ["a", "b", "c"]
    for ax, stream in zip(fig.axes, results, strict=False):
        for line, arm in zip(ax.lines, ["adam", "adamo_0.1"], strict=True):
            own = points[(points["stream"] == stream) & (points["method"] == arm)]
            assert line.get_ydata().tolist() == own["mean"].tolist()
            assert line.get_label() == results["a"].labels[arm]


def test_board_prints_each_score_in_the_row_of_its_arm(results):
    fig, _ = pictures.board_figure(results)
    (ax,), board = fig.axes, suite.board(results)
    assert [t.get_text() for t in ax.get_yticklabels()] == [results["a"].labels[m] for m in board.index]
    printed = {t.get_position(): t.get_text() for t in ax.texts}
    assert printed == {(c, r): f"{score:.2f}" for (r, c), score in np.ndenumerate(board.to_numpy(float))}


def test_gains_stand_beside_the_names_of_their_arms(results):
    fig, points = pictures.gains_figure(results, "adam")
    (ax,) = fig.axes
    drawn = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.lines[0].get_xdata(), strict=True))
    labels = results["a"].labels
    assert drawn == {labels[m]: gain for m, gain in zip(points["method"], points["gain"], strict=True)}
    assert drawn[labels["adam"]] == 0 < drawn[labels["adamo_0.1"]]


def test_a_metric_is_drawn_against_the_score_with_a_marker_a_stream(results):
    cloud = suite.predictors(results, ["sigma_max"])
    fig, points = pictures.predictors_figure(cloud, ["sigma_max"])
    assert points is cloud
    for line, stream in zip(fig.axes[0].lines, results, strict=True):
        own = cloud[cloud["stream"] == stream]
        assert line.get_label() == stream
        assert line.get_xydata().tolist() == own[["sigma_max", "score"]].to_numpy().tolist()
