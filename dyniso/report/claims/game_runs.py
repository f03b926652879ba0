"""The stored numbers of a sequence of games as claims read them, beside `dyniso.report.claims.runs` for streams.

The score of a visit is its return over what a fresh agent reaches in the same game (`dyniso.report.returns`): 1 is as
good as fresh, 0 is no reward at all or a diverged run, and there is no upper end. The fresh agent is the method
`SINGLE`, mean over all its visits and seeds, so every method is divided by the same number.

A score is one number a game and seed, (games, seeds): the mean over the first or the last cycles. Two methods of a seed
play the games in one order with the same permutations, so differences are paired by game and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import pandas as pd

from ...stats import Array
from ...study.specs import Comparison, GameExperiment
from ...study.specs.reinforcement import SINGLE
from .. import returns
from .runs import SCORE, WORST, Arm, NotRunError, Runs, Stored

RETURN = "return"


@dataclass(frozen=True)
class GameRuns(Stored):
    """The numbers of a sequence of games: scores by game and seed; other metrics are means over visits and layers."""

    experiment: GameExperiment
    visits: pd.DataFrame = field(default_factory=pd.DataFrame)  # of `dyniso.report.returns.visits`
    worst: ClassVar[dict[str, float]] = {RETURN: 0.0} | {m: WORST[m] for m in ("isometry_defect", "dormant_0.025")}

    @classmethod
    def of(cls, experiment: Comparison, frame: pd.DataFrame) -> Self:
        """As of `Stored`, with the visits; points of return curves are left out. NotRunError if no return is there."""
        assert isinstance(experiment, GameExperiment)
        whole = frame[~frame["layer"].str.startswith("point") & frame["seed"].isin(experiment.seeds)]
        try:
            visits = returns.visits(whole, experiment, [RETURN])
        except ValueError as error:
            raise NotRunError(f"{experiment.name}: {error}") from error
        return replace(super().of(experiment, whole), visits=visits)

    @property
    def net(self) -> str:
        """Channels of the shared convolutions, depth and width."""
        net = self.experiment.net
        return " + ".join([*map(str, net.backbone), f"{net.depth} x {net.width}"])

    @property
    def games(self) -> tuple[str, ...]:
        """Their names, in the order of the first axis of scores."""
        return self.experiment.games.names

    @property
    def fifth(self) -> int:
        """A fifth of the cycles, at least one: how many "the first cycles" and "the last cycles" are."""
        return max(1, self.experiment.games.cycles // 5)

    def scores(self, arm: Arm, cycles: Sequence[int]) -> Array:
        """The score of this module, shape (games, seeds), mean over some cycles.

        Raises:
            NotRunError: a visit of the arm or the fresh agent is missing, or that agent has diverged or gets nothing.
        """
        if self.experiment.games.cycles < 2:
            raise NotRunError(f"{self.experiment.name} has one cycle; its first is its last")
        for name in (SINGLE, arm):
            self.by_task(RETURN, name)  # nothing is missing, and who has diverged is known
        if (self.table("diverged", SINGLE, range(self.experiment.tasks)) > 0).any():
            raise NotRunError(f"{self.experiment.name} has nothing to measure returns by: {SINGLE} diverged")
        try:
            return returns.scores(returns.normalised(self.visits), self.method(arm), cycles, self.games)
        except ValueError as error:
            raise NotRunError(f"{self.experiment.name}: {error}") from error

    def first(self, metric: str, arm: Arm) -> Array:
        """Mean over the first cycles: (games, seeds) for `SCORE`, else (seeds,)."""
        if metric == SCORE:
            return self.scores(arm, range(self.fifth))
        return self.by_task(metric, arm)[:, : self.fifth * len(self.games)].mean(1)

    def last(self, metric: str, arm: Arm) -> Array:
        """Mean over the last cycles: (games, seeds) for `SCORE`, else (seeds,)."""
        cycles = self.experiment.games.cycles
        if metric == SCORE:
            return self.scores(arm, range(cycles - self.fifth, cycles))
        return self.by_task(metric, arm)[:, -self.fifth * len(self.games) :].mean(1)

    def untrained(self, metric: str, arm: Arm) -> Array:
        """A metric before any training, (seeds,)."""
        return self.by_task(metric, arm, [-1])[:, 0]


def read(experiment: Comparison) -> Stored:
    """The numbers of a stream or of games from the committed table; NotRunError, and errors of `store.read_compact`."""
    return (GameRuns if isinstance(experiment, GameExperiment) else Runs).stored(experiment)
