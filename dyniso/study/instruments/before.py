"""What a stack of MLPs is like just before a task: spectra, gates, alignment, kernels, all runs at once, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from ...activations import ACTIVATION_TYPES, MIXING_TYPES
from ...baselines.layers import times
from ...checks import require_shape, require_that
from ...dormancy import dead_units, dormant_fraction
from ...isometry import effective_rank, smaller_gram
from ...kernels import plasticity, without_constant_output
from ...spectra import scale_free_defect
from ..stack import Stack, apply_stacked
from .stacked import Measures
from .stacked_kernels import (
    Layer,
    Step,
    adam_divisors,
    adam_kernel,
    backward_maps,
    mlp_layers,
    over_samples,
    stacked_ntk,
    walk,
)

KERNEL = 32  # samples of the kernels and of the layers' Jacobians
TAU = 0.025  # dormancy threshold of Sokar et al. 2023
STEPS = (10, 100)  # of P_10 and P_100
HUGE = 1e300  # a kernel with a larger entry overflows in what follows
CONDITION = 1e12  # largest condition number that is told
ENTRIES = 2**26  # of float64 at once: half a GiB


@torch.no_grad()
def before_task(stack: Stack, x: Tensor, y: Tensor) -> Measures:
    """Every candidate for what a net loses or keeps, measured before a task on images of that task.

    Weights are those of the forward pass (parametrizations applied), s their singular values, from the smaller Gram:
    below 1e-8 s_1 they are rounding. z is the pre-activation, what an activation receives (after a LayerNorm where
    there is one). A unit fires at a sample where z > 0; for other activations than ReLU that says on which side of 0 it
    is, and no unit counts as dead.

    Args:
        stack: of MLPs with a hidden layer: Linear, activations without parameters, LayerNorm.
        x: inputs as the nets see them, (runs, samples, features), e.g. (64, 512, 784). y: class labels (runs, samples).
    Returns:
        (layer, metric) -> (runs,), float64, unitless unless said; NaN for a run that is not finite.
        Hidden weights ("1.weight", ...): before_isometry_defect, mean (s^2 - 1)^2; before_scale_free_defect, mean
        (s^2 / mean s^2 - 1)^2; before_condition_number, s_1/s_m, at most 1e12; before_top_over_rms, s_1/rms(s);
        before_mean_square, mean s^2. Only the first and the last exist of a weight of zeros; the others are NaN.
        Hidden layers ("hidden1", ...), on all of x: before_dead (ReLU only), share of units that never fire;
        before_dormant, with score at most .025; before_firing, mean over units of the share of samples at which they
        fire; before_shift, mean over units of |mean z| over the mean over units of sd z (over samples; infinite where
        no z varies); before_alignment, log10(|W mu|^2 / (mean s^2 |mu|^2)), mu the mean input of W (NaN for mu = 0);
        on the first 32 samples: before_DW_share, share of the singular values of D W in [.5, 2]; before_DW_defect, mean
        (sigma(D W)^2 - 1)^2; D is the Jacobian at a sample of what stands between W and the next weight, by autograd.
        With a LayerNorm in between D is no matter of gates alone, and the two are left out.
        Net (""): of the empirical NTK of the first 32 samples without the constant output, before_P_10, before_P_100
        (`kernels.plasticity`), and before_kernel_max, its largest eigenvalue (output^2/parameter^2); before_adam_P_10,
        before_adam_P_100 likewise of J diag(1/r) J', r as in `adam_divisors` on (x, y) in minibatches of 64;
        before_feature_rank, effective rank of what the head reads; before_head_norm, before_bias_norm (Frobenius norm
        of the head's weight, and of all hidden biases of Linear layers together).
    Raises:
        ValueError: convolutions or other layers than above, no hidden layer, shapes that do not fit, real labels, or
            fewer than two outputs.
    Source: alignment, shift, Adam's kernel and the choice of measures: ours. The others are as elsewhere in dyniso.
    """
    layers = mlp_layers(stack)
    _require_inputs(layers, x)
    _require_labels(x, y)
    parts = [measures(held, inputs, y[rows]) for rows, held, inputs in in_parts(stack, layers, x)]
    whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    alive = is_alive(stack, x)
    return {key: torch.where(alive, value, torch.nan) for key, value in whole.items()}


@torch.no_grad()
def kernel_max(stack: Stack, x: Tensor) -> Tensor:
    """`before_task`'s before_kernel_max alone: the largest eigenvalue of the empirical NTK without the constant output.

    Args:
        stack, x: as of `before_task`; the first 32 samples are read.
    Returns:
        Shape (runs,), float64, output^2/parameter^2; NaN for a run that is not finite.
    Raises:
        ValueError: as `before_task`.
    """
    layers, x = mlp_layers(stack), x[:, :KERNEL]
    _require_inputs(layers, x)
    largest = []
    for _, held, inputs in in_parts(stack, layers, x):
        steps = walk(held, inputs.contiguous())
        theta, finite = trimmed(stacked_ntk(steps, backward_maps(steps)), steps[-1].z.shape[-1])
        largest.append(torch.where(finite, eigenvalues(theta)[:, -1], torch.nan))
    return torch.where(is_alive(stack, x), torch.cat(largest), torch.nan)


def is_alive(stack: Stack, x: Tensor) -> Tensor:
    """Which runs have finite parameters and inputs, (runs,)."""
    return stack.finite() & torch.isfinite(x).flatten(1).all(1)


def in_parts(stack: Stack, layers: list[Layer], x: Tensor) -> Iterator[tuple[slice, list[Layer], Tensor]]:
    """The runs in float64, as many at once as memory allows: which they are, their layers and their inputs.

    A run that is not finite goes on as zeros, so that no decomposition fails for it.
    """
    alive, size = is_alive(stack, x), max(ENTRIES // entries_a_run(layers, x), 1)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        held = [
            Layer(name, module, {key: only(alive[rows], p[rows]) for key, p in params.items()})
            for name, module, params in layers
        ]
        yield rows, held, only(alive[rows], x[rows])


def _require_inputs(layers: list[Layer], x: Tensor) -> None:
    weights = [layer.params["weight"] for layer in layers if isinstance(layer.module, nn.Linear)]
    require_that(len(weights) > 1, "stack", f"{len(weights)} Linear layer", "one hidden layer at least, and a head")
    runs, _, features = weights[0].shape
    fits = x.ndim == 3 and (x.shape[0], x.shape[2]) == (runs, features) and x.shape[1]
    require_shape(bool(fits), "x", x, f"({runs}, samples, {features})")
    require_that(weights[-1].shape[1] > 1, "outputs", weights[-1].shape[1], "at least 2")


def _require_labels(x: Tensor, y: Tensor) -> None:
    require_shape(y.shape == x.shape[:2], "y", y, f"{tuple(x.shape[:2])}, a label a sample")
    require_that(not y.is_floating_point(), "y.dtype", y.dtype, "whole numbers, classes")


def entries_a_run(layers: list[Layer], x: Tensor) -> int:
    """How many float64 numbers one run takes at most at once, roughly."""
    weights = [layer.params["weight"][0] for layer in layers if isinstance(layer.module, nn.Linear)]
    widest, (outputs, _) = max(max(W.shape) for W in weights), weights[-1].shape
    units, features = max(W.shape[0] for W in weights), x.shape[-1]
    walked = x.shape[1] * (2 * features + 8 * sum(W.shape[0] for W in weights))
    kernels = KERNEL**2 * (2 * widest + 2 * (outputs + 1) * units + 6 * outputs**2)
    return walked + kernels + 8 * sum(prod(W.shape) for W in weights) + 6 * KERNEL * units * min(widest, 2 * units)


def only(alive: Tensor, values: Tensor) -> Tensor:
    """(runs, ...) in float64, zero for the runs that are not alive."""
    return torch.where(alive.view(-1, *[1] * (values.ndim - 1)), values.double(), 0.0)


def measures(layers: list[Layer], x: Tensor, y: Tensor) -> Measures:
    """`before_task` of finite runs in float64, without its checks."""
    steps, few = walk(layers, x), walk(layers, x[:, :KERNEL].contiguous())
    linear = [i for i, step in enumerate(steps) if isinstance(step.module, nn.Linear)]
    head, biases = steps[-1], [steps[i].params["bias"] for i in linear[:-1] if "bias" in steps[i].params]
    found: Measures = {}
    for number, (start, stop) in enumerate(pairwise(linear), 1):
        name, W = f"{steps[start].name}.weight", steps[start].params["weight"]
        squares = eigenvalues(smaller_gram(W))
        found |= {(name, f"before_{key}"): value for key, value in of_spectrum(squares).items()}
        of_layer = of_units(steps[start : stop + 1]) | {"alignment": alignment(W, steps[start].h.detach())}
        if not any(isinstance(step.module, nn.LayerNorm) for step in steps[start:stop]):
            DW = jacobian_squares(few[start:stop])
            of_layer["DW_share"] = ((DW >= 0.25) & (DW <= 4)).double().flatten(1).mean(1)
            of_layer["DW_defect"] = (DW - 1).square().flatten(1).mean(1)
        found |= {(f"hidden{number}", f"before_{key}"): value for key, value in of_layer.items()}
    of_net = of_kernels(few, adam_divisors(steps, y))
    of_net["feature_rank"] = effective_rank(eigenvalues(smaller_gram(head.h.detach())).sqrt())
    of_net["head_norm"] = frobenius([head.params["weight"]])
    of_net["bias_norm"] = frobenius(biases) if biases else torch.zeros_like(of_net["head_norm"])
    return found | {("", f"before_{key}"): value for key, value in of_net.items()}


def eigenvalues(gram: Tensor) -> Tensor:
    """Of Gram matrices (..., m, m): (..., m), ascending, at least 0; NaN for a matrix that is not finite."""
    finite = torch.isfinite(gram.diagonal(dim1=-2, dim2=-1)).all(-1)  # no other entry is larger than these
    lambdas = torch.linalg.eigvalsh(torch.where(finite[..., None, None], gram, 0.0)).clamp_min(0)
    return torch.where(finite[..., None], lambdas, torch.nan)


def frobenius(parameters: list[Tensor]) -> Tensor:
    """Norm of parameters (runs, ...) together, (runs,)."""
    return torch.cat([p.flatten(1) for p in parameters], 1).square().sum(1).sqrt()


def of_spectrum(squares: Tensor) -> dict[str, Tensor]:
    """Measures (runs,) of squared singular values (runs, m), ascending."""
    low, high, mean = squares[:, 0], squares[:, -1], squares.mean(1)
    return {
        "isometry_defect": (squares - 1).square().mean(1),
        "scale_free_defect": scale_free_defect(squares.sqrt()),
        "condition_number": (high / torch.maximum(low, high / CONDITION**2)).sqrt(),
        "top_over_rms": (high / mean).sqrt(),
        "mean_square": mean,
    }


def of_units(steps: list[Step]) -> dict[str, Tensor]:
    """Measures (runs,) of one layer's units, from the steps of its Linear layer up to the next one's."""
    acting = [step for step in steps[1:-1] if isinstance(step.module, ACTIVATION_TYPES)]
    after = (acting[-1].z if acting else steps[-1].h).detach()
    z = acting[0].h.detach() if acting else after
    samples = z.shape[1]
    mean = over_samples(z) / samples  # (runs, units)
    deviation = (over_samples((z - mean[:, None]).square()) / samples).sqrt()
    found = {
        "dormant": dormant_fraction(after.mT.contiguous().mT, TAU).double(),
        "firing": (z > 0).double().flatten(1).mean(1),
        "shift": mean.abs().mean(1) / deviation.mean(1),
    }
    if acting and isinstance(acting[0].module, nn.ReLU):
        found["dead"] = dead_units(after).double().mean(1)
    return found


def alignment(W: Tensor, h: Tensor) -> Tensor:
    """log10(|W mu|^2 / (mean s^2 |mu|^2)), mu the mean of inputs h (runs, samples, in) of W (runs, out, in): (runs,).

    0 where W lengthens mu as it would a vector that lies evenly in its m right singular vectors.
    """
    mu = over_samples(h) / h.shape[1]
    mean_square = W.square().flatten(1).sum(1) / min(W.shape[1:])
    return (times(W, mu).square().sum(1) / (mean_square * mu.square().sum(1))).log10()


@torch.enable_grad()
def jacobian_squares(steps: list[Step]) -> Tensor:
    """Squared singular values of D W at every sample, D the Jacobian of all that follows the Linear layer in `steps`.

    Returns:
        Shape (runs, samples, m), ascending, m = min(features after D, features before W).
    """
    W, z = steps[0].params["weight"], steps[0].z.detach().requires_grad_()
    after = z
    for step in steps[1:]:
        after = apply_stacked(step.module, step.params, after)
    if after is z:
        return eigenvalues(smaller_gram(W))[:, None].expand(-1, z.shape[1], -1)
    wide = after.shape[-1] <= W.shape[-1]
    if not any(isinstance(step.module, MIXING_TYPES) for step in steps[1:]):
        (d,) = torch.autograd.grad(after.sum(), z)  # (runs, samples, units), the diagonal of D
        gram = d[..., None] * (W @ W.mT)[:, None] * d[..., None, :] if wide else smaller_gram(d[..., None] * W[:, None])
        return eigenvalues(gram)
    rows = [torch.autograd.grad(after[..., k].sum(), z, retain_graph=True)[0] for k in range(after.shape[-1])]
    D = torch.stack(rows, 2)  # (runs, samples, features after, units)
    return eigenvalues(D @ (W @ W.mT)[:, None] @ D.mT if wide else smaller_gram(D @ W[:, None]))


def trimmed(kernel: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Kernels (runs, n C, n C) without the constant output, and which of them are finite; zeros for the others."""
    finite = (kernel.abs() < HUGE).flatten(1).all(1)
    return without_constant_output(torch.where(finite[:, None, None], kernel, 0.0), outputs), finite


def of_kernels(steps: list[Step], divisors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """P_10 and P_100 of the empirical NTK and of Adam's kernel, and the largest eigenvalue of the first, (runs,)."""
    maps, outputs = backward_maps(steps), steps[-1].z.shape[-1]
    found: dict[str, Tensor] = {}
    for name, kernel in (("", stacked_ntk(steps, maps)), ("adam_", adam_kernel(steps, maps, divisors))):
        theta, finite = trimmed(kernel, outputs)
        P = torch.where(finite[:, None], plasticity(theta, torch.tensor(STEPS)), torch.nan)
        found |= {f"{name}P_{count}": P[:, k] for k, count in enumerate(STEPS)}
        if not name:
            found["kernel_max"] = torch.where(finite, eigenvalues(theta)[:, -1], torch.nan)
    return found
