"""Networks whose singular values are chosen, inputs whose lengths and cosines are, and what their kernels are like."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import nets
from ...checks import require_range
from ...entk import empirical_ntk, feature_grams
from ...initialisation import orthogonal_
from ...kernels import ntk_summary, plasticity
from ...theory.kernel_factors import sample_blocks
from .. import data
from ..tasks import standardise

Law = Callable[[int], Tensor]  # how many singular values -> the values, float64


def constant(value: float) -> Law:
    """All singular values alike."""
    return lambda size: torch.full((size,), value, dtype=torch.float64)


def some(count: int, value: float) -> Law:
    """`count` of the singular values, or all if there are fewer, differ from 1."""
    return lambda size: torch.ones(size, dtype=torch.float64).index_fill(0, torch.arange(min(count, size)), value)


def share(fraction: float, value: float) -> Law:
    """A fraction of the singular values, rounded down, differs from 1."""
    return lambda size: some(int(fraction * size), value)(size)


def power_law(scale: float, exponent: float) -> Law:
    """scale / i^exponent for i = 1, 2, ...: few large, many small."""
    return lambda size: scale * torch.arange(1.0, size + 1, dtype=torch.float64) ** -exponent


class Recipe(NamedTuple):
    """A net by its activation and the singular values of its hidden layers and head; None is He's Gaussian law."""

    activation: str
    hidden: Law | None
    head: Law | None


ONES, SPIKES, DECAY = constant(1.0), some(5, 5.0), power_law(8.0, 0.7)
NETWORKS = {  # the head is orthogonal unless the name says otherwise
    "MaxMin, orthogonal": Recipe("maxmin", ONES, ONES),
    "MaxMin, spikes": Recipe("maxmin", SPIKES, ONES),
    "MaxMin, spikes in head": Recipe("maxmin", ONES, SPIKES),
    "MaxMin, power law": Recipe("maxmin", DECAY, ONES),
    "ReLU, orthogonal, gain 1": Recipe("relu", ONES, ONES),
    "ReLU, orthogonal, gain √2": Recipe("relu", constant(2**0.5), ONES),
    "ReLU, He Gaussian": Recipe("relu", None, None),
    "ReLU, power law": Recipe("relu", DECAY, ONES),
}


@functools.lru_cache(maxsize=8)
def singular_vectors(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Uniformly random singular vectors of a matrix, U (rows, m) and V' (m, columns) with m the smaller; float64.

    The same for every spectrum. Kept for the next call: to be read only.
    """
    rank = min(rows, columns)
    U, V = torch.empty(rows, rank, dtype=torch.float64), torch.empty(rank, columns, dtype=torch.float64)
    return tuple(  # type: ignore[return-value]
        orthogonal_(part, generator=torch.Generator().manual_seed(2 * seed + k)) for k, part in enumerate((U, V))
    )


def matrix(rows: int, columns: int, law: Law, seed: int = 0) -> Tensor:
    """A matrix with the singular values of a law and random singular vectors, shape (rows, columns), float64.

    >>> torch.linalg.svdvals(matrix(3, 2, some(1, 4.0)))
    tensor([4.0000, 1.0000], dtype=torch.float64)
    """
    U, V = singular_vectors(rows, columns, seed)
    return (U * law(U.shape[1])) @ V


def network(recipe: Recipe, inputs: int = 784, outputs: int = 10, width: int = 512, seed: int = 0) -> nn.Sequential:
    """A net of three hidden layers with prescribed singular values, float64; biases zero.

    All nets of one seed and shape share their singular vectors, except He's.

    Args:
        recipe: activation and laws.
        inputs, outputs, width: as in `dyniso.nets.mlp`.
        seed: of the singular vectors, and of He's weights.
    Raises:
        ValueError: as `dyniso.nets.mlp`.
    >>> model = network(Recipe("relu", constant(2.0), ONES), inputs=8, outputs=2, width=4)
    >>> torch.linalg.svdvals(model[3].weight.detach())
    tensor([2.0000, 2.0000, 2.0000, 2.0000], dtype=torch.float64)
    """
    model = nets.mlp(inputs, outputs, width, 3, recipe.activation, init="kaiming", seed=seed).double()
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for depth, (layer, law) in enumerate(zip(layers, (*(recipe.hidden,) * 3, recipe.head), strict=True)):
        if law is not None:
            rows, columns = layer.weight.shape
            layer.weight.data.copy_(matrix(rows, columns, law, 10 * seed + depth))
    return model


def sphere(count: int, norm_squared: float, correlation: float = 0.0, size: int = 784, seed: int = 0) -> Tensor:
    """Random inputs of equal length, each pair with the same expected cosine.

    Args:
        count: number of inputs.
        norm_squared: of every input. A bias adds 1 to each inner product: short inputs look alike to a kernel.
        correlation: expected cosine, in [0, 1].
        size: numbers of an input.
    Returns:
        Shape (count, size), float64.
    Raises:
        ValueError: correlation outside [0, 1].
    >>> sphere(3, 4.0).norm(dim=1)
    tensor([2.0000, 2.0000, 2.0000], dtype=torch.float64)
    """
    require_range("correlation", correlation, 0.0, 1.0, kind=float)
    g = torch.Generator().manual_seed(1000 + seed)
    x = math.sqrt(1 - correlation) * torch.randn(count, size, generator=g, dtype=torch.float64)
    x += math.sqrt(correlation) * torch.randn(1, size, generator=g, dtype=torch.float64)
    return x * math.sqrt(norm_squared) / x.norm(dim=1, keepdim=True)


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random standardised MNIST images (count, 784), float64, and their labels (count,)."""
    digits = data.load("mnist-small")
    rows = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))[:count]
    return standardise(digits)[rows].double(), torch.from_numpy(digits.y)[rows]


def measure(model: nn.Sequential, x: Tensor) -> dict[str, float]:
    """What the kernel of a net is like on one batch.

    Args:
        model: float64, of linear layers.
        x: inputs, shape (n, ...).
    Returns:
        kernel (condition number), block (the same within a sample, mean over samples), mean_over_max (of the
        eigenvalues), P_10, and last_gram (condition number of the Gram matrix that the head sees).
    Raises:
        ValueError: as `dyniso.entk.empirical_ntk`.
    >>> found = measure(network(NETWORKS["MaxMin, orthogonal"], 8, 2, 8), sphere(3, 1.0, size=8))
    >>> round(found["block"], 6)
    1.0
    """
    theta = empirical_ntk(model, x)
    spectrum, last = ntk_summary(theta), list(feature_grams(model, x).values())[-1]
    return {
        "kernel": float(spectrum.condition_number),
        "block": float(torch.linalg.cond(sample_blocks(theta, len(theta) // len(x))).mean()),
        "mean_over_max": float(spectrum.mean_over_max),
        "P_10": float(plasticity(theta, 10)),
        "last_gram": float(torch.linalg.cond(last)),
    }


def survey(
    networks: Mapping[str, Recipe],
    inputs: Mapping[str, Callable[[int], Tensor]],
    *,
    seeds: int = 1,
    width: int = 512,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """`measure` of every network on every kind of inputs.

    Args:
        networks: name -> recipe.
        inputs: name -> seed -> a batch of one size of input, e.g. (64, 784).
        seeds: how many, 0 to seeds - 1: of the singular vectors and of the batch.
        width: of the hidden layers.
        device: where to compute.
    Returns:
        Rows with network, inputs, seed and the numbers of `measure`.
    Raises:
        ValueError: as `network` and `measure`.
    """
    rows = []
    for seed, (name, recipe) in product(range(seeds), networks.items()):
        batches = {kind: draw(seed).to(device) for kind, draw in inputs.items()}
        size = next(iter(batches.values())).shape[1]
        model = network(recipe, size, width=width, seed=seed).to(device)
        rows += [{"network": name, "inputs": kind, "seed": seed, **measure(model, x)} for kind, x in batches.items()]
    return rows
