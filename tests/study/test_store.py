"""Contracts of dyniso.study.store: a file is whole or absent, says what made it, and is never taken for another."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dyniso.study import declared, runner, sources, store
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


def test_run_file_holds_the_digests_of_its_settings_and_of_its_code(tmp_path, tiny):
    facts = store.read_metadata(store.write_run(tmp_path, tiny, tiny.methods[0], 7, ROWS, MADE_BY))
    assert facts["digest"] == digest(tiny, tiny.methods[0])
    assert facts["code"] == store.code_digest(tiny, tiny.methods[0])


def test_changed_settings_never_meet_old_results(tmp_path, tiny):
    wider = replace(tiny, net=Net(width=10, depth=2))
    paths = {store.run_path(tmp_path, e, m, s) for e in (tiny, wider) for m in e.methods for s in e.seeds}
    assert len(paths) == 8


def test_run_of_other_code_is_neither_reused_nor_overwritten(tmp_path, tiny, monkeypatch):
    ours = store.write_run(tmp_path, tiny, tiny.methods[0], 0, ROWS, MADE_BY)
    monkeypatch.setattr(store, "code_digest", lambda *_: "other code")
    theirs = store.run_path(tmp_path, tiny, tiny.methods[0], 0)
    assert ours.exists() and not theirs.exists()


def test_folder_that_cannot_be_written_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(store.os, "access", lambda *_: False)
    with pytest.raises(OSError, match=f"cannot write to '{re.escape(str(tmp_path))}'; set DYNISO_RUNS"):
        store.require_writable(tmp_path)


@pytest.mark.parametrize("bad", ["file/runs", "\udcff"], ids=["below a file", "not UTF-8"])
def test_folder_that_cannot_be_is_one_line_before_any_work(tmp_path, tiny, bad):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^cannot write to .*; set DYNISO_RUNS to a folder that can be written$"):
        runner.run(tiny, "cpu", tmp_path / bad, progress=False)


def test_failed_write_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise duckdb.IOException("No space left")

    monkeypatch.setattr(store.duckdb, "connect", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*No space left"):
        store.write_parquet(FRAME, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- digests of code


STREAM, GAME = store.TRAINERS[False], store.TRAINERS[True]
RUNS = {  # what decides which code a run needs: trainer, method of dyniso.baselines, kernels measured or not
    "adam": (STREAM, None, False),
    "kernels": (STREAM, None, True),
    "redo": (STREAM, "redo", False),
    "continual_backprop": (STREAM, "continual_backprop", False),
    "spectral_norm": (STREAM, "spectral_norm", False),
    "spectral_penalty": (STREAM, "spectral_penalty", False),
    "games": (GAME, None, True),
    "redo in games": (GAME, "redo", True),
}
UNITS, PENALTIES = "baselines/units.py", "baselines/penalties.py"
FIRST_LINE = ("from __future__ import annotations\n", "from __future__ import annotations\n\nCHANGED = 1\n")


def digests_after(tmp_path, *changes, added=None):
    """Code digests of RUNS in a copy of the package in which texts of files are replaced, and with new files."""
    package = tmp_path / "dyniso"
    shutil.copytree(store.PACKAGE, package, ignore=shutil.ignore_patterns("_data", "__pycache__"))
    for file, (old, new) in changes:
        text = (package / file).read_text()
        assert old in text
        (package / file).write_text(text.replace(old, new, 1))
    for file, text in (added or {}).items():
        (package / file).write_text(text)
    return {name: store.digest_of_code(*run, package) for name, run in RUNS.items()}


@pytest.fixture(scope="module")
def before():
    return {name: store.digest_of_code(*run) for name, run in RUNS.items()}


@pytest.fixture
def changed(tmp_path, before):
    """A function that says which of RUNS have another code digest after changes of the package."""

    def which(*changes):
        after = digests_after(tmp_path, *changes)
        return {name for name in RUNS if before[name] != after[name]}

    return which


@pytest.mark.parametrize(
    "change",
    [
        (UNITS, ("class ReDo(", "# a comment\nclass ReDo(")),
        (UNITS, ('"""', '"""Another docstring. ')),
        ("optim.py", (FIRST_LINE[0], "from __future__ import annotations  # a comment\n")),
        ("report/notebook.py", FIRST_LINE),
        ("report/claims/verdict.py", FIRST_LINE),
        ("study/store.py", FIRST_LINE),
        ("cli.py", FIRST_LINE),
        ("stats.py", FIRST_LINE),
    ],
    ids=lambda change: change[0],
)
def test_comment_docstring_or_change_of_the_report_changes_the_code_of_no_run(changed, change):
    assert changed(change) == set()


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ((UNITS, ("self.threshold", "2 * self.threshold")), {"redo", "redo in games"}),
        ((PENALTIES, ("self.iterations", "2 * self.iterations")), {"spectral_penalty", "spectral_norm"}),
        (("entk.py", FIRST_LINE), {"kernels", "games", "redo in games"}),
        (("study/rl/ppo.py", FIRST_LINE), {"games", "redo in games"}),
        (("study/train.py", FIRST_LINE), RUNS.keys() - {"games", "redo in games"}),
        (("baselines/attached.py", FIRST_LINE), RUNS.keys()),
        (("optim.py", FIRST_LINE), RUNS.keys()),
    ],
    ids=["a method", "a method that another one uses", "kernels", "games", "streams", "every method", "the optimizer"],
)
def test_change_of_code_changes_the_code_of_the_runs_that_use_it_and_of_no_other(changed, change, runs):
    assert changed(change) == runs


def test_new_method_in_a_file_of_its_own_changes_the_code_of_no_run(tmp_path, before):
    register = (
        "baselines/__init__.py",
        ("from .units import", "from .mine import Mine\nfrom .units import"),
    )
    mine = 'from .attached import Baseline\n\n\nclass Mine(Baseline, name="mine"):\n    a = 1\n'
    assert digests_after(tmp_path, register, added={"baselines/mine.py": mine}) == before


def test_training_names_no_method_in_its_code_since_a_run_depends_on_its_own_alone():
    classes = {d.node.name for d in declared.methods().values()}
    apart = {*store.NOT_TRAINING, *declared.method_modules()}
    for module in sources.reach(store.TRAINERS.values(), apart) - store.PASSED_THROUGH:
        assert (module, declared.mentioned([sources.tree_of(sources.modules()[module])]) & classes) == (module, set())


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


def committed(tmp_path, experiment):
    """The committed table of an experiment whose single runs are gone."""
    write_all(tmp_path / "old", experiment)
    store.compact(tmp_path / "old", experiment)
    shutil.rmtree(tmp_path / "old")
    return store.read_compact(experiment)


def test_new_arm_needs_its_own_runs_only(tmp_path, results, tiny):
    before = committed(tmp_path, tiny)
    new = replace(tiny.methods[1], name="adamo_1", isometry_strength=1.0)
    write_all(tmp_path / "runs", replace(tiny, methods=(new,)))
    store.compact(tmp_path / "runs", replace(tiny, methods=(*tiny.methods, new)))
    after = store.read_compact(replace(tiny, methods=(*tiny.methods, new)))
    pd.testing.assert_frame_equal(after[after["method"] != "adamo_1"].reset_index(drop=True), before)
    assert store.keys_of(after) - store.keys_of(before) == {("adamo_1", 0), ("adamo_1", 1)}


def test_single_run_of_the_present_code_wins_over_the_row_of_the_table(tmp_path, results, tiny):
    committed(tmp_path, tiny)
    store.write_run(tmp_path / "runs", tiny, tiny.methods[0], 0, ROWS.assign(value=99.0), {**MADE_BY, "commit": "new"})
    store.compact(tmp_path / "runs", tiny)
    frame = store.read_compact(tiny)
    made_anew = (frame["method"] == "adam") & (frame["seed"] == 0)
    assert (frame["commit"] == "new").equals(made_anew)
    assert (frame["value"] == 99).equals(made_anew)


def test_rows_of_changed_settings_and_of_dropped_arms_are_not_kept(tmp_path, results, tiny):
    committed(tmp_path, tiny)
    changed = replace(tiny, methods=(replace(tiny.methods[0], lr=2e-3),))
    assert len(store.fitting_rows(changed)) == 0
    with pytest.raises(FileNotFoundError, match="adam-0-"):
        store.compact(tmp_path / "runs", changed)
    store.compact(tmp_path / "runs", replace(tiny, methods=tiny.methods[:1], seeds=(1,)))
    assert store.keys_of(store.read_compact(replace(tiny, methods=tiny.methods[:1], seeds=(1,)))) == {("adam", 1)}


def test_rows_of_a_renamed_arm_follow_its_settings(tmp_path, results, tiny):
    committed(tmp_path, tiny)
    renamed = replace(tiny, methods=(tiny.methods[0], replace(tiny.methods[1], name="other")))
    store.compact(tmp_path / "runs", renamed)
    assert store.keys_of(store.read_compact(renamed)) == {("adam", 0), ("adam", 1), ("other", 0), ("other", 1)}


def test_no_table_has_no_fitting_rows(results, tiny):
    assert len(store.fitting_rows(tiny)) == 0


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
    monkeypatch.setenv("DYNISO_RUNS", "~/runs")
    assert store.runs_folder() == Path.home() / "runs"
    monkeypatch.setenv("DYNISO_RUNS", "")
    assert str(store.runs_folder()) == "runs"
    monkeypatch.delenv("DYNISO_RUNS")
    assert str(store.runs_folder()) == "runs"
