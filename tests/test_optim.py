"""AdamO, after torch's own optimizer tests: parity of code paths, state, closures, groups, errors, oracles."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

from dyniso.isometry import gram_deviation, gram_deviation_grad, singular_values
from dyniso.nets import mlp
from dyniso.optim import PRINTED_STRENGTH, AdamO, IsometryDivergenceError, adamo_update, isometry_groups, isometry_step
from dyniso.polar import polar_factor

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
PATHS = [{"foreach": False}, {"foreach": True}, {"fused": True}]


def small_net(seed=0, device="cpu", dtype=torch.float32):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    return net.to(device, dtype)


def train(net, optimizer, steps=12, seed=0):
    """A few steps on a fixed random batch; returns the losses."""
    p = next(net.parameters())
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 1, 6, 6, generator=g).to(p)
    y = torch.randint(3, (16,), generator=g).to(p.device)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x).float(), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def weights(net):
    return torch.cat([p.detach().float().flatten() for p in net.parameters()])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: next(iter(p)))
@pytest.mark.parametrize("extra", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}], ids=str)
def test_strength_zero_is_bitwise_adam(path, extra, device):
    a, b = small_net(device=device), small_net(device=device)
    train(a, torch.optim.Adam(a.parameters(), lr=1e-2, **path, **extra))
    train(b, AdamO(b.parameters(), lr=1e-2, isometry_strength=0, **path, **extra))
    assert torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("coupled", [False, True])
def test_for_loop_foreach_and_fused_paths_agree(coupled, device):
    results = []
    for path in PATHS:
        net = small_net(device=device)
        train(net, AdamO(net.parameters(), lr=1e-2, isometry_strength=1e-1, coupled=coupled, **path))
        results.append(weights(net))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-6)


def test_one_step_is_equation_20_with_the_penalty_at_the_old_weights():
    net = small_net(dtype=torch.float64)
    reference = copy.deepcopy(net)
    lr, strength = 1e-2, 0.3
    old = [p.detach().clone() for p in net.parameters()]
    train(net, AdamO(net.parameters(), lr=lr, isometry_strength=strength), steps=1)
    train(reference, torch.optim.Adam(reference.parameters(), lr=lr), steps=1)
    for p, q, w in zip(net.parameters(), reference.parameters(), old, strict=True):
        pull = lr * strength * gram_deviation_grad(w.flatten(1)).view_as(w) if w.ndim > 1 else 0
        torch.testing.assert_close(p.detach(), q.detach() - pull, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 5, 3)], ids=str)
def test_update_as_one_formula_equals_the_class(shape):
    g = torch.Generator().manual_seed(0)
    W, m, v = torch.randn(shape, generator=g, dtype=torch.float64) / 2, torch.zeros(shape), torch.zeros(shape)
    p = nn.Parameter(W.clone())
    optimizer = AdamO([p], lr=1e-2, betas=(0.8, 0.9), eps=1e-6, isometry_strength=0.7, batch_dims=len(shape) - 2)
    for step in range(1, 6):
        grad = torch.randn(shape, generator=g, dtype=torch.float64)
        W, m, v = adamo_update(W, grad, m, v, step, lr=1e-2, strength=0.7, betas=(0.8, 0.9), eps=1e-6)
        p.grad = grad
        optimizer.step()
    torch.testing.assert_close(p.detach(), W, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(512, 512), (512, 640), (640, 512), (2, 512, 512), (513, 520)], ids=str)
def test_pull_of_large_weights_is_the_gradient_in_double_precision(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / shape[-1] ** 0.5
    exact = 0.01 * gram_deviation_grad(W.double())
    found = isometry_step([W], 0.01, batch_dims=len(shape) - 2)[0].double()
    assert float((found - exact).norm() / exact.norm()) < 1e-5


def test_positional_arguments_are_those_of_adam():
    given = (2e-3, (0.8, 0.99), 1e-6, 0.1, True)
    a, b = (kind([nn.Parameter(torch.eye(2))], *given) for kind in (torch.optim.Adam, AdamO))
    assert a.defaults == {name: b.defaults[name] for name in a.defaults}


def test_moments_do_not_depend_on_the_strength_along_one_gradient_sequence():
    grads = [torch.randn(6, 5, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    states = []
    for strength in (0.0, 1e-2, 10.0):
        p = nn.Parameter(0.1 * torch.ones(6, 5))
        optimizer = AdamO([p], isometry_strength=strength)
        for g in grads:
            p.grad = g.clone()
            optimizer.step()
        states.append(optimizer.state[p])
    for other in states[1:]:
        assert torch.equal(states[0]["exp_avg"], other["exp_avg"]) and torch.equal(
            states[0]["exp_avg_sq"], other["exp_avg_sq"]
        )


def test_coupled_is_adam_on_the_penalised_loss():
    a, b = small_net(dtype=torch.float64), small_net(dtype=torch.float64)
    train(a, AdamO(a.parameters(), lr=1e-2, isometry_strength=0.2, coupled=True), steps=1)
    optimizer = torch.optim.Adam(b.parameters(), lr=1e-2)
    sum(gram_deviation(p.flatten(1)) for p in b.parameters() if p.ndim > 1).mul(0.2).backward()
    penalty = [p.grad.clone() if p.grad is not None else 0 for p in b.parameters()]
    step = optimizer.step
    optimizer.step = lambda: [p.grad.add_(g) for p, g in zip(b.parameters(), penalty, strict=True)] and step()
    train(b, optimizer, steps=1)
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_penalty_shrinks_the_gram_deviation_and_leaves_the_gradient_alone(coupled, maximize):
    p = nn.Parameter(2 * torch.eye(4))
    optimizer = AdamO([p], lr=1e-2, isometry_strength=1.0, coupled=coupled, maximize=maximize)
    before = float(gram_deviation(p.detach()))
    p.grad = torch.zeros(4, 4)
    optimizer.step()
    assert float(gram_deviation(p.detach())) < before
    assert torch.equal(p.grad, torch.zeros(4, 4))


def test_without_task_gradient_the_weights_reach_their_polar_factor():
    W = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    p = nn.Parameter(W.clone())
    optimizer = AdamO([p], lr=1e-2, isometry_strength=1.0)
    for _ in range(1500):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    torch.testing.assert_close(p.detach(), polar_factor(W), rtol=0, atol=1e-5)


def test_biases_and_excluded_head_follow_plain_adam():
    a, b = small_net(), small_net()
    train(a, AdamO(isometry_groups(a), isometry_strength=1.0), steps=1)
    train(b, torch.optim.Adam(b.parameters()), steps=1)
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q) == (p.ndim < 2 or name.startswith("5.")), name


def test_stacked_runs_with_their_own_strengths_equal_single_runs():
    strengths = [0.0, 0.1, 1.0]
    W = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    b = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    W[1:] *= 0.5
    stacked = [nn.Parameter(W.clone()), nn.Parameter(b.clone())]
    optimizer = AdamO(stacked, lr=1e-2, isometry_strength=torch.tensor(strengths), batch_dims=1)
    singles = [[nn.Parameter(W[r].clone()), nn.Parameter(b[r].clone())] for r in range(3)]
    others = [AdamO(single, lr=1e-2, isometry_strength=s) for single, s in zip(singles, strengths, strict=True)]
    for step in range(5):
        for i, p in enumerate(stacked):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + i))
            for r in range(3):
                singles[r][i].grad = p.grad[r].clone()
        for o in (optimizer, *others):
            o.step()
    for i, p in enumerate(stacked):
        torch.testing.assert_close(p.detach(), torch.stack([s[i].detach() for s in singles]), rtol=0, atol=1e-6)


def test_stacked_biases_are_never_taken_for_matrices():
    p = nn.Parameter(3 * torch.ones(4, 6))
    p.grad = torch.zeros_like(p)
    AdamO([p], isometry_strength=0.1, batch_dims=1).step()
    assert torch.equal(p, 3 * torch.ones(4, 6))


def test_same_shape_matrices_take_one_batched_call(monkeypatch):
    calls = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: calls.append(a.shape) or original(a, b))
    isometry_step([torch.randn(5, 5) for _ in range(6)] + [torch.randn(5, 3)], 0.01)
    assert sorted(tuple(c) for c in calls) == [(1, 3, 5), (1, 5, 3), (6, 5, 5), (6, 5, 5)]


def test_lazy_application_follows_the_same_flow_to_first_order():
    W = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)) / 3
    finals = {}
    for every in (1, 10, 50):
        p = nn.Parameter(W.clone())
        optimizer = AdamO([p], lr=1e-3, isometry_strength=0.1, isometry_every=every)
        for _ in range(1000):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        finals[every] = singular_values(p)
    gap10, gap50 = ((finals[k] - finals[1]).abs().max() for k in (10, 50))
    assert float((singular_values(W) - finals[1]).abs().max()) > 0.2, (
        "the flow must have moved for this to mean anything"
    )
    assert float(gap10) < 3e-3
    assert 3 < float(gap50 / gap10) < 8, "first order: the gap grows like the interval (49/9 = 5.4)"


@pytest.mark.parametrize("coupled", [False, True])
def test_lazy_application_touches_every_kth_call_only(coupled):
    p = nn.Parameter(2 * torch.eye(3))
    optimizer = AdamO([p], isometry_strength=0.1, isometry_every=3, coupled=coupled)
    moved = []
    for _ in range(6):
        before = p.detach().clone()
        p.grad = torch.zeros_like(p)
        optimizer.step()
        moved.append(not torch.equal(before, p))
    assert moved == (
        [False, False, True] * 2 if not coupled else [False, False, True, True, True, True]
    )  # Adam's momentum


def test_state_dict_round_trip_resumes_the_exact_trajectory():
    a = small_net()
    first = AdamO(isometry_groups(a, isometry_strength=0.2), lr=1e-2, isometry_every=5)
    train(a, first, steps=7)
    b = copy.deepcopy(a)
    second = AdamO(isometry_groups(b), lr=9.0, isometry_strength=0.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(a, first, steps=7)
    train(b, second, steps=7)
    assert torch.equal(weights(a), weights(b))
    assert second.param_groups[0]["isometry_every"] == 5


def test_adam_state_dict_loads_and_keeps_the_isometry_options():
    a = small_net()
    adam = torch.optim.Adam(a.parameters())
    train(a, adam, steps=3)
    optimizer = AdamO(a.parameters(), isometry_strength=0.5, isometry_every=2)
    optimizer.load_state_dict(adam.state_dict())
    assert (optimizer.param_groups[0]["isometry_strength"], optimizer.param_groups[0]["isometry_every"]) == (0.5, 2)
    train(a, optimizer, steps=2)


def test_adam_state_dict_of_two_groups_keeps_the_head_unregularised():
    a = small_net()
    groups = isometry_groups(a, isometry_strength=0.1)
    adam = torch.optim.Adam([{"params": g["params"]} for g in groups])
    optimizer = AdamO(groups)
    optimizer.load_state_dict(adam.state_dict())
    assert [g["isometry_strength"] for g in optimizer.param_groups] == [0.1, 0.0]


def test_state_dict_with_a_refused_option_changes_nothing():
    optimizer = AdamO([nn.Parameter(torch.eye(2))], isometry_strength=0.1)
    bad = copy.deepcopy(optimizer.state_dict())
    bad["param_groups"][0]["isometry_every"] = 0
    with pytest.raises(ValueError, match="isometry_every=0"):
        optimizer.load_state_dict(bad)
    assert optimizer.param_groups[0]["isometry_every"] == 1


def test_state_split_by_a_hook_is_completed_before_the_next_step():
    a = nn.Linear(3, 3)
    adam = torch.optim.AdamW(a.parameters())
    optimizer = AdamO(isometry_groups(a, head="include", isometry_strength=0.2), isometry_every=2)

    def split(_, state):
        (group,) = state["param_groups"]
        groups = [{**group, "params": [i]} for i in range(2)]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(split)
    optimizer.load_state_dict(adam.state_dict())
    assert [g["isometry_strength"] for g in optimizer.param_groups] == [0.2, 0.0]
    a(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert optimizer.param_groups[0]["isometry_every"] == 2


def test_gradients_are_whole_again_after_a_coupled_step_that_fails():
    p = nn.Parameter(2 * torch.eye(2))
    p.grad = torch.ones(2, 2)
    optimizer = AdamO([p], isometry_strength=0.1, coupled=True)
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        optimizer.step()
    assert torch.equal(p.grad, torch.ones(2, 2)) and not optimizer.state[p]


def test_pickled_optimizer_still_steps():
    p = nn.Parameter(2 * torch.eye(2))
    optimizer = pickle.loads(pickle.dumps(AdamO([p], isometry_strength=0.1)))
    (q,) = optimizer.param_groups[0]["params"]
    q.grad = torch.zeros_like(q)
    optimizer.step()
    assert float(q.detach()[0, 0]) < 2


def test_closure_is_called_with_gradients_on_and_its_loss_returned():
    p = nn.Parameter(torch.eye(3))
    optimizer = AdamO([p])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(3.0)


def test_step_hooks_run_exactly_once():
    torch.optim.Adam([nn.Parameter(torch.ones(1))])  # torch patches each class's step when first built
    p = nn.Parameter(torch.eye(2))
    optimizer, seen = AdamO([p]), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert seen == ["pre", "post"]


def test_parameters_without_gradient_are_left_alone():
    a, b = nn.Parameter(2 * torch.eye(2)), nn.Parameter(2 * torch.eye(2))
    optimizer = AdamO([a, b], isometry_strength=0.1)
    a.grad = torch.zeros_like(a)
    optimizer.step()
    assert torch.equal(b, 2 * torch.eye(2)) and not torch.equal(a, 2 * torch.eye(2))


def test_param_groups_may_differ_in_every_isometry_option():
    a, b = nn.Parameter(2 * torch.eye(2)), nn.Parameter(2 * torch.eye(2))
    optimizer = AdamO(
        [{"params": [a], "isometry_strength": 0.1}, {"params": [b], "isometry_lr": 0.0}], isometry_strength=0.2
    )
    optimizer.add_param_group({"params": [nn.Parameter(torch.eye(3))], "isometry_every": 4})
    a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
    optimizer.step()
    assert float(a.detach()[0, 0]) == pytest.approx(2 - 1e-3 * 0.1 * 24) and torch.equal(b, 2 * torch.eye(2))
    assert [g["isometry_every"] for g in optimizer.param_groups] == [1, 1, 4]


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_weights_move_towards_isometry(device):
    p = nn.Parameter((2 * torch.eye(8)).to(device, torch.bfloat16))
    optimizer = AdamO([p], lr=1e-2, isometry_strength=1.0)
    for _ in range(20):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert p.dtype == torch.bfloat16
    assert float(gram_deviation(p.detach().float())) < 20 < float(gram_deviation(2 * torch.eye(8)))


def test_learning_rate_schedule_scales_both_terms_unless_the_isometry_rate_is_given():
    moved = []
    for own in (None, 1e-2):
        p = nn.Parameter(2 * torch.eye(2))
        optimizer = AdamO([p], lr=1e-2, isometry_strength=0.1, isometry_lr=own)
        optimizer.param_groups[0]["lr"] = 1e-3
        p.grad = torch.zeros_like(p)
        optimizer.step()
        moved.append(2 - float(p.detach()[0, 0]))
    assert moved == [pytest.approx(1e-4 * 24, rel=1e-4), pytest.approx(1e-3 * 24, rel=1e-4)]


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_divergence_is_reported_exactly_beyond_its_boundary_and_before_any_change(factor):
    c = 0.01
    sigma = math.sqrt(1 + 1 / (2 * c)) * factor
    p = nn.Parameter(torch.diag(torch.tensor([sigma, 1.0, 0.5])))
    start = p.detach().clone()
    optimizer = AdamO([p], lr=c, isometry_strength=1.0)
    p.grad = torch.ones_like(p)
    if factor < 1:
        optimizer.step()
        assert float(singular_values(p)[0]) < sigma + c
    else:
        with pytest.raises(RuntimeError, match=r"sigma_max\^2 = 52.0.* = 0.01; the limit is .* = 51\. No parameter"):
            optimizer.step()
        assert torch.equal(p, start) and not optimizer.state[p]


def test_divergence_check_sees_each_run_of_a_stack():
    p = nn.Parameter(torch.stack([torch.eye(3), 100 * torch.eye(3)]))
    p.grad = torch.zeros_like(p)
    with pytest.raises(RuntimeError, match=r"sigma_max\^2 = 1e\+04"):
        AdamO([p], lr=1e-2, isometry_strength=torch.tensor([1.0, 0.1]), batch_dims=1).step()
    AdamO([p], lr=1e-2, isometry_strength=torch.tensor([1.0, 0.0]), batch_dims=1).step()  # strength 0 cannot diverge


@pytest.mark.parametrize("other", [math.nan, 1e20], ids=["not finite", "overflowing Gram"])
def test_divergence_of_one_run_is_seen_beside_a_run_that_is_lost(other):
    p = nn.Parameter(torch.stack([torch.full((3, 3), other), 100 * torch.eye(3)]))
    p.grad = torch.zeros_like(p)
    with pytest.raises(IsometryDivergenceError, match=r"run [01] has") as caught:
        AdamO([p], lr=1e-2, isometry_strength=1.0, batch_dims=1).step()
    assert caught.value.runs == ([1] if math.isnan(other) else [0, 1])


def test_weights_that_are_not_finite_are_left_to_the_task():
    p = nn.Parameter(torch.full((3, 3), math.nan))
    p.grad = torch.zeros_like(p)
    AdamO([p], lr=1e-2, isometry_strength=1.0).step()
    assert torch.isnan(p).all()


def test_schedule_that_passes_a_quarter_is_reported():
    p = nn.Parameter(1.01 * torch.eye(4))
    optimizer = AdamO([p], lr=1e-3, isometry_strength=100.0)
    optimizer.param_groups[0]["lr"] = 3e-3
    p.grad = torch.zeros_like(p)
    with pytest.raises(IsometryDivergenceError, match=r"= 0\.3; c must be below 1/4"):
        optimizer.step()


def test_zero_strength_in_a_stack_leaves_even_huge_weights_alone():
    p = nn.Parameter(torch.stack([torch.eye(3), 1e14 * torch.eye(3)]))
    p.grad = torch.zeros_like(p)
    AdamO([p], isometry_strength=torch.tensor([1.0, 0.0]), batch_dims=1).step()
    assert torch.equal(p[1], 1e14 * torch.eye(3))


def test_step_inside_autocast_keeps_the_gram_in_full_precision():
    finals = []
    for enabled in (False, True):
        p = nn.Parameter(polar_factor(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))) * 1.1)
        optimizer = AdamO([p], lr=1e-2, isometry_strength=1.0)
        p.grad = torch.zeros_like(p)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            for _ in range(50):
                optimizer.step()
        finals.append(p.detach())
    assert torch.equal(finals[0], finals[1])


def test_parameters_without_a_singular_spectrum_follow_plain_adam():
    odd = [
        nn.Parameter(torch.ones(3, 3, dtype=torch.complex64)),
        nn.Parameter(torch.ones(0, 3)),
        nn.Parameter(torch.eye(2)),
    ]
    for p in odd:
        p.grad = torch.zeros_like(p)
    AdamO(odd, isometry_strength=0.1).step()
    assert torch.equal(odd[0], torch.ones(3, 3, dtype=torch.complex64))


def test_lazy_turn_counts_only_the_calls_that_have_gradients():
    p = nn.Parameter(2 * torch.eye(2))
    optimizer = AdamO([p], isometry_strength=0.1, isometry_every=2)
    for call in range(4):
        p.grad = torch.zeros_like(p) if call % 2 else None
        optimizer.step()
    assert float(p.detach()[0, 0]) < 2


def test_tensor_learning_rates_reach_the_isometry_step():
    moved = []
    for lr in (1e-3, torch.tensor(1e-3), torch.tensor([1e-3])):
        p = nn.Parameter(2 * torch.eye(2))
        p.grad = torch.zeros_like(p)
        AdamO([p, nn.Parameter(torch.eye(2))], lr=lr, isometry_strength=0.1, foreach=False).step()
        moved.append(p.detach())
    torch.testing.assert_close(moved[0], moved[1])
    torch.testing.assert_close(moved[0], moved[2])


def test_check_stability_looks_ahead_without_stepping_or_gradients():
    p = nn.Parameter(100 * torch.eye(3))
    optimizer = AdamO([p], lr=1e-2, isometry_strength=1.0, isometry_every=5)
    with pytest.raises(RuntimeError, match="would diverge"):
        optimizer.check_stability()
    assert not optimizer.state


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isometry_strength": -1.0}, "isometry_strength=-1.0; it must be a number from 0"),
        ({"isometry_every": 0}, "isometry_every=0; it must be a whole number"),
        ({"isometry_every": 2.5}, "isometry_every=2.5"),
        *(
            ({"isometry_blocks": b}, f"isometry_blocks={b!r}; it must be two whole")
            for b in (3, (0, 1), (1.5, 1), "11")
        ),
        ({"isometry_blocks": (2, 2)}, "isometry_blocks=(2, 2); it must be (n, 1)"),
        ({"isometry_blocks": (7, 1)}, "expected sides that hold 7 x 1 equal blocks"),
        ({"batch_dims": -1}, "batch_dims=-1"),
        ({"isometry_lr": -0.1}, "isometry_lr=-0.1"),
        ({"isometry_lr": 0.1, "coupled": True}, "no meaning with coupled=True"),
        ({"isometry_strength": torch.ones(2)}, "does not fit batch_dims=0"),
        ({"isometry_strength": torch.ones(3), "batch_dims": 1}, "does not fit batch_dims=1"),
        ({"isometry_lr": torch.ones(2)}, "isometry_lr has shape (2,); expected one number"),
        ({"isometry_strength": 300.0}, "= 0.3; it must be below 1/4"),
        ({"lr": -1.0}, "Invalid learning rate"),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0"),
    ],
    ids=str,
)
def test_option_out_of_range_is_named_before_any_step(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        AdamO([nn.Parameter(torch.ones(2, 2, 2) / 2)], **options)


def test_misspelt_group_option_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"isometry_strenght.*did you mean 'isometry_strength'"):
        AdamO([{"params": [nn.Parameter(torch.eye(2))], "isometry_strenght": 0.5}])
    with pytest.raises(ValueError, match=r"isometry_strenght.*did you mean 'isometry_strength'"):
        isometry_groups(small_net(), isometry_strenght=0.5)


def test_bad_option_of_an_added_group_is_refused_and_not_added():
    optimizer = AdamO([nn.Parameter(torch.eye(2))])
    with pytest.raises(ValueError, match="isometry_every=-3"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.eye(2))], "isometry_every": -3})
    assert len(optimizer.param_groups) == 1


def test_isometry_groups_leave_out_head_norms_embeddings_and_parametrised_weights():
    net = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, 4),
            "first": nn.Linear(4, 6),
            "norm": nn.LayerNorm([2, 6]),
            "hard": nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)),
            "conv": nn.Conv1d(6, 6, 3),
            "head": nn.Linear(6, 2),
        }
    )
    pulled, rest = isometry_groups(net, head="head", isometry_strength=0.7)
    assert {tuple(p.shape) for p in pulled["params"]} == {(6, 4), (6, 6, 3)}
    assert pulled["isometry_strength"] == 0.7 and rest["isometry_strength"] == 0.0
    assert len(pulled["params"]) + len(rest["params"]) == len(list(net.parameters()))
    assert len(isometry_groups(net, head="include")[0]["params"]) == 3
    assert len(isometry_groups(net, head=["first", "head"])[0]["params"]) == 1


def test_isometry_groups_leave_out_bare_parameters_and_grouped_or_transposed_kernels():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 4, 3), nn.Linear(4, 2))
    net.register_parameter("positions", nn.Parameter(torch.zeros(1, 5, 4)))
    assert [p is net[0].weight for p in isometry_groups(net)[0]["params"]] == [True]


def test_isometry_groups_name_an_unknown_head_and_an_empty_result():
    with pytest.raises(ValueError, match=r"head='nope'; allowed are 'exclude', 'include', '1', '3'"):
        isometry_groups(mlp(4, 2, width=4, depth=1), head="nope")
    with pytest.raises(ValueError, match="nothing to regularise"):
        isometry_groups(nn.Linear(3, 3))


def test_grad_scaler_that_finds_infinity_skips_the_isometry_step_too():
    p = nn.Parameter(2 * torch.eye(2))
    optimizer, scaler = AdamO([p], isometry_strength=0.1, fused=True), torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    p.grad = torch.full_like(p, math.inf)
    scaler.step(optimizer)
    assert torch.equal(p, 2 * torch.eye(2))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_captured_graph_replays_the_eager_trajectory():
    finals = []
    for capture in (False, True):
        p = nn.Parameter(2 * torch.eye(16, device="cuda"))
        p.grad = torch.full_like(p, 0.1)
        optimizer = AdamO([p], lr=torch.tensor(1e-2, device="cuda"), isometry_strength=0.1, capturable=True)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        if capture:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                optimizer.step()
        for _ in range(10):
            graph.replay() if capture else optimizer.step()
        finals.append(p.detach().clone())
    torch.testing.assert_close(finals[0], finals[1])


@pytest.mark.parametrize("device", DEVICES)
def test_divergence_is_reported_while_weights_are_finite(device):
    p = nn.Parameter(torch.eye(16, device=device))
    optimizer = AdamO([p], lr=1e-2, isometry_strength=1.0)
    with pytest.raises(RuntimeError, match="would diverge"):  # noqa: PT012 - the drift is the case
        for _ in range(100):
            p.grad = torch.full_like(p, -1.0)
            optimizer.step()
            p.data.mul_(4)  # faster than the pull brings it back
    assert torch.isfinite(p).all()


def test_weights_that_get_gradients_in_turn_are_all_pulled():
    defects = {}
    for every in (1, 2, 3):
        torch.manual_seed(0)
        nets = nn.Linear(16, 16), nn.Linear(16, 16)
        optimizer = AdamO([*nets[0].parameters(), *nets[1].parameters()], isometry_strength=2.0, isometry_every=every)
        for t in range(300):
            optimizer.zero_grad()
            (nets[t % 2](torch.ones(1, 16)) * 0).sum().backward()
            optimizer.step()
        defects[every] = [float(gram_deviation(n.weight.detach()) / 16) for n in nets]
    for every in (2, 3):
        assert defects[every] == pytest.approx(defects[1], rel=0.02)


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_are_pulled_as_far_as_single_ones(dtype, every):
    start, defects = torch.randn(24, 24, generator=torch.Generator().manual_seed(0)) / 5, []
    for kind in (torch.float32, dtype):
        p = nn.Parameter(start.clone().to(kind))
        optimizer = AdamO([p], lr=1e-3, eps=1e-4, isometry_strength=0.1, isometry_every=every)
        p.grad = torch.zeros_like(p)
        for _ in range(800):
            optimizer.step()
        assert p.dtype == kind
        defects.append(float(gram_deviation(p.detach()) / 24))
    assert defects[1] == pytest.approx(defects[0], rel=0.02)


def test_what_rounding_left_of_a_pull_is_resumed():
    p = nn.Parameter((torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) / 4).bfloat16())
    p.grad = torch.zeros_like(p)
    first = AdamO([p], isometry_strength=0.1)
    for _ in range(50):
        first.step()
    q = nn.Parameter(p.detach().clone())
    q.grad = torch.zeros_like(q)
    second = AdamO([q])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(50):
        first.step()
        second.step()
    assert torch.equal(p, q)


def test_step_holds_little_more_than_the_grams_beside_the_weights():
    weights = [nn.Parameter(torch.randn(256, 256) / 16) for _ in range(24)]
    for p in weights:
        p.grad = torch.zeros_like(p)
    optimizer = AdamO(weights, isometry_strength=0.1, fused=True)
    optimizer.step()
    peak = extra_bytes(optimizer.step)
    assert peak < 1.4 * sum(4 * p.numel() for p in weights)


def extra_bytes(call):
    """Peak of what a call holds at once beyond what there was, by torch's own record of allocations."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    now = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def test_compiled_step_is_not_compiled_again_for_each_learning_rate():
    from torch._dynamo.testing import CompileCounter

    net, counter, counts = small_net(), CompileCounter(), []
    optimizer = AdamO(net.parameters(), lr=1e-2, isometry_strength=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    step = torch.compile(optimizer.step, backend=counter)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(12):
        step()
        scheduler.step()
        counts.append(counter.frame_count)
    assert 0 < counts[3] == counts[-1] <= 4


def test_compiled_step_is_the_eager_one():
    finals = []
    for compiled in (False, True):
        net = small_net()
        optimizer = AdamO(net.parameters(), lr=1e-2, isometry_strength=0.5, isometry_every=2)
        if compiled:
            optimizer.step = torch.compile(optimizer.step, backend="eager")
        train(net, optimizer, steps=6)
        finals.append(weights(net))
    torch.testing.assert_close(finals[0], finals[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [np.int64(10), np.int32(10), True + 9], ids=lambda n: type(n).__name__)
def test_any_whole_number_is_a_whole_number(number):
    AdamO([nn.Parameter(torch.eye(2))], isometry_every=number, batch_dims=number - 10)


@pytest.mark.parametrize("own", [None, 1e-2, torch.tensor(1e-2)], ids=str)
@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
@pytest.mark.parametrize("coupled", [False, True])
def test_step_at_rate_zero_changes_no_weight(lr, own, coupled):
    if coupled and own is not None:
        pytest.skip("refused together")
    p = nn.Parameter(2 * torch.eye(3))
    p.grad = torch.zeros_like(p)
    AdamO([p], lr=lr, isometry_lr=own, isometry_strength=0.1, coupled=coupled, foreach=False).step()
    assert torch.equal(p, 2 * torch.eye(3))


def test_building_saving_loading_copying_and_describing_change_nothing():
    net = small_net()
    optimizer = AdamO(isometry_groups(net), isometry_every=2)
    train(net, optimizer, steps=3)
    before, state = weights(net), copy.deepcopy(optimizer.state_dict())
    repr(optimizer), copy.deepcopy(optimizer), pickle.dumps(optimizer), repr(isometry_groups(net))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.check_stability()
    after = optimizer.state_dict()
    assert torch.equal(before, weights(net)) and state["param_groups"] == after["param_groups"]
    for a, b in zip(state["state"].values(), after["state"].values(), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_distributed_checkpoint_of_a_fresh_optimizer_moves_no_weight():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    net = small_net()
    optimizer = AdamO(net.parameters(), isometry_strength=0.5, isometry_lr=1e-2)
    before = weights(net)
    state = get_optimizer_state_dict(net, optimizer)
    assert torch.equal(before, weights(net)) and set(state) == {"state", "param_groups"}


def test_sparse_gradient_is_refused_before_any_weight_is_pulled():
    table, p = nn.Embedding(4, 4, sparse=True), nn.Parameter(2 * torch.eye(3))
    p.grad = torch.zeros_like(p)
    table(torch.tensor([1])).sum().backward()
    for groups in ([p, table.weight], [{"params": [p]}, {"params": [table.weight]}]):
        with pytest.raises(RuntimeError, match="sparse"):
            AdamO(groups, isometry_strength=0.1).step()
        assert torch.equal(p, 2 * torch.eye(3))


def test_weight_decay_acts_on_the_old_weights_as_equation_20_beside_adamw():
    for options in ({"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}):
        p = nn.Parameter(2 * torch.eye(3, dtype=torch.float64))
        q = nn.Parameter(p.detach().clone())
        p.grad = q.grad = torch.full_like(p, 0.3)
        AdamO([p], lr=1e-2, isometry_strength=0.5, **options).step()
        torch.optim.Adam([q], lr=1e-2, **options).step()
        pull = 1e-2 * 0.5 * gram_deviation_grad(2 * torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(p.detach(), q.detach() - pull, rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", ["channels last", "transposed", "expanded rows"])
def test_memory_layout_of_a_weight_does_not_change_its_pull(layout):
    W = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) / 3
    p = nn.Parameter(W.clone())
    if layout == "channels last":
        q = nn.Parameter(W.clone().to(memory_format=torch.channels_last))
    elif layout == "transposed":
        q = nn.Parameter(W.transpose(0, 1).contiguous().transpose(0, 1))
    else:
        q = nn.Parameter(torch.stack([W, W])[:, ::1][0])
    for w in (p, q):
        w.grad = torch.zeros_like(w)
        AdamO([w], lr=1e-2, isometry_strength=1.0).step()
    assert not torch.equal(p, W)
    torch.testing.assert_close(q.detach(), p.detach())


def test_default_strength_does_something_and_the_printed_one_next_to_nothing():
    start, moved = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) / 8, {}
    for name, options in {"default": {}, "printed": {"isometry_strength": PRINTED_STRENGTH}}.items():
        p = nn.Parameter(start.clone())
        optimizer = AdamO([p], **options)
        p.grad = torch.zeros_like(p)
        for _ in range(500):
            optimizer.step()
        moved[name] = float(gram_deviation(p.detach()) / gram_deviation(start))
    assert moved["default"] < 0.5 and moved["printed"] > 0.95


@pytest.mark.parametrize("shape", [(512, 512), (516, 600), (600, 516)], ids=str)
def test_pull_of_a_large_weight_is_that_of_its_whole_gram(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 25
    torch.testing.assert_close(isometry_step([W], 0.01)[0], 0.01 * gram_deviation_grad(W), rtol=1e-4, atol=1e-6)


def test_lazy_pull_that_cannot_settle_is_refused_before_any_step():
    with pytest.raises(
        ValueError, match=r"isometry_lr \* isometry_strength \* isometry_every = 0\.3; it must be below"
    ):
        AdamO([nn.Parameter(torch.eye(2))], lr=1e-3, isometry_strength=1.0, isometry_every=300)


def test_step_at_rate_zero_does_not_move_the_turn_of_a_lazy_pull():
    p = nn.Parameter(2 * torch.eye(2))
    optimizer, moved = AdamO([p], lr=1e-3, isometry_strength=0.1, isometry_every=2), []
    for rate in (1e-3, 0.0, 1e-3):  # a distributed checkpoint fills the state by a step at rate zero
        before, p.grad = p.detach().clone(), torch.zeros_like(p)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        moved.append(not torch.equal(before, p))
    assert moved == [False, False, True]


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_divergence_of_a_stacked_run_is_reported_exactly_beyond_its_own_boundary(factor):
    strengths, lr = torch.tensor([1.0, 4.0]), 1e-2
    sigma = (1 + 1 / (2 * lr * strengths)).sqrt() * torch.tensor([0.99, factor])
    p = nn.Parameter(torch.eye(3) * sigma[:, None, None])
    p.grad = torch.zeros_like(p)
    optimizer = AdamO([p], lr=lr, isometry_strength=strengths, batch_dims=1)
    if factor < 1:
        optimizer.step()
        return
    with pytest.raises(IsometryDivergenceError) as caught:
        optimizer.step()
    assert caught.value.runs == [1]


def test_zero_strength_in_a_stack_leaves_weights_alone_whose_gram_overflows():
    p = nn.Parameter(torch.stack([2 * torch.eye(3), 1e20 * torch.eye(3)]))
    p.grad = torch.zeros_like(p)
    AdamO([p], isometry_strength=torch.tensor([0.1, 0.0]), batch_dims=1).step()
    assert torch.equal(p[1], 1e20 * torch.eye(3)) and float(p[0, 0, 0].detach()) < 2


# ------------------------------------------------------------------------------------------- a pull from above only


def one_sided_penalty(W):
    return (torch.linalg.svdvals(W).square() - 1).clamp_min(0).square().sum()


@pytest.mark.parametrize("shape", [(5, 5), (6, 9), (9, 6)])
def test_pull_from_above_is_the_gradient_of_the_penalty_on_singular_values_above_1(shape):
    W = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    before = W.detach().double().requires_grad_()
    one_sided_penalty(before).backward()
    optimizer = AdamO([W], lr=0.1, isometry_strength=0.01, isometry_side="above")
    W.grad = torch.zeros_like(W)
    optimizer.step()
    torch.testing.assert_close(W.detach().double(), before.detach() - 1e-3 * before.grad, atol=1e-6, rtol=1e-6)


def test_pull_from_above_leaves_a_contraction_bitwise_alone():
    W = torch.nn.Parameter(0.3 * torch.eye(4) + 0.01)
    before = W.detach().clone()
    optimizer = AdamO([W], lr=0.1, isometry_side="above")
    W.grad = torch.zeros_like(W)
    optimizer.step()
    assert torch.equal(W.detach(), before)


def test_pull_from_above_on_stacked_runs_and_packed_maps_is_that_of_each_alone():
    weights = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    stacked = torch.nn.Parameter(weights.clone())
    each = [torch.nn.Parameter(w.clone()) for run in weights for w in run.chunk(2)]
    options = dict(lr=1e-2, isometry_strength=0.1, isometry_side="above")
    together = AdamO([stacked], isometry_blocks=(2, 1), batch_dims=1, **options)
    apart = AdamO(each, **options)
    for p in (stacked, *each):
        p.grad = torch.zeros_like(p)
    together.step(), apart.step()
    torch.testing.assert_close(stacked.detach().flatten(0, 1), torch.cat([w.detach() for w in each]))


def test_a_state_from_before_the_option_keeps_pulling_both_sides():
    W = torch.nn.Parameter(torch.eye(3))
    state = AdamO([W]).state_dict()
    del state["param_groups"][0]["isometry_side"]
    optimizer = AdamO([W])
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["isometry_side"] == "both"


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match=r"isometry_side='abov'; allowed are 'both', 'above'; did you mean 'above'"):
        AdamO([torch.nn.Parameter(torch.eye(3))], isometry_side="abov")
