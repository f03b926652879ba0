"""Surgery on singular vectors with all singular values kept, and changes of a weight of a given size.

Everything works on one weight (out, in) or on stacks (..., out, in), each matrix of a stack with draws of its own.
Randomness comes from a generator on the CPU, so the same seed gives the same change on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import require_range, require_shape, require_that
from ..initialisation import orthogonal_
from ..isometry import require_finite

PHASES = 256  # steps in which the first rotation that is long enough is looked for, eight to a half turn


@torch.no_grad()
def re_paired(W: Tensor, generator: torch.Generator) -> Tensor:
    """U diag(permuted sigma) V': all singular values and all singular vectors kept, only who goes with whom changes.

    Args:
        W: shape (..., out, in). generator: of a uniformly random permutation of each spectrum.
    Returns:
        Shape (..., out, in), same dtype. After `flat` it changes nothing: all pairs are alike.
    Raises:
        ValueError: W is no matrix or not finite.
    """
    U, sigma, Vh = decomposed(W)
    order = torch.rand(sigma.shape, generator=generator).argsort(-1).to(W.device)
    return ((U * sigma.gather(-1, order)[..., None, :]) @ Vh).to(W.dtype)


@torch.no_grad()
def haar(W: Tensor, generator: torch.Generator) -> Tensor:
    """U2 diag(sigma) V2' with uniformly random singular vectors: all singular values kept, all directions new.

    Args:
        W: shape (..., out, in). generator: of the vectors.
    Returns:
        Shape (..., out, in), same dtype.
    Raises:
        ValueError: W is no matrix or not finite.
    """
    U, sigma, Vh = decomposed(W)
    new_U, new_V = (random_orthogonal(part, generator) for part in (U, Vh))
    return ((new_U * sigma[..., None, :]) @ new_V).to(W.dtype)


@torch.no_grad()
def rotated(W: Tensor, distance: Tensor | float, generator: torch.Generator) -> Tensor:
    """expm(t A) W with A random and skew: all singular values and right vectors kept, and |W' - W| = distance.

    Args:
        W: shape (..., out, in). distance: Frobenius, at least 0, of shape (...,) or one number; t is the smallest
            positive one that gives it.
        generator: of the Gaussian entries of A.
    Returns:
        Shape (..., out, in), same dtype.
    Raises:
        ValueError: W is no matrix or not finite, or no rotation along A goes that far; two |W| is the most that any
            can, and about sqrt(2) |W| what most reach (says what was asked and found).
    """
    require_finite(W)
    X = W.double()
    want = distances(W, distance).square()
    skew = torch.randn(*W.shape[:-1], W.shape[-2], generator=generator, dtype=torch.float64).to(W.device)
    frequency, Q = torch.linalg.eigh(1j * (skew - skew.mT))  # A = Q diag(-i w) Q^H
    parts = Q.mH @ X.to(Q.dtype)
    power = parts.abs().square().sum(-1)

    def squared(t: Tensor) -> Tensor:
        return (power * 2 * (1 - (t[..., None] * frequency).cos())).sum(-1)

    step = math.pi / (8 * frequency.abs().amax(-1))
    low, high = torch.zeros_like(step), torch.zeros_like(step)
    found = want == 0
    for k in range(1, PHASES + 1):
        reached = ~found & (squared(k * step) >= want)
        low, high = torch.where(reached, (k - 1) * step, low), torch.where(reached, k * step, high)
        found |= reached
    if not found.all():
        size = torch.linalg.matrix_norm(X)
        raise ValueError(
            f"distance={float((want.sqrt() / size)[~found].max()):.3g} |W|; no rotation along this direction goes so "
            "far"
        )
    for _ in range(60):
        middle = (low + high) / 2
        short = squared(middle) < want
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    turned = Q @ (torch.exp(-1j * high[..., None] * frequency)[..., None] * parts)
    return turned.real.to(W.dtype)


@torch.no_grad()
def noisy(W: Tensor, distance: Tensor | float, generator: torch.Generator) -> Tensor:
    """W + distance N/|N| with N Gaussian.

    Args:
        W: shape (..., out, in). distance: Frobenius, of shape (...,) or one number, at least 0.
    Returns:
        Shape (..., out, in), same dtype.
    Raises:
        ValueError: W is no matrix or not finite, or a negative distance.
    """
    noise = torch.randn(W.shape, generator=generator, dtype=torch.float64).to(W.device)
    return moved(W, noise, distance)


@torch.no_grad()
def toward(W: Tensor, target: Tensor, distance: Tensor | float) -> Tensor:
    """W + t (target - W) with t such that |W' - W| = distance: shrink and perturb where the target is a fresh draw.

    Args:
        W, target: shape (..., out, in). distance: Frobenius, of shape (...,) or one number; beyond the target too.
    Returns:
        Shape (..., out, in), same dtype.
    Raises:
        ValueError: W is no matrix or not finite, a target of another shape or equal to W, or a negative distance.
    """
    require_shape(target.shape == W.shape, "target", target, f"that of W, {tuple(W.shape)}")
    return moved(W, target.double() - W.double(), distance)


def moved(W: Tensor, direction: Tensor, distance: Tensor | float) -> Tensor:
    """W + distance direction/|direction|."""
    require_finite(W)
    length = torch.linalg.matrix_norm(direction)
    want = distances(W, distance)
    require_that(bool(((length > 0) | (want == 0)).all()), "direction", 0.0, "other than zero: it shows no way")
    return (W.double() + (want / length.clamp_min(1e-300))[..., None, None] * direction).to(W.dtype)


def distances(W: Tensor, distance: Tensor | float) -> Tensor:
    """A distance for each matrix, (...,), float64; ValueError unless all are at least 0 and finite."""
    want = torch.as_tensor(distance, dtype=torch.float64, device=W.device).expand(W.shape[:-2])
    fits = torch.isfinite(want) & (want >= 0)
    require_that(bool(fits.all()), "distance", distance, "at least 0 and finite")
    return want


def decomposed(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (..., out, m), sigma (..., m) and V' (..., m, in), float64."""
    require_finite(W)
    U, sigma, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return U, sigma, Vh


def random_orthogonal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniformly random semi-orthogonal matrices of a shape (..., rows, columns), float64."""
    rows, columns = like.shape[-2:]
    require_range("rows", rows, 1)
    made = [
        orthogonal_(torch.empty(rows, columns, dtype=torch.float64), generator=generator)
        for _ in range(math.prod(like.shape[:-2]))
    ]
    return torch.stack(made).reshape(like.shape).to(like.device)
