"""Surgery on gates with all weights kept: biases with which each unit fires on a chosen share of given inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..activations import MaxMin
from ..checks import require_range, require_shape
from ..isometry import require_finite

Activation = Callable[[Tensor], Tensor]


@torch.no_grad()
def gate_bias(z: Tensor, share: Tensor | float, margin: float = 1.0, tolerance: float = 0.0) -> Tensor:
    """The bias with which each unit is positive on a share of samples: minus the threshold between two of its values.

    Args:
        z: pre-activations without bias, shape (..., samples, units).
        share: of samples, for each unit (..., units), or one number, 0 to 1. A share of 0 (or 1) puts the threshold
            `margin` standard deviations of the unit beyond its largest (smallest) value, 1 beyond where it has none.
        margin: at least 0, and above 0 for a share of 1; with a small one a few steps of training wake such a unit.
        tolerance: by which a share may be missed where values of a unit coincide; 1 takes what can be had, NaN for a
            unit whose values are not finite.
    Returns:
        Shape (..., units), dtype of z.
    Raises:
        ValueError: a share outside 0 .. 1, or between 0 and 1/samples, which so few samples cannot show; values that
            are not finite; or a unit whose values coincide, so that it misses that share by more than the tolerance
            (says by how much).

    >>> gate_bias(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), 0.5)
    tensor([-2.5000])
    """
    require_shape(z.ndim >= 2, "z", z, "(..., samples, units)")
    require_range("margin", margin, 0, kind=float)
    if tolerance < 1:
        require_finite(z)
    samples = z.shape[-2]
    wanted = torch.as_tensor(share, dtype=torch.float64, device=z.device).expand(*z.shape[:-2], z.shape[-1])
    odd = ~((wanted >= 0) & (wanted <= 1))
    few = ((wanted > 0) & (wanted < 1 / samples)) | ((wanted < 1) & (wanted > 1 - 1 / samples))
    if (odd | few).any():
        value = float(wanted[odd | few].flatten()[0])
        allowed = f"0, 1, or from 1/{samples} to 1 - 1/{samples}: there are {samples} samples"
        raise ValueError(f"share={value:.4g}; it must be {allowed}")
    count = (wanted * samples).round().long()
    values = z.double().sort(-2, descending=True).values
    spread = z.double().std(-2, unbiased=False)
    beyond = margin * torch.where(spread > 0, spread, 1.0)
    ends = torch.cat(
        [values[..., :1, :] + 2 * beyond[..., None, :], values, values[..., -1:, :] - 2 * beyond[..., None, :]], -2
    )
    pair = torch.stack([ends.gather(-2, (count + k)[..., None, :])[..., 0, :] for k in (0, 1)])
    bias = -pair.mean(0).to(z.dtype)
    got = (z + bias[..., None, :] > 0).sum(-2)
    wrong = (got - count).abs() > tolerance * samples
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {wrong.numel()} units cannot fire on the share asked for, because values coincide; "
            f"the first on {int(got[wrong][0])} of {samples} samples in place of {int(count[wrong][0])}"
        )
    return bias


@torch.no_grad()
def gate_biases(
    weights: Sequence[Tensor],
    activation: Activation,
    x: Tensor,
    share: Tensor | float | Sequence[Tensor],
    margin: float = 1.0,
    tolerance: float = 0.0,
) -> list[Tensor]:
    """Biases of all hidden layers, set one after another, so that units fire on a share of the inputs: `gate_bias`.

    With `MaxMin` there is nothing that fires or not: in each pair (a, b) unit a wins on the share. The two biases are
    half the threshold and minus that.

    Args:
        weights: of the hidden layers, each (..., out, in). activation: ReLU or the like, elementwise, or `MaxMin`.
        x: inputs, (..., samples, in).
        share, margin, tolerance: see `gate_bias`; a sequence holds the shares of the units of each layer (of the pairs,
            with MaxMin).
    Returns:
        One (..., out) for each layer. The weights do not change.
    Raises:
        ValueError: as `gate_bias`.
    """
    found = []
    for layer, W in enumerate(weights):
        z = x @ W.mT
        wanted = share[layer] if isinstance(share, Sequence) else share
        if isinstance(activation, MaxMin):
            first, second = z.unflatten(-1, (-1, 2)).unbind(-1)
            half = gate_bias(first - second, wanted, margin, tolerance) / 2
            bias = torch.stack([half, -half], -1).flatten(-2)
        else:
            bias = gate_bias(z, wanted, margin, tolerance)
        found.append(bias)
        x = activation(z + bias[..., None, :])
    return found


@torch.no_grad()
def firing_shares(
    weights: Sequence[Tensor], biases: Sequence[Tensor], activation: Activation, x: Tensor
) -> list[Tensor]:
    """On which share of the inputs each unit fires (with `MaxMin`: the first of a pair wins), one (..., units) a layer.

    Args:
        weights, biases: of the hidden layers, (..., out, in) and (..., out). x: inputs, (..., samples, in).
    """
    found = []
    for W, b in zip(weights, biases, strict=True):
        z = x @ W.mT + b[..., None, :]
        if isinstance(activation, MaxMin):
            first, second = z.unflatten(-1, (-1, 2)).unbind(-1)
            found.append((first > second).double().mean(-2))
        else:
            found.append((z > 0).double().mean(-2))
        x = activation(z)
    return found
