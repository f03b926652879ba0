"""Experiments on one square matrix under AdamO: what the pull does alone, what the penalty in the loss does instead.

Every draw is a function of width, seed and a salt. The gradient of the task is white noise, or zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...isometry import gram_deviation, singular_values
from ...optim import AdamO
from ...polar import polar_factor


@dataclass(frozen=True)
class OneMatrix:
    """A matrix (width, width) and the seed of its draws."""

    width: int = 64
    seed: int = 0

    def normal(self, *shape: int, salt: int = 0) -> Tensor:
        """Standard normal draws."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 * self.seed + salt))

    def after_noise(self, strength: float, coupled: bool, scale: float, count: int = 600) -> float:
        """Isometry defect of a matrix after `count` steps under a task gradient of white noise times `scale`."""
        p = nn.Parameter(1.5 * polar_factor(self.normal(self.width, self.width)))
        optimizer = AdamO([p], lr=1e-3, isometry_strength=strength, coupled=coupled)
        for k in range(count):
            p.grad = scale * self.normal(self.width, self.width, salt=k + 1)
            optimizer.step()
        return float(gram_deviation(p.detach()) / self.width)

    def off_diagonal_share(self, coupled: bool) -> float:
        """Share of one penalty step, after 50 noisy gradients, that is not a change of singular values."""
        moved = []
        for strength in (0.0, 0.1):
            p = nn.Parameter(self.normal(self.width, self.width) / self.width**0.5)
            optimizer = AdamO([p], lr=1e-3, isometry_strength=strength, coupled=coupled, isometry_every=50)
            for k in range(50):  # the penalty acts in the last call only
                start = p.detach().clone()
                p.grad = (
                    self.normal(self.width, self.width, salt=k + 1) * self.normal(self.width, self.width, salt=7).exp()
                )
                optimizer.step()
            moved.append(p.detach())
        U, _, Vh = torch.linalg.svd(start)
        core = U.T @ (moved[1] - moved[0]) @ Vh.T
        return float((core - core.diag().diag()).norm() / core.norm())

    def task_part(self, strength: float, count: int = 50) -> tuple[float, float]:
        """Median ratio of coupled to decoupled v, and of the task's part of the step, under white noise at 0.01."""
        seen = []
        for coupled in (True, False):
            p = nn.Parameter(1.5 * polar_factor(self.normal(self.width, self.width)))
            optimizer = AdamO([p], lr=1e-4, isometry_strength=strength, coupled=coupled)
            for k in range(count):
                p.grad = 0.01 * self.normal(self.width, self.width, salt=k + 1)
                optimizer.step()
            seen.append(optimizer.state[p])
        v_coupled, v, m = seen[0]["exp_avg_sq"], seen[1]["exp_avg_sq"], seen[1]["exp_avg"]
        return float((v_coupled / v).median()), float((m / v_coupled.sqrt()).norm() / (m / v.sqrt()).norm())

    def trained(self, strength: float | None, lr: float = 1e-3, count: int = 20) -> tuple[Tensor, ...]:
        """Weight, bias and Adam's moments of the weight after some steps on fixed gradients; plain Adam if None."""
        p, b = (
            nn.Parameter(self.normal(*shape) / self.width**0.5) for shape in ((self.width, self.width), (self.width,))
        )
        optimizer: torch.optim.Optimizer = torch.optim.Adam([p, b], lr=lr)
        if strength is not None:
            optimizer = AdamO([p, b], lr=lr, isometry_strength=strength)
        for k in range(count):
            p.grad, b.grad = self.normal(self.width, self.width, salt=k + 1), self.normal(self.width, salt=k + 1)
            optimizer.step()
        return p.detach(), b.detach(), optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]

    def pulls(self, isometry_lr: float | None, strength: float = 0.1) -> list[Tensor]:
        """Displacement by the pull alone at learning rate 1e-3, and after a scheduler has lowered it to a tenth."""
        p = nn.Parameter(1.2 * polar_factor(self.normal(self.width, self.width).double()))
        start, moved = p.detach().clone(), []
        optimizer = AdamO([p], lr=1e-3, isometry_strength=strength, isometry_lr=isometry_lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
        for _ in range(2):
            p.data.copy_(start)
            p.grad = torch.zeros_like(p)
            optimizer.step()
            schedule.step()
            moved.append(p.detach() - start)
        return moved

    def balance(self, decay: float, strength: float = 0.1, lr: float = 0.1, count: int = 3000) -> Tensor:
        """Singular values after many steps under decay and pull alone."""
        p = nn.Parameter(polar_factor(self.normal(self.width, self.width)))
        optimizer = AdamO([p], lr=lr, isometry_strength=strength, weight_decay=decay, decoupled_weight_decay=True)
        p.grad = torch.zeros_like(p)
        for _ in range(count):
            optimizer.step()
        return singular_values(p)
