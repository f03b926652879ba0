"""Effects: functions that make a function from the stored runs of one experiment to one number a seed.

Each is signed so that what a claim predicts is large. Where several methods are given, the one with the highest mean
accuracy on the last tasks of that experiment speaks for all. That choice is made on the runs that are judged, so it
flatters; where both sides choose, it flatters both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..stats import Array
from .verdict import Effect, NotRunError, Runs


def accuracy_kept(method: str) -> Effect:
    """Online accuracy, last tasks minus first tasks."""
    return lambda runs: runs.last("online_accuracy", method) - runs.first("online_accuracy", method)


def accuracy_lost(method: str) -> Effect:
    """Online accuracy, first tasks minus last tasks."""
    return lambda runs: -accuracy_kept(method)(runs)


def best(runs: Runs, methods: tuple[str, ...]) -> Array:
    """Online accuracy on the last tasks, shape (seeds,), of the method with the highest mean."""
    if not methods:
        raise NotRunError(f"{runs.experiment.name} has none of the methods asked for")
    return max((runs.last("online_accuracy", m) for m in methods), key=lambda values: values.mean())


def accuracy_gained(methods: tuple[str, ...], rivals: tuple[str, ...]) -> Effect:
    """Online accuracy on the last tasks, best of `methods` minus best of `rivals`."""
    return lambda runs: best(runs, methods) - best(runs, rivals)


def accuracy_gained_over_strengths(prefix: str, rival: str) -> Effect:
    """The same between all methods whose names begin with `prefix` and all that begin with `rival`."""
    return lambda runs: best(runs, runs.methods(prefix)) - best(runs, runs.methods(rival))


def fewer(metric: str, method: str, rival: str) -> Effect:
    """A metric on the last tasks, `rival` minus `method`."""
    return lambda runs: runs.last(metric, rival) - runs.last(metric, method)


def decades_below(metric: str, method: str, rivals: tuple[str, ...]) -> Effect:
    """log10 of a metric on the last tasks, the lowest of `rivals` over `method`."""

    def effect(runs: Runs) -> Array:
        lowest = np.min([runs.last(metric, rival) for rival in rivals], 0)
        return decades(lowest) - decades(runs.last(metric, method))

    return effect


def decades(values: Array) -> Array:
    """log10, with what is smaller than float32 can resolve beside one counted as that small."""
    return np.log10(np.maximum(values, np.finfo(np.float32).eps))


def decades_within(metric: str, method: str, tolerance: float) -> Effect:
    """log10 of a tolerance over a metric on the last tasks."""
    return lambda runs: np.log10(tolerance) - decades(runs.last(metric, method))


def reactivation_rate(runs: Runs, method: str) -> Array:
    """Of the units dead after a task, the fraction that the next task makes alive; all tasks pooled, shape (seeds,)."""
    tasks = range(runs.experiment.stream.tasks)
    events = runs.by_task("reactivated", method, tasks[1:]).sum(1)
    dead = runs.by_task("dead", method, tasks[:-1]).sum(1)
    if (dead == 0).any():
        raise NotRunError(f"{runs.experiment.name} has a run of {method} without a dead unit, so none to reactivate")
    return events / dead


def reactivated_more(method: str, rival: str) -> Effect:
    """Reactivation rate, `method` minus `rival`."""
    return lambda runs: reactivation_rate(runs, method) - reactivation_rate(runs, rival)


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


def kernel_orders_accuracy(runs: Runs) -> Array:
    """Rank correlation of P_100 before a task with its online accuracy, over all tasks of all methods."""
    x, y = all_methods(runs, "P_100"), all_methods(runs, "online_accuracy")
    return np.array([rank_correlation(x[:, s], y[:, s]) for s in range(x.shape[1])])


def kernel_follows_accuracy(runs: Runs) -> Array:
    """The same over the tasks of one run, mean over methods."""
    x, y = all_methods(runs, "P_100"), all_methods(runs, "online_accuracy")
    methods, seeds, _ = x.shape
    return np.array([np.mean([rank_correlation(x[m, s], y[m, s]) for m in range(methods)]) for s in range(seeds)])


def isometry_orders_kernel(runs: Runs) -> Array:
    """Rank correlation of minus the isometry defect with P_100, both before a task, over all tasks of all methods."""
    x, y = -all_methods(runs, "isometry_defect", before=True), all_methods(runs, "P_100")
    return np.array([rank_correlation(x[:, s], y[:, s]) for s in range(x.shape[1])])
