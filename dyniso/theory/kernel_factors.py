"""What the factors of the kernel, backward maps B_l and feature Grams K_l, say about its condition number.

For layers z_l = W_l h_{l-1} + b_l with h_l = phi(z_l), and kernels of n samples of C outputs:

    Theta = sum_l B_l (K_l (x) I) B_l',   B_l = diag(B_l(x_1), ..., B_l(x_n))
    B_l(x) = M_L ... M_{l+1},   M_m = W_m D_{m-1}

Two theorems bound kappa of one sample's block by the stretches of the M_m, and kappa of the whole by the B_l and K_l.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..activations import Abs, GroupSort, Householder
from ..entk import backward_maps, empirical_ntk, feature_grams
from ..kernels import ntk_summary

ROUNDING = 1e-12  # relative: a float64 singular value or eigenvalue below this is nothing but rounding
ORTHOGONAL = (
    Abs,
    GroupSort,
    Householder,
)  # activations whose Jacobian D is square with D D' = I; MaxMin is a GroupSort

# ------------------------------------------------------------------------------------------ the kernel, spelled out


def kernel_from_factors(maps: Mapping[str, Tensor], grams: Mapping[str, Tensor]) -> Tensor:
    """The sum over linear layers of <h, h'> + beta times B B', one einsum a layer.

    Args:
        maps: B_l, shape (n, C, units), from `dyniso.entk.backward_maps`.
        grams: K_l, shape (n, n), of the same layers, from `dyniso.entk.feature_grams`.
    Returns:
        Theta, shape (n C, n C), row i C + c.
    Raises:
        ValueError: the two name other layers.
    Source: derived in the book's chapter on isometry and the eNTK.
    >>> model, x = nn.Linear(3, 2), torch.eye(3)
    >>> torch.allclose(kernel_from_factors(backward_maps(model, x), feature_grams(model, x)), empirical_ntk(model, x))
    True
    """
    if maps.keys() != grams.keys():
        raise ValueError(f"maps of {', '.join(maps)}, but grams of {', '.join(grams)}")
    terms = [torch.einsum("ij,icu,jdu->icjd", grams[layer], B, B) for layer, B in maps.items()]
    return torch.stack(terms).sum(0).flatten(2).flatten(0, 1)


@torch.no_grad()
def kernel_over_positions(model: nn.Sequential, x: Tensor) -> Tensor:
    """The sum over layers and over pairs of positions at which a layer's weight is used.

        Theta_l(x, x') = sum_{p,q} ( <h_p(x), h_q(x')> + beta ) B_p(x) B_q(x')'

    It never forms a per-sample gradient; memory n^2 C^2 and, for one layer at a time, n^2 positions^2.

    Args:
        model: layers in the order of their calls; Linear ones see (n, features), Conv2d ones have zero padding given
            as numbers and neither groups nor dilation. All parameters count.
        x: inputs, shape (n, ...).
    Returns:
        Theta, shape (n C, n C), row i C + c.
    Raises:
        ValueError: as `dyniso.entk.backward_maps`.
    Source: derived in the book's chapter on isometry and the eNTK.
    >>> model, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), torch.rand(3, 1, 4, 4)
    >>> torch.allclose(kernel_over_positions(model, x), empirical_ntk(model, x), atol=1e-5)
    True
    """
    maps, h = backward_maps(model, x), x
    terms = []
    for name, layer in model.named_children():
        if name in maps:
            seen = _positions(layer, h)
            B = maps[name].unflatten(2, (-1, seen.shape[2]))  # (n, C, units, positions)
            inner = torch.einsum("ikp,jkq->ipjq", seen, seen) + (layer.bias is not None)
            terms.append(torch.einsum("icup,ipjq,jduq->icjd", B, inner, B))
        h = layer(h)
    return torch.stack(terms).sum(0).flatten(2).flatten(0, 1)


def _positions(layer: nn.Module, h: Tensor) -> Tensor:
    """What a layer sees at each position, (n, fan-in, positions). A linear layer has one."""
    if not isinstance(layer, nn.Conv2d):
        return h[..., None]
    return F.unfold(h, layer.kernel_size, padding=layer.padding, stride=layer.stride)  # type: ignore[arg-type]


def sample_blocks(theta: Tensor, outputs: int) -> Tensor:
    """Theta(x, x) of every sample: the diagonal blocks, shape (n, C, C), of a kernel (n C, n C).

    >>> sample_blocks(torch.arange(16.0).view(4, 4), 2)
    tensor([[[ 0.,  1.],
             [ 4.,  5.]],
    <BLANKLINE>
            [[10., 11.],
             [14., 15.]]])
    """
    return theta.unflatten(0, (-1, outputs)).unflatten(2, (-1, outputs)).diagonal(0, 0, 2).permute(2, 0, 1)


# ------------------------------------------------------------------------------------------------------ two bounds


class Bounds(NamedTuple):
    """Two upper bounds on a condition number; `sums` is never above `product`."""

    sums: Tensor  # the ratio of the two sums over layers
    product: Tensor  # the last expression: a product over layers (one sample), the largest ratio (many samples)


def one_sample_bounds(norms: Sequence[Tensor], stretches: Sequence[tuple[Tensor, Tensor]]) -> Bounds:
    """Theorem 1: kappa of Theta(x, x), from how far each layer's Jacobian stretches.

        kappa  <=  sum_l a_l prod_{m>l} beta_m^2 / sum_l a_l prod_{m>l} alpha_m^2  <=  prod_m (beta_m / alpha_m)^2

    Args:
        norms: a_l = ||h_{l-1}||^2 + beta for l = 1 ... L, each of shape (n,).
        stretches: alpha_m and beta_m for m = 2 ... L: extremes of ||M_m' v|| over unit v, shape (n,) or ().
    Returns:
        Bounds, each of shape (n,), unitless. `product` is infinite where an alpha is nothing but rounding.
    Raises:
        ValueError: other than one stretch less than norms.
    Source: derived in the book's chapter on isometry and the eNTK.
    >>> one, two = torch.ones(1), torch.full((1,), 2.0)
    >>> one_sample_bounds([one, one], [(one, two)])
    Bounds(sums=tensor([2.5000]), product=tensor([4.]))
    """
    if len(stretches) != len(norms) - 1:
        raise ValueError(f"{len(norms)} norms and {len(stretches)} stretches; expected one stretch less than norms")
    high, low, product = norms[0], norms[0], torch.ones_like(norms[0])
    for a, (alpha, beta) in zip(norms[1:], stretches, strict=True):
        product = product * _ratio_or_infinite(beta, alpha) ** 2
        high, low = a + beta**2 * high, a + alpha**2 * low
    return Bounds(high / low, product)


def many_sample_bounds(maps: Mapping[str, Tensor], grams: Mapping[str, Tensor]) -> Bounds:
    """Theorem 2: kappa of the whole kernel, from the backward maps as wholes and the Gram matrices.

        kappa  <=  sum_l lmax(K_l) max_i smax(B_l(x_i))^2 / sum_l lmin(K_l) min_i smin(B_l(x_i))^2
               <=  the largest ratio of two terms of the same l

    Args:
        maps, grams: as in `kernel_from_factors`.
    Returns:
        Bounds, each a number; infinite where every lower term is nothing but rounding.
    Raises:
        ValueError: the two name other layers.
    Source: derived in the book's chapter on isometry and the eNTK.
    >>> many_sample_bounds({"0": torch.eye(2).expand(3, 2, 2)}, {"0": torch.diag(torch.tensor([1.0, 1.0, 4.0]))})
    Bounds(sums=tensor(4.), product=tensor(4.))
    """
    if maps.keys() != grams.keys():
        raise ValueError(f"maps of {', '.join(maps)}, but grams of {', '.join(grams)}")
    k = torch.stack([torch.linalg.eigvalsh(grams[layer])[[0, -1]] for layer in maps])  # (L, 2): least, largest
    s = torch.stack([torch.stack(torch.aminmax(torch.linalg.svdvals(B))) for B in maps.values()])
    low, high = (k * s**2).unbind(1)
    real = (k[:, 0] > ROUNDING * k[:, 1]) & (s[:, 0] > ROUNDING * s[:, 1])
    low = torch.where(real, low, 0.0)
    return Bounds(high.sum() / low.sum(), (high / low).max())


@torch.no_grad()
def layer_stretches(model: nn.Sequential, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """alpha_m and beta_m of every linear layer after the first, for `one_sample_bounds`.

    Tight for orthogonal D and for W that is not square. For ReLU in a square layer alpha is 0 as soon as one gate is
    closed, else the least singular value; beta is then the largest of W, an upper bound.

    Args:
        model: Flatten, then Linear layers with an activation between each two: ReLU, or one with orthogonal D.
        x: inputs, shape (n, ...).
    Returns:
        Pairs of shape (n,) or (), from the second layer to the head.
    Raises:
        ValueError: another layer between two Linear ones (names it).
    Source: derived in the book's chapter on isometry and the eNTK.
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = model[2].weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> layer_stretches(model, torch.zeros(1, 2))[0][1] <= 5
    tensor([True])
    """
    return list(_stretches(model, x))


def _stretches(model: nn.Sequential, h: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for below, layer in pairwise(model):
        h = below(h)
        if not isinstance(layer, nn.Linear) or isinstance(below, nn.Flatten):
            continue
        if isinstance(below, nn.ReLU):
            yield _gated_stretch(layer.weight, h > 0)
        elif isinstance(below, ORTHOGONAL):
            sigma = torch.linalg.svdvals(layer.weight)
            yield sigma[-1] if len(layer.weight) <= h.shape[1] else sigma.new_zeros(()), sigma[0]
        else:
            raise ValueError(f"{type(below).__name__} below a Linear; expected ReLU or an orthogonal Jacobian")


def _gated_stretch(W: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and beta of M = W D for gates (n, in) that are open or closed."""
    if len(W) == W.shape[1]:  # a closed gate of a square layer loses a direction
        sigma = torch.linalg.svdvals(W)
        return torch.where(gates.all(1), sigma[-1], 0.0), sigma[0]
    sigma = torch.linalg.svdvals(W * gates[:, None])
    lost = len(W) > W.shape[1]  # a layer that widens has vectors v with W' v = 0
    return sigma[:, -1] * (not lost), sigma[:, 0]


def _ratio_or_infinite(high: Tensor, low: Tensor) -> Tensor:
    return torch.where(low > ROUNDING * high, high / low, math.inf)


# ---------------------------------------------------------------------------------- both theorems on one network


class Tightness(NamedTuple):
    """Condition numbers of a net, measured and bounded; of blocks the worst sample's."""

    block: float  # kappa of Theta(x, x)
    block_sums: float
    block_product: float
    kernel: float  # kappa of Theta
    kernel_sums: float
    kernel_ratio: float
    smallest_over_floor: float  # lambda_min(Theta) over lambda_min(K_L), at least 1
    every_sample_holds: bool  # theorem 1 in both expressions, on each sample


def tightness(model: nn.Sequential, x: Tensor) -> Tightness:
    """How near both theorems come to the condition numbers that they bound.

    Args:
        model: as in `layer_stretches`, float64, with a head that has a trained weight and bias.
        x: inputs, shape (n, ...).
    Raises:
        ValueError: as `layer_stretches` and `dyniso.entk.empirical_ntk`.
    Source: both theorems are derived in the book's chapter on isometry and the eNTK.
    >>> from dyniso.nets import mlp
    >>> found = tightness(mlp(8, 2, width=8, depth=2, activation="maxmin").double(), torch.eye(8).double()[:3])
    >>> round(found.block, 4), found.kernel <= found.kernel_sums, found.every_sample_holds
    (1.0, True, True)
    """
    theta, maps, grams = empirical_ntk(model, x), backward_maps(model, x), feature_grams(model, x)
    block = torch.linalg.cond(sample_blocks(theta, len(theta) // len(x)))
    one = one_sample_bounds([K.diagonal() for K in grams.values()], layer_stretches(model, x))
    spectrum, many = ntk_summary(theta), many_sample_bounds(maps, grams)
    floor = torch.linalg.eigvalsh(list(grams.values())[-1])[0]
    holds = (block <= one.sums * (1 + 1e-9)) & (one.sums <= one.product * (1 + 1e-9))
    return Tightness(
        block=float(block.max()),
        block_sums=float(one.sums.max()),
        block_product=float(one.product.max()),
        kernel=float(spectrum.condition_number),
        kernel_sums=float(many.sums),
        kernel_ratio=float(many.product),
        smallest_over_floor=float(spectrum.eigenvalues[0] / floor),
        every_sample_holds=bool(holds.all()),
    )
