"""Methods that move or project weights after every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..checks import require, require_range
from ..optim import isometry_step
from .attached import Attached, Baseline, require_elementwise, require_positive, times
from .penalties import SpectralPenalty


@dataclass(frozen=True)
class NormProjection(Baseline, name="norm_projection"):
    """The projection of Normalise-and-Project: after every step each hidden weight gets its initial Frobenius norm.

    The normalisation is the net's: norm="layernorm_fixed" before every activation, no biases.
    Source: Lyle et al. 2024 (arXiv 2407.01800), as in the AdamO authors' RL baseline.
    """

    def after_step(self, net: Attached) -> None:
        for layer in net.hidden:
            rescale(layer.weight, net.initial[id(layer.weight)], net.batch_dims)


@dataclass(frozen=True)
class RowNorm(Baseline, name="row_norm"):
    """Weight normalisation with fixed gain, as a projection: after every step each row gets its initial norm.

    `torch.nn.utils.parametrizations.weight_norm` is the same constraint as a parametrisation, with a learned gain.
    Source: Salimans & Kingma 2016 (arXiv 1602.07868).
    """

    def after_step(self, net: Attached) -> None:
        for layer in net.hidden:
            rescale(layer.weight, net.initial[id(layer.weight)], net.batch_dims + 1)


@dataclass(frozen=True)
class SpectralNorm(Baseline, name="spectral_norm"):
    """Spectral normalisation as a projection: after every step each hidden weight is divided by its estimated sigma_1.

    `torch.nn.utils.parametrizations.spectral_norm` is the same constraint as a parametrisation.

    Args:
        iterations: of the power method, each step, with a vector that persists.
    Source: Miyato et al. 2018 (arXiv 1802.05957).
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        require_range("SpectralNorm.iterations", self.iterations, 1)

    def start(self, net: Attached) -> None:
        SpectralPenalty().start(net)

    def after_step(self, net: Attached) -> None:
        for _ in range(self.iterations):
            right = SpectralPenalty().iterate(net)
        for index, layer in enumerate(net.hidden):
            W = layer.weight.flatten(net.batch_dims + 1)
            sigma = (net.state["left"][index] * times(W, right[index])).sum(-1)
            layer.weight.div_(sigma.reshape(sigma.shape + (1,) * (layer.weight.ndim - net.batch_dims)))


@dataclass(frozen=True)
class WeightClipping(Baseline, name="weight_clipping"):
    """After every step, clamps weights and biases to +-kappa/sqrt(fan_in) of their layer.

    Args:
        kappa: 1 to 5 in the source. head: whether the head is clipped.
    Source: Elsayed et al. 2024 (arXiv 2407.01704).
    """

    kappa: float = 2.0
    head: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "kappa")

    def after_step(self, net: Attached) -> None:
        for layer in net.layers if self.head else net.hidden:
            bound = self.kappa / math.sqrt(layer.weight.flatten(net.batch_dims + 1).shape[-1])
            for p in (layer.weight, layer.bias):
                if p is not None:
                    p.clamp_(-bound, bound)


@dataclass(frozen=True)
class Isometry(Baseline, name="isometry"):
    """The decoupled pull of eq. 20 after any optimizer's step, on all rows or only on live or dead ones.

    With rows="all" this is AdamO's pull evaluated at the new weights, as in the authors' code. The other two clamp the
    mechanism: a unit counts as dead if it fired on no input of the last `window` steps.

    Args:
        strength: lambda >= 0 of eq. 20. lr: step size; None follows the optimizer's first group.
        rows: "all", "live" or "dead".
        window: steps.
    Raises:
        ValueError: lr * strength at or above 1/4 (in `start`).
    Source: arXiv 2606.09762, eq. 20; the clamps are ours.
    """

    strength: float = 1e-3
    lr: float | None = None
    rows: str = "all"
    window: int = 50

    def __post_init__(self) -> None:
        require_positive(self, "strength")
        require("Isometry.rows", self.rows, ("all", "live", "dead"))
        require_range("Isometry.window", self.window, 1)

    def start(self, net: Attached) -> None:
        if self.rate(net) >= 0.25:
            raise ValueError(f"Isometry: lr * strength = {self.rate(net):.4g}; it must be below 1/4")
        if self.rows != "all":
            require_elementwise(net)
            shapes = [layer.weight.shape[: net.batch_dims + 1] for layer in net.hidden]
            net.state["silent"] = [net.layers[0].weight.new_zeros(shape) for shape in shapes]

    def rate(self, net: Attached) -> float:
        return self.strength * (net.learning_rate() if self.lr is None else self.lr)

    def after_step(self, net: Attached) -> None:
        weights = [layer.weight for layer in net.hidden]
        for index, step in enumerate(isometry_step(weights, self.rate(net), net.batch_dims)):
            if self.rows != "all":
                silent = net.state["silent"][index]
                silent.add_(1).masked_fill_(net.activations[index].detach().amax(-2) > 0, 0)
                chosen = (silent >= self.window) == (self.rows == "dead")
                step = step * chosen.reshape(chosen.shape + (1,) * (step.ndim - chosen.ndim))
            weights[index].sub_(step)


def rescale(W: Tensor, reference: Tensor, axes: int) -> None:
    """Give W the norm of the reference over all but the first `axes` axes, in place."""
    norm = W.flatten(axes).norm(dim=-1)
    factor = reference.flatten(axes).norm(dim=-1) / norm.clamp_min(1e-30)
    W.mul_(factor.reshape(factor.shape + (1,) * (W.ndim - axes)))
