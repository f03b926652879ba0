"""Surgery on singular values with all singular vectors kept, and spectra of a chosen shape and defect.

W = U diag(sigma) V' becomes U diag(g(sigma)) V'. A `Rule` is the map g on descending singular values (..., m), float64.
Everything works on the last two axes, (out, in); the defect of a spectrum is D = mean (sigma^2 - 1)^2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checks import require, require_range, require_that
from ..isometry import require_finite

Rule = Callable[[Tensor], Tensor]
NEAR_SINGULAR = 1e-4  # sigma_min / sigma_max below which singular vectors come from an SVD and not from a Gram matrix
LOW = 1e-3  # of the small singular values of `bottom`, relative to the others


@torch.no_grad()
def with_spectrum(W: Tensor, rule: Rule, any_vectors: bool = False) -> Tensor:
    """W with other singular values and the same singular vectors: U diag(g(sigma)) V'.

    Args:
        W: shape (..., out, in), floating point. rule: g, for example `flat` or `SPECTRA["band"](low=0.5, high=2.0)`.
        any_vectors: take orthonormal vectors as they come for singular values that are 0 or rounding; nothing that g
            gives is refused.
    Returns:
        Shape (..., out, in), same dtype. Singular values are g(sigma) to 1e-6 relative to the largest, in float64.
    Raises:
        ValueError: W is no matrix or not finite; g gives something to singular values that the dtype cannot tell from
            0, whose vectors are rounding (says how small they are); or what g gives is not finite, as `scaled` of 0.

    >>> with_spectrum(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), flat)
    tensor([[1., 0.],
            [0., 1.]])
    """
    require_finite(W)
    X = W.double()
    tall = X.shape[-2] > X.shape[-1]
    X = X.mT if tall else X
    U = torch.linalg.eigh(X @ X.mT).eigenvectors.flip(-1)
    rows = U.mT @ X  # diag(sigma) V'
    sigma = torch.linalg.vector_norm(rows, dim=-1)
    poor = sigma[..., -1] <= NEAR_SINGULAR * sigma[..., 0]
    if poor.any():
        u, s, v = torch.linalg.svd(X[poor], full_matrices=False)
        U[poor], sigma[poor] = u, s
    Vh = rows / sigma.clamp_min(1e-300)[..., None]
    if poor.any():
        Vh[poor] = v
    new = rule(sigma)
    odd = new.numel() - int(torch.isfinite(new).sum())
    require_that(any_vectors or not odd, "g(sigma)", f"{odd} of {new.numel()} not finite", "finite")
    eps = torch.finfo(W.dtype).eps
    lost = (sigma <= eps * sigma[..., :1]) & (new > 2 * eps * new.amax(-1, keepdim=True))
    if lost.any() and not any_vectors:
        found = float((sigma / sigma[..., :1].clamp_min(1e-300))[lost].min())
        raise ValueError(
            f"{int(lost.sum())} singular values are rounding in {W.dtype}, the least {found:.1g} of the largest: their "
            "vectors mean nothing, so no other value can be given to them"
        )
    made = U @ (new[..., None] * Vh)
    return (made.mT if tall else made).to(W.dtype)


def flat(sigma: Tensor) -> Tensor:
    """sigma -> 1, the polar factor: the nearest isometry."""
    return torch.ones_like(sigma)


def norm_flat(sigma: Tensor) -> Tensor:
    """sigma -> its root mean square: condition number 1 at the same Frobenius norm."""
    return rms(sigma).expand_as(sigma)


def scaled(sigma: Tensor) -> Tensor:
    """sigma -> sigma / rms(sigma): W sqrt(m)/|W|, mean sigma^2 = 1 with the shape of the spectrum kept.

    Source: the projection of Lyle et al. 2024 (NaP, arXiv 2407.01800), for one matrix.
    """
    return sigma / rms(sigma)


def spectral(sigma: Tensor) -> Tensor:
    """sigma -> sigma / sigma_max: spectral norm 1. Source: Miyato et al. 2018 (arXiv 1802.05957)."""
    return sigma / sigma[..., :1]


def level(value: float = 1.0) -> Rule:
    """sigma -> a number of at least 0."""
    require_range("value", value, 0, kind=float)
    return lambda sigma: torch.full_like(sigma, value)


def band(low: float = 0.0, high: float = math.inf) -> Rule:
    """sigma -> the nearest number in [low, high]: `clip` with low 0 and high 1, `lift` with low 1.

    Raises:
        ValueError: not 0 <= low <= high.
    """
    require_that(0 <= low <= high, "band", (low, high), "0 <= low <= high")
    return lambda sigma: sigma.clamp(low, high)


def rms(sigma: Tensor) -> Tensor:
    """Root mean square, (..., 1)."""
    return sigma.square().mean(-1, keepdim=True).sqrt()


# ------------------------------------------------------------------------------------------- spectra of a given shape


def prescribed(law: Callable[[int], Tensor]) -> Rule:
    """sigma -> the values of a law, whatever they were; the largest stays the largest."""
    law = functools.cache(law)
    return lambda sigma: law(sigma.shape[-1]).to(sigma).expand_as(sigma)


def log_normal(m: int, deviation: float) -> Tensor:
    """m quantiles of a log-normal law with mean sigma^2 = 1, descending, float64.

    Args:
        deviation: standard deviation of ln(sigma), at least 0; 0 is flat.

    >>> log_normal(3, 0.0)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    require_range("deviation", deviation, 0, kind=float)
    quantiles = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    normal = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    sigma = (deviation * (normal - normal.amax())).exp()  # relative to the largest, so nothing overflows
    return (sigma / rms(sigma)).flip(-1)


def log_normal_of(m: int, defect: float) -> Tensor:
    """`log_normal` whose deviation gives a defect; ValueError for a defect of m - 1 or more, which none has.

    >>> round(float((log_normal_of(64, 3.0).square() - 1).square().mean()), 6)
    3.0
    """
    require_that(0 <= defect < m - 1, "defect", defect, f"at least 0 and below m - 1 = {m - 1}")
    return log_normal(m, bisect(lambda deviation: float(defect_of(log_normal(m, deviation))), defect, 0.0, 50.0))


def bottom(m: int, defect: float) -> Tensor:
    """About a share D/(1 + D) of m singular values at 1/1000 of the others, mean sigma^2 = 1; descending, float64.

    One of them lies in between, so that the defect is D exactly.

    Raises:
        ValueError: a defect of m - 1 or more: at least one singular value is not small.

    >>> s = bottom(64, 1.0)
    >>> round(float((s.square() - 1).square().mean()), 6), int((s < 0.1).sum())
    (1.0, 32)
    """
    require_that(0 <= defect < (m - 1) * (1 - 1e-5), "defect", defect, f"at least 0 and below m - 1 = {m - 1}")

    def squares(small: float) -> Tensor:
        whole = int(small)
        found = torch.ones(m, dtype=torch.float64)
        found[:whole] = LOW**2
        if whole < m:
            found[whole] = 1 - (small - whole) * (1 - LOW**2)
        return (found / found.mean()).flip(-1)

    return squares(bisect(lambda small: float((squares(small) - 1).square().mean()), defect, 0.0, m - 1.0)).sqrt()


def spikes(m: int, count: int, defect: float) -> Tensor:
    """`count` large singular values and m - count equal smaller ones, mean sigma^2 = 1; descending, float64.

    With f = count/m: sigma^2 = 1 + sqrt(D (1 - f)/f) and 1 - sqrt(D f/(1 - f)).

    Raises:
        ValueError: count is not within 1 .. m - 1, or a defect above (m - count)/count, which count of m cannot have.

    >>> spikes(4, 1, 3.0)
    tensor([2., 0., 0., 0.], dtype=torch.float64)
    """
    require_range("count", count, 1, m - 1)
    most = (m - count) / count
    require_that(
        0 <= defect <= most, "defect", defect, f"0 to {most:.4g}, the most that {count} of {m} spikes can give"
    )
    share = count / m
    low = 1 - math.sqrt(defect * share / (1 - share))
    found = torch.full((m,), max(low, 0.0), dtype=torch.float64)
    found[:count] = 1 + math.sqrt(defect * (1 - share) / share)
    return found.sqrt()


def defect_of(sigma: Tensor) -> Tensor:
    """mean (sigma^2 - 1)^2 over the last axis."""
    return (sigma.square() - 1).square().mean(-1)


def bisect(f: Callable[[float], float], target: float, low: float, high: float, steps: int = 100) -> float:
    """Where an increasing function between low and high reaches a value."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < target else (low, middle)
    return (low + high) / 2


# Every rule by name, each a function of its settings; the allowed names are read from the keys, so they are literals.
SPECTRA: dict[str, Callable[..., Rule]] = {
    "flat": lambda: flat,
    "norm_flat": lambda: norm_flat,
    "scaled": lambda: scaled,
    "spectral": lambda: spectral,
    "level": level,
    "band": band,
    "clip": lambda: band(high=1.0),
    "lift": lambda: band(low=1.0),
    "log_normal": lambda deviation: prescribed(lambda m: log_normal(m, deviation)),
    "log_normal_of": lambda defect: prescribed(lambda m: log_normal_of(m, defect)),
    "bottom": lambda defect: prescribed(lambda m: bottom(m, defect)),
    "spikes": lambda count, defect: prescribed(lambda m: spikes(m, count, defect)),
}


def rule(name: str, **settings: Any) -> Rule:
    """A rule of `SPECTRA` by name and settings; ValueError for an unknown name, with the nearest."""
    require("spectrum", name, SPECTRA)
    return SPECTRA[name](**settings)
