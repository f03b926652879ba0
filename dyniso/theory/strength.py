"""How strong the pull must be: laws for updates that do anything, never change, or are independent; and the balance.

Notation: n the larger side of a weight, r the root mean square of an optimizer's update in units of the learning rate,
D the defect, lambda the strength of eq. 20. Derived in the book's chapter on the strength of the pull.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import require, require_range
from ..isometry import spectrum
from ..optim import AdamO, isometry_step
from ..polar import polar_factor

GUARANTEE_LIMIT = 8 / 27**0.5  # of rho / lambda: about 1.54; above it the inner root is gone
ATTACKS = ("shrink", "stretch", "random")


def guaranteed_interval(ratio: float) -> tuple[float, float]:
    """The interval that no updates of spectral norm rho lead out of: the roots of 4 |sigma^3 - sigma| = rho / lambda.

    Args:
        ratio: rho / lambda, above 0.
    Returns:
        sigma_- in (1/sqrt 3, 1), or NaN from GUARANTEE_LIMIT on, and sigma_+ > 1.
    Raises:
        ValueError: ratio not above 0.

    >>> [round(v, 3) for v in guaranteed_interval(0.8)]
    [0.879, 1.088]
    """
    if not 0 < ratio < math.inf:
        raise ValueError(f"ratio={ratio}; it must be above 0")
    outer = max(np.roots([4, 0, -4, -ratio]).real)
    inner = max(np.roots([4, 0, -4, ratio]).real) if ratio < GUARANTEE_LIMIT else math.nan
    return float(inner), float(outer)


def attacked(
    W: Tensor, ratio: float, attack: str, lr: float, generator: torch.Generator, steps: int = 1500
) -> tuple[float, float]:
    """Smallest and largest singular value met under updates of spectral norm `ratio`, at strength 1.

    Args:
        W: the start, shape (n, n), float64.
        ratio: rho / lambda.
        attack: "shrink" and "stretch" push along the polar factor, "random" by random rank-one matrices.
        lr: learning rate; it sets how fast, not where, push and pull balance.
        generator: of the random attack.
        steps: at most; it stops below 0.3, where the pull gets weaker the farther it goes.
    Raises:
        ValueError: unknown attack (the message has the nearest).
    """
    require("attack", attack, ATTACKS)
    low, high = math.inf, -math.inf
    for _ in range(steps):
        u = polar_factor(W) if attack != "random" else _rank_one(W, generator)
        u = (-ratio if attack == "stretch" else ratio) * u / torch.linalg.matrix_norm(u, 2)
        W = W - lr * u - isometry_step([W], lr)[0]
        sigma = spectrum(W)
        low, high = min(low, float(sigma[-1])), max(high, float(sigma[0]))
        if low < 0.3:
            break
    return low, high


def _rank_one(W: Tensor, generator: torch.Generator) -> Tensor:
    out, inputs = (torch.randn(size, generator=generator, dtype=W.dtype) for size in W.shape)
    return torch.outer(out, inputs)


def ceiling(n: Any, r2: Any, defect: float) -> Any:
    """Strength that keeps the defect of a square weight whatever the updates do: sqrt(n r^2 / D) / 4.

    Equality needs updates that never change; the learning rate does not appear. Numbers, arrays or tensors.

    >>> ceiling(64, 1.0, 0.25)
    4.0
    """
    return (n * r2 / defect) ** 0.5 / 4


def noise_strength(lr: Any, n: Any, r2: Any, q: Any) -> Any:
    """Strength at which independent white updates keep mean (sigma^4 - sigma^2) = q: lr n r^2 / 8q.

    For small q the defect is about q, and sigma lies within 1 +- sqrt(q). The rule of thumb is q = 0.05, r = 1.
    Numbers, arrays or tensors.

    >>> noise_strength(1e-3, 512, 1.0, 0.064)
    1.0
    """
    return lr * n * r2 / (8 * q)


def moment(sigma: Tensor) -> Tensor:
    """Mean (sigma^4 - sigma^2) over the last axis, (..., m) -> (...,).

    >>> float(moment(torch.tensor([1.0, 2.0])))
    6.0
    """
    return (sigma**4 - sigma**2).mean(-1)


def white_updates(q: Tensor, width: int, steps: int, generator: torch.Generator, relaxation: float = 1 / 200) -> Tensor:
    """Spectra of square weights under independent white updates against the pull, one weight for each q.

    Args:
        q: targets of the law, shape (runs,), float32.
        width: size n of the weights.
        steps: of which the last two thirds are looked at, every 25th.
        relaxation: 8 lr lambda, the fraction of a small deviation that a step takes away.
    Returns:
        Singular values, shape (looks, runs, n).

    >>> white_updates(torch.tensor([0.01]), 4, 150, torch.Generator().manual_seed(0)).shape
    torch.Size([4, 1, 4])
    """
    require_range("steps", steps, 26)
    lr = (relaxation * q / width).sqrt()[:, None, None]
    scale = torch.full_like(q, relaxation / 8)
    W, seen = polar_factor(torch.randn(len(q), width, width, generator=generator)), []
    for k in range(steps):
        noise = torch.randn(W.shape, generator=generator)
        W = W - lr * noise - isometry_step([W], scale, batch_dims=1)[0]
        if k >= steps // 3 and k % 25 == 0:
            seen.append(spectrum(W))
    return torch.stack(seen)


class WhiteGradients(NamedTuple):
    """What AdamO makes of white gradients."""

    spectra: Tensor  # singular values, (looks, runs, m)
    r2: float  # mean square of a single update over the learning rate


def white_gradients(
    shape: tuple[int, int], lr: float, strength: Tensor, generator: torch.Generator, steps: int = 4000
) -> WhiteGradients:
    """AdamO under white gradients, one weight for each strength; looked at from step 1,500 on, every 25th.

    Momentum makes about (1 + beta_1)/(1 - beta_1) = 19 updates alike, so r^2 is about 1/19, while their sum grows as
    if r were 1.

    Args:
        shape: (out, in) of each weight.
        strength: shape (runs,).
    """
    p = torch.nn.Parameter(polar_factor(torch.randn(len(strength), *shape, generator=generator)))
    optimizer, seen = AdamO([p], lr=lr, isometry_strength=strength, batch_dims=1), []
    for k in range(steps):
        p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        if k >= 1500 and k % 25 == 0:
            seen.append(spectrum(p))
    state = optimizer.state[p]
    return WhiteGradients(torch.stack(seen), float((state["exp_avg"].square() / state["exp_avg_sq"]).mean()))


class Balance(NamedTuple):
    """Both sides of the balance of ||W||^2 in a steady state, and what goes with it; each of shape (...,)."""

    defect: Tensor
    moment: Tensor  # mean (sigma^4 - sigma^2), on average over time noise + push
    noise: Tensor  # lr |u|^2 / 8 lambda n: of the size of the updates
    push: Tensor  # -2 <W, u> / 8 lambda n: of updates that follow earlier ones
    r2: Tensor  # mean square of u
    sigma_max: Tensor


def balance(W: Tensor, u: Tensor, lr: float, strength: Tensor | float) -> Balance:
    """Where the growth of a square weight's norm comes from: W <- W - lr u - lr lambda grad R.

    Args:
        W: before the step, shape (..., n, n). u: the update, same shape.
        lr: learning rate. strength: lambda, a number or of shape (...,).

    >>> b = balance(torch.eye(2), -torch.eye(2), 0.1, 1.0)
    >>> round(float(b.noise), 4), float(b.push)
    (0.0125, 0.25)
    """
    sigma, scale = spectrum(W), 8 * strength * W.shape[-1]
    noise, push = lr * u.square().sum((-2, -1)) / scale, -2 * (W * u).sum((-2, -1)) / scale
    defect = (sigma**2 - 1).square().mean(-1)
    return Balance(defect, moment(sigma), noise, push, u.square().mean((-2, -1)), sigma.amax(-1))


def adam_update(
    exp_avg: Tensor, exp_avg_sq: Tensor, step: Tensor, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Tensor:
    """Adam's last update in units of the learning rate, from its state: the bias-corrected mean over the root.

    Source: Kingma and Ba 2015.

    >>> float(adam_update(torch.tensor(0.1), torch.tensor(0.001), torch.tensor(1.0)).round())
    1.0
    """
    corrected = exp_avg / (1 - betas[0] ** step)
    return corrected / ((exp_avg_sq / (1 - betas[1] ** step)).sqrt() + eps)
