"""What is left of a unit that is replaced: nothing, in the weights, in norms, and in any optimizer's memory."""

import pytest
import torch
from torch import nn

from dyniso.baselines import (
    Attached,
    ContinualBackprop,
    Layer,
    PerRun,
    ReDo,
    Reset,
    SelfNormalizedResets,
    Several,
    ShrinkPerturb,
    Units,
    attach,
    clear,
)
from dyniso.nets import mlp
from dyniso.optim import AdamO, isometry_groups
from dyniso.study.stack import Stack

DEAD = {0: [1, 3], 2: [0, 4], 4: [2]}  # of layers next to one another
REPLACING = {
    "redo": ReDo(threshold=0.0, every=1),
    "continual_backprop": ContinualBackprop(rate=0.25, maturity=0),
    "self_normalized_resets": SelfNormalizedResets(rejection=1.0, observations=1),
}


@pytest.fixture
def deep() -> nn.Sequential:
    """Three hidden layers of 8 with dead units in each; all others fire."""
    torch.manual_seed(0)
    net = nn.Sequential(*[part for _ in range(3) for part in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 3))
    with torch.no_grad():
        for layer, units in DEAD.items():
            net[layer].bias.fill_(9.0)
            net[layer].bias[units] = -99.0
    return net


def recycled(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    return (before != after).all(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("method", REPLACING.values(), ids=REPLACING)
def test_outgoing_weights_of_a_replaced_unit_are_zero_also_to_a_unit_that_is_replaced_with_it(deep, method):
    x = torch.rand(16, 8, generator=torch.Generator().manual_seed(1))
    at_work = attach(method, deep)
    before = {layer: deep[layer].weight.detach().clone() for layer in DEAD}
    deep(x)
    at_work.after_step()
    for layer, units in DEAD.items():
        chosen = [u for u in range(8) if not deep[layer + 2].weight[:, u].any()]
        assert set(chosen) >= (set(units) if method.name == "redo" else set()) and chosen
        fresh = deep[layer].weight[chosen] != before[layer][chosen]
        live = [u for u in range(8) if layer == 0 or deep[layer].weight[:, u].any()]
        assert fresh[:, live].all() and not deep[layer].bias[chosen].any()


def test_redo_leaves_the_function_as_it_was_with_dead_units_in_adjacent_layers(deep):
    x = torch.rand(16, 8, generator=torch.Generator().manual_seed(1))
    method = attach(ReDo(threshold=0.0, every=1), deep)
    before = deep(x).detach()
    method.after_step()
    torch.testing.assert_close(deep(x), before)


def test_replaced_unit_that_got_a_neighbours_mean_contribution_has_zero_bias_all_the_same(deep):
    method = attach(ContinualBackprop(rate=1.0, maturity=0), deep)  # replaces every unit
    deep(torch.rand(16, 8, generator=torch.Generator().manual_seed(1)))
    method.after_step()
    assert not any(deep[layer].bias.any() for layer in DEAD)
    assert deep[6].bias.any()


def test_mean_contribution_keeps_the_mean_output(deep):
    x = torch.rand(64, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        deep[4].weight.mul_(1e-3)  # so that no unit of the third layer leaves the linear range
        deep[4].bias.fill_(1.0)
    net = deep[4:]
    method = attach(ContinualBackprop(rate=1 / 8, maturity=0), net)
    before = net(x).mean(0).detach()
    method.after_step()
    assert int((net[2].weight == 0).all(0).sum()) == 1
    torch.testing.assert_close(net(x).mean(0), before)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d, lambda n: nn.GroupNorm(2, n), nn.RMSNorm])
def test_learned_scale_and_shift_of_a_norm_start_anew_for_a_replaced_unit_alone(norm):
    net = nn.Sequential(nn.Linear(4, 6), norm(6), nn.ReLU(), nn.Linear(6, 2))
    kept = dict(net[1].named_parameters()) | dict(net[1].named_buffers())
    with torch.no_grad():
        for value in kept.values():
            value.fill_(7)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    net(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    values = {name: value.clone() for name, value in kept.items()}
    attach(ReDo(), net, optimizer).reset_units({0: torch.arange(6) == 2})
    for name, value in kept.items():
        if value.ndim:
            assert float(value[2].detach()) == (1.0 if name in ("weight", "running_var") else 0.0), name
            assert torch.equal(value[[0, 1, 3, 4, 5]], values[name][[0, 1, 3, 4, 5]])
    assert float(optimizer.state[net[1].weight]["exp_avg"][2]) == 0


@pytest.mark.parametrize("norm", ["none", "layernorm"])
def test_net_of_a_stack_is_recycled_like_the_net_alone(norm):
    net = mlp(6, 3, 8, 2, norm=norm, seed=1)
    with torch.no_grad():
        layer = net[2] if norm == "layernorm" else net[1]
        layer.bias[[2, 5]] = -99.0
    stack = Stack([net, mlp(6, 3, 8, 2, norm=norm, seed=2)], torch.device("cpu"))
    x = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(3))
    together = stack.attach(ReDo(threshold=0.0, every=1), None, [7, 8])
    stack(x, together.activations)
    together.after_step()
    alone = attach(ReDo(threshold=0.0, every=1), net, seed=7)
    net(x[0])
    alone.after_step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(stack.params[name][0], p)
    assert not layer.bias[[2, 5]].any()


# --------------------------------------------------------------------------------------- the optimizer's memory

STATES = {  # optimizer -> what of its state is at its start after a reset
    "sgd": (lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9), {"momentum_buffer": 0.0}),
    "adam": (lambda ps: torch.optim.Adam(ps), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
    "amsgrad": (
        lambda ps: torch.optim.Adam(ps, amsgrad=True),
        {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0},
    ),
    "fused": (lambda ps: torch.optim.Adam(ps, fused=True), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
    "foreach": (lambda ps: torch.optim.Adam(ps, foreach=True), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
    "adamw": (lambda ps: torch.optim.AdamW(ps), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
    "nadam": (lambda ps: torch.optim.NAdam(ps), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
    "radam": (lambda ps: torch.optim.RAdam(ps), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
    "adamax": (lambda ps: torch.optim.Adamax(ps), {"exp_avg": 0.0, "exp_inf": 0.0}),
    "adadelta": (lambda ps: torch.optim.Adadelta(ps), {"square_avg": 0.0, "acc_delta": 0.0}),
    "adagrad": (lambda ps: torch.optim.Adagrad(ps, initial_accumulator_value=0.5), {"sum": 0.5}),
    "rprop": (lambda ps: torch.optim.Rprop(ps, lr=0.02), {"prev": 0.0, "step_size": 0.02}),
    "rmsprop": (
        lambda ps: torch.optim.RMSprop(ps, momentum=0.9, centered=True),
        {"square_avg": 0.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
    ),
    "adamo": (lambda ps: AdamO(ps), {"exp_avg": 0.0, "exp_avg_sq": 0.0}),
}


def stepped(net: nn.Module, optimizer, steps: int = 3) -> None:
    x = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("build", "starts"), STATES.values(), ids=STATES)
def test_optimizer_forgets_the_rows_and_columns_of_a_replaced_unit_and_no_other(build, starts):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = build(list(net.parameters()))
    stepped(net, optimizer)
    mask = torch.arange(6) == 4
    before = {p: {k: v.clone() for k, v in optimizer.state[p].items() if torch.is_tensor(v)} for p in net.parameters()}
    attach(ReDo(), net, optimizer).reset_units({0: mask})
    for p, cleared in ((net[0].weight, (4,)), (net[0].bias, (4,)), (net[2].weight, (slice(None), 4))):
        chosen = torch.zeros_like(p, dtype=torch.bool)
        chosen[cleared] = True
        for name, start in starts.items():
            value = optimizer.state[p][name]
            assert torch.equal(value[chosen], torch.full_like(value[chosen], start)), name
            assert torch.equal(value[~chosen], before[p][name][~chosen])
            assert (value[~chosen] != start).any()
    assert torch.equal(optimizer.state[net[2].bias][name], before[net[2].bias][name])


@pytest.mark.parametrize("method", [Reset("all"), ShrinkPerturb()])
@pytest.mark.parametrize(("build", "starts"), STATES.values(), ids=STATES)
def test_optimizer_forgets_all_of_what_is_drawn_anew(build, starts, method):
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = build(list(net.parameters()))
    stepped(net, optimizer)
    attach(method, net, optimizer).new_task()
    for p in net.parameters():
        for name, start in starts.items():
            assert torch.equal(optimizer.state[p][name], torch.full_like(p, start)), name


def test_average_of_weights_takes_up_the_new_ones():
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.ASGD(net.parameters(), t0=0)
    stepped(net, optimizer)
    attach(Reset("all"), net, optimizer).new_task()
    assert all(torch.equal(optimizer.state[p]["ax"], p) for p in net.parameters())


def test_factored_moments_are_cleared_for_whole_rows_and_whole_columns():
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.Adafactor(net.parameters())
    stepped(net, optimizer)
    attach(ReDo(), net, optimizer).reset_units({0: torch.arange(6) == 4})
    rows, columns = optimizer.state[net[0].weight]["row_var"], optimizer.state[net[2].weight]["col_var"]
    assert (rows == 0).flatten().tolist() == (columns == 0).flatten().tolist() == [False] * 4 + [True, False]
    assert optimizer.state[net[0].weight]["col_var"].all()


@pytest.mark.parametrize("build", [lambda ps: torch.optim.SGD(ps, lr=0.1), lambda ps: None, lambda ps: object()])
def test_optimizer_without_any_state_has_nothing_to_forget(build):
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    clear(build(list(net.parameters())), net[0].weight, torch.tensor(True))


def test_optimizer_whose_memory_has_no_parts_is_refused():
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    method = attach(Reset("all"), net, torch.optim.LBFGS(net.parameters()))
    with pytest.raises(ValueError, match="LBFGS keeps one history"):
        method.new_task()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    sgd.state[net[0].weight]["state1"] = torch.zeros(6, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"state 'state1'=torch.uint8; it must be floating point"):
        clear(sgd, net[0].weight, torch.tensor(True))


def test_two_optimizers_as_one_both_forget():
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    muon = torch.optim.Muon([net[0].weight], lr=0.1)
    both = Several(muon, torch.optim.Adam([p for p in net.parameters() if p is not net[0].weight]))
    stepped(net, both)
    attach(ReDo(), net, both).reset_units({0: torch.arange(6) == 4})
    kept = muon.state[net[0].weight]["momentum_buffer"]
    assert (kept == 0).all(1).tolist() == [False] * 4 + [True, False]
    assert not both.parts[1].state[net[2].weight]["exp_avg"][:, 4].any()


@pytest.mark.parametrize("method", [Reset("all"), ReDo()])
def test_muon_for_stacked_runs_forgets_in_each_run_what_was_replaced_there(method):
    W, V = (torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in (0, 1))
    optimizer = PerRun([W, V], lambda ps: torch.optim.Muon(ps, lr=0.1))
    W.grad, V.grad = torch.ones_like(W), torch.ones_like(V)
    optimizer.step()
    net = Attached(method, [Layer("a", W, None), Layer("b", V, None)], optimizer, seeds=[0, 1], batch_dims=1)
    mask = torch.tensor([[True, False, False, False], [False, False, True, False]])
    net.new_task() if isinstance(method, Reset) else net.reset_units({0: mask})
    everything = torch.ones(4, dtype=torch.bool)
    for r, (inner, slices) in enumerate(zip(optimizer.each, optimizer.slices, strict=True)):
        first, second = (inner.state[p]["momentum_buffer"] for p in slices)
        expected = everything if isinstance(method, Reset) else mask[r]
        assert (first == 0).all(1).tolist() == (second == 0).all(0).tolist() == expected.tolist()


def test_weights_of_a_recycled_unit_train_on_with_adamo():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = AdamO(isometry_groups(net, isometry_strength=0.1), lr=1e-2)
    method = attach(ReDo(threshold=0.5, every=2), net, optimizer)
    x = torch.rand(16, 8)
    for _ in range(10):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
        method.after_step()
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


def test_units_with_several_readers_and_groups_have_one_view_each():
    layer = Layer("a", torch.ones(4, 2), None)
    readers = (Layer("b", torch.ones(3, 4), None), Layer("c", torch.ones(2, 2, 1, 1), None, groups=2))
    net = Attached(ReDo(), [layer, *readers], units=[Units(layer, readers)])
    net.reset_units({0: torch.tensor([False, True, False, False])})
    assert readers[0].weight.tolist() == [[1, 0, 1, 1]] * 3
    assert readers[1].weight.flatten(1).tolist() == [[1, 0], [1, 1]]
