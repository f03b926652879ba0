"""Several streams side by side: a board of late scores, gains over a rival, and what goes with a high score.

`results` is always a mapping from the name of a stream to its `Results`; all have the same arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..stats import (
    Array,
    bootstrap_interval,
    iqm,
    probability_of_improvement,
    rank_correlation,
    stratified_bootstrap_interval,
)
from .results import SCORE, Results

AT_ENDS = ("P_100", "sharpness")  # measured before the first and the last task only
PREDICTORS = {
    "P_100": "$P_{100}$",
    "activation_rank": "rank of activations",
    "dormant_0.025": "dormant units",
    "isometry_defect": "mean $(\\sigma^2-1)^2$",
    "weight_norm": "norm of weights",
    "sharpness": "sharpness",
}


def late_scores(results: Mapping[str, Results], arm: str) -> Array:
    """Score of an arm on the late tasks, shape (streams, seeds)."""
    return np.stack([r.per_seed(SCORE, arm) for r in results.values()])


def board(results: Mapping[str, Results]) -> pd.DataFrame:
    """Mean late score, a row an arm, a column a stream; the arm with the best mean rank first."""
    found = pd.DataFrame({name: r.means(SCORE) for name, r in results.items()})
    return found.loc[found.rank(ascending=False).mean(axis=1).sort_values().index]


def gains(results: Mapping[str, Results], rival: str) -> pd.DataFrame:
    """What each arm gains over a rival in late score, over all streams.

    Returns:
        By arm, in the order of `board`: gain (interquartile mean over streams and seeds, paired by seed), low and high
        (95 %, seeds drawn again within each stream) and beats (probability of improvement, mean over streams).
    Source: Agarwal et al. 2021.
    """
    theirs, rows = late_scores(results, rival), {}
    for arm in board(results).index:
        ours = late_scores(results, arm)
        low, high = stratified_bootstrap_interval(ours - theirs, np.random.default_rng(0))
        beats = probability_of_improvement(ours, theirs)
        rows[arm] = {"gain": iqm((ours - theirs).ravel()), "low": low, "high": high, "beats": beats}
    return pd.DataFrame(rows).T.astype(float).rename_axis("method")


def predictors(results: Mapping[str, Results], metrics: Sequence[str] = tuple(PREDICTORS)) -> pd.DataFrame:
    """A row an arm and stream: method, stream, score, and metrics over the late tasks (`AT_ENDS` before the last)."""
    parts = []
    for name, r in results.items():
        columns = {m: r.means(m, "last" if m in AT_ENDS else "late") for m in metrics}
        table = pd.DataFrame(columns | {"score": r.means(SCORE)}).rename_axis("method").reset_index()
        parts.append(table.assign(stream=name))
    return pd.concat(parts, ignore_index=True)


def orders_scores(cloud: pd.DataFrame, metrics: Sequence[str] = tuple(PREDICTORS)) -> pd.DataFrame:
    """Rank correlation of each metric with the score over all arms: a row a stream.

    Args:
        cloud: of `predictors`.
    """
    rows = {
        stream: {metric: rank_correlation(own[metric].to_numpy(), own["score"].to_numpy()) for metric in metrics}
        for stream, own in cloud.groupby("stream", sort=False)
    }
    return pd.DataFrame(rows).T


def curves(results: Mapping[str, Results], arms: Sequence[str], together: Mapping[str, int]) -> pd.DataFrame:
    """Score over tasks: stream, method, task (the middle of those taken together), mean, low, high (95 %), seeds.

    Args:
        together: how many tasks make one point, by stream; 1 where it has none.
    """
    parts = []
    for name, r in results.items():
        size = together.get(name, 1)
        for arm in arms:
            values = r.values(SCORE, arm)
            values = values.reshape(len(values), -1, size).mean(2)
            low, high = bootstrap_interval(values.T, np.random.default_rng(0))
            tasks = size * np.arange(values.shape[1]) + (size + 1) / 2
            columns = {"stream": name, "method": arm, "task": tasks, "mean": values.mean(0), "low": low, "high": high}
            parts.append(pd.DataFrame(columns).assign(seeds=len(values)))
    return pd.concat(parts, ignore_index=True)


def protocol_rows(results: Results, published: Mapping[str, float]) -> list[dict[str, str]]:
    """A table of one stream: each arm's mean over all tasks with its standard error, its ends, and what is published.

    Args:
        published: numbers that others have printed, by arm.
    """
    rows, metric = [], results.experiment.score
    for arm, label in results.labels.items():
        total = results.values(metric, arm).mean(1)
        error = total.std(ddof=1) / len(total) ** 0.5
        row = {"method": label, "mean over tasks": f"{total.mean():.3f} ± {error:.3f}"}
        row["early to late"] = results.from_to(metric, arm, form=".3f")
        rows.append(row | {"published": f"{published[arm]:.3f}" if arm in published else "none known to us"})
    return rows
