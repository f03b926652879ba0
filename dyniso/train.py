"""The one training loop: from an experiment's spec to stored rows, with all runs of a shape stacked on a leading axis.

Runs (methods x seeds) that differ only in seed and isometry strength are trained together: their parameters are
stacked, the net is an ordinary module called through `torch.func.functional_call` and `vmap`. Every method of a seed
starts from the same weights and sees the same batches, so comparisons are paired.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import baselines, nets, probes, store
from .checkpoint import Checkpoint
from .measures import (
    Measures,
    activation_measures,
    each_run,
    evaluate,
    frames,
    loss_and_hits,
    run_norm,
    steps_to,
    weight_measures,
)
from .optim import IsometryDivergenceError
from .specs import Experiment, Method
from .stack import Run, Stack
from .streams import Source, TaskData, load_source, load_task, task_order

KERNEL = 64  # inputs of the kernel that is measured before a task
LENS = 16  # inputs whose Jacobians are formed after the last task
BUDGETS = (20, 100)  # steps after which measure "kernel" looks at the loss of the task
HOST_MEMORY = 4 * 2**30  # bytes that a group of runs may take on a CPU


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
    return torch.cuda.get_device_name(device) if device.type == "cuda" else store.cpu_name()


def make_net(experiment: Experiment, method: Method, seed: int, source: Source) -> nn.Sequential:
    """The net of one run, on flat inputs; every method of a seed gets the same initial weights."""
    net = experiment.net
    options: dict[str, Any] = dict(bias=net.bias, norm=method.norm or "none", init=net.init, gain=net.gain, seed=seed)
    if net.channels:
        hidden = (net.width,) * net.depth
        body = nets.cnn(
            source.shape, source.outputs, net.channels, hidden, method.activation, downsample="unshuffle", **options
        )
        made = nn.Sequential(nn.Unflatten(1, source.shape), *body)
    else:
        features = math.prod(source.shape)
        made = nets.mlp(features, source.outputs, net.width, net.depth, method.activation, **options)
    if method.parametrization:
        for layer in [m for m in made if isinstance(m, nn.Linear | nn.Conv2d)][:-1]:
            nets.orthogonal(layer, method.parametrization)
    return made


class Trainer:
    """What trains a group of runs: stacked nets, optimizer, and the method on top of it, if any."""

    def __init__(self, experiment: Experiment, runs: list[Run], source: Source):
        self.method = runs[0].method
        nets_of_runs = [make_net(experiment, run.method, run.seed, source) for run in runs]
        self.stack = Stack(nets_of_runs, source.inputs.device)
        self.optimizer = self.stack.optimizer(runs)
        self.attached: baselines.Attached | None = None
        if self.method.baseline:
            self.attached = self.stack.attach(self.method, self.optimizer, [run.seed for run in runs])
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def new_task(self) -> None:
        """What happens at a task boundary, but before the first task."""
        if self.method.reset_optimizer:
            baselines.forget(self.optimizer)
        if self.attached is not None:
            self.attached.new_task()

    def train(self, task: TaskData, order: Tensor, progress: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Train every run on minibatches of one task.

        Args:
            order: positions of each minibatch, shape (steps, runs, batch).
            progress: steps of this task done before and in all, for the schedule; None: this call is the task.
        Returns:
            Accuracy and loss before each update, shape (steps, runs).
        """
        done, total = progress or (0, len(order))
        hits, losses = torch.empty(2, *order.shape[:2], device=order.device)
        for step, positions in enumerate(order):
            self.schedule((done + step) / total)
            hits[step], losses[step] = self.update(*task.take(positions, done + step))
        return hits, losses

    def schedule(self, fraction: float) -> None:
        """Set the learning rate for a fraction of the task done."""
        if self.method.schedule == "cosine":
            for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * fraction)) / 2

    def update(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step of every run; accuracy and task loss before it, shape (runs,)."""
        seen: list[Tensor] | None = None if self.attached is None else []
        losses, hits = loss_and_hits(self.stack(x, seen), y)
        loss = losses.mean(1)
        self.optimizer.zero_grad()
        if self.attached is None:
            loss.sum().backward()
        else:
            self.attached.inputs, self.attached.activations = x, seen or []
            (loss + self.attached.penalty()).sum().backward()
        if self.method.clip_norm is not None:
            self.stack.clip(self.method.clip_norm)
        self.step()
        if self.attached is not None:
            self.attached.after_step()
        return hits.mean(1), loss.detach()

    def step(self) -> None:
        """One optimizer step; runs that diverge in it are given up one after another, the others go on."""
        while True:
            try:
                return self.optimizer.step()
            except IsometryDivergenceError as error:
                self.stack.give_up(error.runs)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while it trains; with it a new trainer of the same runs goes on bit for bit."""
        attached = None if self.attached is None else self.attached.state_dict()
        params = {name: p.detach() for name, p in self.stack.params.items()}
        return {"params": params, "optimizer": self.optimizer.state_dict(), "attached": attached}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, p in self.stack.params.items():
            p.copy_(state["params"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.attached is not None:
            self.attached.load_state_dict(state["attached"])


def train_group(
    experiment: Experiment,
    runs: list[Run],
    source: Source,
    bar: tqdm | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[pd.DataFrame]:
    """Train a group of runs that share shape and optimizer settings through all tasks.

    Args:
        runs: methods x seeds; their methods may differ in isometry strength only.
        source: what the tasks draw from; its device trains.
        checkpoint: where to save between tasks, and to go on from if something is saved there.
    Returns:
        One frame a run, columns task, layer, metric, value. Weight measures of task -1 are those at initialisation.
    Raises:
        OutOfTime: the checkpoint's deadline has passed.
    """
    trainer = Trainer(experiment, runs, source)
    recorded: list[tuple[int, Measures]] = [(-1, weight_measures(trainer.stack))]
    dead: list[Tensor] | None = None
    first = 0
    saved = checkpoint.load(source.inputs.device) if checkpoint else None
    if saved:
        trainer.load_state_dict(saved["trainer"])
        first, recorded, dead = saved["tasks_done"], saved["recorded"], saved["dead"]
    if bar is not None:
        bar.update(first)
    for index in range(first, experiment.stream.tasks):
        found, dead = train_one(experiment, trainer, runs, source, index, dead)
        recorded.append((index, found))
        if bar is not None:
            bar.update()
        if checkpoint and index + 1 < experiment.stream.tasks:
            now = {"tasks_done": index + 1, "recorded": recorded, "dead": dead}
            checkpoint.after_task(lambda now=now: now | {"trainer": trainer.state_dict()})  # type: ignore[misc]
    return frames(recorded, len(runs))


def train_one(
    experiment: Experiment,
    trainer: Trainer,
    runs: list[Run],
    source: Source,
    index: int,
    dead_before: list[Tensor] | None,
) -> tuple[Measures, list[Tensor]]:
    """Train one task and measure; also which units are dead after it, layer by layer."""
    seeds = [run.seed for run in runs]
    task = load_task(experiment, seeds, index, source)
    order = task_order(experiment, seeds, index).to(source.inputs.device)
    if index:
        trainer.new_task()
    start = [p.detach().clone() for p in trainer.stack.params.values()]
    found = train_measured(experiment, trainer, task, order, source, index)
    found["", "update_norm"] = run_norm([p - q for p, q in zip(trainer.stack.params.values(), start, strict=True)])
    probe = torch.arange(experiment.probe, device=source.inputs.device).expand(len(runs), -1)
    of_activations, dead = activation_measures(trainer.stack, task.take(probe)[0], dead_before)
    found |= of_activations | weight_measures(trainer.stack)
    if "lens" in experiment.measures and index == experiment.stream.tasks - 1:
        found |= each_run(trainer.stack, probes.lens, task.take(probe[:, :LENS])[0])
    alive = trainer.stack.finite() & torch.isfinite(found["", "online_loss"])
    # a diverged run is neither at chance level nor "0 % dead"
    found = {key: torch.where(alive, value, torch.nan) for key, value in found.items()}
    return found | {("", "diverged"): (~alive).float()}, dead


def train_measured(
    experiment: Experiment, trainer: Trainer, task: TaskData, order: Tensor, source: Source, index: int
) -> Measures:
    """Train one task; with measure "kernel", look at the net before, and at the loss before and after some steps."""
    steps, done = len(order), 0
    found: Measures = {}
    parts: list[tuple[Tensor, Tensor]] = []
    ends = "kernel_ends" in experiment.measures and index in (0, experiment.stream.tasks - 1)
    if "kernel" in experiment.measures or ends:
        found |= before_task(experiment, trainer, task, source)
        for budget in [b for b in BUDGETS if b < steps]:
            parts.append(trainer.train(task, order[done:budget], (done, steps)))
            done = budget
            found["", f"loss_after_{budget}"] = evaluate(trainer.stack, task)[1]
    parts.append(trainer.train(task, order[done:], (done, steps)))
    hits, losses = (torch.cat(part) for part in zip(*parts, strict=True))
    found["", "online_loss"] = losses.mean(0)
    accuracy, found["", "end_loss"] = evaluate(trainer.stack, task)
    if not experiment.stream.is_regression:
        found["", "online_accuracy"], found["", "end_accuracy"] = hits.mean(0), accuracy
    if experiment.threshold is not None:
        found["", "steps_to_threshold"] = steps_to(experiment.threshold, hits).float()
    return found


def before_task(experiment: Experiment, trainer: Trainer, task: TaskData, source: Source) -> Measures:
    """The kernel on fixed inputs, and curvature and loss on the new task, before its first step."""
    runs = len(task.rows)
    fixed = task.images[task.rows[:, :KERNEL]] if task.permutation is None else source.inputs[:KERNEL]
    found = each_run(trainer.stack, probes.kernel, fixed.expand(runs, -1, -1))
    inputs, labels = task.take(torch.arange(experiment.probe, device=source.inputs.device).expand(runs, -1))
    found |= each_run(trainer.stack, probes.curvature, inputs, labels)
    found["", "loss_start"] = evaluate(trainer.stack, task)[1]
    return found


def grouped(runs: list[Run], most: int | None = None) -> list[list[Run]]:
    """Runs that can be stacked: the same method but for name and isometry strength (plain Adam is strength 0).

    Args:
        most: runs that fit into one group; larger groups are split evenly.
    """
    groups = defaultdict(list)
    for run in runs:
        plain = "adamo" if run.method.optimizer == "adam" else run.method.optimizer
        groups[replace(run.method, name="", label="", optimizer=plain, isometry_strength=0.0)].append(run)
    split = []
    for group in groups.values():
        size = math.ceil(len(group) / math.ceil(len(group) / (most or len(group))))
        split += [group[i : i + size] for i in range(0, len(group), size)]
    return split


def most_runs(experiment: Experiment, source: Source) -> int:
    """How many runs of an experiment fit beside each other into the memory of the source's device, at least 1.

    A run takes its parameters seven times (weight, gradient, two moments, the batch and step of the isometry pull, one
    spare), the activations of a minibatch or probe four times, and its minibatches' indices.
    """
    widest = replace(experiment.methods[0], activation="crelu", norm=None, parametrization=None)
    net = make_net(experiment, widest, 0, source)
    x = source.inputs[:1].cpu()
    units = 0
    with torch.no_grad():
        for layer in net:
            x = layer(x)
            units += x.numel()
    samples = max(experiment.batch, experiment.probe, min(1000, experiment.stream.samples))
    parameters = sum(p.numel() for p in net.parameters())
    indices = 2 * experiment.steps_per_task * experiment.batch + 2 * experiment.stream.samples
    bytes_a_run = 4 * (7 * parameters + 4 * samples * units + indices)
    device = source.inputs.device
    room = 0.8 * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOST_MEMORY
    return max(1, int(room // bytes_a_run))


def checkpoint_path(folder: Path, experiment: Experiment, group: list[Run]) -> Path:
    """Where a group's checkpoint lies; the name is a digest of what its runs' files are called."""
    paths = [store.run_path(folder, experiment, r.method, r.seed) for r in group]
    name = hashlib.sha256("\n".join(p.name for p in paths).encode()).hexdigest()[:16]
    return paths[0].with_name(f"{group[0].method.name}-{name}.checkpoint")


def check_methods(experiment: Experiment) -> None:
    """Raise ValueError now, not after hours, for a setting that a baseline refuses."""
    for method in experiment.methods:
        if method.baseline:
            baselines.make(method.baseline, **dict(method.settings))


def run(
    experiment: Experiment,
    device: str = "auto",
    folder: Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    time_budget_s: float | None = None,
    checkpoint_every_s: float = 60.0,
) -> pd.DataFrame:
    """Run whatever of an experiment is not stored yet, store each group as it finishes, and return all rows.

    Args:
        experiment: from `dyniso.specs.get`, possibly with other seeds or fewer methods.
        device: "auto", "cpu", "cuda", "cuda:N".
        folder: where runs are kept; default `dyniso.store.runs_folder()`.
        fresh: run everything again, stored or not.
        progress: show a bar; None shows it on a terminal only.
        shard: (i, n): every n-th group from the i-th on, so that n processes share the work; rows are those of the
            shard's own runs.
        time_budget_s: seconds after which it saves and stops, at the end of a task.
        checkpoint_every_s: a checkpoint is written at the end of a task if the last is this many seconds old.
    Returns:
        Long form (see `dyniso.store`), all methods and seeds.
    Raises:
        ValueError: a bad device or shard, or a stream that asks for more images than the data set has.
        DataError: the data set is not there and cannot be fetched. OSError: the folder cannot be written.
        OutOfTime: the time budget is spent; the same call goes on where this one stopped.
        UnusableError: a checkpoint is damaged.
    """
    i, n = shard
    if not 0 <= i < n:
        raise ValueError(f"shard={i}/{n}; expected i/n with 0 <= i < n")
    deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
    place = resolve_device(device)
    folder = store.runs_folder() if folder is None else folder
    store.require_writable(folder)
    check_methods(experiment)
    source = load_source(experiment.stream, place)
    everything = [Run(m, s) for m in experiment.methods for s in experiment.seeds]
    groups = grouped(everything, most_runs(experiment, source))[i::n]
    for group in groups:
        paths = {r: store.run_path(folder, experiment, r.method, r.seed) for r in group}
        todo = [r for r in group if fresh or not paths[r].exists()]
        if todo:
            checkpoint = Checkpoint(checkpoint_path(folder, experiment, todo), checkpoint_every_s, deadline)
            if fresh:
                checkpoint.remove()
            run_group(experiment, todo, source, folder, checkpoint, progress)
    return store.read_runs([store.run_path(folder, experiment, r.method, r.seed) for group in groups for r in group])


def run_group(
    experiment: Experiment,
    group: list[Run],
    source: Source,
    folder: Path,
    checkpoint: Checkpoint,
    progress: bool | None,
) -> None:
    """Train a group, from its checkpoint if there is one, and store its runs."""
    made_by = store.provenance(hardware_name(source.inputs.device))
    hidden = None if progress is None else not progress
    names = ", ".join(sorted({r.method.name for r in group}))
    with tqdm(total=experiment.stream.tasks, unit="task", disable=hidden, desc=names) as bar:
        results = train_group(experiment, group, source, bar, checkpoint)
    made_by["wall_s"] = f"{checkpoint.elapsed_s:.1f}"
    made_by["stacked_runs"] = str(len(group))
    for r, frame in zip(group, results, strict=True):
        store.write_run(folder, experiment, r.method, r.seed, frame, made_by)
    checkpoint.remove()
