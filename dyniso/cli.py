"""Command line: `dyniso list`, `run`, `figure`, `claims`, `doctor`. Torch is loaded by `run` and `doctor` alone.

A mistake in the call is one line on stderr that names the value and what is allowed, and exit code 2; a failure that is
not the caller's (no data, a damaged file) is one line and exit code 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from . import __version__
from .checks import nearest
from .study import data, specs, store
from .study.provenance import provenance, version
from .study.specs.reinforcement import SINGLE

EXTRA = ("jax", "gymnax", "octax")  # what the extra rl brings


class UsageError(Exception):
    """A mistake in the call; its text is the one line that the user sees."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0 done, 1 something is missing or damaged, 2 a mistake in the call."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no sign for a letter shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return obey(list(sys.argv[1:] if arguments is None else arguments))
    except (store.UnusableError, ImportError) as error:  # MissingExtraError is both ImportError and ValueError
        return fail(error, 1)
    except (UsageError, ValueError) as error:
        return fail(error, 2)
    except BrokenPipeError:  # the reader, e.g. `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError) as error:  # DataError is a RuntimeError
        return fail(error, 1)
    except KeyboardInterrupt:
        return fail("stopped; finished runs are kept, the same command goes on from them", 130)


def obey(arguments: list[str]) -> int:
    """Do what a call says; its exit code. What it prints leaves here, so that a reader that has gone is noticed."""
    try:
        options = parse(arguments)
        return int(options.command(options))
    finally:
        if sys.stdout:  # None where the caller has closed it
            sys.stdout.flush()


def fail(error: object, code: int) -> int:
    """One line on stderr, and the exit code to return."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # without the number
        text = f"{error.filename or 'the output cannot be written'}: {error.strerror}"
    print("dyniso:", " ".join(text.split()), file=sys.stderr)
    return code


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of a call; UsageError for an unknown command, option, experiment, tier or method."""
    parser = Parser(prog="dyniso", description="Experiments of the dyniso companion.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"dyniso {__version__}")
    commands = parser.add_subparsers(dest="name", metavar="command")
    for name, function, text in (
        ("list", command_list, "experiments, tiers, methods, and what is stored"),
        ("run", command_run, "run what is not stored yet"),
        ("figure", command_figure, "draw the stored results: PNG, CSV of the plotted points, JSON stamp"),
        ("claims", command_claims, "every claim with its verdict on the committed results"),
        ("doctor", command_doctor, "environment, device, data, stored results, and the next command"),
    ):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=function)
        if name in ("run", "figure"):
            command.add_argument("experiment", help=" | ".join(specs.everything()))
            command.add_argument("--tier", default="smoke", help=" | ".join(specs.TIERS) + " (default smoke)")
            command.add_argument("--seeds", type=int, help="how many: the spec's first N, then those that follow")
            command.add_argument("--methods", help="comma-separated names (default: all)")
        if name == "run":
            command.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:N (default auto)")
            command.add_argument("--fresh", action="store_true", help="run again what is stored already")
            command.add_argument(
                "--compact",
                action="store_true",
                help="join the runs into data/results; those that it has already are not run",
            )
            command.add_argument(
                "--quiet", action="store_true", help="no progress bar, and no word of what is stored already"
            )
            command.add_argument("--shard", default="0/1", help="i/n: every n-th group of runs from the i-th on")
            command.add_argument("--time-budget", type=float, help="seconds after which to save, stop, and exit with 3")
        if name == "figure":
            command.add_argument("--metrics", help="comma-separated metrics of the rows")
            command.add_argument("--out", type=Path, default=Path("figures"), help="folder (default ./figures)")
        if name == "claims":
            command.add_argument("--tier", default="check", help=" | ".join(specs.TIERS) + " (default check)")
            command.add_argument("--json", action="store_true", help="all of it: source, metric, threshold, findings")
            command.add_argument("--verbose", action="store_true", help="below each claim a line an experiment")
    if not arguments:
        raise UsageError(f"no command given; {nearest('', commands.choices)}; `dyniso COMMAND --help` says more")
    if not arguments[0].startswith("-") and arguments[0] not in commands.choices:
        raise UsageError(f"unknown command {arguments[0]!r}; {nearest(arguments[0], commands.choices)}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UsageError(unknown_text(unknown[0], options, commands.choices.get(options.name, parser)))
    return options


def unknown_text(word: str, options: argparse.Namespace, called: argparse.ArgumentParser) -> str:
    """What is wrong with a word of a call that its command does not know."""
    if word.startswith("-"):
        known = [option for action in called._actions for option in action.option_strings]
        return f"unknown option {word!r}; {nearest(word.split('=')[0], known)}"
    if "experiment" in options:
        return f"one experiment a call, not {options.experiment!r} and {word!r}; call `dyniso {options.name}` for each"
    return f"unexpected {word!r}; `dyniso {options.name}` takes options only"


def names_in(text: str) -> list[str]:
    """ "adam, redo" -> ["adam", "redo"]."""
    return [name.strip() for name in text.split(",")]


def chosen(options: argparse.Namespace) -> specs.Comparison:
    """The experiment that a call names, with its seeds and methods."""
    experiment = specs.find(options.experiment, options.tier)
    if options.methods is not None:
        experiment = specs.only_methods(experiment, names_in(options.methods))
    return experiment if options.seeds is None else specs.with_seeds(experiment, options.seeds)


def command_list(_: argparse.Namespace) -> int:
    """Every experiment with its tiers."""
    for name, by_tier in specs.everything().items():
        print(f"{name}: {by_tier['smoke'].title}")
        for tier, e in by_tier.items():
            stored = "stored" if store.compact_path(e).exists() else "not stored"
            print(f"  {tier:6} {e.size}, {len(e.methods)} methods x {len(e.seeds)} seeds, {stored}")
        names = list(dict.fromkeys(m.name for e in by_tier.values() for m in e.methods))
        print("  methods: " + ", ".join(names if len(names) < 40 else [*names[:4], "...", names[-1]]))
    return 0


def command_run(options: argparse.Namespace) -> int:
    """Run and print a short table: what each method reached on the first and the last task."""
    experiment = chosen(options)
    if options.compact and (experiment != specs.find(options.experiment, options.tier) or options.shard != "0/1"):
        raise UsageError("--compact stores a whole experiment; leave out --seeds, --methods and --shard")
    if options.time_budget is not None and options.fresh:
        raise UsageError(
            "--fresh starts anew at every call, so with --time-budget it never ends; leave out one of them"
        )
    if options.time_budget is not None and not options.time_budget >= 0:
        raise UsageError(f"--time-budget {options.time_budget:g}; expected seconds, at least 0")
    shard = shard_of(options.shard)
    import torch

    from .study import runner
    from .study.checkpoint import OutOfTime

    if not (options.fresh or options.quiet):
        say_what_is_reused(experiment, options.compact)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)  # two threads beside another busy process are tens of times slower
    try:
        frame = runner.run(
            experiment,
            options.device,
            fresh=options.fresh,
            committed=options.compact,
            progress=False if options.quiet else None,
            shard=shard,
            time_budget_s=options.time_budget,
        )
    except OutOfTime:
        return fail(f"stopped after {options.time_budget:g} s; the same command goes on from there", 3)
    print_scores(experiment, frame)
    if options.compact:
        print("stored in", os.path.relpath(store.compact(store.runs_folder(), experiment)))
    return 0


def say_what_is_reused(experiment: specs.Comparison, committed: bool) -> None:
    """One line on stderr if some runs are stored already: how many, and where."""
    paths = store.run_paths(store.runs_folder(), experiment)
    single = {run for run, path in paths.items() if path.exists()}
    table = store.keys_of(store.fitting_rows(experiment)) - single if committed else set()
    places = [(len(single), store.runs_folder()), (len(table), store.compact_path(experiment).name)]
    found = " and ".join(f"{count} in {place}" for count, place in places if count)
    if found:
        print(f"dyniso: stored already, of {len(paths)} runs: {found}; --fresh runs them again", file=sys.stderr)
    if table:
        say_what_made_others(store.rows_of(store.fitting_rows(experiment), table))


def say_what_made_others(rows: store.pd.DataFrame) -> None:
    """One line on stderr if rows of a table that are reused were made by another torch than what is added to them."""
    here = version("torch")
    other = sorted(set(rows["torch"]) - {here})
    if other:
        print(f"dyniso: reused rows were made by torch {', '.join(other)}; here is {here}", file=sys.stderr)


def shard_of(text: str) -> tuple[int, int]:
    """ "1/2" -> (1, 2)."""
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise UsageError(f"--shard {text}; expected i/n with 0 <= i < n, e.g. 0/2 and 1/2 in two processes")
    return int(i), int(n)


def print_scores(experiment: specs.Comparison, frame: store.pd.DataFrame) -> None:
    """What each method reached on the first and the last task, and which runs diverged."""
    last, score = experiment.tasks - 1, experiment.score
    means = frame[(frame["metric"] == score) & (frame["layer"] == "")].groupby(["method", "task"])["value"].mean()
    size = f"tier {experiment.tier}, {len(experiment.seeds)} seeds"
    print(f"{experiment.name}, {size}: {score.replace('_', ' ')}, first and last task")
    for method in experiment.methods:
        if (method.name, 0) in means:  # a shard has some of the methods
            print(f"  {method.label:24} {means[method.name, 0]:6.3f} {means[method.name, last]:6.3f}")
    diverged = frame[(frame["metric"] == "diverged") & (frame["value"] > 0)][["method", "seed"]].drop_duplicates()
    for _, row in diverged.iterrows():
        print(f"  diverged: {row['method']}, seed {row['seed']}")


def stored_rows(experiment: specs.Comparison) -> tuple[store.pd.DataFrame, str]:
    """Rows from single runs where all are there, else from the committed table; and which."""
    paths = store.experiment_paths(store.runs_folder(), experiment)
    if all(p.exists() for p in paths):
        return store.read_runs(paths), "runs"
    frame = store.read_compact(specs.find(experiment.name, experiment.tier))
    stored = set(zip(frame["method"], frame["seed"], strict=True))
    for wanted in ((m.name, s) for m in experiment.methods for s in experiment.seeds):
        if wanted not in stored:
            command = f"dyniso run {experiment.name} --tier {experiment.tier} --seeds {len(experiment.seeds)}"
            raise FileNotFoundError(f"no stored run of {wanted[0]}, seed {wanted[1]}; `{command}` makes it")
    kept = frame["method"].isin([m.name for m in experiment.methods]) & frame["seed"].isin(experiment.seeds)
    return frame[kept], "data/results"


def with_fresh_net(experiment: specs.GameExperiment) -> specs.GameExperiment:
    """The same experiment with the method by which returns are divided, whatever methods were chosen."""
    if SINGLE in [m.name for m in experiment.methods]:
        return experiment
    whole = specs.find(experiment.name, experiment.tier)
    return replace(experiment, methods=(*experiment.methods, whole.method(SINGLE)))


def command_figure(options: argparse.Namespace) -> int:
    """Draw the stored results of an experiment."""
    os.environ["MPLBACKEND"] = "Agg"  # before matplotlib reads it: a window is not wanted, and it refuses a wrong name
    from .report import figures

    experiment = chosen(options)
    metrics = None if options.metrics is None else names_in(options.metrics)
    if isinstance(experiment, specs.GameExperiment):
        frame, origin = stored_rows(with_fresh_net(experiment))
        fig, table = figures.cycles_figure(frame, experiment, metrics or figures.CYCLE_METRICS)
    elif experiment.name in specs.CAUSAL and metrics is None:
        from .report.figures import causal
        from .report.results import Results

        frame, origin = stored_rows(experiment)
        results = Results(experiment, frame)
        fig, table = causal.dots({experiment.title: results}, list(results.labels))
    else:
        frame, origin = stored_rows(experiment)
        fig, table = figures.tasks_figure(frame, experiment, metrics or figures.DEFAULT_METRICS)
    name = f"{experiment.name}-{experiment.tier}"
    for path in figures.save(fig, table, options.out, name, figures.stamp_of(frame, experiment) | {"origin": origin}):
        print(path)
    return 0


def command_claims(options: argparse.Namespace) -> int:
    """A head, then one line a claim: verdicts, effect with its interval, reason, scale, statement."""
    from .report import claims

    judged = claims.judge_all(options.tier)
    if options.json:
        print(json.dumps([claims.as_record(claim, verdict) for claim, verdict in judged], indent=2, allow_nan=False))
        return 0
    print(claims.HEAD)
    for claim, verdict in judged:
        print(*claims.lines(claim, verdict, options.verbose), sep="\n")
    return 0


def command_doctor(_: argparse.Namespace) -> int:
    """Report on everything a run needs; exit code 1 if something essential is missing."""
    import torch

    made_by = provenance()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"dyniso {made_by['dyniso']} at {made_by['commit']}, Python {made_by['python']}, torch {made_by['torch']}")
    print(f"processor: {made_by['hardware']}; torch threads: {torch.get_num_threads()}; GPU: {gpu}")
    found = data.available()
    for name, place in found:
        print(f"data {name}: {place if place else 'not here; fetched when first asked for'}")
    have = {name for name, place in found if place}
    lacking = [package for package in EXTRA if importlib.util.find_spec(package) is None]
    print("extra rl: " + (f"not here ({', '.join(lacking)}); pip install 'dyniso[rl]'" if lacking else "installed"))
    missing = []
    for name, by_tier in specs.everything().items():
        for tier, e in by_tier.items():
            path = store.compact_path(e)
            print(f"results {name} {tier}: {'stored' if path.exists() else 'none'}")
            fits = tier == "check" or (tier == "paper" and torch.cuda.is_available())
            fits = fits and not (lacking and name in specs.REINFORCEMENT)
            missing += [f"dyniso run {name} --tier {tier} --compact"] if fits and not path.exists() else []
    embedded = {name for name in data.names() if not data.manifest()[name]["urls"]}
    essential = embedded & {by_tier["smoke"].stream.dataset for by_tier in specs.REGISTRY.values()}
    if essential - have:
        print(f"missing: the embedded data {sorted(essential - have)}; reinstall dyniso or set DYNISO_DATA")
        return 1
    print("next: " + (missing[0] if missing else f"dyniso figure {next(iter(specs.REGISTRY))} --tier check"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
