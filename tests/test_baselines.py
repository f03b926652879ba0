"""Contracts of dyniso.baselines: each method's published edge, alone and in a stack."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from dyniso import baselines
from dyniso.baselines import (
    FIRE,
    L2,
    SHRINK_PERTURB,
    UPGD,
    Attached,
    Churn,
    ContinualBackprop,
    FeatureLogDet,
    FeatureRank,
    Isometry,
    L2Init,
    Layer,
    NormProjection,
    Parseval,
    PerRun,
    ReDo,
    Reset,
    RowNorm,
    SelfNormalizedResets,
    ShrinkPerturb,
    SpectralNorm,
    SpectralPenalty,
    WeightClipping,
    attach,
    make,
)
from dyniso.isometry import effective_rank, gram_deviation_grad, singular_values
from dyniso.nets import mlp
from dyniso.optim import AdamO, isometry_groups
from dyniso.study.specs import BASELINES, Method, Net, Stream, get
from dyniso.study.stack import Run
from dyniso.study.tasks import load_source, load_task, task_order
from dyniso.study.train import Trainer, train_group

CPU = torch.device("cpu")
ROUNDING = 2e-5  # float32: batched and single products round differently, over a dozen steps


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net() -> nn.Sequential:
    """6 inputs, two hidden ReLU layers of 8, 3 outputs; biases that are not zero."""
    made = mlp(6, 3, 8, 2, seed=1)
    for p in made.parameters():
        if p.ndim == 1:
            nn.init.normal_(p, std=0.1, generator=generator())
    return made


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(32, 6, generator=generator(2))


def linear(net: nn.Module) -> list[nn.Linear]:
    return [m for m in net.modules() if isinstance(m, nn.Linear)]


def kill(net: nn.Sequential, layer: int, units: list[int]) -> None:
    """Make units of a hidden layer silent on every input."""
    with torch.no_grad():
        linear(net)[layer].weight[units] = 0
        linear(net)[layer].bias[units] = -1


def one_step(net: nn.Sequential, method: Attached, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    """Forward, backward, optimizer step and the method's own."""
    optimizer.zero_grad()
    (net(x).square().mean() + method.penalty()).backward()
    optimizer.step()
    method.after_step()


def penalty_gradient(net: nn.Sequential, method: Attached) -> list[torch.Tensor]:
    found = torch.autograd.grad(method.penalty(), list(net.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(net.parameters(), found, strict=True)]


# ---------------------------------------------------------------------------------------------------- names


def test_every_declared_name_has_a_class_and_no_other():
    assert set(BASELINES) == set(baselines.CLASSES)


def test_class_that_takes_the_name_of_another_is_refused():
    with pytest.raises(ValueError, match=r"name='redo' is taken by dyniso\.baselines\.units\.ReDo"):
        type("Other", (baselines.Baseline,), {}, name="redo")
    assert baselines.CLASSES["redo"] is ReDo


def test_class_without_a_name_is_refused():
    with pytest.raises(TypeError, match="name"):
        type("Other", (baselines.Baseline,), {})


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: make("reddo"), ["baseline='reddo'", "did you mean 'redo'"]),
        (lambda: make("redo", treshold=0.1), ["'treshold'", "did you mean 'threshold'"]),
        (lambda: ReDo(threshold=-1.0), ["ReDo.threshold=-1.0"]),
        (lambda: ReDo(every=0), ["ReDo.every=0"]),
        (lambda: L2(strength=float("nan")), ["L2.strength=nan"]),
        (lambda: ContinualBackprop(rate=2.0), ["ContinualBackprop.rate=2.0"]),
        (lambda: ContinualBackprop(utility="contributon"), ["did you mean 'contribution'"]),
        (lambda: ShrinkPerturb(draw="fres"), ["did you mean 'fresh'"]),
        (lambda: Reset(layers="heads"), ["did you mean 'head'"]),
        (lambda: Isometry(rows="alive"), ["Isometry.rows='alive'"]),
        (lambda: attach(L2(), nn.Sequential(nn.Linear(2, 2))), ["hidden layer"]),
        (lambda: UPGD([torch.zeros(1, requires_grad=True)], beta=1.0), ["UPGD.beta=1.0"]),
    ],
)
def test_wrong_setting_is_an_error_that_names_it(call, parts):
    with pytest.raises(ValueError) as raised:
        call()
    assert [p for p in parts if p not in str(raised.value)] == []


@pytest.mark.parametrize("activation", ["maxmin", "crelu", "groupsort-4", "householder"])
@pytest.mark.parametrize(
    "method", [ReDo(), ContinualBackprop(), SelfNormalizedResets(), Isometry(strength=0.1, lr=0.1, rows="dead")]
)
def test_methods_that_replace_units_refuse_activations_that_mix_units(method, activation):
    with pytest.raises(ValueError, match="mix them"):
        attach(method, mlp(6, 3, 8, 2, activation))


# ------------------------------------------------------------------------------------------- alone and stacked


@pytest.fixture(scope="module")
def tiny():
    stream = Stream(samples=64, tasks=2)
    return replace(get("dormancy"), stream=stream, net=Net(width=8, depth=2), steps_per_task=6, batch=16, probe=32)


SETTINGS = {
    "redo": {"threshold": 0.5, "every": 3},
    "continual_backprop": {"rate": 0.1, "maturity": 2},
    "self_normalized_resets": {"rejection": 0.3, "observations": 2, "longest": 3},
    "isometry": {"strength": 1.0, "rows": "live", "window": 2},
    "shrink_perturb": {"when": "step", "shrink": 0.99, "perturb": 0.01},
}


@pytest.mark.parametrize("name", BASELINES)
def test_stacked_run_equals_the_run_alone(tiny, name):
    source = load_source(tiny.stream, CPU)
    method = Method("m", "m", baseline=name, settings=tuple(SETTINGS.get(name, {}).items()))
    together = train_group(tiny, [Run(method, 0), Run(method, 1)], source)
    for seed, rows in enumerate(together):
        (alone,) = train_group(tiny, [Run(method, seed)], source)
        np.testing.assert_allclose(rows["value"], alone["value"], rtol=50 * ROUNDING, atol=50 * ROUNDING)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon", "upgd"])
def test_stacked_optimizer_equals_the_run_alone(tiny, optimizer):
    source = load_source(tiny.stream, CPU)
    method = Method("m", "m", optimizer=optimizer, weight_decay=0.01)
    trainers = [Trainer(tiny, [Run(method, seed) for seed in seeds], source) for seeds in ((0, 1), (1,))]
    for trainer, seeds in zip(trainers, ((0, 1), (1,)), strict=True):
        trainer.train(load_task(tiny, seeds, 0, source), task_order(tiny, seeds, 0))
    for name, p in trainers[0].stack.params.items():
        torch.testing.assert_close(p[1], trainers[1].stack.params[name][0], rtol=1e-3, atol=1e-4)  # Muon is bfloat16


# ---------------------------------------------------------------------------------------------------- penalties


def test_l2_gradient_is_strength_times_every_weight_and_bias(net):
    found = penalty_gradient(net, attach(L2(strength=0.3), net))
    for g, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(g, 0.3 * p.detach())


def test_l2_init_pulls_to_the_stored_initial_values(net):
    start = [p.detach().clone() for p in net.parameters()]
    method = attach(L2Init(strength=0.3), net)
    assert float(method.penalty().detach()) == 0
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    for g, p, s in zip(penalty_gradient(net, method), net.parameters(), start, strict=True):
        torch.testing.assert_close(g, 0.3 * (p.detach() - s))


def test_spectral_vector_persists_and_finds_the_largest_singular_value(net):
    method = attach(SpectralPenalty(strength=1.0, biases=False), net)
    for layer in linear(net):
        nn.init.normal_(layer.weight, generator=generator(5))
    first = float(method.penalty().detach())
    for _ in range(300):
        value = float(method.penalty().detach())
    exact = sum(float((singular_values(m.weight)[0] ** 2 - 1) ** 2) for m in linear(net))
    assert value == pytest.approx(exact, rel=1e-3)
    assert abs(first - exact) > 0.01 * exact  # one iteration after the weights jumped is not enough


def test_spectral_penalty_acts_along_the_top_singular_pair_only(net):
    for layer in linear(net):
        nn.init.normal_(layer.weight, generator=generator(5))
    method = attach(SpectralPenalty(strength=1.0, biases=False), net)
    for _ in range(500):
        method.penalty()
    W = linear(net)[1].weight
    U, sigma, Vh = torch.linalg.svd(W.detach())
    (g,) = torch.autograd.grad(method.penalty(), [W])
    expected = 4 * (sigma[0] ** 2 - 1) * sigma[0] * torch.outer(U[:, 0], Vh[0])
    torch.testing.assert_close(g, expected, rtol=5e-2, atol=5e-2)


def test_parseval_has_the_gradient_of_the_gram_deviation_and_a_residual_where_a_layer_expands(net):
    method = attach(Parseval(strength=0.5), net)
    with torch.no_grad():
        linear(net)[1].weight.mul_(1.3)
    found = penalty_gradient(net, method)
    torch.testing.assert_close(found[2], 0.5 * gram_deviation_grad(linear(net)[1].weight.detach()))
    fresh = mlp(6, 3, 8, 2, seed=1)  # 6 -> 8 expands: rank 6 of an 8 x 8 Gram
    assert float(attach(Parseval(strength=1.0), fresh).penalty().detach()) == pytest.approx(2.0, abs=1e-4)


def test_feature_rank_gradient_raises_the_effective_rank(net, x):
    method = attach(FeatureRank(strength=0.0, rank_strength=1.0), net)
    net(x)
    before = float(effective_rank(singular_values(method.activations[-1])))
    gradients = penalty_gradient(net, method)
    with torch.no_grad():
        for p, g in zip(net.parameters(), gradients, strict=True):
            p.sub_(0.01 * g)
    net(x)
    assert float(effective_rank(singular_values(method.activations[-1]))) > before


def test_feature_logdet_is_the_mean_log_of_the_eigenvalues_of_the_features_gram(net, x):
    method = attach(FeatureLogDet(alpha=3.0, ridge=0.02), net)
    net(x)
    found = method.penalty()
    sigma = singular_values(method.activations[-1]).double()
    lambdas = torch.cat([sigma.square(), torch.zeros(32 - 8)]) / (sigma.square().sum() / 32)
    assert float(found.detach()) == pytest.approx(-3 * float((lambdas + 0.02).log().mean()), rel=1e-5)
    with torch.no_grad():
        for p in linear(net)[1].parameters():
            p.mul_(7.0)
    net(x)
    assert float(method.penalty().detach()) == pytest.approx(float(found.detach()), rel=1e-5)  # blind to scale


def test_feature_logdet_has_the_gradient_of_its_formula(net, x):
    net, x = net.double(), x.double()
    method = attach(FeatureLogDet(alpha=-0.7), net)
    h = net[:5](x)
    K = h @ h.T
    formula = 0.7 * torch.logdet(K / K.diagonal().mean() + 0.01 * torch.eye(32).double()) / 32
    expected = torch.autograd.grad(formula, list(net[:5].parameters()))
    net(x)
    torch.testing.assert_close(penalty_gradient(net, method)[:4], list(expected))


@pytest.mark.parametrize("alpha", [1.0, -1.0])
def test_feature_logdet_raises_the_effective_rank_above_zero_and_lowers_it_below(net, x, alpha):
    method = attach(FeatureLogDet(alpha=alpha), net)
    ranks = []
    for _ in range(6):
        net(x)
        ranks.append(float(effective_rank(singular_values(method.activations[-1]))))
        gradients = penalty_gradient(net, method)
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p.sub_(0.02 * g)
    steps = [after - before for before, after in pairwise(ranks)]
    assert all(step * alpha > 0 for step in steps) and abs(ranks[-1] - ranks[0]) > 0.05


def test_churn_counts_changes_on_earlier_inputs_only_if_the_weights_moved(net, x):
    method = attach(Churn(strength=1.0), net)
    values = []
    for moved in (0.0, 0.0, 0.0, 0.1):
        with torch.no_grad():
            linear(net)[0].weight.add_(moved)
        net(x)
        values.append(float(method.penalty().detach()))
    assert values[:3] == [0, 0, 0]
    assert values[3] > 0
    method.new_task()
    net(x)
    assert float(method.penalty().detach()) == 0


# ------------------------------------------------------------------------------------------------ unit replacement


def test_redo_recycles_dead_units_and_leaves_the_function_as_it_was(net, x):
    kill(net, 0, [2, 5])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    method = attach(ReDo(threshold=0.0, every=1), net, optimizer)
    before, old = net(x).detach(), linear(net)[0].weight.detach().clone()
    one_step(net, method, optimizer, x)
    first, second = linear(net)[:2]
    assert torch.equal(second.weight[:, [2, 5]], torch.zeros(8, 2))
    assert (first.weight[[2, 5]] != 0).all() and torch.equal(first.bias[[2, 5]], torch.zeros(2))
    assert torch.equal(first.weight[[0, 1, 3, 4, 6, 7]], old[[0, 1, 3, 4, 6, 7]])
    torch.testing.assert_close(net(x), before)


def reset_steps(firing: list[list[bool]], **settings: object) -> list[list[int]]:
    """The steps (from 1) at which each unit of a layer is reset, given in which steps each of them fires."""
    method = SelfNormalizedResets(**settings)
    units = len(firing)
    W, V = torch.ones(units, 3), torch.ones(2, units)
    attached = Attached(method, [Layer("a", W, None), Layer("b", V, None)])
    found: list[list[int]] = [[] for _ in firing]
    for step, column in enumerate(zip(*firing, strict=True), start=1):
        attached.activations = [torch.tensor([[float(f) for f in column]])]
        V.fill_(1)
        attached.after_step()
        for unit in (V == 0).all(0).nonzero().flatten().tolist():
            found[unit].append(step)
    return found


def test_unit_that_falls_silent_is_reset_sooner_the_more_often_it_used_to_fire():
    often, rarely = [True] * 60 + [False] * 20, ([False] * 4 + [True]) * 12 + [False] * 20
    (soon,), (late,) = (
        [steps[0] for steps in reset_steps([pattern], rejection=0.05, observations=5)] for pattern in (often, rarely)
    )
    assert (soon, late) == (62, 66)


def test_unit_that_fires_as_rarely_as_ever_is_left_in_peace():
    assert reset_steps([([False] * 9 + [True]) * 20], rejection=0.05, observations=5) == [[]]


def test_unit_that_has_never_fired_is_held_to_its_layer():
    assert reset_steps([[True] * 10, [False] * 10], rejection=0.05, observations=5)[0] == []
    assert reset_steps([[True] * 10, [False] * 10], rejection=0.05, observations=5)[1][0] == 5
    assert reset_steps([[False] * 10], rejection=0.05, observations=5) == [[]]  # nobody fires: nothing to compare with


def test_redo_threshold_is_inclusive_and_waits_for_its_turn(net, x):
    kill(net, 0, [2])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    method = attach(ReDo(threshold=0.0, every=3), net, optimizer)
    changed = []
    for _ in range(3):
        one_step(net, method, optimizer, x)
        changed.append(bool((linear(net)[0].weight[2] != 0).any()))
    assert changed == [False, False, True]


def test_redo_clears_the_moments_of_both_slices_and_keeps_the_step_count(net, x):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    method = attach(ReDo(threshold=0.0, every=3), net, optimizer)
    for _ in range(2):
        one_step(net, method, optimizer, x)
    kill(net, 0, [2])
    one_step(net, method, optimizer, x)
    first, second = (optimizer.state[m.weight] for m in linear(net)[:2])
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(first[name][2], torch.zeros(6)) and torch.equal(second[name][:, 2], torch.zeros(8))
        assert (first[name][[0, 1]] != 0).any() and (second[name] != 0).any()
    assert float(first["step"]) == 3


def test_reset_units_of_a_convolution_zeroes_its_channel_in_the_flattened_head():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2))
    method = attach(ReDo(threshold=0.0, every=1), net)
    with torch.no_grad():
        net[0].bias[1] = -100.0
    net(torch.randn(5, 1, 4, 4, generator=generator()))
    method.after_step()
    assert torch.equal(net[3].weight[:, 4:8], torch.zeros(2, 4))
    assert (net[3].weight[:, [0, 1, 2, 3, 8, 9, 10, 11]] != 0).all()


def test_continual_backprop_replaces_no_immature_unit_and_only_the_due_fraction(net, x):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    method = attach(ContinualBackprop(rate=1 / 32, maturity=5), net, optimizer)
    replaced = []
    for _ in range(13):
        before = linear(net)[0].weight.detach().clone()
        one_step(net, method, optimizer, x)
        replaced.append(int((linear(net)[0].weight != before).any(1).sum()))
    assert replaced[:8] == [0] * 8  # 5 steps to maturity, then 8 units x 1/32 a step: one after 4 steps
    assert replaced[8] == 1
    assert sum(replaced) == 2 or sum(replaced) == 1


def test_continual_backprop_replaces_the_least_useful_unit_and_hands_over_its_mean(net, x):
    with torch.no_grad():
        linear(net)[1].weight[:, 3] = 1e-4
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    method = attach(ContinualBackprop(rate=0.125, maturity=0), net, optimizer)
    before, mean = linear(net)[0].weight.detach().clone(), net[:3](x)[:, 3].mean().detach()
    bias = linear(net)[1].bias.detach().clone()
    one_step(net, method, optimizer, x)
    changed = (linear(net)[0].weight != before).any(1).nonzero().flatten().tolist()
    assert changed == [3]
    handed = (linear(net)[1].bias - bias)[linear(net)[1].bias != 0]  # a unit of the second layer is replaced as well
    torch.testing.assert_close(handed, 1e-4 * mean.expand(7), rtol=1e-2, atol=1e-6)
    assert method.state["age"][0][3] == 0 and (method.state["age"][0][[0, 1]] == 1).all()


@pytest.mark.parametrize("layers", ["head", "all"])
def test_reset_draws_its_layers_anew_and_no_other(net, x, layers):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = attach(Reset(layers=layers), net, optimizer)
    one_step(net, method, optimizer, x)
    before = [m.weight.detach().clone() for m in linear(net)]
    method.new_task()
    same = [torch.equal(m.weight, b) for m, b in zip(linear(net), before, strict=True)]
    assert same == ([True, True, False] if layers == "head" else [False, False, False])
    head, start = linear(net)[-1].weight, method.initial[id(linear(net)[-1].weight)]
    assert float(optimizer.state[head]["exp_avg"].abs().max()) == 0
    assert float(head.detach().square().mean()) == pytest.approx(float(start.square().mean()), rel=0.6)


def test_shrink_perturb_towards_the_stored_start_has_it_as_fixed_point(net):
    method = attach(SHRINK_PERTURB["fire"], net)
    start = [p.detach().clone() for p in net.parameters()]
    method.new_task()
    assert all(torch.allclose(p, s, atol=1e-6) for p, s in zip(net.parameters(), start, strict=True))


def test_shrink_perturb_every_step_settles_at_its_stationary_variance():
    wide = mlp(200, 3, 200, 1, seed=0)
    method = attach(ShrinkPerturb(shrink=0.9, perturb=0.5, draw="noise", when="step"), wide)
    for _ in range(60):
        method.after_step()
    assert float(linear(wide)[0].weight.var()) == pytest.approx(0.25 / (1 - 0.81), rel=0.05)


@pytest.mark.parametrize("name", SHRINK_PERTURB)
def test_every_shrink_perturb_of_the_literature_moves_weights_at_its_own_time(net, name):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    variant = SHRINK_PERTURB[name]
    method = attach(variant, net, optimizer)
    with torch.no_grad():
        linear(net)[0].weight.add_(1.0)
    before = linear(net)[0].weight.detach().clone()
    method.after_step()
    assert torch.equal(linear(net)[0].weight, before) == (variant.when == "task")
    method.new_task()
    assert not torch.equal(linear(net)[0].weight, before)


# --------------------------------------------------------------------------------------------------- projections


def test_fire_to_one_is_isometric_and_ten_steps_are_not_enough_for_a_square_gaussian():
    defects = {}
    for steps in (10, 60):
        net = mlp(128, 3, 128, 2, init="kaiming", seed=0)
        attach(FIRE(steps=steps, fan_scaled=False), net).new_task()
        defects[steps] = float((singular_values(linear(net)[1].weight) - 1).abs().max())
    assert defects[60] < 1e-3 < 0.1 < defects[10]


def test_fire_scales_by_fan_and_leaves_the_head_alone(net):
    head = linear(net)[-1].weight.detach().clone()
    attach(FIRE(steps=60), net).new_task()
    torch.testing.assert_close(singular_values(linear(net)[0].weight), torch.full((6,), (8 / 6) ** 0.5))
    assert torch.equal(linear(net)[-1].weight, head)


def test_fire_takes_every_tap_of_a_kernel_alone():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    attach(FIRE(steps=80), net).new_task()
    for tap in net[0].weight.detach().flatten(2).unbind(-1):
        torch.testing.assert_close(singular_values(tap), torch.full((4,), 1 / 9), rtol=1e-2, atol=1e-3)


def test_norm_projections_restore_the_norms_of_the_start(net):
    for method, axes in ((NormProjection(), (0, 1)), (RowNorm(), (1,))):
        start = linear(net)[0].weight.detach().norm(dim=axes)
        attached = attach(method, net)
        with torch.no_grad():
            linear(net)[0].weight.add_(0.5)
        attached.after_step()
        torch.testing.assert_close(linear(net)[0].weight.detach().norm(dim=axes), start)


def test_spectral_norm_brings_the_largest_singular_value_to_one_as_the_parametrisation_does(net):
    with torch.no_grad():
        linear(net)[1].weight.mul_(torch.linspace(0.1, 4, 8))
    reference = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8), n_power_iterations=200)
    method = attach(SpectralNorm(iterations=200), net)
    method.after_step()
    assert float(singular_values(linear(net)[1].weight)[0]) == pytest.approx(1, abs=1e-3)
    assert float(singular_values(reference.weight)[0]) == pytest.approx(1, abs=1e-3)


def test_weight_clipping_bounds_every_entry_by_kappa_over_root_fan_in(net):
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(100)
    attach(WeightClipping(kappa=2.0), net).after_step()
    for layer in linear(net):
        bound = 2 / layer.in_features**0.5
        assert float(layer.weight.abs().max()) == pytest.approx(bound)
        assert float(layer.bias.abs().max()) == pytest.approx(bound)


def test_isometry_on_all_rows_is_adamos_pull_at_the_new_weights(net, x):
    other = mlp(6, 3, 8, 2, seed=1)
    other.load_state_dict(net.state_dict())
    adamo = AdamO(isometry_groups(other, isometry_strength=1.0), lr=1e-3)
    other(x).square().mean().backward()
    adamo.step()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    one_step(net, attach(Isometry(strength=1.0), net, adam), adam, x)
    gap = max(float((p - q).abs().max()) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    assert 0 < gap < 1e-4  # O(lr^2 strength) times the curvature of the penalty


@pytest.mark.parametrize("rows", ["live", "dead"])
def test_clamped_isometry_moves_only_the_rows_it_names(net, x, rows):
    kill(net, 0, [2, 5])
    with torch.no_grad():
        linear(net)[0].weight[[2, 5]] = 1e-3
        linear(net)[0].bias[[2, 5]] = -9.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    method = attach(Isometry(strength=1.0, lr=0.1, rows=rows, window=1), net, optimizer)
    before = linear(net)[0].weight.detach().clone()
    one_step(net, method, optimizer, x)
    moved = set((linear(net)[0].weight != before).any(1).nonzero().flatten().tolist())
    assert moved and (moved <= {2, 5} if rows == "dead" else not moved & {2, 5})


def test_isometry_step_that_cannot_settle_is_refused_at_the_start(net):
    with pytest.raises(ValueError, match="below 1/4"):
        attach(Isometry(strength=3.0, lr=0.1), net)


# ---------------------------------------------------------------------------------------------------- optimizers


def test_upgd_gate_falls_with_utility_also_where_all_utilities_are_negative():
    p = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    p.grad = torch.tensor([1.0, 1.0, 1.0])  # utility -g*theta: -1, -2, -3
    before = p.detach().clone()
    UPGD([p], lr=0.1, noise=0.0, weight_decay=0.0).step()
    moves = before - p.detach()
    assert moves[0] < moves[1] < moves[2]


def test_upgd_without_noise_and_utility_takes_half_a_gradient_step():
    p = torch.zeros(3, requires_grad=True)
    p.grad = torch.ones(3)
    UPGD([p], lr=0.1, noise=0.0, weight_decay=0.0).step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -0.05))


def test_muon_on_stacked_parameters_equals_muon_on_each():
    stacked = torch.randn(2, 4, 5, generator=generator()).requires_grad_()
    alone = [nn.Parameter(stacked.detach()[r].clone()) for r in range(2)]
    several = PerRun([stacked], lambda ps: torch.optim.Muon(ps, lr=0.1))
    for step in range(3):
        stacked.grad = torch.randn(2, 4, 5, generator=generator(step))
        several.step()
        for r, p in enumerate(alone):
            p.grad = stacked.grad[r].clone()
    each = [torch.optim.Muon([p], lr=0.1) for p in alone]
    for step in range(3):
        gradient = torch.randn(2, 4, 5, generator=generator(step))
        for r, (p, optimizer) in enumerate(zip(alone, each, strict=True)):
            p.grad = gradient[r]
            optimizer.step()
    torch.testing.assert_close(stacked.detach(), torch.stack([p.detach() for p in alone]), rtol=1e-3, atol=1e-3)


def test_attached_net_of_a_stack_resets_each_run_by_its_own_mask():
    W, V = (torch.ones(2, 3, 3) for _ in range(2))
    method = Attached(ReDo(), [Layer("a", W, None), Layer("b", V, None)], seeds=[0, 1], batch_dims=1)
    mask = torch.tensor([[True, False, False], [False, False, True]])
    method.reset_units({0: mask})
    assert [(W[r] != 1).any(1).tolist() for r in range(2)] == mask.tolist()
    assert [(V[r] == 0).all(0).tolist() for r in range(2)] == mask.tolist()


def test_silence_at_the_level_itself_is_abnormal():
    steps = [True] * 19 + [False, True] + [False] * 5  # one of twenty past times was two steps long
    assert reset_steps([steps], rejection=0.05, observations=20)[0][0] == 23  # as long as that again


def test_churn_has_no_reference_from_before_a_change_of_task(net, x):
    method = attach(Churn(strength=1.0), net)
    for _ in range(3):
        net(x)
        method.penalty()
    method.new_task()
    with torch.no_grad():
        linear(net)[0].weight.add_(0.1)
    net(x)
    assert float(method.penalty().detach()) == 0


def test_draws_of_a_stacked_run_are_those_of_its_own_seed():
    W, V = torch.ones(2, 3, 3), torch.ones(2, 3, 3)
    draws = Attached(ReDo(), [Layer("a", W, None), Layer("b", V, None)], seeds=[4, 7], batch_dims=1).normal(W)
    alone = Attached(ReDo(), [Layer("a", W[1], None), Layer("b", V[1], None)], seeds=[7]).normal(W[1])
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[1], alone)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_shrinking_that_follows_the_learning_rate_is_so_much_weaker(net, rate):
    method = attach(SHRINK_PERTURB["elsayed"], net, torch.optim.SGD(net.parameters(), lr=rate))
    weight = linear(net)[0].weight
    with torch.no_grad():
        weight.fill_(1e6)
    method.after_step()
    assert float(weight.detach().mean()) == pytest.approx(1e6 * (1 - 0.01 * rate), rel=1e-5)
