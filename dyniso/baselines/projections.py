"""Methods that move or project weights after every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import require, require_range
from ..optim import isometry_step
from .attached import Attached
from .base import Baseline, require_elementwise, require_positive
from .layers import on_rows
from .penalties import SpectralPenalty


@dataclass(frozen=True)
class NormProjection(Baseline, name="norm_projection"):
    """The projection of Normalise-and-Project: after every step each hidden weight gets its initial Frobenius norm.

    The normalisation is the net's: norm="layernorm_fixed" before every activation, no biases.
    Source: Lyle et al. 2024 (arXiv 2407.01800), as in the AdamO authors' RL baseline.
    """

    def after_step(self, net: Attached) -> None:
        for layer in net.hidden:
            net.rewrite(layer.weight, rescaled(layer.weight, net.initial[id(layer.weight)], net.batch_dims))


@dataclass(frozen=True)
class RowNorm(Baseline, name="row_norm"):
    """Weight normalisation with fixed gain, as a projection: after every step each row gets its initial norm.

    `torch.nn.utils.parametrizations.weight_norm` is the same constraint as a parametrisation, with a learned gain.
    Source: Salimans & Kingma 2016 (arXiv 1602.07868).
    """

    def after_step(self, net: Attached) -> None:
        for layer in net.hidden:
            net.rewrite(layer.weight, rescaled(layer.weight, net.initial[id(layer.weight)], net.batch_dims + 1))


@dataclass(frozen=True)
class SpectralNorm(Baseline, name="spectral_norm"):
    """Spectral normalisation as a projection: after every step each hidden weight is divided by its estimated sigma_1.

    `torch.nn.utils.parametrizations.spectral_norm` is the same constraint as a parametrisation.

    Args:
        iterations: of the power method, each step, with a vector that persists.
    Source: Miyato et al. 2018 (arXiv 1802.05957).
    """

    iterations: int = 1

    def check(self) -> None:
        require_range("SpectralNorm.iterations", self.iterations, 1)

    def start(self, net: Attached) -> None:
        SpectralPenalty().start(net)

    def after_step(self, net: Attached) -> None:
        sigmas = SpectralPenalty(iterations=self.iterations).sigmas(net)
        for layer in net.hidden:
            sigma = on_rows(layer.weight, sigmas[layer.name])
            net.rewrite(layer.weight, layer.weight / torch.where(sigma == 0, 1, sigma))  # a zero matrix stays zero


@dataclass(frozen=True)
class WeightClipping(Baseline, name="weight_clipping"):
    """After every step, clamps weights and biases to +-kappa/sqrt(fan_in) of their layer.

    Args:
        kappa: 1 to 5 in the source. head: whether the head is clipped.
    Source: Elsayed et al. 2024 (arXiv 2407.01704).
    """

    kappa: float = 2.0
    head: bool = True

    def check(self) -> None:
        require_positive(self, "kappa")

    @property
    def acts_on(self) -> str:
        return "all" if self.head else "hidden"

    def after_step(self, net: Attached) -> None:
        for layer in net.layers if self.head else net.hidden:
            bound = self.kappa / math.sqrt(layer.weight.flatten(net.batch_dims + 1).shape[-1])
            for p in net.parameters([layer]):
                net.rewrite(p, p.clamp(-bound, bound))


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

    def check(self) -> None:
        require_positive(self, "strength")
        require("Isometry.rows", self.rows, ("all", "live", "dead"))
        require_range("Isometry.window", self.window, 1)

    @property
    def acts_on(self) -> str:
        return "hidden" if self.rows == "all" else "units"

    def start(self, net: Attached) -> None:
        if self.rate(net) >= 0.25:
            raise ValueError(f"Isometry: lr * strength = {self.rate(net):.4g}; it must be below 1/4")
        if self.rows != "all":
            require_elementwise(net)
            net.state["silent"] = net.per_unit()

    def rate(self, net: Attached) -> float:
        return self.strength * (net.learning_rate() if self.lr is None else self.lr)

    def after_step(self, net: Attached) -> None:
        if self.rows == "all":
            weights = [layer.weight for layer in net.hidden]
            factors: list[Tensor | int] = [1] * len(weights)
        else:
            seen = list(net.seen())
            weights = [net.units[index].layer.weight for index, _ in seen]
            factors = [on_rows(weights[i], self.chosen(net, *one)) for i, one in enumerate(seen)]
        for W, step, factor in zip(
            weights, isometry_step(weights, self.rate(net), net.batch_dims), factors, strict=True
        ):
            net.rewrite(W, W - step * factor)

    def chosen(self, net: Attached, index: int, h: Tensor) -> Tensor:
        """Which rows are moved, (*runs, units); the count of silent steps is brought up to date."""
        silent: Tensor = net.state["silent"][index]
        silent.add_(1).masked_fill_(h.amax(-2) > 0, 0)
        return (silent >= self.window) == (self.rows == "dead")


def rescaled(W: Tensor, reference: Tensor, axes: int) -> Tensor:
    """W with the norm of the reference over all but the first `axes` axes; zero stays zero.

    >>> rescaled(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 1)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norm = W.flatten(axes).norm(dim=-1)
    factor = reference.flatten(axes).norm(dim=-1) / torch.where(norm == 0, 1, norm)
    return W * on_rows(W, factor)
