"""Returns over games and cycles: divided by the fresh agent before anything is averaged; nothing is left out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dyniso.report import returns
from dyniso.study import specs
from dyniso.study.specs.reinforcement import SINGLE

CHECK = specs.REINFORCEMENT["minatar"]["check"]
SMALL = replace(
    specs.only_methods(CHECK, ["adam", "maxmin", SINGLE]),
    games=replace(CHECK.games, cycles=3, names=("breakout", "space_invaders")),
    seeds=(0, 1, 2, 3),
    curve=2,
)
LEVEL = {"breakout": 5.0, "space_invaders": 20.0}  # what a fresh agent reaches


def rows(factor=lambda method, seed, cycle: 1.0, first=lambda seed, cycle: (seed + cycle) % 2):
    """Rows of runs whose return in a game is its level times a factor; seeds play the games in different orders."""
    found = []
    for m in SMALL.methods:
        for seed in SMALL.seeds:
            for cycle in range(SMALL.games.cycles):
                for position in (0, 1):
                    game = (position + first(seed, cycle)) % 2
                    value = LEVEL[SMALL.games.names[game]] * (1.0 if m.name == SINGLE else factor(m.name, seed, cycle))
                    key = (m.name, seed, 2 * cycle + position)
                    found += [(*key, "", name, value) for name in returns.PER_VISIT]
                    found += [(*key, "", "game", float(game)), (*key, "", "diverged", 0.0)]
                    found += [(*key, f"point{k}", "return", value * k) for k in (1, 2)]
    return pd.DataFrame(found, columns=["method", "seed", "task", "layer", "metric", "value"])


def test_score_is_the_return_over_the_fresh_agents_in_the_same_game_whatever_the_order():
    table = returns.normalised(returns.visits(rows(lambda m, s, c: 0.5 if m == "adam" else 2.0), SMALL))
    by_method = table.groupby("method")["score"].agg(["min", "max"])
    assert by_method.loc["adam"].tolist() == [0.5, 0.5]
    assert by_method.loc["maxmin"].tolist() == [2.0, 2.0]
    assert by_method.loc[SINGLE].tolist() == [1.0, 1.0]


def test_visit_knows_game_cycle_and_position():
    table = returns.visits(rows(), SMALL)
    assert len(table) == len(SMALL.methods) * len(SMALL.seeds) * SMALL.games.visits
    one = table[(table["method"] == "adam") & (table["seed"] == 1) & (table["task"] == 3)].iloc[0]
    assert (one["game"], one["cycle"], one["position"]) == ("space_invaders", 1, 1)


def test_scores_are_games_by_seeds_in_order():
    table = returns.normalised(returns.visits(rows(lambda m, s, c: 1 + s + 10 * c), SMALL))
    np.testing.assert_allclose(returns.scores(table, "adam", [0, 2], SMALL.games.names), [[11, 12, 13, 14]] * 2)


def test_change_is_last_minus_first_cycle_paired_by_seed():
    table = returns.normalised(returns.visits(rows(lambda m, s, c: 3 * s - 0.1 * c), SMALL))
    change = returns.change(table, "adam", SMALL)
    assert change == pytest.approx((-0.2, -0.2, -0.2))  # the seeds' own levels cancel


def test_by_cycle_follows_the_methods_and_their_interquartile_mean():
    points = returns.by_cycle(rows(lambda m, s, c: [0.0, 1.0, 1.0, 50.0][s]), SMALL)
    assert points["method"].unique().tolist() == [m.name for m in SMALL.methods]
    adam = points[points["method"] == "adam"]
    assert adam["mean"].tolist() == [1.0] * 3
    assert (adam["low"] <= adam["mean"]).all() and (adam["high"] >= adam["mean"]).all()
    assert adam["seeds"].tolist() == [4] * 3


def test_diverged_visit_counts_as_nothing_reached():
    frame = rows()
    lost = (frame["method"] == "adam") & (frame["seed"] == 0) & (frame["task"] == 5)
    frame.loc[lost & (frame["metric"] == "diverged"), "value"] = 1.0
    frame.loc[lost & frame["metric"].isin(returns.PER_VISIT), "value"] = np.nan
    table = returns.normalised(returns.visits(frame, SMALL))
    scores = returns.scores(table, "adam", [2], SMALL.games.names)
    assert sorted(scores[:, 0]) == [0.0, 1.0]
    assert (scores[:, 1:] == 1).all()


def test_game_without_a_finished_episode_is_an_error_and_not_left_out():
    frame = rows()
    gone = (frame["method"] == "maxmin") & (frame["seed"] == 2) & (frame["metric"] == "return") & (frame["layer"] == "")
    frame.loc[gone, "value"] = np.nan
    table = returns.normalised(returns.visits(frame, SMALL))
    with pytest.raises(ValueError, match=r"maxmin: no score in \['breakout', 'space_invaders'\]"):
        returns.scores(table, "maxmin", [0, 1, 2], SMALL.games.names)


def test_area_is_the_mean_of_all_points_over_that_of_a_fresh_agent():
    area = returns.area(rows(lambda m, s, c: 1 + c), SMALL)
    adam = area[(area["method"] == "adam") & (area["seed"] == 0)]
    assert adam["area"].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert area[area["method"] == SINGLE]["area"].tolist() == pytest.approx([1.0] * len(area[area["method"] == SINGLE]))


def test_curves_count_steps_into_the_visit():
    curves = returns.curves(rows(), SMALL)
    one = curves[(curves["method"] == "adam") & (curves["game"] == "breakout") & (curves["cycle"] == 0)]
    assert one["steps"].tolist() == [SMALL.games.steps_per_game / 2, SMALL.games.steps_per_game]
    assert one["value"].tolist() == [5.0, 10.0]


def test_nothing_is_normalised_without_the_fresh_agent_or_by_a_return_that_is_not_positive():
    table = returns.visits(rows(), SMALL)
    with pytest.raises(ValueError, match="no runs of 'reset_all'"):
        returns.normalised(table[table["method"] != SINGLE])
    with pytest.raises(ValueError, match="a return that is not positive normalises nothing"):
        returns.normalised(table.assign(**{"return": 0.0}))


def test_unknown_metric_or_method_names_what_there_is():
    with pytest.raises(ValueError, match="did you mean 'return'"):
        returns.visits(rows(), SMALL, ["retrun"])
    table = returns.normalised(returns.visits(rows(), SMALL))
    with pytest.raises(ValueError, match="no visits of 'adamw'"):
        returns.scores(table, "adamw", [0], SMALL.games.names)


def test_fresh_return_is_the_mean_over_visits_and_seeds_whatever_one_of_them_reaches():
    frame = rows()
    lucky = (frame["method"] == SINGLE) & (frame["seed"] == 0) & (frame["metric"] == "return")
    frame.loc[lucky, "value"] *= 5
    reached = returns.fresh_returns(returns.visits(frame, SMALL))
    assert reached.to_dict() == pytest.approx({game: 2 * level for game, level in LEVEL.items()})
