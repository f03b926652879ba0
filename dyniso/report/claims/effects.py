"""Effects: functions that make a function from the stored runs of one experiment to one number a seed.

Each is signed so that what a claim predicts is large. Those that read `first` and `last` alone serve streams and games;
of games a score is one number a game and seed, and "tasks" are cycles (`dyniso.report.claims.game_runs`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...stats import Array
from .game_runs import GameRuns
from .runs import SCORE, Arm, NotRunError, Runs, Stored
from .verdict import Effect


def kept(arm: Arm) -> Effect:
    """Score, last tasks minus first tasks; NotRunError if the first are not half as far above chance as Adam's."""

    def effect(runs: Stored) -> Array:
        first, usual = runs.first(SCORE, arm), runs.first(SCORE, "adam")
        if first.mean() - runs.chance < (usual.mean() - runs.chance) / 2:
            raise NotRunError(
                f"in {runs.experiment.name} {runs.method(arm)} learns next to nothing, so has nothing to keep"
            )
        return runs.last(SCORE, arm) - first

    return effect


def lost(arm: Arm) -> Effect:
    """Score, first tasks minus last tasks."""
    return lambda runs: -kept(arm)(runs)


def gained(arm: Arm, rival: Arm) -> Effect:
    """Score on the last tasks, `arm` minus `rival`, paired by seed."""
    return more(SCORE, arm, rival)


def gained_on_first_task(arm: Arm, rival: Arm) -> Effect:
    """Score on the first task of all, `arm` minus `rival`."""
    return lambda runs: (runs.by_task(SCORE, arm, [0]) - runs.by_task(SCORE, rival, [0]))[:, 0]


def gained_on_average(pairs: tuple[tuple[Arm, Arm], ...]) -> Effect:
    """Score on the last tasks, first minus second of a pair, mean over pairs: a main effect of a factorial design."""
    return lambda runs: np.mean([gained(arm, rival)(runs) for arm, rival in pairs], 0)


def difference(effect: Effect, other: Effect) -> Effect:
    """One effect minus another."""
    return lambda runs: effect(runs) - other(runs)


def more(metric: str, arm: Arm, rival: Arm) -> Effect:
    """A metric on the last tasks, `arm` minus `rival`."""
    return lambda runs: runs.last(metric, arm) - runs.last(metric, rival)


def fewer(metric: str, arm: Arm, rival: Arm) -> Effect:
    """A metric on the last tasks, `rival` minus `arm`."""
    return more(metric, rival, arm)


def decades_below(metric: str, arm: Arm, rivals: tuple[Arm, ...]) -> Effect:
    """log10 of a metric on the last tasks, the lowest of those `rivals` that the experiment has over `arm`."""

    def effect(runs: Stored) -> Array:
        have = {m.name for m in runs.experiment.methods}
        present = [rival for rival in rivals if runs.method(rival) in have]
        if not present:
            raise NotRunError(f"{runs.experiment.name} has none of the methods asked for")
        lowest = np.min([runs.last(metric, rival) for rival in present], 0)
        return decades(lowest) - decades(runs.last(metric, arm))

    return effect


def decades(values: Array) -> Array:
    """log10, with what is smaller than float32 can resolve beside one counted as that small."""
    return np.log10(np.maximum(values, np.finfo(np.float32).eps))


def decades_within(metric: str, arm: Arm, tolerance: float) -> Effect:
    """log10 of a tolerance over a metric on the last tasks."""
    return lambda runs: np.log10(tolerance) - decades(runs.last(metric, arm))


def decades_above_start(metric: str, arm: Arm) -> Effect:
    """log10 of a metric in games, on the last cycles over before any training."""

    def effect(runs: GameRuns) -> Array:
        return decades(runs.last(metric, arm)) - decades(runs.untrained(metric, arm))

    return effect


def before_last_task(runs: Runs, metric: str, arm: Arm) -> Array:
    """A metric of the kernel before the last task, shape (seeds,)."""
    return runs.by_task(metric, arm, [runs.experiment.stream.tasks - 1])[:, 0]


def better_kernel(arm: Arm, rival: Arm) -> Effect:
    """P_100 before the last task, `arm` minus `rival`."""
    return lambda runs: before_last_task(runs, "P_100", arm) - before_last_task(runs, "P_100", rival)


def better_conditioned(arm: Arm, rival: Arm) -> Effect:
    """log10 of the condition number of the kernel before the last task, `rival` over `arm`."""

    def effect(runs: Runs) -> Array:
        conditions = [before_last_task(runs, "kernel_condition", a) for a in (rival, arm)]
        return decades(conditions[0]) - decades(conditions[1])

    return effect


def kernel_worsened(arm: Arm) -> Effect:
    """log10 of the condition number of the kernel, before the last task over before the first."""

    def effect(runs: Runs) -> Array:
        first = runs.by_task("kernel_condition", arm, [0])[:, 0]
        return decades(before_last_task(runs, "kernel_condition", arm)) - decades(first)

    return effect


def reactivation_rate(runs: Runs, arm: Arm) -> Array:
    """Of the units dead after a task, the fraction that the next task makes alive; all tasks pooled, shape (seeds,).

    NaN for a run without a dead unit.
    """
    tasks = range(runs.experiment.stream.tasks)
    events = runs.by_task("reactivated", arm, tasks[1:]).sum(1)
    dead = runs.by_task("dead", arm, tasks[:-1]).sum(1)
    return np.divide(events, dead, out=np.full_like(events, np.nan), where=dead > 0)


def reactivated_more(arm: Arm, rival: Arm) -> Effect:
    """Reactivation rate, `arm` minus `rival`; 0 for a seed where one of the two has no dead unit."""
    return lambda runs: np.nan_to_num(reactivation_rate(runs, arm) - reactivation_rate(runs, rival))


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's correlation of two arrays of one shape, ties with their mean rank; 0 if one of them is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 9.0]))
    1.0
    """
    ranks = [pd.Series(v.ravel()).rank().to_numpy(float) for v in (x, y)]
    if any(np.ptp(r) == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1].round(12))


def all_methods(runs: Runs, metric: str, before: bool = False) -> Array:
    """A metric for every method, shape (methods, seeds, tasks); with `before` as the task before has left it."""
    tasks = range(-before, runs.experiment.stream.tasks - before)
    return np.stack([runs.by_task(metric, m.name, tasks) for m in runs.experiment.methods])


def kernel_orders_score(runs: Runs) -> Array:
    """Rank correlation of P_100 before a task with its score, over all tasks of all methods."""
    x, y = all_methods(runs, "P_100"), all_methods(runs, SCORE)
    return np.array([rank_correlation(x[:, s], y[:, s]) for s in range(x.shape[1])])


def kernel_follows_score(runs: Runs) -> Array:
    """The same over the tasks of one run, mean over methods."""
    x, y = all_methods(runs, "P_100"), all_methods(runs, SCORE)
    methods, seeds, _ = x.shape
    return np.array([np.mean([rank_correlation(x[m, s], y[m, s]) for m in range(methods)]) for s in range(seeds)])


def isometry_orders_kernel(runs: Runs) -> Array:
    """Rank correlation of minus the isometry defect with P_100, both before a task, over all tasks of all methods."""
    x, y = -all_methods(runs, "isometry_defect", before=True), all_methods(runs, "P_100")
    return np.array([rank_correlation(x[:, s], y[:, s]) for s in range(x.shape[1])])
