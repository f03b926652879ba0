"""The one reader of stored rows, of streams and of games: what an arm reached, by seed and task. No torch, no figures.

    results = Results.stored("random_labels")                 # the committed table; or Results(experiment, frame)
    results.values("online_accuracy", "adam")                 # (seeds, tasks)
    results.per_seed("online_accuracy", "adam", "late")       # (seeds,), mean over some tasks
    results.mean("sigma_max", "adam", "last")                 # one number
    results.ends("online_accuracy", "adam")                   # means (early, late)
    results.interval(SCORE, "adam", "late")                   # value, low, high
    results.wide(["P_100", "online_accuracy"])                # a row a run and task
    results.points("dead")                                    # the points of a curve over tasks

**Tasks** are None (all), a number, several numbers, or a period: "first" and "last" are one task (in games a cycle),
"early" and "late" the first and the last fifth of all, at least one. The book has no other meaning of early and late.
Task -1 is the net before any training. Where a period is early or late, the other tasks of the run must be there too.

**Layers**: "hidden" (as a rule) is the mean over hidden layers, or the number of the whole net where there is no layer;
each head is left out. A layer's name picks that one; "actor" or "critic" the hidden layers of that net in games.

**Score** (`SCORE`) says how well a task goes, higher is better, read while the task is learned:

    online accuracy         of a classification, between 0 and 1; guessing has one over the number of classes (`chance`)
    r / (r + online loss)   of a regression, r = Adam's mean online loss on the early tasks of the same seed
    return over a fresh net's in the same game, of games (`dyniso.report.returns`)

The second is 1/2 where a task goes as Adam's early tasks went, 1 without loss and 0 for an infinite one; near 1/2 it
falls by .02 if the loss rises by 8 %. Targets differ in scale from seed to seed, so Adam's early tasks of that seed are
the measure. In games a score is (games, seeds): a mean over cycles, before which nothing is averaged over games, since
seeds play them in different orders. It is 0 where nothing is reached, and has no upper end.

Nothing is left out in silence. A diverged run has the worst value of its metric (`WORST`) and is named in `diverged`; a
number that is missing raises `NotRunError`.

>>> import numpy as np, pandas as pd
>>> from dyniso.study import specs
>>> tiny = specs.with_seeds(specs.only_methods(specs.get("random_labels"), ["adam"]), 2)
>>> rows = [("adam", seed, task, "", "online_accuracy", 0.5 + 0.1 * seed) for seed in (0, 1) for task in range(10)]
>>> results = Results(tiny, pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"]))
>>> results.values("online_accuracy", "adam").shape, results.tasks("late"), results.tasks("last")
((2, 10), [8, 9], [9])
>>> round(results.mean("online_accuracy", "adam", "late"), 3)
0.55
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from ..checks import nearest, require
from ..stats import Array, bootstrap_interval, estimate
from ..study import data, specs, store
from ..study.specs import Comparison, Experiment, GameExperiment
from ..study.specs.reinforcement import SINGLE
from . import returns
from .rows import Rows

SCORE = "score"
RETURN = "return"
COLUMNS = ("method", "seed", "task", "layer", "metric", "value", "hardware", "commit")  # of the rows that are read
PERIODS = ("first", "early", "late", "last")
SHARE = 5  # early and late are one part of so many
HUGE = float(np.finfo(np.float32).max)  # the largest number that a table holds
WORST = {
    "online_accuracy": 0.0,
    "end_accuracy": 0.0,
    "online_loss": HUGE,
    RETURN: 0.0,
    "P_100": 0.0,
    "kernel_condition": 1e12,  # dyniso.study.instruments.single takes smaller eigenvalues for rounding
    "activation_rank": 0.0,
    "reactivated": 0.0,
    "dead": 1.0,
    "dormant_0.025": 1.0,
    "dormant_0.1": 1.0,
    "isometry_defect": HUGE,
}
Arm = str | tuple[str, ...]  # a method, or names for it of which an experiment's first counts
Tasks = str | int | Sequence[int] | None


class NotRunError(LookupError):
    """A number that is asked for is not stored; the text says which."""


@dataclass(frozen=True, eq=False)
class Results:
    """The rows of one experiment, and how to ask them; see the module."""

    experiment: Comparison
    frame: pd.DataFrame = field(
        repr=False
    )  # long form (`dyniso.study.store`): method, seed, task, layer, metric, value
    diverged: set[str] = field(default_factory=set)  # runs that were read and have diverged, e.g. "adam, seed 3"
    normalised: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)  # visits that were asked for already

    @classmethod
    def stored(cls, experiment: str | Comparison, tier: str = "check") -> Self:
        """From the committed table; FileNotFoundError or UnusableError as of `store.read_compact`."""
        found = specs.find(experiment, tier) if isinstance(experiment, str) else experiment
        return cls(found, store.read_compact(found, COLUMNS))

    # ------------------------------------------------------------------------------------------- what it is about

    @cached_property
    def hardware(self) -> str:
        return store.hardware_of(self.frame)

    @cached_property
    def commit(self) -> str:
        return ", ".join(sorted(self.frame["commit"].unique()))

    @property
    def games(self) -> tuple[str, ...]:
        """The games that it is about, in the order of the first axis of scores; () for a stream."""
        return self.experiment.games.names if isinstance(self.experiment, GameExperiment) else ()

    @property
    def net(self) -> str:
        """Channels of the convolutions, depth and width in one phrase."""
        net: Any = self.experiment.net  # type: ignore[attr-defined]
        channels = net.backbone if self.games else net.channels
        return " + ".join([*map(str, channels), f"{net.depth} x {net.width}"])

    @property
    def chance(self) -> float:
        """The score of guessing: one over the number of classes; 0 for a regression and for games."""
        if not isinstance(self.experiment, Experiment) or self.experiment.stream.is_regression:
            return 0.0
        stream = self.experiment.stream
        return 1 / stream.outputs(data.classes_of(stream.dataset))

    @property
    def labels(self) -> dict[str, str]:
        """What figures and tables call each arm."""
        return {m.name: m.label for m in self.experiment.methods}

    def method(self, arm: Arm) -> str:
        """The first of an arm's names that the experiment has."""
        names = (arm,) if isinstance(arm, str) else arm
        return next((name for name in names if name in self.labels), names[0])

    @property
    def fifth(self) -> int:
        """How many tasks "early" and "late" have; of games, how many cycles."""
        return max(1, self.experiment.tasks // max(1, len(self.games)) // SHARE)

    def tasks(self, which: Tasks = None) -> list[int]:
        """The numbers of some tasks. With gradual transitions task 0, into which no task fades out, is not early.

        Raises:
            ValueError: a period that there is not, or a task outside -1 .. tasks - 1.
        """
        count, unit = self.experiment.tasks, max(1, len(self.games))
        if isinstance(which, str):
            require("tasks", which, PERIODS)
            start = int(bool(isinstance(self.experiment, Experiment) and self.experiment.stream.transition))
            size = unit * (self.fifth if which in ("early", "late") else 1)
            if which in ("last", "late"):
                return list(range(count - size, count))
            return list(range(start, start + size)) if which == "early" else list(range(size))
        found = list(range(count)) if which is None else np.atleast_1d(which).tolist()
        if found and not -1 <= min(found) <= max(found) < count:
            raise ValueError(f"tasks={found}; they must lie between -1 (before any training) and {count - 1}")
        return found

    # ------------------------------------------------------------------------------------------- numbers

    def values(self, metric: str, arm: Arm, tasks: Tasks = None, layers: str = "hidden", over: str = "mean") -> Array:
        """A metric or `SCORE`, shape (seeds, tasks); the worst value of it where the run has diverged.

        Args:
            over: what becomes of several layers: "mean", "min" or "max".
        Raises:
            NotRunError: a number is missing, or a run has diverged and the metric has no worst value.
            ValueError: an unknown metric, layer or period, with the nearest name.
        """
        if metric == SCORE:
            return self._score(arm, tasks)
        method, which = self.method(arm), self.tasks(tasks)
        found, dead = self._table(metric, method, layers, over), self._table("diverged", method) > 0
        read = sorted({*which, *(self.measured(metric) if tasks in ("early", "late") else ())})
        for i, j in np.argwhere((np.isnan(found) & ~dead)[:, np.add(read, 1)])[:1]:
            raise NotRunError(
                f"{self.experiment.name} has no {metric} of {method}, seed {self.experiment.seeds[i]}, task {read[j]}"
            )
        lost = [f"{method}, seed {self.experiment.seeds[i]}" for i in np.flatnonzero(dead[:, np.add(read, 1)].any(1))]
        if lost and metric not in WORST:
            raise NotRunError(f"{self.experiment.name}: {'; '.join(lost)} has diverged; {metric} has no worst value")
        self.diverged.update(lost)
        return np.where(dead, WORST.get(metric, np.nan), found)[:, np.add(which, 1)]

    def measured(self, metric: str) -> list[int]:
        """The tasks after or before which a metric was measured in some run; all tasks if it is nowhere."""
        found = np.flatnonzero((~np.isnan(self.rows.table(metric)[..., 1:])).any((0, 1)))
        return found.tolist() or self.tasks()

    def per_seed(
        self, metric: str, arm: Arm, tasks: Tasks = "late", layers: str = "hidden", over: str = "mean"
    ) -> Array:
        """The mean over some tasks, shape (seeds,); the score of games is (games, seeds)."""
        if metric == SCORE and self.games:
            return self.scores(arm, tasks)
        return self.values(metric, arm, tasks, layers, over).mean(1)

    def mean(self, metric: str, arm: Arm, tasks: Tasks = "late", layers: str = "hidden", over: str = "mean") -> float:
        """The mean over some tasks and all seeds (and games)."""
        return float(self.per_seed(metric, arm, tasks, layers, over).mean())

    def by_task(self, metric: str, arm: Arm, layers: str = "hidden") -> Array:
        """The mean over seeds, shape (tasks,)."""
        return self.values(metric, arm, None, layers).mean(0)

    def ends(self, metric: str, arm: Arm, start: Tasks = "early", end: Tasks = "late") -> tuple[float, float]:
        """The means over two periods, as a rule the early and the late tasks."""
        return self.mean(metric, arm, start), self.mean(metric, arm, end)

    def from_to(self, metric: str, arm: Arm, start: Tasks = "early", end: Tasks = "late", form: str = ".2f") -> str:
        """The same as text, e.g. "0.91 to 0.23"."""
        return " to ".join(format(value, form) for value in self.ends(metric, arm, start, end))

    def interval(self, metric: str, arm: Arm, tasks: Tasks = "late") -> tuple[float, float, float]:
        """Mean over seeds with its 95 % interval; of games the interquartile mean over games and seeds (`estimate`)."""
        return estimate(self.per_seed(metric, arm, tasks))

    def gain(self, metric: str, arm: Arm, rival: Arm, tasks: Tasks = "late") -> tuple[float, float, float]:
        """The same of an arm minus a rival, paired by seed."""
        return estimate(self.per_seed(metric, arm, tasks) - self.per_seed(metric, rival, tasks))

    def means(self, metric: str, tasks: Tasks = "late", layers: str = "hidden") -> pd.Series:
        """`mean` of every arm, by name, in the experiment's order."""
        return pd.Series({name: self.mean(metric, name, tasks, layers) for name in self.labels}, name=metric)

    def wide(self, metrics: Sequence[str], tasks: Tasks = None, before: Sequence[str] = ()) -> pd.DataFrame:
        """A row a run and task: method, seed, task, a column a metric.

        Args:
            before: further metrics, which are measured after a task, as the task before has left them.
        """
        which, parts = self.tasks(tasks), []
        for name in self.labels:
            columns = {metric: self.values(metric, name, which).ravel() for metric in metrics}
            columns |= {metric: self.values(metric, name, [t - 1 for t in which]).ravel() for metric in before}
            seeds = np.repeat(self.experiment.seeds, len(which))
            parts.append(
                pd.DataFrame({"method": name, "seed": seeds, "task": which * len(self.experiment.seeds)} | columns)
            )
        return pd.concat(parts, ignore_index=True)

    def points(self, metric: str, arms: Iterable[str] | None = None) -> pd.DataFrame:
        """Mean over seeds for each arm and task with a 95 % bootstrap interval; a gap where a run has no number.

        Returns:
            Columns metric, method, task, mean, low, high, seeds; one row a task at which anything was measured.
        Raises:
            ValueError: a metric that the rows do not have, with the nearest name.
        """
        require("metric", metric, sorted(self.rows.of))
        parts = []
        for name in self.labels if arms is None else arms:
            table = self._table(metric, name)
            measured = np.flatnonzero(~np.isnan(table).all(0))
            found = table[:, measured].T
            low, high = bootstrap_interval(found, np.random.default_rng(0))
            columns = {"metric": metric, "method": name, "task": measured - 1, "mean": found.mean(1)}
            parts.append(pd.DataFrame(columns | {"low": low, "high": high, "seeds": found.shape[1]}))
        return pd.concat(parts, ignore_index=True)

    def cycle_points(self, metric: str) -> pd.DataFrame:
        """The same of games by cycle: of a return the score (`returns.by_cycle`), else the mean over visits and layers.

        Returns:
            Columns of `points`, task being the cycle from 0.
        Raises:
            ValueError: a metric that the rows do not have, or returns without the fresh net.
        """
        assert isinstance(self.experiment, GameExperiment)
        if metric in returns.PER_VISIT:
            points = returns.by_cycle(self.frame, self.experiment, metric).rename(columns={"cycle": "task"})
            return points[["metric", "method", "task", "mean", "low", "high", "seeds"]]
        task = self.frame["task"]
        by_cycle = self.frame.assign(task=task // len(self.games)).loc[task >= 0]
        return Results(self.experiment, by_cycle).points(metric)

    # ------------------------------------------------------------------------------------------- scores

    def scores(self, arm: Arm, tasks: Tasks = "late", by: str = RETURN) -> Array:
        """Scores in games, shape (games, seeds), mean over the cycles of some tasks.

        Args:
            by: a metric of `returns.PER_VISIT`.
        Raises:
            NotRunError: a visit of the arm or the fresh agent is missing, that agent has diverged or gets nothing, or
                there is one cycle only, whose first is its last.
        """
        name, cycles = self.experiment.name, {task // len(self.games) for task in self.tasks(tasks)}
        if isinstance(tasks, str) and self.experiment.tasks < 2 * len(self.games):
            raise NotRunError(f"{name} has one cycle; its first is its last")
        for one in (SINGLE, arm):
            self.values(RETURN, one)  # nothing is missing, and who has diverged is known
        if (self._table("diverged", SINGLE) > 0).any():
            raise NotRunError(f"{name} has nothing to measure returns by: {SINGLE} diverged")
        try:
            return returns.scores(self.visits(by), self.method(arm), sorted(cycles), self.games)
        except ValueError as error:
            raise NotRunError(f"{name}: {error}") from error

    def visits(self, by: str = RETURN) -> pd.DataFrame:
        """A row a visit with its "score" (`returns.visits`, `returns.normalised`)."""
        assert isinstance(self.experiment, GameExperiment)
        if by not in self.normalised:
            kept = self.frame[self.frame["seed"].isin(self.experiment.seeds)]
            self.normalised[by] = returns.normalised(returns.visits(kept, self.experiment, [by]), by)
        return self.normalised[by]

    def _score(self, arm: Arm, tasks: Tasks) -> Array:
        """The score on a stream, shape (seeds, tasks)."""
        if self.games:
            raise ValueError(f"{self.experiment.name}: scores of games are (games, seeds); `per_seed` gives them")
        metric = self.experiment.score
        found = self.values(metric, arm, tasks)
        if metric != "online_loss":
            return found
        reference = self.values(metric, "adam", "early").mean(1, keepdims=True)
        if (reference >= WORST[metric] / self.experiment.tasks).any():
            raise NotRunError(
                f"{self.experiment.name} has nothing to measure losses by: adam diverged on its first tasks"
            )
        return reference / (reference + found)

    # ------------------------------------------------------------------------------------------- rows

    @cached_property
    def rows(self) -> Rows:
        return Rows(self.frame, list(self.labels), self.experiment.seeds, self.experiment.tasks)

    def _table(self, metric: str, method: str, layers: str = "hidden", over: str = "mean") -> Array:
        """Stored numbers of an arm, shape (seeds, tasks + 1) from task -1 on, NaN where there is none."""
        names = list(self.labels)
        if method not in names:
            raise NotRunError(
                f"{self.experiment.name} has no {metric} of {method}, seed {self.experiment.seeds[0]}; its arms: "
                f"{nearest(method, names)}"
            )
        if metric not in WORST and metric != "diverged":
            require("metric", metric, sorted({*self.rows.of, SCORE}))
        return self.rows.table(metric, layers, over)[names.index(method)]
