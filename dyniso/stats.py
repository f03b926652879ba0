"""Averages over seeds and strata, with intervals, and comparisons of two methods; numpy only.

Every random draw comes from a generator that is passed in. NaN in gives NaN out, without a warning: no run is
left out in silence. Whoever wants a diverged run to count as the worst gives it the worst value first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean(values: Array) -> Array:
    """Mean over the last axis: (..., seeds) -> (...).

    >>> mean(np.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [2.0, 5.0]
    """
    return values.mean(-1)


def iqm(values: Array) -> Array:
    """Interquartile mean over the last axis: the mean of the middle half; (..., seeds) -> (...).

    With a count that 4 does not divide, the values at the cut enter with their fraction (rliable keeps them whole).

    Source: Agarwal et al. 2021 (rliable).
    >>> float(iqm(np.array([0.0, 1.0, 2.0, 100.0])))
    1.5
    """
    n = values.shape[-1]
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return (np.sort(values, -1) * weight).sum(-1) / weight.sum()


def bootstrap_interval(
    values: Array,
    generator: np.random.Generator,
    statistic: Callable[[Array], Array] = mean,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of a statistic over the last axis; NaN where a seed's value is NaN.

    Few seeds give too narrow an interval.

    Args:
        values: (..., seeds), e.g. (tasks, 8). One resampling of seeds serves all leading indices.
        generator: the only source of randomness.
        statistic: maps (..., seeds) to (...).
        level: between 0 and 1.
        draws: number of resamplings.
    Returns:
        Lower and upper end, each (...).
    Raises:
        ValueError: level outside (0, 1), no seeds, or draws below 1.

    >>> low, high = bootstrap_interval(np.ones((3, 4)), np.random.default_rng(0))
    >>> low.tolist(), high.tolist()
    ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    """
    require_resampling(values, 1, level, draws)
    picks = generator.integers(values.shape[-1], size=(draws, values.shape[-1]))
    return ends(statistic(values[..., picks]), level)


def require_resampling(values: Array, axes: int, level: float, draws: int) -> None:
    """Raise ValueError, naming value and what is allowed, unless `values` can be drawn again over its last `axes`."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}; it must lie between 0 and 1")
    if values.ndim < axes or 0 in values.shape[values.ndim - axes :] or draws < 1:
        raise ValueError(
            f"values of shape {values.shape} with draws={draws}; the last {axes} axes and draws need at least one entry"
        )


def ends(resampled: Array, level: float) -> tuple[Array, Array]:
    """The middle `level` of the last axis: (..., draws) -> two of (...).

    >>> [round(float(end)) for end in ends(np.arange(101.0), 0.9)]
    [5, 95]
    """
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=-1)
    return low, high


def stratified_bootstrap_interval(
    values: Array,
    generator: np.random.Generator,
    statistic: Callable[[Array], Array] = iqm,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of a statistic over all seeds of all strata; NaN where any value is NaN.

    A stratum is a stream, a game or a task. Seeds are drawn again within each stratum on its own, so every resample has
    every stratum with its full number of seeds. The strata themselves are taken as given: the interval speaks of these.

    Args:
        values: (..., strata, seeds), e.g. (4, 8). One resampling serves all leading indices.
        generator: the only source of randomness.
        statistic: maps (..., strata * seeds) to (...).
        level: between 0 and 1.
        draws: number of resamplings.
    Returns:
        Lower and upper end, each (...).
    Raises:
        ValueError: level outside (0, 1), no strata or no seeds, or draws below 1.
    Source: Agarwal et al. 2021 (rliable).

    >>> values = np.array([[0.0, 0.0], [5.0, 5.0]])  # no spread within a stratum, so none in the interval
    >>> [float(end) for end in stratified_bootstrap_interval(values, np.random.default_rng(0), mean)]
    [2.5, 2.5]
    """
    require_resampling(values, 2, level, draws)
    strata, seeds = values.shape[-2:]
    picks = generator.integers(seeds, size=(draws, strata, seeds))
    drawn = values[..., np.arange(strata)[:, None], picks]  # (..., draws, strata, seeds)
    return ends(statistic(drawn.reshape(*drawn.shape[:-2], strata * seeds)), level)


def estimate(values: Array, seed: int = 0) -> tuple[float, float, float]:
    """A value with its 95 % interval: the mean of (seeds,), or the interquartile mean of (strata, seeds), e.g. games.

    >>> estimate(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0, 1.0)
    """
    generator = np.random.default_rng(seed)
    if values.ndim == 1:
        low, high = bootstrap_interval(values, generator)
        return float(values.mean()), float(low), float(high)
    low, high = stratified_bootstrap_interval(values, generator, iqm)
    return float(iqm(values.reshape(-1))), float(low), float(high)


def mean_ranks(values: Array) -> Array:
    """The rank of each entry from 1 on, ties with their mean rank; same shape. NaN has no rank and gives NaN.

    >>> mean_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(values.shape)]
    return np.where(np.isnan(values), np.nan, ranks)


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's correlation of two arrays of one shape, ties by mean rank; 0 if one is constant, NaN with a NaN.

    Raises:
        ValueError: shapes that differ.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 9.0]))
    1.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape:
        raise ValueError(f"x of shape {x.shape} and y of shape {y.shape}; both must have one shape")
    ranks = mean_ranks(x).ravel(), mean_ranks(y).ravel()
    if any(np.ptp(r) == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1].round(12))


def wins(x: Array, y: Array) -> Array:
    """1 where x > y, 1/2 where they tie, 0 where x < y, NaN where either is NaN; x and y broadcast.

    >>> wins(np.array([2.0, 1.0, 0.0, np.nan]), np.array([1.0, 1.0, 1.0, 1.0])).tolist()
    [1.0, 0.5, 0.0, nan]
    """
    return np.where(np.isnan(x) | np.isnan(y), np.nan, 0.5 * (x > y) + 0.5 * (x >= y))


def probability_of_improvement(x: Array, y: Array) -> Array:
    """How often a run of X beats a run of Y of the same stratum, ties for a half; the mean over strata.

        P(X > Y) = mean over strata of U / (seeds_x seeds_y),   U of Mann and Whitney

    Args:
        x: (..., strata, seeds of X), higher is better.
        y: (..., strata, seeds of Y); the numbers of seeds may differ.
    Returns:
        (...), between 0 and 1; NaN where any value is NaN.
    Raises:
        ValueError: another number of strata or other leading axes, or no entries.
    Source: Agarwal et al. 2021 (rliable).

    >>> float(probability_of_improvement(np.array([[1.0, 3.0]]), np.array([[1.0, 2.0]])))  # 1/2, 0, 1, 1
    0.625
    """
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1] or 0 in (x.shape[-2:] + y.shape[-1:]):
        raise ValueError(
            f"x of shape {x.shape} and y of shape {y.shape}; both must be (..., strata, seeds), alike but for the seeds"
        )
    return wins(x[..., :, None], y[..., None, :]).mean((-1, -2)).mean(-1)


def paired_improvement(x: Array, y: Array) -> Array:
    """Fraction of seeds in which x > y, ties for a half; NaN where any value is NaN.

    Args:
        x, y: (..., seeds), the same seeds in the same order.
    Returns:
        (...), between 0 and 1.
    Raises:
        ValueError: shapes that differ, or no seeds.

    >>> float(paired_improvement(np.array([2.0, 5.0, 1.0, 0.0]), np.array([1.0, 4.0, 1.0, 9.0])))
    0.625
    """
    require_paired(x, y)
    return wins(x, y).mean(-1)


def paired_difference(
    x: Array,
    y: Array,
    generator: np.random.Generator,
    statistic: Callable[[Array], Array] = mean,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[Array, Array, Array]:
    """A statistic of x - y, paired by seed, with its percentile bootstrap interval; NaN where any value is NaN.

    Args:
        x, y: (..., seeds), the same seeds in the same order.
        generator, statistic, level, draws: see `bootstrap_interval`; the statistic is `mean` or `iqm`.
    Returns:
        Statistic, lower and upper end, each (...), in the unit of x. With one seed all three are the same number.
    Raises:
        ValueError: shapes that differ, no seeds, level outside (0, 1), or draws below 1.

    >>> x, y = np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 3.0])  # large spread, the same difference in every seed
    >>> [float(number) for number in paired_difference(x, y, np.random.default_rng(0))]
    [1.0, 1.0, 1.0]
    """
    require_paired(x, y)
    low, high = bootstrap_interval(x - y, generator, statistic, level, draws)
    return statistic(x - y), low, high


def require_paired(x: Array, y: Array) -> None:
    """Raise ValueError, naming both shapes, unless x and y have the same (..., seeds) with at least one seed."""
    if x.shape != y.shape or x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(
            f"x of shape {x.shape} and y of shape {y.shape}; both must be the same (..., seeds), at least one seed"
        )


def with_interval(value: float, low: float, high: float, form: str = "+.2f") -> str:
    """A number with its interval, all in one format.

    >>> with_interval(0.2, 0.01, 0.29), with_interval(1.19, 1.13, 1.3, ".1f")
    ('+0.20 [+0.01, +0.29]', '1.2 [1.1, 1.3]')
    """
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
