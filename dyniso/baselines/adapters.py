"""Several optimizers as one, one for each run of a stack, and how to clear what an optimizer has accumulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import require_that


class Several:
    """Optimizers that each train a part of the parameters, as one.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    >>> both = Several(torch.optim.SGD(net[0].parameters(), lr=0.1), torch.optim.Adam(net[1].parameters()))
    >>> len(both.param_groups)
    2
    """

    def __init__(self, *parts: Any):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

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

    def clear(self, p: Tensor, mask: Tensor) -> None:
        """As the function `clear`."""
        for part in self.parts:
            clear(part, p, mask)

    def forget(self) -> None:
        """As the function `forget`."""
        for part in self.parts:
            forget(part)


class PerRun:
    """A torch optimizer that knows no leading run axis, at work on each run's slice of stacked parameters.

    The optimizer is `make(slices)`, once for every run; its parameters are views of the stack, taken anew at each step.

    Args:
        params: stacked, (runs, ...).
        make: list of parameters -> optimizer, e.g. lambda ps: torch.optim.Muon(ps, lr=1e-3).
    """

    def __init__(self, params: Sequence[Tensor], make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]):
        self.params = list(params)
        self.slices = [[nn.Parameter(p.detach()[r]) for p in self.params] for r in range(len(self.params[0]))]
        self.each = [make(slices) for slices in self.slices]

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
                mine.data = p.detach()[r]  # a pickle, or a new p.data, would have cut the tie to the stack
                mine.grad = None if p.grad is None else p.grad[r]
            optimizer.step()

    def clear(self, p: Tensor, mask: Tensor) -> None:
        """As the function `clear`."""
        for index in [i for i, stacked in enumerate(self.params) if stacked is p]:
            for optimizer, slices, own in zip(self.each, self.slices, mask.expand_as(p), strict=True):
                clear(optimizer, slices[index], own)

    def forget(self) -> None:
        """As the function `forget`."""
        for optimizer in self.each:
            forget(optimizer)


def forget(optimizer: Any) -> None:
    """Clear what an optimizer has accumulated (moments and step counts); its settings stay.

    Args:
        optimizer: torch's, or one of this module.

    >>> p = torch.ones(1, requires_grad=True); p.grad = torch.ones(1)
    >>> adam = torch.optim.Adam([p]); adam.step(); forget(adam); len(adam.state)
    0
    """
    if isinstance(optimizer, Several | PerRun):
        optimizer.forget()
    else:
        optimizer.state.clear()


STARTS: dict[str, Callable[[Tensor, dict[str, Any]], Any]] = {  # of state that does not start at zero
    "step_size": lambda p, group: group["lr"],  # Rprop's own rates
    "sum": lambda p, group: group.get("initial_accumulator_value", 0),  # Adagrad's squared gradients
    "ax": lambda p, group: p.detach(),  # ASGD's average of weights
}


@torch.no_grad()
def clear(optimizer: Any, p: Tensor, mask: Tensor) -> None:
    """Put what an optimizer has accumulated about some entries of a parameter back to its start; step counts stay.

    Args:
        optimizer: torch's, or one of this module; None has accumulated nothing.
        p: the parameter, with its new values.
        mask: which entries, bool, of a shape that broadcasts to p's. What an optimizer keeps for a whole row or column
            (Adafactor) is cleared where all of it is chosen.
    Raises:
        ValueError: an optimizer whose state cannot be cleared in part (LBFGS, or moments that are quantised).

    >>> p = torch.ones(2, requires_grad=True); p.grad = torch.ones(2)
    >>> sgd = torch.optim.SGD([p], lr=0.1, momentum=0.9); sgd.step()
    >>> clear(sgd, p, torch.tensor([True, False])); sgd.state[p]["momentum_buffer"]
    tensor([0., 1.])
    """
    if isinstance(optimizer, Several | PerRun):
        optimizer.clear(p, mask)
        return
    in_parts = not isinstance(optimizer, torch.optim.LBFGS)
    require_that(in_parts, "optimizer", optimizer, "one that keeps moments for each entry; LBFGS keeps one history")
    groups = [group for group in getattr(optimizer, "param_groups", ()) if any(q is p for q in group["params"])]
    for name, value in getattr(optimizer, "state", {}).get(p, {}).items():
        if not isinstance(value, Tensor) or not p.ndim == value.ndim > 0:
            continue
        require_that(value.is_floating_point(), f"state {name!r}", value.dtype, "floating point, to be cleared in part")
        chosen = mask.expand_as(p)
        for axis in [a for a in range(p.ndim) if value.shape[a] == 1]:
            chosen = chosen.all(axis, keepdim=True)
        start = STARTS[name](p, groups[0]) if name in STARTS else 0.0
        if isinstance(start, Tensor) and start.ndim:
            value.copy_(torch.where(chosen, start, value))
        else:
            value.masked_fill_(chosen, start)
