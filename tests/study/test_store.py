"""Contracts of dyniso.study.store: a file is whole or absent, says what made it, and is never taken for another."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dyniso.study import runner, store
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


def outcome(read, path):
    """The rows that a file gives, as they are stored; or None where reading refuses in one line that names it."""
    try:
        return read([path]).to_csv()
    except UnusableError as error:
        return None if path.name in str(error) and "\n" not in str(error) else str(error)


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
    assert set(store.query(path, "*")["a"]) == {folder}


# ---------------------------------------------------------------------------------------------------- one run


def test_run_comes_back_with_its_rows_and_provenance(tmp_path, tiny):
    path = store.write_run(tmp_path, tiny, tiny.methods[1], 7, ROWS, MADE_BY)
    frame = store.read_runs([path])
    pd.testing.assert_frame_equal(frame[ROWS.columns.tolist()], ROWS, check_dtype=False)
    constant = frame.drop(columns=ROWS.columns).drop_duplicates()
    assert constant.to_dict("records") == [
        {"experiment": "random_labels", "tier": "smoke", "method": "adamo_0.1", "seed": 7, "wall_s": 1.5}
        | {"digest": digest(tiny, tiny.methods[1]), "commit": "abc", "torch": "2.13"}
        | {
            "packages": store.as_text(store.versions(tiny)),
            "hardware": "O'Brien's CPU\nüber",
            "stacked_runs": MADE_BY.get("stacked_runs", ""),
        }
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


@pytest.mark.parametrize("bad", ["file/runs", "\udcff"], ids=["below a file", "not UTF-8"])
def test_folder_that_cannot_be_is_one_line_before_any_work(tmp_path, tiny, bad):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"^cannot write to .*; set DYNISO_RUNS to a folder that can be written, with room$"
    ):
        runner.run(tiny, "cpu", tmp_path / bad, progress=False)


def test_failed_write_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise duckdb.IOException("No space left")

    monkeypatch.setattr(store.duckdb, "connect", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*No space left"):
        store.write_parquet(FRAME, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(UnusableError, match=r"adam-0-.*\.parquet is damaged.*; delete it"):
        store.read_runs([path])


def test_no_flipped_byte_of_a_run_is_read_as_a_result(tmp_path, tiny):
    path = store.write_run(tmp_path, tiny, tiny.methods[0], 0, ROWS, MADE_BY)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        assert outcome(store.read_runs, path) is None, place


def test_run_without_a_seal_is_no_run(tmp_path, tiny):
    path = store.write_run(tmp_path, tiny, tiny.methods[0], 0, ROWS, MADE_BY)
    facts = store.read_metadata(path)
    pairs = ", ".join(f"{store.quoted(key)}: {store.quoted(value)}" for key, value in facts.items())
    half = f"(SELECT * FROM '{path}' LIMIT 1) TO '{path}' (FORMAT parquet, KV_METADATA {{{pairs}}})"
    duckdb.connect().execute(f"COPY {half}")
    with pytest.raises(UnusableError, match=r"adam-0-.*\.parquet is damaged or not made by .*no seal"):
        store.read_runs([path])


@pytest.mark.parametrize("other", ["seed", "method", "settings", "tier"])
def test_copy_of_another_run_under_the_name_of_a_run_is_not_read_as_it(tmp_path, tiny, other):
    changed = (
        replace(tiny, batch=8) if other == "settings" else replace(tiny, tier="check") if other == "tier" else tiny
    )
    theirs = store.write_run(tmp_path, changed, tiny.methods[other == "method"], int(other == "seed"), ROWS, MADE_BY)
    path = store.run_path(tmp_path, tiny, tiny.methods[0], 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(theirs, path)
    with pytest.raises(UnusableError, match=r"adam-0-.*\.parquet holds (another run|other rows)"):
        store.read_runs([path])


UNFINISHED = {
    "no rows": ROWS[:0],
    "half the tasks": ROWS[ROWS["task"] == 0],
    "no score": ROWS[ROWS["metric"] == "sigma_max"],
    "twice": pd.concat([ROWS, ROWS]),
}


@pytest.mark.parametrize("rows", UNFINISHED.values(), ids=UNFINISHED)
def test_rows_of_an_unfinished_run_are_not_stored(tmp_path, tiny, rows):
    with pytest.raises(ValueError, match="in a finished run"):
        store.write_run(tmp_path, tiny, tiny.methods[0], 0, rows, MADE_BY)
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.parametrize("folder", ["seed=7", "method=adamo", "value=1", "task=x"])
def test_folder_called_key_equals_value_adds_nothing_to_the_rows(tmp_path, tiny, folder):
    plain, named = (store.write_run(tmp_path / f, tiny, tiny.methods[0], 3, ROWS, MADE_BY) for f in ("plain", folder))
    pd.testing.assert_frame_equal(store.read_runs([named]), store.read_runs([plain]))


def test_run_of_other_package_versions_is_neither_reused_nor_overwritten(tmp_path, tiny, monkeypatch):
    ours = store.run_path(tmp_path, tiny, tiny.methods[0], 0)
    monkeypatch.setattr(store, "versions", lambda _: {"torch": "9.9", "numpy": "9.9"})
    assert store.run_path(tmp_path, tiny, tiny.methods[0], 0) != ours


def test_path_that_begins_with_a_tilde_is_the_same_folder_for_every_program(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = store.write_run(Path("~/runs"), tiny, tiny.methods[0], 0, ROWS, MADE_BY)  # a folder that is called "~"
    assert path.exists() and not (tmp_path / "home").exists()
    assert len(store.read_runs([path])) == len(ROWS)


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


def test_table_with_rows_of_a_method_that_is_no_more_is_refused(tmp_path, results, tiny):
    write_all(tmp_path, tiny)
    store.compact(tmp_path, tiny)
    with pytest.raises(UnusableError, match=r"runs of other settings for \['adamo_0.1'\]"):
        store.read_compact(replace(tiny, methods=tiny.methods[:1]))


@pytest.mark.parametrize("lost", [0, 1])
def test_table_that_lacks_a_seed_is_refused_whichever_it_is(tmp_path, results, tiny, lost):
    some = replace(tiny, seeds=(1 - lost,))
    write_all(tmp_path, some)
    store.compact(tmp_path, some)
    with pytest.raises(UnusableError, match=f"lacks 2 runs, the first of adam, seed {lost}"):
        store.read_compact(tiny)


def test_rows_of_seeds_that_a_spec_does_not_have_do_not_fit(tmp_path, results, tiny):
    write_all(tmp_path, tiny)
    store.compact(tmp_path, tiny)
    assert store.keys_of(store.fitting_rows(replace(tiny, seeds=(1, 2)))) == {("adam", 1), ("adamo_0.1", 1)}
