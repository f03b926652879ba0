"""The layers of a net as methods see them: their weights, and the units between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..activations import MIXING_TYPES


class Layer(NamedTuple):
    """One linear map or convolution: weight (*runs, out, in / groups, ...) and bias (*runs, out) or None."""

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int = 1  # of a convolution: each reads its own share of the channels


class Units(NamedTuple):
    """The units between a layer and all that read them: unit i is row i of the layer, a block of columns of readers."""

    layer: Layer
    readers: tuple[Layer, ...]
    scales: tuple[Tensor, ...] = ()  # of norms in between, (*runs, units, ...); a new unit has 1
    shifts: tuple[Tensor, ...] = ()  # likewise; a new unit has 0


def is_frozen(p: Tensor) -> bool:
    """Whether a parameter is one that training leaves alone.

    >>> is_frozen(nn.Parameter(torch.ones(1), requires_grad=False)), is_frozen(torch.ones(1))
    (True, False)
    """
    return isinstance(p, nn.Parameter) and not p.requires_grad


def is_elementwise(model: nn.Module) -> bool:
    """Whether every activation of the model acts on each unit alone.

    >>> is_elementwise(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), is_elementwise(nn.GLU())
    (True, False)
    """
    return not any(isinstance(m, MIXING_TYPES) for m in model.modules())


def outgoing(reader: Layer, units: int, batch_dims: int = 0) -> Tensor:
    """A reader's weight as (*runs, out / groups, units, rest): rest > 1 for kernels and after flattening.

    >>> outgoing(Layer("fc", torch.zeros(2, 12), None), units=3).shape
    torch.Size([2, 3, 4])
    """
    W = reader.weight.flatten(batch_dims + 1)
    grouped = W.unflatten(batch_dims, (reader.groups, -1)).unflatten(-1, (units // reader.groups, -1))
    return grouped.transpose(batch_dims, batch_dims + 1).flatten(batch_dims + 1, batch_dims + 2)


def on_columns(reader: Layer, values: Tensor, batch_dims: int = 0) -> Tensor:
    """A value of each unit, (*runs, units), at every entry of a reader's weight that takes the unit in.

    >>> on_columns(Layer("fc", torch.zeros(1, 4), None), torch.tensor([1, 2]))
    tensor([[1, 1, 2, 2]])
    """
    W, each = reader.weight.flatten(batch_dims + 1), values.unflatten(-1, (reader.groups, 1, -1, 1))
    rows, rest = W.shape[-2] // reader.groups, W.shape[-1] * reader.groups // values.shape[-1]
    return each.expand(*each.shape[:-3], rows, -1, rest).reshape(reader.weight.shape)


def on_rows(p: Tensor, values: Tensor) -> Tensor:
    """A value of each unit, (*runs, units), with axes of size one behind, to go with a parameter whose rows they are.

    >>> on_rows(torch.zeros(2, 3), torch.ones(2)).shape
    torch.Size([2, 1])
    """
    return values.reshape(values.shape + (1,) * (p.ndim - values.ndim))


def copied(state: Any, device: torch.device) -> Any:
    """Nested dicts, lists and tuples with their tensors copied to a device.

    >>> copied({"a": [torch.ones(1), 2]}, torch.device("cpu"))
    {'a': [tensor([1.]), 2]}
    """
    if isinstance(state, Tensor):
        return state.detach().to(device, copy=True)
    if isinstance(state, dict):
        return {key: copied(value, device) for key, value in state.items()}
    return type(state)(copied(value, device) for value in state) if isinstance(state, list | tuple) else state


def times(W: Tensor, v: Tensor) -> Tensor:
    """W v, (..., out) of (..., out, in) and (..., in), rounded for each run as if it were alone.

    A batch of one matrix times a vector goes another way through torch's products than a batch of two.

    >>> times(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2))
    tensor([3., 7.])
    """
    return (W * v[..., None, :]).sum(-1)
