"""Nets at the edge, where a method could divide by zero: silent layers, zero weights, low precision, a diverged net."""

import copy
import math

import pytest
import torch
from torch import nn

from dyniso.baselines import (
    CLASSES,
    Attached,
    Churn,
    ContinualBackprop,
    FeatureLogDet,
    FeatureRank,
    Layer,
    NormProjection,
    RowNorm,
    ShrinkPerturb,
    SpectralNorm,
    SpectralPenalty,
    attach,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", CLASSES)
def test_net_of_zero_weights_stays_finite_under_every_method(make_net, make_method, train, name, dtype):
    net, x = make_net("mlp")
    with torch.no_grad():
        for p in net[:4].parameters():
            p.zero_()
    net.to(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    train(net, x.to(dtype), optimizer, attach(make_method(name), net, optimizer))
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


@pytest.mark.parametrize("method", [SpectralNorm(), NormProjection(), RowNorm()])
def test_projection_leaves_a_zero_layer_zero_and_the_others_right(make_net, method):
    net, _ = make_net("mlp")
    at_work = attach(method, net)
    with torch.no_grad():
        net[0].weight.zero_()
        net[2].weight[3] = 0
    at_work.after_step()
    assert not net[0].weight.any() and not net[2].weight[3].any()
    assert bool(torch.isfinite(net[2].weight).all())


def test_spectral_norm_finds_a_layer_that_was_zero_when_it_was_attached():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.zeros_(net[0].weight)
    method = attach(SpectralNorm(iterations=5), net)
    with torch.no_grad():
        net[0].weight.copy_(3 * torch.eye(6))
    method.after_step()
    torch.testing.assert_close(net[0].weight.detach(), torch.eye(6))
    assert float(attach(SpectralPenalty(biases=False, head=False), net).penalty().detach()) == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("samples", [1, 4, 64])
def test_features_that_are_silent_have_no_rank_and_no_gradient(samples):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(net[0].bias, -99.0)
    method = attach(FeatureRank(strength=0.0, rank_strength=1.0), net)
    net(torch.rand(samples, 6))
    penalty = method.penalty()
    penalty.backward()
    assert float(penalty.detach()) == 0
    assert not any(p.grad is not None and p.grad.any() for p in net.parameters())


def test_dead_features_among_live_ones_give_a_finite_gradient():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[0].bias[:5] = -99.0
    method = attach(FeatureRank(strength=0.0, rank_strength=1.0), net)
    net(torch.randn(16, 6, generator=torch.Generator().manual_seed(0)))
    method.penalty().backward()
    assert bool(torch.isfinite(net[0].weight.grad).all()) and net[0].weight.grad.any()


@pytest.mark.parametrize("samples", [1, 4, 64])
def test_silent_features_have_the_log_determinant_of_the_ridge_and_no_gradient(samples):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(net[0].bias, -99.0)
    method = attach(FeatureLogDet(alpha=2.0, ridge=0.1), net)
    net(torch.rand(samples, 6))
    penalty = method.penalty()
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(-2 * math.log(0.1))
    assert not any(p.grad is not None and p.grad.any() for p in net.parameters())


def test_log_determinant_of_a_run_that_diverged_leaves_the_others_as_they_are():
    layers = [Layer("0", torch.rand(2, 4, 3), None), Layer("1", torch.rand(2, 2, 4), None)]
    net = Attached(FeatureLogDet(alpha=1.0), layers, seeds=[0, 1], batch_dims=1)
    h = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    clean, gradients = [], []
    for broken in (False, True):
        now = torch.where(torch.tensor([broken, False])[:, None, None], torch.inf, h)
        net.activations = [now]
        penalty = net.penalty()
        (gradient,) = torch.autograd.grad(penalty.sum(), h)
        clean.append(penalty[1]), gradients.append(gradient[1])
    assert torch.equal(*clean) and torch.equal(*gradients) and bool(gradients[0].any())


@pytest.mark.parametrize("settings", [{"alpha": math.nan}, {"alpha": math.inf}, {"ridge": 0.0}, {"ridge": -0.01}])
def test_log_determinant_refuses_what_has_none(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"FeatureLogDet.{name}="):
        FeatureLogDet(**settings)


def test_shrinking_to_nothing_leaves_nothing_of_a_net_that_diverged(make_net):
    net, _ = make_net("mlp")
    optimizer = torch.optim.Adam(net.parameters())
    method = attach(ShrinkPerturb(shrink=0.0, perturb=1.0), net, optimizer)
    with torch.no_grad():
        net[0].weight.fill_(torch.inf)
        net[2].weight.fill_(torch.nan)
    method.new_task()
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
    assert float(net[0].weight.detach().std()) == pytest.approx(6**-0.5 / 3**0.5, rel=0.3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_age_of_units_goes_on_beyond_what_low_precision_can_count(make_net, dtype):
    net, x = make_net("mlp")
    net.to(dtype)
    method = attach(ContinualBackprop(rate=1e-5, maturity=300), net)
    for _ in range(320):
        net(x.to(dtype))
        method.after_step()
    assert float(method.state["age"][1].max()) == 320
    assert float(method.state["due"][1]) == pytest.approx(20 * 8 * 1e-5, rel=1e-3)


def test_churn_leaves_batch_statistics_and_random_numbers_to_training(make_net, train):
    nets = []
    for method in (Churn(strength=0.0), None):
        net, x = make_net("cnn")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        train(net, x, optimizer, attach(method, net, optimizer) if method else None)
        nets.append(net)
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert nets[0].training and nets[0][1].training


def test_churn_of_a_net_with_dropout_that_did_not_move_is_zero(make_net):
    net, x = make_net("cnn")
    method = attach(Churn(strength=1.0), net)
    for module in net.modules():
        module.momentum = 0.0  # the statistics of the norms do not move either
    for _ in range(4):
        net(x)
        assert float(method.penalty().detach()) == 0


def test_churn_keeps_its_inputs_though_the_caller_fills_the_same_tensor_again(make_net):
    penalties = []
    for again in (False, True):
        net, x = make_net("mlp")
        method, buffer = attach(Churn(strength=1.0), net), x.clone()
        for step in range(4):
            buffer = buffer if again else buffer.clone()
            buffer.copy_(x + step)
            net(buffer)
            penalties.append(float(method.penalty().detach()))
            with torch.no_grad():
                net[0].weight.add_(0.1)
    assert penalties[:4] == penalties[4:] and penalties[3] > 0


class Pair(nn.Module):
    """A net that returns two things."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.first(x)
        return h, self.second(h)


def test_churn_of_a_net_that_returns_two_things_says_what_it_expects():
    net = Pair()
    method = attach(Churn(), net)
    net(torch.ones(2, 3))
    method.penalty()
    with pytest.raises(ValueError, match="the model's output='tuple'; it must be one tensor"):
        method.penalty()


@pytest.mark.parametrize("name", ["churn", "feature_rank", "feature_logdet"])
def test_penalty_before_any_pass_says_what_is_missing(make_net, make_method, name):
    net, _ = make_net("mlp")
    with pytest.raises(ValueError, match="call the model that it is attached to"):
        attach(make_method(name), net).penalty()


def test_activation_is_recorded_as_it_was_though_a_later_layer_works_in_place(make_net):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.9, inplace=True), nn.Linear(6, 2))
    method = attach(ContinualBackprop(), net)
    x = torch.rand(8, 4)
    net(x)
    torch.testing.assert_close(method.activations[0], net[:2](x).detach())


def test_zero_matrix_of_one_run_harms_no_other_run():
    W = torch.stack([torch.zeros(3, 3), 2 * torch.eye(3)])
    V = torch.ones(2, 2, 3)
    net = Attached(SpectralNorm(), [Layer("a", W, None), Layer("b", V, None)], seeds=[0, 1], batch_dims=1)
    net.after_step()
    torch.testing.assert_close(W, torch.stack([torch.zeros(3, 3), torch.eye(3)]))
    assert copy.deepcopy(net).state["left"][0].shape == (2, 3)
