"""What learns: the nets of a group of runs, their optimizer, and the method on top. Streams and games share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import baselines
from ..checks import require
from ..optim import IsometryDivergenceError
from .optimizers import make_optimizer
from .stack import Run, Stack

Nets = Mapping[str, nn.Sequential]  # of one run, by part: {"net": ...}, or {"actor": ..., "critic": ...}

SCHEDULES: dict[str, Callable[[float], float]] = {  # fraction of a task done -> factor of the learning rate
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
}


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """While it lasts, numbers too small to be normal (below 1e-38 in float32) count as zero, on this thread of a CPU.

    The moments of units that are dead decay into such numbers and stay there, and arithmetic on them is some ten times
    slower. Afterwards all is as it was.
    """
    before = bool((torch.tensor([1e-40]) * 1).eq(0))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class Clip(NamedTuple):
    """How gradients are clipped."""

    limit: float
    by: str = "norm"  # the global norm of each run; or "value": each entry


class Learner:
    """The nets of runs that differ in seed and isometry strength only, and everything that changes them.

    Args:
        runs: methods x seeds.
        nets: of each run, of one architecture.
        device: where they learn.
        draws: the parts on which the method acts, each with the seeds of its draws, one a run. The hidden matrices of
            these parts are those that AdamO pulls; other parts are trained, and nothing more.
        renew: number of a task -> fresh nets of each run, for a method that keeps nothing of the old ones; None: the
            method draws by itself.
        schedule: of the learning rate within a task, a name of `SCHEDULES`; None leaves it constant.
        clip: of the gradients; None leaves them.
        adam: options of torch's Adam, e.g. eps.
    Raises:
        ValueError: an unknown schedule, optimizer or method, or a setting that a method refuses.
    """

    def __init__(
        self,
        runs: list[Run],
        nets: Sequence[Nets],
        device: torch.device,
        draws: Mapping[str, Sequence[int]],
        *,
        renew: Callable[[int], Sequence[Nets]] | None = None,
        schedule: str | None = None,
        clip: Clip | None = None,
        **adam: Any,
    ):
        require("schedule", schedule, (None, *SCHEDULES))
        self.method, self.draws, self.clipped, self.scheduled = runs[0].method, draws, clip, schedule
        self.parts = {part: Stack([own[part] for own in nets], device) for part in nets[0]}
        self.params = {f"{part}.{name}": p for part, stack in self.parts.items() for name, p in stack.params.items()}
        self.optimizer = make_optimizer(runs, self.params, self.regularised, **adam)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.on_gradients: Callable[[], None] | None = None  # before each step, e.g. to freeze something
        self.renew: Callable[[int], Sequence[Nets]] | None = None
        self.attached: dict[str, baselines.Attached] = {}
        if self.method.baseline:
            baseline = baselines.make(self.method.baseline, **dict(self.method.settings))
            self.renew = renew if baseline.renews else None
            if self.renew is None:
                self.attached = {p: self.parts[p].attach(baseline, self.optimizer, s) for p, s in draws.items()}

    def regularised(self) -> list[str]:
        """Names of the weights that AdamO pulls: hidden matrices of the parts that it acts on, without their heads."""
        return [f"{part}.{name}" for part in self.draws for name in self.parts[part].regularised()]

    def forward(self, part: str, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """Outputs (runs, batch, outputs) of one part; what a method on top wants to see is recorded.

        Args:
            x: inputs (runs, batch, features). columns: see `Stack`.
        """
        if part not in self.attached:
            return self.parts[part](x, None, columns)
        seen: list[Tensor] = []
        outputs = self.parts[part](x, seen, columns)
        self.attached[part].inputs, self.attached[part].activations = x, seen
        return outputs

    def schedule(self, done: float) -> None:
        """Set the learning rate for a fraction of the task done."""
        if self.scheduled:
            factor = SCHEDULES[self.scheduled](done)
            for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * factor

    def update(self, loss: Tensor) -> None:
        """One step of every run on its own loss, shape (runs,)."""
        self.optimizer.zero_grad()
        for attached in self.attached.values():
            loss = loss + attached.penalty()
        loss.sum().backward()
        if self.clipped is not None:
            clip(self.params.values(), self.clipped)
        if self.on_gradients is not None:
            self.on_gradients()
        self.step()
        for attached in self.attached.values():
            attached.after_step()

    def step(self) -> None:
        """One optimizer step; runs that diverge in it are given up one after another, the others go on."""
        while True:
            try:
                return self.optimizer.step()
            except IsometryDivergenceError as error:
                self.give_up(error.runs)

    @torch.no_grad()
    def new_task(self, number: int) -> None:
        """What happens at the change to task `number`, from 1 on."""
        if self.method.reset_optimizer or self.renew:
            baselines.forget(self.optimizer)
        for attached in self.attached.values():
            attached.new_task()
        if self.renew:
            fresh = self.renew(number)
            for part, stack in self.parts.items():
                for name, p in stack.params.items():
                    p.copy_(torch.stack([own[part].get_parameter(name) for own in fresh]))

    def finite(self) -> Tensor:
        """Which runs have only finite parameters, shape (runs,), bool."""
        return torch.stack([stack.finite() for stack in self.parts.values()]).all(0)

    def give_up(self, runs: list[int]) -> None:
        """Make the parameters of runs that have diverged NaN, so that they are recorded as such and harm no other."""
        for stack in self.parts.values():
            stack.give_up(runs)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while it learns; with it a new learner of the same runs goes on bit for bit."""
        return {
            "params": {name: p.detach() for name, p in self.params.items()},
            "optimizer": self.optimizer.state_dict(),
            "attached": {part: attached.state_dict() for part, attached in self.attached.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, p in self.params.items():
            p.copy_(state["params"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        for part, attached in self.attached.items():
            attached.load_state_dict(state["attached"][part])


@torch.no_grad()
def clip(params: Iterable[Tensor], how: Clip) -> None:
    """Scale the gradients of each run, over all of its parameters (runs, ...), to a global norm, or clamp each entry.

    By norm as `torch.nn.utils.clip_grad_norm_` does it for one run.
    """
    require("clip.by", how.by, ("norm", "value"))
    grads = [p.grad for p in params if p.grad is not None]
    if how.by == "value":
        for g in grads:
            g.clamp_(-how.limit, how.limit)
        return
    size = torch.stack([g.flatten(1).norm(dim=1) for g in grads], 1).norm(dim=1)
    factor = (how.limit / (size + 1e-6)).clamp_max(1)
    for g in grads:
        g.mul_(factor.reshape(-1, *[1] * (g.ndim - 1)))
