"""Contracts of dyniso.study.train: stacking changes nothing, stopping loses nothing, a bad run harms no other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dyniso.isometry import singular_values
from dyniso.optim import AdamO, isometry_groups
from dyniso.study import runner, store, train
from dyniso.study.instruments.stacked import evaluate
from dyniso.study.provenance import cpu_name
from dyniso.study.runner import grouped, resolve_device
from dyniso.study.specs import METHODS, Experiment, Method, Net, Stream, only_methods
from dyniso.study.stack import Run, Stack
from dyniso.study.streams import batch_order, make_task
from dyniso.study.tasks import Source, load_source, load_task, task_arrays, task_order
from dyniso.study.train import Trainer, train_group

CPU = torch.device("cpu")
ROUNDING = 2e-5  # float32: a batched product rounds otherwise than a single one (1e-7), times 12 Adam steps
CUDA_DRIFT = 2e-2  # another order of summation, amplified over 12 steps of Adam
KEYS = ["task", "layer", "metric"]


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(Stream("random_labels", "mnist-small", samples=64, tasks=2), CPU)


@pytest.fixture
def trained(monkeypatch) -> list[list[tuple[str, int]]]:
    """The groups (method, seed) that train_group is called with, while it works as ever."""
    calls, original = [], train.train_group

    def watched(experiment, runs, *rest):
        calls.append([(r.method.name, r.seed) for r in runs])
        return original(experiment, runs, *rest)

    monkeypatch.setattr(train, "train_group", watched)
    return calls


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
        assert_same_rows(rows, alone)
    assert len({value(rows, "sigma_max", "3.weight", task=1) for rows in together}) == len(runs)


def plain_loop(experiment, method, seed, source):
    """What a user would write for one run: an ordinary module, optimizer and loop. Returns net and online accuracy."""
    net = train.make_net(experiment, method, seed, source)
    if method.optimizer == "adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=method.lr)
    else:
        groups = isometry_groups(net, isometry_strength=method.isometry_strength)
        optimizer = AdamO(groups, lr=method.lr, isometry_every=method.isometry_every, coupled=method.coupled)
    for task in range(experiment.stream.tasks):
        x, y = task_arrays(source.inputs, make_task(experiment.stream, seed, task, source.labels, 784))
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
    x, y = task_arrays(source.inputs, make_task(tiny.stream, 0, last, source.labels, 784))
    assert value(rows, "end_accuracy", task=last) == pytest.approx((net(x).argmax(1) == y).float().mean().item())
    for name in ("1.weight", "3.weight", "5.weight"):
        sigma = singular_values(net.get_parameter(name))
        for metric, expected in (("max", sigma.max()), ("min", sigma.min()), ("mean", sigma.mean())):
            assert value(rows, f"sigma_{metric}", name, last) == pytest.approx(float(expected), abs=ROUNDING)
    h = net[:3](x[: tiny.probe])
    assert value(rows, "dead", "hidden1", last) == pytest.approx((h.amax(0) <= 0).float().mean().item())


def test_runs_are_stacked_if_they_differ_in_seed_and_strength_only(tiny):
    registered = grouped([Run(m, s) for m in METHODS for s in (0, 1)])
    names = [sorted({r.method.name for r in group}) for group in registered]
    assert names == [["adam", "adamo_0.1", "adamo_printed"], ["adamo_coupled"], ["maxmin", "maxmin_adamo_0.1"]]
    a, b = (Run(replace(tiny.methods[1], isometry_every=k), 0) for k in (1, 2))
    c = Run(replace(tiny.methods[1], lr=2e-3), 0)
    assert grouped([a, b, c]) == [[a], [b], [c]]


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


def test_evaluation_does_not_depend_on_the_chunk(tiny, source):
    runs = all_runs(tiny)
    stack = Stack([train.make_net(tiny, r.method, r.seed, source) for r in runs], CPU)
    task = load_task(tiny, [r.seed for r in runs], 0, source)
    (few, few_loss), (all_, loss) = (evaluate(stack, task, chunk=c) for c in (10, 1000))
    assert torch.equal(few, all_)
    torch.testing.assert_close(few_loss, loss)


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


def test_clipping_bounds_the_gradient_norm_of_each_run_alone(tiny, source):
    stack = Trainer(tiny, all_runs(tiny), source).stack
    runs = len(all_runs(tiny))
    for p in stack.params.values():
        p.grad = torch.ones_like(p) * torch.linspace(1e-6, 1, runs).reshape(-1, *[1] * (p.ndim - 1))
    small = [p.grad[0].clone() for p in stack.params.values()]
    stack.clip(0.5)
    norms = torch.stack([p.grad.flatten(1).norm(dim=1) for p in stack.params.values()]).norm(dim=0)
    torch.testing.assert_close(norms[1:], torch.full((runs - 1,), 0.5))
    assert all(torch.equal(p.grad[0], g) for p, g in zip(stack.params.values(), small, strict=True))


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


# ---------------------------------------------------------------------------------------------------- run, resume


def refuse(*_args):
    raise AssertionError("trained again")


def test_run_stores_every_run_and_a_second_call_trains_nothing(tiny, tmp_path, monkeypatch):
    first = runner.run(tiny, "cpu", tmp_path, progress=False)
    assert all(p.exists() for p in store.experiment_paths(tmp_path, tiny))
    monkeypatch.setattr(train, "train_group", refuse)
    pd.testing.assert_frame_equal(runner.run(tiny, "cpu", tmp_path, progress=False), first)
    assert set(zip(first["method"], first["seed"], strict=True)) == {(r.method.name, r.seed) for r in all_runs(tiny)}


def test_fresh_run_trains_everything_again(tiny, tmp_path, trained):
    runner.run(tiny, "cpu", tmp_path, progress=False)
    runner.run(tiny, "cpu", tmp_path, fresh=True, progress=False)
    assert trained[1] == trained[0]


def test_runs_of_other_code_are_trained_again(tiny, tmp_path, trained, monkeypatch):
    runner.run(tiny, "cpu", tmp_path, progress=False)
    monkeypatch.setattr(store, "code_digest", lambda *_: "newer")
    runner.run(tiny, "cpu", tmp_path, progress=False)
    assert len(trained) == 2


def test_added_seed_trains_that_seed_only(tiny, tmp_path, trained):
    runner.run(tiny, "cpu", tmp_path, progress=False)
    runner.run(replace(tiny, seeds=(0, 1, 5)), "cpu", tmp_path, progress=False)
    assert trained[1:] == [[("adam", 5), ("adamo_0.1", 5)]]


@pytest.mark.parametrize("lost", [[0], [3], [1, 2], [0, 1]])
def test_resumed_run_equals_uninterrupted_one(tiny, tmp_path, trained, lost):
    whole = runner.run(tiny, "cpu", tmp_path, progress=False)
    for i in lost:
        store.experiment_paths(tmp_path, tiny)[i].unlink()
    assert_same_rows(runner.run(tiny, "cpu", tmp_path, progress=False), whole)
    assert trained[1:] == [[(r.method.name, r.seed) for i, r in enumerate(all_runs(tiny)) if i in lost]]


def test_stopped_run_keeps_the_finished_group_and_goes_on_from_it(tiny, tmp_path, trained, monkeypatch):
    maxmin = replace(tiny.methods[0], name="maxmin", activation="maxmin")
    experiment = replace(tiny, methods=(tiny.methods[0], maxmin))
    watched = train.train_group

    def stop_at_second(*arguments):
        if trained:
            raise KeyboardInterrupt
        return watched(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_group", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            runner.run(experiment, "cpu", tmp_path, progress=False)
    assert [p.exists() for p in store.experiment_paths(tmp_path, experiment)] == [True, True, False, False]
    runner.run(experiment, "cpu", tmp_path, progress=False)
    assert trained == [[("adam", 0), ("adam", 1)], [("maxmin", 0), ("maxmin", 1)]]


def test_stored_run_says_how_it_was_made(tiny, tmp_path):
    runner.run(tiny, "cpu", tmp_path, progress=False)
    facts = store.read_metadata(store.experiment_paths(tmp_path, tiny)[0])
    assert facts["stacked_runs"] == "4"
    assert facts["hardware"] == cpu_name()
    assert float(facts["wall_s"]) >= 0


def test_stream_that_asks_for_too_many_images_fails_before_anything_is_stored(tiny, tmp_path):
    greedy = replace(tiny, stream=replace(tiny.stream, samples=8001))
    with pytest.raises(ValueError, match=r"stream\.samples=8001; mnist-small has only 8000 images"):
        runner.run(greedy, "cpu", tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("name", ["gpu", "", "mps", "meta", "cuda:x", "cuda:-1"])
def test_unknown_device_is_an_error_that_names_it_and_the_allowed_ones(name):
    with pytest.raises(ValueError, match=f"device='{name}'; allowed are 'auto', 'cpu', 'cuda', 'cuda:N'"):
        resolve_device(name)


def test_absent_cuda_device_is_an_error_that_says_how_many_there_are():
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"device='cuda:{count}'; this machine has {count} CUDA devices"):
        resolve_device(f"cuda:{count}")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto").type == kind


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
