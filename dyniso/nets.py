"""Nets whose layers can preserve norms: orthogonal layers, and the MLP and CNN builders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .activations import CReLU, GroupSort, Householder, activation
from .checks import require, require_range, require_that, require_type
from .initialisation import INITS, initialise
from .isometry import as_matrix
from .polar import newton_schulz, polar_factor

# ------------------------------------------------------------------------------------------- orthogonal layers


class _NewtonSchulz(nn.Module):
    """Parametrization V -> polar factor of V by Newton-Schulz iterations, on the kernel reshaped to a matrix."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, V: Tensor) -> Tensor:
        return newton_schulz(as_matrix(V), self.steps).reshape(V.shape)

    def right_inverse(self, W: Tensor) -> Tensor:
        return polar_factor(as_matrix(W), method="svd").reshape(W.shape)


def _by_torch(module: nn.Module, method: str, steps: int) -> None:
    """torch's own map from a free parameter to an orthogonal matrix, without a draw from the global generator."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    if weight.ndim > 2:
        raise ValueError(
            f"method {method!r} takes matrices, weight has shape {tuple(weight.shape)}; use 'newton_schulz'"
        )
    with torch.random.fork_rng([weight.device] if weight.is_cuda else []):  # it fills up a basis with random columns
        parametrizations.orthogonal(module, "weight", orthogonal_map=method)


def _by_newton_schulz(module: nn.Module, method: str, steps: int) -> None:
    require_range("steps", steps, 1)
    parametrize.register_parametrization(module, "weight", _NewtonSchulz(steps))


ORTHOGONAL_METHODS: dict[str, Callable[[nn.Module, str, int], None]] = {
    "householder": _by_torch,
    "cayley": _by_torch,
    "matrix_exp": _by_torch,
    "newton_schulz": _by_newton_schulz,
}


def orthogonal(module: nn.Module, method: str = "householder", steps: int = 30) -> nn.Module:
    """Keeps `module.weight` (semi-)orthogonal by construction: all its singular values are 1 before and after training.

    Args:
        module: a layer with a `weight` of two or more axes, e.g. nn.Linear (512, 784); convolution kernels are
            orthogonal as the matrix (out, in * height * width), and need method "newton_schulz".
        method: "householder", "cayley" or "matrix_exp" (torch.nn.utils.parametrizations.orthogonal: exact for any
            parameter value), or "newton_schulz" (a free V, differentiated through `steps` iterations; starts at the
            nearest orthogonal matrix to the present weight, and needs V to stay well away from rank-deficient).
        steps: Newton-Schulz iterations, at least 1; the other methods ignore it.
    Returns:
        The same module, parametrized in place.
    Raises:
        ValueError: unknown method, steps < 1, no weight matrix, an already parametrized weight, or a convolution
            kernel with a method that torch would apply to each 3x3 window alone.
    Source: Anil et al. 2019 and the LNets code (Newton-Schulz in the forward pass); Lezcano-Casado 2019
        (arXiv 1909.09501) for the torch maps.
    >>> layer = orthogonal(nn.Linear(5, 3))
    >>> torch.dist(layer.weight @ layer.weight.T, torch.eye(3)).item() < 1e-5
    True
    """
    require_type("module", module, nn.Module, "a layer with a weight, e.g. nn.Linear(784, 512)")
    require("method", method, ORTHOGONAL_METHODS)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else None
        raise ValueError(f"{type(module).__name__} has no weight matrix to make orthogonal: weight shape {shape}")
    if parametrize.is_parametrized(module, "weight"):
        raise ValueError(f"{type(module).__name__}.weight is already parametrized")
    ORTHOGONAL_METHODS[method](module, method, steps)
    return module


# ---------------------------------------------------------------------------------------------------- builders


NORMS: dict[str, Callable[[tuple[int, ...]], list[nn.Module]]] = {  # name -> modules for samples of a shape
    "none": lambda shape: [],
    "layernorm": lambda shape: [nn.LayerNorm(shape)],  # learned scale and shift
    "layernorm_fixed": lambda shape: [nn.LayerNorm(shape, elementwise_affine=False)],
}


def mlp(
    inputs: int,
    outputs: int,
    width: int = 512,
    depth: int = 4,
    activation: str = "relu",
    *,
    bias: bool = True,
    norm: str = "none",
    init: str = "orthogonal",
    gain: float = 1.0,
    head_gain: float | None = None,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Flatten, `depth` hidden layers of linear, norm and activation, and a linear head.

    Args:
        inputs: features of one sample after flattening, e.g. 3072.
        outputs: outputs of the head, e.g. 10.
        width: units of each hidden layer; even for "maxmin" and "householder". "crelu" hands 2 width to the next layer.
        depth: hidden layers, 0 or more; 4 with width 512 is the paper's net.
        activation: name for `activation`.
        bias: whether linear layers have one.
        norm: between linear map and activation: "none", "layernorm" (learned scale and shift), or "layernorm_fixed".
        init, gain, head_gain: see `initialise`.
        seed: of the initialisation, a stream apart from torch.manual_seed(seed); torch's global generator is never
            touched.
        generator: used instead of the seed, and advanced.
    Returns:
        A plain Sequential from (batch, ...) to (batch, outputs).
    Raises:
        ValueError: a size that is not positive, a width that the activation cannot group, an unknown name.
    Source: arXiv 2606.09762, section 6 (MLP, depth 4, width 512, orthogonal initialisation).
    >>> sum(p.numel() for p in mlp(3072, 10).parameters())
    2366474
    """
    _require_sizes(inputs=inputs, outputs=outputs, width=width)
    require_range("depth", depth, 0)
    layers: list[nn.Module] = [nn.Flatten()]
    features = _append_linear_blocks(layers, inputs, [width] * depth, activation, bias, norm)
    layers.append(_bare(nn.Linear, features, outputs, bias=bias))
    return _initialised(layers, init, gain, head_gain, seed, generator)


def cnn(
    input_shape: Sequence[int] = (1, 28, 28),
    outputs: int = 10,
    channels: Sequence[int] = (16, 32),
    hidden: Sequence[int] = (128,),
    activation: str = "relu",
    *,
    kernel: int = 3,
    stride: int = 2,
    downsample: str = "stride",
    bias: bool = True,
    norm: str = "none",
    init: str = "orthogonal",
    gain: float = 1.0,
    head_gain: float | None = None,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Convolution blocks (convolution, norm, activation on channels), flatten, hidden linear blocks, and a linear head.

    A LeNet without pooling. Strides and pooling break isometry: a strided convolution drops or overlaps pixels
    whatever its kernel. downsample="unshuffle" keeps it: each stride x stride patch of pixels becomes channels (a
    permutation), and the convolution after it has stride 1. Zero padding breaks isometry at the border only.

    Args:
        input_shape: (channels, height, width) of one sample.
        outputs: outputs of the head.
        channels: output channels of each block, e.g. (16, 32); grouped by the activation, as are `hidden`.
        hidden: units of the linear layers between the last block and the head; may be empty.
        activation: name for `activation`.
        kernel: odd window of all convolutions, padded by kernel // 2.
        stride: down-sampling of each block; 1 keeps the size.
        downsample: "stride" (in the convolution) or "unshuffle" (PixelUnshuffle before it).
        bias, norm, init, gain, head_gain, seed, generator: as in `mlp`; layer norm is over (channels, height, width).
    Returns:
        A plain Sequential from (batch, *input_shape) to (batch, outputs).
    Raises:
        ValueError: a size that is not positive, an even kernel, a width that the activation cannot group, an image
            that "unshuffle" cannot divide, an unknown name.
    Source: LeCun et al. 1998 for the layout; the paper's CNN is not described (ours).
    >>> cnn()(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    require("downsample", downsample, DOWNSAMPLES)
    depth, height, width = input_shape
    _require_sizes(channels=depth, height=height, width=width, outputs=outputs, stride=stride, kernel=kernel)
    _require_sizes(**{f"channels[{i}]": size for i, size in enumerate(channels)})
    require_that(kernel % 2, "kernel", kernel, "odd")
    layers: list[nn.Module] = []
    for out in channels:
        before, conv_stride, more = DOWNSAMPLES[downsample](stride, height, width)
        convolution = _bare(nn.Conv2d, depth * more, out, kernel, conv_stride, padding=kernel // 2, bias=bias)
        layers += [*before, convolution]
        height, width = -(-height // stride), -(-width // stride)
        depth = _append_activation(layers, (out, height, width), activation, norm)
    layers.append(nn.Flatten())
    features = _append_linear_blocks(layers, depth * height * width, hidden, activation, bias, norm)
    layers.append(_bare(nn.Linear, features, outputs, bias=bias))
    return _initialised(layers, init, gain, head_gain, seed, generator)


def _strided(stride: int, height: int, width: int) -> tuple[list[nn.Module], int, int]:
    return [], stride, 1


def _unshuffled(stride: int, height: int, width: int) -> tuple[list[nn.Module], int, int]:
    if height % stride or width % stride:
        raise ValueError(f"stride {stride} does not divide an image of {height} x {width}")
    return ([nn.PixelUnshuffle(stride)] if stride > 1 else []), 1, stride**2


# name -> modules before the convolution, its stride, and how many times as many channels it sees
DOWNSAMPLES: dict[str, Callable[[int, int, int], tuple[list[nn.Module], int, int]]] = {
    "stride": _strided,
    "unshuffle": _unshuffled,
}


def _append_linear_blocks(
    layers: list[nn.Module], features: int, widths: Iterable[int], name: str, bias: bool, norm: str
) -> int:
    """Appends one block a width; returns the features that the last one hands on."""
    for width in widths:
        _require_sizes(width=width)
        layers.append(_bare(nn.Linear, features, width, bias=bias))
        features = _append_activation(layers, (width,), name, norm)
    return features


def _append_activation(layers: list[nn.Module], shape: tuple[int, ...], name: str, norm: str) -> int:
    """Appends norm and activation for samples of this shape, grouped on its first axis; returns the new first size."""
    require("norm", norm, NORMS)
    phi = activation(name, dim=-len(shape))
    width = shape[0]
    group = phi.group if isinstance(phi, GroupSort) else 2 if isinstance(phi, Householder) else 1
    if width % group:
        raise ValueError(f"width {width} is not divisible by group {group} of activation {name!r}")
    layers += [*NORMS[norm](shape), phi]
    return 2 * width if isinstance(phi, CReLU) else width


def _bare(kind: type[nn.Module], *args: int, **options: object) -> nn.Module:
    """The layer without torch's own initialisation, which would draw from the global generator."""
    return nn.utils.skip_init(kind, *args, device=torch.get_default_device(), **options)


def _initialised(
    layers: list[nn.Module],
    init: str,
    gain: float,
    head_gain: float | None,
    seed: int,
    generator: torch.Generator | None,
) -> nn.Sequential:
    require("init", init, INITS)
    model = nn.Sequential(*layers)
    initialise(model, init, gain, _init_generator(seed) if generator is None else generator, head_gain)
    return model


def _init_generator(seed: int) -> torch.Generator:
    """A stream of its own: inputs drawn after torch.manual_seed(seed) must not repeat the draws of the weights."""
    digest = hashlib.blake2b(f"dyniso.nets {seed}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        require_range(name, size, 1)
