"""Which number tells before a task how well it will be learned: rank correlations over the rows of many runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..stats import mean_ranks, rank_correlation
from .results import Results

RUN = ["method", "seed"]
GUESSING = float(np.log(10))  # the cross-entropy of guessing among ten classes
MEASURED = (  # before a task, by `dyniso.study.instruments.single`
    *("P_100", "P_10", "kernel_mean_over_max", "kernel_condition", "block_condition", "gram_condition"),
    *("feature_rank", "sharpness", "fixed_dormant", "weight_norm", "loss_start"),
    *("loss_after_20", "loss_after_100", "online_accuracy"),  # and in it
)


def table(results: Results) -> pd.DataFrame:
    """A row a run and task: every number before the task, and what the task then achieved.

    Returns:
        method, seed, task, `MEASURED`, isometry_defect as the task before has left it, and two achievements after 100
        steps: removed (fraction of the starting loss) and learned (loss below that of guessing, over it).
    """
    wide = results.wide(MEASURED, before=["isometry_defect"])
    return wide.assign(
        sharpness=wide["sharpness"].abs(),
        removed=1 - wide["loss_after_100"] / wide["loss_start"],
        learned=1 - wide["loss_after_100"] / GUESSING,
    )


def correlation(frame: pd.DataFrame, predictor: str, target: str) -> float:
    """Spearman's correlation of two columns."""
    return rank_correlation(frame[predictor].to_numpy(), frame[target].to_numpy())


def within_runs(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Every column replaced by its rank within its run: what is left is change over tasks."""
    return frame.groupby(RUN)[list(columns)].transform(lambda values: mean_ranks(values.to_numpy()))


def interval(
    frame: pd.DataFrame, predictor: str, target: str, generator: np.random.Generator, draws: int
) -> tuple[float, float]:
    """95 % interval of the correlation when whole runs are drawn again."""
    runs = [group for _, group in frame.groupby(RUN)]
    picks = generator.integers(len(runs), size=(draws, len(runs)))
    pairs = [run[[predictor, target]].to_numpy() for run in runs]
    found = [rank_correlation(*np.concatenate([pairs[i] for i in pick]).T) for pick in picks]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def explained(frame: pd.DataFrame, predictors: Sequence[str], target: str) -> float:
    """R^2 of a linear fit on ranks.

    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, 8.0, 9.0]})
    >>> round(explained(frame, ["a"], "b"), 6)
    1.0
    """
    ranks = {column: mean_ranks(frame[column].to_numpy()) for column in (*predictors, target)}
    X = np.column_stack([*(ranks[p] for p in predictors), np.ones(len(frame))])
    residual = ranks[target] - X @ np.linalg.lstsq(X, ranks[target], rcond=None)[0]
    return float(1 - residual.var() / ranks[target].var())


def bars(
    frame: pd.DataFrame, predictors: Sequence[str], target: str, generator: np.random.Generator, draws: int
) -> pd.DataFrame:
    """Correlations of each predictor with a target, over all tasks of all runs and over the tasks of one run.

    Returns:
        predictor, over, rho, low, high; the interval is of the first kind alone.
    """
    inside, rows = within_runs(frame, [*predictors, target]), []
    for p in predictors:
        low, high = interval(frame, p, target, generator, draws)
        rho = correlation(frame, p, target)
        rows.append({"predictor": p, "over": "all tasks of all runs", "rho": rho, "low": low, "high": high})
    rows += [{"predictor": p, "over": "tasks of one run", "rho": correlation(inside, p, target)} for p in predictors]
    return pd.DataFrame(rows)
