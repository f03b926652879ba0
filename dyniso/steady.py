"""What a pass must be for a value per sample to mean anything: the same every time, one tensor, one row a sample."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from .checks import require_shape, require_that

LOOSE = 1e3  # how many eps of the largest output two passes may differ in: atomic sums on a GPU, other batch sizes


def require_steady(model: nn.Module, x: Tensor) -> None:
    """Two passes give the same: no generator of torch, numpy or Python moves, and the outputs are equal.

    Args:
        model: maps x to outputs, see `call`.
        x: inputs, shape (n, ...).
    Raises:
        ValueError: randomness (names the module that draws), an output that is no tensor or carries no gradient.

    >>> require_steady(nn.Sequential(nn.Linear(2, 3), nn.Dropout()), torch.ones(4, 2))
    Traceback (most recent call last):
    ValueError: module '1' (Dropout) is active and draws random numbers; call model.eval()
    """
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        before = _generators(x.device)
        first = call(model, x)
        if not _same_state(before, _generators(x.device)):
            raise ValueError(f"{_who_draws(model, x)}; call model.eval()")
        if not first.requires_grad and any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                "the model's output carries no gradient (a no_grad or detach in its forward?), so there is no kernel"
            )
        if not _close(first, call(model, x)):
            raise ValueError("two passes give different outputs; call model.eval(), or take the randomness out")


def _generators(device: torch.device) -> list[Any]:
    """States of the global generators of torch, Python and numpy."""
    states: list[Any] = [torch.get_rng_state(), random.getstate(), np.random.get_state()]  # noqa: NPY002
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same_state, a, b))
    return bool((a == b).all()) if isinstance(a, Tensor | np.ndarray) else a == b


def _who_draws(model: nn.Module, x: Tensor) -> str:
    """The innermost module in whose call a generator moves."""
    found: list[str] = []
    states: list[Any] = []

    def before(module: nn.Module, args: Any) -> None:
        states.append(_generators(x.device))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if not _same_state(states.pop(), _generators(x.device)):
            found.append(label(names[id(module)], module))

    names = {id(module): name for name, module in model.named_modules()}
    handles = [m.register_forward_pre_hook(before) for m in model.modules()]
    handles += [m.register_forward_hook(after) for m in model.modules()]
    try:
        call(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return f"{found[0]} is active and draws random numbers" if found else "the model draws random numbers"


def require_same_in_company(model: nn.Module, x: Tensor, part: Tensor) -> None:
    """The outputs of one chunk alone are those in the whole batch.

    Args:
        model, x: as in `require_steady`.
        part: the first samples of x.
    Raises:
        ValueError: they are not.

    >>> require_same_in_company(nn.Linear(2, 3), x := torch.ones(4, 2), x[:1])
    """
    with torch.no_grad():
        if not _close(call(model, x)[: len(part)], call(model, part)):
            raise ValueError(
                "outputs of one sample depend on the others in its chunk (batch statistics?), so the kernel would "
                "depend on the chunk; call model.eval(), or leave out chunk"
            )


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = min(LOOSE * torch.finfo(a.dtype).eps, 1e-2)
    a, b = a.detach(), b.detach()
    finite = a[torch.isfinite(a)].abs()
    return torch.allclose(a, b, rtol=0, atol=tolerance * float(finite.max() if len(finite) else 1), equal_nan=True)


def call(model: nn.Module, x: Tensor, parameters: dict[str, Tensor] | None = None) -> Tensor:
    """Outputs (n, C) of one pass that writes to copies of the buffers.

    Args:
        model: maps (n, ...) to (n, C), (n,), or (n, ...), which is flattened.
        x: shape (n, ...).
        parameters: used in place of the model's own of these names.
    Raises:
        ValueError: an output that is no tensor, not floating point, or not of n samples.

    >>> call(nn.Flatten(0), torch.ones(2, 1)).shape
    torch.Size([2, 1])
    """
    held = {name: b.clone() for name, b in model.named_buffers()} | (parameters or {})
    f = functional_call(model, held, (x.clone(),))
    if not isinstance(f, Tensor):
        raise ValueError(
            f"the model's output is of type {type(f).__name__}; expected a tensor of shape ({len(x)}, C): "
            "wrap the model in a module that returns one"
        )
    require_that(f.is_floating_point(), "dtype of the model's output", f.dtype, "floating point")
    require_shape(f.ndim and len(f) == len(x), "the model's output", f, f"({len(x)}, C) for {len(x)} samples")
    return f.flatten(1) if f.ndim > 1 else f[:, None]


def label(name: str, module: nn.Module) -> str:
    """How an error names a module.

    >>> label("2", nn.ReLU())
    "module '2' (ReLU)"
    """
    return f"module {name!r} ({type(module).__name__})"
