"""Fitting a known 1-Lipschitz function with networks whose weights are kept orthogonal, or of norm at most one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...checks import require
from ...nets import mlp, orthogonal

CONSTRAINTS = ("projected", "parametrised", "clipped")


class Target(NamedTuple):
    """The distance to the nearest of some points of the square [-1, 1]^2, minus its mean over the training inputs."""

    points: Tensor  # (points, 2)
    train_x: Tensor  # (samples, 2)
    test_x: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(samples, 2) -> (samples,)."""
        centre = torch.cdist(self.train_x, self.points).amin(1).mean()
        return torch.cdist(x, self.points).amin(1) - centre


def make_target(generator: torch.Generator, points: int = 5, samples: int = 2048) -> Target:
    """Random points, training inputs and test inputs."""
    return Target(*(2 * torch.rand(n, 2, generator=generator) - 1 for n in (points, samples, samples)))


@torch.no_grad()
def project(W: Tensor, constraint: str) -> None:
    """Put a weight back in place: to its polar factor ("projected"), or with singular values clipped at 1 ("clipped").

    >>> W = torch.diag(torch.tensor([0.5, 2.0])); project(W, "clipped"); W
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """
    require("constraint", constraint, CONSTRAINTS)
    if constraint != "parametrised":
        U, sigma, Vh = torch.linalg.svd(W, full_matrices=False)
        W.copy_((U if constraint == "projected" else U * sigma.clamp_max(1)) @ Vh)


class Fit(NamedTuple):
    """A fitted net, and how far it is from the target."""

    net: nn.Sequential
    error: float  # root mean square on the test inputs, over the target's standard deviation

    def weights(self) -> list[Tensor]:
        """Every weight as the forward pass uses it."""
        return [layer.weight.detach() for layer in self.net if isinstance(layer, nn.Linear)]


def fit(
    target: Target,
    activation: str,
    width: int = 32,
    depth: int = 3,
    *,
    steps: int = 600,
    constraint: str = "projected",
    scale: float = 1.0,
    steepness: float = 1.0,
    seed: int = 0,
) -> Fit:
    """Train a net on a target by Adam at learning rate 5e-3 with a cosine schedule, batches of 256.

    Args:
        target: as from `make_target`.
        activation, width, depth, seed: of `dyniso.nets.mlp`.
        steps: of the optimizer.
        constraint: how weights are kept: "projected" on the polar factor after each step, "parametrised" by
            Newton-Schulz in the forward pass, "clipped" at a largest singular value of 1 after each step.
        scale: the net's output is multiplied by it.
        steepness: the target is multiplied by it.
    Raises:
        ValueError: an unknown constraint or activation (the message has the nearest).
    """
    require("constraint", constraint, CONSTRAINTS)
    net = mlp(2, 1, width, depth, activation, seed=seed)
    layers = [m for m in net if isinstance(m, nn.Linear)]
    for layer in layers if constraint == "parametrised" else []:
        orthogonal(layer, "newton_schulz")
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    y = steepness * target(target.train_x)
    for step in range(steps):
        batch = torch.arange(256 * step, 256 * (step + 1)) % len(y)
        optimizer.zero_grad()
        (scale * net(target.train_x[batch])[:, 0] - y[batch]).square().mean().backward()
        optimizer.step()
        schedule.step()
        for layer in layers if constraint != "parametrised" else []:
            project(layer.weight, constraint)
    truth = steepness * target(target.test_x)
    miss = (scale * net(target.test_x)[:, 0].detach() - truth).square().mean().sqrt()
    return Fit(net, float(miss / truth.std()))
