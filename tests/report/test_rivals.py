"""Predictions are compared with outcomes as they were written down, and each of them can fail."""

import numpy as np
import pandas as pd
import pytest

from dyniso.report import rivals
from dyniso.report.results import Results
from dyniso.study import specs
from dyniso.study.specs.rivals import KINDS, RIVALS, Check, arms_of


def results_of(name, value, tier="check"):
    """An experiment in which each arm, seed and task has the accuracy that a function of them says."""
    experiment = specs.get(name, tier)
    rows = [
        {"method": m.name, "seed": s, "task": t, "layer": "", "metric": metric, "value": v}
        for m in experiment.methods
        for s in experiment.seeds
        for t in range(experiment.tasks)
        for metric, v in (("online_accuracy", value(m.name, s, t)), ("diverged", 0.0))
    ]
    return Results(experiment, pd.DataFrame(rows))


def wobble(seed):
    return 0.002 * (seed % 3 - 1)


def test_t_interval_is_that_of_students_table():
    found = rivals.t_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2  # t_{0.975} with three degrees of freedom
    assert found == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-6)


def test_t_intervals_of_eight_seeds_cover_the_mean_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(size=(4000, 8))
    covered = [low <= 0 <= high for _, low, high in map(rivals.t_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_prediction_can_hold_and_fail_and_be_undecided(kind):
    right, wrong = {"above": (0.3, -0.3), "equal": (0.0, 0.3), "high": (0.9, 0.1), "low": (0.1, 0.9)}.get(
        kind, (0.0, 0.3)
    )
    verdicts = [rivals.verdict(kind, rivals.Interval(m, m - 0.01, m + 0.01)) for m in (right, wrong)]
    assert verdicts == ["holds", "fails"]
    assert rivals.verdict(kind, rivals.Interval(0.2, -2.0, 2.0)) == "undecided"


def test_a_small_difference_is_no_difference():
    assert rivals.verdict("above", rivals.Interval(0.03, 0.02, 0.04)) == "fails"
    assert rivals.verdict("equal", rivals.Interval(0.03, 0.02, 0.04)) == "holds"


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_every_prediction_names_arms_of_its_experiment(name):
    for tier in ("check", "paper", "smoke"):
        known = {m.name for m in specs.get(name, tier).methods}
        assert {a for predicted in RIVALS[name].values() for a in arms_of(predicted)} <= known


def test_outcome_is_the_task_after_the_branch():
    results = results_of("surgery_labels", lambda arm, seed, task: 0.7 if task == 20 else 0.1)
    assert rivals.outcome_tasks(results) == [20]
    assert rivals.outcome(results, "flat_own") == pytest.approx(np.full(8, 0.7))


def test_outcome_without_a_branch_is_the_mean_of_the_last_three_tasks():
    results = results_of("held_sides_maxmin", lambda arm, seed, task: task / 10)
    assert rivals.outcome(results, "norm") == pytest.approx(np.full(8, 0.8))
    assert rivals.lost(results, "norm") == pytest.approx(np.full(8, 0.4 - 0.8))


def test_a_difference_is_paired_by_seed():
    of_seed = {"norm": lambda s: 0.1 * s + 0.02, "clip": lambda s: 0.1 * s}
    results = results_of("held_sides_maxmin", lambda arm, seed, task: of_seed.get(arm, lambda s: 0.5)(seed))
    assert rivals.difference(results, "norm", "clip") == pytest.approx((0.02, 0.02, 0.02))
    assert rivals.level(results, "clip") == pytest.approx(0.75)


def test_recovery_is_0_for_the_net_left_alone_and_1_for_a_fresh_one():
    level = {"kept_own": 0.2, "fresh": 0.6, "flat_own": 0.5}
    results = results_of("surgery_labels", lambda arm, seed, task: level.get(arm, 0.3) + wobble(seed))
    for arm, share in (("kept_own", 0.0), ("fresh", 1.0), ("flat_own", 0.75)):
        assert rivals.recovery(results, arm).mean() == pytest.approx(share)


def test_a_world_that_follows_the_gates_lets_only_the_gates_survive():
    def accuracy(arm, seed, task):
        high = arm.endswith("balanced") or arm == "fresh"
        return (0.8 if high else 0.2) + wobble(seed)

    found = rivals.checks(results_of("surgery_labels", accuracy))
    failing = {rival for rival, part in found.groupby("rival") if (part["verdict"] == "fails").any()}
    assert "gates" not in failing
    assert {"isometry", "scale", "alignment", "displacement", "lower_tail", "upper_tail"} == failing


def test_a_world_that_follows_the_defect_lets_isometry_survive():
    defect = {m.name: 0.0 for m in specs.get("held_shapes_relu", "check").methods}
    defect |= {f"ln_{d}": float(d) for d in ("0.25", "0.5", "0.75", "1", "1.5")} | {"free": 3.0}
    defect |= {f"{shape}@{D}": float(D) for shape in ("bottom", "ln", "spike4", "spike1") for D in ("0.5", "1", "3")}
    found = rivals.checks(
        results_of("held_shapes_relu", lambda arm, seed, task: 0.8 - 0.15 * defect[arm] + wobble(seed))
    )
    assert set(found[found["rival"] == "isometry"]["verdict"]) == {"holds"}
    assert "fails" in set(found[found["rival"] == "lower_tail"]["verdict"])


def test_a_run_that_diverged_counts_as_0():
    results = results_of("held_sides_maxmin", lambda arm, seed, task: 0.5)
    frame = results.frame.copy()
    frame.loc[(frame["method"] == "norm") & (frame["metric"] == "diverged"), "value"] = 1.0
    assert rivals.outcome(Results(results.experiment, frame), "norm") == pytest.approx(np.zeros(8))


def test_no_prediction_holds_because_runs_diverged():
    results = results_of("one_sided_pixels", lambda arm, seed, task: 0.5 + wobble(seed))
    frame = results.frame.copy()
    frame.loc[frame["method"].isin(["both_1", "above_1"]) & (frame["metric"] == "diverged"), "value"] = 1.0
    found = rivals.checks(Results(results.experiment, frame))
    equal = found[found["kind"] == "equal"].set_index("arm")["verdict"]
    assert equal.to_dict() == {"above_0.1": "holds", "above_1": "undecided"}


def test_routes_order_what_orders_the_outcome_first():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"method": np.repeat(list("abcd"), 8), "before_P_100": rng.random(32), "noise": rng.random(32)}
    )
    frame["outcome"] = frame["before_P_100"] ** 2
    found = rivals.routes(frame, ["before_P_100", "noise"]).set_index("predictor")
    assert found.loc["before_P_100", "runs"] == 1.0
    assert abs(found.loc["noise", "gain"]) < 0.1 < abs(found.loc["before_P_100", "r2"])


def test_an_unknown_kind_of_prediction_is_refused():
    with pytest.raises(ValueError, match="kind='better'"):
        rivals.verdict("better", rivals.Interval(0, 0, 0))


def test_a_check_is_of_one_arm_or_of_two():
    assert list(arms_of((Check("high", "a"), Check("above", "b", "c")))) == ["a", "b", "c"]
