"""Effects: functions that make a function from the stored runs of one experiment to one number a seed.

Each is signed so that what a claim predicts is large. Those that read periods alone serve streams and games;
of games a score is one number a game and seed, and "tasks" are cycles (`dyniso.report.results`).
"""

from __future__ import annotations

import numpy as np

from ...stats import Array, rank_correlation
from ..results import SCORE, Arm, NotRunError, Results
from .verdict import Effect


def kept(arm: Arm) -> Effect:
    """Score, last tasks minus first tasks; NotRunError if the first are not half as far above chance as Adam's."""

    def effect(runs: Results) -> Array:
        first, usual = runs.per_seed(SCORE, arm, "early"), runs.per_seed(SCORE, "adam", "early")
        if first.mean() - runs.chance < (usual.mean() - runs.chance) / 2:
            raise NotRunError(
                f"in {runs.experiment.name} {runs.method(arm)} learns next to nothing, so has nothing to keep"
            )
        return runs.per_seed(SCORE, arm, "late") - first

    return effect


def lost(arm: Arm) -> Effect:
    """Score, first tasks minus last tasks."""
    return lambda runs: -kept(arm)(runs)


def gained(arm: Arm, rival: Arm) -> Effect:
    """Score on the last tasks, `arm` minus `rival`, paired by seed."""
    return more(SCORE, arm, rival)


def gained_on_first_task(arm: Arm, rival: Arm) -> Effect:
    """Score on the first task of all, `arm` minus `rival`."""
    return lambda runs: runs.per_seed(SCORE, arm, "first") - runs.per_seed(SCORE, rival, "first")


def gained_on_average(pairs: tuple[tuple[Arm, Arm], ...]) -> Effect:
    """Score on the last tasks, first minus second of a pair, mean over pairs: a main effect of a factorial design."""
    return lambda runs: np.mean([gained(arm, rival)(runs) for arm, rival in pairs], 0)


def difference(effect: Effect, other: Effect) -> Effect:
    """One effect minus another."""
    return lambda runs: effect(runs) - other(runs)


def more(metric: str, arm: Arm, rival: Arm) -> Effect:
    """A metric on the last tasks, `arm` minus `rival`."""
    return lambda runs: runs.per_seed(metric, arm, "late") - runs.per_seed(metric, rival, "late")


def fewer(metric: str, arm: Arm, rival: Arm) -> Effect:
    """A metric on the last tasks, `rival` minus `arm`."""
    return more(metric, rival, arm)


def decades_below(metric: str, arm: Arm, rivals: tuple[Arm, ...]) -> Effect:
    """log10 of a metric on the last tasks, the lowest of those `rivals` that the experiment has over `arm`."""

    def effect(runs: Results) -> Array:
        present = [rival for rival in rivals if runs.method(rival) in runs.labels]
        if not present:
            raise NotRunError(f"{runs.experiment.name} has none of the methods asked for")
        lowest = np.min([runs.per_seed(metric, rival, "late") for rival in present], 0)
        return decades(lowest) - decades(runs.per_seed(metric, arm, "late"))

    return effect


def decades(values: Array) -> Array:
    """log10, with what is smaller than float32 can resolve beside one counted as that small."""
    return np.log10(np.maximum(values, np.finfo(np.float32).eps))


def decades_within(metric: str, arm: Arm, tolerance: float) -> Effect:
    """log10 of a tolerance over a metric on the last tasks."""
    return lambda runs: np.log10(tolerance) - decades(runs.per_seed(metric, arm, "late"))


def decades_above_start(metric: str, arm: Arm) -> Effect:
    """log10 of a metric in games, on the last cycles over before any training."""

    def effect(runs: Results) -> Array:
        return decades(runs.per_seed(metric, arm, "late")) - decades(runs.per_seed(metric, arm, -1))

    return effect


def before_last_task(runs: Results, metric: str, arm: Arm) -> Array:
    """A metric of the kernel before the last task, shape (seeds,)."""
    return runs.per_seed(metric, arm, "last")


def better_kernel(arm: Arm, rival: Arm) -> Effect:
    """P_100 before the last task, `arm` minus `rival`."""
    return lambda runs: before_last_task(runs, "P_100", arm) - before_last_task(runs, "P_100", rival)


def better_conditioned(arm: Arm, rival: Arm) -> Effect:
    """log10 of the condition number of the kernel before the last task, `rival` over `arm`."""

    def effect(runs: Results) -> Array:
        conditions = [before_last_task(runs, "kernel_condition", a) for a in (rival, arm)]
        return decades(conditions[0]) - decades(conditions[1])

    return effect


def kernel_worsened(arm: Arm) -> Effect:
    """log10 of the condition number of the kernel, before the last task over before the first."""

    def effect(runs: Results) -> Array:
        first = runs.per_seed("kernel_condition", arm, "first")
        return decades(before_last_task(runs, "kernel_condition", arm)) - decades(first)

    return effect


def reactivation_rate(runs: Results, arm: Arm) -> Array:
    """Of the units dead after a task, the fraction that the next task makes alive; all tasks pooled, shape (seeds,).

    NaN for a run without a dead unit.
    """
    tasks = range(runs.experiment.tasks)
    events = runs.values("reactivated", arm, tasks[1:]).sum(1)
    dead = runs.values("dead", arm, tasks[:-1]).sum(1)
    return np.divide(events, dead, out=np.full_like(events, np.nan), where=dead > 0)


def reactivated_more(arm: Arm, rival: Arm) -> Effect:
    """Reactivation rate, `arm` minus `rival`; 0 for a seed where one of the two has no dead unit."""
    return lambda runs: np.nan_to_num(reactivation_rate(runs, arm) - reactivation_rate(runs, rival))


def all_methods(runs: Results, metric: str, before: bool = False) -> Array:
    """A metric for every method, shape (methods, seeds, tasks); with `before` as the task before has left it."""
    tasks = range(-before, runs.experiment.tasks - before)
    return np.stack([runs.values(metric, name, tasks) for name in runs.labels])


def kernel_orders_score(runs: Results) -> Array:
    """Rank correlation of P_100 before a task with its score, over all tasks of all methods."""
    x, y = all_methods(runs, "P_100"), all_methods(runs, SCORE)
    return np.array([rank_correlation(x[:, s], y[:, s]) for s in range(x.shape[1])])


def kernel_follows_score(runs: Results) -> Array:
    """The same over the tasks of one run, mean over methods."""
    x, y = all_methods(runs, "P_100"), all_methods(runs, SCORE)
    methods, seeds, _ = x.shape
    return np.array([np.mean([rank_correlation(x[m, s], y[m, s]) for m in range(methods)]) for s in range(seeds)])


def isometry_orders_kernel(runs: Results) -> Array:
    """Rank correlation of minus the isometry defect with P_100, both before a task, over all tasks of all methods."""
    x, y = -all_methods(runs, "isometry_defect", before=True), all_methods(runs, "P_100")
    return np.array([rank_correlation(x[:, s], y[:, s]) for s in range(x.shape[1])])
