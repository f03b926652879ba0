"""Results: one parquet file a run, whole or not at all, with what produced it inside; compact tables for the book.

Long form, one row a number: experiment, tier, method, seed, task, layer, metric, value. Read with duckdb, no torch.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb
import pandas as pd

from . import reads
from .sources import PACKAGE
from .specs import Comparison, Method, digest
from .training_code import code_digest

COLUMNS = ["experiment", "tier", "method", "seed", "task", "layer", "metric", "value"]
RUN_COLUMNS = ["digest", "commit", "torch", "hardware", "wall_s", "stacked_runs"]  # provenance kept by compact tables
RunKey = tuple[str, int]  # name of the method, seed


class UnusableError(ValueError):
    """A stored file is damaged, or holds runs of other settings. The message names it and says what to do."""


def results_folder() -> Path:
    """Compact committed results: data/results of a checkout, or of the installed package."""
    checkout = PACKAGE.parent / "data" / "results"
    return checkout if checkout.exists() else PACKAGE / "_data" / "results"


def runs_folder() -> Path:
    """Where single runs go: $DYNISO_RUNS, or ./runs where that is empty or not set."""
    return Path(os.environ.get("DYNISO_RUNS") or "runs").expanduser()


def run_path(folder: Path, experiment: Comparison, method: Method, seed: int) -> Path:
    """One run's file; digests of settings and code in its name keep it apart from what others made."""
    name = f"{method.name}-{seed}-{digest(experiment, method)}-{code_digest(experiment, method)[:8]}.parquet"
    return folder / experiment.name / experiment.tier / name


def require_writable(folder: Path) -> None:
    """Raise OSError now, in one line and not after hours of training, if results cannot be written to `folder`."""
    try:
        str(folder).encode()  # duckdb takes UTF-8 only
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except (OSError, UnicodeEncodeError):
        writable = False
    if not writable:
        raise OSError(f"cannot write to {str(folder)!r}; set DYNISO_RUNS to a folder that can be written")


def quoted(text: object) -> str:
    """A SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def write_parquet(frame: pd.DataFrame, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a frame under a temporary name, flush it to disk, then rename: readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    pairs = ", ".join(f"{quoted(k)}: {quoted(v)}" for k, v in (metadata or {}).items())
    options = "FORMAT parquet, COMPRESSION zstd" + (f", KV_METADATA {{{pairs}}}" if pairs else "")
    try:
        with duckdb.connect() as db:
            db.register("frame", frame)
            db.execute(f"COPY (SELECT * FROM frame) TO {quoted(temporary)} ({options})")
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except duckdb.Error as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, str]:
    """The key-value provenance inside a parquet file.

    Raises:
        UnusableError: the file is damaged or no parquet file; says to delete it and run again.
    """
    pairs = query(path, "key, value", "parquet_kv_metadata")
    return {bytes(k).decode(): bytes(v).decode() for k, v in pairs.itertuples(index=False)}


def query(path: Path, columns: str, function: str) -> pd.DataFrame:
    """What a duckdb table function reads from one file; UnusableError where it cannot."""
    literal = re.sub(r"([*?\[])", r"[\1]", str(path))  # duckdb would take a folder's [1] or * for a pattern
    try:
        with duckdb.connect() as db:
            return db.execute(f"SELECT {columns} FROM {function}({quoted(literal)})").df()
    except duckdb.Error as error:
        raise UnusableError(f"{path} is damaged or no parquet file; delete it and run again") from error


def write_run(
    folder: Path, experiment: Comparison, method: Method, seed: int, rows: pd.DataFrame, made_by: dict[str, str]
) -> Path:
    """Store one finished run.

    Args:
        rows: columns task, layer, metric, value.
        made_by: `provenance()` plus wall_s.
    Returns:
        The file written.
    """
    path = run_path(folder, experiment, method, seed)
    frame = rows.assign(experiment=experiment.name, tier=experiment.tier, method=method.name, seed=seed)[COLUMNS]
    facts = {**made_by, "code": code_digest(experiment, method), "digest": digest(experiment, method)}
    facts |= {"seed": str(seed), "spec": repr(experiment)}
    write_parquet(frame, path, facts)
    return path


def read_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """Rows of many runs in long form, with digest, commit, torch, hardware and wall_s of each run as columns.

    No paths give no rows.

    Raises:
        FileNotFoundError: a run is missing (names it). UnusableError: a file is damaged.
    """
    missing = [p for p in paths if not p.exists()]
    if missing:
        raise FileNotFoundError(f"no stored run {missing[0]}; make it with `dyniso run`")
    frames = [pd.DataFrame(columns=[*COLUMNS, *RUN_COLUMNS])] if not paths else []
    for path in paths:
        facts = read_metadata(path)
        rows = query(path, "*", "read_parquet")
        frames.append(rows.assign(**{name: facts.get(name, "") for name in RUN_COLUMNS}))
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
    frame = query(path, "*", "read_parquet") if path.exists() else read_runs([])
    names = {digest(experiment, m): m.name for m in experiment.methods}
    fitting = frame[frame["digest"].isin(list(names)) & frame["seed"].isin(experiment.seeds)]
    return fitting.assign(method=fitting["digest"].map(names))


def joined(paths: Mapping[RunKey, Path], committed: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs: from their files, and of runs without a file from rows of a committed table.

    Raises:
        FileNotFoundError: a run is in neither (names its file). UnusableError: a file is damaged.
    """
    rest = rows_of(committed, [run for run, path in paths.items() if not path.exists()])
    found = keys_of(rest)
    single = read_runs([path for run, path in paths.items() if run not in found])
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
    made = set(query(path, "DISTINCT method, digest, seed", "read_parquet").itertuples(index=False, name=None))
    current = {m.name: digest(experiment, m) for m in experiment.methods}
    stale = sorted({method for method, made_of, _ in made if current.get(method) != made_of})
    if stale:
        raise UnusableError(f"{path.name} holds runs of other settings for {stale}; run the experiment again")
    kept = {(method, seed) for method, _, seed in made}
    absent = [f"{m.name}, seed {s}" for m in experiment.methods for s in experiment.seeds if (m.name, s) not in kept]
    if absent:
        raise UnusableError(f"{path.name} lacks {len(absent)} runs, the first of {absent[0]}; run the experiment again")
    return query(path, ", ".join(columns), "read_parquet")


def hardware_of(frame: pd.DataFrame) -> str:
    """The machines that made these rows, joined for a stamp."""
    return "; ".join(sorted(frame["hardware"].unique()))


def as_json(experiment: Comparison) -> str:
    """The digests of an experiment's methods as JSON, for a stamp."""
    return json.dumps({m.name: digest(experiment, m) for m in experiment.methods})
