"""Variants of the penalty in the authors' public code, and what each does to a singular value.

Each is a gradient (gamma / mu) W (W'W - t I): a factor gamma, a target t for squared singular values, a divisor mu.
It acts on a singular value by gamma sigma (sigma^2 - t) / mu, which rests at sqrt(t) with slope 2 gamma t / mu.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..isometry import singular_values


class Convention(NamedTuple):
    """One form of the penalty's gradient.

    >>> Convention(4, 1, 1).resting_value, Convention(4, 1, 1).limit
    (1.0, 0.25)
    """

    factor: float
    target: float
    divisor: float

    @property
    def resting_value(self) -> float:
        """The singular value at which the gradient vanishes."""
        return float(self.target**0.5)

    @property
    def relaxation(self) -> float:
        """Fraction by which a small deviation shrinks in a step of size c, over c."""
        return 2 * self.factor * self.target / self.divisor

    @property
    def limit(self) -> float:
        """The step size c below which the resting value attracts."""
        return 2 / self.relaxation

    def grad(self, W: Tensor) -> Tensor:
        """The gradient at a tall W, shape (..., out, in)."""
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        return self.factor / self.divisor * W @ (W.mT @ W - self.target * eye)


class Relaxation(NamedTuple):
    """What was measured of one convention."""

    resting_value: float  # mean singular value after many steps
    relaxation: float  # fraction a step, over c
    settles: bool  # at 0.95 of the limit
    leaves: bool  # at 1.05 of the limit


CONVENTIONS = {
    "eq. 16": Convention(4, 1, 1),
    "factor 2 (authors' RL code, language-model code)": Convention(2, 1, 1),
    "target d_out/d_in where a layer expands (RL code)": Convention(2, 3, 1),
    "target 2 for ReLU (language-model code, an option)": Convention(2, 2, 1),
    "divided by the size of the Gram matrix (an option)": Convention(2, 1, 32),
}


def descended(W: Tensor, convention: Convention, c: float, steps: int) -> Tensor:
    """W after gradient steps of size c."""
    for _ in range(steps):
        W = W - c * convention.grad(W)
    return W


def measure(convention: Convention, W: Tensor) -> Relaxation:
    """Let a tall matrix come to rest under a convention, disturb it by one part in a thousand, and look.

    Args:
        W: shape (out, in) with out >= in, e.g. (96, 32); float64, full rank.
    Raises:
        ValueError: W is wide.

    >>> found = measure(Convention(4, 1, 1), torch.randn(9, 3, dtype=torch.float64) / 3)
    >>> round(found.resting_value, 3), round(found.relaxation, 1), found.settles, found.leaves
    (1.0, 8.0, True, True)
    """
    if W.shape[-2] < W.shape[-1]:
        raise ValueError(f"shape {tuple(W.shape)}; expected at least as many rows as columns")
    limit, tiny = convention.limit, 1e-6
    Q = descended(W, convention, 0.1 * limit, 600)
    disturbed = 1.001 * Q
    left = float((descended(disturbed, convention, tiny, 1) - Q).norm() / (disturbed - Q).norm())
    ends = [float((descended(disturbed, convention, f * limit, 300) - Q).norm() / Q.norm()) for f in (0.95, 1.05)]
    return Relaxation(float(singular_values(Q).mean()), (1 - left) / tiny, ends[0] < 1e-4, ends[1] > 0.01)
