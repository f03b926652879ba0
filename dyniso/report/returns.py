"""Returns over games and cycles: from stored rows to normalised scores, intervals, curves and areas. No torch.

Runs of one experiment play the games in different orders, so nothing is averaged over visits before a return is
divided by what a fresh agent reaches in the same game (`SINGLE`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..checks import require
from ..stats import iqm, paired_difference, stratified_bootstrap_interval
from ..study.specs import GameExperiment
from ..study.specs.reinforcement import SINGLE

Array = NDArray[np.float64]
PER_VISIT = ["return", "reward_rate", "evaluation_return"]


def visits(frame: pd.DataFrame, experiment: GameExperiment, metrics: Sequence[str] = PER_VISIT) -> pd.DataFrame:
    """One row a visit of a run: method, seed, task, cycle, position, game, and the metrics that have no layer.

    Args:
        frame: rows in long form (see `dyniso.study.store`).
    Raises:
        ValueError: a metric the rows do not have, with the nearest name.
    """
    rows = frame[(frame["layer"] == "") & (frame["task"] >= 0)]
    for metric in metrics:
        require("metric", metric, sorted(rows["metric"].unique()))
    wide = rows[rows["metric"].isin(["game", "diverged", *metrics])].pivot_table(
        index=["method", "seed", "task"], columns="metric", values="value", dropna=False
    )
    table = wide.reset_index()
    table = table[table["game"].notna()]
    count = len(experiment.games.names)
    names = dict(enumerate(experiment.games.names))
    return table.assign(
        game=table["game"].astype(int).map(names), cycle=table["task"] // count, position=table["task"] % count
    )


def fresh_returns(table: pd.DataFrame, metric: str = "return") -> pd.Series:
    """What a fresh agent reaches in each game: mean over its visits and seeds.

    Args:
        table: of `visits`, with the method `SINGLE`.
    Raises:
        ValueError: the method is not there, or its return in a game is not above zero, so nothing can be divided by it.
    """
    own = table[table["method"] == SINGLE]
    if own.empty:
        raise ValueError(f"no runs of {SINGLE!r}; returns are divided by what that method reaches")
    reached = own.groupby("game")[metric].mean()
    if not (reached > 0).all():
        raise ValueError(f"{SINGLE} reaches {reached.to_dict()}; a return that is not positive normalises nothing")
    return reached


def normalised(table: pd.DataFrame, metric: str = "return") -> pd.DataFrame:
    """The visits with a column "score": the metric over the fresh agent's mean in that game. 1 is as good as fresh.

    A diverged visit counts as 0: it is not left out.
    """
    score = table[metric] / table["game"].map(fresh_returns(table, metric))
    return table.assign(score=score.where(table["diverged"] == 0, 0.0))


def scores(table: pd.DataFrame, method: str, cycles: Sequence[int], names: Sequence[str]) -> Array:
    """Normalised scores of one method, (games, seeds), each the mean over some cycles; seeds in rising order.

    Raises:
        ValueError: the table has no visit of that method, or lacks one of a game.
    """
    own = table[(table["method"] == method) & table["cycle"].isin(list(cycles))]
    if own.empty:
        raise ValueError(
            f"no visits of {method!r} in cycles {list(cycles)}; there are {sorted(table['method'].unique())}"
        )
    wide = own.pivot_table(index="game", columns="seed", values="score", aggfunc="mean", dropna=False)
    lacking = set(names) - set(wide.index[wide.notna().all(axis=1)])
    if lacking:
        raise ValueError(f"{method}: no score in {sorted(lacking)} in some seed; no episode has ended there")
    found: Array = wide.loc[list(names)].to_numpy(dtype=float)
    return found


class Score(NamedTuple):
    """An interquartile mean over games and seeds with its 95 % interval."""

    value: float
    low: float
    high: float


def aggregate(values: Array, statistic: Callable[[Array], Array] = iqm, seed: int = 0) -> Score:
    """The interquartile mean of (games, seeds) with a stratified bootstrap interval, seeds drawn within each game."""
    low, high = stratified_bootstrap_interval(values, np.random.default_rng(seed), statistic)
    return Score(float(statistic(values.reshape(-1))), float(low), float(high))


def by_cycle(frame: pd.DataFrame, experiment: GameExperiment, metric: str = "return") -> pd.DataFrame:
    """Interquartile mean over games and seeds in each cycle: method, cycle, mean, low, high, seeds."""
    table = normalised(visits(frame, experiment), metric)
    points = []
    for method in [m.name for m in experiment.methods if m.name in set(table["method"])]:
        for cycle in range(experiment.games.cycles):
            values = scores(table, method, [cycle], experiment.games.names)
            score = aggregate(values)
            points.append((method, cycle, score.value, score.low, score.high, values.shape[1]))
    return pd.DataFrame(points, columns=["method", "cycle", "mean", "low", "high", "seeds"]).assign(metric=metric)


def change(table: pd.DataFrame, method: str, experiment: GameExperiment, seed: int = 0) -> Score:
    """Score of the last cycle minus that of the first, mean over games, paired by seed: below 0 plasticity is lost."""
    names, last = experiment.games.names, experiment.games.cycles - 1
    x, y = (scores(table, method, [cycle], names).mean(0) for cycle in (last, 0))
    return Score(*(float(v) for v in paired_difference(x, y, np.random.default_rng(seed))))


def area(frame: pd.DataFrame, experiment: GameExperiment) -> pd.DataFrame:
    """Area under the return curve of each cycle: mean over the points of all its visits, over that of a fresh agent.

    Points in which no episode ended are left out of a visit's mean.

    Returns:
        method, seed, cycle, area.
    """
    games = visits(frame, experiment).set_index(["method", "seed", "task"])[["game", "cycle"]]
    points = frame[frame["layer"].str.startswith("point") & (frame["metric"] == "return")]
    points = points.join(games, on=["method", "seed", "task"]).dropna(subset=["value", "game"])
    each = points.groupby(["method", "seed", "cycle", "task", "game"])
    of_visits = each["value"].mean().reset_index(name="points")
    of_visits["area"] = of_visits["points"] / of_visits["game"].map(fresh_returns(of_visits, "points"))
    return of_visits.groupby(["method", "seed", "cycle"])["area"].mean().reset_index()


def curves(frame: pd.DataFrame, experiment: GameExperiment, metric: str = "return") -> pd.DataFrame:
    """Return curves within visits, mean over seeds and visits of a game and cycle.

    Returns:
        method, game, cycle, point (from 1), steps (environment steps into the visit), value.
    """
    table = visits(frame, experiment).set_index(["method", "seed", "task"])[["game", "cycle"]]
    rows = frame[frame["layer"].str.startswith("point") & (frame["metric"] == metric)]
    rows = rows.join(table, on=["method", "seed", "task"])
    rows = rows.assign(point=rows["layer"].str.removeprefix("point").astype(int))
    means = rows.groupby(["method", "game", "cycle", "point"])["value"].mean().reset_index()
    return means.assign(steps=means["point"] * experiment.games.steps_per_game / experiment.curve)
