"""Every method on nets as people write them: it does something that can be seen, or says in one sentence why not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dyniso.baselines import CLASSES, FIRE, ContinualBackprop, L2Init, ReDo, Reset, Several, ShrinkPerturb, attach

NETS = ["mlp", "cnn", "functional", "residual", "transformer"]
ON_TRANSFORMERS = {"reset", "churn", "redo", "continual_backprop", "self_normalized_resets"}  # ask for no matrix

NEED_A_RATE = {"l2", "l2_init", "spectral_penalty", "parseval", "feature_rank", "feature_logdet", "churn"}
NEED_A_RATE |= {"norm_projection", "row_norm"}


def change(net, other) -> float:
    """Largest difference of any parameter."""
    return max(float((p - q).detach().abs().max()) for p, q in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("net_name", NETS)
@pytest.mark.parametrize("name", CLASSES)
def test_method_in_a_plain_loop_acts_or_says_what_it_would_leave_out(make_net, make_method, train, name, net_name):
    net, x = make_net(net_name)
    plain, _ = make_net(net_name)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    if net_name == "transformer" and name not in ON_TRANSFORMERS:
        with pytest.raises(ValueError, match=r"would leave out \['encoder.layers.0.self_attn.in_proj_weight'"):
            attach(make_method(name), net, optimizer, example=x)
        return
    train(net, x, optimizer, attach(make_method(name), net, optimizer, example=x))
    train(plain, x, torch.optim.SGD(plain.parameters(), lr=0.1))
    assert change(net, plain) > 1e-6
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


@pytest.mark.parametrize("name", CLASSES)
def test_method_on_named_layers_of_a_transformer_acts_on_these_alone(make_net, make_method, train, name):
    net, x = make_net("transformer")
    plain, _ = make_net("transformer")
    chosen = ["encoder.layers.0.linear1", "head"] if name not in ON_TRANSFORMERS - {"reset"} else [
        "encoder.layers.0.linear1"
    ]  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    method = attach(make_method(name), net, optimizer, example=x, layers=chosen)
    train(net, x, optimizer, method)
    pairs = zip(net.named_parameters(), plain.parameters(), strict=True)
    moved = {key.rpartition(".")[0] for (key, p), q in pairs if not torch.equal(p, q)}
    assert moved <= {*chosen, "encoder.layers.0.linear2"}  # which reads the units
    assert moved or name in NEED_A_RATE


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("net_name", ["mlp", "cnn"])
def test_example_tells_of_a_sequential_what_its_order_tells(make_net, make_method, train, name, net_name):
    nets = []
    for given in (False, True):
        net, x = make_net(net_name)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        train(net, x, optimizer, attach(make_method(name), net, optimizer, example=x if given else None))
        nets.append(net)
    assert change(*nets) == 0


@pytest.mark.parametrize(
    "name", ["redo", "fire", "reset", "feature_rank", "feature_logdet", "isometry", "spectral_norm"]
)
def test_method_that_needs_the_order_of_layers_asks_for_an_example(make_net, make_method, name):
    net, _ = make_net("functional")
    with pytest.raises(ValueError, match=r"the layers of Functional .* attach\(\.\.\., example=x\)"):
        attach(make_method(name), net)


# ------------------------------------------------------------------------------------ which units, and whose


def kill(layer: nn.Module, units: list[int]) -> None:
    with torch.no_grad():
        layer.weight[units] = 0
        layer.bias[units] = -1


def changed_rows(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    return (before != after).flatten(1).any(1).nonzero().flatten().tolist()


def test_dead_units_of_a_function_are_redrawn_in_the_layer_that_feeds_it_though_registered_out_of_order(make_net):
    net, x = make_net("functional")
    kill(net.first, [0, 2, 5])
    kill(net.second, [3])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    outputs = net(x).detach()
    method = attach(ReDo(threshold=0.0, every=1), net, example=x)
    net(x)
    method.after_step()
    assert changed_rows(before["first.weight"], net.first.weight) == [0, 2, 5]
    assert net.second.weight[3, [1, 3, 4, 6, 7]].all() and not net.second.weight[:, [0, 2, 5]].any()
    assert not net.head.weight[:, 3].any()
    torch.testing.assert_close(net(x), outputs)


def test_dead_units_inside_a_residual_block_are_redrawn_and_no_row_of_another_layer(make_net):
    net, x = make_net("residual")
    kill(net.inner, [0, 1, 6])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    method = attach(ReDo(threshold=0.0, every=1), net, example=x)
    net(x)
    method.after_step()
    assert changed_rows(before["inner.weight"], net.inner.weight) == [0, 1, 6]
    assert changed_rows(before["outer.weight"].T, net.outer.weight.T) == [0, 1, 6]
    assert torch.equal(net.stem.weight, before["stem.weight"]) and torch.equal(net.head.weight, before["head.weight"])


class Stream(nn.Module):
    """Activations on a stream and on its sum with a branch, as in a ResNet; only the branch's inner one has a layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.branch, self.head = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        h = F.gelu(self.stem(x))
        return self.head(F.relu(h + self.branch(F.relu(self.inner(h)))))


def test_activation_of_a_sum_is_refused_by_name_with_the_layers_that_can_be_had():
    net, x = Stream(), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"'relu_1': it reads the sum of .*'branch'.*It can with layers=\['inner'\]"):
        attach(ReDo(), net, example=x)
    assert [unit.layer.name for unit in attach(ReDo(), net, example=x, layers=["inner"]).units] == ["inner"]


class Branches(nn.Module):
    """Units that two layers read."""

    def __init__(self):
        super().__init__()
        self.trunk, self.actor, self.critic = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, x):
        h = F.relu(self.trunk(x))
        return self.actor(h), self.critic(h)


def test_model_in_evaluation_mode_is_read_as_it_is_in_training(make_net):
    net, x = make_net("transformer")
    method = attach(ReDo(threshold=0.0, every=1), net.eval(), example=x)
    net.train()(x)
    method.after_step()
    assert not net.encoder.layers[0].linear2.weight[:, 0].any()


def test_unit_that_two_heads_read_loses_its_weights_in_both():
    net, x = Branches(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    kill(net.trunk, [2])
    optimizer = torch.optim.Adam(net.parameters())
    method = attach(ReDo(threshold=0.0, every=1), net, optimizer, example=x)
    net(x)
    method.after_step()
    assert not net.actor.weight[:, 2].any() and not net.critic.weight[:, 2].any()
    assert net.actor.weight[:, [0, 1, 3, 4, 5]].all() and net.trunk.weight[2].all()


def test_reset_of_the_head_takes_every_head_and_no_other_layer():
    net, x = Branches(), torch.ones(2, 4)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    attach(Reset("head"), net, example=x).new_task()
    assert [name for name, p in net.named_parameters() if not torch.equal(p, before[name])] == [
        "actor.weight", "actor.bias", "critic.weight", "critic.bias",
    ]  # fmt: skip


def test_utility_counts_the_outgoing_weights_of_all_readers():
    net, x = Branches(), torch.ones(2, 4)
    with torch.no_grad():
        net.trunk.weight.abs_()
        net.trunk.bias.fill_(1.0)
        net.actor.weight[:, 3] = 0  # useless to the actor alone
        net.actor.weight[:, 1] = net.critic.weight[:, 1] = 1e-3
    method = attach(ContinualBackprop(rate=1 / 6, maturity=0), net, example=x)
    before = net.trunk.weight.detach().clone()
    net(x)
    method.after_step()
    assert changed_rows(before, net.trunk.weight) == [1]


def test_units_of_a_grouped_convolution_lose_their_column_in_their_own_group_alone():
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    with torch.no_grad():
        net[0].bias[4] = -100.0
        net[2].bias.fill_(9.0)  # so that its own units live
    before = net[2].weight.detach().clone()
    method = attach(ReDo(threshold=0.0, every=1), net)
    net(torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    method.after_step()
    expected = before.clone()
    expected[2:, 1] = 0  # channel 4 is the second of the second group, which feeds outputs 2 and 3
    assert torch.equal(net[2].weight, expected)


def test_activation_that_two_layers_share_counts_for_each_at_its_own_call():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(4, 6), relu, nn.Linear(6, 6), relu, nn.Linear(6, 2))
    with torch.no_grad():
        net[0].bias.fill_(9.0)  # so that all others live
        net[2].bias.fill_(99.0)
    kill(net[2], [1])
    before = [net[i].weight.detach().clone() for i in (0, 2)]
    method = attach(ReDo(threshold=0.0, every=1), net)
    net(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    method.after_step()
    assert (changed_rows(before[0], net[0].weight), changed_rows(before[1], net[2].weight)) == ([], [1])


def test_layer_without_an_activation_is_not_taken_for_the_next_one():
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    kill(net[1], [1])
    before = net[0].weight.detach().clone()
    method = attach(ReDo(threshold=0.0, every=1), net)
    net(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    method.after_step()
    assert torch.equal(net[0].weight, before)
    assert net[1].weight[1].all() and not net[3].weight[:, 1].any()


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)),  # tokens, then units, in a row
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Linear(8, 2)),  # reads positions
    ],
)
def test_units_that_are_not_read_in_order_are_refused(net):
    with pytest.raises(ValueError, match="in a pass only; give an example"):
        attach(ReDo(), net)


def test_recycled_unit_behind_a_batch_norm_fires_again(make_net):
    net, x = make_net("cnn")
    with torch.no_grad():
        net[1].bias[2] = -50.0  # the norm keeps it silent whatever its weights are
    method = attach(ReDo(threshold=0.0, every=1), net)
    net(x)
    method.after_step()
    net.eval()
    assert bool((net[:3](x)[:, 2] > 0).any())
    assert [p[2].item() for p in (net[1].bias, net[1].weight, net[1].running_var)] == [0, 1, 1]


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", CLASSES)
def test_compiled_model_works_or_is_refused_where_activations_are_read(make_net, make_method, name):
    net, x = make_net("mlp")
    compiled = torch.compile(net, backend="eager")
    if name in ("redo", "continual_backprop", "self_normalized_resets", "feature_rank", "feature_logdet"):
        with pytest.raises(ValueError, match="a compiled model hides; train the eager one"):
            attach(make_method(name), compiled)
        return
    method = attach(make_method(name), compiled)
    compiled(x)
    (compiled(x).square().mean() + method.penalty()).backward()
    method.after_step()


def test_step_without_a_pass_of_the_model_is_an_error_and_no_silence(make_net):
    net, _x = make_net("mlp")
    method = attach(ReDo(every=1), net)
    with pytest.raises(ValueError, match=r"ReDo saw 0 of 2 activations; call the model that it is attached to"):
        method.after_step()


class Tied(nn.Module):
    """Its outputs come from the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.first, self.second = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(self.second(F.relu(self.first(self.embedding(x)))), self.embedding.weight)


def test_head_that_is_no_layer_of_its_own_is_refused_and_not_passed_over():
    x = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"the model's output comes from \['embedding(\.weight)?'\], which is none of"):
        attach(Reset("head"), Tied(), example=x)
    with pytest.raises(ValueError, match=r"FIRE .* would leave out \['embedding.weight'\]"):
        attach(FIRE(), Tied(), example=x)
    assert [unit.layer.name for unit in attach(ReDo(), Tied(), example=x).units] == ["first"]


def test_idle_head_of_another_task_is_named(make_net):
    net, x = make_net("residual")
    net.other = nn.Linear(8, 3)
    with pytest.raises(ValueError, match=r"the example does not call \['other'\], so Reset cannot tell heads"):
        attach(Reset("head"), net, example=x)
    attach(Reset("head"), net, example=x, layers=["head"])


@pytest.mark.parametrize("method", [ReDo(), L2Init(), ShrinkPerturb()])
def test_optimizer_that_does_not_train_a_layer_is_refused_by_name(make_net, method):
    net, _ = make_net("mlp")
    half, rest = torch.optim.SGD(net[0].parameters(), lr=0.1), torch.optim.Adam(net[2:].parameters())
    with pytest.raises(ValueError, match=r"the optimizer does not train \['2', '4'\]; .*Several"):
        attach(method, net, half)
    attach(method, net, Several(half, rest))
    for p in net[2:].parameters():
        p.requires_grad_(False)
    attach(method, net, half)


def test_layer_name_that_does_not_exist_is_an_error_with_the_nearest(make_net):
    net, x = make_net("residual")
    with pytest.raises(ValueError, match=r"layers='iner'; .*did you mean 'inner'"):
        attach(ReDo(), net, example=x, layers=["iner"])


def test_attaching_with_an_example_leaves_the_model_as_it_was(make_net):
    net, x = make_net("cnn")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    attach(ReDo(), net, example=x).detach()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in net.parameters())
    assert not net._forward_hooks and not net[2]._forward_hooks


class Zeroed(nn.Module):
    def forward(self, x):
        return x.mul_(0.0)


def test_what_a_later_layer_does_in_place_is_not_taken_for_the_activation():
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 2)), torch.ones(3, 4)
    with torch.no_grad():
        method = attach(ReDo(), net, example=x)
        net[1].register_forward_hook(lambda _module, _args, output: Zeroed()(output), prepend=False)
        net(x)
    assert float(method.activations[0].amin()) > 0
