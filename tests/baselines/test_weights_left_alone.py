"""What a method must not touch: frozen parameters stay as they are, computed weights are refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from dyniso import nets
from dyniso.baselines import CLASSES, L2Init, ReDo, ShrinkPerturb, WeightClipping, attach, make

FROZEN = {
    "a weight": ["2.weight"],
    "a bias": ["2.bias"],
    "a layer": ["2.weight", "2.bias"],
    "the first layer": ["0.weight", "0.bias"],
    "the head": ["4.weight", "4.bias"],
    "everything": ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"],
}


@pytest.mark.parametrize("when", ["before attach", "after attach"])
@pytest.mark.parametrize("names", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("name", CLASSES)
def test_frozen_parameters_are_moved_by_no_method(make_net, make_method, train, name, names, when):
    net, x = make_net("mlp")
    frozen = [net.get_parameter(key) for key in names]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    method = attach(make_method(name), net, optimizer) if when == "after attach" else None
    for p in frozen:
        p.requires_grad_(False)
    method = method or attach(make_method(name), net, optimizer)
    before = [p.detach().clone() for p in frozen]
    train(net, x, optimizer, method)
    assert all(torch.equal(p, b) for p, b in zip(frozen, before, strict=True))


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"churn", "l2"}))
def test_what_is_not_frozen_is_still_acted_on(make_net, make_method, train, name):
    nets_ = []
    for acts in (True, False):
        net, x = make_net("mlp")
        for p in net[0].parameters():
            p.requires_grad_(False)
        with torch.no_grad():
            net[2].bias[1] = -100.0
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        train(net, x, optimizer, attach(make_method(name), net, optimizer) if acts else None)
        nets_.append(net)
    pairs = zip(nets_[0].parameters(), nets_[1].parameters(), strict=True)
    assert any(not torch.equal(p, q) for p, q in pairs)


def test_penalty_counts_no_frozen_parameter(make_net):
    net, _ = make_net("mlp")
    for p in net[0].parameters():
        p.requires_grad_(False)
    expected = sum(p.square().sum() for p in net.parameters() if p.requires_grad) / 2
    torch.testing.assert_close(attach(make("l2", strength=1.0), net).penalty(), expected)


def test_unit_with_a_frozen_weight_behind_it_is_not_recycled_and_its_moments_stay(make_net, train):
    net, x = make_net("mlp")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    train(net, x, optimizer)
    net[2].weight.requires_grad_(False)
    before, moments = net[0].weight.detach().clone(), copy.deepcopy(optimizer.state[net[0].weight])
    method = attach(ReDo(threshold=0.5, every=1), net, optimizer)
    net(x)
    method.after_step()
    assert torch.equal(net[0].weight, before)
    assert torch.equal(optimizer.state[net[0].weight]["exp_avg"], moments["exp_avg"])


# ------------------------------------------------------------------------------------- weights that are computed


COMPUTED = {
    "weight_norm": lambda net: parametrizations.weight_norm(net[2]),
    "old weight_norm": lambda net: nn.utils.weight_norm(net[2]),
    "spectral_norm": lambda net: parametrizations.spectral_norm(net[2]),
    "old spectral_norm": lambda net: nn.utils.spectral_norm(net[2]),
    "torch's orthogonal": lambda net: parametrizations.orthogonal(net[2]),
    "our orthogonal": lambda net: nets.orthogonal(net[2]),
    "Newton-Schulz": lambda net: nets.orthogonal(net[2], "newton_schulz"),
    "pruning": lambda net: prune.l1_unstructured(net[2], "weight", 0.3),
    "pruned biases": lambda net: prune.l1_unstructured(net[2], "bias", 0.3),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize("name", CLASSES)
def test_layer_whose_weight_is_computed_from_others_is_refused_by_name(make_net, make_method, name, change):
    net, x = make_net("mlp")
    change(net)
    for example in (None, x):
        with pytest.raises(ValueError, match=r"cannot act on '2': its (weight|bias) is computed from other parameters"):
            attach(make_method(name), net, example=example)


@pytest.mark.parametrize("method", [WeightClipping(kappa=0.1), ShrinkPerturb(), L2Init()])
def test_layer_whose_weight_is_computed_can_be_left_out_by_naming_the_others(make_net, method):
    net, _x = make_net("mlp")
    parametrizations.weight_norm(net[2])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    at_work = attach(method, net, optimizer, layers=["0", "4"])
    before = net[2].weight.detach().clone()
    at_work.after_step()
    at_work.new_task()
    assert torch.equal(net[2].weight, before)


@pytest.mark.parametrize("name", CLASSES)
def test_lazy_layer_is_refused_before_it_has_weights_and_works_after(make_method, name):
    net = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"'0' \(LazyLinear\) has no weights yet; call the model once first"):
        attach(make_method(name), net)
    net(torch.ones(2, 5))
    attach(make_method(name), net)


@pytest.mark.parametrize("name", CLASSES)
def test_weight_that_two_layers_share_is_refused_by_both_names(make_method, name):
    tied = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"'0': it shares a parameter with '2'; '2': it shares a parameter with '0'"):
        attach(make_method(name), tied)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: parametrizations.spectral_norm(net[2]),
        lambda net: prune.l1_unstructured(net[2], "weight", 0.3),
        lambda net: setattr(net[2], "weight", nn.Parameter(torch.ones(8, 8))),
    ],
    ids=["parametrised", "pruned", "replaced"],
)
def test_weight_that_is_replaced_after_attach_is_an_error_and_no_work_on_what_nobody_uses(make_net, change):
    net, _ = make_net("mlp")
    method = attach(WeightClipping(), net)
    change(net)
    for call in (method.after_step, method.new_task, method.penalty):
        with pytest.raises(ValueError, match=r"layer '2' has another weight than when WeightClipping was attached"):
            call()


# ------------------------------------------------------------------------------------------------- whole numbers


@pytest.mark.parametrize("whole", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("redo", "every"),
        ("continual_backprop", "maturity"),
        ("self_normalized_resets", "observations"),
        ("self_normalized_resets", "longest"),
        ("fire", "steps"),
        ("spectral_norm", "iterations"),
        ("spectral_penalty", "iterations"),
        ("spectral_penalty", "power"),
        ("isometry", "window"),
    ],
)
def test_whole_numbers_of_numpy_are_settings_like_any_other(make_net, train, name, setting, whole):
    ends = []
    for value in (3, whole(3)):
        net, x = make_net("mlp")
        nn.init.zeros_(net[0].bias)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        train(net, x, optimizer, attach(make(name, **{setting: value}), net, optimizer))
        ends.append(net[2].weight.detach().clone())
    assert torch.equal(*ends)


def test_small_whole_number_of_numpy_does_not_overflow_as_steps_go_on(make_net):
    net, x = make_net("mlp")
    method = attach(ReDo(every=np.uint8(200)), net)
    method.steps = 300
    net(x)
    method.after_step()
    assert repr(make("self_normalized_resets", longest=np.uint8(255))).endswith("longest=255)")
