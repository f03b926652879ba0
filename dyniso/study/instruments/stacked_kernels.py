"""Kernels of a whole stack of MLPs at once: the empirical NTK, and the kernel on which a fresh Adam descends.

Batched over the runs, in the precision of what is passed in. A kernel of n samples of C outputs is (runs, n C, n C)
with row i C + c for output c of sample i, as in `dyniso.entk`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...activations import ACTIVATION_TYPES
from ..stack import Stack, apply_stacked

Params = dict[str, Tensor]  # "weight" and "bias" of one layer, (runs, ...)
SHAPELESS = (nn.Flatten, nn.Identity)  # leave (samples, features) as it is


class Layer(NamedTuple):
    """One layer of a stack with its parameters as the forward pass uses them; empty for an activation."""

    name: str
    module: nn.Module
    params: Params


class Step(NamedTuple):
    """One layer on the way through a stack: what went in and what came out."""

    name: str
    module: nn.Module
    params: Params
    h: Tensor  # (runs, samples, features in)
    z: Tensor  # (runs, samples, features out), in the graph of the outputs


def mlp_layers(stack: Stack) -> list[Layer]:
    """The layers of a stacked MLP, without parametrizations.

    Returns:
        In order of the forward pass; parameters detached, (runs, out, in), (runs, out) and (runs, features).
    Raises:
        ValueError: a layer other than Linear, LayerNorm over one axis, Flatten, Identity or an activation without
            parameters, or no Linear at the end (names the layer).
    """
    weights, layers = stack.weights(), []
    for name, module in stack.template.named_children():
        own = {key: stack.params[f"{name}.{key}"].detach() for key, _ in module.named_parameters()}
        if isinstance(module, nn.Linear):
            own = {"weight": weights[f"{name}.weight"].detach()} | {k: p for k, p in own.items() if k == "bias"}
        elif not (
            (isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1)
            or (isinstance(module, (*ACTIVATION_TYPES, *SHAPELESS)) and not own)
        ):
            raise ValueError(
                f"layer {name!r} is {module}; expected an MLP of Linear, LayerNorm over one axis and activations "
                "without parameters"
            )
        layers.append(Layer(name, module, own))
    if not isinstance(layers[-1].module, nn.Linear):
        raise ValueError(f"the last layer is {layers[-1].module}; expected the Linear head")
    return layers


@torch.enable_grad()
def walk(layers: list[Layer], x: Tensor) -> list[Step]:
    """Every layer's input and output for inputs (runs, samples, features), in one graph down to the first layer."""
    steps: list[Step] = []
    for name, module, params in layers:
        z = apply_stacked(module, params, x)
        if params and not z.requires_grad:
            z = z.detach().requires_grad_()
        steps.append(Step(name, module, params, x, z))
        x = z
    return steps


def trained(steps: list[Step]) -> list[Step]:
    """The steps with parameters."""
    return [step for step in steps if step.params]


@torch.enable_grad()
def backward_maps(steps: list[Step]) -> list[Tensor]:
    """B = df/dz of every trained step at every sample, shape (runs, samples, C, features out) each.

    One backward pass of the stack for each of the C outputs, as samples do not interact.
    """
    z, f = [step.z for step in trained(steps)], steps[-1].z
    rows = [torch.autograd.grad(f[..., c].sum(), z, retain_graph=True) for c in range(f.shape[-1])]
    return [torch.stack(maps, 2) for maps in zip(*rows, strict=True)]


def normalised(step: Step) -> Tensor:
    """What the scale of a LayerNorm multiplies, (runs, samples, features)."""
    assert isinstance(step.module, nn.LayerNorm)
    return nn.functional.layer_norm(step.h.detach(), step.module.normalized_shape, eps=step.module.eps)


def stacked_ntk(steps: list[Step], maps: list[Tensor]) -> Tensor:
    """The empirical NTK of every run over all its parameters, without forming Jacobians.

        Theta = sum_l (K_l + 1 for a bias) * (B_l B_l'),   K_l = h_l h_l'

    and for the scale s and the shift of a LayerNorm  (B_l * n_l)(B_l * n_l)' + B_l B_l',  n_l what s multiplies.

    Args:
        steps: of `walk`. maps: of `backward_maps`.
    Returns:
        Shape (runs, n C, n C).
    Source: derived in the book's chapter on isometry and the eNTK; equal to `dyniso.entk.empirical_ntk` of each run.
    """
    n, C = maps[0].shape[1:3]
    total = maps[0].new_zeros(len(maps[0]), n * C, n * C)
    for step, B in zip(trained(steps), maps, strict=True):
        products = B.flatten(1, 2) @ B.flatten(1, 2).mT
        if isinstance(step.module, nn.Linear):
            gram = step.h.detach() @ step.h.detach().mT + ("bias" in step.params)
            total = total + products * gram.repeat_interleave(C, 1).repeat_interleave(C, 2)
        else:
            scaled = (B * normalised(step)[:, :, None]).flatten(1, 2)
            total = total + scaled @ scaled.mT + (products if "bias" in step.params else 0)
    return total


@torch.enable_grad()
def adam_divisors(steps: list[Step], y: Tensor, batch: int = 64, eps: float = 1e-8) -> list[Params]:
    """What a fresh Adam divides the gradient of every parameter by: its root mean square over minibatches, plus eps.

    Args:
        steps: of `walk`, on (runs, samples, features). y: labels (runs, samples).
        batch: samples of a minibatch, in the order of x; a last one that is not full is left out, unless it is all.
        eps: that of `torch.optim.Adam`.
    Returns:
        One dictionary a trained step, in the shapes of its parameters, above 0: unit of the gradient of the mean
        cross-entropy of a minibatch.
    """
    samples = y.shape[1]
    size, count = min(batch, samples), max(samples // batch, 1)
    f = steps[-1].z.flatten(0, 1)
    loss = nn.functional.cross_entropy(f, y.flatten().long(), reduction="sum") / size
    errors = torch.autograd.grad(loss, [step.z for step in trained(steps)], retain_graph=True)
    found = []
    for step, error in zip(trained(steps), errors, strict=True):
        squares = {key: torch.zeros_like(p) for key, p in step.params.items()}
        seen = step.h.detach() if isinstance(step.module, nn.Linear) else normalised(step)
        for e, h in zip(error.split(size, 1)[:count], seen.split(size, 1)[:count], strict=True):
            gradient = e.mT @ h if isinstance(step.module, nn.Linear) else over_samples(e * h)
            squares["weight"] += gradient.square()
            if "bias" in squares:
                squares["bias"] += over_samples(e).square()
        found.append({key: (square / count).sqrt() + eps for key, square in squares.items()})
    return found


def over_samples(values: Tensor) -> Tensor:
    """Sum over the samples of (runs, samples, units), in the same order whatever runs are beside a run."""
    return values.mT.contiguous().sum(-1)


def adam_kernel(steps: list[Step], maps: list[Tensor], divisors: list[Params]) -> Tensor:
    """J diag(1/r) J' of every run, J the Jacobian of the outputs and r what Adam divides by, without forming J.

        sum over weights and units a of  B[i,c,a] B[j,d,a] M_a[i,j],   M_a[i,j] = sum_b h[i,b] h[j,b] / r[a,b]

    and 1/r[a] in M_a for a bias.

    Args:
        steps: of `walk`. maps: of `backward_maps`. divisors: of `adam_divisors`, of the same layers.
    Returns:
        Shape (runs, n C, n C); with all r = 1 it is `stacked_ntk`.
    Source: ours; Adam's step at small rates, with its second moments held, is descent on this kernel.
    """
    n, C = maps[0].shape[1:3]
    total = maps[0].new_zeros(len(maps[0]), n * C, n * C)
    i, j = torch.triu_indices(n, n, device=total.device)  # M is symmetric in the samples
    place = torch.empty(n, n, dtype=torch.long, device=total.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=total.device)
    for step, B, r in zip(trained(steps), maps, divisors, strict=True):
        h = step.h.detach() if isinstance(step.module, nn.Linear) else normalised(step)
        pairs = h[:, i] * h[:, j]  # (runs, n (n + 1)/2, features in), e.g. (25, 528, 784)
        M = pairs @ (1 / r["weight"]).mT if isinstance(step.module, nn.Linear) else pairs / r["weight"][:, None]
        if "bias" in r:
            M = M + 1 / r["bias"][:, None]
        right = B[:, None] * M[:, place][:, :, :, None]  # (runs, n, n, C, units)
        total = total + (B @ right.flatten(2, 3).mT).flatten(1, 2)
    return total
