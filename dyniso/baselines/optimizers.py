"""Optimizers that torch lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import require_range, require_that


class UPGD(torch.optim.Optimizer):
    """Utility-based perturbed gradient descent: useful weights move less, the others move with noise.

        u <- beta u + (1 - beta)(-g theta),   s = sigmoid(uhat / max uhat),
        theta <- (1 - lr wd) theta - lr (g + noise xi)(1 - s)

    with the largest bias-corrected utility taken over all parameters of a run (the global form). Where no utility is
    positive, the scale is that of the largest magnitude, so the gate stays monotone.

    Args:
        lr, beta, noise, weight_decay: eta, beta, sigma and lambda of the source; .01, .9999, .1, .01 were best on
            input-permuted MNIST.
        generators: one a run; None draws from torch's global generator.
        batch_dims: leading axes that index runs.
    Raises:
        ValueError: a setting out of range, or another number of generators than of runs.
    Source: Elsayed & Mahmood 2024 (arXiv 2404.00781), first-order global form, step lr as in its experiment code.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        beta: float = 0.9999,
        noise: float = 0.1,
        weight_decay: float = 0.01,
        generators: Sequence[torch.Generator] | None = None,
        batch_dims: int = 0,
    ):
        for name, value in (("lr", lr), ("noise", noise), ("weight_decay", weight_decay)):
            require_range(f"UPGD.{name}", value, 0, kind=float)
        require_range("UPGD.beta", beta, 0, 0.9999999, kind=float)
        require_range("UPGD.batch_dims", batch_dims, 0)
        super().__init__(params, dict(lr=lr, beta=beta, noise=noise, weight_decay=weight_decay))
        runs = math.prod(self.param_groups[0]["params"][0].shape[:batch_dims])
        fits = generators is None or len(generators) == runs
        require_that(fits, "generators", generators, f"None, or one generator a run, {runs} in all")
        self.generators, self.batch_dims = generators, batch_dims

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "generators": self.generators, "batch_dims": self.batch_dims}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; none, where none has one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        pairs = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        utilities = [self.utility(p, group["beta"]) for group, p in pairs]
        largest = self.over_run(utilities)
        for (group, p), utility in zip(pairs, utilities, strict=True):
            scaled = utility / largest.reshape(largest.shape + (1,) * (p.ndim - largest.ndim))
            each = scaled.unbind() if self.batch_dims == 1 else [scaled]  # torch rounds the end of a tensor otherwise
            gate = torch.stack([torch.sigmoid(own) for own in each]).reshape(p.shape)
            move = (p.grad + group["noise"] * self.normal(p)) * (1 - gate)
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-group["lr"])
        return loss

    def utility(self, p: Tensor, beta: float) -> Tensor:
        """The bias-corrected utility of each entry, brought up to date; updates of p alone count."""
        assert p.grad is not None
        kept = self.state[p]
        if not kept:
            kept.update(step=0, utility=torch.zeros_like(p))
        kept["step"] += 1
        average: Tensor = kept["utility"].lerp_(-p.grad * p, 1 - beta)
        return average / (1 - beta ** kept["step"])

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the states of the generators."""
        return {**super().state_dict(), "generators": [g.get_state() for g in self.generators or ()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, with the states of the generators; ValueError where their number differs."""
        own, saved = len(self.generators or ()), len(state_dict["generators"])
        require_that(own == saved, "generators saved", saved, f"{own}, as many as this optimizer has")
        for g, kept in zip(self.generators or (), state_dict["generators"], strict=True):
            g.set_state(kept.cpu())
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})

    def over_run(self, utilities: Sequence[Tensor]) -> Tensor:
        """The positive scale of each run's utilities, shape (*runs,)."""
        if not utilities:
            return torch.ones(())
        top = torch.stack([u.flatten(self.batch_dims).amax(-1) for u in utilities]).amax(0)
        size = torch.stack([u.abs().flatten(self.batch_dims).amax(-1) for u in utilities]).amax(0)
        return torch.where(top > 0, top, size).clamp_min(max(1e-30, torch.finfo(top.dtype).tiny))

    def normal(self, p: Tensor) -> Tensor:
        if self.generators is None:
            return torch.randn_like(p)
        shape = p.shape[self.batch_dims :]
        draws = [torch.randn(shape, generator=g, device=p.device, dtype=p.dtype) for g in self.generators]
        return torch.stack(draws).reshape(p.shape)
