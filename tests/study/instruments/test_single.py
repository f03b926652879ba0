"""Contracts of dyniso.study.instruments.single, against explicit Hessians and Jacobians."""

import pytest
import torch
from torch import nn

from dyniso.entk import empirical_ntk
from dyniso.kernels import plasticity, without_constant_output
from dyniso.nets import mlp
from dyniso.study.instruments.single import (
    FLOOR,
    activation_jacobians,
    condition,
    curvature,
    hidden_features,
    kernel,
    lens,
    sharpness,
)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(0)).double()


def net(activation: str = "relu", norm: str = "none") -> nn.Sequential:
    return mlp(6, 3, 8, 2, activation, norm=norm, seed=1).double()


def test_sharpness_is_the_largest_hessian_eigenvalue():
    W = torch.diag(torch.tensor([1.0, -5.0, 3.0])).double()
    line = nn.Linear(3, 1, bias=False).double()
    loss = lambda: line.weight @ W @ line.weight.T / 2  # noqa: E731
    assert sharpness(line, lambda: loss().sum(), iterations=200) == pytest.approx(-5, rel=1e-6)


def test_curvature_is_that_of_the_cross_entropy_and_never_too_large(x):
    made, y = net("tanh"), torch.arange(12) % 3
    params = list(made.parameters())
    grads = torch.autograd.grad(nn.functional.cross_entropy(made(x), y), params, create_graph=True)
    flat = torch.cat([g.flatten() for g in grads])
    rows = [torch.cat([r.flatten() for r in torch.autograd.grad(g, params, retain_graph=True)]) for g in flat]
    exact = torch.linalg.eigvalsh(torch.stack(rows)).abs().max()
    found = sharpness(made, lambda: nn.functional.cross_entropy(made(x), y), iterations=600)
    assert abs(found) == pytest.approx(float(exact), rel=0.02)
    assert abs(curvature(made, x, y)["", "sharpness"]) <= float(exact)  # few iterations: a lower estimate


@pytest.mark.parametrize("activation", ["maxmin", "abs", "crelu", "groupsort-4"])
def test_isometric_activations_have_jacobians_with_singular_values_one(x, activation):
    for D in activation_jacobians(net(activation), x):
        torch.testing.assert_close(D, torch.ones_like(D))


def test_relu_jacobian_has_as_many_ones_as_open_gates(x):
    made = net()
    (D, _), h = activation_jacobians(made, x), hidden_features(made, x)[0]
    torch.testing.assert_close(D.sum(-1), (h > 0).sum(-1).double())


def test_layernorm_jacobian_has_a_null_direction_more_than_its_relu(x):
    plain, normed = (activation_jacobians(net("identity", norm), x)[0] for norm in ("none", "layernorm"))
    assert (plain > 1e-6).all()
    assert ((normed > 1e-3).sum(-1) <= 8 - 2).all()  # the constant and the pre-activation itself


def test_condition_stops_at_the_floor_where_float64_ends():
    assert float(condition(torch.diag(torch.tensor([4.0, 2.0])).double())) == 2
    assert float(condition(torch.diag(torch.tensor([1.0, 0.0])).double())) == pytest.approx(1 / FLOOR)


def test_kernel_summary_is_that_of_the_empirical_kernel_without_the_constant_output(x):
    made = net("maxmin")
    found = kernel(made, x)
    theta = without_constant_output(empirical_ntk(made, x), 3)
    lambdas = torch.linalg.eigvalsh(theta)
    assert found["", "kernel_max"] == pytest.approx(float(lambdas[-1]))
    assert found["", "kernel_condition"] == pytest.approx(float(lambdas[-1] / lambdas[0]), rel=1e-6)
    assert found["", "P_10"] == pytest.approx(float(plasticity(theta, 10)))
    norm = sum(float(p.square().sum()) for p in made.parameters()) ** 0.5
    assert found["", "weight_norm"] == pytest.approx(norm)


def test_lens_of_an_orthogonal_maxmin_net_is_isometric_backward(x):
    made = mlp(6, 3, 6, 3, "maxmin", seed=1).double()
    found = lens(made, x)
    for name, p in made.named_parameters():
        if p.ndim == 2:
            assert found[name, "mu_1"] == pytest.approx(1)
            assert found[name, "mu_2"] == pytest.approx(1)
    for layer in ("hidden1", "hidden2", "hidden3"):
        assert found[layer, "D_min"] == pytest.approx(1)
        assert found[layer, "block_condition"] == pytest.approx(1)
    assert found["hidden3", "gram_condition"] > 1.5


def test_lens_says_zero_where_no_gradient_comes_through(x):
    made = net()
    with torch.no_grad():
        made[3].bias.fill_(-100.0)
    assert lens(made, x)["hidden1", "block_condition"] == 0


def test_block_condition_is_that_of_the_middle_sample_and_one_bad_one_does_not_decide(x):
    made = net("relu")
    blocks = [float(kernel(made, sample[None])["", "block_condition"]) for sample in x]
    assert kernel(made, x)["", "block_condition"] == pytest.approx(sorted(blocks)[5])  # torch's median: the lower one
    assert sum(blocks) / 12 > 1.05 * sorted(blocks)[5]


def test_gram_of_the_lens_counts_the_bias(x):
    few = x[:4]  # fewer than units, so that the Gram matrix has full rank
    h = hidden_features(made := net("maxmin"), few)[-1]
    with_bias, without = (float(condition(h @ h.T + beta)) for beta in (1, 0))
    assert lens(made, few)["hidden2", "gram_condition"] == pytest.approx(with_bias)
    assert with_bias != pytest.approx(without, rel=0.05)
