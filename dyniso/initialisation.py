"""Initial weights that can preserve norms: orthogonal matrices, delta-orthogonal kernels, and two usual laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .checks import require, require_shape, require_type
from .heads import find_heads
from .isometry import half_precision


@torch.no_grad()
def orthogonal_(weight: Tensor, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Fills a matrix in place with gain times a uniformly random semi-orthogonal one.

    Args:
        weight: shape (out, in), e.g. (512, 784), any device; W W' = gain^2 I if out <= in, else W'W = gain^2 I.
        gain: every singular value, unitless.
        generator: drawn on its own device and then copied; None is torch's global one.
    Returns:
        The same tensor.
    Raises:
        ValueError: weight is not a matrix (names the shape).
    Source: Saxe, McClelland & Ganguli 2014 (arXiv 1312.6120).
    >>> W = orthogonal_(torch.empty(2, 3), gain=2.0, generator=torch.Generator().manual_seed(0))
    >>> torch.linalg.svdvals(W)
    tensor([2.0000, 2.0000])
    """
    require_shape(weight.ndim == 2, "weight", weight, "a matrix (out, in)")
    return weight.copy_(nn.init.orthogonal_(_draw_buffer(weight, generator), gain, generator))


@torch.no_grad()
def delta_orthogonal_(kernel: Tensor, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Fills a convolution kernel in place: zero, except a centre tap that is gain times a semi-orthogonal matrix.

    With stride 1 the convolution then rotates the channels of every pixel alone, so it is exactly isometric for
    out >= in (the case of the source). For out < in the tap has orthonormal rows: an orthogonal projection of the
    channels, isometric for gradients but not for features.

    Args:
        kernel: shape (out, in, height, width), e.g. (32, 16, 3, 3); one or three window axes also work. Odd window.
        gain: every singular value of the tap, unitless.
        generator: drawn on its own device and then copied; None is torch's global one.
    Returns:
        The same tensor.
    Raises:
        ValueError: no window axes, or an even window, which has no centre (names the shape).
    Source: Xiao et al. 2018 (arXiv 1806.05393).
    >>> kernel = delta_orthogonal_(torch.empty(4, 4, 3, 3), generator=torch.Generator().manual_seed(0))
    >>> kernel[:, :, 1, 1].norm().item(), kernel.norm().item()
    (2.0, 2.0)
    """
    window = kernel.shape[2:]
    odd = window and all(size % 2 for size in window)
    require_shape(odd, "kernel", kernel, "a window of odd sizes after (out, in)")
    kernel.zero_()
    centre = kernel
    for size in window:
        centre = centre.select(2, size // 2)
    orthogonal_(centre, gain, generator)
    return kernel


def _orthogonal_init(layer: nn.Module, gain: float, generator: torch.Generator | None) -> None:
    """Each group of channels is a convolution of its own; zero biases."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    for block in weight.chunk(getattr(layer, "groups", 1)):
        if weight.ndim == 2:
            orthogonal_(block, gain, generator)
        elif all(stride == 1 for stride in layer.stride) and all(size % 2 for size in weight.shape[2:]):  # type: ignore[union-attr]
            delta_orthogonal_(block, gain, generator)
        else:
            block.copy_(orthogonal_(block.flatten(1).clone(), gain, generator).reshape(block.shape))
    _zero_bias(layer)


def _kaiming_init(layer: nn.Module, gain: float, generator: torch.Generator | None) -> None:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    fan_in = weight[0].numel()
    weight.copy_(_draw_buffer(weight, generator).normal_(0, gain * math.sqrt(2 / fan_in), generator=generator))
    _zero_bias(layer)


def _default_init(layer: nn.Module, gain: float, generator: torch.Generator | None) -> None:
    """torch's law for weights, times the gain, and for biases."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    root = math.sqrt(weight[0].numel())
    weight.copy_(_draw_buffer(weight, generator).uniform_(-gain / root, gain / root, generator=generator))
    if bias is not None:
        bias.copy_(_draw_buffer(bias, generator).uniform_(-1 / root, 1 / root, generator=generator))


def _zero_bias(layer: nn.Module) -> None:
    if isinstance(layer.bias, Tensor):
        layer.bias.zero_()


def _draw_buffer(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Empty tensor of the same shape on the generator's device, in single precision at least.

    So a draw depends neither on where the weight lives nor on its precision.
    """
    dtype = torch.float32 if half_precision(like) else like.dtype
    return torch.empty_like(like, dtype=dtype, device=like.device if generator is None else generator.device)


INITS: dict[str, Callable[[nn.Module, float, torch.Generator | None], None]] = {  # name -> fills weight and bias
    "orthogonal": _orthogonal_init,
    "kaiming": _kaiming_init,
    "default": _default_init,
}


@torch.no_grad()
def initialise(
    model: nn.Module,
    scheme: str = "orthogonal",
    gain: float = 1.0,
    generator: torch.Generator | None = None,
    head_gain: float | None = None,
) -> nn.Module:
    """Draws the weights of every linear and convolution layer anew, in place.

    Args:
        model: any module; norms, activation angles and other parameters are left alone.
        scheme: "orthogonal" (delta-orthogonal for stride-1 convolutions with an odd window; other convolutions get an
            orthogonal kernel matrix (out, in * height * width), because a centre tap would never see the pixels
            between strides), "kaiming" (He normal, fan-in, for ReLU), or "default" (torch's own uniform law). Biases
            are zero for the first two.
        gain: multiplies the drawn weights, unitless: the singular value of "orthogonal", 1 for He's or torch's law.
        generator: source of all draws; None is torch's global one.
        head_gain: the same for the head, found from the way that the model computes; None means `gain`.
    Returns:
        The same module.
    Raises:
        ValueError: unknown scheme, a layer whose weight is parametrized (a drawn value would be lost), or a head_gain
            for a model whose head is not evident.
    Source: Saxe et al. 2014; Xiao et al. 2018; He et al. 2015 (arXiv 1502.01852).
    >>> model = initialise(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), head_gain=0.01)
    >>> [round(torch.linalg.svdvals(model[i].weight).max().item(), 4) for i in (0, 1)]
    [1.0, 0.01]
    """
    require_type("model", model, nn.Module, "a module: initialise(model)")
    require("scheme", scheme, INITS)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    heads = {id(weight) for weight in find_heads(model)} if head_gain is not None else set()
    for name, layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(f"layer {name!r} is parametrized; initialise it before orthogonal(...)")
        is_head = head_gain is not None and id(layer.weight) in heads
        INITS[scheme](layer, head_gain if is_head else gain, generator)  # type: ignore[arg-type]
    return model
