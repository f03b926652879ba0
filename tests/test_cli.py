"""Contracts of the command line: a mistake is one line that names it, data that is there is never made again."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from conftest import long_rows

from dyniso.cli import chosen, main, parse
from dyniso.report import claims
from dyniso.study import data, runner, specs, store, train
from dyniso.study.provenance import provenance
from dyniso.study.rl import games
from dyniso.study.specs.reinforcement import MINATAR


@pytest.fixture
def home(tiny, tmp_path, monkeypatch):
    """An empty working folder, with `tiny` as the only registered experiment."""
    named = replace(tiny, name="small")
    monkeypatch.setattr(specs, "REINFORCEMENT", {})
    monkeypatch.setattr(specs, "REGISTRY", {"small": {t: replace(named, tier=t) for t in specs.TIERS}})
    monkeypatch.setattr(store, "results_folder", lambda: tmp_path / "results")
    monkeypatch.setenv("DYNISO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(*_args):
    raise AssertionError("trained again")


def assert_one_line(text: str, *parts: str) -> None:
    assert text.startswith("dyniso: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert [p for p in parts if p not in text] == []


MISTAKES = {
    "": ["no command", "'run'"],
    "lst": ["unknown command 'lst'", "did you mean 'list'"],
    "--bogus": ["unknown option '--bogus'"],
    "--": ["unknown option '--'"],
    "--tier check run small": ["invalid choice: 'check'", "'run'"],
    "list --all": ["unknown option '--all'"],
    "run": ["required: experiment"],
    "run smal": ["experiment='smal'", "did you mean 'small'"],
    "run small extra": ["one experiment a call, not 'small' and 'extra'"],
    "list small": ["unexpected 'small'", "`dyniso list` takes options only"],
    "run small --tier chek": ["tier='chek'", "did you mean 'check'"],
    "run small --tier": ["--tier", "expected one argument"],
    "run small --see 3": ["unknown option '--see'", "did you mean '--seeds'"],
    "run small --seeds x": ["--seeds", "'x'"],
    "run small --seeds 0": ["seeds=0", "from 1"],
    "run small --seeds 1.5": ["--seeds", "'1.5'"],
    "run small --methods adamm": ["method='adamm'", "did you mean 'adam'"],
    "run small --methods adam,adam": ["'adam', 'adam'", "each once"],
    "run small --methods ,": ["method=''", "'adam'"],
    "run small --device gpu": ["device='gpu'", "'cuda'"],
    "run small --device cuda:99": ["device='cuda:99'", "CUDA devices"],
    "run small --compact --seeds 1": ["--compact", "--seeds"],
    "run small --compact --methods adam": ["--compact", "--methods"],
    "run small --compact --shard 0/2": ["--compact", "--shard"],
    "run small --shard 2/2": ["--shard 2/2", "0 <= i < n"],
    "run small --shard half": ["--shard half", "i/n"],
    "run small --shard ²/3": ["--shard ²/3", "i/n"],
    "run small --time-budget -1": ["--time-budget -1", "at least 0"],
    "run small --fresh --time-budget 5": ["--fresh", "--time-budget"],
    "run small --time-budget soon": ["--time-budget", "'soon'"],
    "figure smal": ["experiment='smal'", "did you mean 'small'"],
    "figure small --metrics": ["--metrics", "expected one argument"],
    "figure small --device cpu": ["unknown option '--device'"],
    "claims --tier chek": ["tier='chek'", "did you mean 'check'"],
    "claims small": ["unexpected 'small'", "`dyniso claims` takes options only"],
    "claims --jsn": ["unknown option '--jsn'", "did you mean '--json'"],
}


@pytest.mark.parametrize(("call", "parts"), MISTAKES.items())
def test_mistake_in_the_call_is_one_line_that_names_it_and_exit_code_2(call, parts, home, capsys):
    assert main(call.split()) == 2
    shown = capsys.readouterr()
    assert_one_line(shown.err, *parts)
    assert shown.out == ""
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("call", ["run smal", "--bogus", "figure random_labels --tier nope"])
def test_mistake_shows_no_traceback_to_a_shell(call, tmp_path):
    done = subprocess.run([sys.executable, "-m", "dyniso", *call.split()], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert_one_line(done.stderr)


def test_help_and_version_exit_with_0(capsys):
    for call in (["--help"], ["run", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as stopped:
            main(call)
        assert stopped.value.code == 0
    assert capsys.readouterr().err == ""


def test_list_names_every_experiment_tier_and_method(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    names = {*specs.REGISTRY, *specs.TIERS, *(m.name for m in specs.METHODS)}
    assert [n for n in names if n not in out] == []


def test_list_names_the_methods_of_every_tier(home, capsys, monkeypatch):
    larger = replace(specs.get("small", "check"), methods=(*specs.get("small").methods, MINATAR["check"].methods[-1]))
    monkeypatch.setitem(specs.REGISTRY["small"], "check", larger)
    assert main(["list"]) == 0
    assert larger.methods[-1].name in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("module", ["dyniso", "dyniso.cli"])
def test_reader_that_goes_away_early_is_no_error(module):
    call = [
        sys.executable,
        "-c",
        f"import runpy, time; time.sleep(0.2); runpy.run_module({module!r}, run_name='__main__')",
    ]
    with subprocess.Popen([*call, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 0


def test_list_says_what_is_stored(home, capsys):
    main(["list"])
    assert "not stored" in capsys.readouterr().out
    for tier in specs.TIERS:
        store.write_parquet(pd.DataFrame({"a": [1]}), store.compact_path(specs.get("small", tier)))
    main(["list"])
    assert "not stored" not in capsys.readouterr().out


def test_doctor_reports_machine_data_and_the_next_command(home, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(f"data {name}: " in out for name in data.names())
    assert provenance()["torch"] in out
    assert out.splitlines()[-1] == "next: dyniso run small --tier check --compact"


def test_doctor_fails_where_the_embedded_data_are_missing(home, capsys, monkeypatch):
    monkeypatch.setattr(data, "available", lambda: [("mnist-small", None)])
    assert main(["doctor"]) == 1
    assert "missing: the embedded data ['mnist-small']" in capsys.readouterr().out


def test_run_prints_what_each_method_reached_and_a_second_run_trains_nothing(home, capsys, monkeypatch):
    assert main(["run", "small", "--device", "cpu", "--quiet"]) == 0
    first = capsys.readouterr()
    monkeypatch.setattr(train, "train_group", refuse)
    assert main(["run", "small", "--device", "cpu", "--quiet"]) == 0
    assert capsys.readouterr().out == first.out
    assert first.err == ""
    head, *lines = first.out.splitlines()
    assert "small, tier smoke, 2 seeds" in head
    assert [line[2:26].strip() for line in lines] == ["Adam", "AdamO, 0.1"]
    assert all(0 <= float(number) <= 1 for line in lines for number in line[26:].split())


def test_spent_time_budget_is_one_line_and_exit_code_3_and_the_same_command_goes_on(home, capsys):
    call = ["run", "small", "--device", "cpu", "--quiet", "--time-budget", "0"]
    assert main(call) == 3
    shown = capsys.readouterr()
    assert_one_line(shown.err, "stopped after 0 s", "goes on")
    assert shown.out == ""
    assert main(call) == 0
    assert "small, tier smoke" in capsys.readouterr().out


def test_run_says_what_is_stored_already_unless_it_is_to_be_quiet(home, capsys):
    call = ["run", "small", "--device", "cpu"]
    main([*call, "--quiet"])
    assert capsys.readouterr().err == ""
    main(call)
    assert "dyniso: stored already, of 4 runs: 4 in" in capsys.readouterr().err
    main([*call, "--quiet"])
    assert capsys.readouterr().err == ""


def test_two_shards_together_run_everything(home, capsys):
    for shard in ("0/2", "1/2"):
        assert main(["run", "small", "--device", "cpu", "--quiet", "--shard", shard]) == 0
    assert all(p.exists() for p in store.experiment_paths(home / "runs", specs.get("small")))


def test_printed_numbers_are_those_of_the_stored_rows(home, capsys):
    main(["run", "small", "--device", "cpu", "--quiet"])
    frame = store.read_runs(store.experiment_paths(home / "runs", specs.get("small")))
    means = frame[frame["metric"] == "online_accuracy"].groupby(["method", "task"])["value"].mean()
    printed = [line[26:].split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert printed == [[f"{means[m, t]:.3f}" for t in (0, 1)] for m in ("adam", "adamo_0.1")]


def test_run_names_diverged_runs(home, capsys, monkeypatch):
    rows = long_rows(specs.get("small")).assign(metric="online_accuracy", layer="")
    bad = rows.iloc[[-1]].assign(metric="diverged", value=1.0)
    monkeypatch.setattr(runner, "run", lambda *_args, **_options: pd.concat([rows, bad]))
    assert main(["run", "small"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  diverged: adamo_0.1, seed 1"


def test_run_with_fewer_seeds_and_methods_makes_those_only(home, capsys):
    assert main(["run", "small", "--device", "cpu", "--quiet", "--seeds", "1", "--methods", "adamo_0.1"]) == 0
    assert [p.name.split("-")[:2] for p in (home / "runs").rglob("*.parquet")] == [["adamo_0.1", "0"]]


def test_fresh_run_trains_again(home, monkeypatch, capsys):
    main(["run", "small", "--device", "cpu", "--quiet", "--seeds", "1"])
    monkeypatch.setattr(train, "train_group", refuse)
    with pytest.raises(AssertionError, match="trained again"):
        main(["run", "small", "--device", "cpu", "--quiet", "--seeds", "1", "--fresh"])


def test_compact_run_stores_the_table_that_figure_reads_without_the_runs(home, capsys, monkeypatch):
    assert main(["run", "small", "--device", "cpu", "--quiet", "--compact"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "stored in " + os.path.join("results", "small-smoke.parquet")
    monkeypatch.setenv("DYNISO_RUNS", "elsewhere")
    assert main(["figure", "small"]) == 0
    assert json.loads((home / "figures" / "small-smoke.json").read_text())["origin"] == "data/results"


def test_run_says_what_it_reuses(home, capsys):
    call = ["run", "small", "--device", "cpu"]
    main([*call, "--quiet", "--seeds", "1"])
    assert capsys.readouterr().err == ""
    main([*call, "--compact"])
    assert_one_line(capsys.readouterr().err, "of 4 runs: 2 in", "--fresh")


def test_compact_run_trains_nothing_that_the_table_has(home, capsys, monkeypatch):
    call = ["run", "small", "--device", "cpu", "--compact"]
    main(call)
    first = capsys.readouterr().out
    monkeypatch.setenv("DYNISO_RUNS", "elsewhere")
    monkeypatch.setattr(train, "train_group", refuse)
    assert main(call) == 0
    shown = capsys.readouterr()
    assert shown.out == first
    assert_one_line(shown.err, "of 4 runs: 4 in small-smoke.parquet")


def test_figure_writes_picture_points_and_stamp(home, capsys):
    main(["run", "small", "--device", "cpu", "--quiet"])
    capsys.readouterr()
    assert main(["figure", "small", "--out", "o", "--metrics", "sigma_max"]) == 0
    files = [os.path.join("o", f"small-smoke.{suffix}") for suffix in ("png", "csv", "json")]
    assert capsys.readouterr().out.splitlines() == files
    assert all(os.path.getsize(f) > 0 for f in files)
    assert set(pd.read_csv(files[1])["metric"]) == {"sigma_max"}
    assert json.loads((home / "o" / "small-smoke.json").read_text())["origin"] == "runs"


def store_compact(tier: str = "smoke") -> None:
    experiment = specs.get("small", tier)
    digests = {m.name: specs.digest(experiment, m) for m in experiment.methods}
    rows = long_rows(experiment)
    store.write_parquet(rows.assign(digest=rows["method"].map(digests)), store.compact_path(experiment))


def test_figure_of_one_seed_and_method_draws_those_only(home, capsys):
    store_compact()
    assert main(["figure", "small", "--seeds", "1", "--methods", "adam", "--metrics", "sigma_max"]) == 0
    points = pd.read_csv(home / "figures" / "small-smoke.csv")
    assert (set(points["method"]), set(points["seeds"])) == ({"adam"}, {1})


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        ("figure small --tier check", ["small-check.parquet", "`dyniso run small --tier check --compact`"]),
        ("figure small --seeds 3", ["adam, seed 2", "`dyniso run small --tier smoke --seeds 3`"]),
    ],
)
def test_figure_of_what_is_not_stored_is_one_line_with_the_command_and_exit_code_1(home, capsys, call, parts):
    store_compact()
    assert main(call.split()) == 1
    assert_one_line(capsys.readouterr().err, *parts)
    assert not (home / "figures").exists()


def test_unknown_metric_is_one_line_with_the_nearest_name(home, capsys):
    store_compact()
    assert main(["figure", "small", "--metrics", "sigma_maks"]) == 2
    assert_one_line(capsys.readouterr().err, "metric='sigma_maks'", "did you mean 'sigma_max'")


def test_damaged_table_is_one_line_and_exit_code_1(home, capsys):
    store_compact()
    store.compact_path(specs.get("small")).write_bytes(b"PAR1")
    assert main(["figure", "small"]) == 1
    assert_one_line(capsys.readouterr().err, "small-smoke.parquet", "damaged")


def test_table_of_other_settings_is_one_line_and_exit_code_1(home, capsys, monkeypatch):
    store_compact()
    changed = replace(specs.get("small"), steps_per_task=7)
    monkeypatch.setitem(specs.REGISTRY["small"], "smoke", changed)
    assert main(["figure", "small"]) == 1
    assert_one_line(capsys.readouterr().err, "other settings", "adam")


def test_damaged_run_is_one_line_that_names_the_file_and_exit_code_1(home, capsys):
    path = store.run_path(home / "runs", specs.get("small"), specs.get("small").methods[0], 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert main(["run", "small", "--device", "cpu", "--quiet"]) == 1
    assert_one_line(capsys.readouterr().err, path.name, "delete it")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "dyniso: stopped; finished runs are kept, the same command goes on from them\n"),
        (data.DataError("mnist is not here"), 1, "dyniso: mnist is not here\n"),
        (RuntimeError("two\n  lines"), 1, "dyniso: two lines\n"),
        (PermissionError(13, "Permission denied", "runs"), 1, "dyniso: runs: Permission denied\n"),
    ],
)
def test_run_that_stops_says_why_in_one_line(home, capsys, monkeypatch, error, code, text):
    def stop(*_args, **_options):
        raise error

    monkeypatch.setattr(runner, "run", stop)
    assert main(["run", "small"]) == code
    assert capsys.readouterr().err == text


def test_run_of_games_without_the_extra_is_one_line_that_says_how_to_install_it_and_exit_code_1(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gymnax", None)
    games.make_game.cache_clear()
    games.compiled.cache_clear()
    assert main(["run", "minatar", "--device", "cpu", "--quiet"]) == 1
    assert_one_line(capsys.readouterr().err, "pip install 'dyniso[rl]'", "gymnax")


@pytest.mark.parametrize(("missing", "said"), [(None, "extra rl: installed"), ("octax", "pip install 'dyniso[rl]'")])
def test_doctor_says_whether_the_extra_is_installed_and_proposes_no_games_without_it(
    capsys, monkeypatch, home, missing, said
):
    monkeypatch.setattr(specs, "REINFORCEMENT", {"minatar": {"check": MINATAR["check"]}})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    store.write_parquet(pd.DataFrame({"a": [1]}), store.compact_path(specs.get("small", "check")))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert ("next: dyniso run minatar --tier check --compact" in out) == (missing is None)


@pytest.mark.parametrize(
    ("call", "seeds"),
    [
        ("run minatar --seeds 3", (0, 1, 2)),
        ("run minatar --tier paper --seeds 3", (26, 27, 28)),
        ("run minatar --tier paper --seeds 10", (*range(26, 34), 34, 35)),
        ("run octax --tier check --seeds 5", (0, 1, 2, 3, 4)),
        ("run tune_labels_mnist --tier check --seeds 3", (100, 101, 102)),
    ],
)
def test_number_of_seeds_takes_the_first_of_the_spec_and_then_those_that_follow(call, seeds):
    assert chosen(parse(call.split())).seeds == seeds


@pytest.mark.parametrize("methods", ["adam,maxmin", "adam,reset_all"])
def test_figure_of_games_draws_the_chosen_methods_by_cycle_whether_the_fresh_net_is_among_them(
    methods, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    call = ["figure", "minatar", "--tier", "check", "--methods", methods, "--metrics", "return,isometry_defect"]
    assert main(call) == 0
    assert capsys.readouterr().out.split() == [
        os.path.join("figures", f"minatar-check.{s}") for s in ("png", "csv", "json")
    ]
    points = pd.read_csv("figures/minatar-check.csv")
    assert set(points["method"]) == set(methods.split(","))
    assert points["task"].max() == specs.find("minatar", "check").games.cycles - 1
    stamp = json.loads((tmp_path / "figures" / "minatar-check.json").read_text())
    assert (stamp["experiment"], stamp["origin"]) == ("minatar", "data/results")


def test_claims_prints_one_line_each_with_verdict_interval_scale_and_statement(capsys):
    assert main(["claims"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == claims.HEAD
    assert len(lines) == len(claims.CLAIMS)
    for line, (claim, verdict) in zip(lines, claims.judge_all("check"), strict=True):
        assert line.startswith(
            f"{verdict.verdict:12}  {verdict.on_paper:12}  {verdict.on_ours:12}  {claim.id}: "
        ) and line.endswith(claim.statement)
        assert verdict.scale in line and verdict.reason in line
        assert verdict.effect is None or f"{verdict.effect:+.3f} [{verdict.low:+.3f}, {verdict.high:+.3f}]" in line


def test_claims_without_stored_results_are_all_not_run_and_say_why(home, capsys):
    assert main(["claims", "--tier", "paper"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert {line[:12].strip() for line in lines} == {"not run"}
    assert "there is no experiment random_labels at tier paper" in lines[0]


def test_claims_as_json_hold_what_the_lines_hold_and_the_sources(home, capsys):
    assert main(["claims", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["id"] for r in records] == [claim.id for claim in claims.CLAIMS]
    assert {r["verdict"] for r in records} == {"not run"}
    assert {word for r in records for word in (r["on_paper"], r["on_ours"])} == {"not run", "none"}
    assert [(r["source"], r["threshold"]) for r in records] == [(c.source, c.threshold) for c in claims.CLAIMS]


@pytest.mark.parametrize("out", ["taken", "taken/below", "/proc/x"])
def test_figure_that_cannot_be_written_is_one_line_that_names_the_place(home, capsys, out):
    store_compact()
    (home / "taken").write_text("a file")
    assert main(["figure", "small", "--metrics", "sigma_max", "--out", out]) == 1
    text = capsys.readouterr().err
    assert_one_line(text, f"cannot write to '{out}'", "choose a folder that can be written")
    assert "Errno" not in text


def test_metrics_that_name_none_are_refused(home, capsys):
    store_compact()
    assert main(["figure", "small", "--metrics", ""]) == 2
    assert_one_line(capsys.readouterr().err, "metric=''", "'sigma_max'")


# ------------------------------------------------------------------------------------------ as a user's shell calls it

FIGURE = ["figure", "random_labels", "--tier", "check", "--metrics", "sigma_max"]


def shell(folder, *call, around=(), preexec=None, **environment):
    """The command in a process of its own, in a folder, with other variables of the environment."""
    return subprocess.run(
        [*around, sys.executable, "-m", "dyniso", *call],
        capture_output=True,
        text=True,
        cwd=folder,
        preexec_fn=preexec,
        env=os.environ | environment,
    )


def test_full_disk_leaves_no_part_of_a_figure(tmp_path):
    import resource

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = shell(tmp_path, *FIGURE, preexec=small_files)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr, "cannot write to 'figures'", "with room")
    assert list((tmp_path / "figures").iterdir()) == []


def test_figure_is_the_same_whatever_a_matplotlibrc_and_the_backend_say(tmp_path):
    for name, rc, backend in (("plain", "", ""), ("own", "text.usetex: True\naxes.grid: True\n", "nonsense")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "matplotlibrc").write_text(rc)
        done = shell(tmp_path / name, *FIGURE, MPLBACKEND=backend)
        assert (done.returncode, done.stderr) == (0, "")
    plain, own = (tmp_path / name / "figures" / "random_labels-check.png" for name in ("plain", "own"))
    assert plain.read_bytes() == own.read_bytes()


def test_output_that_is_closed_is_no_error(tmp_path):
    closed = shell(tmp_path, "list", around=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert (closed.returncode, closed.stderr) == (0, "")


def test_output_that_is_full_is_one_line_without_a_number(tmp_path):
    full = shell(tmp_path, "list", around=["sh", "-c", 'exec "$@" >/dev/full', "sh"])
    assert full.returncode == 1
    assert full.stderr == "dyniso: the output cannot be written: No space left on device\n"


def test_terminal_without_a_sign_for_a_letter_is_shown_its_number(tmp_path):
    done = shell(tmp_path, *FIGURE, "--out", "é", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\\xe9")
    assert (tmp_path / "é" / "random_labels-check.png").stat().st_size > 0


def test_user_without_a_home_is_told_what_is_there(tmp_path):
    nobody = ["unshare", "--user", "--map-user=54321", "env", "-u", "HOME", "-u", "XDG_CACHE_HOME"]
    if subprocess.run([*nobody, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody be a user without a home")
    done = shell(tmp_path, "doctor", around=nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data mnist-small: " in done.stdout
