"""Arms of an experiment on games beside each other: a board of scores, effects over some cycles, visits that fail.

`results` is always the `Results` of a sequence of games; `by` is one of `returns.PER_VISIT`. `dyniso.report.results`
says what a score is, and what "early" and "late" are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..stats import estimate
from ..study.specs import GameExperiment
from . import returns
from .results import RETURN, Results, Tasks
from .returns import Score

FAILED = 0.5  # of a fresh net's return: a visit below it has failed
Pairs = Sequence[tuple[str, str]]  # arms that differ in one thing, the one with it first


class Row(NamedTuple):
    """One arm on the board."""

    arm: str
    scores: dict[str, Score]  # by measure: interquartile mean over games and seeds of the chosen cycles
    change: Score  # of the return's score from the first cycle to the last, mean over games
    area: float  # under the curves of the chosen cycles, over a fresh net's
    games: dict[str, float]  # mean score by game


def last_cycles(results: Results, count: int) -> list[int]:
    """The tasks of the last so many cycles."""
    tasks = results.experiment.tasks
    return list(range(tasks - count * len(results.games), tasks))


def cycle(results: Results, number: int) -> list[int]:
    """The tasks of one cycle, from 0."""
    return list(range(number * len(results.games), (number + 1) * len(results.games)))


def board(results: Results, tasks: Tasks = "late", seed: int = 0) -> list[Row]:
    """Every arm with its scores, the highest return first.

    Args:
        seed: of the bootstrap.
    Raises:
        NotRunError: a visit is missing, or there is no fresh agent to divide by.
    """
    experiment, which = games_of(results), results.tasks(tasks)
    cycles = sorted({task // len(results.games) for task in which})
    area = returns.area(results.frame, experiment)
    area_of = area[area["cycle"].isin(cycles)].groupby("method")["area"].mean()
    rows = []
    for arm in results.labels:
        values = {by: results.scores(arm, which, by) for by in returns.PER_VISIT}
        scores = {by: returns.aggregate(own, seed=seed) for by, own in values.items()}
        change = returns.change(results.visits(), arm, experiment, seed)
        own = dict(zip(results.games, values[RETURN].mean(1).tolist(), strict=True))
        rows.append(Row(arm, scores, change, float(area_of[arm]), own))
    return sorted(rows, key=lambda row: -row.scores[RETURN].value)


def games_of(results: Results) -> GameExperiment:
    """The experiment, which must be on games."""
    if not isinstance(results.experiment, GameExperiment):
        raise ValueError(f"{results.experiment.name} is no sequence of games")
    return results.experiment


def effect(results: Results, pairs: Pairs, tasks: Tasks = "late", by: str = RETURN) -> tuple[float, float, float]:
    """Score of the first arm minus the second, mean over pairs, with the ends of its 95 % interval."""
    differences = [results.scores(one, tasks, by) - results.scores(other, tasks, by) for one, other in pairs]
    return estimate(np.mean(differences, 0))


def failed(results: Results, arms: Iterable[str], by: str = RETURN) -> pd.DataFrame:
    """The visits of some arms whose score is below `FAILED`: a row each, as of `Results.visits`."""
    visits = results.visits(by)
    return visits[visits["method"].isin(list(arms)) & (visits["score"] < FAILED)]


def runs_of(visits: pd.DataFrame) -> int:
    """How many runs, an arm and a seed, some visits are of."""
    return int(visits.groupby(["method", "seed"]).ngroups)


def recovered(results: Results, visits: pd.DataFrame) -> int:
    """In how many runs a visit after one of these is above a fresh net again."""
    since = visits[["method", "seed", "task"]].rename(columns={"task": "since"})
    later = results.visits().merge(since, on=["method", "seed"])
    return runs_of(later[(later["task"] > later["since"]) & (later["score"] > 1)])


def failures(results: Results) -> list[dict[str, Any]]:
    """A table of how many visits of each arm fail, by each measure, the most first; arms without any are left out."""
    names = {"return": "failed visits", "reward_rate": "by reward in 1,000 steps", "evaluation_return": "in evaluation"}
    counts = {text: failed(results, results.labels, by)["method"].value_counts() for by, text in names.items()}
    rows = [
        {"arm": label} | {text: int(n.get(arm, 0)) for text, n in counts.items()}
        for arm, label in results.labels.items()
    ]
    return sorted((row for row in rows if any(row[text] for text in counts)), key=lambda row: -row["failed visits"])


def within(results: Results, cycles: Sequence[int], metric: str = RETURN) -> pd.DataFrame:
    """Curves within a visit, mean over cycles and seeds: columns method, game, steps, value."""
    points = returns.curves(results.frame, games_of(results), metric)
    points = points[points["cycle"].isin(list(cycles))]
    return points.groupby(["method", "game", "steps"], sort=False)["value"].mean().reset_index()
