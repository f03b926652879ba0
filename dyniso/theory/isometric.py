"""Nets that are isometric to rounding, and what is measured of them: Jacobians, gates, features that grow alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..activations import GroupSort, activation
from ..isometry import as_matrix, singular_values
from ..polar import polar_factor


def isometric_net(
    name: str, widths: Sequence[int], generator: torch.Generator, head: Tensor | None = None
) -> nn.Sequential:
    """Linear layers with weights orthogonal to rounding and biases zero, float64; an activation after all but the last.

    Args:
        name: of the activation, as in `dyniso.activations.activation`.
        widths: of the input and of every layer, e.g. [32, 24, 16, 8].
        generator: of the weights.
        head: the last weight, shape (widths[-1], widths[-2]), in place of an orthogonal one.
    Raises:
        ValueError: fewer than two widths, or an unknown activation.

    >>> net = isometric_net("maxmin", [4, 4, 2], torch.Generator().manual_seed(0))
    >>> [type(layer).__name__ for layer in net]
    ['Linear', 'MaxMin', 'Linear']
    """
    if len(widths) < 2:
        raise ValueError(f"widths={list(widths)}; expected those of the input and of at least one layer")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)
        drawn = torch.randn(outputs, inputs, generator=generator).double()
        layer.weight.data, layer.bias.data = polar_factor(drawn), torch.zeros(outputs, dtype=torch.float64)
        layers += [layer, activation(name, dim=-1).double()]
    if head is not None:
        layer.weight.data = head
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def orthogonal_to_rounding(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """Makes a net float64 in place: every weight's or kernel's matrix becomes its polar factor, biases standard normal.

    Args:
        net: of linear layers and convolutions whose weights have full rank, e.g. orthogonal to float32's rounding.
        generator: of the biases.
    Returns:
        The same net.

    >>> net = orthogonal_to_rounding(nn.Linear(3, 2), torch.Generator().manual_seed(0))
    >>> bool((torch.linalg.svdvals(net.weight) - 1).abs().max() < 1e-14)
    True
    """
    for p in net.double().parameters():
        if p.ndim == 1:
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        else:
            p.copy_(polar_factor(as_matrix(p)).reshape(p.shape))
    return net


def jacobians(net: nn.Module, x: Tensor) -> Tensor:
    """One Jacobian for each row of x: (samples, in) -> (samples, out, in).

    >>> jacobians(nn.ReLU(), torch.tensor([[1.0, -1.0]]))
    tensor([[[1., 0.],
             [0., 0.]]])
    """
    return torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(x).detach()


def input_gradients(net: nn.Module, x: Tensor) -> Tensor:
    """Gradient of a net with one output at each row of x, shape (samples, in).

    >>> input_gradients(nn.ReLU(), torch.tensor([[2.0], [-2.0]]))
    tensor([[1.],
            [0.]])
    """
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(net(x).sum(), x)[0]


@torch.no_grad()
def lower_thresholds(net: nn.Sequential, b: float) -> nn.Sequential:
    """Move the threshold of all gates from 0 down to -b, in place: b is added before each activation, taken off behind.

    Args:
        net: linear layers and activations in turn, as `isometric_net` builds them; biases are overwritten.
    """
    for position, layer in enumerate(list(net)[:-1:2]):
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        bias.copy_(b * (torch.ones_like(bias) - (weight.sum(1) if position else 0)))
    return net


def all_gates_open(net: nn.Sequential, x: Tensor) -> Tensor:
    """Whether every pre-activation is above zero at a row of x, for nets as `isometric_net` builds them: (samples,)."""
    gates = [net[:depth](x) for depth in range(1, len(net) - 1, 2)]
    return (torch.cat(gates, 1) > 0).all(1)


def not_affine(x: Tensor, f: Tensor) -> float:
    """Share of the variance of f that the best affine function of x leaves unexplained, from 0 to 1.

    Args:
        x: shape (samples, in), more samples than in. f: shape (samples, 1).

    >>> x = torch.linspace(-1, 1, 9)[:, None]
    >>> round(not_affine(x, 3 * x + 1), 6), round(not_affine(x, x.abs()), 6)
    (0.0, 1.0)
    """
    A = torch.cat([x, torch.ones_like(f)], 1)
    return float((f - A @ torch.linalg.lstsq(A, f).solution).var() / f.var())


class Likeness(NamedTuple):
    """How alike the features of different inputs are behind some layers."""

    layers: int
    cosine: float  # mean over pairs and draws
    condition: float  # condition number of the Gram matrix of the features, median over draws


def likeness_over_depth(
    group: int, generator: torch.Generator, width: int = 128, samples: int = 64, depth: int = 8, draws: int = 4
) -> list[Likeness]:
    """Uncorrelated inputs of unit norm through orthonormal layers and GroupSort: how alike their features grow.

    Args:
        group: entries that are sorted together; divides the width.
        generator: of inputs and weights.
        width, samples, depth, draws: units, inputs, layers, and how often all is drawn.
    Returns:
        One row for 0, 1, ..., depth layers.
    Raises:
        ValueError: as `dyniso.activations.GroupSort`.
    """
    draw = lambda *shape: torch.randn(*shape, generator=generator).double()  # noqa: E731
    h, found = nn.functional.normalize(draw(draws, samples, width), dim=-1), []
    for layers in range(depth + 1):
        K = h @ h.mT
        cosine = float((K.sum((-2, -1)) - samples).mean()) / (samples * (samples - 1))
        sigma = singular_values(K)
        found.append(Likeness(layers, cosine, float((sigma[:, 0] / sigma[:, -1]).median())))
        h = GroupSort(group, dim=-1)(h @ polar_factor(draw(draws, width, width)).mT)
    return found
