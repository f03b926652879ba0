"""Contracts of dyniso.study.interventions: what is done to each run of a stack, and when; trunks; what is refused."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dyniso import interventions as pure
from dyniso import nets
from dyniso.study import runner, store, train
from dyniso.study.checkpoint import OutOfTime
from dyniso.study.instruments.before import kernel_max
from dyniso.study.interventions import DRAWS, FRESH, KINDS, Interventions, Place, flat_distance
from dyniso.study.specs import Experiment, Intervention, Method, Net, Stream, Trunk, digest, get
from dyniso.study.stack import Run, Stack
from dyniso.study.tasks import load_source
from dyniso.study.train import Trainer, make_net, train_group

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
KEYS = ["task", "layer", "metric"]
SHORT = dict(steps_per_task=12, batch=10, probe=32, seeds=(0, 1))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def at(when, kind, **settings) -> Intervention:
    return Intervention(kind, when, tuple(sorted(settings.items())))


def held(rule, every=4, **settings) -> Intervention:
    return Intervention("spectrum", "steps", tuple(sorted({"rule": rule, **settings}.items())), every)


def arm(name, *plan, **changes) -> Method:
    return Method(name, name, interventions=plan, **changes)


def small(*methods, tasks=2, trunk=None, **changes) -> Experiment:
    """A few steps of random labels on images of 7 x 7 pixels, width 12."""
    stream = Stream("random_labels", "mnist-small", samples=100, tasks=tasks, pool=4)
    settings = dict(stream=stream, net=Net(width=12, depth=2), trunk=trunk, measures=()) | SHORT | changes
    return replace(get("random_labels"), methods=methods, **settings)


# --------------------------------------------------------------------------------- what each kind does to each run


def drawn_net(run: Run) -> nn.Sequential:
    return nets.mlp(20, 4, 12, 2, run.method.activation, seed=run.seed)


def worn_net(run: Run) -> nn.Sequential:
    """One with other singular values than at its start, and with biases."""
    net, g = drawn_net(run), torch.Generator().manual_seed(run.seed)
    for p in net.parameters():
        p.data.add_(0.4 * torch.randn(p.shape, generator=g) / p.shape[-1] ** 0.5)
    return net


class Done:
    """A plan made on worn nets of each seed, before a task."""

    def __init__(self, *plan, task=3, activation="relu", seeds=SEEDS, beside=()):
        plan = tuple(replace(what, when="boundary") if what.when == "branch" else what for what in plan)
        made = [Run(arm("m", *plan, activation=activation), s) for s in seeds]
        others = [Run(arm("other", *beside, activation=activation), s) for s in seeds] if beside else []
        runs = [run for pair in zip(made, others, strict=True) for run in pair] if others else made
        self.stack, self.task, self.seeds = Stack([worn_net(run) for run in runs], CPU), task, seeds
        self.images = torch.stack(
            [torch.randn(64, 20, generator=torch.Generator().manual_seed(9 + r.seed)) for r in runs]
        )
        self.before = {name: p.detach().clone() for name, p in self.stack.params.items()}
        self.outputs = self.stack(self.images).detach()
        self.made = Interventions(runs, self.stack, 0, drawn_net)
        self.made.before_task(task, self.images, kernel_max)
        self.after = {name: p.detach() for name, p in self.stack.params.items()}
        self.hidden = self.stack.regularised()

    def pairs(self):
        """Every hidden weight of every run: (layer, run, before, after)."""
        for layer, name in enumerate(self.hidden):
            for r in range(len(self.images)):
                yield layer, r, self.before[name][r], self.after[name][r]

    def generator(self, layer, r):
        return torch.Generator().manual_seed(self.seeds[r] + DRAWS * (self.task + 1) + 101 * layer)

    def unchanged(self):
        return {name for name, p in self.after.items() if torch.equal(p, self.before[name])}

    def shares(self, params, rows):
        weights = [params[name][rows] for name in self.hidden]
        biases = [params[name.replace("weight", "bias")][rows] for name in self.hidden]
        activation = next(m for m in self.stack.template if not list(m.parameters()) and not isinstance(m, nn.Flatten))
        return pure.firing_shares(weights, biases, activation, self.images[rows])


def close(a, b, tolerance=2e-6):
    return float((a - b).abs().max()) <= tolerance


def distance(W, made):
    return float(torch.linalg.matrix_norm(made.double() - W.double()))


def all_but_hidden_weights(done):
    return done.after.keys() - set(done.hidden)


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": "band", "low": 0.5, "high": 1.1},
        {"rule": "flat"},
        {"rule": "log_normal", "deviation": 1.0},
        {"rule": "scaled"},
    ],
    ids=lambda s: s["rule"],
)
def test_spectrum_is_the_rule_on_every_hidden_weight_and_nothing_else_changes(settings):
    done = Done(at("boundary", "spectrum", **settings))
    rule = pure.rule(settings["rule"], **{k: v for k, v in settings.items() if k != "rule"})
    for _, _, W, made in done.pairs():
        assert close(made, pure.with_spectrum(W, rule)) and not close(made, W, 1e-3)
    assert done.unchanged() == all_but_hidden_weights(done)


DRAWN = {
    "haar": lambda W, g: pure.haar(W, g),
    "noisy": lambda W, g: pure.noisy(W, distance(W, pure.with_spectrum(W, pure.flat)), g),
    "re_paired": lambda W, g: pure.re_paired(W, g),
    "rotated": lambda W, g: pure.rotated(W, distance(W, pure.with_spectrum(W, pure.flat)), g),
}


@pytest.mark.parametrize("kind", sorted(DRAWN))
def test_random_changes_are_the_pure_function_with_draws_of_seed_task_and_layer(kind):
    done = Done(at("boundary", kind))
    for layer, r, W, made in done.pairs():
        assert close(made, DRAWN[kind](W, done.generator(layer, r)), 1e-5) and not close(made, W, 1e-3)
    assert done.unchanged() == all_but_hidden_weights(done)


@pytest.mark.parametrize("kind", ["noisy", "rotated", "shrink_perturb"])
def test_displaced_weights_go_as_far_as_the_flat_arm(kind):
    done = Done(at("boundary", kind))
    for _, _, W, made in done.pairs():
        assert distance(W, made) == pytest.approx(distance(W, pure.with_spectrum(W, pure.flat)), rel=1e-3)


def test_shrink_perturb_goes_straight_towards_the_fresh_net_of_the_task():
    done = Done(at("boundary", "shrink_perturb"))
    for layer, r, W, made in done.pairs():
        fresh = drawn_net(Run(arm("m"), SEEDS[r] + FRESH * (done.task + 1))).get_parameter(done.hidden[layer])
        way, step = (fresh.detach() - W).flatten(), (made - W).flatten()
        assert float(torch.cosine_similarity(way, step, dim=0)) == pytest.approx(1, abs=1e-5)


def test_displacement_of_a_weight_without_full_rank_is_that_of_its_singular_values():
    done = Done(at("boundary", "noisy"), seeds=(0,))
    W = done.before[done.hidden[1]]
    W[:, 0] = 0.0
    sigma = torch.linalg.svdvals(W.double())
    assert close(flat_distance(W), (sigma - 1).square().sum(-1).sqrt(), 1e-5)


@pytest.mark.parametrize("activation", ["maxmin", "relu"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.75])
def test_gates_keep_all_weights_and_set_the_share_on_the_images_of_the_coming_task(share, activation):
    done = Done(at("boundary", "gates", share=share), activation=activation)
    assert done.unchanged() == {name for name in done.after if name.endswith("weight")} | {"5.bias"}
    for found in done.shares(done.after, [0, 1, 2]):
        assert torch.equal(found, torch.full_like(found, share))


@pytest.mark.parametrize("order", [1, -1], ids=["gates last", "gates first"])
def test_gates_own_are_those_before_any_surgery_of_the_plan(order):
    done = Done(*(at("boundary", "spectrum", rule="flat"), at("boundary", "gates", share="own"))[::order])
    before, after = done.shares(done.before, [0, 1, 2]), done.shares(done.after, [0, 1, 2])
    if order == 1:
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not done.unchanged() & set(done.hidden)


def test_zero_biases_are_the_hidden_ones():
    done = Done(at("boundary", "zero_biases"))
    assert not done.after["1.bias"].any() and not done.after["3.bias"].any()
    assert done.unchanged() == done.after.keys() - {"1.bias", "3.bias"}


FRESH_PARTS = {
    "all": {"1.bias", "1.weight", "3.bias", "3.weight", "5.bias", "5.weight"},
    "head": {"5.bias", "5.weight"},
    "hidden": {"1.bias", "1.weight", "3.bias", "3.weight"},
}


@pytest.mark.parametrize("part", sorted(FRESH_PARTS))
def test_fresh_parts_are_those_of_a_net_drawn_for_the_seed_and_task(part):
    done = Done(at("boundary", "fresh", part=part))
    assert done.unchanged() == done.after.keys() - FRESH_PARTS[part]
    for r, seed in enumerate(SEEDS):
        net = drawn_net(Run(arm("m"), seed + FRESH * (done.task + 1)))
        assert all(torch.equal(done.after[name][r], net.get_parameter(name)) for name in FRESH_PARTS[part])
    other = Done(at("boundary", "fresh", part="all"), task=4)
    assert not torch.equal(other.after["1.weight"], done.after["1.weight"])


@pytest.mark.parametrize("settings", [{"deviation": 1.0}, {"scales": "isometric"}, {"scales": "rows"}], ids=str)
@pytest.mark.parametrize("activation", ["maxmin", "relu"])
def test_gauge_keeps_the_function_and_changes_the_weights(activation, settings):
    if (activation, settings.get("scales")) == ("maxmin", "rows"):
        with pytest.raises(ValueError, match=r"gauge\.scales='rows'; .*2 units share a scale"):
            Done(at("boundary", "gauge", **settings), activation=activation)
        return
    done = Done(at("boundary", "gauge", **settings), activation=activation)
    outputs = done.stack(done.images).detach()
    assert float((outputs - done.outputs).abs().max() / done.outputs.abs().max()) < 1e-5
    assert done.unchanged() == {"5.bias"}
    defect = [
        sum((torch.linalg.svdvals(params[name].double()).square() - 1).square().mean(-1) for name in done.hidden)
        for params in (done.before, done.after)
    ]
    if settings.get("scales") == "isometric":
        assert bool((defect[1] < 0.9 * defect[0]).all())
    if settings.get("scales") == "rows":
        assert all(close(done.after[name].norm(dim=-1), torch.ones(3, 12)) for name in done.hidden)


def test_kinds_that_act_on_gradients_change_no_weight():
    for kind in ("frozen_biases", "matched_rate"):
        done = Done(at("boundary", kind))
        assert done.unchanged() == done.after.keys() and done.made.acts_on_gradients
    tested = {
        *DRAWN,
        "spectrum",
        "shrink_perturb",
        "gates",
        "zero_biases",
        "fresh",
        "gauge",
        "frozen_biases",
        "matched_rate",
    }
    assert tested == KINDS.keys()


@pytest.mark.parametrize("kind", sorted({*DRAWN, "shrink_perturb"}))
def test_all_arms_of_a_seed_get_the_same_draws_and_layers_and_tasks_others(kind):
    both = Done(at("boundary", kind), beside=(at("boundary", kind), at("boundary", "zero_biases")))
    alone = Done(at("boundary", kind), seeds=(1,))
    for name in both.hidden:
        assert torch.equal(both.after[name][0::2], both.after[name][1::2])
        assert torch.equal(both.after[name][2], alone.after[name][0])
    later = Done(at("boundary", kind), task=4)
    assert not torch.equal(later.after["1.weight"], both.after["1.weight"][0::2])


def test_runs_that_are_not_finite_are_left_alone_and_the_others_are_changed():
    runs = [Run(arm("m", at("boundary", "spectrum", rule="flat")), s) for s in SEEDS]
    stack = Stack([worn_net(run) for run in runs], CPU)
    stack.give_up([1])
    Interventions(runs, stack, 0, drawn_net).before_task(2, torch.randn(3, 32, 20), kernel_max)
    sigma = torch.linalg.svdvals(stack.params["1.weight"].detach()[[0, 2]])
    assert close(sigma, torch.ones_like(sigma), 1e-5) and stack.params["1.weight"][1].isnan().all()


# --------------------------------------------------------------------------------------------------------- when

DUE = {  # (when, branch) -> tasks out of 0 .. 4 before which it is made
    ("boundary", 0): [1, 2, 3, 4],
    ("boundary", 2): [2, 3, 4],
    ("branch", 2): [2],
    ("start", 0): [0],
    ("steps", 0): [0],
    ("steps", 2): [2],
}


@pytest.mark.parametrize(("when", "branch"), sorted(DUE))
def test_interventions_are_due_before_the_tasks_that_their_word_says(when, branch):
    what = Intervention("zero_biases", when, every=3 if when == "steps" else None)
    assert [t for t in range(5) if Place(t, branch).is_due(what)] == DUE[when, branch]
    steps = [s for s in range(1, 10) if Place(4, branch, s).is_due(what)]
    assert steps == ([3, 6, 9] if when == "steps" else [])


def trained(experiment, runs, steps=None):
    """A trainer after its first task, and the task."""
    source = load_source(experiment.stream, CPU)
    trainer = Trainer(experiment, runs, source)
    seeds = [run.seed for run in runs]
    task = train.load_task(experiment, seeds, 0, source)
    trainer.intervene(task, 0)
    trainer.train(task, train.task_order(experiment, seeds, 0)[:steps])
    return trainer


def test_held_spectra_are_what_they_should_be_after_every_kth_step():
    plans = {"flat": held("flat"), "log_normal": held("log_normal", deviation=1.0)}
    for name, what in plans.items():
        runs = [Run(arm(name, what), s) for s in SEEDS]
        for steps in (4, 8, 12):
            trainer = trained(small(arm(name, what)), runs, steps)
            for W in (trainer.stack.params[n].detach() for n in trainer.stack.regularised()):
                sigma = torch.linalg.svdvals(W.double())
                rule = pure.rule(name, **({"deviation": 1.0} if name == "log_normal" else {}))
                wanted = rule(sigma)
                assert close((sigma.square() - wanted.square()).square().mean(-1), torch.zeros(3), 1e-5)
                assert close(sigma, wanted, 1e-5)


def test_held_drift_is_how_far_singular_values_were_from_it_before_the_projection():
    every = SHORT["steps_per_task"]
    runs = [
        [Run(arm("m", *plan), s) for s in SEEDS]
        for plan in ((held("flat", every),), (at("start", "spectrum", rule="flat"),))
    ]
    experiment = small(runs[0][0].method)
    projected, free = (trained(experiment, r) for r in runs)
    drift = torch.zeros(3, dtype=torch.float64)
    for name in free.stack.regularised():
        sigma = torch.linalg.svdvals(free.stack.params[name].detach().double())
        drift = torch.maximum(drift, (sigma - 1).square().mean(-1).sqrt())
        assert close(
            projected.stack.params[name].detach(), pure.with_spectrum(free.stack.params[name].detach(), pure.flat)
        )
    assert close(projected.interventions.moved, drift, 1e-5) and float(drift.min()) > 1e-3
    rows = train_group(experiment, runs[0], load_source(experiment.stream, CPU))[1]
    recorded = rows[rows["metric"] == "held_drift"].set_index("task")["value"]
    assert list(recorded.index) == [0, 1] and recorded[0] == pytest.approx(float(drift[1]), abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_biases_do_not_move_and_the_head_and_other_runs_do(optimizer):
    own = dict(optimizer=optimizer, lr=1e-3 if optimizer == "adam" else 0.1)
    frozen, free = arm("frozen", at("boundary", "frozen_biases"), **own), arm("free", **own)
    experiment = small(frozen, free)
    trainer = trained(experiment, [Run(frozen, 0), Run(free, 0)])
    start = make_net(experiment, free, 0, load_source(experiment.stream, CPU))
    for name, p in trainer.stack.params.items():
        moved = (p.detach() - start.get_parameter(name).detach()).flatten(1).abs().amax(1) > 0
        assert moved.tolist() == [name not in ("1.bias", "3.bias"), True]


def test_matched_rate_is_sgd_at_the_rate_times_the_ratio_of_kernels():
    gauge = at("start", "gauge", deviation=1.5)
    matched = arm("matched", gauge, at("boundary", "matched_rate"), optimizer="sgd", lr=0.1)
    experiment = small(matched)
    source = load_source(experiment.stream, CPU)
    trainer = trained(experiment, [Run(matched, s) for s in SEEDS])
    rate = trainer.interventions.rate
    assert bool((rate < 0.9).all())
    for r, seed in enumerate(SEEDS):
        plain = arm("plain", gauge, optimizer="sgd", lr=0.1 * float(rate[r]))
        alone = trained(experiment, [Run(plain, seed)])
        for name, p in alone.stack.params.items():
            assert close(p.detach()[0], trainer.stack.params[name].detach()[r], 1e-5)
    images = train.load_task(experiment, SEEDS, 0, source).take(torch.arange(32).expand(3, -1))[0]
    fresh = Stack([make_net(experiment, matched, s, source) for s in SEEDS], CPU)
    own = fresh_like(experiment, gauge, source)
    ratio = kernel_max(fresh, images) / kernel_max(own, images)
    torch.testing.assert_close(rate.double(), ratio, rtol=1e-5, atol=0)


def fresh_like(experiment, what, source):
    """Nets at their start after one intervention."""
    runs = [Run(arm("m", what), s) for s in SEEDS]
    trainer = Trainer(experiment, runs, source)
    trainer.intervene(train.load_task(experiment, list(SEEDS), 0, source), 0)
    return trainer.stack


def test_matched_rate_of_a_net_that_is_as_drawn_is_the_rate_itself():
    matched = arm("matched", at("boundary", "matched_rate"), optimizer="sgd", lr=0.1)
    trainer = trained(small(matched), [Run(matched, s) for s in SEEDS])
    torch.testing.assert_close(trainer.interventions.rate, torch.ones(3), rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------------------- company

PLANS = {
    "fresh": (at("branch", "fresh", part="all"),),
    "frozen_biases": (Intervention("frozen_biases"),),
    "gates": (at("boundary", "gates", share=0.5),),
    "gauge": (at("branch", "gauge", deviation=1.0),),
    "haar": (at("boundary", "haar"),),
    "held": (held("log_normal", 3, deviation=1.0),),
    "isometric": (at("branch", "gauge", scales="isometric"),),
    "noisy": (at("branch", "noisy"),),
    "own": (at("branch", "spectrum", rule="flat"), at("branch", "gates", share="own")),
    "re_paired": (at("boundary", "re_paired"),),
    "rotated": (at("branch", "rotated"),),
    "shrink_perturb": (at("branch", "shrink_perturb"),),
}


@pytest.mark.parametrize("plan", sorted(PLANS))
def test_rows_of_a_run_do_not_depend_on_the_runs_and_arms_beside_it(plan):
    method, other = arm("m", *PLANS[plan]), arm("other", held("flat", 3), at("boundary", "gates", share=0.25))
    net, trunk = Net(width=20, depth=2), Trunk(1)  # no multiple of the processor's lines of 16 floats
    experiment = small(method, other, tasks=3, trunk=trunk, net=net, measures=("before",))
    source = load_source(experiment.stream, CPU)
    runs = [Run(m, s) for s in range(3) for m in (method, other)]
    together = dict(zip(runs, train_group(experiment, runs, source), strict=True))
    for company in ([Run(method, 2)], [Run(method, 1), Run(method, 0)]):
        for run, rows in zip(company, train_group(experiment, company, source), strict=True):
            beside = together[run]
            assert rows["metric"].tolist() == beside["metric"].tolist()
            np.testing.assert_array_equal(rows["value"], beside["value"])


# --------------------------------------------------------------------------------------------------------- trunks

ARMS = (
    arm("kept"),
    arm("flat", at("branch", "spectrum", rule="flat")),
    arm("held", held("log_normal", deviation=0.5), Intervention("frozen_biases")),
    arm("fresh", at("boundary", "fresh", part="head"), at("boundary", "re_paired")),
    arm("gauge", at("branch", "gauge", deviation=1.0), Intervention("matched_rate"), optimizer="sgd", lr=0.1),
)


def values(frame, *, tasks, metrics):
    """Rows of some tasks and metrics, in order."""
    chosen = frame[frame["task"].isin(tasks) & frame["metric"].isin(metrics)]
    return chosen.sort_values(KEYS, ignore_index=True)[[*KEYS, "value"]]


def as_trunk(experiment, **changes):
    """The plain experiment that a trunk stands for."""
    plain = arm("plain", lr=experiment.trunk.lr, **changes)
    return replace(experiment, trunk=None, methods=(plain,), measures=())


def test_rows_of_a_trunk_are_those_of_plain_adam_for_every_arm_bit_for_bit():
    experiment = small(*ARMS, tasks=4, trunk=Trunk(2, lr=3e-3), measures=("before",))
    source = load_source(experiment.stream, CPU)
    plain = as_trunk(experiment)
    alone = train_group(plain, [Run(plain.methods[0], s) for s in (0, 1)], source)
    for group in runner.grouped([Run(m, s) for m in ARMS for s in (1, 0)]):
        for run, rows in zip(group, train_group(experiment, group, source), strict=True):
            metrics = {*rows[rows["task"] == 0]["metric"]}
            assert {"online_accuracy", "online_loss", "end_accuracy", "diverged"} <= metrics
            expected = values(alone[run.seed], tasks=(0, 1), metrics=metrics)
            found = values(rows, tasks=(0, 1), metrics=metrics)
            pd.testing.assert_frame_equal(
                found, expected[expected["layer"] == ""].reset_index(drop=True), check_exact=True
            )
            assert not rows[rows["task"] < 2]["metric"].str.startswith("before_").any()
            assert rows[rows["task"] >= 2]["metric"].str.startswith("before_").any()


def test_an_arm_that_is_kept_is_the_trunk_trained_on_with_a_fresh_optimizer_bit_for_bit():
    kept = arm("kept", lr=3e-3)
    experiment = small(kept, *ARMS[1:3], tasks=2, trunk=Trunk(1, lr=3e-3))
    source = load_source(experiment.stream, CPU)
    plain = as_trunk(experiment, reset_optimizer=True)
    for seed in (0, 1):
        rows = train_group(experiment, [Run(kept, seed)], source)[0]
        expected = train_group(plain, [Run(plain.methods[0], seed)], source)[0]
        metrics = set(rows["metric"])
        pd.testing.assert_frame_equal(
            values(rows, tasks=(-1, 1), metrics=metrics),
            values(expected, tasks=(-1, 1), metrics=metrics),
            check_exact=True,
        )


def test_a_run_stopped_in_the_trunk_at_the_branch_and_after_it_goes_on_bit_for_bit(tmp_path):
    experiment = small(*ARMS, tasks=4, trunk=Trunk(2), measures=("before",))
    whole = runner.run(experiment, "cpu", tmp_path / "whole", progress=False)
    stops, parts = 0, None
    while parts is None:
        try:
            parts = runner.run(experiment, "cpu", tmp_path / "parts", progress=False, time_budget_s=0)
        except OutOfTime:
            stops += 1
    assert stops == 6  # two groups, of Adam and of SGD: in the trunk, at the branch, and after it
    keys = ["method", "seed", *KEYS]
    parts, whole = (frame.sort_values(keys, ignore_index=True)[[*keys, "value"]] for frame in (parts, whole))
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)


# --------------------------------------------------------------------------------------------- digests and refusals


@pytest.mark.parametrize("name", ["predictors", "random_labels", "strengths"])
def test_experiments_without_interventions_keep_the_digests_of_stored_runs(name):
    experiment = get(name, "check")
    assert set(store.read_compact(experiment, ("method",))["method"]) == {m.name for m in experiment.methods}


def test_trunk_and_interventions_are_part_of_the_digest_and_names_are_not():
    plain, flat = arm("m"), arm("m", at("boundary", "spectrum", rule="flat"))
    experiment, branched = (small(plain, tasks=3, trunk=trunk) for trunk in (None, Trunk(1)))
    others = [
        digest(experiment, plain),
        digest(branched, plain),
        digest(replace(branched, trunk=Trunk(2)), plain),
        digest(replace(branched, trunk=Trunk(1, lr=1e-2)), plain),
        digest(experiment, flat),
        digest(experiment, arm("m", at("boundary", "spectrum", rule="scaled"))),
        digest(experiment, arm("m", held("flat", 3))),
        digest(experiment, arm("m", held("flat", 4))),
    ]
    assert len(set(others)) == len(others)
    assert digest(experiment, replace(plain, name="n", label="another", interventions=())) == others[0]


FLAT = at("boundary", "spectrum", rule="flat")
UNFIT = {  # specs that are refused as they are declared
    "branch without trunk": (
        lambda: small(arm("m", at("branch", "re_paired"))),
        "'re_paired' when='branch' with trunk=None",
    ),
    "convolutions": (
        lambda: small(arm("m", FLAT), net=Net(width=12, depth=1, channels=(4,))),
        "needs an MLP with biases",
    ),
    "every below one": (lambda: Intervention("haar", "steps", every=0), "every=0"),
    "every without steps": (
        lambda: Intervention("haar", "boundary", every=3),
        "every=3 with when='boundary'; it is for 'steps'",
    ),
    "matched rate of adam": (
        lambda: small(arm("m", at("boundary", "matched_rate"))),
        "optimizer='adam'; 'matched_rate' is for 'sgd'",
    ),
    "no biases": (lambda: small(arm("m", FLAT), net=Net(width=12, depth=2, bias=False)), "needs an MLP with biases"),
    "norm": (lambda: small(arm("m", FLAT, norm="layernorm")), "without norm or parametrization"),
    "parametrization": (
        lambda: small(arm("m", FLAT, parametrization="newton_schulz")),
        "without norm or parametrization",
    ),
    "parametrization after a trunk": (
        lambda: small(arm("m", parametrization="newton_schulz"), trunk=Trunk(1)),
        "parametrization='newton_schulz'; a trunk has none",
    ),
    "start after a trunk": (
        lambda: small(arm("m", at("start", "haar")), trunk=Trunk(1)),
        "'haar' when='start' with trunk=",
    ),
    "steps without every": (lambda: Intervention("haar", "steps"), "every=None"),
    "trunk as long as the stream": (lambda: small(arm("m"), tasks=3, trunk=Trunk(3)), r"trunk\.tasks=3; .*from 1 to 2"),
    "trunk of none": (lambda: Trunk(0), r"trunk\.tasks=0"),
    "trunk's rate": (lambda: Trunk(1, lr=-1.0), r"trunk\.lr=-1\.0"),
    "unknown kind": (lambda: Intervention("harr"), "kind='harr'; .*did you mean 'haar'"),
    "unknown time": (lambda: Intervention("haar", "branches"), "when='branches'; .*did you mean 'branch'"),
}


@pytest.mark.parametrize("case", sorted(UNFIT))
def test_bad_declarations_are_refused_as_they_are_made(case):
    make, message = UNFIT[case]
    with pytest.raises(ValueError, match=message):
        make()


BAD = {  # settings that are refused before anything is trained, whenever they are due
    "activation without a gauge": (
        arm("m", at("branch", "gauge", deviation=1.0), activation="tanh"),
        "Tanh is not known",
    ),
    "deviation": (arm("m", at("branch", "gauge", deviation=-1.0)), r"deviation=-1\.0"),
    "gates within a task": (
        arm("m", Intervention("gates", "steps", (("share", 0.5),), 3)),
        "when='steps'; .*a task boundary",
    ),
    "missing setting": (
        arm("m", at("branch", "gates")),
        "'gates' with settings {}: missing a required argument: 'share'",
    ),
    "more spikes than values": (
        arm("m", at("branch", "spectrum", rule="spikes", count=12, defect=0.1)),
        "count=12; .*1 to 11",
    ),
    "no such defect": (arm("m", held("bottom", defect=20.0)), r"defect=20\.0; .*below m - 1 = 11"),
    "part": (arm("m", at("branch", "fresh", part="hiden")), "part='hiden'; .*did you mean 'hidden'"),
    "rows of pairs": (arm("m", at("branch", "gauge", scales="rows"), activation="maxmin"), "2 units share a scale"),
    "rule": (arm("m", at("branch", "spectrum", rule="flatt")), "spectrum='flatt'; .*did you mean 'flat'"),
    "scales": (arm("m", at("branch", "gauge", scales="isometrc")), "scales='isometrc'; .*did you mean 'isometric'"),
    "setting of a rule": (
        arm("m", at("branch", "spectrum", rule="flat", value=1.0)),
        "unexpected keyword argument 'value'",
    ),
    "share": (arm("m", at("branch", "gates", share=1.5)), r"share=1\.5"),
    "share of too few": (arm("m", at("branch", "gates", share=0.005)), "share=0.005; .*there are 100 samples"),
    "unknown setting": (arm("m", at("branch", "haar", strength=1.0)), "unexpected keyword argument 'strength'"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_settings_are_refused_before_any_training(case, tmp_path, monkeypatch):
    method, message = BAD[case]
    monkeypatch.setattr(train, "train_group", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        runner.run(small(method, trunk=Trunk(1)), "cpu", tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked_too_where_a_group_is_trained_without_the_runner():
    experiment = small(BAD["rule"][0], trunk=Trunk(1))
    with pytest.raises(ValueError, match="did you mean 'flat'"):
        Trainer(experiment, [Run(experiment.methods[0], 0)], load_source(experiment.stream, CPU))
    assert math.isfinite(experiment.trunk.lr)
