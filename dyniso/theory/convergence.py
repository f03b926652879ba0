"""How fast the polynomial schemes of `dyniso.polar` bring singular values to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..polar import SCHEMES, Polynomial, apply_polynomials, step_polynomials

LABELS = dict(
    zip(SCHEMES, ["Newton-Schulz", *(f"Björck {k}" for k in (2, 3, 4)), "CANS", "Polar Express", "Muon"], strict=True)
)


def evaluate(p: Polynomial, sigma: Tensor) -> Tensor:
    """An odd polynomial at singular values, any shape.

    >>> evaluate((1.5, -0.5), torch.tensor([1.0, 0.0]))
    tensor([1., 0.])
    """
    return apply_polynomials(sigma.reshape(-1, 1, 1), (p,)).reshape(sigma.shape)


def errors_along(scheme: str, sigma: Tensor, steps: int, lower: float | None = None) -> list[float]:
    """Largest |sigma - 1| at the start and after each step.

    Args:
        scheme: one of `dyniso.polar.SCHEMES`.
        sigma: singular values, shape (m,).
        steps: at least 1.
        lower: the interval that "cans" and "polar_express" assume; None tells them the true one, and scales to it.
    Returns:
        steps + 1 errors.
    Raises:
        ValueError: as `dyniso.polar.step_polynomials`.

    >>> [round(e, 4) for e in errors_along("newton_schulz", torch.tensor([0.9, 1.1]), 2)]
    [0.1, 0.0155, 0.0004]
    """
    found = [float((sigma - 1).abs().max())]
    if lower is None:
        lower = float(sigma.min() / sigma.max())
        sigma = sigma / sigma.max() if scheme in ("cans", "polar_express") else sigma
    for p in step_polynomials(scheme, steps, lower):
        sigma = evaluate(p, sigma)
        found.append(float((sigma - 1).abs().max()))
    return found


def steps_to(errors: Sequence[float], tolerance: float = 1e-6) -> int | None:
    """The first position at which an error is below the tolerance; None if there is none.

    >>> steps_to([0.1, 1e-3, 1e-9]), steps_to([0.1])
    (2, None)
    """
    return next((k for k, error in enumerate(errors) if error < tolerance), None)


class Need(NamedTuple):
    """What a scheme takes to bring all singular values within a tolerance of one."""

    steps: int
    products: int  # a step of a polynomial with d coefficients takes d


def need(scheme: str, sigma: Tensor, lower: float, most: int = 60, tolerance: float = 1e-6) -> Need | None:
    """Steps and matrix products of a scheme from these singular values; None if it does not arrive.

    Args:
        scheme, sigma, lower: as in `errors_along`.
        most: steps that are tried.

    >>> need("newton_schulz", torch.tensor([0.9, 1.1]), 1e-3), need("muon", torch.tensor([0.5]), 1e-3)
    (Need(steps=3, products=6), None)
    """
    steps = steps_to(errors_along(scheme, sigma, most, lower), tolerance)
    return None if steps is None else Need(steps, steps * len(step_polynomials(scheme, 1)[0]))


def extremes(p: Polynomial, lower: float, upper: float) -> list[float]:
    """p - 1 at both ends of an interval and where it turns between, from below; on a grid of 2,001 points.

    >>> [round(e, 2) for e in extremes((1.5, -0.5), 0.5, 1.5)]
    [-0.31, 0.0, -0.44]
    """
    wave = evaluate(p, torch.linspace(lower, upper, 2001, dtype=torch.float64)) - 1
    slope = wave.diff()
    turns = (slope[:-1] * slope[1:] < 0).nonzero().flatten() + 1
    return [float(wave[i]) for i in (0, *turns.tolist(), -1)]
