"""Contracts of dyniso.theory.kernel_factors. Oracles: Jacobians by autograd, and the kernel of dyniso.entk."""

import math

import pytest
import torch
from torch import Tensor, nn

from dyniso.entk import backward_maps, empirical_ntk, feature_grams
from dyniso.nets import cnn, mlp
from dyniso.theory.kernel_factors import (
    Bounds,
    kernel_from_factors,
    kernel_over_positions,
    layer_stretches,
    many_sample_bounds,
    one_sample_bounds,
    sample_blocks,
    tightness,
)

seeds = pytest.mark.parametrize("seed", range(6))
activations = pytest.mark.parametrize("phi", ["maxmin", "abs", "groupsort-4", "relu"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def narrow_mlp(phi: str, seed: int = 0, inputs: int = 8, bias: bool = True) -> nn.Sequential:
    model = mlp(inputs, 3, 8, 3, phi, init="kaiming", seed=seed, bias=bias).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.2 * normal(*p.shape, seed=100 * seed + i))
    return model


def product_of_jacobians(model: nn.Sequential, x: Tensor) -> float:
    """prod_m kappa(M_m)^2, M_m = dz_m/dz_{m-1} by autograd, for one input."""
    ratios = []
    for layer in (1, 3, 5):
        z = model[: layer + 1](x)[0]
        M = torch.autograd.functional.jacobian(lambda z, k=layer: model[k + 2](model[k + 1](z)), z)
        ratios.append(float(torch.linalg.cond(M)) ** 2)
    return math.prod(ratios)


# ---------------------------------------------------------------------------------------------- the kernel itself


@activations
@pytest.mark.parametrize("bias", [True, False])
def test_kernel_spelled_out_is_the_kernel(phi, bias):
    model, x = narrow_mlp(phi, bias=bias), normal(5, 8)
    theta = empirical_ntk(model, x, method="jacobian")
    torch.testing.assert_close(kernel_from_factors(backward_maps(model, x), feature_grams(model, x)), theta)
    torch.testing.assert_close(kernel_over_positions(model, x), theta)


@pytest.mark.parametrize("phi", ["relu", "maxmin"])
@pytest.mark.parametrize("options", [{}, {"downsample": "unshuffle"}, {"bias": False}, {"stride": 1}])
def test_kernel_over_pairs_of_positions_is_the_kernel_of_a_cnn(phi, options):
    model = cnn((2, 8, 8), 3, (4, 6), (8,), phi, init="default", **options).double()
    x = normal(3, 2, 8, 8)
    torch.testing.assert_close(kernel_over_positions(model, x), empirical_ntk(model, x, method="jacobian"))


def test_factors_of_other_layers_are_refused():
    model, x = narrow_mlp("relu"), normal(2, 8)
    maps, grams = backward_maps(model, x), feature_grams(model, x)
    grams.pop("3")
    for function in (kernel_from_factors, many_sample_bounds):
        with pytest.raises(ValueError, match="maps of 1, 3, 5, 7, but grams of 1, 5, 7"):
            function(maps, grams)


def test_blocks_are_the_kernels_of_single_samples():
    model, x = narrow_mlp("maxmin"), normal(4, 8)
    single = torch.stack([empirical_ntk(model, one[None]) for one in x])
    torch.testing.assert_close(sample_blocks(empirical_ntk(model, x), 3), single)


# ------------------------------------------------------------------------------------------------------ theorem 1


@seeds
@pytest.mark.parametrize("phi", ["maxmin", "abs"])
def test_product_of_theorem_1_is_that_of_the_jacobians(phi, seed):
    model, x = narrow_mlp(phi, seed), normal(1, 8, seed=seed)
    norms = [K.diagonal() for K in feature_grams(model, x).values()]
    bounds = one_sample_bounds(norms, layer_stretches(model, x))
    assert float(bounds.product[0]) == pytest.approx(product_of_jacobians(model, x), rel=1e-6)


@seeds
@activations
def test_every_jacobian_stretches_within_its_layer_stretches(phi, seed):
    model, x = narrow_mlp(phi, seed), normal(3, 8, seed=seed)
    for layer, (alpha, beta) in zip((1, 3, 5), layer_stretches(model, x), strict=True):
        for i in range(3):
            z = model[: layer + 1](x[i : i + 1])[0]
            M = torch.autograd.functional.jacobian(lambda z, k=layer: model[k + 2](model[k + 1](z)), z)
            length = (M.T @ nn.functional.normalize(normal(len(M), 50, seed=seed), dim=0)).norm(dim=0)
            low, high = (bound.expand(3)[i] for bound in (alpha, beta))
            assert low * (1 - 1e-9) <= length.min() <= length.max() <= high * (1 + 1e-9)


@pytest.mark.parametrize("phi", ["maxmin", "relu"])
def test_layer_that_widens_loses_a_vector(phi):
    model = nn.Sequential(nn.Linear(4, 4), mlp(4, 2, 4, 1, phi)[2], nn.Linear(4, 6)).double()
    ((alpha, beta),) = layer_stretches(model, normal(2, 4))
    assert not alpha.any() and beta.min() > 0


def test_closed_gate_of_a_square_layer_makes_the_product_infinite_and_not_the_sums():
    model, x = narrow_mlp("relu"), normal(4, 8)
    bounds = one_sample_bounds([K.diagonal() for K in feature_grams(model, x).values()], layer_stretches(model, x))
    assert bounds.product.isinf().all() and bounds.sums.isfinite().all()


def test_other_activations_have_no_stretches():
    with pytest.raises(ValueError, match="Tanh below a Linear"):
        layer_stretches(narrow_mlp("tanh"), normal(2, 8))


def test_stretch_is_missing():
    with pytest.raises(ValueError, match="2 norms and 0 stretches"):
        one_sample_bounds([torch.ones(1), torch.ones(1)], [])


# ------------------------------------------------------------------------------------------------- both theorems


@seeds
@activations
def test_both_theorems_hold_in_either_expression(phi, seed):
    found = tightness(narrow_mlp(phi, seed, inputs=16), normal(4, 16, seed=seed))
    assert found.every_sample_holds
    assert found.block <= found.block_sums <= found.block_product
    assert found.kernel <= found.kernel_sums <= found.kernel_ratio
    assert found.smallest_over_floor >= 1 - 1e-9


@pytest.mark.parametrize("head_gain", [1.0, 3.0])
def test_both_expressions_of_theorem_1_are_attained_by_an_isometric_net(head_gain):
    model = mlp(20, 4, 16, 6, "maxmin", head_gain=head_gain).double()  # orthogonal to float32
    found = tightness(model, normal(3, 20))
    assert (found.block, found.block_sums, found.block_product) == pytest.approx((1, 1, 1), abs=1e-5)


def test_theorem_2_is_attained_by_one_linear_layer():
    model, x = nn.Sequential(nn.Linear(8, 3)).double(), normal(5, 8)
    maps, grams = backward_maps(model, x), feature_grams(model, x)
    kappa = torch.linalg.cond(empirical_ntk(model, x))
    torch.testing.assert_close(many_sample_bounds(maps, grams), Bounds(kappa, kappa))


def test_gram_without_full_rank_makes_theorem_2_infinite():
    model, x = nn.Sequential(nn.Linear(2, 3, bias=False)).double(), normal(5, 2)
    bounds = many_sample_bounds(backward_maps(model, x), feature_grams(model, x))
    assert bounds.sums == bounds.product == math.inf


def test_block_of_a_net_is_that_of_its_worst_sample():
    model, x = narrow_mlp("maxmin"), normal(4, 8)
    each = [tightness(model, sample[None]).block for sample in x]
    assert tightness(model, x).block == pytest.approx(max(each)) and max(each) > 1.1 * min(each)
