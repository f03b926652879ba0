"""A layer with dead units, and what each kind of update makes of them. Derived in the book's chapter on dormant units.

A unit is dead if <w, h> + b is at most 0 for every input h. The scene is a square layer with orthonormal rows, of which
the first few are pushed along the negative mean of non-negative inputs until they fire on none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import require_range
from ..dormancy import dead_units
from ..optim import AdamO


class Scene(NamedTuple):
    """Inputs, a healthy layer, and how many of its rows are to die."""

    inputs: Tensor  # (samples, width), at least 0, mean norm 1, float64
    healthy: Tensor  # (width, width), orthonormal rows
    dying: int  # the first so many rows

    def dead(self, W: Tensor, bias: float) -> int:
        """How many of the first `dying` units fire on no input."""
        return int(dead_units(self.inputs @ W[: self.dying].mT + bias).sum())

    def killed(self, bias: float) -> Tensor:
        """The layer with its first rows pushed along the negative mean input until each is dead; rows of unit norm.

        Raises:
            RuntimeError: a push of 20 leaves some alive (names how many).
        """
        against, W = nn.functional.normalize(-self.inputs.mean(0), dim=0), self.healthy.clone()
        for push in range(400):
            pushed = self.healthy[: self.dying] + 0.05 * push * against
            W[: self.dying] = nn.functional.normalize(pushed, dim=1)
            if self.dead(W, bias) == self.dying:
                return W
        raise RuntimeError(f"bias {bias:g}: {self.dying - self.dead(W, bias)} of {self.dying} units do not die")


def scene(width: int, generator: torch.Generator, samples: int = 4000) -> Scene:
    """Random inputs and rows; 5/16 of the units are to die.

    >>> found = scene(16, torch.Generator().manual_seed(0), samples=200)
    >>> found.dying, found.dead(found.healthy, 0.0), found.dead(found.killed(0.0), 0.0)
    (5, 0, 5)
    """
    require_range("width", width, 4)
    inputs = torch.relu(torch.randn(samples, width, generator=generator).double())
    healthy = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    return Scene(inputs / inputs.norm(dim=1).mean(), healthy, width * 40 // 128)


def time_to(fraction: float, dead_at: Callable[[float], int], dying: int, times: Tensor) -> float:
    """The first of some times at which at most a fraction of the units is dead; NaN if there is none.

    >>> time_to(0.5, lambda s: 10 - int(s), 10, torch.arange(20.0))
    5.0
    """
    return next((float(s) for s in times if dead_at(float(s)) <= fraction * dying), float("nan"))


def half_uncovered(n: int, generator: torch.Generator, rows: int = 1000, c: float = 0.002) -> float:
    """Time s at which half of some random rows have half of their square outside the span of n - 1 orthonormal ones.

    Args:
        n: width of a square layer.
        generator: of the free direction and of the rows.
        rows: how many are followed, each beside the same others.
        c: size of a step, learning rate * strength.
    """
    q = nn.functional.normalize(torch.randn(n, generator=generator).double(), dim=0)
    w, steps = torch.randn(rows, n, generator=generator).double() / n**0.5, 0
    while ((w @ q).square() > 0.5 * w.square().sum(1)).double().mean() < 0.5:
        w = w - 4 * c * (w.square().sum(1, keepdim=True) * w - torch.outer(w @ q, q))
        steps += 1
    return c * steps


def spectral_limit(W: Tensor, c: float = 0.005, steps: int = 3000) -> Tensor:
    """Gradient descent on (sigma_1^2 - 1)^2, the first singular pair by one power iteration a step.

    Args:
        W: shape (out, in).
    Returns:
        Shape (out, in).

    >>> torch.linalg.svdvals(spectral_limit(torch.diag(torch.tensor([2.0, 0.5])))).round(decimals=3)
    tensor([1.0000, 0.5000])
    """
    v = nn.functional.normalize(W.new_ones(W.shape[1]), dim=0)
    for _ in range(steps):
        v = nn.functional.normalize(W.mT @ (W @ v), dim=0)
        u = W @ v
        W = W - c * 4 * (u @ u - 1) * torch.outer(u, v)
    return W


def shrunk_and_perturbed(
    W: Tensor, steps: int, generator: torch.Generator, shrink: float = 0.999, perturb: float = 0.01
) -> tuple[Tensor, float]:
    """W after steps of w <- shrink w + perturb z, by one draw from the law of the sum of all draws.

    Args:
        W: shape (out, in); z has variance 1/in.
    Returns:
        The weight, and the factor by which what was there (a bias too) has shrunk.
    Source: Ash and Adams 2020.
    """
    left = shrink**steps
    spread = perturb * ((1 - left**2) / (1 - shrink**2)) ** 0.5
    noise = torch.randn(W.shape, generator=generator).to(W) / W.shape[1] ** 0.5
    return left * W + spread * noise, left


def steps_until(
    done: Callable[[Tensor], bool],
    W: Tensor,
    *,
    every: int = 1,
    most: int = 20_000,
    past: float | None = None,
    **options: object,
) -> int:
    """Steps of AdamO without any task until a condition on the weight holds; `most` if it never does.

    Args:
        done: of the weight, float64.
        W: the start, copied to float32.
        every: how often `done` is asked.
        past: size of the task's gradients before: Adam's second moment starts at its square; None is a fresh state.
        options: of `dyniso.optim.AdamO`.
    """
    p = nn.Parameter(W.float().clone())
    optimizer = AdamO([p], **options)  # type: ignore[arg-type]
    p.grad = torch.zeros_like(p)
    if past is not None:
        moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.full_like(p, past**2)}
        optimizer.state[p] = {"step": torch.tensor(1e6), **moments}
    for step in range(1, most):
        optimizer.step()
        if step % every == 0 and done(p.detach().double()):
            return step
    return most
