"""Contracts of dyniso.report.figures.arms: what is drawn is what the stored rows of games say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dyniso.report import arms, returns
from dyniso.report.figures import arms as pictures
from dyniso.report.results import Results
from dyniso.study.specs.reinforcement import SINGLE


@pytest.fixture(scope="module")
def results():
    """The stored experiment on Octax."""
    return Results.stored("octax")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def others(results):
    """Arms that go on from game to game."""
    return [name for name in results.labels if name != SINGLE]


def test_strips_are_drawn_as_they_are_below_the_name_of_their_game():
    strips = {"space_invaders": np.zeros((2, 6, 3), np.uint8), "breakout": np.full((2, 6, 3), 9, np.uint8)}
    fig = pictures.strips_figure(strips, 2)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["space invaders", "breakout"]
    for ax, pixels in zip(fig.axes, strips.values(), strict=True):
        assert np.array_equal(ax.images[0].get_array(), pixels)


def test_one_strip_and_one_family_are_pictures_too(results):
    assert len(pictures.strips_figure({"brix": np.zeros((2, 6, 3), np.uint8)}, 1).axes) == 1
    assert len(pictures.families_figure(results, {"all": others(results)})[0].axes) == 1


def test_return_within_a_visit_is_that_of_the_first_and_the_last_cycles_and_of_a_fresh_net(results):
    picked = others(results)[:2]
    fig, points = pictures.within_figure(results, picked, 1)
    cycles = results.experiment.tasks // len(results.games)
    assert set(points["method"]) == set(picked)
    for ax, (arm, game) in zip(fig.axes, [(a, g) for a in picked for g in results.games], strict=True):
        whole = arms.within(results, range(cycles))
        first, last = arms.within(results, [0]), arms.within(results, [cycles - 1])
        for line, (table, name) in zip(ax.lines, ((whole, SINGLE), (first, arm), (last, arm)), strict=True):
            own = table[(table["method"] == name) & (table["game"] == game)]
            np.testing.assert_array_equal(line.get_ydata(), own["value"])


def test_each_cycle_has_a_panel_with_the_metric_of_its_game(results):
    measures = dict.fromkeys(results.games, ("return", "return"))
    fig, points = pictures.each_cycle_figure(results, measures)
    cycles = results.experiment.tasks // len(results.games)
    panels = [(game, c + 1) for game in measures for c in range(cycles)]
    for ax, (game, cycle) in zip(fig.axes, panels, strict=True):
        assert ax.get_title() == f"{game}, cycle {cycle}"
        own = points[(points["game"] == game) & (points["cycle"] == cycle)]
        for line, arm in zip(ax.lines, results.labels, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), own[own["method"] == arm]["value"])


def test_families_have_a_panel_each_with_the_scores_over_cycles(results):
    families = {"one": others(results)[:1], "two": others(results)[1:]}
    fig, _ = pictures.families_figure(results, families)
    points = returns.by_cycle(results.frame, arms.games_of(results))
    for ax, (family, names) in zip(fig.axes, families.items(), strict=True):
        assert ax.get_title(loc="left") == family
        for line, arm in zip(ax.lines, names, strict=False):
            assert line.get_ydata().tolist() == points[points["method"] == arm]["mean"].tolist()


def test_instruments_have_a_dot_an_arm_and_a_cross_for_the_fresh_net():
    titles = {key: key.upper() for key in "abcdef"}
    values = np.arange(1.0, 22.0).reshape(3, 7)
    measured = pd.DataFrame(values, index=["x", "y", SINGLE], columns=[*titles, "score"])
    fig, _ = pictures.instruments_figure(measured, {"one": ["x"], "two": ["y"]}, titles, "fresh")
    assert [ax.get_xlabel() for ax in fig.axes] == list(titles.values())
    for ax, key in zip(fig.axes, titles, strict=True):
        drawn = [tuple(dots.get_offsets()[0]) for dots in ax.collections]
        assert drawn == [(measured[key][arm], measured["score"][arm]) for arm in ("x", "y", SINGLE)]
