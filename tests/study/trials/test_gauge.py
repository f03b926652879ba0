"""Contracts of the gauge trial. Oracles: the symmetry of ReLU, and descent on a linear model, whose kernel stays."""

import copy

import pytest
import torch
from torch import nn

from dyniso.entk import empirical_ntk
from dyniso.kernels import loss_left, ntk_summary
from dyniso.nets import mlp
from dyniso.study.trials import gauge


def relu_net(**options) -> nn.Sequential:
    return mlp(10, 3, 16, 3, "relu", init="default", **options).double()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rescaled_net_computes_the_same_function_with_another_kernel():
    base, x = relu_net(), normal(8, 10)
    model = gauge.rescale_(copy.deepcopy(base), 1.5)
    torch.testing.assert_close(model(x), base(x), rtol=0, atol=1e-12)
    conditions = [float(ntk_summary(empirical_ntk(net, x)).condition_number) for net in (base, model)]
    assert conditions[1] > 3 * conditions[0]
    assert (model[3].weight - base[3].weight).abs().max() > 0.1


def test_deviation_of_zero_changes_no_weight():
    base = relu_net()
    model = gauge.rescale_(copy.deepcopy(base), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))


def test_activation_that_does_not_commute_with_a_scale_is_refused():
    with pytest.raises(ValueError, match="Tanh does not commute"):
        gauge.rescale_(mlp(4, 2, 4, 1, "tanh"), 1.0)


def test_descent_on_a_linear_model_removes_what_the_kernel_predicts():
    model, x, residual = nn.Linear(6, 3).double(), normal(4, 6), normal(4, 3, seed=1)
    theta = empirical_ntk(model, x)
    step = float(1 / ntk_summary(theta).eigenvalues[-1])
    left = loss_left(theta, residual.reshape(-1, 1), (1, 10), step)[:, 0]
    removed = gauge.loss_removed(model, x, residual, (1, 10), torch.optim.SGD, lr=step)
    assert removed == pytest.approx((1 - left).tolist(), abs=1e-12)


def test_training_leaves_the_model_as_it_was():
    model, x = relu_net(), normal(4, 10)
    before = copy.deepcopy(model.state_dict())
    gauge.loss_removed(model, x, normal(4, 3), (5,), torch.optim.Adam, lr=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_residuals_are_signs_a_tenth_of_them_and_centred_codes():
    labels = torch.tensor([0, 2, 1, 2])
    found = gauge.residuals(3, labels)
    assert set(found["random signs"].unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(found["a tenth of them"], found["random signs"] / 10)
    torch.testing.assert_close(found["true labels"].sum(1), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(found["true labels"].argmax(1), labels)


def test_experiment_reports_every_deviation_target_and_budget():
    base = mlp(784, 10, 8, 2, "relu").double()
    nets, runs = gauge.experiment(base, 4, (0.0, 1.0), seed=3)
    assert [(net["deviation"], net["seed"]) for net in nets] == [(0.0, 3), (1.0, 3)]
    assert nets[0]["change_of_f"] == 0 and nets[1]["change_of_f"] < 1e-10
    assert nets[1]["kappa_W2"] > nets[0]["kappa_W2"] == pytest.approx(1, abs=1e-5)
    assert len(runs) == 2 * 3 * len(gauge.BUDGETS)
    assert {run["predicted"] for run in runs if run["steps"] == 10} == {net["P_10"] for net in nets}
    of_ten = [run["removed"] for run in runs if run["target"] == "true labels" and run["deviation"] == 0]
    assert of_ten == sorted(of_ten) and 0 < of_ten[0] < of_ten[-1] <= 1


def test_scales_are_those_of_the_seed():
    one, again, other = (gauge.rescale_(relu_net(), 1.0, seed)[1].bias for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
