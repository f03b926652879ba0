"""Averages over seeds, with intervals; numpy only, every random draw from a generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean(values: Array) -> Array:
    """Mean over the last axis: (..., seeds) -> (...)."""
    return values.mean(-1)


def iqm(values: Array) -> Array:
    """Interquartile mean over the last axis: the mean of the middle half; (..., seeds) -> (...).

    With a count that 4 does not divide, the values at the cut enter with their fraction.

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
    if not 0 < level < 1:
        raise ValueError(f"level={level}; it must lie between 0 and 1")
    if values.ndim < 1 or values.shape[-1] < 1 or draws < 1:
        raise ValueError(f"values of shape {values.shape} with draws={draws}; both need at least one entry")
    picks = generator.integers(values.shape[-1], size=(draws, values.shape[-1]))
    resampled = np.stack([statistic(values[..., pick]) for pick in picks], -1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=-1)
    return low, high
