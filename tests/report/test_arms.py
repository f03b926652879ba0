"""Arms on games beside each other, from visits made by hand: what fails, what recovers, what a pair differs by."""

from dataclasses import replace

import pandas as pd
import pytest

from dyniso.report import arms
from dyniso.report.results import Results
from dyniso.study import specs
from dyniso.study.specs.reinforcement import SINGLE

GAMES = ("breakout", "space_invaders")


def made(score) -> Results:
    """Three cycles of two games, two seeds: every visit of the fresh agent returns 10, that of Adam 10 `score(...)`."""
    whole = specs.find("minatar", "check")
    games = replace(whole.games, names=GAMES, cycles=3, order="fixed")
    experiment = replace(specs.only_methods(whole, ["adam", "maxmin", SINGLE]), games=games, seeds=(0, 1))
    rows = []
    for arm in experiment.methods:
        for seed in (0, 1):
            for task in range(6):
                value = 10.0 if arm.name == SINGLE else 10.0 * score(arm.name, seed, task // 2, GAMES[task % 2])
                numbers = {"game": float(task % 2), "diverged": 0.0, "return": value}
                numbers |= {"reward_rate": value, "evaluation_return": value}
                rows += [(arm.name, seed, task, "", metric, number) for metric, number in numbers.items()]
                rows += [(arm.name, seed, task, "point1", metric, value) for metric in ("return", "reward_rate")]
    return Results(experiment, pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"]))


def one_fails(arm, seed, cycle, game):
    """Adam fails in breakout in the second cycle of seed 1, and is ahead of a fresh net afterwards."""
    if arm != "adam":
        return 1.5
    return 0.2 if (seed, cycle, game) == (1, 1, "breakout") else 1.2


def test_a_visit_below_half_of_a_fresh_net_has_failed_and_is_named():
    failed = arms.failed(made(one_fails), ["adam", "maxmin"])
    assert failed[["method", "seed", "cycle", "game"]].to_numpy().tolist() == [["adam", 1, 1, "breakout"]]


def test_a_run_recovers_where_a_later_visit_is_above_a_fresh_net():
    results = made(one_fails)
    assert arms.recovered(results, arms.failed(results, ["adam"])) == 1
    for_good = made(lambda arm, seed, cycle, game: 0.2 if arm == "adam" and cycle else 1.5)
    assert arms.recovered(for_good, arms.failed(for_good, ["adam"])) == 0


def test_failures_list_the_arms_that_fail_and_no_other():
    rows = arms.failures(made(one_fails))
    assert [(row["arm"], row["failed visits"], row["in evaluation"]) for row in rows] == [("Adam", 1, 1)]


def test_effect_is_the_first_arm_minus_the_second_in_the_chosen_cycles():
    results = made(one_fails)
    last = arms.last_cycles(results, 1)
    assert arms.effect(results, [("maxmin", "adam")], last)[0] == pytest.approx(0.3)
    assert last == arms.cycle(results, 2) == [4, 5]


def test_board_puts_the_highest_return_first_and_splits_it_by_game():
    board = arms.board(made(one_fails), "late")
    assert [row.arm for row in board] == ["maxmin", "adam", SINGLE]
    assert board[1].games == pytest.approx({"breakout": 1.2, "space_invaders": 1.2})
    assert board[1].area == pytest.approx(1.2)


def test_a_stream_is_refused(tiny):
    with pytest.raises(ValueError, match="random_labels is no sequence of games"):
        arms.games_of(Results(tiny, pd.DataFrame()))


def test_effect_of_several_pairs_is_their_mean_in_each_seed_and_not_a_larger_sample():
    results = made(lambda arm, seed, cycle, game: 1.5 + seed if arm == "maxmin" else 1.0)
    assert arms.effect(results, [("maxmin", "adam"), ("adam", "maxmin")]) == (0, 0, 0)


def test_a_run_that_stays_below_a_fresh_net_has_not_recovered():
    results = made(lambda arm, seed, cycle, game: (0.2, 0.3, 0.9)[cycle] if arm == "adam" else 1.5)
    assert arms.recovered(results, arms.failed(results, ["adam"])) == 0
