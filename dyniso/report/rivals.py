"""What the causal experiments say of the rival hypotheses: outcome of each arm, and each prediction with its verdict.

The outcome of an arm is the online accuracy of the first task after the branch, or the mean of the last tasks where
nothing branches. Intervals are Student's t at 95 %, paired by seed. Predictions are those of
`dyniso.study.specs.rivals`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from ..stats import Array, mean_ranks, rank_correlation
from ..study.specs import Experiment
from ..study.specs.rivals import EARLY, HALF, LATE, MARGIN, NAMES, RIVALS, Check, arms_of
from .results import Results

KEPT, FRESH = ("kept_own", "none"), ("fresh",)
VERDICTS = HOLDS, FAILS, OPEN = "holds", "fails", "undecided"
LEFT_OUT = ("before_bias_norm",)


class Interval(NamedTuple):
    """Mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def t_interval(values: Array) -> Interval:
    """Student's t interval of the mean of (seeds,), at 95 %; a point where there is one seed.

    >>> t_interval(np.array([1.0, 1.0, 1.0]))
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    x = np.asarray(values, float)
    if len(x) < 2:
        return Interval(float(x.mean()), float(x.mean()), float(x.mean()))
    half = scipy_stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def outcome_tasks(results: Results) -> list[int]:
    """The tasks whose mean online accuracy is an arm's outcome."""
    experiment = results.experiment
    assert isinstance(experiment, Experiment)
    first = experiment.trunk.tasks if experiment.trunk else max(0, experiment.tasks - LATE)
    return list(range(first, experiment.tasks))


def outcome(results: Results, arm: str) -> Array:
    """Online accuracy of an arm, (seeds,); 0 of a run that has diverged."""
    return results.per_seed("online_accuracy", arm, outcome_tasks(results))


def level(results: Results, arm: str) -> float:
    """Mean outcome of an arm over seeds."""
    return float(outcome(results, arm).mean())


def difference(results: Results, arm: str, other: str) -> Interval:
    """The outcome of an arm minus that of another, paired by seed."""
    return t_interval(outcome(results, arm) - outcome(results, other))


def lost(results: Results, arm: str) -> Array:
    """By how much the outcome is below the best of the run's own early tasks, (seeds,)."""
    early = [task for task in EARLY if task < results.experiment.tasks]
    return results.values("online_accuracy", arm, early).max(1) - outcome(results, arm)


def recovery(results: Results, arm: str) -> Array:
    """How far an arm is on the way from the net that is left alone (0) to a fresh one (1), (seeds,)."""
    names = results.labels
    kept = outcome(results, next(name for name in KEPT if name in names))
    way = (outcome(results, FRESH[0]) - kept).mean()
    return (outcome(results, arm) - kept) / way


def measured(results: Results, check: Check) -> Array:
    """The number that a check is about, (seeds,)."""
    if check.kind in ("high", "low"):
        return recovery(results, check.arm)
    if check.kind == "retains":
        return lost(results, check.arm)
    return outcome(results, check.arm) - outcome(results, check.other)


def verdict(kind: str, found: Interval) -> str:
    """Whether a check holds, fails or is undecided.

    "high" and "low" hold (fail) where the whole interval is on the right (wrong) side of half the way. "above" holds
    where the interval is above 0 and the mean at least the margin, and fails where the interval is below the margin.
    "equal" holds where the interval is within the margin on both sides, and fails where it is outside. "retains" holds
    where all of the loss's interval is below the margin, and fails where all is above.

    >>> verdict("equal", Interval(0.02, -0.01, 0.04)), verdict("above", Interval(0.02, -0.01, 0.04))
    ('holds', 'fails')
    """
    match kind:
        case "high":
            right, wrong = found.low > HALF, found.high < HALF
        case "low":
            right, wrong = found.high < HALF, found.low > HALF
        case "above":
            right, wrong = found.low > 0 and found.mean >= MARGIN, found.high < MARGIN
        case "equal":
            right, wrong = found.low > -MARGIN and found.high < MARGIN, found.low > MARGIN or found.high < -MARGIN
        case "retains":
            right, wrong = found.high < MARGIN, found.low > MARGIN
        case _:
            raise ValueError(f"kind={kind!r}")
    return HOLDS if right else FAILS if wrong else OPEN


def diverged(results: Results, arm: str) -> int:
    """How many runs of an arm have diverged by the end of the outcome tasks."""
    tasks = np.add(outcome_tasks(results), 1)
    return int((results._table("diverged", arm)[:, tasks] > 0).any(1).sum())


def checks(results: Results) -> pd.DataFrame:
    """Every prediction for an experiment: rival, kind, arm, other, mean, low, high, verdict.

    None is decided by arms that diverged.
    """
    rows = []
    for rival, predicted in RIVALS[results.experiment.name].items():
        for check in predicted:
            found = t_interval(measured(results, check))
            says = verdict(check.kind, found)
            lost_runs = [diverged(results, arm) for arm in arms_of((check,))]
            if (says == HOLDS and any(lost_runs)) or min(lost_runs) == len(results.experiment.seeds):
                says = OPEN  # two arms that both diverged are alike, and no prediction is right or wrong for it
            rows.append({"rival": rival, **check._asdict(), **found._asdict(), "verdict": says})
    return pd.DataFrame(rows)


def survivors(experiments: Iterable[Results]) -> pd.DataFrame:
    """For each rival and experiment how many of its predictions hold, fail and are undecided."""
    rows = []
    for results in experiments:
        for rival, part in checks(results).groupby("rival", sort=False):
            counts = {v: int((part["verdict"] == v).sum()) for v in VERDICTS}
            rows.append({"rival": NAMES[str(rival)], "experiment": results.experiment.name, **counts})
    return pd.DataFrame(rows)


def arms(results: Results) -> pd.DataFrame:
    """Every arm that was run: its outcome with interval, and what it lost from its own early tasks."""
    rows = []
    for name, label in results.labels.items():
        found = t_interval(outcome(results, name))
        row = {"experiment": results.experiment.name, "arm": name, "label": label, **found._asdict()}
        row["diverged"] = diverged(results, name)
        if not results.experiment.trunk and results.experiment.tasks > LATE + 1:  # type: ignore[attr-defined]
            row["lost"] = float(lost(results, name).mean())
        rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------- through what do effects run?


def before(results: Results) -> list[str]:
    """The metrics that were measured before the outcome task."""
    return [m for m in sorted(results.rows.of) if m.startswith("before_") and m not in LEFT_OUT]


def candidates(results: Results) -> pd.DataFrame:
    """A row a run: method, seed, every candidate before its outcome tasks (mean over layers and tasks), and outcome.

    A run that has diverged is left out.
    """
    rows: list[pd.DataFrame] = []
    tasks = np.add(outcome_tasks(results), 1)
    for name in results.labels:
        columns = {metric: results._table(metric, name)[:, tasks].mean(1) for metric in before(results)}
        frame = pd.DataFrame({"method": name, "seed": results.experiment.seeds, **columns})
        frame["outcome"] = outcome(results, name)
        alive = ~(results._table("diverged", name)[:, tasks] > 0).any(1)
        rows.append(frame[pd.Series(alive, index=frame.index)])
    return pd.concat(rows, ignore_index=True)


def routes(frame: pd.DataFrame, predictors: Iterable[str], baseline: str = "before_P_100") -> pd.DataFrame:
    """How well each candidate orders the outcome: over runs, over means of arms, and beyond the kernel's P_100.

    Returns:
        predictor, runs and arms (rank correlations), r2 (of ranks, over runs), gain (what it adds to P_100); NaN for a
        candidate that was not measured.
    """
    means = frame.groupby("method").mean(numeric_only=True)
    rows = []
    for name in predictors:
        if name not in frame or frame[name].isna().all():  # as dead units of MaxMin, of which none can die
            rows.append({"predictor": name, "runs": np.nan, "arms": np.nan, "r2": np.nan, "gain": np.nan})
            continue
        own = frame[[*dict.fromkeys((name, baseline)), "outcome"]].replace([np.inf, -np.inf], np.nan).dropna()
        of_arms = means[[name, "outcome"]].replace([np.inf, -np.inf], np.nan).dropna()
        rows.append(
            {
                "predictor": name,
                "runs": rank_correlation(own[name].to_numpy(), own["outcome"].to_numpy()),
                "arms": rank_correlation(of_arms[name].to_numpy(), of_arms["outcome"].to_numpy()),
                "r2": r_squared(own, [name]),
                "gain": r_squared(own, [name, baseline]) - r_squared(own, [baseline]),
            }
        )
    return pd.DataFrame(rows)


def r_squared(frame: pd.DataFrame, predictors: list[str]) -> float:
    """R^2 of a linear fit on ranks."""
    ranks = {column: mean_ranks(frame[column].to_numpy()) for column in (*predictors, "outcome")}
    X = np.column_stack([*(ranks[p] for p in dict.fromkeys(predictors)), np.ones(len(frame))])
    residual = ranks["outcome"] - X @ np.linalg.lstsq(X, ranks["outcome"], rcond=None)[0]
    return float(1 - residual.var() / ranks["outcome"].var())
