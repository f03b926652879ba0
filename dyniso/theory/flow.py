"""The penalty alone: its flow and its explicit step, in singular values, and where the step breaks.

The time of the flow is s = learning rate * strength * steps; one step has the size c = learning rate * strength.
Everything is exact algebra of eq. 16, derived in the book's chapter on the regulariser.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import require_range
from ..isometry import gram_deviation_grad
from ..optim import AdamO, isometry_step

SETTLES_BELOW = 1 / 4  # of c: above it sigma = 1 repels
STAYS_BELOW = 1 / 2  # of c: above it nothing stays bounded
FATES = ("settles at 1", "settles at −1 (sign lost)", "stays, does not settle", "diverges")


def flow(sigma: Tensor, time: Tensor | float) -> Tensor:
    """Singular values after time s of the penalty's flow, in closed form.

        d sigma/ds = -4 sigma (sigma^2 - 1),   sigma(s)^2 = 1 / (1 + (sigma(0)^-2 - 1) e^(-8 s))

    Args:
        sigma: values at s = 0, at least 0; infinity gives the wall that no start passes. Broadcast with `time`.
        time: s = learning rate * strength * steps, unitless, at least 0.
    Returns:
        Float64, of the broadcast shape. Zero stays zero.
    Raises:
        ValueError: a negative value or a negative time.
    Source: derived from arXiv 2606.09762, eq. 16.

    >>> [round(float(v), 3) for v in flow(torch.tensor([0.0, 0.5, 1.0, torch.inf]), 0.1)]
    [0.0, 0.653, 1.0, 1.348]
    """
    sigma, s = (torch.as_tensor(v, dtype=torch.float64) for v in (sigma, time))
    if not (bool((sigma >= 0).all()) and bool((s >= 0).all())):
        raise ValueError(f"sigma from {float(sigma.min()):g}, time from {float(s.min()):g}; both must be at least 0")
    moved = (1 + (sigma**-2 - 1) * torch.exp(-8 * s)) ** -0.5
    return torch.where(sigma == 0, 0.0, moved)


def matrix_flow(W: Tensor, time: float) -> Tensor:
    """A whole weight after time s: singular values by `flow`, singular vectors as they are.

    Args:
        W: shape (..., out, in).
        time: as in `flow`.
    Returns:
        Shape (..., out, in), float64.
    Source: as `flow`.

    >>> matrix_flow(torch.diag(torch.tensor([2.0, 0.5])), 50.0)
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    U, sigma, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return (U * flow(sigma, time)[..., None, :]) @ Vh


def half_life(c: float) -> float:
    """Steps of size c after which a small deviation from 1 has halved: ln 2 / 8c.

    >>> round(half_life(1e-3), 1)
    86.6
    """
    require_range("c", c, 0, SETTLES_BELOW, kind=float)
    return math.log(2) / (8 * c)


def stepped(sigma: Tensor | float, c: Tensor | float, steps: int) -> Tensor:
    """Singular values after explicit steps of the optimizer: sigma <- sigma (1 - 4c (sigma^2 - 1)).

    Each value goes as a 1 x 1 matrix through `dyniso.optim.isometry_step`, the step that AdamO takes; it may lose its
    sign. What passes a million stays there.

    Args:
        sigma: shape (...,) or a number.
        c: learning rate * strength, of the same shape or a number.
        steps: at least 0.
    Returns:
        Float64, shape (...,).
    Source: arXiv 2606.09762, second term of eq. 20.

    >>> round(float(stepped(2.0, 0.1, 1)), 12)
    -0.4
    """
    require_range("steps", steps, 0)
    start, sizes = torch.broadcast_tensors(*(torch.as_tensor(v, dtype=torch.float64) for v in (sigma, c)))
    W, sizes = start.reshape(-1, 1, 1), sizes.reshape(-1)
    for _ in range(steps):
        W = (W - isometry_step([W], sizes, batch_dims=1)[0]).clamp(-1e6, 1e6)
    return W.reshape(start.shape)


def divergence_limit(c: Tensor | float) -> Tensor:
    """The singular value beyond which every step of size c leads farther out: sigma^2 = 1 + 1/(2c).

    >>> round(float(divergence_limit(0.5)), 3)
    1.414
    """
    return (1 + 0.5 / torch.as_tensor(c, dtype=torch.float64)).sqrt()


def fate(sigma: Tensor, c: Tensor, steps: int = 2000) -> Tensor:
    """What becomes of singular values under many steps: a position in FATES, shape (...,).

    >>> [FATES[int(k)] for k in fate(torch.tensor([0.5, 2.0]), torch.tensor([0.1, 0.3]))]
    ['settles at 1', 'diverges']
    """
    end = stepped(sigma, c, steps)
    settled = (end.abs() - 1).abs() < 1e-3
    return torch.where(end.abs() > 1e3, 3, torch.where(~settled, 2, torch.where(end < 0, 1, 0)))


def predicted_fate(sigma: Tensor, c: Tensor) -> Tensor:
    """What three lines say of `fate`, with the two signs taken as one: 0 settles, 2 stays, 3 diverges.

    The lines are c = 1/4, c = 1/2 and `divergence_limit`.

    >>> predicted_fate(torch.tensor([0.5, 0.5, 3.0]), torch.tensor([0.1, 0.3, 0.3]))
    tensor([0, 2, 3])
    """
    beyond = (c > STAYS_BELOW) | (sigma > divergence_limit(c))
    return torch.where(beyond, 3, torch.where(c > SETTLES_BELOW, 2, 0))


def descended(W: Tensor, c: float, steps: int) -> Tensor:
    """W after gradient steps of size c on the penalty, all rows moving. Shape (..., out, in), as W.

    >>> descended(torch.tensor([[0.5]]), 0.01, 1)
    tensor([[0.5150]])
    """
    for _ in range(steps):
        W = W - c * gram_deviation_grad(W)
    return W


def pulled(W: Tensor, steps: int, **options: Any) -> Tensor:
    """W after `AdamO` has pulled it for some steps with no task.

    Args:
        W: shape (out, in); it is copied.
        steps: calls of the optimizer.
        options: of `dyniso.optim.AdamO`, e.g. lr and isometry_strength.

    >>> pulled(1.2 * torch.eye(1), 400, lr=0.1, isometry_strength=1.0)
    tensor([[1.]])
    """
    require_range("steps", steps, 0)
    p = nn.Parameter(W.detach().clone())
    p.grad = torch.zeros_like(p)
    optimizer = AdamO([p], **options)
    for _ in range(steps):
        optimizer.step()
    return p.detach()
