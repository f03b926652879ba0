"""The one reader of stored rows: what is averaged over what, what late is, and nothing left out in silence."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dyniso.report.results import HUGE, SCORE, NotRunError, Results
from dyniso.report.rows import Rows
from dyniso.study import specs

TASKS, SEEDS = 10, (0, 1)
COLUMNS = ["method", "seed", "task", "layer", "metric", "value"]


@pytest.fixture
def ten(tiny):
    """Adam and AdamO 0.1 on ten tasks, seeds 0 and 1."""
    return replace(tiny, stream=replace(tiny.stream, tasks=TASKS), seeds=SEEDS)


def results_of(experiment, value=lambda method, seed, task: task + 100.0 * seed, metric="online_accuracy", layer=""):
    rows = [
        (m.name, seed, task, layer, metric, value(m.name, seed, task))
        for m in experiment.methods
        for seed in experiment.seeds
        for task in range(experiment.tasks)
    ]
    return Results(experiment, pd.DataFrame(rows, columns=COLUMNS))


def changed(results, where, **columns) -> Results:
    """The same with other values in some rows."""
    frame = results.frame.copy()
    for column, value in columns.items():
        frame.loc[where(frame), column] = value
    return Results(results.experiment, frame)


# ------------------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize(
    ("which", "tasks"),
    [
        (None, range(10)),
        ("first", [0]),
        ("early", [0, 1]),
        ("late", [8, 9]),
        ("last", [9]),
        (-1, [-1]),
        (np.int64(3), [3]),
        (range(2, 4), [2, 3]),
    ],
)
def test_early_and_late_are_a_fifth_of_the_tasks_first_and_last_are_one(ten, which, tasks):
    assert results_of(ten).tasks(which) == list(tasks)


def test_late_is_one_task_where_there_are_fewer_than_five(tiny):
    assert results_of(tiny).tasks("late") == [1]


def test_early_tasks_of_a_gradual_stream_leave_out_the_one_into_which_nothing_fades(ten):
    gradual = replace(ten, stream=replace(ten.stream, transition=0.5))
    assert results_of(gradual).tasks("early") == [1, 2]


def test_early_and_late_tasks_of_games_are_whole_cycles():
    minatar = specs.find("minatar", "check")
    results, games = Results(minatar, pd.DataFrame(columns=COLUMNS)), len(minatar.games.names)
    assert results.tasks("last") == list(range(minatar.tasks - games, minatar.tasks))
    assert len(results.tasks("late")) == games * max(1, minatar.games.cycles // 5)


def test_unknown_period_or_task_is_an_error_that_says_what_there_is(ten):
    with pytest.raises(ValueError, match="did you mean 'late'"):
        results_of(ten).tasks("lat")
    with pytest.raises(ValueError, match=r"must lie between -1 .* and 9"):
        results_of(ten).values("online_accuracy", "adam", 10)


# ------------------------------------------------------------------------------------------------------ numbers


def test_values_are_seeds_by_tasks_and_means_go_over_tasks_then_seeds(ten):
    results = results_of(ten)
    np.testing.assert_array_equal(results.values("online_accuracy", "adam", [2, 3]), [[2, 3], [102, 103]])
    np.testing.assert_array_equal(results.per_seed("online_accuracy", "adam", "late"), [8.5, 108.5])
    np.testing.assert_array_equal(results.by_task("online_accuracy", "adam"), np.arange(10) + 50)
    assert results.mean("online_accuracy", "adam", "late") == 58.5
    assert results.ends("online_accuracy", "adam") == (50.5, 58.5)
    assert results.from_to("online_accuracy", "adam", "first", "last", ".0f") == "50 to 59"
    assert results.means("online_accuracy").to_dict() == {"adam": 58.5, "adamo_0.1": 58.5}


def test_interval_is_of_the_mean_over_seeds_and_gain_is_paired(ten):
    results = results_of(ten, lambda method, seed, task: 100.0 * seed + (method != "adam"))
    assert results.interval("online_accuracy", "adam") == (50, 0, 100)
    assert results.gain("online_accuracy", "adamo_0.1", "adam") == (1, 1, 1)


def test_arm_of_several_names_is_the_first_that_the_experiment_has(ten):
    assert results_of(ten).method(("adamo", "adamo_0.1", "adam")) == "adamo_0.1"


def test_head_is_left_out_and_a_named_layer_is_that_layer(hand_made, tiny):
    results = Results(tiny, hand_made)  # layers 1 and 3 hold v and v + 2, the head "11.weight" v + 1000
    assert results.mean("sigma_max", "adam", 0) == 6.0
    assert results.mean("sigma_max", "adam", 0, over="max") == 7.0
    assert results.mean("sigma_max", "adam", 0, layers="3.weight") == 7.0
    assert results.mean("sigma_max", "adam", 0, layers="11.weight") == 1005.0
    with pytest.raises(ValueError, match=r"layers='5\.weight'; allowed are 'hidden'"):
        results.mean("sigma_max", "adam", 0, layers="5.weight")


def test_head_is_left_out_of_each_method_by_its_own_numbering():
    layers = {"plain": ["1.weight", "3.weight", "hidden1"], "normed": ["1.weight", "4.weight", "hidden1"]}
    rows = [(m, 0, 0, layer, "sigma_max", 1.0) for m, names in layers.items() for layer in names]
    rows = Rows(pd.DataFrame(rows, columns=COLUMNS), list(layers), [0], 1)
    assert rows.layers[rows.layer[rows.hidden]].tolist() == ["1.weight", "hidden1"] * 2


def test_layers_of_a_net_in_games_are_its_hidden_ones_without_points_of_curves():
    minatar = replace(specs.only_methods(specs.find("minatar", "check"), ["adam"]), seeds=(0,))
    layers = {"actor.hidden1": 1.0, "actor.hidden2": 3.0, "critic.hidden1": 9.0, "point1": 1e6}
    rows = [("adam", 0, 0, layer, "dead", value) for layer, value in layers.items()]
    results = Results(minatar, pd.DataFrame(rows, columns=COLUMNS))
    assert results.mean("dead", "adam", 0, layers="actor") == 2.0
    assert results.mean("dead", "adam", 0) == pytest.approx(13 / 3)


def test_wide_has_a_row_a_run_and_task_and_what_the_task_before_has_left(ten):
    both = [results_of(ten).frame, results_of(ten, metric="dead").frame.assign(task=lambda t: t["task"] - 1)]
    wide = Results(ten, pd.concat(both)).wide(["online_accuracy"], tasks=[1, 2], before=["dead"])
    assert list(wide.columns) == ["method", "seed", "task", "online_accuracy", "dead"]
    assert wide.iloc[:3].to_numpy().tolist() == [["adam", 0, 1, 1, 1], ["adam", 0, 2, 2, 2], ["adam", 1, 1, 101, 101]]


def test_order_of_the_rows_does_not_matter(hand_made, tiny):
    shuffled = hand_made.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(*(Results(tiny, f).points("sigma_max") for f in (hand_made, shuffled)))


# ------------------------------------------------------------------------------------------------------ what is missing


def test_missing_number_is_an_error_that_names_it_and_no_mean_of_the_rest(ten):
    results = results_of(ten)
    gap = changed(results, lambda f: (f["method"] == "adam") & (f["seed"] == 1) & (f["task"] == 9), value=np.nan)
    with pytest.raises(NotRunError, match="no online_accuracy of adam, seed 1, task 9"):
        gap.mean("online_accuracy", "adam", "late")
    assert gap.mean("online_accuracy", "adam", "first") == 50


def test_late_asks_for_the_whole_run_so_a_gap_before_is_an_error_too(ten):
    gap = changed(results_of(ten), lambda f: (f["method"] == "adam") & (f["task"] == 3), value=np.nan)
    with pytest.raises(NotRunError, match="adam, seed 0, task 3"):
        gap.mean("online_accuracy", "adam", "late")
    assert gap.mean("online_accuracy", "adam", "last") == 59


def test_layer_without_a_number_is_missing_and_not_averaged_away(hand_made, tiny):
    gone = (hand_made["layer"] == "3.weight") & (hand_made["task"] == 1)
    with pytest.raises(NotRunError, match="no sigma_max of adam, seed 0, task 1"):
        Results(tiny, hand_made.assign(value=hand_made["value"].mask(gone))).mean("sigma_max", "adam")


def diverging(results) -> Results:
    """Adam of seed 1 diverges in task 5."""
    flags = results.frame.assign(metric="diverged", layer="", value=0.0)
    late = (flags["method"] == "adam") & (flags["seed"] == 1) & (flags["task"] >= 5)
    numbers = results.frame.assign(value=results.frame["value"].mask(late))
    flags["value"] = flags["value"].mask(late, 1.0)
    return Results(results.experiment, pd.concat([numbers, flags], ignore_index=True))


def test_diverged_run_has_the_worst_value_and_is_named(ten):
    results = diverging(results_of(ten, lambda *_: 0.5))
    np.testing.assert_array_equal(results.per_seed("online_accuracy", "adam"), [0.5, 0.0])
    assert results.diverged == {"adam, seed 1"}
    loss = diverging(results_of(ten, lambda *_: 0.5, metric="isometry_defect", layer="1.weight"))
    assert loss.values("isometry_defect", "adam", "last", layers="1.weight")[1, 0] == HUGE


def test_diverged_run_has_no_value_of_a_metric_without_a_worst_one(ten):
    with pytest.raises(NotRunError, match="adam, seed 1 has diverged; sigma_max has no worst value"):
        diverging(results_of(ten, metric="sigma_max")).mean("sigma_max", "adam")


def test_unknown_metric_or_arm_names_the_nearest(ten):
    with pytest.raises(ValueError, match="did you mean 'online_accuracy'"):
        results_of(ten).mean("online_acuracy", "adam")
    with pytest.raises(NotRunError, match=r"no online_accuracy of adamo_1.*did you mean 'adamo_0\.1'"):
        results_of(ten).mean("online_accuracy", "adamo_1")


# ------------------------------------------------------------------------------------------------------ curves


def test_points_are_the_mean_over_hidden_layers_then_over_seeds(hand_made, tiny):
    points = Results(tiny, hand_made).points("sigma_max").set_index(["method", "task"])
    # layers 1 and 3 hold v and v + 2, so v + 1; seeds add 0 and 10, so v + 1 + 5; the head's v + 1000 is left out
    expected = {("adam", 0): 6.0, ("adam", 1): 7.0, ("adamo_0.1", 0): 106.0, ("adamo_0.1", 1): 107.0}
    assert points["mean"].to_dict() == expected
    assert (points["low"] == points["mean"] - 5).all()  # the range of two seeds
    assert (points["high"] == points["mean"] + 5).all()
    assert set(points["seeds"]) == {2}
    assert set(points["metric"]) == {"sigma_max"}


def test_points_of_measures_of_the_whole_net_are_kept(hand_made, tiny):
    means = Results(tiny, hand_made).points("online_accuracy")["mean"]
    assert means.tolist() == pytest.approx([0.005, 0.006, 0.105, 0.106])


def test_points_have_a_gap_where_a_run_has_no_number_and_none_of_a_task_without_any(ten):
    gap = changed(results_of(ten), lambda f: (f["seed"] == 1) & (f["task"] == 4) | (f["task"] == 0), value=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = gap.points("online_accuracy", ["adam"])
    assert points["task"].tolist() == list(range(1, 10))
    assert points[points["mean"].isna()]["task"].tolist() == [4]


def test_score_of_a_regression_is_measured_by_the_mean_of_adams_early_losses(ten):
    stream = specs.Stream("slow_regression", specs.BITS, samples=64, tasks=15)  # three early tasks
    early = {0: 1.0, 1: 1.0, 2: 4.0}
    results = results_of(replace(ten, stream=stream), lambda _m, _s, task: early.get(task, 2.0), metric="online_loss")
    assert results.per_seed(SCORE, "adam", "late") == pytest.approx([2 / (2 + 2)] * 2)


# ------------------------------------------------------------------------------------------------------ stored


@pytest.mark.parametrize("name", ["random_labels", "slow_regression", "octax"])
def test_score_of_a_stored_experiment_is_above_chance_for_adam_on_early_tasks(name):
    results = Results.stored(name)
    assert results.mean(SCORE, "adam", "early") > results.chance + 0.1
    assert results.hardware and results.commit and results.labels["adam"].startswith(("Adam", "ReLU"))


def test_values_of_a_score_of_games_say_that_they_are_by_game():
    with pytest.raises(ValueError, match="`per_seed` gives them"):
        Results.stored("octax").values(SCORE, "adam")
    results = Results.stored("octax")
    assert results.per_seed(SCORE, "adam").shape == (len(results.games), len(results.experiment.seeds))
