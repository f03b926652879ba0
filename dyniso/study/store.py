"""Results: one parquet file a run, whole or not at all, with what produced it inside; compact tables for the book.

Long form, one row a number: experiment, tier, method, seed, task, layer, metric, value. Read with duckdb, no torch.
A file under a run's name is that run, whole: on reading, a seal over its bytes is compared, and what it says of itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb
import pandas as pd

from .. import checks
from . import files, reads
from .files import UnusableError
from .provenance import versions
from .sources import PACKAGE
from .specs import Comparison, Method, digest
from .training_code import code_digest

COLUMNS = ["experiment", "tier", "method", "seed", "task", "layer", "metric", "value"]
RUN_COLUMNS = ["digest", "commit", "torch", "packages", "hardware", "wall_s", "stacked_runs"]  # kept by compact tables
SEAL_KEY = "seal"  # of a file's metadata
RunKey = tuple[str, int]  # name of the method, seed


def results_folder() -> Path:
    """Compact committed results: data/results of a checkout, or of the installed package."""
    checkout = PACKAGE.parent / "data" / "results"
    return checkout if checkout.exists() else PACKAGE / "_data" / "results"


def runs_folder() -> Path:
    """Where single runs go: $DYNISO_RUNS, or ./runs where that is empty or not set."""
    return files.folder_named("DYNISO_RUNS", "runs")


def made_by_digest(experiment: Comparison, method: Method) -> str:
    """Eight hex digits that name what computes a run: the code that it reaches and the versions of the packages."""
    packages = sorted(versions(experiment).items())
    return hashlib.sha256(repr((code_digest(experiment, method), packages)).encode()).hexdigest()[:8]


def file_name(method: str, seed: object, settings: str, made_by: str) -> str:
    """What the file of a run is called."""
    return f"{method}-{seed}-{settings}-{made_by}.parquet"


def run_path(folder: Path, experiment: Comparison, method: Method, seed: int) -> Path:
    """One run's file; digests of settings, code and package versions in its name keep it apart from others' runs."""
    name = file_name(method.name, seed, digest(experiment, method), made_by_digest(experiment, method))
    return folder / experiment.name / experiment.tier / name


def quoted(text: object) -> str:
    """A SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def write_parquet(frame: pd.DataFrame, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a frame, sealed, whole or not at all (`files.write_whole`)."""
    pairs = ", ".join(f"{quoted(k)}: {quoted(v)}" for k, v in {**(metadata or {}), SEAL_KEY: files.SEAL}.items())

    def write(temporary: Path) -> None:
        with duckdb.connect() as db:
            db.register("frame", frame)
            options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{pairs}}}"
            db.execute(f"COPY (SELECT * FROM frame) TO {located(temporary)} ({options})")

    try:
        files.write_whole(path, write)
    except duckdb.Error as error:
        raise OSError(f"cannot write {path}: {error}") from error


def located(path: Path) -> str:
    """A path as a SQL literal that duckdb takes as it stands, neither "~" nor an address such as s3:// at its start."""
    return quoted(path.absolute())


def read_metadata(path: Path) -> dict[str, str]:
    """The key-value provenance inside a parquet file.

    Raises:
        UnusableError: the file is damaged or no parquet file; says to delete it and run again.
    """
    return as_facts(query(path, "key, value", "parquet_kv_metadata"))


def as_facts(pairs: pd.DataFrame) -> dict[str, str]:
    """Keys and values of a parquet file's metadata, without the seal."""
    found = {bytes(k).decode(): bytes(v).decode() for k, v in pairs.itertuples(index=False)}
    found.pop(SEAL_KEY, None)
    return found


def query(path: Path, columns: str, function: str = "read_parquet") -> pd.DataFrame:
    """What a duckdb table function reads from one file; see `queries`."""
    return queries(path, (columns, function))[0]


def queries(path: Path, *selected: tuple[str, str]) -> list[pd.DataFrame]:
    """What duckdb's table functions read from one file, and of its path nothing; UnusableError where they cannot.

    A seal is compared before duckdb sees the file. Tables of earlier versions have none.

    Args:
        selected: columns and the name of a function, for each frame that is wanted.
    """
    literal = located(Path(re.sub(r"([*?\[])", r"[\1]", str(path))))  # a folder's [1] or * would be a pattern
    apart = {"read_parquet": ", hive_partitioning = false"}  # no columns from folders that are called "key=value"
    try:
        if files.is_whole(path.read_bytes()) is not False:
            with duckdb.connect() as db:
                calls = [f"SELECT {columns} FROM {f}({literal}{apart.get(f, '')})" for columns, f in selected]
                return [db.execute(call).df() for call in calls]
    except UnicodeEncodeError as error:
        raise UnusableError(f"{str(path)!r} is not UTF-8, which duckdb needs; move the folder") from error
    except duckdb.Error as error:
        raise UnusableError(f"{path} is damaged or no parquet file; delete it and run again") from error
    raise UnusableError(f"{path} is damaged: its content is not what was written; delete it and run again")


def write_run(
    folder: Path, experiment: Comparison, method: Method, seed: int, rows: pd.DataFrame, made_by: dict[str, str]
) -> Path:
    """Store one finished run.

    Args:
        rows: columns task, layer, metric, value.
        made_by: `provenance()` plus wall_s.
    Returns:
        The file written.
    Raises:
        ValueError: a task without its score, or two values of one number. OSError: the file cannot be written.
    """
    scored = set(rows["task"][rows["metric"] == experiment.score])
    lacking = sorted(set(range(experiment.tasks)) - scored)
    checks.require_that(not lacking, "tasks without " + experiment.score, lacking, "none in a finished run")
    repeated = rows[rows.duplicated(["task", "layer", "metric"])]
    checks.require_that(repeated.empty, "rows that come twice", len(repeated), "0 in a finished run")
    path = run_path(folder, experiment, method, seed)
    frame = rows.assign(experiment=experiment.name, tier=experiment.tier, method=method.name, seed=seed)[COLUMNS]
    facts = {**made_by, "code": code_digest(experiment, method), "digest": digest(experiment, method)}
    facts |= {"packages": as_text(versions(experiment)), "made_by": made_by_digest(experiment, method)}
    facts |= {"method": method.name, "seed": str(seed), "rows": str(len(frame)), "spec": repr(experiment)}
    write_parquet(frame, path, facts)
    return path


def as_text(packages: Mapping[str, str]) -> str:
    """Packages with their versions in one line.

    >>> as_text({"torch": "2.13", "numpy": "2.4"})
    'torch 2.13, numpy 2.4'
    """
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def read_run(path: Path) -> pd.DataFrame:
    """Rows of one run, with its provenance as columns.

    Raises:
        UnusableError: the file is damaged, or is not the run that its name and folder say (says what differs).
    """
    if files.is_whole(path.read_bytes()) is None:
        raise UnusableError(f"{path} is damaged or not made by `dyniso run`: it has no seal; delete it and run again")
    pairs, rows = queries(path, ("key, value", "parquet_kv_metadata"), ("*", "read_parquet"))
    facts = as_facts(pairs)
    inside = file_name(*(facts.get(name, "?") for name in ("method", "seed", "digest", "made_by")))
    if inside != path.name:
        raise UnusableError(f"{path} holds another run, {inside}; delete it and run again")
    place = path.absolute().parent
    named = {"experiment": place.parent.name, "tier": place.name, "method": facts["method"], "seed": int(facts["seed"])}
    fits = list(rows.columns) == COLUMNS and len(rows) == int(facts["rows"]) > 0
    if not fits or not all((rows[column] == value).all() for column, value in named.items()):
        raise UnusableError(f"{path} holds other rows than those of its run, {named}; delete it and run again")
    return rows.assign(**{name: facts.get(name, "") for name in RUN_COLUMNS})


def read_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """Rows of many runs in long form, with the provenance of each run (`RUN_COLUMNS`) as columns.

    No paths give no rows.

    Raises:
        FileNotFoundError: a run is missing (names it). UnusableError: as of `read_run`.
    """
    missing = [p for p in paths if not p.exists()]
    if missing:
        raise FileNotFoundError(f"no stored run {missing[0]}; make it with `dyniso run`")
    frames = [read_run(path) for path in paths] or [pd.DataFrame(columns=[*COLUMNS, *RUN_COLUMNS])]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(wall_s=pd.to_numeric(frame["wall_s"]))


def run_paths(folder: Path, experiment: Comparison) -> dict[RunKey, Path]:
    """The files of all runs of an experiment by (method, seed), whether they are there or not."""
    return {(m.name, s): run_path(folder, experiment, m, s) for m in experiment.methods for s in experiment.seeds}


def experiment_paths(folder: Path, experiment: Comparison) -> list[Path]:
    """The files of all runs of an experiment, methods by seeds."""
    return list(run_paths(folder, experiment).values())


def compact_path(experiment: Comparison) -> Path:
    """The committed table of an experiment and tier. Whoever asks is noted as its reader (`dyniso.study.reads`)."""
    path = results_folder() / f"{experiment.name}-{experiment.tier}.parquet"
    reads.note(path)
    return path


def keys_of(frame: pd.DataFrame) -> set[RunKey]:
    """Which runs some rows are of."""
    pairs = frame[["method", "seed"]].drop_duplicates()
    return {(str(method), int(seed)) for method, seed in pairs.itertuples(index=False)}


def rows_of(frame: pd.DataFrame, runs: Collection[RunKey]) -> pd.DataFrame:
    """The rows of some runs."""
    return frame[pd.MultiIndex.from_frame(frame[["method", "seed"]]).isin(list(runs))]


def fitting_rows(experiment: Comparison) -> pd.DataFrame:
    """Rows of the committed table that are still the spec's, under the present names of their arms; none without one.

    A run fits if its settings (by their digest) and its seed are the spec's; rows of other arms are left out. The code
    is not compared, as `read_compact` does not either: each row names the commit, torch and machine that made it, so a
    table that was made at several commits says so, and `dyniso run --fresh --compact` makes all of it anew.
    """
    path = compact_path(experiment)
    frame = query(path, "*") if path.exists() else read_runs([])
    names = {digest(experiment, m): m.name for m in experiment.methods}
    fitting = frame[frame["digest"].isin(list(names)) & frame["seed"].isin(experiment.seeds)]
    return fitting.assign(method=fitting["digest"].map(names))


def joined(paths: Mapping[RunKey, Path], committed: pd.DataFrame, whole: bool = True) -> pd.DataFrame:
    """Rows of runs: from their files, and of runs without a file from rows of a committed table.

    Args:
        whole: whether all of them must be there.
    Raises:
        FileNotFoundError: a run is in neither (names its file). UnusableError: as of `read_run`.
    """
    rest = rows_of(committed, [run for run, path in paths.items() if not path.exists()])
    found = keys_of(rest)
    single = read_runs([path for run, path in paths.items() if run not in found and (whole or path.exists())])
    return pd.concat([f for f in (single, rest) if len(f)] or [single], ignore_index=True)


def compact(folder: Path, experiment: Comparison) -> Path:
    """Write an experiment's committed table, and return its path: all runs in the folder, and the rows that still fit.

    So a new arm costs its own runs only. Sorted, float32.

    Raises:
        FileNotFoundError: a run is neither in the folder nor in the table (names its file); nothing is written.
    """
    path = compact_path(experiment)
    frame = joined(run_paths(folder, experiment), fitting_rows(experiment))
    frame = frame.sort_values(["method", "seed", "metric", "layer", "task"]).astype({"value": "float32"})
    write_parquet(frame, path, {"spec": repr(experiment), "runs": str(len(experiment.seeds))})
    return path


def read_compact(experiment: Comparison, columns: Sequence[str] = ("*",)) -> pd.DataFrame:
    """The committed rows of an experiment, only those whose settings are the present spec's.

    Args:
        columns: those that are wanted; the fewer, the faster.
    Raises:
        FileNotFoundError: no table, with the command that makes one.
        UnusableError: the table is damaged, holds runs of other settings, or lacks some (names the methods).
    """
    path = compact_path(experiment)
    if not path.exists():
        command = f"dyniso run {experiment.name} --tier {experiment.tier} --compact"
        raise FileNotFoundError(f"no stored results {path.name}; `{command}` makes them")
    made = set(query(path, "DISTINCT method, digest, seed").itertuples(index=False, name=None))
    current = {m.name: digest(experiment, m) for m in experiment.methods}
    stale = sorted({method for method, made_of, _ in made if current.get(method) != made_of})
    if stale:
        raise UnusableError(f"{path.name} holds runs of other settings for {stale}; run the experiment again")
    kept = {(method, seed) for method, _, seed in made}
    absent = [f"{m.name}, seed {s}" for m in experiment.methods for s in experiment.seeds if (m.name, s) not in kept]
    if absent:
        raise UnusableError(f"{path.name} lacks {len(absent)} runs, the first of {absent[0]}; run the experiment again")
    return query(path, ", ".join(columns))


def hardware_of(frame: pd.DataFrame) -> str:
    """The machines that made these rows, joined for a stamp."""
    return "; ".join(sorted(frame["hardware"].unique()))


def as_json(experiment: Comparison) -> str:
    """The digests of an experiment's methods as JSON, for a stamp."""
    return json.dumps({m.name: digest(experiment, m) for m in experiment.methods})
