"""Contracts of dyniso.study.train: stacking changes nothing, on any net and stream, and a bad run harms no other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dyniso.isometry import singular_values
from dyniso.optim import AdamO, isometry_groups
from dyniso.study import train
from dyniso.study.specs import BASELINES, BITS, CANDIDATES, Experiment, Method, Net, Stream, only_methods
from dyniso.study.stack import Run, Stack
from dyniso.study.streams import batch_order, make_task
from dyniso.study.tasks import Source, load_source, load_task, task_order
from dyniso.study.train import Trainer, make_net, train_group

CPU = torch.device("cpu")
ROUNDING = 2e-5  # float32: a batched product rounds otherwise than a single one (1e-7), times 12 Adam steps
CUDA_DRIFT = 2e-2  # another order of summation, amplified over 12 steps of Adam
ACTING = {  # settings with which a method acts within a few steps
    "redo": (("every", 3), ("threshold", 0.5)),
    "continual_backprop": (("maturity", 2), ("rate", 0.1)),
    "isometry": (("rows", "live"), ("strength", 1.0), ("window", 2)),
    "shrink_perturb": (("perturb", 0.01), ("shrink", 0.99), ("when", "step")),
}
KEYS = ["task", "layer", "metric"]


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(Stream("random_labels", "mnist-small", samples=64, tasks=2), CPU)


def all_runs(experiment: Experiment) -> list[Run]:
    return [Run(m, s) for m in experiment.methods for s in experiment.seeds]


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame, tolerance: float = ROUNDING) -> None:
    """The same keys, and values within the tolerance, relative for large ones."""
    keys = [k for k in ("method", "seed", *KEYS) if k in expected]
    found, expected = (f.sort_values(keys, ignore_index=True) for f in (found, expected))
    pd.testing.assert_frame_equal(found[keys], expected[keys])
    np.testing.assert_allclose(found["value"], expected["value"], rtol=tolerance, atol=tolerance)


def value(rows: pd.DataFrame, metric: str, layer: str = "", task: int = 0) -> float:
    (found,) = rows[(rows["metric"] == metric) & (rows["layer"] == layer) & (rows["task"] == task)]["value"]
    return found


# ---------------------------------------------------------------------------------------------------- stacking


VARIANTS = {
    "relu": {},
    "maxmin": {"activation": "maxmin"},
    "coupled": {"coupled": True},
    "every other step": {"isometry_every": 2},
}


@pytest.mark.parametrize("kind", ["random_labels", "permuted_pixels"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_stacked_group_equals_the_same_runs_alone(tiny, source, kind, variant):
    base = Method("a", "a", optimizer="adamo", **variant)
    methods = [replace(base, name=f"s{s}", isometry_strength=s) for s in (0.0, 0.1, 2.0)]
    experiment = replace(tiny, stream=replace(tiny.stream, kind=kind), methods=tuple(methods))
    runs = all_runs(experiment)
    together = train_group(experiment, runs, source)
    for run, rows in zip(runs, together, strict=True):
        (alone,) = train_group(experiment, [run], source)
        assert_same_rows(rows, alone, 0.0)
    assert len({value(rows, "sigma_max", "3.weight", task=1) for rows in together}) == len(runs)


def whole_task(stream, seed, task, source):
    """Inputs (samples, features) and labels (samples,) of one task, from its indices by indexing alone."""
    drawn = make_task(stream, seed, task, source.labels, source.inputs.shape[1])
    x = source.inputs[drawn.rows] if drawn.inputs is None else torch.from_numpy(drawn.inputs)
    return x if drawn.permutation is None else x[:, drawn.permutation], torch.from_numpy(drawn.labels)


def plain_loop(experiment, method, seed, source):
    """What a user would write for one run: an ordinary module, optimizer and loop. Returns net and online accuracy."""
    net = train.make_net(experiment, method, seed, source)
    if method.optimizer == "adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=method.lr)
    else:
        groups = isometry_groups(net, isometry_strength=method.isometry_strength)
        optimizer = AdamO(groups, lr=method.lr, isometry_every=method.isometry_every, coupled=method.coupled)
    for task in range(experiment.stream.tasks):
        x, y = whole_task(experiment.stream, seed, task, source)
        hits = []
        for batch in batch_order(experiment.stream, seed, task, experiment.steps_per_task, experiment.batch):
            logits = net(x[batch])
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, y[batch]).backward()
            optimizer.step()
            hits.append((logits.argmax(1) == y[batch]).float().mean().item())
    return net, float(np.mean(hits))


def stacked_loop(experiment, runs, source) -> Stack:
    trainer = Trainer(experiment, runs, source)
    for task in range(experiment.stream.tasks):
        orders = [
            batch_order(experiment.stream, r.seed, task, experiment.steps_per_task, experiment.batch) for r in runs
        ]
        order = torch.from_numpy(np.stack(orders, 1))
        trainer.train(load_task(experiment, [r.seed for r in runs], task, source), order)
    return trainer.stack


@pytest.mark.parametrize("kind", ["random_labels", "permuted_pixels"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_stacked_weights_equal_those_of_a_plain_loop(tiny, source, kind, variant):
    strong = Method("strong", "strong", optimizer="adamo", isometry_strength=2.0, **variant)
    experiment = replace(tiny, stream=replace(tiny.stream, kind=kind))
    runs = [Run(replace(strong, isometry_strength=s), seed) for s in (0.1, 2.0) for seed in (0, 1)]
    stack = stacked_loop(experiment, runs, source)
    for r, run in enumerate(runs):
        net, _ = plain_loop(experiment, *run, source)
        for name, weight in net.named_parameters():
            torch.testing.assert_close(stack.params[name][r], weight, rtol=ROUNDING, atol=ROUNDING)


def test_strength_zero_in_a_group_of_adamo_equals_plain_adam(tiny, source):
    adam, adamo = tiny.methods
    stack = stacked_loop(tiny, [Run(adamo, 0), Run(adam, 0), Run(adam, 1)], source)
    for r, seed in ((1, 0), (2, 1)):
        net, _ = plain_loop(tiny, adam, seed, source)
        for name, weight in net.named_parameters():
            torch.testing.assert_close(stack.params[name][r], weight, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("which", [0, 1])
def test_recorded_rows_are_those_of_a_plain_loop(tiny, source, which):
    method, last = tiny.methods[which], tiny.stream.tasks - 1
    rows = train_group(tiny, [Run(m, 0) for m in tiny.methods], source)[which]
    net, online = plain_loop(tiny, method, 0, source)
    assert value(rows, "online_accuracy", task=last) == pytest.approx(online, abs=1e-6)
    x, y = whole_task(tiny.stream, 0, last, source)
    assert value(rows, "end_accuracy", task=last) == pytest.approx((net(x).argmax(1) == y).float().mean().item())
    for name in ("1.weight", "3.weight", "5.weight"):
        sigma = singular_values(net.get_parameter(name))
        for metric, expected in (("max", sigma.max()), ("min", sigma.min()), ("mean", sigma.mean())):
            assert value(rows, f"sigma_{metric}", name, last) == pytest.approx(float(expected), abs=ROUNDING)
    h = net[:3](x[: tiny.probe])
    assert value(rows, "dead", "hidden1", last) == pytest.approx((h.amax(0) <= 0).float().mean().item())


def test_maxmin_and_relu_start_from_the_same_weights_for_one_seed_only(tiny, source):
    relu, maxmin = tiny.methods[0], replace(tiny.methods[0], activation="maxmin")
    nets = [train.make_net(tiny, m, seed, source) for m, seed in ((relu, 3), (maxmin, 3), (relu, 4))]
    first, same, other = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(p, q) for p, q in zip(first, same, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(first, other, strict=True) if p.ndim == 2)


def test_every_method_of_a_seed_sees_the_same_batches(tiny, source):
    runs = [Run(m, s) for s in (0, 1) for m in tiny.methods]
    x, y = load_task(tiny, [r.seed for r in runs], 1, source).take(torch.arange(16).expand(4, -1))
    assert torch.equal(x[0], x[1])
    assert torch.equal(y[2], y[3])
    assert not torch.equal(x[0], x[2])


# ---------------------------------------------------------------------------------------------------- measures


def test_orthogonal_weights_have_singular_values_one_before_the_first_task(tiny, source):
    for rows in train_group(tiny, all_runs(tiny), source):
        start = rows[rows["task"] == -1]
        assert set(start["layer"]) == {"", "1.weight", "3.weight", "5.weight"}
        values = start[start["metric"].isin(["sigma_min", "sigma_max", "sigma_mean"])]["value"]
        np.testing.assert_allclose(values, 1, atol=1e-5)


def test_every_task_records_the_same_measures_but_reactivation_which_needs_two(tiny, source):
    (rows,) = train_group(tiny, all_runs(tiny)[:1], source)
    first, second = ({(r.layer, r.metric) for r in rows.itertuples() if r.task == t} for t in (0, 1))
    assert second - first == {("hidden1", "reactivated"), ("hidden2", "reactivated")}
    assert first <= second
    assert {metric for layer, metric in first if not layer} == {
        *("online_accuracy", "online_loss", "end_accuracy", "end_loss", "weight_norm", "update_norm", "diverged")
    }
    assert not rows.duplicated(KEYS).any()


def test_net_memorises_random_labels_of_the_first_task(tiny, source):
    experiment = replace(
        tiny, stream=Stream(samples=64, tasks=1), net=Net(width=64, depth=2), steps_per_task=150, batch=32
    )
    for rows in train_group(experiment, all_runs(experiment), source):
        assert value(rows, "online_accuracy") > 0.5  # chance is 0.1
        assert value(rows, "end_accuracy") > 0.95


def test_strong_isometry_keeps_singular_values_nearer_to_one_than_adam(tiny, source):
    methods = (tiny.methods[0], replace(tiny.methods[1], isometry_strength=20.0))
    experiment = replace(tiny, methods=methods, steps_per_task=60)
    adam, adamo = train_group(experiment, [Run(m, 0) for m in methods], source)
    assert value(adamo, "isometry_defect", "3.weight", 1) < 0.5 * value(adam, "isometry_defect", "3.weight", 1)


def test_kernel_measures_come_before_each_task_and_change_no_training(tiny, source):
    (plain,) = train_group(tiny, all_runs(tiny)[:1], source)
    watched = replace(tiny, measures=("kernel", "lens"), steps_per_task=tiny.steps_per_task)
    (rows,) = train_group(watched, all_runs(watched)[:1], source)
    shared = rows.merge(plain[KEYS], on=KEYS)
    assert_same_rows(shared, plain)
    added = set(rows["metric"]) - set(plain["metric"])
    assert {"kernel_condition", "P_10", "sharpness", "loss_start", "mu_1", "D_mean2", "block_condition"} <= added


def test_split_training_of_a_task_equals_one_call(tiny, source):
    runs, order = all_runs(tiny), task_order(tiny, [r.seed for r in all_runs(tiny)], 0)
    whole, parts = (Trainer(tiny, runs, source) for _ in range(2))
    task = load_task(tiny, [r.seed for r in runs], 0, source)
    whole.train(task, order)
    parts.train(task, order[:5], (0, len(order)))
    parts.train(task, order[5:], (5, len(order)))
    for name, p in whole.stack.params.items():
        assert torch.equal(p, parts.stack.params[name])


def test_cosine_schedule_ends_every_task_near_zero_and_starts_the_next_at_the_full_rate(tiny, source):
    method = replace(tiny.methods[0], schedule="cosine", lr=3e-3)
    trainer = Trainer(tiny, [Run(method, 0)], source)
    rates = []
    for fraction in (0.0, 0.5, 0.999, 0.0):
        trainer.schedule(fraction)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([3e-3, 1.5e-3, 0, 3e-3], abs=1e-7)


def test_orthogonal_parametrization_keeps_hidden_singular_values_at_one(tiny, source):
    method = replace(tiny.methods[0], parametrization="newton_schulz", activation="maxmin")
    (rows,) = train_group(tiny, [Run(method, 0)], source)
    hidden = rows[rows["layer"].isin(["1.weight", "3.weight"]) & rows["metric"].isin(["sigma_min", "sigma_max"])]
    np.testing.assert_allclose(hidden["value"], 1, atol=1e-3)
    head = rows[(rows["layer"] == "5.weight") & (rows["task"] == 1) & (rows["metric"] == "sigma_max")]
    assert abs(head["value"].item() - 1) > 1e-3


@pytest.mark.parametrize("change", [{"schedule": "cosine"}, {"schedule": "linear"}, {"transition": 1.0}], ids=str)
def test_split_training_goes_on_with_the_schedule_and_the_transition_of_the_task(tiny, change):
    stream = replace(tiny.stream, transition=change.get("transition"))
    method = replace(tiny.methods[0], schedule=change.get("schedule"), lr=1e-2)
    experiment, source = replace(tiny, stream=stream), load_source(stream, CPU)
    task, order = load_task(experiment, [0], 1, source), task_order(experiment, [0], 1)
    whole, parts = (Trainer(experiment, [Run(method, 0)], source) for _ in range(2))
    whole.train(task, order)
    for start, end in ((0, 2), (2, 5), (5, len(order))):
        parts.train(task, order[start:end], (start, len(order)))
    for name, p in whole.stack.params.items():
        assert torch.equal(p, parts.stack.params[name])


def test_a_method_meets_the_changes_of_task_and_none_before_the_first(tiny, source, monkeypatch):
    met, original = [], Trainer.new_task
    monkeypatch.setattr(Trainer, "new_task", lambda self, number: (met.append(number), original(self, number))[1])
    train_group(replace(tiny, stream=replace(tiny.stream, tasks=3)), all_runs(tiny), source)
    assert met == [1, 2]


# ---------------------------------------------------------------------------------------------------- divergence


@pytest.fixture
def poisoned(monkeypatch):
    """Seed 1 starts from weights whose activations overflow."""
    original = train.make_net

    def make(experiment, method, seed, source):
        net = original(experiment, method, seed, source)
        if seed == 1:
            for p in net.parameters():
                p.data.fill_(1e30)
        return net

    monkeypatch.setattr(train, "make_net", make)


def test_diverged_run_is_recorded_with_nan_measures(tiny, source, poisoned):
    experiment = only_methods(tiny, ["adam"])
    healthy, diverged = train_group(experiment, all_runs(experiment), source)
    assert [value(diverged, "diverged", task=t) for t in (0, 1)] == [1, 1]
    assert [value(healthy, "diverged", task=t) for t in (0, 1)] == [0, 0]
    measured = diverged[(diverged["task"] >= 0) & (diverged["layer"] != "")]
    assert measured[measured["value"].notna()].empty
    assert healthy["value"].notna().all()


def test_run_whose_loss_is_infinite_has_diverged_though_its_weights_are_finite(tiny, source, monkeypatch):
    original = train.loss_and_hits

    def infinite_in_the_second_run(outputs, y):
        loss, hits = original(outputs, y)
        return loss + torch.tensor([0.0, torch.inf])[:, None], hits

    monkeypatch.setattr(train, "loss_and_hits", infinite_in_the_second_run)
    experiment = only_methods(tiny, ["adam"])
    rows = train_group(experiment, all_runs(experiment), source)
    assert [[value(r, "diverged", task=t) for t in (0, 1)] for r in rows] == [[0, 0], [1, 1]]
    assert np.isnan(value(rows[1], "online_accuracy")) and np.isfinite(value(rows[0], "online_accuracy"))


@pytest.mark.parametrize("names", [["adam"], ["adam", "adamo_0.1"]])
def test_diverged_run_leaves_the_others_of_its_stack_as_they_were(tiny, source, request, names):
    experiment = only_methods(tiny, names)
    runs = [r for r in all_runs(experiment) if r.seed == 0 or r.method.name == "adam"]
    before = train_group(experiment, runs, source)
    request.getfixturevalue("poisoned")
    after = train_group(experiment, runs, source)
    for run, old, new in zip(runs, before, after, strict=True):
        if run.seed == 0:
            assert_same_rows(new, old)
        else:
            assert value(new, "diverged") == 1


def test_runs_that_diverge_in_one_step_in_layers_of_different_shape_are_all_given_up(tiny):
    method = replace(tiny.methods[1], isometry_strength=20.0)
    source = load_source(tiny.stream, CPU)
    trainer = Trainer(tiny, [Run(method, seed) for seed in (0, 1, 2)], source)
    first, second = trainer.stack.regularised()
    with torch.no_grad():
        trainer.stack.params[first][0] *= 100
        trainer.stack.params[second][1] *= 100
    trainer.train(load_task(tiny, [0, 1, 2], 0, source), task_order(tiny, [0, 1, 2], 0)[:2])
    assert trainer.stack.finite().tolist() == [False, False, True]


# --------------------------------------------------------------------------------------------------------- convolutions


@pytest.fixture
def convolutional(tiny):
    """Two tasks of 6 steps on digits; two convolutions and one hidden layer."""
    return replace(tiny, net=Net(width=8, depth=1, channels=(4, 6)))


@pytest.fixture
def regression(tiny):
    return replace(tiny, stream=Stream("slow_regression", BITS, samples=64, tasks=3), net=Net(width=8, depth=1))


def rows_of(experiment, methods=None, seeds=(0, 1)):
    runs = [Run(m, s) for m in methods or experiment.methods for s in seeds]
    return train_group(experiment, runs, load_source(experiment.stream, CPU))


@pytest.mark.parametrize("baseline", [None, *BASELINES])
def test_stacked_convolutional_run_equals_the_run_alone(convolutional, baseline):
    method = Method("m", "m", baseline=baseline, settings=ACTING.get(baseline, ()))
    together = rows_of(convolutional, [method])
    for seed, rows in enumerate(together):
        (alone,) = rows_of(convolutional, [method], [seed])
        np.testing.assert_array_equal(rows["value"], alone["value"])


def test_kernels_are_measured_as_matrices_and_pulled_by_adamo(convolutional):
    method = replace(convolutional.methods[1], isometry_strength=20.0)
    experiment = replace(convolutional, methods=(convolutional.methods[0], method), steps_per_task=40)
    adam, adamo = rows_of(experiment, seeds=(0,))
    weights = {layer for layer in adam["layer"] if layer.endswith("weight")}
    *hidden, _head = sorted(weights, key=lambda name: int(name.split(".")[0]))
    assert len(hidden) == 3  # two kernels and a matrix
    for layer in hidden:
        assert value(adamo, "isometry_defect", layer, 1) < value(adam, "isometry_defect", layer, 1)


def test_hard_isometry_of_the_suite_keeps_every_hidden_singular_value_at_one(tiny):
    for candidate in CANDIDATES["maxmin_hard"]:
        (rows,) = rows_of(replace(tiny, net=Net(width=16, depth=2), steps_per_task=60), [candidate], [0])
        hidden = rows[rows["layer"].isin(["1.weight", "3.weight"]) & rows["metric"].isin(["sigma_min", "sigma_max"])]
        np.testing.assert_allclose(hidden["value"], 1, atol=2e-3)
        assert abs(value(rows, "sigma_max", "5.weight", 1) - 1) > 2e-3  # the head is free


# ----------------------------------------------------------------------------------------------------------- regression


def test_regression_run_equals_a_plain_loop(regression):
    method = regression.methods[0]
    (rows,) = rows_of(regression, [method], [1])
    source = load_source(regression.stream, CPU)
    net = make_net(regression, method, 1, source)
    optimizer = torch.optim.Adam(net.parameters(), lr=method.lr)
    for task in range(regression.stream.tasks):
        x, y = whole_task(regression.stream, 1, task, source)
        losses = []
        for positions in task_order(regression, [1], task)[:, 0]:
            loss = (net(x[positions])[:, 0] - y[positions]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert value(rows, "online_loss", "", task) == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_regression_has_losses_and_no_accuracy(regression):
    for rows in rows_of(regression):
        assert not rows["metric"].str.contains("accuracy").any()
        assert rows["value"].notna().all()


# ------------------------------------------------------------------------------------------------ what is measured when


def test_steps_to_the_threshold_are_recorded_for_every_task(tiny):
    longer = replace(tiny, stream=replace(tiny.stream, samples=16), net=Net(width=64, depth=2), batch=16, probe=16)
    (rows,) = rows_of(replace(longer, steps_per_task=80, threshold=0.95), [tiny.methods[0]], [0])
    steps = rows[rows["metric"] == "steps_to_threshold"]["value"]
    assert len(steps) == 2
    assert all(20 < s < 80 for s in steps)  # memorises 16 labels, but not before the first window is full


def test_update_norm_is_the_distance_moved_in_the_task(tiny):
    source = load_source(tiny.stream, CPU)
    trainer = Trainer(tiny, [Run(tiny.methods[0], 0)], source)
    before = nn.utils.parameters_to_vector(p[0] for p in trainer.stack.params.values()).detach().clone()
    trainer.train(load_task(tiny, [0], 0, source), task_order(tiny, [0], 0))
    after = nn.utils.parameters_to_vector(p[0] for p in trainer.stack.params.values()).detach()
    (rows,) = rows_of(tiny, [tiny.methods[0]], [0])
    assert value(rows, "update_norm", "", 0) == pytest.approx(float((after - before).norm()), rel=1e-5)
    assert value(rows, "weight_norm", "", 0) == pytest.approx(float(after.norm()), rel=1e-5)


def test_kernel_at_the_ends_is_measured_before_the_first_and_last_task_only(tiny):
    experiment = replace(tiny, stream=replace(tiny.stream, tasks=3), measures=("kernel_ends",))
    (rows,) = rows_of(experiment, [tiny.methods[0]], [0])
    assert rows[rows["metric"] == "P_10"]["task"].tolist() == [0, 2]


# ---------------------------------------------------------------------------------------------------- devices


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", ["random_labels", "permuted_pixels"])
def test_cuda_rows_are_near_those_of_the_cpu(tiny, source, kind):
    experiment = replace(tiny, stream=replace(tiny.stream, kind=kind))
    runs = all_runs(experiment)
    on_cpu, on_cuda = (
        train_group(experiment, runs, load_source(experiment.stream, torch.device(d))) for d in ("cpu", "cuda")
    )
    for cpu, cuda in zip(on_cpu, on_cuda, strict=True):
        assert_same_rows(cuda, cpu, CUDA_DRIFT)
