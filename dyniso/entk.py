"""The empirical neural tangent kernel: two independent implementations, and its layer factors.

For a net f with C outputs, Theta(x, x') = J(x) J(x')' with J = df/dtheta. "jacobian" forms J; "layerwise" never does:
it sums over layers  ( <h(x), h(x')> + beta ) B(x) B(x')',  where h is a layer's input and B = df/dz the backward map
to its output z. Kernels of n samples are matrices (n C, n C) with row i C + c for output c of sample i.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import require, require_type
from .passes import BATCH_NORMS, LayerPass, capture, factorable_layers, jacobian, require_use_by_call_only, split
from .steady import label, require_steady
from .tracing import eager, readable

METHODS = ("layerwise", "jacobian")
TRANSIENT = 2**24  # entries of per-sample gradients formed at once: 64 MiB in float32, enough to keep a GPU busy


# -------------------------------------------------------------------------------------------------- the kernel


@torch.inference_mode(False)
@torch.enable_grad()
def empirical_ntk(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, method: str = "layerwise", chunk: int | None = None
) -> Tensor:
    """Empirical neural tangent kernel over all trainable parameters (requires_grad).

        Theta = J(x1) J(x2)',   J(x) = df(x)/dtheta of shape (n C, parameters)

    Args:
        model: maps (n, ...) to (n, C) or (n,); a compiled one runs as it was written. Left untouched: parameters,
            gradients, buffers, mode, hooks, random numbers.
        x1: inputs, shape (n1, ...), e.g. (64, 784); device and dtype of the model, float64 for small eigenvalues.
        x2: inputs, shape (n2, ...); None means x1.
        method: "layerwise" (Linear, Conv2d, affine LayerNorm, BatchNorm in eval mode, each called once, samples that do
            not interact; memory n C (units) and, for one layer at a time, a slice of its per-sample gradients) or
            "jacobian" (any module; memory n C (parameters), and n C backward passes through the whole batch). In
            train mode BatchNorm takes the statistics of x1 and of x2 apart.
        chunk: samples per forward and backward pass; None means all. With "jacobian" and samples that do not
            interact, chunk=1 saves a factor n of the work; where they interact, it is refused.
    Returns:
        Theta, shape (n1 C, n2 C), detached; row i C + c belongs to output c of sample i. Unit: output^2/parameter^2.
    Raises:
        ValueError: unknown method, chunk < 1, no samples, no trainable parameter, randomness in the pass (dropout of
            any kind: two passes are compared, and the states of the generators), an output that is no tensor or
            carries no gradient, a scripted model; and for "layerwise" a module with trainable parameters that it cannot
            factor, or that are shared or used other than by one call, or samples that interact (the message names the
            module and suggests method="jacobian").
    Source: Jacot et al. 2018 (arXiv 1806.07572); the sum over layers is derived in the book's chapter on isometry and
        the eNTK.
    >>> model, x = nn.Linear(3, 2, bias=False), torch.eye(3)[:2]
    >>> empirical_ntk(model, x)
    tensor([[1., 0., 0., 0.],
            [0., 1., 0., 0.],
            [0., 0., 1., 0.],
            [0., 0., 0., 1.]])
    """
    require_type("model", model, nn.Module, "a module, called with the inputs: empirical_ntk(model, x)")
    require("method", method, METHODS)
    model = readable(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no trainable parameter")
    layers = factorable_layers(model) if method == "layerwise" else {}
    with eager():
        require_steady(model, split(x1, chunk)[0])
        if method == "jacobian":
            J1 = jacobian(model, x1, chunk)
            return J1 @ (J1 if x2 is None else jacobian(model, x2, chunk)).mT
        first = capture(model, x1, layers, chunk)
        require_use_by_call_only(model, x1[:1], layers)
        second = first if x2 is None else capture(model, x2, layers, chunk)
        return _sum_over_layers(first, second)


def _sum_over_layers(first: dict[str, LayerPass], second: dict[str, LayerPass]) -> Tensor:
    theta: Tensor | None = None
    for name in first:
        for term in _layer_terms(first[name], second[name]):
            theta = term if theta is None else theta.add_(term)
    if theta is None:
        raise ValueError("the output does not depend on any trainable parameter")
    return theta


def _layer_terms(a: LayerPass, b: LayerPass) -> Iterator[Tensor]:
    """The kernel of one layer's own parameters, as a sum of (n1 C, n2 C) terms."""
    module = a.module
    if isinstance(module, (nn.LayerNorm, *BATCH_NORMS)):
        yield from _norm_terms(a, b)
    elif isinstance(module, nn.Linear) and a.h.ndim == 2:
        gram = _input_gram(a.h, b.h, *_trainable(module))  # (n1, n2)
        term = _rows(a.B) @ _rows(b.B).mT
        term.unflatten(0, a.B.shape[:2]).unflatten(2, b.B.shape[:2]).mul_(gram[:, None, :, None])
        yield term
    else:
        yield from _shared_weight_terms(a, b)


def _shared_weight_terms(a: LayerPass, b: LayerPass) -> Iterator[Tensor]:
    """A weight used at several positions p: its per-sample gradients sum_p B_p h_p' are formed in slices."""
    weight, bias = _trainable(a.module)
    for (h1, B1), (h2, B2) in zip(_positions(a), _positions(b), strict=True):  # one pass a convolution group
        if bias:
            yield _rows(B1.sum(-1)) @ _rows(B2.sum(-1)).mT
        if not weight:
            continue
        samples, outputs, fan_in = *B1.shape[:2], h1.shape[1]
        units = max(TRANSIENT // (samples * outputs * fan_in), 1)
        for part1, part2 in zip(B1.split(units, 2), B2.split(units, 2), strict=True):
            G1, G2 = (torch.einsum("ncup,nkp->ncuk", B, h) for B, h in ((part1, h1), (part2, h2)))
            yield _rows(G1) @ _rows(G2).mT


def _positions(layer: LayerPass) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs (n, fan_in, positions) and backward maps (n, C, units, positions) of each group of a layer."""
    module, h, B = layer
    if isinstance(module, nn.Linear):
        yield h.flatten(1, -2).mT, B.flatten(2, -2).mT
        return
    assert isinstance(module, nn.Conv2d)
    patches = F.unfold(_padded(h, module), module.kernel_size, module.dilation, 0, module.stride)
    groups = module.groups
    yield from zip(patches.chunk(groups, 1), B.flatten(3).chunk(groups, 2), strict=True)


def _padded(h: Tensor, conv: nn.Conv2d) -> Tensor:
    sides: list[int] = []  # left, right, top, bottom: F.pad starts at the last axis
    for axis in (1, 0):
        if conv.padding == "same":
            total = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [0, 0] if conv.padding == "valid" else [int(conv.padding[axis])] * 2
    return F.pad(h, sides, "constant" if conv.padding_mode == "zeros" else conv.padding_mode)


def _norm_terms(a: LayerPass, b: LayerPass) -> Iterator[Tensor]:
    """Scale and shift of a norm, of each entry of a layer norm and of each channel of a batch norm."""
    weight, bias = _trainable(a.module)
    for scaled in (True,) * weight + (False,) * bias:
        yield _norm_gradient(a, scaled) @ _norm_gradient(b, scaled).mT


def _norm_gradient(layer: LayerPass, scaled: bool) -> Tensor:
    """Gradients of the outputs, (n C, entries of the scale), with respect to the scale or the shift."""
    module, h, B = layer
    if isinstance(module, nn.LayerNorm):
        axes = len(module.normalized_shape)
        normal = F.layer_norm(h, module.normalized_shape, eps=module.eps)
        B = B * normal.unsqueeze(1) if scaled else B
        return _rows(B.flatten(2, -axes - 1).sum(2) if B.ndim > 2 + axes else B)
    assert isinstance(module, BATCH_NORMS)
    normal = F.batch_norm(h, module.running_mean, module.running_var, eps=module.eps)
    B = B * normal.unsqueeze(1) if scaled else B
    return _rows(B.flatten(3).sum(-1) if B.ndim > 3 else B)


def _trainable(module: nn.Module) -> tuple[bool, bool]:
    """Whether the weight and the bias of a layer are trained."""
    return tuple(getattr(p, "requires_grad", False) for p in (module.weight, module.bias))  # type: ignore[return-value]


def _input_gram(h1: Tensor, h2: Tensor, weight: bool, bias: bool) -> Tensor:
    gram = h1 @ h2.mT if weight else h1.new_zeros(len(h1), len(h2))
    return gram + 1 if bias else gram


def _rows(B: Tensor) -> Tensor:
    """(n, C, ...) -> (n C, everything else)."""
    return B.flatten(2).flatten(0, 1)


# --------------------------------------------------------------------------------------------- layer quantities


@torch.inference_mode(False)
@torch.enable_grad()
def backward_maps(model: nn.Module, x: Tensor, chunk: int | None = None) -> dict[str, Tensor]:
    """Backward map B_l(x) = df/dz_l of every Linear and Conv2d layer, z_l being the layer's output.

    The condition number of B_l B_l' (C x C) says how evenly a layer's gradient can move the C outputs.

    Args:
        model: as in `empirical_ntk` "layerwise", but parametrized, frozen and other modules are allowed.
        x: inputs, shape (n, ...).
        chunk: samples per pass; None means all.
    Returns:
        Layer name -> shape (n, C, units), in order of the calls; units = channels * height * width for Conv2d.
        Layers that the forward pass does not call are left out.
    Raises:
        ValueError: a layer that is called more than once, interacting samples, randomness, chunk < 1, no samples.
    Source: derived in the book's chapter on isometry and the eNTK (B_l = W_L D_{L-1} ... W_{l+1} D_l).
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    >>> maps = backward_maps(model, torch.zeros(1, 2))
    >>> torch.equal(maps["0"][0], model[1].weight), torch.equal(maps["1"][0], torch.eye(2))
    (True, True)
    """
    model = readable(model)
    layers: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))
    }
    with eager():
        require_steady(model, split(x, chunk)[0])
        return {name: layer.B.flatten(2) for name, layer in capture(model, x, layers, chunk).items()}


@torch.inference_mode(False)
@torch.enable_grad()
def feature_grams(model: nn.Module, x: Tensor, chunk: int | None = None) -> dict[str, Tensor]:
    """Gram matrix K_l of the inputs of every Linear layer, as it enters the kernel: <h, h'> + 1 with a bias.

    Args:
        model: any module whose Linear layers see (n, features).
        x: inputs, shape (n, ...).
        chunk: samples per forward pass; None means all.
    Returns:
        Layer name -> K_l, shape (n, n), in order of the calls. <h, h'> counts if the weight is trained and 1 if the
        bias is; layers with neither are left out. Theta >= K_L (x) I_C for the last layer.
    Raises:
        ValueError: a Linear layer that is called more than once or on other than (n, features), chunk < 1, no samples.
    Source: derived in the book's chapter on isometry and the eNTK.
    >>> feature_grams(nn.Linear(2, 3), torch.eye(2))[""]
    tensor([[2., 1.],
            [1., 2.]])
    """
    model = readable(model)
    layers: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and any(_trainable(m))
    }
    with eager():
        require_steady(model, split(x, chunk)[0])
        seen = capture(model, x, layers, chunk, backward=False)
    grams = {}
    for name, (module, h, _) in seen.items():
        if h.ndim != 2:
            raise ValueError(f"{label(name, module)} sees inputs of shape {tuple(h.shape)}, not (n, features)")
        grams[name] = _input_gram(h, h, *_trainable(module))
    return grams
