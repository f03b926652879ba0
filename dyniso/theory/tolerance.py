"""How near to an isometry: the tolerance, the defect, prescribed spectra, and what they cost a network.

Tolerance: delta = max |sigma_i - 1|. Defect: D = mean (sigma_i^2 - 1)^2, the penalty over m. Derived in the book's
chapter on the strength of the pull.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import require, require_range
from ..entk import backward_maps, empirical_ntk
from ..kernels import plasticity


def tolerance(sigma: Tensor) -> Tensor:
    """Largest distance of a singular value from 1, over the last axis: (..., m) -> (...,).

    >>> float(tolerance(torch.tensor([0.5, 1.0, 1.25])))
    0.5
    """
    return (sigma - 1).abs().amax(-1)


def defect(sigma: Tensor) -> Tensor:
    """Mean (sigma^2 - 1)^2 over the last axis, (..., m) -> (...,): `gram_deviation` over m.

    >>> float(defect(torch.tensor([0.0, 1.0])))
    0.5
    """
    return (sigma.square() - 1).square().mean(-1)


def inequalities(sigma: Tensor) -> dict[str, Tensor]:
    """Left over right side of the four inequalities between tolerance and defect; none exceeds 1.

        a: D <= delta^2 (2 + delta)^2          b: delta <= sqrt(m D)
        c: mean (sigma - 1)^2 <= D             d: kappa <= (1 + delta) / (1 - delta), for delta < 1

    Args:
        sigma: shape (..., m), at least 0, not all 1.
    Returns:
        "a" to "d", each of shape (...,); "d" is 0 where delta is at least 1.
    """
    delta, D = tolerance(sigma), defect(sigma)
    kappa = sigma.amax(-1) / sigma.amin(-1)
    return {
        "a": D / (delta * (2 + delta)) ** 2,
        "b": delta / (sigma.shape[-1] * D).sqrt(),
        "c": (sigma - 1).square().mean(-1) / D,
        "d": torch.where(delta < 1, kappa * (1 - delta) / (1 + delta), 0.0),
    }


def depth_bound(delta: float, layers: int) -> float:
    """Largest condition number of the first layer's backward block: ((1 + delta)/(1 - delta))^(2 (layers - 1)).

    It needs orthogonal Jacobians of the activation (MaxMin) and no layer that widens.

    Args:
        delta: tolerance of every weight, from 0 to below 1.
        layers: weight layers, the head included.
    Raises:
        ValueError: delta or layers out of range.

    >>> depth_bound(0.5, 2)
    9.0
    """
    require_range("layers", layers, 1)
    if not 0 <= delta < 1:
        raise ValueError(f"delta={delta}; it must be at least 0 and below 1")
    return ((1 + delta) / (1 - delta)) ** (2 * (layers - 1))


def _one_value(m: int, value: float) -> Tensor:
    return torch.ones(m, dtype=torch.float64).index_fill(0, torch.tensor([0]), value)


SPECTRA: dict[str, Callable[[int, float], Tensor]] = {  # m singular values at tolerance delta
    "half 1 − δ, half 1 + δ": lambda m, d: 1 + d * (1 - 2 * (torch.arange(m) % 2)).double(),
    "even from 1 − δ to 1 + δ": lambda m, d: torch.linspace(1 - d, 1 + d, m).double(),
    "even from 1 − δ to 1": lambda m, d: torch.linspace(1 - d, 1, m).double(),
    "even from 1 to 1 + δ": lambda m, d: torch.linspace(1, 1 + d, m).double(),
    "one value 1 − δ": lambda m, d: _one_value(m, 1 - d),
    "one value 1 + δ": lambda m, d: _one_value(m, 1 + d),
}


def with_spectrum(W: Tensor, sigma: Tensor) -> Tensor:
    """W with other singular values and its own singular vectors.

    Args:
        W: shape (out, in).
        sigma: shape (m,), m = min(out, in); in the order of W's own, largest first.
    Raises:
        ValueError: sigma of another shape.

    >>> with_spectrum(torch.diag(torch.tensor([3.0, 2.0])), torch.tensor([1.0, 5.0])).round()
    tensor([[1., 0.],
            [0., 5.]])
    """
    if sigma.shape != (min(W.shape),):
        raise ValueError(f"sigma has shape {tuple(sigma.shape)}; a weight {tuple(W.shape)} has {min(W.shape)} values")
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return (U * sigma.to(U)) @ Vh


@torch.no_grad()
def set_spectra(net: nn.Module, law: str, delta: float, generator: torch.Generator) -> nn.Module:
    """Give every linear layer of a net singular values of one law, in random order, in place.

    Args:
        law: one of SPECTRA.
        delta: tolerance, at least 0.
        generator: of the orders, one draw a layer.
    Raises:
        ValueError: unknown law (the message has the nearest).
    """
    require("law", law, SPECTRA)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            sigma = SPECTRA[law](min(layer.weight.shape), delta)
            layer.weight.copy_(with_spectrum(layer.weight, sigma[torch.randperm(len(sigma), generator=generator)]))
    return net


class Cost(NamedTuple):
    """What a spectrum costs one network."""

    condition_number: float  # largest over inputs, of B_1 B_1'
    plasticity_10: float  # P after 10 steps
    plasticity_100: float


def cost(net: nn.Module, x: Tensor) -> Cost:
    """Condition number of the first layer's backward block, worst of all inputs, and plasticity of the kernel.

    Args:
        net: layers that `dyniso.entk.backward_maps` reads.
        x: shape (samples, features).
    """
    B = next(iter(backward_maps(net, x).values()))
    P = plasticity(empirical_ntk(net, x), torch.tensor([10, 100]))
    return Cost(float(torch.linalg.cond(B @ B.mT).max()), float(P[0]), float(P[1]))
