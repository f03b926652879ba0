"""From an experiment's spec to stored rows: groups of runs, checkpoints, shards, budgets. What trains is in an engine.

Runs (methods x seeds) that differ only in seed and isometry strength are trained together, by `dyniso.study.train` for
supervised streams and by `dyniso.study.rl.train` for games.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from tqdm import tqdm

from .. import baselines
from . import checkpoint, files, store
from .checkpoint import Checkpoint
from .provenance import cpu_name, provenance
from .rl.train import GameEngine
from .specs import Comparison, Experiment, GameExperiment
from .stack import Run
from .train import StreamEngine


class Engine(Protocol):
    """What trains groups of runs of one experiment on one device."""

    bytes_a_run: int
    parts: int  # that the progress bar of a group counts
    unit: str  # what a part is called

    def train_group(self, runs: list[Run], bar: tqdm, checkpoint: Checkpoint) -> list[pd.DataFrame]:
        """Train, from the checkpoint if something is saved there; one frame a run: task, layer, metric, value."""


def make_engine(experiment: Comparison, device: torch.device) -> Engine:
    """The engine of an experiment, with its data loaded: whatever it lacks is an error now."""
    if isinstance(experiment, GameExperiment):
        return GameEngine(experiment, device)
    assert isinstance(experiment, Experiment)
    return StreamEngine(experiment, device)


HOST_MEMORY = 4 * 2**30  # bytes that a group of runs may take on a CPU


def most_runs(bytes_a_run: int, device: torch.device) -> int:
    """How many runs fit beside each other into the memory of a device, at least 1."""
    room = 0.8 * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOST_MEMORY
    return max(1, int(room // bytes_a_run))


def resolve_device(device: str = "auto") -> torch.device:
    """The torch device of a name; "auto" takes CUDA where there is one.

    Raises:
        ValueError: a name torch does not know, or a CUDA device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}; allowed are 'auto', 'cpu', 'cuda', 'cuda:N'") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}; allowed are 'auto', 'cpu', 'cuda', 'cuda:N'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return chosen


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the processor's model and cores."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def grouped(runs: list[Run], most: int | None = None) -> list[list[Run]]:
    """Runs that can be stacked: the same method but for name, strength (plain Adam is 0) and interventions.

    Args:
        most: runs that fit into one group; larger groups are split evenly.
    """
    groups = defaultdict(list)
    for run in runs:
        plain = "adamo" if run.method.optimizer == "adam" else run.method.optimizer
        shared = replace(run.method, name="", label="", optimizer=plain, isometry_strength=0.0, interventions=())
        groups[shared].append(run)
    split = []
    for group in groups.values():
        size = math.ceil(len(group) / math.ceil(len(group) / (most or len(group))))
        split += [group[i : i + size] for i in range(0, len(group), size)]
    return split


def key(run: Run) -> store.RunKey:
    """How the store names a run."""
    return run.method.name, run.seed


def check_methods(experiment: Comparison) -> None:
    """Raise ValueError now, not after hours, for a setting that a baseline refuses."""
    for method in experiment.methods:
        if method.baseline:
            baselines.make(method.baseline, **dict(method.settings))


def run(
    experiment: Comparison,
    device: str = "auto",
    folder: Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
    *,
    committed: bool = False,
    shard: tuple[int, int] = (0, 1),
    time_budget_s: float | None = None,
    checkpoint_every_s: float = 60.0,
) -> pd.DataFrame:
    """Run whatever of an experiment is not stored yet, store each group as it finishes, and return all rows.

    Args:
        experiment: from `dyniso.study.specs.get`, possibly with other seeds or fewer methods.
        device: "auto", "cpu", "cuda", "cuda:N".
        folder: where runs are kept; default `dyniso.study.store.runs_folder()`.
        fresh: run everything again, stored or not.
        progress: show a bar; None shows it on a terminal only.
        committed: runs that the committed table has at these settings count as stored.
        shard: (i, n): every n-th group from the i-th on, so that n processes share the work; rows are those of the
            shard's own runs.
        time_budget_s: seconds after which it saves and stops, at the end of a task.
        checkpoint_every_s: a checkpoint is written at the end of a task if the last is this many seconds old.
    Returns:
        Long form (see `dyniso.study.store`), all methods and seeds.
    Raises:
        ValueError: a bad device or shard, or a stream that asks for more images than the data set has.
        MissingExtraError: games without the packages that play them.
        DataError: the data set is not there and cannot be fetched. OSError: the folder cannot be written.
        OutOfTime: the time budget is spent; the same call goes on where this one stopped.
        UnusableError: a checkpoint or a stored run is damaged, or a file is not the run that its name says.
    """
    i, n = shard
    if not 0 <= i < n:
        raise ValueError(f"shard={i}/{n}; expected i/n with 0 <= i < n")
    deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
    place = resolve_device(device)
    folder = store.runs_folder() if folder is None else files.expanded(folder)
    check_methods(experiment)
    engine = make_engine(experiment, place)
    here = folder / experiment.name / experiment.tier
    files.require_writable(here, "set DYNISO_RUNS to a folder that can be written, with room")
    if committed:
        files.require_writable(store.results_folder(), "the joined table goes there")
    table = store.fitting_rows(experiment) if committed and not fresh else store.read_runs([])
    kept, paths = store.keys_of(table), store.run_paths(folder, experiment)
    everything = [Run(m, s) for m in experiment.methods for s in experiment.seeds]
    groups = grouped(everything, most_runs(engine.bytes_a_run, place))[i::n]
    own = {key(r): paths[key(r)] for group in groups for r in group}
    if not fresh:  # what is there is read now: a damaged file is an error before any training
        store.joined(own, table, whole=False)
    made_by = provenance(hardware_name(place))
    with files.holding(here, lambda: checkpoint.sweep(here)):
        for group in groups:
            todo = [r for r in group if fresh or not (key(r) in kept or paths[key(r)].exists())]
            for part in parts_of(group, todo, {key(r): paths[key(r)].name for r in group}, here, fresh):
                members = [paths[key(r)].name for r in part]
                saves = Checkpoint(here, members, checkpoint_every_s, deadline)
                if fresh:
                    saves.remove()
                frames = train_group(engine, part, saves, progress)
                facts = made_by | {"wall_s": f"{saves.elapsed_s:.1f}", "stacked_runs": str(len(part))}
                facts["company"] = ", ".join(f"{r.method.name} {r.seed}" for r in part)
                for r, frame in zip(part, frames, strict=True):
                    if r in todo:
                        store.write_run(folder, experiment, r.method, r.seed, frame, facts)
                saves.remove()
    return store.joined(own, table)


def parts_of(
    group: list[Run], todo: list[Run], names: dict[store.RunKey, str], here: Path, fresh: bool
) -> list[list[Run]]:
    """How what is left of a group is trained: as the checkpoints have begun it, and the rest together.

    A checkpoint's runs go on together until all are stored, those among them that are stored already too.

    Args:
        names: of the runs' files. fresh: whether checkpoints do not count.
    """
    by_name = {names[key(r)]: r for r in group}
    missing = [names[key(r)] for r in todo]
    parts = [] if fresh else checkpoint.begun(here, by_name, missing)
    rest = [name for name in missing if not any(name in part for part in parts)]
    return [[by_name[name] for name in part] for part in (*parts, rest) if part]


def train_group(engine: Engine, runs: list[Run], saves: Checkpoint, progress: bool | None) -> list[pd.DataFrame]:
    """Rows of runs that are trained together, from their checkpoint if there is one."""
    hidden = None if progress is None else not progress
    names = ", ".join(sorted({r.method.name for r in runs}))
    with tqdm(total=engine.parts, unit=engine.unit, disable=hidden, desc=names) as bar:
        return engine.train_group(runs, bar, saves)
