"""The nearest isometry to a weight: odd polynomials that act on singular values alone, and the polar factor.

Everything here works on the last two axes, (out, in), so a stack of runs (runs, out, in) takes the same path as one
layer of one network. W = U diag(sigma) V' has the polar factor U V'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import comb

import numpy as np
import torch
from torch import Tensor

from .checks import require, require_range, require_that
from .isometry import full_precision, require_finite, require_matrix, smaller_gram

Polynomial = tuple[float, ...]  # (a, b, c, ...) of the odd polynomial a sigma + b sigma^3 + c sigma^5 + ...

MUON: Polynomial = (3.4445, -4.7750, 2.0315)  # Jordan 2024: steep at 0, no fixed point at 1
CUSHION = 0.02407327  # of Polar Express: the published coefficients come from this value

# Steps of `polar_factor`: enough for sigma_min = 1e-6 of the scaled matrix, and for rounding error.
POLAR_STEPS = {"newton_schulz": 40, "bjorck-2": 26, "bjorck-3": 22, "bjorck-4": 19, "cans": 30, "polar_express": 20}


def scale_below_one(W: Tensor) -> Tensor:
    """W over the smaller of two upper bounds of its largest singular value: ||W||_F and sqrt(||W||_1 ||W||_inf).

    Args:
        W: shape (..., out, in).
    Returns:
        Shape (..., out, in), all singular values at most 1; zeros stay zeros.

    >>> scale_below_one(torch.diag(torch.tensor([2.0, 4.0])))
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """
    frobenius = torch.linalg.matrix_norm(W)
    row_column = (W.abs().sum(-1).amax(-1) * W.abs().sum(-2).amax(-1)).sqrt()
    bound = torch.minimum(frobenius, row_column).clamp_min(torch.finfo(W.dtype).tiny)
    return W / bound[..., None, None]


def bjorck_polynomial(order: int) -> Polynomial:
    """sigma (1 - t)^(-1/2), t = 1 - sigma^2, cut after t^order: p(1) = 1 with `order` vanishing derivatives.

    Args:
        order: at least 1.
    Returns:
        order + 1 coefficients, of degrees 1, 3, 5, ...
    Source: Bjorck and Bowie 1971. Order 1 is cubic Newton-Schulz, order 2 the quintic.

    >>> bjorck_polynomial(1), bjorck_polynomial(2)
    ((1.5, -0.5), (1.875, -1.25, 0.375))
    """
    series = [comb(2 * j, j) / 4**j for j in range(order + 1)]
    return tuple((-1) ** k * sum(series[j] * comb(j, k) for j in range(k, order + 1)) for k in range(order + 1))


def minimax_polynomial(lower: float, upper: float, terms: int) -> Polynomial:
    """The odd polynomial with `terms` coefficients that is nearest to 1 on [lower, upper], in the largest error.

    Its error takes the values -e, e, -e, ... at terms + 1 points: both ends, and the roots of p' between (Chebyshev).
    Remez: solve for coefficients and e on guessed points, move the points to the ends and the roots, repeat.

    Args:
        lower, upper: 0 < lower <= 1 <= upper.
        terms: 2 for a cubic (p = c (3 r^2 sigma - sigma^3), 3 r^2 = lower^2 + lower upper + upper^2), 3 for a quintic.
    Returns:
        `terms` coefficients, of degrees 1, 3, 5, ...
    Source: Remez 1934; used so by Grishina et al. 2025 (arXiv 2506.10935) and Amsel et al. 2025 (arXiv 2505.16932).

    >>> [round(c, 4) for c in minimax_polynomial(0.1, 1, 2)]
    [3.9634, -3.5706]
    """
    if upper - lower < 1e-4 * upper:  # the limit of a short interval; the system below is singular to rounding there
        return bjorck_polynomial(terms - 1)
    odd, signs = 2 * np.arange(terms) + 1, (-1.0) ** np.arange(terms + 1)
    points = lower + (upper - lower) * (1 - np.cos(np.pi * np.arange(terms + 1) / terms)) / 2
    for _ in range(30):  # converges quadratically; most steps are for lower/upper near 0
        *p, _error = np.linalg.solve(np.column_stack([points[:, None] ** odd, signs]), np.ones(terms + 1))
        points[1:-1] = np.sqrt(np.sort(np.roots((odd * p)[::-1]).real))
    return tuple(map(float, p))


def interval_polynomials(steps: int, lower: float, terms: int, cushion: float = 0.0) -> tuple[Polynomial, ...]:
    """Minimax polynomials on [lower, 1], on the image of that interval, and so on: the best composition of its degree.

    Args:
        steps, lower, terms: as in `step_polynomials` and `minimax_polynomial`.
        cushion: each polynomial is designed on [max(lower, cushion upper), upper] and scaled so that the image of
            [lower, upper] is centred at 1. That keeps p(sigma)/sigma away from 0 inside a wide interval.
    Returns:
        One tuple of coefficients a step.
    Source: as `minimax_polynomial`; the cushion is Polar Express's (arXiv 2505.16932).

    >>> [[round(c, 2) for c in p] for p in interval_polynomials(2, 0.1, terms=2)]
    [[3.96, -3.57], [1.85, -0.55]]
    """
    upper, found = 1.0, []
    for _ in range(steps):
        start = max(lower, cushion * upper)
        p = minimax_polynomial(start, upper, terms)
        low, at_start = (sum(c * s ** (2 * k + 1) for k, c in enumerate(p)) for s in (lower, start))
        high = 2 - at_start  # the error at the start is -e, the largest +e
        scale = 2 / (low + high)  # 1 where the cushion does not act
        found.append(tuple(scale * c for c in p))
        lower = min(scale * low, 1.0)
        upper = 2 - lower
    return tuple(found)


PER_STEP: dict[str, Callable[[int, float], tuple[Polynomial, ...]]] = {  # scheme -> polynomials for (steps, lower)
    "newton_schulz": lambda steps, lower: (bjorck_polynomial(1),) * steps,
    "bjorck-2": lambda steps, lower: (bjorck_polynomial(2),) * steps,
    "bjorck-3": lambda steps, lower: (bjorck_polynomial(3),) * steps,
    "bjorck-4": lambda steps, lower: (bjorck_polynomial(4),) * steps,
    "cans": lambda steps, lower: interval_polynomials(steps, lower, terms=2),
    "polar_express": lambda steps, lower: interval_polynomials(steps, lower, terms=3, cushion=CUSHION),
    "muon": lambda steps, lower: (MUON,) * steps,
}
SCHEMES = tuple(PER_STEP)


@functools.cache
def step_polynomials(scheme: str, steps: int, lower: float = 1e-3) -> tuple[Polynomial, ...]:
    """The odd polynomial of each step of an orthogonalisation scheme, as coefficients (a, b, c, ...).

    Args:
        scheme: one of SCHEMES.
            "newton_schulz", "bjorck-2", "bjorck-3", "bjorck-4": degree 3, 5, 7, 9, the same in each step. From
                sigma in (0, 1] all converge, near 1 with order 2, 3, 4, 5; best near an isometry.
            "cans": the best cubics on [lower, 1] and its images; best from a cold start.
            "polar_express": the best quintics, with a cushion; the authors' division by 1.01 for bfloat16 is left out.
            "muon": for comparison; it stays about 0.3 away from 1 and does not converge.
        steps: at least 1.
        lower: for "cans" and "polar_express", the assumed sigma_min of the scaled matrix; smaller singular values still
            converge, later. The others ignore it.
    Returns:
        One tuple of coefficients for each step.
    Raises:
        ValueError: unknown scheme (the message suggests the nearest), steps < 1, or lower outside (0, 1].
    Source: Bjorck and Bowie 1971; Grishina et al. 2025 (arXiv 2506.10935); Amsel et al. 2025 (arXiv 2505.16932);
        Jordan 2024 (Muon).

    >>> step_polynomials("newton_schulz", 2)
    ((1.5, -0.5), (1.5, -0.5))
    """
    require("scheme", scheme, SCHEMES)
    require_range("steps", steps, 1)
    require_that(0 < lower <= 1, "lower", lower, "in (0, 1]")
    return PER_STEP[scheme](steps, lower)


def apply_polynomials(X: Tensor, polynomials: tuple[Polynomial, ...]) -> Tensor:
    """X <- a X + b X X'X + c X (X'X)^2 + ... for each (a, b, c, ...): p acts on singular values, and on nothing else.

    Args:
        X: shape (..., out, in). Singular values alone go through as a stack of 1 x 1 matrices.
        polynomials: each of at least two coefficients, e.g. from `step_polynomials`.
    Returns:
        Shape (..., out, in). Differentiable; d coefficients cost d products, all but two of them m x m.

    >>> apply_polynomials(torch.tensor([[2.0]]), ((1.0, 0.5),))
    tensor([[6.]])
    """
    tall = X.shape[-2] >= X.shape[-1]
    for a, b, *higher in polynomials:
        power = G = smaller_gram(X)
        P = b * G
        for c in higher:
            power = power @ G
            P = P + c * power
        X = a * X + (X @ P if tall else P @ X)
    return X


def orthogonalise(W: Tensor, scheme: str, steps: int, lower: float = 1e-3) -> Tensor:
    """Polar factor by `steps` polynomials of a scheme, after `scale_below_one`; differentiable, no convergence check.

    Args:
        W: shape (..., out, in).
        scheme, steps, lower: see `step_polynomials`.
    Returns:
        Shape (..., out, in), same dtype.
    Raises:
        ValueError: W has fewer than 2 axes, an empty axis, or is not floating point; or as `step_polynomials`.

    >>> orthogonalise(torch.diag(torch.tensor([3.0, 0.5])), "polar_express", 8).round(decimals=4)
    tensor([[1., 0.],
            [0., 1.]])
    """
    require_matrix(W)
    with full_precision(W) as X:
        return apply_polynomials(scale_below_one(X), step_polynomials(scheme, steps, lower)).to(W.dtype)


def newton_schulz(W: Tensor, steps: int = 30) -> Tensor:
    """`orthogonalise` by X <- 1.5 X - 0.5 X X'X: 10 to 30 steps for a Gaussian matrix, most for a square one.

    Args:
        W: shape (..., out, in). steps: at least 1.
    Returns:
        Shape (..., out, in), same dtype; differentiable.

    >>> newton_schulz(torch.diag(torch.tensor([3.0, 1.0]))).round(decimals=4)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return orthogonalise(W, "newton_schulz", steps)


def polar_factor(W: Tensor, method: str = "svd", tolerance: float | None = None) -> Tensor:
    """The nearest matrix with all singular values 1: U V' of W = U diag(sigma) V'. Also the limit of eq. 16's flow.

    Args:
        W: shape (..., out, in), full rank.
        method: "svd" (exact), or a scheme of `step_polynomials` that converges, with its steps from POLAR_STEPS.
        tolerance: largest allowed entry of |Gram - I| for the iterative methods; default 100 eps sqrt(m).
    Returns:
        Shape (..., out, in), same dtype.
    Raises:
        ValueError: unknown method (the message suggests the nearest), or W as in `singular_values`.
        RuntimeError: an iterative method did not reach the tolerance (W is rank-deficient, or nearly).

    >>> Q = polar_factor(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), method="cans")
    >>> bool(torch.allclose(Q, torch.eye(2), atol=1e-5))
    True
    """
    require("method", method, ("svd", *POLAR_STEPS))
    require_finite(W)
    with full_precision(W) as work:
        if method == "svd":
            U, _, Vh = torch.linalg.svd(work, full_matrices=False)
            return (U @ Vh).to(W.dtype)
        X = orthogonalise(work, method, POLAR_STEPS[method])
        G = smaller_gram(X)
    m = G.shape[-1]
    allowed = 100 * torch.finfo(work.dtype).eps * m**0.5 if tolerance is None else tolerance
    residual = float((G - torch.eye(m, dtype=G.dtype, device=G.device)).detach().abs().amax())
    if not residual <= allowed:
        raise RuntimeError(
            f"polar_factor(method={method!r}) stopped at |Gram - I| = {residual:.3g}, above {allowed:.3g}: "
            f"shape {tuple(W.shape)} is rank-deficient or too ill-conditioned; use method='svd'"
        )
    return X.to(W.dtype)
