"""Contracts of dyniso.study.runner: what is stored is not trained again, and stopping loses nothing."""

import errno
import os
import pickle
from dataclasses import fields, replace

import pandas as pd
import pytest
import torch

from dyniso.study import checkpoint, files, runner, store, train
from dyniso.study.checkpoint import Checkpoint, OutOfTime
from dyniso.study.provenance import cpu_name
from dyniso.study.runner import grouped, most_runs, resolve_device
from dyniso.study.specs import BASELINES, METHODS, Experiment, Method, Net
from dyniso.study.stack import Run
from dyniso.study.store import UnusableError
from dyniso.study.tasks import load_source
from dyniso.study.train import bytes_a_run

CPU = torch.device("cpu")
KEYS = ["task", "layer", "metric"]
ACTING = {  # settings with which a method acts within a few steps
    "redo": (("every", 3), ("threshold", 0.5)),
    "continual_backprop": (("maturity", 2), ("rate", 0.1)),
    "isometry": (("rows", "live"), ("strength", 1.0), ("window", 2)),
    "shrink_perturb": (("perturb", 0.01), ("shrink", 0.99), ("when", "step")),
}


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


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same keys and, bit for bit, the same values."""
    keys = [k for k in ("method", "seed", *KEYS) if k in expected]
    found, expected = (f.sort_values(keys, ignore_index=True) for f in (found, expected))
    pd.testing.assert_frame_equal(found[[*keys, "value"]], expected[[*keys, "value"]], check_exact=True)


# --------------------------------------------------------------------------------------------------- groups and devices


def test_runs_are_stacked_if_they_differ_in_seed_and_strength_only(tiny):
    registered = grouped([Run(m, s) for m in METHODS for s in (0, 1)])
    names = [sorted({r.method.name for r in group}) for group in registered]
    assert names == [["adam", "adamo_0.1", "adamo_printed"], ["adamo_coupled"], ["maxmin", "maxmin_adamo_0.1"]]
    a, b = (Run(replace(tiny.methods[1], isometry_every=k), 0) for k in (1, 2))
    c = Run(replace(tiny.methods[1], lr=2e-3), 0)
    assert grouped([a, b, c]) == [[a], [b], [c]]


OTHERWISE = {  # field of a method -> another value; all but name, label, seed and strength keep runs apart
    "activation": "maxmin",
    "lr": 2e-3,
    "isometry_every": 2,
    "isometry_side": "above",
    "coupled": True,
    "baseline": "l2",
    "norm": "layernorm",
    "weight_decay": 0.1,
    "decoupled_weight_decay": True,
    "clip_norm": 1.0,
    "schedule": "cosine",
    "parametrization": "newton_schulz",
    "reset_optimizer": True,
    "bias": False,
}


@pytest.mark.parametrize("field", OTHERWISE)
def test_every_setting_that_changes_training_keeps_runs_out_of_one_stack(tiny, field):
    plain = Run(tiny.methods[1], 0)
    other = Run(replace(tiny.methods[1], **{field: OTHERWISE[field]}), 0)
    assert grouped([plain, other]) == [[plain], [other]]


def test_settings_of_a_baseline_and_other_optimizers_keep_runs_apart_and_no_field_is_forgotten():
    with_settings = [Run(Method("m", "m", baseline="l2", settings=(("strength", s),)), 0) for s in (0.1, 0.2)]
    optimizers = [Run(Method("m", "m", optimizer=name), 0) for name in ("adam", "adamw", "sgd", "muon", "upgd")]
    for runs in (with_settings, optimizers):
        assert grouped(runs) == [[run] for run in runs]
    shared = {"name", "label", "isometry_strength", "settings", "optimizer", "interventions"}
    assert {field.name for field in fields(Method)} == shared | OTHERWISE.keys()


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


# -------------------------------------------------------------------------------------------------------- run and store


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
def test_runs_that_are_made_again_are_bitwise_what_they_were_beside_the_others(tiny, tmp_path, trained, lost):
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


def names_of(folder, experiment) -> list[str]:
    return [path.name for path in store.experiment_paths(folder, experiment)]


def test_checkpoint_of_other_settings_or_code_is_not_taken_up(tiny, tmp_path, monkeypatch):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    here = tmp_path / tiny.name / tiny.tier
    own, others = names_of(tmp_path, tiny), names_of(tmp_path, replace(tiny, batch=8))
    assert checkpoint.begun(here, own, own) == [own]
    assert checkpoint.begun(here, others, others) == []
    monkeypatch.setattr(store, "code_digest", lambda *_: "newer code")
    newer = names_of(tmp_path, tiny)
    assert checkpoint.begun(here, newer, newer) == []


@pytest.mark.parametrize("stored", [1, 2, 3])
def test_group_killed_between_two_writes_is_taken_up_whole_and_nothing_of_it_is_trained_again(
    tiny, tmp_path, monkeypatch, stored
):
    whole = runner.run(tiny, "cpu", tmp_path / "whole", progress=False)
    written, write = [], store.write_run

    def killed(*arguments):
        if len(written) == stored:
            raise Killed
        written.append(write(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_run", killed)
        with pytest.raises(Killed):
            runner.run(tiny, "cpu", tmp_path / "parts", progress=False, checkpoint_every_s=0)
    tasks, original = [], train.train_one
    monkeypatch.setattr(train, "train_one", lambda *a: (tasks.append((a[4], len(a[2]))), original(*a))[1])
    resumed = runner.run(tiny, "cpu", tmp_path / "parts", progress=False)
    assert tasks == [(1, 4)]  # the last task, of the whole group
    assert_same_rows(resumed, whole)
    assert sorted(p.name for p in (tmp_path / "parts").rglob("*.*")) == sorted(names_of(tmp_path, tiny))


def test_group_that_was_begun_with_fewer_seeds_goes_on_where_more_are_asked_for(tiny, tmp_path, trained):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    runner.run(replace(tiny, seeds=(0, 1, 2)), "cpu", tmp_path, progress=False)
    assert trained[1:] == [trained[0], [("adam", 2), ("adamo_0.1", 2)]]


def test_what_a_dead_process_left_is_swept_by_the_next_run_and_by_none_beside_a_living_one(tiny, tmp_path):
    runner.run(tiny, "cpu", tmp_path, progress=False)
    here = tmp_path / tiny.name / tiny.tier
    left = here / f".adam-0.parquet.{'0' * 32}.tmp"
    orphan = Checkpoint(here, names_of(tmp_path, tiny))
    orphan.save({})
    left.write_bytes(b"half")
    with files.holding(here, lambda: None):
        left.write_bytes(b"half")
        runner.run(tiny, "cpu", tmp_path, progress=False)
        assert left.exists() and orphan.path.exists()
    runner.run(tiny, "cpu", tmp_path, progress=False)
    assert not left.exists() and not orphan.path.exists()


def test_no_flipped_byte_of_a_checkpoint_is_taken_up(tiny, tmp_path):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    (path,) = tmp_path.rglob("*.checkpoint")
    content = path.read_bytes()
    for place in [*range(0, 900, 23), *range(900, len(content), 4999)]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(UnusableError, match=f"{path.name} is damaged; delete it"):
            runner.run(tiny, "cpu", tmp_path, progress=False)
    path.write_bytes(content)
    runner.run(tiny, "cpu", tmp_path, progress=False)


def test_full_disk_is_one_line_before_any_training(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(train, "train_group", refuse)
    monkeypatch.setattr(files.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"^cannot write to .*: No space left on device; set DYNISO_RUNS"):
        runner.run(tiny, "cpu", tmp_path, progress=False)


def test_damaged_run_is_an_error_before_any_training(tiny, tmp_path, monkeypatch):
    maxmin = replace(tiny.methods[0], name="maxmin", activation="maxmin")
    runner.run(tiny, "cpu", tmp_path, progress=False)
    path = store.experiment_paths(tmp_path, tiny)[2]
    path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr(train, "train_group", refuse)
    with pytest.raises(UnusableError, match=path.name):
        runner.run(replace(tiny, methods=(*tiny.methods, maxmin)), "cpu", tmp_path, progress=False)


def test_fresh_run_takes_up_no_checkpoint(tiny, tmp_path, monkeypatch):
    with pytest.raises(OutOfTime):
        runner.run(tiny, "cpu", tmp_path, progress=False, time_budget_s=0)
    tasks, original = [], train.train_one
    monkeypatch.setattr(train, "train_one", lambda *a: (tasks.append(a[4]), original(*a))[1])
    runner.run(tiny, "cpu", tmp_path, fresh=True, progress=False)
    assert tasks == [0, 1]


def test_interrupted_save_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    saves = Checkpoint(tmp_path, ["adam-0.parquet"])
    saves.save({"x": torch.ones(2)})

    def broken(*_):
        raise Killed

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Killed):
        saves.save({"x": torch.zeros(2)})
    assert torch.equal(saves.load(CPU)["x"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [saves.path]


class Harmful:
    """What runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_checkpoint_runs_no_code_when_it_is_loaded(tmp_path):
    saves = Checkpoint(tmp_path, ["adam-0.parquet"])
    saves.save({"x": Harmful(tmp_path / "made")})
    with pytest.raises(pickle.UnpicklingError):
        saves.load(CPU)
    assert not (tmp_path / "made").exists()


def test_time_before_the_last_stop_is_counted(tmp_path):
    first, second = (Checkpoint(tmp_path, ["adam-0.parquet"]) for _ in range(2))
    first.started -= 100
    first.save({})
    second.load(CPU)
    assert 100 <= second.elapsed_s < 160


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
