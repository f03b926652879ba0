"""Averages over seeds and strata, with intervals, and comparisons of two methods; numpy only.

Values are arrays, or lists of numbers. Every random draw comes from a generator that is passed in, or from its seed.
NaN in gives NaN out, without a warning: no run is left out in silence. Whoever wants a diverged run to count as the
worst gives it the worst value first; infinity is such a value.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import require_range, require_shape, require_that

Array = NDArray[np.float64]


def as_values(values: ArrayLike) -> Array:
    """Values of seeds as an array of floats.

    Raises:
        ValueError: no seeds.

    >>> as_values([1, 2]).tolist()
    [1.0, 2.0]
    """
    x = np.asarray(values, dtype=float)
    require_shape(x.ndim and x.shape[-1], "values", x, "(..., seeds), at least one seed")
    return x


def mean(values: ArrayLike) -> Array:
    """Mean over the last axis: (..., seeds) -> (...).

    Raises:
        ValueError: no seeds.

    >>> mean([[1.0, 3.0], [5.0, 5.0]]).tolist()
    [2.0, 5.0]
    """
    with np.errstate(invalid="ignore"):  # inf - inf is NaN
        return as_values(values).mean(-1)


def iqm(values: ArrayLike) -> Array:
    """Interquartile mean over the last axis: the mean of the middle half; (..., seeds) -> (...).

    With a count that 4 does not divide, the values at the cut enter with their fraction (rliable keeps them whole).

    Raises:
        ValueError: no seeds.
    Source: Agarwal et al. 2021 (rliable).
    >>> float(iqm([0.0, 1.0, 2.0, float("inf")]))
    1.5
    """
    x = as_values(values)
    n = x.shape[-1]
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    with np.errstate(invalid="ignore"):  # 0 inf, which does not count, and inf - inf, which is NaN
        middle = np.where(weight > 0, np.sort(x, -1) * weight, 0).sum(-1) / weight.sum()
    return np.where(np.isnan(x).any(-1), np.nan, middle)  # sorted, NaN would lie where nothing counts


def bootstrap_interval(
    values: ArrayLike,
    generator: np.random.Generator | int,
    statistic: Callable[[Array], Array] = mean,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of a statistic over the last axis; NaN where a seed's value is NaN.

    Few seeds give too narrow an interval.

    Args:
        values: (..., seeds), e.g. (tasks, 8). One resampling of seeds serves all leading indices.
        generator: the only source of randomness, or the seed of a new one.
        statistic: maps (..., seeds) to (...).
        level: between 0 and 1.
        draws: number of resamplings.
    Returns:
        Lower and upper end, each (...).
    Raises:
        ValueError: level outside (0, 1), no seeds, draws below 1, or no generator.

    >>> low, high = bootstrap_interval(np.ones((3, 4)), 0)
    >>> low.tolist(), high.tolist()
    ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    """
    x, generator = np.asarray(values, dtype=float), as_generator(generator)
    require_resampling(x, 1, level, draws)
    picks = generator.integers(x.shape[-1], size=(draws, x.shape[-1]))
    return ends(statistic(x[..., picks]), level)


def require_resampling(values: Array, axes: int, level: float, draws: int) -> None:
    """Raise ValueError, naming value and what is allowed, unless `values` can be drawn again over its last `axes`."""
    require_range("draws", draws, 1)
    if not 0 < level < 1:
        raise ValueError(f"level={level}; it must lie between 0 and 1")
    if values.ndim < axes or 0 in values.shape[values.ndim - axes :]:
        raise ValueError(
            f"values of shape {values.shape} with draws={draws}; the last {axes} axes and draws need at least one entry"
        )


def as_generator(generator: np.random.Generator | int) -> np.random.Generator:
    """The generator itself, or a new one of a seed.

    Raises:
        ValueError: neither a generator nor a seed; without one a result could not be had again.

    >>> float(as_generator(3).random()) == float(np.random.default_rng(3).random())
    True
    """
    if isinstance(generator, np.random.Generator):
        return generator
    seed = isinstance(generator, Integral) and not isinstance(generator, bool) and generator >= 0
    require_that(seed, "generator", generator, "a numpy Generator, or a seed, a whole number from 0")
    return np.random.default_rng(generator)


def ends(resampled: Array, level: float) -> tuple[Array, Array]:
    """The middle `level` of the last axis: (..., draws) -> two of (...); infinite where it ends among infinite values.

    >>> [round(float(end)) for end in ends(np.arange(101.0), 0.9)]
    [5, 95]
    """
    tails = [100 * (1 - level) / 2, 100 - 100 * (1 - level) / 2]
    with np.errstate(invalid="ignore"):
        between = np.percentile(resampled, tails, axis=-1)
        below, above = (np.percentile(resampled, tails, axis=-1, method=m) for m in ("lower", "higher"))
        far = np.where(below == above, below, below + above)  # a finite number beside infinity gives infinity
    low, high = np.where(np.isfinite(below) & np.isfinite(above), between, far)
    return low, high


def stratified_bootstrap_interval(
    values: ArrayLike,
    generator: np.random.Generator | int,
    statistic: Callable[[Array], Array] = iqm,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of a statistic over all seeds of all strata; NaN where any value is NaN.

    A stratum is a stream, a game or a task. Seeds are drawn again within each stratum on its own, so every resample has
    every stratum with its full number of seeds. The strata themselves are taken as given: the interval speaks of these.

    Args:
        values: (..., strata, seeds), e.g. (4, 8). One resampling serves all leading indices.
        generator: the only source of randomness, or the seed of a new one.
        statistic: maps (..., strata * seeds) to (...).
        level: between 0 and 1.
        draws: number of resamplings.
    Returns:
        Lower and upper end, each (...).
    Raises:
        ValueError: level outside (0, 1), no strata or no seeds, draws below 1, or no generator.
    Source: Agarwal et al. 2021 (rliable).

    >>> values = np.array([[0.0, 0.0], [5.0, 5.0]])  # no spread within a stratum, so none in the interval
    >>> [float(end) for end in stratified_bootstrap_interval(values, np.random.default_rng(0), mean)]
    [2.5, 2.5]
    """
    x, generator = np.asarray(values, dtype=float), as_generator(generator)
    require_resampling(x, 2, level, draws)
    strata, seeds = x.shape[-2:]
    picks = generator.integers(seeds, size=(draws, strata, seeds))
    drawn = x[..., np.arange(strata)[:, None], picks]  # (..., draws, strata, seeds)
    return ends(statistic(drawn.reshape(*drawn.shape[:-2], strata * seeds)), level)


def estimate(values: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """A value with its 95 % interval: the mean of (seeds,), or the interquartile mean of (strata, seeds), e.g. games.

    Raises:
        ValueError: no seeds, or another number of axes.

    >>> estimate([1.0, 1.0, 1.0])
    (1.0, 1.0, 1.0)
    """
    x = as_values(values)
    require_shape(x.ndim <= 2, "values", x, "(seeds,) or (strata, seeds)")
    if x.ndim == 1:
        low, high = bootstrap_interval(x, seed)
        return float(mean(x)), float(low), float(high)
    low, high = stratified_bootstrap_interval(x, seed, iqm)
    return float(iqm(x.reshape(-1))), float(low), float(high)


def mean_ranks(values: ArrayLike) -> Array:
    """The rank of each entry from 1 on, ties with their mean rank; same shape. NaN has no rank and gives NaN.

    >>> mean_ranks([3.0, 1.0, 3.0]).tolist()
    [2.5, 1.0, 2.5]
    """
    x = np.asarray(values, dtype=float)
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(x.shape)]
    return np.where(np.isnan(x), np.nan, ranks)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation of two arrays of one shape, ties by mean rank; 0 if one is constant, NaN with a NaN.

    Raises:
        ValueError: shapes that differ, or no entries.

    >>> rank_correlation([1.0, 2.0, 3.0], [1.0, 8.0, 9.0])
    1.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"x of shape {x.shape} and y of shape {y.shape}; both must have one shape, and an entry")
    ranks = mean_ranks(x).ravel(), mean_ranks(y).ravel()
    if any(np.ptp(r) == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1].round(12))


def wins(x: ArrayLike, y: ArrayLike) -> Array:
    """1 where x > y, 1/2 where they tie, 0 where x < y, NaN where either is NaN; x and y broadcast.

    >>> wins([2.0, 1.0, 0.0, np.nan], 1.0).tolist()
    [1.0, 0.5, 0.0, nan]
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, 0.5 * (x > y) + 0.5 * (x >= y))


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> Array:
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

    >>> float(probability_of_improvement([[1.0, 3.0]], [[1.0, 2.0]]))  # 1/2, 0, 1, 1
    0.625
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1] or 0 in (x.shape[-2:] + y.shape[-1:]):
        raise ValueError(
            f"x of shape {x.shape} and y of shape {y.shape}; both must be (..., strata, seeds), alike but for the seeds"
        )
    return wins(x[..., :, None], y[..., None, :]).mean((-1, -2)).mean(-1)


def paired_improvement(x: ArrayLike, y: ArrayLike) -> Array:
    """Fraction of seeds in which x > y, ties for a half; NaN where any value is NaN.

    Args:
        x, y: (..., seeds), the same seeds in the same order.
    Returns:
        (...), between 0 and 1.
    Raises:
        ValueError: shapes that differ, or no seeds.

    >>> float(paired_improvement([2.0, 5.0, 1.0, 0.0], [1.0, 4.0, 1.0, 9.0]))
    0.625
    """
    return wins(*paired(x, y)).mean(-1)


def paired_difference(
    x: ArrayLike,
    y: ArrayLike,
    generator: np.random.Generator | int,
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
        ValueError: shapes that differ, no seeds, level outside (0, 1), draws below 1, or no generator.

    >>> x, y = [1.0, 2.0, 4.0], [0.0, 1.0, 3.0]  # large spread, the same difference in every seed
    >>> [float(number) for number in paired_difference(x, y, np.random.default_rng(0))]
    [1.0, 1.0, 1.0]
    """
    x, y = paired(x, y)
    with np.errstate(invalid="ignore"):  # of two runs that diverged the difference is NaN
        gap = x - y
    low, high = bootstrap_interval(gap, generator, statistic, level, draws)
    return statistic(gap), low, high


def paired(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays; ValueError, naming both shapes, unless they have the same (..., seeds) with at least one seed."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(
            f"x of shape {x.shape} and y of shape {y.shape}; both must be the same (..., seeds), at least one seed"
        )
    return x, y


def with_interval(value: float, low: float, high: float, form: str = "+.2f") -> str:
    """A number with its interval, all in one format.

    >>> with_interval(0.2, 0.01, 0.29), with_interval(1.19, 1.13, 1.3, ".1f")
    ('+0.20 [+0.01, +0.29]', '1.2 [1.1, 1.3]')
    """
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
