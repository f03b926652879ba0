"""Activations that can preserve norms, and the usual ones as controls.

Every activation of the isometric family (MaxMin, GroupSort, Householder, Abs, CReLU) selects entries with
`torch.where` or a sort, never with `maximum` or `abs`: autograd splits the gradient of those at a tie, and an all-zero
patch of an image without bias is nothing but ties. Selection keeps the Jacobian isometric at *every* point.
Sorted groups hold the largest entry first, so MaxMin, GroupSort(2) and Householder at angle pi/2 are the same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .checks import require, require_range


def _axis(z: Tensor, dim: int | None) -> int:
    """The axis of units, counted from the end; None is the last one where there can be no doubt."""
    if dim is None and z.ndim > 2:
        raise ValueError(
            f"units of an input of shape {tuple(z.shape)} can lie along several axes; say dim=-3 for channels of maps, "
            "dim=-2 for channels of signals, dim=-1 for features of tokens"
        )
    dim = -1 if dim is None else dim
    return dim if dim < 0 else dim - z.ndim


def _groups(z: Tensor, group: int, dim: int | None) -> tuple[Tensor, int]:
    """z with the axis of units split into (width / group, group), and the (negative) axis of the group."""
    axis = _axis(z, dim)
    width = z.shape[axis]
    if width % group:
        raise ValueError(f"width {width} along dim {axis} is not divisible by group {group}; shape {tuple(z.shape)}")
    return z.unflatten(axis, (width // group, group)), axis


class GroupSort(nn.Module):
    """Sorts neighbouring entries in groups of `group`, largest first: a permutation of its input, so |phi(z)| = |z|.

    Args:
        group: entries per group, at least 2. 2 is MaxMin; larger groups correlate samples faster with depth
            (uncorrelated inputs reach correlation .32 after one layer for 2, .57 for 4, .75 for 8).
        dim: the axis that is grouped: -1 for features, -3 for the channels of (..., channels, height, width). None is
            the last one of (width,) and (samples, width), and an error that asks for more axes.
    Raises:
        ValueError: group < 2; in the forward pass, a width that group does not divide (names both), or no dim where
            the input has three axes or more.
    Source: Anil, Lucas & Grosse 2019 (arXiv 1811.05381).
    >>> GroupSort(4)(torch.tensor([3.0, 1.0, 4.0, 2.0]))
    tensor([4., 3., 2., 1.])
    """

    def __init__(self, group: int, dim: int | None = None) -> None:
        super().__init__()
        require_range("group", group, 2)
        self.group, self.dim = group, dim

    def forward(self, z: Tensor) -> Tensor:
        """Maps (..., width) to the same shape."""
        groups, axis = _groups(z, self.group, self.dim)
        return groups.sort(dim=axis, descending=True).values.flatten(axis - 1, axis)

    def extra_repr(self) -> str:
        return f"group={self.group}, dim={self.dim}"


class MaxMin(GroupSort):
    """Pairs (a, b) -> (max, min): GroupSort-2, also called OPLU. The default isometric activation.

    The order (max, min) or (min, max) is a convention; it is the same net up to a permutation of the next weights.

    Args:
        dim: the axis whose neighbours are paired: -1 for features, -3 for channels; None as in `GroupSort`.
    Raises:
        ValueError: in the forward pass, an odd width (names width and group), or as in `GroupSort`.
    Source: Chernodub & Nowicki 2016 (arXiv 1604.02313).
    >>> MaxMin()(torch.tensor([1.0, 2.0, 4.0, 3.0]))
    tensor([2., 1., 4., 3.])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(2, dim)

    def forward(self, z: Tensor) -> Tensor:
        """Maps (..., width) to the same shape."""
        groups, axis = _groups(z, 2, self.dim)
        a, b = groups.unbind(axis)
        first = a >= b
        return torch.stack((torch.where(first, a, b), torch.where(first, b, a)), axis).flatten(axis - 1, axis)


class Householder(nn.Module):
    """Pairs (a, b): kept on one side of the line at half the angle, reflected in it on the other side.

        (a, b)                                          where a sin(t/2) > b cos(t/2)
        (a cos t + b sin t,  a sin t - b cos t)         elsewhere

    Args:
        dim: the axis whose neighbours are paired: -1 for features, -3 for channels; None as in `GroupSort`.
        angle: t in radians; pi/2 is MaxMin.
        learned: True makes t a parameter, shared by all pairs of the layer; its Jacobian stays isometric for any t.
    Raises:
        ValueError: in the forward pass, an odd width (names width and group), or as in `GroupSort`.
    Source: Singla, Singla & Feizi 2021 (arXiv 2108.04062).
    >>> Householder()(torch.tensor([1.0, 2.0])).round()
    tensor([2., 1.])
    """

    def __init__(self, dim: int | None = None, angle: float = math.pi / 2, learned: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.angle: float | nn.Parameter = nn.Parameter(torch.tensor(float(angle))) if learned else float(angle)

    def forward(self, z: Tensor) -> Tensor:
        """Maps (..., width) to the same shape."""
        groups, axis = _groups(z, 2, self.dim)
        a, b = groups.unbind(axis)
        t = self.angle if isinstance(self.angle, Tensor) else z.new_tensor(self.angle)
        keep = a * torch.sin(t / 2) > b * torch.cos(t / 2)
        sine, cosine = torch.sin(t), torch.cos(t)
        kept = torch.where(keep, a, a * cosine + b * sine), torch.where(keep, b, a * sine - b * cosine)
        return torch.stack(kept, axis).flatten(axis - 1, axis)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, angle={float(torch.as_tensor(self.angle).detach()):.3f}"


class Abs(nn.Module):
    """z -> |z|: Jacobian diag(+-1). Even, and of the family here the one that correlates samples fastest.

    Source: the scalar isometric activation, e.g. Anil et al. 2019 (arXiv 1811.05381).
    >>> Abs()(torch.tensor([-2.0, 3.0]))
    tensor([2., 3.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Maps any shape to the same shape."""
        return torch.where(z < 0, -z, z)


class CReLU(nn.Module):
    """z -> (max(z, 0), max(-z, 0)) along `dim`: doubles the width, J'J = I.

    Args:
        dim: the axis that is doubled: -1 for features, -3 for channels; None as in `GroupSort`.
    Raises:
        ValueError: in the forward pass, as in `GroupSort`.
    Source: Shang et al. 2016 (arXiv 1603.05201).
    >>> CReLU()(torch.tensor([-2.0, 3.0]))
    tensor([0., 3., 2., 0.])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """Maps (..., width) to (..., 2 width)."""
        zero = torch.zeros_like(z)
        return torch.cat((torch.where(z < 0, zero, z), torch.where(z < 0, -z, zero)), _axis(z, self.dim))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def _of_torch() -> tuple[type[nn.Module], ...]:
    """Every activation class of torch that gives each unit a value of its own; softmaxes give shares of a whole."""
    kinds = [kind for kind in vars(nn.modules.activation).values() if isinstance(kind, type)]
    shares = (nn.MultiheadAttention, nn.Softmax, nn.Softmin, nn.Softmax2d, nn.LogSoftmax)
    here = nn.modules.activation.__name__
    return tuple(k for k in kinds if issubclass(k, nn.Module) and k.__module__ == here and k not in shares)


MIXING_TYPES = (GroupSort, Householder, CReLU, nn.GLU)  # an output reads several units; MaxMin is a GroupSort
ACTIVATION_TYPES = (*_of_torch(), Abs, GroupSort, Householder, CReLU)

ACTIVATIONS: dict[str, Callable[[int | None, int], nn.Module]] = {  # name -> module for (axis, k of the name)
    "relu": lambda dim, k: nn.ReLU(),
    "maxmin": lambda dim, k: MaxMin(dim),
    "groupsort-k": lambda dim, k: GroupSort(k, dim),
    "householder": lambda dim, k: Householder(dim, learned=True),
    "abs": lambda dim, k: Abs(),
    "crelu": lambda dim, k: CReLU(dim),
    "tanh": lambda dim, k: nn.Tanh(),
    "leaky_relu": lambda dim, k: nn.LeakyReLU(),
    "identity": lambda dim, k: nn.Identity(),
}


def activation(name: str, dim: int | None = None) -> nn.Module:
    """A new activation module by name.

    Args:
        name: one of ACTIVATIONS; "groupsort-k" stands for any "groupsort-4", "groupsort-8", ... "householder" has a
            learned angle that starts at MaxMin.
        dim: the axis that paired, grouped and doubled activations act on, as in `GroupSort`; the others ignore it.
    Returns:
        A module; only Householder has a parameter.
    Raises:
        ValueError: unknown name (the message suggests the nearest one).
    Source: see each class; relu, tanh and leaky_relu are the non-isometric controls.
    >>> activation("groupsort-4", dim=-3)
    GroupSort(group=4, dim=-3)
    """
    if name == "groupsort-k":
        raise ValueError("activation='groupsort-k'; put a number for k, e.g. 'groupsort-4'")
    stem, _, size = str(name).rpartition("-")
    numbered = stem == "groupsort" and size.isdecimal()
    if not numbered:
        require("activation", name, ACTIVATIONS)
    return ACTIVATIONS["groupsort-k" if numbered else name](dim, int(size) if numbered else 0)
