"""The stored numbers of one experiment as claims read them: one score, hidden layers averaged, diverged runs the worst.

The score of a task is between 0 and 1, higher is better, and read while the task is learned:

    online accuracy        of a classification
    r / (r + online loss)  of a regression, r = Adam's mean online loss on the first tasks of the same seed

Guessing has an accuracy of one over the number of classes: .1 on most streams, .01 with 100 classes, .5 on pairs. The
score does not take it off; where a claim asks whether anything is learned it does (`Runs.chance`).

The second is 1/2 where a task goes as Adam's first tasks went, 1 without loss and 0 for an infinite one. Near 1/2 it
falls by .02 if the loss rises by 8 %. Targets differ in scale from seed to seed, and no table holds the loss of a
constant; so Adam's first tasks of that seed are the measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from ...checks import require
from ...stats import Array
from ...study import data, store
from ...study.specs import Comparison, Experiment
from ..figures import hidden_layers

SCORE = "score"
HUGE = float(np.finfo(np.float32).max)  # the largest number that a table holds
WORST = {
    "online_accuracy": 0.0,
    "online_loss": HUGE,
    "P_100": 0.0,
    "kernel_condition": 1e12,  # dyniso.study.instruments.single takes smaller eigenvalues for rounding
    "activation_rank": 0.0,
    "reactivated": 0.0,
    "dead": 1.0,
    "dormant_0.025": 1.0,
    "isometry_defect": HUGE,
}
Arm = str | tuple[str, ...]  # a method, or names for it of which an experiment's first counts


class NotRunError(Exception):
    """What a claim needs is not stored; the text says what."""


@dataclass(frozen=True)
class Stored:
    """One experiment's numbers by metric and method, which effects read; `of` makes them from its rows.

    `Runs` are those of a stream, `dyniso.report.claims.game_runs.GameRuns` those of a sequence of games.
    """

    experiment: Comparison
    cells: pd.DataFrame  # rows (method, metric, seed), a column a task
    hardware: str
    commit: str
    diverged: set[str] = field(default_factory=set)  # runs that were read and have diverged, e.g. "adam, seed 3"
    worst: ClassVar[dict[str, float]] = {}  # every metric that claims read, with its value in a diverged run

    @classmethod
    def of(cls, experiment: Comparison, frame: pd.DataFrame) -> Self:
        """Mean over hidden layers of what `worst` has, NaN where one layer is NaN."""
        rows = hidden_layers(frame[frame["metric"].isin([*cls.worst, "diverged"])])
        cells = rows.astype({"value": float}).groupby(["method", "metric", "seed", "task"])["value"]
        means = cells.mean().where(cells.count() == cells.size())  # mean alone would skip NaN
        return cls(
            experiment, means.unstack("task"), store.hardware_of(frame), ", ".join(sorted(frame["commit"].unique()))
        )

    @classmethod
    def stored(cls, experiment: Comparison) -> Self:
        """From the committed table; FileNotFoundError or UnusableError as of `store.read_compact`."""
        return cls.of(experiment, store.read_compact(experiment))

    def method(self, arm: Arm) -> str:
        """The first of an arm's names that the experiment has."""
        names = (arm,) if isinstance(arm, str) else arm
        have = [m.name for m in self.experiment.methods]
        return next((name for name in names if name in have), names[0])

    def by_task(self, metric: str, arm: Arm, tasks: Sequence[int] | None = None) -> Array:
        """A metric, shape (seeds, tasks), the worst value of it where the run has diverged.

        Args:
            metric: of `worst`.
            tasks: all if None.
        Raises:
            NotRunError: a method, seed, task or number is missing (a NaN of a run that has not diverged is missing).
            ValueError: an unknown metric.
        """
        require("metric", metric, self.worst)
        method, seeds = self.method(arm), self.experiment.seeds
        tasks = range(self.experiment.tasks) if tasks is None else tasks
        values = self.table(metric, method, tasks)
        dead = self.table("diverged", method, tasks) > 0
        missing = np.argwhere(np.isnan(values) & ~dead)
        if len(missing):
            seed, task = seeds[missing[0][0]], tasks[missing[0][1]]
            raise NotRunError(f"{self.experiment.name} has no {metric} of {method}, seed {seed}, task {task}")
        self.diverged.update(f"{method}, seed {seeds[i]}" for i in np.flatnonzero(dead.any(1)))
        return np.where(dead, self.worst[metric], values)

    def table(self, metric: str, method: str, tasks: Sequence[int]) -> Array:
        """Stored numbers, shape (seeds, tasks), NaN where there is none."""
        rows = pd.MultiIndex.from_product([[method], [metric], self.experiment.seeds])
        return self.cells.reindex(index=rows, columns=list(tasks)).to_numpy(float)

    @property
    def chance(self) -> float:
        """The score of what has learned nothing."""
        return 0.0

    @property
    def net(self) -> str:
        """The net in one phrase."""
        raise NotImplementedError

    @property
    def games(self) -> tuple[str, ...]:
        """The games that it is about; () for a stream."""
        return ()

    def first(self, metric: str, arm: Arm) -> Array:
        """A metric or `SCORE` on the first tasks, shape (seeds,) or (games, seeds)."""
        raise NotImplementedError

    def last(self, metric: str, arm: Arm) -> Array:
        """The same on the last tasks."""
        raise NotImplementedError


@dataclass(frozen=True)
class Runs(Stored):
    """The numbers of a stream."""

    experiment: Experiment
    worst: ClassVar[dict[str, float]] = WORST

    def by_task(self, metric: str, arm: Arm, tasks: Sequence[int] | None = None) -> Array:
        """As of `Stored`, and also `SCORE`."""
        if metric == SCORE:
            return self.scores(arm, tasks)
        require("metric", metric, (*WORST, SCORE))
        return super().by_task(metric, arm, tasks)

    def scores(self, arm: Arm, tasks: Sequence[int] | None = None) -> Array:
        """The score of this module, shape (seeds, tasks)."""
        metric = self.experiment.stream.score
        values = self.by_task(metric, arm, tasks)
        if metric != "online_loss":
            return values
        reference = self.by_task(metric, "adam")[:, self.early].mean(1, keepdims=True)
        if (reference >= WORST[metric] / self.experiment.stream.tasks).any():
            raise NotRunError(
                f"{self.experiment.name} has nothing to measure losses by: adam diverged on its first tasks"
            )
        return reference / (reference + values)

    @property
    def net(self) -> str:
        """Channels of the convolutions, depth and width."""
        net = self.experiment.net
        return " + ".join([*map(str, net.channels), f"{net.depth} x {net.width}"])

    @property
    def chance(self) -> float:
        """The score of guessing: one over the number of classes; 0, that of an infinite loss, for a regression."""
        stream = self.experiment.stream
        if stream.is_regression:
            return 0.0
        return 1 / stream.outputs(data.manifest()[stream.dataset]["classes"])

    @property
    def fifth(self) -> int:
        """A fifth of the tasks, at least one: how many "the first tasks" and "the last tasks" are."""
        return max(1, self.experiment.stream.tasks // 5)

    @property
    def early(self) -> slice:
        """The first tasks; with gradual transitions without task 0, into which no task fades out."""
        start = 1 if self.experiment.stream.transition else 0
        return slice(start, start + self.fifth)

    def first(self, metric: str, arm: Arm) -> Array:
        """Mean over the first tasks, shape (seeds,)."""
        return self.by_task(metric, arm)[:, self.early].mean(1)

    def last(self, metric: str, arm: Arm) -> Array:
        """Mean over the last tasks, shape (seeds,)."""
        return self.by_task(metric, arm)[:, -self.fifth :].mean(1)
