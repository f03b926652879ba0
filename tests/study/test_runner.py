"""Contracts of the engine beyond plain MLPs: convolutions, regression, checkpoints, shards, time budget."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dyniso.study import runner, store, train
from dyniso.study.checkpoint import Checkpoint, OutOfTime
from dyniso.study.instruments.stacked import loss_and_hits, steps_to
from dyniso.study.runner import grouped, most_runs
from dyniso.study.specs import BASELINES, BITS, CANDIDATES, Method, Net, Stream
from dyniso.study.stack import Run, Stack, convolve
from dyniso.study.store import UnusableError
from dyniso.study.streams import make_task
from dyniso.study.tasks import load_source, load_task, task_arrays, task_order
from dyniso.study.train import Trainer, bytes_a_run, make_net, train_group

CPU = torch.device("cpu")
ROUNDING = 2e-5  # float32, over a dozen steps
ACTING = {  # settings with which a method acts within a few steps
    "redo": (("every", 3), ("threshold", 0.5)),
    "continual_backprop": (("maturity", 2), ("rate", 0.1)),
    "isometry": (("rows", "live"), ("strength", 1.0), ("window", 2)),
    "shrink_perturb": (("perturb", 0.01), ("shrink", 0.99), ("when", "step")),
}
STACKED = 5e-3  # orthogonal kernels have equal singular values: which vector a power iteration finds is up to rounding


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


def value(rows: pd.DataFrame, metric: str, task: int, layer: str = "") -> float:
    (found,) = rows[(rows["metric"] == metric) & (rows["task"] == task) & (rows["layer"] == layer)]["value"]
    return found


# ------------------------------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize("activation", ["relu", "maxmin", "crelu"])
@pytest.mark.parametrize("norm", [None, "layernorm"])
def test_stacked_convolutional_nets_give_what_each_gives_alone(convolutional, activation, norm):
    method = replace(convolutional.methods[0], activation=activation, norm=norm)
    source = load_source(convolutional.stream, CPU)
    nets = [make_net(convolutional, method, seed, source) for seed in (0, 1)]
    x = source.inputs[:20].view(2, 10, -1)
    seen: list[torch.Tensor] = []
    found = Stack(nets, CPU)(x, seen)
    for run, net in enumerate(nets):
        torch.testing.assert_close(found[run], net(x[run]), rtol=ROUNDING, atol=ROUNDING)
    units = (8, 12, 16) if activation == "crelu" else (4, 6, 8)
    assert [h.shape for h in seen] == [(2, 10 * 14 * 14, units[0]), (2, 10 * 7 * 7, units[1]), (2, 10, units[2])]


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_stacked_convolution_equals_each_alone_with_its_gradients(in_groups, bias):
    layers = [nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2, bias=bias) for _ in range(3)]
    x = torch.randn(3, 5, 4, 7, 8)
    W = torch.stack([layer.weight for layer in layers])
    b = torch.stack([layer.bias for layer in layers]) if bias else None
    found = convolve(layers[0], x, W, b, in_groups)
    expected = torch.stack([layer(own) for layer, own in zip(layers, x, strict=True)])
    torch.testing.assert_close(found, expected)
    leaves = [p for layer in layers for p in layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), leaves), torch.autograd.grad(expected.sin().sum(), leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("baseline", [None, *BASELINES])
def test_stacked_convolutional_run_equals_the_run_alone(convolutional, baseline):
    method = Method("m", "m", baseline=baseline, settings=ACTING.get(baseline, ()))
    together = rows_of(convolutional, [method])
    for seed, rows in enumerate(together):
        (alone,) = rows_of(convolutional, [method], [seed])
        pair = (frame["value"].clip(upper=1e6) for frame in (rows, alone))  # condition numbers of singular heads
        np.testing.assert_allclose(*pair, rtol=STACKED, atol=STACKED)


def test_kernels_are_measured_as_matrices_and_pulled_by_adamo(convolutional):
    method = replace(convolutional.methods[1], isometry_strength=20.0)
    experiment = replace(convolutional, methods=(convolutional.methods[0], method), steps_per_task=40)
    adam, adamo = rows_of(experiment, seeds=(0,))
    weights = {layer for layer in adam["layer"] if layer.endswith("weight")}
    *hidden, _head = sorted(weights, key=lambda name: int(name.split(".")[0]))
    assert len(hidden) == 3  # two kernels and a matrix
    for layer in hidden:
        assert value(adamo, "isometry_defect", 1, layer) < value(adam, "isometry_defect", 1, layer)


def test_hard_isometry_of_the_suite_keeps_every_hidden_singular_value_at_one(tiny):
    for candidate in CANDIDATES["maxmin_hard"]:
        (rows,) = rows_of(replace(tiny, net=Net(width=16, depth=2), steps_per_task=60), [candidate], [0])
        hidden = rows[rows["layer"].isin(["1.weight", "3.weight"]) & rows["metric"].isin(["sigma_min", "sigma_max"])]
        np.testing.assert_allclose(hidden["value"], 1, atol=2e-3)
        assert abs(value(rows, "sigma_max", 1, "5.weight") - 1) > 2e-3  # the head is free


# --------------------------------------------------------------------------------------------------- regression


def test_regression_run_equals_a_plain_loop(regression):
    method = regression.methods[0]
    (rows,) = rows_of(regression, [method], [1])
    source = load_source(regression.stream, CPU)
    net = make_net(regression, method, 1, source)
    optimizer = torch.optim.Adam(net.parameters(), lr=method.lr)
    for task in range(regression.stream.tasks):
        x, y = task_arrays(source.inputs, make_task(regression.stream, 1, task, source.labels, 21))
        losses = []
        for positions in task_order(regression, [1], task)[:, 0]:
            loss = (net(x[positions])[:, 0] - y[positions]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert value(rows, "online_loss", task) == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_regression_has_losses_and_no_accuracy(regression):
    for rows in rows_of(regression):
        assert not rows["metric"].str.contains("accuracy").any()
        assert rows["value"].notna().all()


def test_squared_error_takes_the_single_output_and_counts_no_hits():
    loss, hits = loss_and_hits(torch.tensor([[[2.0], [0.0]]]), torch.tensor([[1.0, 3.0]]))
    assert loss.tolist() == [[1, 9]]
    assert hits.isnan().all()


# ------------------------------------------------------------------------------------------------------ measures


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [([1.0] * 50, 20), ([0.0] * 50, 50), ([0.0] * 30 + [1.0] * 20, 40), ([1.0, 0.0] * 30, 20), ([1.0] * 5, 5)],
)
def test_steps_to_a_threshold_of_one_half(accuracies, expected):
    assert steps_to(0.5, torch.tensor(accuracies)[:, None]).tolist() == [expected]


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
    assert value(rows, "update_norm", 0) == pytest.approx(float((after - before).norm()), rel=1e-5)
    assert value(rows, "weight_norm", 0) == pytest.approx(float(after.norm()), rel=1e-5)


def test_kernel_at_the_ends_is_measured_before_the_first_and_last_task_only(tiny):
    experiment = replace(tiny, stream=replace(tiny.stream, tasks=3), measures=("kernel_ends",))
    (rows,) = rows_of(experiment, [tiny.methods[0]], [0])
    assert rows[rows["metric"] == "P_10"]["task"].tolist() == [0, 2]


def test_optimizer_that_is_reset_starts_every_task_without_moments(tiny):
    method = replace(tiny.methods[0], reset_optimizer=True)
    source = load_source(tiny.stream, CPU)
    trainer = Trainer(tiny, [Run(method, 0)], source)
    trainer.train(load_task(tiny, [0], 0, source), task_order(tiny, [0], 0))
    assert trainer.optimizer.state
    trainer.new_task(1)
    assert not trainer.optimizer.state


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


# ------------------------------------------------------------------------------------------ checkpoint and resume

ARMS = {
    "adam": {},
    "adamo, every other step": {"optimizer": "adamo", "isometry_strength": 0.5, "isometry_every": 4},
    "muon": {"optimizer": "muon"},
    "upgd": {"optimizer": "upgd", "lr": 1e-2},
    "cosine": {"schedule": "cosine"},
    **{name: {"baseline": name, "settings": ACTING.get(name, ())} for name in BASELINES},
}


class Killed(Exception):
    """Stands for a process that is gone."""


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_killed_and_resumed_group_equals_the_uninterrupted_one_bit_for_bit(tiny, tmp_path, arm, monkeypatch):
    method = Method("m", "m", **arm)
    experiment = replace(tiny, stream=replace(tiny.stream, tasks=3), methods=(method,))
    whole = runner.run(experiment, "cpu", tmp_path / "whole", progress=False)
    original = train.train_one

    def killed_in_the_last_task(*arguments):
        if arguments[4] == 2:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_one", killed_in_the_last_task)
        with pytest.raises(Killed):
            runner.run(experiment, "cpu", tmp_path / "parts", progress=False, checkpoint_every_s=0)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    resumed = runner.run(experiment, "cpu", tmp_path / "parts", progress=False)
    assert list(tmp_path.rglob("*.checkpoint")) == []
    keys = ["method", "seed", "task", "layer", "metric", "value"]
    pd.testing.assert_frame_equal(resumed[keys], whole[keys], check_exact=True)


def test_resumed_group_trains_only_the_tasks_that_are_left(tiny, tmp_path, monkeypatch):
    experiment = replace(tiny, stream=replace(tiny.stream, tasks=4))
    with pytest.raises(OutOfTime):
        runner.run(experiment, "cpu", tmp_path, progress=False, time_budget_s=0)
    tasks, original = [], train.train_one
    monkeypatch.setattr(train, "train_one", lambda *a: (tasks.append(a[4]), original(*a))[1])
    runner.run(experiment, "cpu", tmp_path, progress=False)
    assert tasks == [1, 2, 3]


def test_spent_time_budget_saves_and_the_same_call_goes_on(tiny, tmp_path):
    calls = 0
    while True:
        try:
            runner.run(tiny, "cpu", tmp_path / "parts", progress=False, time_budget_s=0)
            break
        except OutOfTime:
            calls += 1
    assert calls == 1  # two tasks: one stop between them
    whole, parts = (runner.run(tiny, "cpu", tmp_path / name, progress=False) for name in ("whole", "parts"))
    pd.testing.assert_series_equal(parts["value"], whole["value"], check_exact=True)


def test_damaged_checkpoint_is_an_error_that_names_it_and_stays_where_it_is(tiny, tmp_path):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    (path,) = tmp_path.rglob("*.checkpoint")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnusableError, match=f"{path.name} is damaged; delete it"):
        runner.run(tiny, "cpu", tmp_path, progress=False)
    assert path.exists()


def test_checkpoint_of_other_settings_or_code_is_not_taken_up(tiny, tmp_path, monkeypatch):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    runs = [Run(m, s) for m in tiny.methods for s in tiny.seeds]
    own = runner.checkpoint_path(tmp_path, tiny, runs)
    assert own.exists()
    assert runner.checkpoint_path(tmp_path, replace(tiny, batch=8), runs) != own
    monkeypatch.setattr(store, "code_digest", lambda *_: "newer code")
    assert runner.checkpoint_path(tmp_path, tiny, runs) != own


def test_fresh_run_takes_up_no_checkpoint(tiny, tmp_path, monkeypatch):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    tasks, original = [], train.train_one
    monkeypatch.setattr(train, "train_one", lambda *a: (tasks.append(a[4]), original(*a))[1])
    runner.run(tiny, "cpu", tmp_path, fresh=True, progress=False)
    assert tasks == [0, 1]


def test_interrupted_save_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "a.checkpoint")
    checkpoint.save({"x": torch.ones(2)})

    def broken(_state, file):
        file.write(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(Killed):
        checkpoint.save({"x": torch.zeros(2)})
    assert torch.equal(checkpoint.load(CPU)["x"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.checkpoint"]


# ---------------------------------------------------------------------------------------------- shards and memory


def test_shards_partition_the_groups(tiny, tmp_path):
    methods = [replace(tiny.methods[0], name=f"lr{k}", lr=k * 1e-3) for k in (1, 2, 3)]
    experiment = replace(tiny, methods=tuple(methods))
    parts = [runner.run(experiment, "cpu", tmp_path, progress=False, shard=(i, 2)) for i in (0, 1)]
    assert [set(part["method"]) for part in parts] == [{"lr1", "lr3"}, {"lr2"}]
    assert all(p.exists() for p in store.experiment_paths(tmp_path, experiment))


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_shard_out_of_range_is_an_error(tiny, tmp_path, shard):
    with pytest.raises(ValueError, match="expected i/n with 0 <= i < n"):
        runner.run(tiny, "cpu", tmp_path, shard=shard)


@pytest.mark.parametrize(("most", "sizes"), [(None, [8]), (8, [8]), (7, [4, 4]), (3, [3, 3, 2]), (1, [1] * 8)])
def test_groups_that_do_not_fit_are_split_evenly(tiny, most, sizes):
    runs = [Run(tiny.methods[0], seed) for seed in range(8)]
    assert [len(group) for group in grouped(runs, most)] == sizes


def test_memory_bounds_the_stack_and_a_wider_net_leaves_room_for_fewer(tiny, monkeypatch):
    source = load_source(tiny.stream, CPU)
    narrow, wide = (bytes_a_run(replace(tiny, net=Net(width=w, depth=2)), source) for w in (16, 256))
    monkeypatch.setattr(runner, "HOST_MEMORY", 2**26)
    assert most_runs(narrow, CPU) > most_runs(wide, CPU) >= 1
    monkeypatch.setattr(runner, "HOST_MEMORY", 1)
    assert most_runs(wide, CPU) == 1


# ------------------------------------------------------------------------------------------- runs that are committed


@pytest.fixture
def with_table(tiny, tmp_path, monkeypatch):
    """`tiny` with its committed table, and without single runs."""
    monkeypatch.setattr(store, "results_folder", lambda: tmp_path / "results")
    frame = runner.run(tiny, "cpu", tmp_path / "old", progress=False)
    store.compact(tmp_path / "old", tiny)
    return tiny, frame


def test_new_arm_trains_its_own_runs_only_where_the_table_has_the_others(with_table, tmp_path, monkeypatch):
    tiny, before = with_table
    more = replace(tiny, methods=(*tiny.methods, replace(tiny.methods[0], name="adam_fast", lr=1e-2)))
    trained, original = [], train.train_group
    monkeypatch.setattr(train, "train_group", lambda e, runs, *a: (trained.extend(runs), original(e, runs, *a))[1])
    frame = runner.run(more, "cpu", tmp_path / "new", progress=False, committed=True)
    assert {runner.key(run) for run in trained} == {("adam_fast", 0), ("adam_fast", 1)}
    assert store.keys_of(frame) == store.keys_of(before) | {("adam_fast", 0), ("adam_fast", 1)}


def test_run_that_is_not_to_use_the_table_trains_everything(with_table, tmp_path):
    tiny, _ = with_table
    runner.run(tiny, "cpu", tmp_path / "new", progress=False)
    assert all(p.exists() for p in store.experiment_paths(tmp_path / "new", tiny))


def test_fresh_run_uses_no_row_of_the_table(with_table, tmp_path):
    tiny, _ = with_table
    runner.run(tiny, "cpu", tmp_path / "new", fresh=True, progress=False, committed=True)
    assert all(p.exists() for p in store.experiment_paths(tmp_path / "new", tiny))
