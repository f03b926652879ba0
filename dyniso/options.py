"""The options of a parameter group of AdamO: their names, what they may be, and what they come to in a step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from .checks import require, require_keys, require_range, require_shape
from .pull import SIDES, require_blocks

PRINTED_STRENGTH = 1e-3  # lambda in the paper; on the book's streams it leaves spectra nearly where plain Adam does
DEFAULT_STRENGTH = 0.1  # what most of the book's runs take
OPTIONS = (
    "isometry_strength",
    "isometry_lr",
    "isometry_every",
    "isometry_blocks",
    "isometry_side",
    "coupled",
    "batch_dims",
)
ADAM_OPTIONS = tuple(name for name in inspect.signature(Adam).parameters if name not in ("params", "differentiable"))


def is_pulled(p: Tensor, batch_dims: int) -> bool:
    """Whether a parameter of a pulled group is a matrix or kernel of real numbers.

    >>> is_pulled(torch.ones(3), 0), is_pulled(torch.eye(3), 0)
    (False, True)
    """
    return p.ndim >= batch_dims + 2 and p.is_floating_point() and p.numel() > 0


def steps_at_all(group: dict[str, Any]) -> bool:
    """Whether a step of a group pulls: not at strength 0, nor at rate 0, by which others fill an optimizer's state."""
    numbers = (group["isometry_strength"], group["lr"])
    return not any(not isinstance(number, Tensor) and number == 0 for number in numbers)


def rate(group: dict[str, Any]) -> float | Tensor:
    """The step size of the isometry term; 0 where the learning rate is."""
    lr, own = (x.reshape(()) if isinstance(x, Tensor) else x for x in (group["lr"], group["isometry_lr"]))
    return lr if own is None else own * (lr != 0) if isinstance(lr, Tensor) else own


def check_options(group: dict[str, Any]) -> None:
    """Refuse a parameter group whose isometry options are out of range.

    Args:
        group: with all of OPTIONS, "params" and "lr".
    Raises:
        ValueError: names the option, its value and what is allowed.
    """
    strength, own_lr, batch_dims = group["isometry_strength"], group["isometry_lr"], group["batch_dims"]
    require_keys("a parameter group", (key for key in group if key.startswith("iso")), OPTIONS)
    require_number("isometry_strength", strength)
    require_range("isometry_every", group["isometry_every"], 1)
    require_range("batch_dims", batch_dims, 0)
    require("isometry_side", group["isometry_side"], SIDES)
    for p in group["params"]:
        if is_pulled(p, batch_dims):
            require_blocks(p, batch_dims, group["isometry_blocks"])
    if isinstance(strength, Tensor) and strength.ndim:
        wrong = [p for p in group["params"] if p.ndim >= batch_dims + 2 and p.shape[:batch_dims] != strength.shape]
        if wrong or strength.ndim != batch_dims:
            found = f" and weights of shape {tuple(wrong[0].shape)}" if wrong else ""
            raise ValueError(
                f"isometry_strength of shape {tuple(strength.shape)} does not fit batch_dims={batch_dims}{found}"
            )
    if own_lr is not None:
        if group["coupled"]:
            raise ValueError(f"isometry_lr={own_lr} has no meaning with coupled=True: the penalty goes through Adam")
        require_shape(not isinstance(own_lr, Tensor) or own_lr.numel() == 1, "isometry_lr", own_lr, "one number")
        require_number("isometry_lr", own_lr)
    if not group["coupled"]:
        lr = float(group["lr"] if own_lr is None else own_lr)
        c = float(torch.as_tensor(strength).max()) * group["isometry_every"] * lr
        if c >= 0.25:
            raise ValueError(
                f"isometry_lr * isometry_strength * isometry_every = {c:.4g}; it must be below 1/4, "
                "or the step overshoots and no singular value settles at 1"
            )


def require_number(name: str, value: Any) -> None:
    """Raise ValueError unless a number, or every entry of a tensor, is finite and at least 0.

    >>> require_number("isometry_strength", torch.tensor([0.1, -1.0]))
    Traceback (most recent call last):
    ValueError: isometry_strength=-1.0; it must be a number from 0 to inf
    """
    for number in value.flatten().tolist() if isinstance(value, Tensor) else [value]:
        require_range(name, number, 0, kind=float)
