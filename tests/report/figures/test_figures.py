"""Contracts of dyniso.report.figures: what is drawn is what the table says, and both come from the rows."""

import errno
import json
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dyniso.report import figures
from dyniso.report.figures import save, stamp_of, tasks_figure
from dyniso.report.results import Results
from dyniso.study import specs
from dyniso.study.specs import digest


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    """Draw on no screen, and leave neither open figures nor the house style behind."""
    mpl.use("Agg")
    with mpl.rc_context():
        yield
    plt.close("all")


def panel_lines(fig) -> dict[tuple[str, str], np.ndarray]:
    """(y label, line label) -> points (n, 2) of every curve of the figure."""
    return {(ax.get_ylabel(), line.get_label()): line.get_xydata() for ax in fig.axes for line in ax.get_lines()}


def test_unknown_metric_is_an_error_with_the_nearest_name(hand_made, tiny):
    with pytest.raises(ValueError, match=r"metric='sigma_maks'.*did you mean 'sigma_max'"):
        tasks_figure(hand_made, tiny, ["sigma_maks"])
    with pytest.raises(ValueError, match="metrics="):
        tasks_figure(hand_made, tiny, ())


def test_diverged_seed_leaves_a_gap_and_no_interval(hand_made, tiny):
    gone = (hand_made["method"] == "adam") & (hand_made["seed"] == 1) & (hand_made["task"] == 1)
    hand_made.loc[gone, "value"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, points = tasks_figure(hand_made, tiny, ["sigma_max", "online_accuracy"])
    lost = points[["mean", "low", "high"]].isna()
    assert (lost.all(axis=1) == lost.any(axis=1)).all()
    assert points[lost["mean"]][["method", "task"]].drop_duplicates().to_numpy().tolist() == [["adam", 1]]


@pytest.mark.parametrize("metrics", [["sigma_max"], ["online_accuracy", "sigma_max"]])
def test_curves_are_exactly_the_table_of_plotted_points(hand_made, tiny, metrics):
    fig, points = tasks_figure(hand_made, tiny, metrics)
    lines = panel_lines(fig)
    assert len(lines) == len(metrics) * len(tiny.methods)
    for metric in metrics:
        for method in tiny.methods:
            p = points[(points["metric"] == metric) & (points["method"] == method.name)]
            expected = np.column_stack([p["task"] + 1, p["mean"]])
            np.testing.assert_array_equal(lines[figures.LABELS[metric], method.label], expected)


def test_shaded_bands_are_exactly_the_intervals_of_the_table(hand_made, tiny):
    fig, points = tasks_figure(hand_made, tiny, ["sigma_max"])
    for method, band in zip(tiny.methods, fig.axes[0].collections, strict=True):
        drawn = {tuple(v) for v in band.get_paths()[0].vertices.tolist()}
        p = points[points["method"] == method.name]
        assert drawn == {(t + 1, v) for t, v in zip([*p["task"]] * 2, [*p["low"], *p["high"]], strict=True)}


def test_methods_differ_in_line_style_as_well_as_colour(hand_made, tiny):
    fig, _ = tasks_figure(hand_made, tiny, ["sigma_max"])
    lines = fig.axes[0].get_lines()
    assert len({str(line.get_linestyle()) for line in lines}) == len({line.get_color() for line in lines}) == 2
    assert [t.get_text() for t in fig.legends[0].get_texts()] == [m.label for m in tiny.methods]


def test_method_keeps_its_colour_when_another_has_no_rows(hand_made, tiny):
    both, _ = tasks_figure(hand_made, tiny, ["sigma_max"])
    one, _ = tasks_figure(hand_made[hand_made["method"] != "adam"], tiny, ["sigma_max"])
    assert one.axes[0].get_lines()[0].get_color() == both.axes[0].get_lines()[1].get_color()


def test_axis_says_when_it_begins_at_initialisation(hand_made, tiny):
    fig, _ = tasks_figure(hand_made.assign(task=hand_made["task"] - 1), tiny, ["sigma_max"])
    assert fig.axes[0].get_xlabel() == "tasks trained (0: initialisation)"
    assert min(fig.axes[0].get_lines()[0].get_xdata()) == 0


def test_every_metric_that_has_its_own_scale_has_a_label():
    special = {*figures.FRACTIONS, *figures.LOGARITHMIC, *figures.DEFAULT_METRICS}
    assert special - figures.LABELS.keys() == set()


def test_saved_files_are_the_picture_the_points_and_the_stamp(hand_made, tiny, tmp_path):
    fig, points = tasks_figure(hand_made, tiny, ["sigma_max"])
    stamp = stamp_of(hand_made, tiny)
    paths = save(fig, points, tmp_path / "new" / "folder", "name", stamp)
    assert [p.name for p in paths] == ["name.png", "name.csv", "name.json"]
    assert plt.imread(paths[0]).ndim == 3
    pd.testing.assert_frame_equal(pd.read_csv(paths[1]), points)
    assert json.loads(paths[2].read_text()) == stamp
    assert not plt.fignum_exists(fig.number)


def test_figures_that_cannot_be_replaced_stay_as_they_were(hand_made, tiny, tmp_path, monkeypatch):
    (tmp_path / "name.png").write_bytes(b"old")

    def no_room(self, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", no_room)
    fig, points = tasks_figure(hand_made, tiny, ["sigma_max"])
    with pytest.raises(OSError, match=r"cannot write to .*: No space left on device; choose a folder"):
        save(fig, points, tmp_path, "name", {})
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("name.png", b"old")]


def test_style_leaves_nothing_of_a_user_s_settings():
    plain = dict(mpl.rcParamsDefault) | figures.STYLE
    with mpl.rc_context({"text.usetex": True, "figure.autolayout": True, "savefig.format": "pdf"}):
        figures.use_style()
        assert [k for k in ("text.usetex", "figure.autolayout", "savefig.format") if mpl.rcParams[k] != plain[k]] == []


def test_stamp_names_seeds_digests_and_machine(hand_made, tiny):
    stamp = stamp_of(hand_made, replace(tiny, title="other"))
    assert (stamp["seeds"], stamp["commits"], stamp["hardware"]) == ("0, 1", "abc", "a CPU")
    assert json.loads(stamp["digests"]) == {m.name: digest(tiny, m) for m in tiny.methods}


# ------------------------------------------------------------------------------------------------------------ games


@pytest.fixture(scope="module")
def played():
    """Made-up rows of the smallest experiment on games: two visits a run, two nets, points of return curves beside."""
    experiment = specs.find("minatar")
    experiment = replace(experiment, games=replace(experiment.games, cycles=2))
    rows = []
    for m, method in enumerate(experiment.methods):
        for seed in experiment.seeds:
            for task in range(-1, 4):
                found = [("actor.1.weight", "sigma_max", task + m), ("actor.3.weight", "sigma_max", 1e6)]
                found += [("critic.1.weight", "sigma_max", task + m), ("critic.3.weight", "sigma_max", 1e6)]
                if task >= 0:
                    found += [("", "game", task % 2), ("", "diverged", 0.0), ("point1", "return", 1e6)]
                    found += [
                        ("", name, 1.0 + m * (task // 2)) for name in ("return", "evaluation_return", "reward_rate")
                    ]
                rows += [(method.name, seed, task, *each) for each in found]
    return experiment, pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"])


def test_returns_by_cycle_are_divided_by_the_fresh_net_s_and_leave_out_points_of_curves(played):
    experiment, frame = played
    points = Results(experiment, frame).cycle_points("return")
    last = len(experiment.methods) - 1  # the fresh net: 1 in the first cycle, 1 + last in the second
    scores = points[points["method"] == "adam"]["mean"].tolist()
    assert scores == pytest.approx([2 / (2 + last)] * 2)
    assert set(points["task"]) == {0, 1} and set(points["seeds"]) == {2}


def test_other_metrics_by_cycle_are_means_over_hidden_layers_of_both_nets_and_visits(played):
    experiment, frame = played
    points = Results(experiment, frame).cycle_points("sigma_max")
    assert points[points["method"] == "adam"]["mean"].tolist() == [0.5, 2.5]


def test_cycles_figure_has_a_panel_a_metric_and_gives_the_plotted_points(played):
    experiment, frame = played
    fig, points = figures.cycles_figure(frame, experiment, ["return", "sigma_max"])
    assert [ax.get_xlabel() for ax in fig.axes] == ["cycle"] * 2
    assert set(points["metric"]) == {"return", "sigma_max"}
    assert [len(ax.lines) for ax in fig.axes] == [len(experiment.methods)] * 2
    plt.close(fig)


def test_cycles_figure_without_the_fresh_net_or_with_an_unknown_metric_is_an_error_that_names_it(played):
    experiment, frame = played
    with pytest.raises(ValueError, match="reset_all"):
        figures.cycles_figure(frame[frame["method"] != "reset_all"], experiment)
    with pytest.raises(ValueError, match="did you mean 'sigma_max'"):
        figures.cycles_figure(frame, experiment, ["sigma_maks"])
