"""Pictures of the causal experiments show the arms that they are asked for, and give exactly the plotted points."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dyniso.report import rivals
from dyniso.report.figures import causal
from dyniso.report.results import Results
from dyniso.study import specs


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def made_up(name):
    """Numbers that differ from arm to arm and seed to seed; of a picture only the form is tested here."""
    experiment = specs.get(name, "smoke")
    rows = [
        (m.name, s, t, "", metric, (0.3 + 0.01 * i + 0.002 * s + 0.001 * t) * scale)
        for i, m in enumerate(experiment.methods)
        for s in experiment.seeds
        for t in range(experiment.tasks)
        for metric, scale in (("online_accuracy", 1), ("before_P_100", 2), ("before_dead", 0.1), ("diverged", 0))
    ]
    return Results(experiment, pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"]))


def test_two_by_two_has_a_cell_for_each_pair_and_its_number_written_in_it():
    fig, points = causal.two_by_two({"Labels": made_up("surgery_labels"), "Pixels": made_up("surgery_pixels")})
    assert len(points) == 8
    for ax, (_, part) in zip(fig.axes, points.groupby("stream", sort=False), strict=True):
        written = {text.get_text().split(" ")[0] for text in ax.texts}
        assert written == {f"{mean:.2f}" for mean in part["mean"]}


def test_dots_stand_in_the_order_that_was_asked_for():
    order = ["lift", "flat_own", "kept_own"]
    fig, points = causal.dots({"Labels": made_up("surgery_labels")}, order)
    assert points["arm"].tolist() == order
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx(points["mean"].tolist())


def test_lines_show_the_outcome_or_a_metric_before_it():
    results = made_up("gauge_fresh")
    arms = {0.0: "normal_0_adam", 1.0: "normal_1_adam"}
    line = [("Adam", results, arms, {"color": causal.BLUE})]
    fig, points = causal.lines_figure([("accuracy", None, line), ("P", "before_P_100", line)], "x")
    assert len(fig.axes) == 2 and points["metric"].tolist() == ["outcome"] * 2 + ["before_P_100"] * 2
    assert points["mean"].tolist()[2:] == pytest.approx([2 * v for v in points["mean"].tolist()[:2]])


def test_labels_at_the_ends_of_lines_do_not_overlap():
    fig, _ = causal.over_tasks({"ReLU": (made_up("every_boundary"), {"flat": causal.ORANGE, "none": causal.GREY})})
    low, high = sorted(text.get_position()[1] for text in fig.axes[0].texts)
    assert high - low >= 0.055 - 1e-9


def test_scatter_has_a_point_for_each_run():
    results = made_up("rank_or_kernel")
    arms = {"adam_none": causal.BLUE, "held_none": causal.ORANGE}
    fig, points = causal.scatter(results, {"before_P_100": "P"}, arms)
    assert sum(len(line.get_xdata()) for line in fig.axes[0].lines) == 2 * len(results.experiment.seeds)
    assert set(points.columns) == {"method", "seed", "before_P_100", "outcome"}


def test_squares_of_routes_carry_the_correlations():
    frame = rivals.candidates(made_up("every_boundary"))
    found = {"labels": rivals.routes(frame, rivals.before(made_up("every_boundary")))}
    fig, points = causal.routes_figure(found, {"before_P_100": "P", "before_dead": "dead"})
    assert [text.get_text() for text in fig.axes[0].texts] == [f"{v:+.2f}" for v in points["labels"]]
