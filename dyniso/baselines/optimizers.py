"""Optimizers that torch lacks, and adapters for those that know no leading run axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import require_range


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
        ValueError: a setting out of range.
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
        super().__init__(params, dict(lr=lr, beta=beta, noise=noise, weight_decay=weight_decay))
        self.generators, self.batch_dims, self.count = generators, batch_dims, 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.count += 1
        pairs = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        utilities = []
        for group, p in pairs:
            kept = self.state[p].setdefault("utility", torch.zeros_like(p))
            kept.lerp_(-p.grad * p, 1 - group["beta"])
            utilities.append(kept / (1 - group["beta"] ** self.count))
        largest = self.over_run(utilities)
        for (group, p), utility in zip(pairs, utilities, strict=True):
            scaled = utility / largest.reshape(largest.shape + (1,) * (p.ndim - largest.ndim))
            each = scaled.unbind() if self.batch_dims == 1 else [scaled]  # torch rounds the end of a tensor otherwise
            gate = torch.cat([torch.sigmoid(own) for own in each]).reshape(p.shape)
            move = (p.grad + group["noise"] * self.normal(p)) * (1 - gate)
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-group["lr"])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the step count and the states of the generators."""
        draws = [g.get_state() for g in self.generators or ()]
        return {**super().state_dict(), "count": self.count, "generators": draws}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, with the step count and the states of the generators."""
        self.count = state_dict["count"]
        for g, kept in zip(self.generators or (), state_dict["generators"], strict=True):
            g.set_state(kept.cpu())
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})

    def over_run(self, utilities: Sequence[Tensor]) -> Tensor:
        """The positive scale of each run's utilities, shape (*runs,)."""
        top = torch.stack([u.flatten(self.batch_dims).amax(-1) for u in utilities]).amax(0)
        size = torch.stack([u.abs().flatten(self.batch_dims).amax(-1) for u in utilities]).amax(0)
        return torch.where(top > 0, top, size).clamp_min(1e-30)

    def normal(self, p: Tensor) -> Tensor:
        if self.generators is None:
            return torch.randn_like(p)
        shape = p.shape[self.batch_dims :]
        draws = [torch.randn(shape, generator=g, device=p.device, dtype=p.dtype) for g in self.generators]
        return torch.stack(draws).reshape(p.shape)


class Several:
    """Optimizers that each train a part of the parameters, as one."""

    def __init__(self, *parts: Any):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        return {p: kept for part in self.parts for p, kept in part.state.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, kept in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(kept)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


class PerRun:
    """A torch optimizer that knows no leading run axis, at work on each run's slice of stacked parameters.

    The slices share storage with the stack; the optimizer is `make(slices)`, once for every run.

    Args:
        params: stacked, (runs, ...).
        make: list of parameters -> optimizer, e.g. lambda ps: torch.optim.Muon(ps, lr=1e-3).
    """

    def __init__(self, params: Sequence[Tensor], make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]):
        self.params = list(params)
        self.slices = [[nn.Parameter(p.detach()[r]) for p in self.params] for r in range(len(self.params[0]))]
        self.each = [make(slices) for slices in self.slices]
        self.state: dict[Tensor, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.each for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"each": [optimizer.state_dict() for optimizer in self.each]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, kept in zip(self.each, state_dict["each"], strict=True):
            optimizer.load_state_dict(kept)

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        for r, (optimizer, slices) in enumerate(zip(self.each, self.slices, strict=True)):
            for mine, p in zip(slices, self.params, strict=True):
                mine.grad = None if p.grad is None else p.grad[r]
            optimizer.step()


def forget(optimizer: Any) -> None:
    """Clear what an optimizer has accumulated (moments and step counts); its settings stay.

    Args:
        optimizer: torch's, or one of this module.

    >>> p = torch.ones(1, requires_grad=True); p.grad = torch.ones(1)
    >>> adam = torch.optim.Adam([p]); adam.step(); forget(adam); len(adam.state)
    0
    """
    for part in getattr(optimizer, "parts", None) or getattr(optimizer, "each", None) or ():
        forget(part)
    optimizer.state.clear()
