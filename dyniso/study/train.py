"""The training loop of supervised streams, with all runs of a shape stacked on a leading axis.

Runs (methods x seeds) that differ only in seed and isometry strength are trained together. Every method of a seed
starts from the same weights and sees the same batches, so comparisons are paired. Where an experiment has a trunk, each
seed is trained once until the branch, and its arms start from there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import nets
from .checkpoint import Checkpoint
from .instruments import before, single
from .instruments.stacked import (
    Measures,
    activation_measures,
    each_run,
    evaluate,
    frames,
    loss_and_hits,
    over_steps,
    run_norm,
    steps_to,
    weight_measures,
)
from .interventions import IMAGES, Interventions, check
from .learner import Clip, Learner, denormals_as_zero
from .specs import Experiment, Method
from .stack import Run
from .tasks import Source, TaskData, load_source, load_task, task_order

KERNEL = 64  # inputs of the kernel that is measured before a task
LENS = 16  # inputs whose Jacobians are formed after the last task
BUDGETS = (20, 100)  # steps after which measure "kernel" looks at the loss of the task


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


class Trainer(Learner):
    """A group of runs on one stream: a learner whose only part is "net"."""

    def __init__(self, experiment: Experiment, runs: list[Run], source: Source):
        method, seeds = runs[0].method, [run.seed for run in runs]
        made = [{"net": make_net(experiment, run.method, run.seed, source)} for run in runs]
        clip = None if method.clip_norm is None else Clip(method.clip_norm)
        super().__init__(runs, made, source.inputs.device, {"net": seeds}, schedule=method.schedule, clip=clip)
        self.stack = self.parts["net"]
        branch = experiment.trunk.tasks if experiment.trunk else 0
        self.interventions = Interventions(
            runs, self.stack, branch, lambda run: make_net(experiment, run.method, run.seed, source)
        )
        if self.interventions.acts_on_gradients:
            self.on_gradients = self.interventions.scale_gradients

    def train(
        self, task: TaskData, order: Tensor, progress: tuple[int, int] | None = None, index: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Train every run on minibatches of one task.

        Args:
            order: positions of each minibatch, shape (steps, runs, batch).
            progress: steps of this task done before and in all, for the schedule; None: this call is the task.
            index: number of the task.
        Returns:
            Accuracy and loss before each update, shape (steps, runs).
        """
        done, total = progress or (0, len(order))
        hits, losses = torch.empty(2, *order.shape[:2], device=order.device)
        for step, positions in enumerate(order):
            self.schedule((done + step) / total)
            x, y = task.take(positions, done + step)
            loss, hit = (of_samples.mean(1) for of_samples in loss_and_hits(self.forward("net", x), y))
            self.update(loss)
            self.interventions.after_step(index, done + step + 1)
            hits[step], losses[step] = hit, loss.detach()
        return hits, losses

    def intervene(self, task: TaskData, index: int) -> None:
        """What is done to the weights before a task."""
        if self.interventions.arms:
            positions = torch.arange(min(IMAGES, task.rows.shape[1]), device=task.rows.device)
            images = task.take(positions.expand(len(task.rows), -1))[0]
            self.interventions.before_task(index, images, before.kernel_max)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"interventions": self.interventions.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.interventions.load_state_dict(state["interventions"])


@denormals_as_zero()
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
    branch = experiment.trunk.tasks if experiment.trunk else 0
    saved = checkpoint.load(source.inputs.device) if checkpoint else None
    first = saved["tasks_done"] if saved else 0
    members, rows = trunk_runs(experiment, runs) if first <= branch and experiment.trunk else (runs, None)
    trainer = Trainer(experiment, members, source)
    recorded: list[tuple[int, Measures]] = [(-1, spread(weight_measures(trainer.stack), rows))]
    dead: list[Tensor] | None = None
    if saved:
        trainer.load_state_dict(saved["trainer"])
        recorded, dead = saved["recorded"], saved["dead"]
    if bar is not None:
        bar.update(first)
    for index in range(first, experiment.stream.tasks):
        if rows is not None and index == branch:
            members, (trainer, dead), rows = runs, branched(experiment, runs, source, trainer, dead, rows), None
        found, dead = train_one(experiment, trainer, members, source, index, dead)
        recorded.append((index, found if rows is None else spread(of_trunk(found), rows)))
        if bar is not None:
            bar.update()
        if checkpoint and index + 1 < experiment.stream.tasks:
            now = {"tasks_done": index + 1, "recorded": recorded, "dead": dead}
            checkpoint.after_part(lambda now=now, trainer=trainer: now | {"trainer": trainer.state_dict()})  # type: ignore[misc]
    return [own_rows(run, frame) for run, frame in zip(runs, frames(recorded, len(runs)), strict=True)]


def own_rows(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    """What a run has whatever runs are beside it: a drift only where something is held."""
    held = any(what.every for what in run.method.interventions)
    return frame if held else frame[frame["metric"] != "held_drift"].reset_index(drop=True)


def trunk_runs(experiment: Experiment, runs: list[Run]) -> tuple[list[Run], list[int]]:
    """The runs of the trunk, one a seed, and for each arm's run the row of its trunk."""
    assert experiment.trunk is not None
    arm = runs[0].method
    method = Method("trunk", "trunk", activation=arm.activation, norm=arm.norm, lr=experiment.trunk.lr)
    seeds = sorted({run.seed for run in runs})
    return [Run(method, seed) for seed in seeds], [seeds.index(run.seed) for run in runs]


def spread(found: Measures, rows: list[int] | None) -> Measures:
    """Measures of the trunk's runs as those of the arms' runs that leave it."""
    return found if rows is None else {key: value[rows] for key, value in found.items()}


def of_trunk(found: Measures) -> Measures:
    """Of a task of the trunk, how it went; the rest would be stored once more for every arm."""
    return {key: value for key, value in found.items() if not key[0]}


@torch.no_grad()
def branched(
    experiment: Experiment, runs: list[Run], source: Source, trunk: Trainer, dead: list[Tensor] | None, rows: list[int]
) -> tuple[Trainer, list[Tensor] | None]:
    """All arms with the weights of their trunk and a fresh optimizer; and which units were dead there."""
    trainer = Trainer(experiment, runs, source)
    for name, p in trainer.params.items():
        p.copy_(trunk.params[name][rows])
    return trainer, None if dead is None else [of_layer[rows] for of_layer in dead]


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
        trainer.new_task(index)
    probe = torch.arange(experiment.probe, device=source.inputs.device).expand(len(runs), -1)
    trainer.intervene(task, index)
    start = [p.detach().clone() for p in trainer.params.values()]
    found = train_measured(experiment, trainer, task, order, source, index)
    found["", "update_norm"] = run_norm([p - q for p, q in zip(trainer.params.values(), start, strict=True)])
    of_activations, dead = activation_measures(trainer.stack, task.take(probe)[0], dead_before)
    found |= of_activations | weight_measures(trainer.stack)
    if "lens" in experiment.measures and index == experiment.stream.tasks - 1:
        found |= each_run(trainer.stack, single.lens, task.take(probe[:, :LENS])[0])
    alive = trainer.finite() & torch.isfinite(found["", "online_loss"])
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
    if "before" in experiment.measures and index >= trainer.interventions.branch:
        seen = torch.arange(experiment.probe, device=task.rows.device).expand(len(task.rows), -1)
        found |= before.before_task(trainer.stack, *task.take(seen))
    ends = "kernel_ends" in experiment.measures and index in (0, experiment.stream.tasks - 1)
    if "kernel" in experiment.measures or ends:
        found |= before_task(experiment, trainer, task, source)
        for budget in [b for b in BUDGETS if b < steps]:
            parts.append(trainer.train(task, order[done:budget], (done, steps), index))
            done = budget
            found["", f"loss_after_{budget}"] = evaluate(trainer.stack, task)[1]
    parts.append(trainer.train(task, order[done:], (done, steps), index))
    hits, losses = (torch.cat(part) for part in zip(*parts, strict=True))
    found["", "online_loss"] = over_steps(losses)
    if trainer.interventions.steps:
        found["", "held_drift"] = trainer.interventions.moved.clone()
    accuracy, found["", "end_loss"] = evaluate(trainer.stack, task)
    if not experiment.stream.is_regression:
        found["", "online_accuracy"], found["", "end_accuracy"] = over_steps(hits), accuracy
    if experiment.threshold is not None:
        found["", "steps_to_threshold"] = steps_to(experiment.threshold, hits).float()
    return found


def before_task(experiment: Experiment, trainer: Trainer, task: TaskData, source: Source) -> Measures:
    """The kernel on fixed inputs, and curvature and loss on the new task, before its first step."""
    runs = len(task.rows)
    fixed = task.images[task.rows[:, :KERNEL]] if task.permutation is None else source.inputs[:KERNEL]
    found = each_run(trainer.stack, single.kernel, fixed.expand(runs, -1, -1))
    inputs, labels = task.take(torch.arange(experiment.probe, device=source.inputs.device).expand(runs, -1))
    found |= each_run(trainer.stack, single.curvature, inputs, labels)
    found["", "loss_start"] = evaluate(trainer.stack, task)[1]
    return found


def bytes_a_run(experiment: Experiment, source: Source) -> int:
    """Memory that one run of an experiment takes, roughly.

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
    return 4 * (7 * parameters + 4 * samples * units + indices)


class StreamEngine:
    """Trains groups of runs on one stream (see `dyniso.study.runner.Engine`).

    Raises:
        ValueError: more images asked for than the data set has, or an intervention that its nets cannot get.
        DataError: the data set is not there and cannot be fetched.
    """

    unit = "task"

    def __init__(self, experiment: Experiment, device: torch.device):
        self.experiment, self.source = experiment, load_source(experiment.stream, device)
        self.bytes_a_run, self.parts = bytes_a_run(experiment, self.source), experiment.tasks
        for method in experiment.methods:
            for what in method.interventions:
                check(what, make_net(experiment, method, 0, self.source), experiment.stream.samples)

    def train_group(self, runs: list[Run], bar: tqdm, checkpoint: Checkpoint) -> list[pd.DataFrame]:
        """See `train_group`."""
        return train_group(self.experiment, runs, self.source, bar, checkpoint)
