"""Contracts of dyniso.study.store: a file is whole or absent, says what made it, and is never taken for another."""

import os
import re
import shutil
from dataclasses import replace

import duckdb
import pandas as pd
import pytest

from dyniso.study import store
from dyniso.study.specs import Net, digest
from dyniso.study.store import UnusableError

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "it's"]})
ROWS = pd.DataFrame(
    [(0, "", "online_accuracy", 0.125), (0, "1.weight", "sigma_max", 1.5), (1, "", "online_accuracy", float("nan"))],
    columns=["task", "layer", "metric", "value"],
)
MADE_BY = {"commit": "abc", "torch": "2.13", "hardware": "O'Brien's CPU\nüber", "wall_s": "1.5"}


def write_all(folder, experiment, code="now"):
    """Every run of an experiment, with values that tell its runs apart."""
    for m, method in enumerate(experiment.methods):
        for seed in experiment.seeds:
            rows = ROWS.assign(value=ROWS["value"] + 10 * m + seed)
            store.write_run(folder, experiment, method, seed, rows, {**MADE_BY, "code": code})


def overwrite_middle(path):
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)


class Crash(Exception):
    pass


def crash(*_args, **_options):
    raise Crash


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder in place of data/results."""
    monkeypatch.setattr(store, "results_folder", lambda: tmp_path / "results")
    return tmp_path / "results"


# ---------------------------------------------------------------------------------------------------- one file


@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "duckdb.connect"])
@pytest.mark.parametrize("old", [False, True])
def test_crash_while_writing_leaves_the_old_file_or_none_and_no_rest(tmp_path, monkeypatch, where, old):
    path = tmp_path / "x.parquet"
    if old:
        store.write_parquet(FRAME, path, {"k": "old"})
    with monkeypatch.context() as patch:
        patch.setattr(where, crash)
        with pytest.raises(Crash):
            store.write_parquet(FRAME, path, {"k": "new"})
    assert os.listdir(tmp_path) == (["x.parquet"] if old else [])
    assert not old or store.read_metadata(path) == {"k": "old"}


def test_writing_shows_readers_no_file_before_it_is_whole(tmp_path, monkeypatch):
    path, seen, rename = tmp_path / "x.parquet", [], os.replace

    def watched(temporary, target):
        (row,) = duckdb.sql(f"SELECT count(*) FROM read_parquet('{temporary}')").fetchall()
        seen.append((path.exists(), list(tmp_path.glob("*.parquet")), row[0]))
        rename(temporary, target)

    monkeypatch.setattr(os, "replace", watched)
    store.write_parquet(FRAME, path)
    assert seen == [(False, [], 2)]
    assert path.exists()


@pytest.mark.parametrize("text", ["it's", 'a "b"', "'; DROP TABLE x; --", "two\nlines", "ü 2λ", "", "{x: 'y'}"])
def test_any_text_survives_as_metadata(tmp_path, text):
    path = tmp_path / "x.parquet"
    store.write_parquet(FRAME, path, {"value": text, f"key {text}": "v"})
    assert store.read_metadata(path) == {"value": text, f"key {text}": "v"}


@pytest.mark.parametrize(
    ("folder", "other"), [("it's", "its"), ("r[1]", "r1"), ("r*", "rst"), ("r?", "r2"), ("ü", "u")]
)
def test_folder_with_special_characters_is_no_pattern_that_matches_another(tmp_path, folder, other):
    for name in (folder, other):
        store.write_parquet(FRAME.assign(a=name), tmp_path / name / "x.parquet", {"made in": name})
    path = tmp_path / folder / "x.parquet"
    assert store.read_metadata(path) == {"made in": folder}
    assert set(store.query(path, "*", "read_parquet")["a"]) == {folder}


# ---------------------------------------------------------------------------------------------------- one run


def test_run_comes_back_with_its_rows_and_provenance(tmp_path, tiny):
    path = store.write_run(tmp_path, tiny, tiny.methods[1], 7, ROWS, MADE_BY)
    frame = store.read_runs([path])
    pd.testing.assert_frame_equal(frame[ROWS.columns.tolist()], ROWS, check_dtype=False)
    constant = frame.drop(columns=ROWS.columns).drop_duplicates()
    assert constant.to_dict("records") == [
        {"experiment": "random_labels", "tier": "smoke", "method": "adamo_0.1", "seed": 7, "wall_s": 1.5}
        | {"digest": digest(tiny, tiny.methods[1]), "commit": "abc", "torch": "2.13"}
        | {"hardware": "O'Brien's CPU\nüber", "stacked_runs": MADE_BY.get("stacked_runs", "")}
    ]


def test_run_file_holds_its_spec_and_seed(tmp_path, tiny):
    path = store.write_run(tmp_path, tiny, tiny.methods[0], 7, ROWS, MADE_BY)
    facts = store.read_metadata(path)
    assert (facts["spec"], facts["seed"]) == (repr(tiny), "7")


def test_provenance_names_versions_commit_and_machine():
    made_by = store.provenance("a GPU")
    assert made_by["hardware"] == "a GPU"
    assert made_by["code"] == store.code_digest()
    assert all(made_by[k] for k in ("commit", "dyniso", "torch", "python", "started"))


def test_changed_settings_never_meet_old_results(tmp_path, tiny):
    wider = replace(tiny, net=Net(width=10, depth=2))
    paths = {store.run_path(tmp_path, e, m, s) for e in (tiny, wider) for m in e.methods for s in e.seeds}
    assert len(paths) == 8


def test_run_of_other_code_is_neither_reused_nor_overwritten(tmp_path, tiny, monkeypatch):
    ours = store.write_run(tmp_path, tiny, tiny.methods[0], 0, ROWS, MADE_BY)
    monkeypatch.setattr(store, "code_digest", lambda games=False: "other code")
    theirs = store.run_path(tmp_path, tiny, tiny.methods[0], 0)
    assert ours.exists() and not theirs.exists()


def test_folder_that_cannot_be_written_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(store.os, "access", lambda *_: False)
    with pytest.raises(OSError, match=f"cannot write to {re.escape(str(tmp_path))}"):
        store.require_writable(tmp_path)


def test_failed_write_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise duckdb.IOException("No space left")

    monkeypatch.setattr(store.duckdb, "connect", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*No space left"):
        store.write_parquet(FRAME, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_code_digest_changes_with_every_training_module(tmp_path, monkeypatch):
    package = tmp_path / "dyniso"
    shutil.copytree(store.PACKAGE, package, ignore=shutil.ignore_patterns("_data", "__pycache__"))
    monkeypatch.setattr(store, "PACKAGE", package)
    sources = [
        p for name in store.TRAINING_MODULES for p in (*package.glob(f"{name}.py"), *package.glob(f"{name}/*.py"))
    ]
    found = {store.code_digest.__wrapped__()}
    for source in sources:
        source.write_text("# another\n")
        found.add(store.code_digest.__wrapped__())
    assert len(found) == len(sources) + 1 > len(store.TRAINING_MODULES)


DAMAGE = {
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "empty": lambda p: p.write_bytes(b""),
    "no parquet": lambda p: p.write_text("task,value\n0,1\n"),
    "overwritten in the middle": overwrite_middle,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_run_is_an_error_that_says_to_delete_it(tmp_path, tiny, damage):
    path = store.write_run(tmp_path, tiny, tiny.methods[0], 0, ROWS, MADE_BY)
    damage(path)
    with pytest.raises(UnusableError, match=r"adam-0-.*\.parquet is damaged or no parquet file; delete it"):
        store.read_runs([path])


def test_missing_run_is_an_error_that_names_it_and_the_command(tmp_path, tiny):
    write_all(tmp_path, tiny)
    paths = store.experiment_paths(tmp_path, tiny)
    paths[2].unlink()
    with pytest.raises(FileNotFoundError, match=r"adamo_0\.1-0-.*`dyniso run`"):
        store.read_runs(paths)


def test_reading_no_runs_gives_no_rows_but_every_column():
    frame = store.read_runs([])
    assert len(frame) == 0
    assert list(frame.columns) == [*store.COLUMNS, *store.RUN_COLUMNS]


# ---------------------------------------------------------------------------------------------------- compact table


def test_compact_table_has_the_rows_of_all_runs(tmp_path, results, tiny):
    write_all(tmp_path / "runs", tiny)
    assert store.compact(tmp_path / "runs", tiny) == results / "random_labels-smoke.parquet"
    found = store.read_compact(tiny)
    stored = store.read_runs(store.experiment_paths(tmp_path / "runs", tiny))
    keys = ["method", "seed", "metric", "layer", "task"]
    expected = stored.sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)  # float32
    assert found["value"].dtype == "float32"


def test_compacting_an_incomplete_experiment_is_an_error_and_writes_nothing(tmp_path, results, tiny):
    write_all(tmp_path, tiny)
    store.experiment_paths(tmp_path, tiny)[1].unlink()
    with pytest.raises(FileNotFoundError, match="adam-1-"):
        store.compact(tmp_path, tiny)
    assert not results.exists()


def test_missing_table_is_an_error_that_names_the_command(results, tiny):
    with pytest.raises(FileNotFoundError, match="`dyniso run random_labels --tier smoke --compact` makes them"):
        store.read_compact(tiny)


def test_table_of_other_settings_is_an_error_that_names_the_methods(tmp_path, results, tiny):
    write_all(tmp_path, tiny)
    store.compact(tmp_path, tiny)
    changed = replace(tiny, methods=(tiny.methods[0], replace(tiny.methods[1], lr=2e-3)))
    with pytest.raises(UnusableError, match=r"runs of other settings for \['adamo_0.1'\]"):
        store.read_compact(changed)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_table_is_an_error_that_names_it(tmp_path, results, tiny, damage):
    write_all(tmp_path, tiny)
    damage(store.compact(tmp_path, tiny))
    with pytest.raises(UnusableError, match=r"random_labels-smoke\.parquet is damaged"):
        store.read_compact(tiny)


def test_runs_folder_is_the_one_that_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNISO_RUNS", str(tmp_path))
    assert store.runs_folder() == tmp_path
    monkeypatch.delenv("DYNISO_RUNS")
    assert str(store.runs_folder()) == "runs"


def test_commit_marks_a_changed_library(monkeypatch):
    answers = {"ls-files": "__init__.py", "rev-parse": "0123456789", "status": " M dyniso/x.py"}
    monkeypatch.delenv("DYNISO_COMMIT", raising=False)
    monkeypatch.setattr(store, "git", lambda verb, *_: answers[verb])
    assert store.commit.__wrapped__() == "0123456789+"
    answers["status"] = ""
    assert store.commit.__wrapped__() == "0123456789"
    answers["ls-files"] = ""  # installed inside some other project's checkout
    assert store.commit.__wrapped__() == "unknown"
