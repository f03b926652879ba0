"""Which unit each entry of a tensor belongs to, followed through reshapes, permutations, pooling and slices.

A code is an integer tensor of the shape of the data: entry -> index of its unit. It starts as an expanded range, which
takes no memory, and goes through the same data movement as the data; nothing is assumed about the order of axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def words(text: str) -> frozenset[str]:
    """Names of operations, without underscores.

    >>> sorted(words("view mT"))
    ['mT', 'view']
    """
    return frozenset(text.split())


MOVES = words(
    """view reshape flatten unflatten permute transpose t movedim moveaxis swapaxes swapdims squeeze unsqueeze expand
    narrow select getitem chunk split tensorsplit splitwithsizes unbind contiguous clone pixelunshuffle roll flip
    indexselect T mT ravel data detach viewas expandas reshapeas identity repeatinterleave repeat tile gather unfold"""
)
POOLS = ("pool", "interpolate", "upsample", "pad")  # parts of names: the axes stay where they are
REDUCTIONS = words("mean sum amax amin max min std var norm logsumexp median")


def fresh(x: Tensor, axis: int | None = None) -> Tensor:
    """Code of a tensor whose units lie along `axis`; None means channels (axis 1) of maps and the last axis otherwise.

    >>> fresh(torch.zeros(2, 3))
    tensor([[0, 1, 2],
            [0, 1, 2]], dtype=torch.int32)
    """
    if not x.ndim:
        return torch.zeros((), dtype=torch.int32, device=x.device)
    axis = (1 if x.ndim > 3 else -1) if axis is None else axis
    return spread(torch.arange(x.shape[axis], dtype=torch.int32, device=x.device), axis % x.ndim, x.shape)


def spread(units: Tensor, axis: int, shape: torch.Size) -> Tensor:
    """A vector of units along one axis of a shape, the same everywhere else; a view.

    >>> spread(torch.tensor([4, 5]), 0, torch.Size([2, 3])).tolist()
    [[4, 4, 4], [5, 5, 5]]
    """
    return units.reshape((-1,) + (1,) * (len(shape) - axis - 1)).expand(shape)


def along(code: Tensor, axis: int) -> Tensor:
    """The units along one axis, at the first index of every other one.

    >>> along(torch.tensor([[4, 5], [4, 5]]), 1)
    tensor([4, 5])
    """
    for other in reversed([a for a in range(code.ndim) if a != axis % code.ndim]):
        code = code.select(other, 0)
    return code


def axis_of(code: Tensor | None) -> int | None:
    """The one axis along which units differ, counted from the front; None if there is no such axis.

    >>> axis_of(fresh(torch.zeros(2, 3, 4, 5))), axis_of(fresh(torch.zeros(2, 3)).flatten())
    (1, 0)
    """
    if code is None or not code.numel() or not code.ndim:
        return None
    moving = [a for a in range(code.ndim) if code.stride(a) and code.shape[a] > 1]
    if len(moving) <= 1:  # an expanded view tells by its strides
        return moving[0] if moving else next((a for a in range(code.ndim) if code.stride(a)), None)
    for axis in moving:
        if bool((code == spread(along(code, axis), axis, code.shape)).all()):
            return axis
    return None


def is_in_blocks(code: Tensor | None, axis: int, units: int) -> bool:
    """Whether a reader of `axis` finds unit 0 first, then unit 1, ..., each in a block of one size.

    >>> maps = fresh(torch.zeros(2, 3, 4, 4))
    >>> is_in_blocks(maps.flatten(1), 1, 3), is_in_blocks(maps.permute(0, 2, 3, 1).flatten(1), 1, 3)
    (True, False)
    """
    if code is None or not code.ndim or code.shape[axis] % units:
        return False
    if units > 1 and axis_of(code) != axis % code.ndim:
        return False
    found = along(code, axis)
    return torch.equal(found, torch.arange(units, device=found.device).repeat_interleave(len(found) // units).to(found))


def moved(name: str, func: Callable[..., Any], args: Any, kwargs: Any, x: Tensor, code: Tensor, out: Tensor) -> Any:
    """The code of what an operation makes of x: a code, several for several results, or None where units get mixed.

    Args:
        name: of the operation, without underscores.
        func, args, kwargs: its call.
        x, code: the one tensor that it reads, and its code.
        out: its (first) result.
    """
    if name in MOVES:
        given, named = tree_map(lambda a: code if a is x else a, (args, kwargs))
        try:
            return func(*given, **named)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None
    axis = axis_of(code)
    if axis is None:
        return None
    if any(part in name for part in POOLS):
        stays = out.ndim == x.ndim and out.shape[axis] == x.shape[axis]
        return spread(along(code, axis), axis, out.shape) if stays else None
    if name in REDUCTIONS:
        return _reduced(x, code, axis, out, kwargs.get("dim", next((a for a in args[1:] if a is not None), None)))
    return code if out.shape == x.shape else None


def _reduced(x: Tensor, code: Tensor, axis: int, out: Tensor, dim: Any) -> Tensor | None:
    if isinstance(dim, Tensor):  # torch.max(x, y): no axis at all
        return code if out.shape == x.shape else None
    dims = [d % x.ndim for d in (dim if isinstance(dim, tuple | list) else [dim])] if dim is not None else [axis]
    if axis in dims:
        return None
    kept = axis if out.ndim == x.ndim else axis - sum(d < axis for d in dims)
    return spread(along(code, axis), kept, out.shape)
