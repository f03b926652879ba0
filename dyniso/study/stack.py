"""Several nets of one shape as one: stacked parameters and one forward pass."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize

from .. import baselines
from ..activations import ACTIVATION_TYPES
from ..dormancy import units_last
from ..isometry import as_matrix
from ..optim import isometry_groups
from .specs import Method

WEIGHTED = (nn.Linear, nn.Conv2d)


class Run(NamedTuple):
    """One arm of an experiment under one seed."""

    method: Method
    seed: int


class Stack:
    """Several nets of one shape as one: parameters (runs, ...), and the forward map over all of them.

    The nets stay ordinary modules; their layers are applied to all runs at once. Linear layers take one batched product
    with the bias inside (vmap's own rule splits it into four operations), convolutions go the faster way of two
    (`convolve`), activations work on any leading axes, and every other layer goes through `torch.func.vmap`.

    Args:
        nets: Sequential modules of one architecture.
        device: where the stacked parameters live.
    Raises:
        ValueError: no nets, or one that is no `nn.Sequential`.
    """

    def __init__(self, nets: list[nn.Sequential], device: torch.device):
        if not nets or not all(isinstance(net, nn.Sequential) for net in nets):
            raise ValueError(f"a stack needs nn.Sequential nets; got {[type(net).__name__ for net in nets]}")
        stacked, _ = stack_module_state(nets)
        self.template = nets[0].to(device)
        self.params = {name: p.detach().to(device).requires_grad_() for name, p in stacked.items()}

        self.layers = [
            (layer, {key: self.params[f"{name}.{key}"] for key, _ in layer.named_parameters()})
            for name, layer in self.template.named_children()
        ]

    def __call__(self, x: Tensor, seen: list[Tensor] | None = None, columns: Tensor | None = None) -> Tensor:
        """Outputs (runs, batch, outputs) for inputs (runs, batch, features).

        Args:
            seen: activations are appended to it as (runs, samples, units): a channel is a unit, seen at every position.
            columns: which features of the first linear layer the inputs are, (runs, features given); the others are 0.
        """
        for layer, params in self.layers:
            if columns is not None and isinstance(layer, nn.Linear):
                W = params["weight"]
                params = params | {"weight": W.gather(2, columns[:, None].expand(-1, W.shape[1], -1))}
                columns = None
            x = apply_stacked(layer, params, x)
            if seen is not None and isinstance(layer, ACTIVATION_TYPES):
                seen.append(units_last(x, batch_dims=1))
        return x

    def finite(self) -> Tensor:
        """Which runs have only finite parameters, shape (runs,), bool."""
        return torch.stack([torch.isfinite(p).flatten(1).all(1) for p in self.params.values()]).all(0)

    @torch.no_grad()
    def give_up(self, runs: list[int]) -> None:
        """Make the parameters of runs that have diverged NaN, so that they are recorded as such and harm no other."""
        for p in self.params.values():
            p[runs] = torch.nan

    def regularised(self) -> list[str]:
        """Names of the weights that AdamO pulls: hidden matrices, not the head."""
        pulled = {id(p) for p in isometry_groups(self.template)[0]["params"]}
        return [name for name, p in self.template.named_parameters() if id(p) in pulled]

    def weights(self) -> dict[str, Tensor]:
        """Every weight matrix (runs, out, in) as the forward pass uses it, by name; kernels as (runs, out, in k k)."""
        found = {}
        for name, layer in self.template.named_children():
            if parametrize.is_parametrized(layer, "weight"):
                held = {"original": self.params[f"{name}.parametrizations.weight.original"]}
                build = layer.get_submodule("parametrizations.weight")
                found[f"{name}.weight"] = vmap(lambda p, b=build: functional_call(b, p, ()))(held)
            elif isinstance(layer, WEIGHTED):
                found[f"{name}.weight"] = as_matrix(self.params[f"{name}.weight"], batch_dims=1)
        return found

    def single(self, run: int) -> nn.Sequential:
        """One run as a net of its own, in float64 and without parametrizations: for instruments, not for training."""
        weights = self.weights()
        plain: dict[str, nn.Module] = {}
        for name, layer in self.template.named_children():
            own = {key: self.params[f"{name}.{key}"][run].detach() for key, _ in layer.named_parameters()}
            if isinstance(layer, nn.Linear):
                own = {"weight": weights[f"{name}.weight"][run].detach()} | {
                    k: p for k, p in own.items() if k == "bias"
                }
                plain[name] = nn.Linear(layer.in_features, layer.out_features, bias="bias" in own)
            else:
                plain[name] = copy.deepcopy(layer)
            plain[name].load_state_dict(own)
        return nn.Sequential(OrderedDict(plain)).to(next(iter(weights.values())).device).double()

    def linear_maps(self) -> list[baselines.Layer]:
        """Weight and bias of every linear layer and convolution, in order of the forward pass."""
        return [
            baselines.Layer(name, self.params[f"{name}.weight"], self.params.get(f"{name}.bias"))
            for name, layer in self.template.named_children()
            if isinstance(layer, WEIGHTED)
        ]

    def attach(self, baseline: baselines.Baseline, optimizer: Any, seeds: Sequence[int]) -> baselines.Attached:
        """A method at work on the stacked parameters, with one seed a run for its own draws."""
        elementwise = baselines.is_elementwise(self.template)
        maps, units = self.linear_maps(), self.units() if elementwise else None
        return baselines.Attached(baseline, maps, optimizer, self, seeds, 1, elementwise, units)

    def units(self) -> list[baselines.Units]:
        """The units between each linear map and the next, with the scales and shifts of norms in between."""
        found = [baselines.Units(layer, (reader,)) for layer, reader in pairwise(self.linear_maps())]
        index = -1
        for name, layer in self.template.named_children():
            index += isinstance(layer, WEIGHTED)
            if isinstance(layer, nn.LayerNorm) and layer.elementwise_affine and 0 <= index < len(found):
                scale, shift = self.params[f"{name}.weight"], self.params.get(f"{name}.bias")
                found[index] = found[index]._replace(scales=(scale,), shifts=() if shift is None else (shift,))
        return found


def apply_stacked(layer: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """One layer of every run, (runs, batch, ...) -> (runs, batch, ...), with its parameters stacked (runs, ...)."""
    if isinstance(layer, nn.Linear) and "weight" in params:
        W = params["weight"]  # as the first factor its gradient comes in W's own layout, and is not copied once more
        return (torch.baddbmm(params["bias"][..., None], W, x.mT) if "bias" in params else W @ x.mT).mT
    if isinstance(layer, nn.Conv2d) and "weight" in params and layer.padding_mode == "zeros":
        return convolve(layer, x, params["weight"], params.get("bias"), in_groups=x.is_cuda)
    dim = getattr(layer, "dim", -1)
    counts_from_the_end = dim is not None and dim < 0  # otherwise the axis of runs would shift it
    if isinstance(layer, ACTIVATION_TYPES) and not params and counts_from_the_end:
        return layer(x)
    return vmap(lambda p, h: functional_call(layer, p, (h,)))(params, x)


def convolve(layer: nn.Conv2d, x: Tensor, W: Tensor, b: Tensor | None, in_groups: bool) -> Tensor:
    """A convolution of every run, (runs, batch, channels, rows, columns), with its settings from `layer`.

    Args:
        W, b: kernels and biases, stacked (runs, ...).
        in_groups: all runs in one call, side by side as groups, which saves launches on a GPU; otherwise one by one,
            which is faster on a CPU (benchmarks/stacked_runs.py).
    """
    convolution = functools.partial(
        nn.functional.conv2d, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
    )
    runs = len(x)
    if not in_groups:
        each = zip(x, W, [None] * runs if b is None else list(b), strict=True)
        return torch.stack([convolution(*own, groups=layer.groups) for own in each])
    side_by_side, bias = x.transpose(0, 1).flatten(1, 2), None if b is None else b.flatten()
    z = convolution(side_by_side, W.flatten(0, 1), bias, groups=runs * layer.groups)
    return z.unflatten(1, (runs, -1)).transpose(0, 1)
