"""The one training loop: from an experiment's spec to stored rows, with all runs of a shape stacked on a leading axis.

Runs (methods x seeds) that differ only in seed and isometry strength are trained together: their parameters are
stacked, the net is an ordinary module called through `torch.func.functional_call` and `vmap`. Every method of a seed
starts from the same weights and sees the same batches, so comparisons are paired.
"""

from __future__ import annotations

import copy
import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize
from tqdm import tqdm

from . import baselines, data, probes, store
from .dormancy import ACTIVATION_TYPES, dead_units, dormant_fraction, reactivated
from .isometry import spectrum, summarise_spectrum
from .nets import mlp, orthogonal
from .optim import AdamO, IsometryDivergenceError, isometry_groups
from .specs import Experiment, Method
from .streams import batch_order, make_task, standardise

CLASSES = 10
TAU = (0.025, 0.1)  # dormancy thresholds of Sokar et al. 2023
KERNEL = 64  # inputs of the kernel that is measured before each task
LENS = 16  # inputs whose Jacobians are formed after the last task
BUDGETS = (20, 100)  # steps after which measure "kernel" looks at the loss of the task


class Run(NamedTuple):
    """One arm of an experiment under one seed."""

    method: Method
    seed: int


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


def make_net(experiment: Experiment, method: Method, seed: int, pixels: int) -> nn.Sequential:
    """The net of one run; every method of a seed gets the same initial weights."""
    net = experiment.net
    made = mlp(
        pixels,
        CLASSES,
        net.width,
        net.depth,
        method.activation,
        bias=net.bias,
        norm=method.norm or "none",
        init=net.init,
        gain=net.gain,
        seed=seed,
    )
    if method.parametrization:
        for layer in [m for m in made if isinstance(m, nn.Linear)][:-1]:
            orthogonal(layer, method.parametrization)
    return made


class Stack:
    """Several nets of one shape as one: parameters (runs, ...), and the forward map over all of them.

    The nets stay ordinary modules; their layers are applied to all runs at once. Linear layers take one batched product
    with the bias inside (vmap's own rule splits it into four operations), activations work on any leading axes, and
    every other layer goes through `torch.func.vmap`.

    Args:
        nets: Sequential modules of one architecture.
        device: where the stacked parameters live.
    Raises:
        ValueError: no nets, or one that is no `nn.Sequential`.
    """

    def __init__(self, nets: list[nn.Sequential], device: torch.device):
        if not nets or not all(isinstance(net, nn.Sequential) for net in nets):
            raise ValueError(f"a stack needs nn.Sequential nets; got {[type(net).__name__ for net in nets]}")
        stacked, _ = stack_module_state(nets)
        self.template = nets[0].to(device)
        self.params = {name: p.detach().to(device).requires_grad_() for name, p in stacked.items()}

        self.layers = [
            (layer, {key: self.params[f"{name}.{key}"] for key, _ in layer.named_parameters()})
            for name, layer in self.template.named_children()
        ]

    def __call__(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """Logits (runs, batch, outputs) for inputs (runs, batch, features); activations are appended to `seen`."""
        for layer, params in self.layers:
            x = apply_stacked(layer, params, x)
            if seen is not None and isinstance(layer, ACTIVATION_TYPES):
                seen.append(x)
        return x

    def finite(self) -> Tensor:
        """Which runs have only finite parameters, shape (runs,), bool."""
        return torch.stack([torch.isfinite(p).flatten(1).all(1) for p in self.params.values()]).all(0)

    @torch.no_grad()
    def give_up(self, runs: list[int]) -> None:
        """Make the parameters of runs that have diverged NaN, so that they are recorded as such and harm no other."""
        for p in self.params.values():
            p[runs] = torch.nan

    def regularised(self) -> list[str]:
        """Names of the weights that AdamO pulls: hidden matrices, not the head."""
        pulled = {id(p) for p in isometry_groups(self.template)[0]["params"]}
        return [name for name, p in self.template.named_parameters() if id(p) in pulled]

    def weights(self) -> dict[str, Tensor]:
        """Every weight matrix (runs, out, in) as the forward pass uses it, by name."""
        found = {}
        for name, layer in self.template.named_children():
            if parametrize.is_parametrized(layer, "weight"):
                held = {"original": self.params[f"{name}.parametrizations.weight.original"]}
                build = layer.get_submodule("parametrizations.weight")
                found[f"{name}.weight"] = vmap(lambda p, b=build: functional_call(b, p, ()))(held)
            elif isinstance(layer, nn.Linear):
                found[f"{name}.weight"] = self.params[f"{name}.weight"]
        return found

    def single(self, run: int) -> nn.Sequential:
        """One run as a net of its own, in float64 and without parametrizations: for instruments, not for training."""
        weights = self.weights()
        plain: dict[str, nn.Module] = {}
        for name, layer in self.template.named_children():
            own = {key: self.params[f"{name}.{key}"][run].detach() for key, _ in layer.named_parameters()}
            if isinstance(layer, nn.Linear):
                own = {"weight": weights[f"{name}.weight"][run].detach()} | {
                    k: p for k, p in own.items() if k == "bias"
                }
                plain[name] = nn.Linear(layer.in_features, layer.out_features, bias="bias" in own)
            else:
                plain[name] = copy.deepcopy(layer)
            plain[name].load_state_dict(own)
        return nn.Sequential(OrderedDict(plain)).to(next(iter(weights.values())).device).double()

    def attach(self, method: Method, optimizer: Any, seeds: list[int]) -> baselines.Attached:
        """The baseline of a method at work on the stacked parameters."""
        layers = [
            baselines.Layer(name, self.params[f"{name}.weight"], self.params.get(f"{name}.bias"))
            for name, layer in self.template.named_children()
            if isinstance(layer, nn.Linear)
        ]
        baseline = baselines.make(method.baseline or "", **dict(method.settings))
        elementwise = baselines.is_elementwise(self.template)
        return baselines.Attached(baseline, layers, optimizer, self, seeds, batch_dims=1, elementwise=elementwise)

    def optimizer(self, runs: list[Run]) -> Any:
        """The optimizer of a group of runs: settings shared but for the strength, which is one value a run."""
        method = runs[0].method
        everything = list(self.params.values())
        decay = method.weight_decay or 0.0
        if method.optimizer == "adamw":
            return torch.optim.AdamW(everything, lr=method.lr, weight_decay=decay, fused=True)
        if method.optimizer == "sgd":
            return torch.optim.SGD(everything, lr=method.lr, weight_decay=decay)
        if method.optimizer == "upgd":
            generators = [torch.Generator(everything[0].device).manual_seed(run.seed) for run in runs]
            return baselines.UPGD(everything, method.lr, weight_decay=decay, generators=generators, batch_dims=1)
        strengths = [run.method.isometry_strength for run in runs]
        if method.optimizer != "muon" and not any(strengths):
            return torch.optim.Adam(everything, lr=method.lr, weight_decay=decay, fused=True)
        names = self.regularised()
        pulled = [self.params[n] for n in names]
        rest = [p for n, p in self.params.items() if n not in names]
        if method.optimizer == "muon":  # ten times the learning rate of the Adam beside it
            muon = baselines.PerRun(pulled, lambda ps: torch.optim.Muon(ps, lr=10 * method.lr, weight_decay=decay))
            return baselines.Several(muon, torch.optim.Adam(rest, lr=method.lr, weight_decay=decay, fused=True))
        per_run = torch.tensor(strengths, device=everything[0].device)
        return AdamO(
            [{"params": pulled, "isometry_strength": per_run}, {"params": rest, "isometry_strength": 0.0}],
            lr=method.lr,
            isometry_every=method.isometry_every,
            coupled=method.coupled,
            batch_dims=1,
            weight_decay=decay,
            decoupled_weight_decay=bool(method.decoupled_weight_decay),
            fused=True,
        )

    @torch.no_grad()
    def clip(self, norm: float) -> None:
        """Scale the gradients of each run down to a global norm, as `torch.nn.utils.clip_grad_norm_` does for one."""
        grads = [p.grad for p in self.params.values() if p.grad is not None]
        size = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
        factor = (norm / (size + 1e-6)).clamp_max(1)
        for g in grads:
            g.mul_(factor.reshape(-1, *[1] * (g.ndim - 1)))


def apply_stacked(layer: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """One layer of every run, (runs, batch, ...) -> (runs, batch, ...), with its parameters stacked (runs, ...)."""
    if isinstance(layer, nn.Linear) and "weight" in params:
        W = params["weight"]  # as the first factor its gradient comes in W's own layout, and is not copied once more
        return (torch.baddbmm(params["bias"][..., None], W, x.mT) if "bias" in params else W @ x.mT).mT
    if isinstance(layer, ACTIVATION_TYPES) and not params:
        return layer(x)
    return vmap(lambda p, h: functional_call(layer, p, (h,)))(params, x)


class TaskData(NamedTuple):
    """One task of every run of a group, on the device."""

    images: Tensor  # (n, pixels), shared
    rows: Tensor  # (runs, samples)
    labels: Tensor  # (runs, samples)
    permutation: Tensor | None  # (runs, 1, pixels)

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (runs, batch, pixels) and labels (runs, batch) at positions (runs, batch)."""
        x = self.images[self.rows.gather(1, positions)]
        if self.permutation is not None:
            x = x.gather(2, self.permutation.expand_as(x))
        return x, self.labels.gather(1, positions)


def load_task(experiment: Experiment, runs: list[Run], task: int, images: Tensor, labels: Tensor) -> TaskData:
    """Draw one task for each run's seed and move it to the images' device."""
    drawn = [make_task(experiment.stream, run.seed, task, labels.numpy(), images.shape[1]) for run in runs]

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.from_numpy(getattr(t, name)) for t in drawn]).to(images.device)

    permutation = None if drawn[0].permutation is None else stacked("permutation")[:, None]
    return TaskData(images, stacked("rows"), stacked("labels"), permutation)


class Trainer:
    """What trains a group of runs: stacked nets, optimizer, and the method on top of it, if any."""

    def __init__(self, experiment: Experiment, runs: list[Run], pixels: int, device: torch.device):
        self.method = runs[0].method
        self.stack = Stack([make_net(experiment, run.method, run.seed, pixels) for run in runs], device)
        self.optimizer = self.stack.optimizer(runs)
        self.attached: baselines.Attached | None = None
        if self.method.baseline:
            self.attached = self.stack.attach(self.method, self.optimizer, [run.seed for run in runs])
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def train(self, task: TaskData, order: Tensor, progress: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Train every run on minibatches of one task.

        Args:
            order: positions of each minibatch, shape (steps, runs, batch).
            progress: steps of this task done before and in all, for the schedule; None: this call is the task.
        Returns:
            Accuracy and loss before each update, summed over the steps, shape (runs,).
        """
        done, total = progress or (0, len(order))
        correct = torch.zeros(order.shape[1], device=order.device)
        losses = torch.zeros_like(correct)
        for step, positions in enumerate(order):
            self.schedule((done + step) / total)
            hits, loss = self.update(*task.take(positions))
            correct += hits
            losses += loss
        return correct, losses

    def schedule(self, fraction: float) -> None:
        """Set the learning rate for a fraction of the task done."""
        if self.method.schedule == "cosine":
            for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * fraction)) / 2

    def update(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step of every run; accuracy and task loss before it, shape (runs,)."""
        runs, batch = y.shape
        seen: list[Tensor] | None = None if self.attached is None else []
        logits = self.stack(x, seen)
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(runs, batch)
        loss = losses.mean(1)
        self.optimizer.zero_grad()
        if self.attached is None:
            loss.sum().backward()
        else:
            self.attached.inputs, self.attached.activations = x, seen or []
            (loss + self.attached.penalty()).sum().backward()
        if self.method.clip_norm is not None:
            self.stack.clip(self.method.clip_norm)
        try:
            self.optimizer.step()
        except IsometryDivergenceError as error:  # these runs have diverged; the others go on
            self.stack.give_up(error.runs)
            self.optimizer.step()
        if self.attached is not None:
            self.attached.after_step()
        return (logits.detach().argmax(-1) == y).float().mean(1), loss.detach()


@torch.no_grad()
def evaluate(stack: Stack, task: TaskData, chunk: int = 1000) -> tuple[Tensor, Tensor]:
    """Accuracy and mean loss of every run on its whole task, shape (runs,)."""
    runs, samples = task.rows.shape
    correct = torch.zeros(runs, device=task.rows.device)
    loss = torch.zeros_like(correct)
    for start in range(0, samples, chunk):
        positions = torch.arange(start, min(start + chunk, samples), device=task.rows.device).expand(runs, -1)
        x, y = task.take(positions)
        logits = stack(x)
        correct += (logits.argmax(-1) == y).float().sum(1)
        loss += nn.functional.cross_entropy(logits.mT, y, reduction="none").sum(1)
    return correct / samples, loss / samples


Measures = dict[tuple[str, str], Tensor]  # (layer, metric) -> (runs,)


@torch.no_grad()
def weight_measures(stack: Stack) -> Measures:
    """Singular-value summaries of every weight matrix, the head included; of zeros for a run that is not finite."""
    found: Measures = {}
    for name, W in stack.weights().items():
        finite = torch.isfinite(W).flatten(1).all(1)
        sigma = spectrum(torch.where(finite[:, None, None], W, 0.0))
        for metric, value in summarise_spectrum(sigma)._asdict().items():
            found[name, f"sigma_{metric}" if metric in ("min", "max", "mean") else metric] = value
    return found


@torch.no_grad()
def activation_measures(stack: Stack, x: Tensor, dead_before: list[Tensor] | None) -> tuple[Measures, list[Tensor]]:
    """Dormant fractions of every hidden layer on inputs (runs, samples, features); for ReLU dead and reactivated too.

    Only a ReLU that never fires gets no gradient, so only there does "dead" mean that the task cannot wake it.
    """
    found: Measures = {}
    dead_now: list[Tensor] = []
    seen: list[Tensor] = []
    stack(x, seen)
    is_relu = any(isinstance(layer, nn.ReLU) for layer in stack.template)
    for layer, h in enumerate(seen):
        name = f"hidden{layer + 1}"
        for tau in TAU:
            found[name, f"dormant_{tau}"] = dormant_fraction(h, tau)
        if is_relu:
            dead_now.append(dead_units(h))
            found[name, "dead"] = dead_now[-1].float().mean(-1)
            if dead_before is not None:
                found[name, "reactivated"] = reactivated(dead_before[layer], dead_now[-1]).float().mean(-1)
    return found, dead_now


def train_group(
    experiment: Experiment, runs: list[Run], images: Tensor, labels: Tensor, bar: tqdm | None = None
) -> list[pd.DataFrame]:
    """Train a group of runs that share shape and optimizer settings through all tasks.

    Args:
        runs: methods x seeds; their methods may differ in isometry strength only.
        images: standardised, (n, pixels), on the device to train on. labels: true labels, (n,), on the CPU.
    Returns:
        One frame a run, columns task, layer, metric, value. Weight measures of task -1 are those at initialisation.
    """
    trainer = Trainer(experiment, runs, images.shape[1], images.device)
    recorded: list[tuple[int, Measures]] = [(-1, weight_measures(trainer.stack))]
    dead: list[Tensor] | None = None
    for index in range(experiment.stream.tasks):
        task = load_task(experiment, runs, index, images, labels)
        order = task_order(experiment, runs, index).to(images.device)
        if index and trainer.attached is not None:
            trainer.attached.new_task()
        found = train_measured(experiment, trainer, task, order, images)
        probe = torch.arange(experiment.probe, device=images.device).expand(len(runs), -1)
        of_activations, dead = activation_measures(trainer.stack, task.take(probe)[0], dead)
        found |= of_activations | weight_measures(trainer.stack)
        if "lens" in experiment.measures and index == experiment.stream.tasks - 1:
            found |= each_run(trainer.stack, probes.lens, task.take(probe[:, :LENS])[0])
        alive = trainer.stack.finite() & torch.isfinite(found["", "online_loss"])
        # a diverged run is neither at chance level nor "0 % dead"
        found = {key: torch.where(alive, value, torch.nan) for key, value in found.items()}
        recorded.append((index, found | {("", "diverged"): (~alive).float()}))
        if bar is not None:
            bar.update()
    return frames(recorded, len(runs))


def task_order(experiment: Experiment, runs: list[Run], index: int) -> Tensor:
    """Positions of every minibatch of a task, shape (steps, runs, batch)."""
    steps, batch = experiment.steps_per_task, experiment.batch
    orders = {s: batch_order(experiment.stream, s, index, steps, batch) for s in {run.seed for run in runs}}
    return torch.stack([torch.from_numpy(orders[run.seed]) for run in runs], 1)


def train_measured(experiment: Experiment, trainer: Trainer, task: TaskData, order: Tensor, images: Tensor) -> Measures:
    """Train one task; with measure "kernel", look at the net before, and at the loss before and after some steps."""
    steps, done = len(order), 0
    found: Measures = {}
    correct, losses = torch.zeros_like(order[0, :, 0], dtype=torch.float), torch.zeros(order.shape[1]).to(images.device)
    if "kernel" in experiment.measures:
        fixed = (
            task.images[task.rows[:, :KERNEL]]
            if task.permutation is None
            else images[:KERNEL].expand(order.shape[1], -1, -1)
        )
        found |= each_run(trainer.stack, probes.kernel, fixed)
        inputs, labels = task.take(torch.arange(experiment.probe, device=images.device).expand(order.shape[1], -1))
        found |= each_run(trainer.stack, probes.curvature, inputs, labels)
        found["", "loss_start"] = evaluate(trainer.stack, task)[1]
        for budget in [b for b in BUDGETS if b < steps]:
            some = trainer.train(task, order[done:budget], (done, steps))
            correct, losses, done = correct + some[0], losses + some[1], budget
            found["", f"loss_after_{budget}"] = evaluate(trainer.stack, task)[1]
    rest = trainer.train(task, order[done:], (done, steps))
    found["", "online_accuracy"] = (correct + rest[0]) / steps
    found["", "online_loss"] = (losses + rest[1]) / steps
    found["", "end_accuracy"], found["", "end_loss"] = evaluate(trainer.stack, task)
    return found


def each_run(stack: Stack, instrument: Callable[..., dict[tuple[str, str], float]], *arguments: Tensor) -> Measures:
    """An instrument for single nets on every run that is finite; NaN for the others."""
    finite = stack.finite().tolist()
    rows = [instrument(stack.single(r), *(a[r] for a in arguments)) if ok else {} for r, ok in enumerate(finite)]
    keys = dict.fromkeys(key for row in rows for key in row)
    device = next(iter(stack.params.values())).device
    return {key: torch.tensor([row.get(key, math.nan) for row in rows], device=device) for key in keys}


def frames(recorded: list[tuple[int, Measures]], runs: int) -> list[pd.DataFrame]:
    """Measures as one long frame a run; one transfer from the device."""
    keys = [(task, layer, metric) for task, found in recorded for layer, metric in found]
    values = torch.stack([v for _, found in recorded for v in found.values()]).T.tolist()
    base = pd.DataFrame(keys, columns=["task", "layer", "metric"])
    return [base.assign(value=values[r]) for r in range(runs)]


def grouped(runs: list[Run]) -> list[list[Run]]:
    """Runs that can be stacked: the same method but for name and isometry strength (plain Adam is strength 0)."""
    groups = defaultdict(list)
    for run in runs:
        plain = "adamo" if run.method.optimizer == "adam" else run.method.optimizer
        groups[replace(run.method, name="", label="", optimizer=plain, isometry_strength=0.0)].append(run)
    return list(groups.values())


def run(
    experiment: Experiment,
    device: str = "auto",
    folder: Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run whatever of an experiment is not stored yet, store each group as it finishes, and return all rows.

    Args:
        experiment: from `dyniso.specs.get`, possibly with other seeds or fewer methods.
        device: "auto", "cpu", "cuda", "cuda:N".
        folder: where runs are kept; default `dyniso.store.runs_folder()`.
        fresh: run everything again, stored or not.
        progress: show a bar; None shows it on a terminal only.
    Returns:
        Long form (see `dyniso.store`), all methods and seeds.
    Raises:
        ValueError: a bad device, or a stream that asks for more images than the data set has.
        DataError: the data set is not there and cannot be fetched. OSError: the folder cannot be written.
    """
    place = resolve_device(device)
    folder = store.runs_folder() if folder is None else folder
    store.require_writable(folder)
    images = data.load(experiment.stream.dataset)
    if images.classes != CLASSES:
        raise ValueError(
            f"stream.dataset={images.name!r} has {images.classes} classes; the engine's head has {CLASSES}"
        )
    make_task(experiment.stream, 0, 0, images.y, images.x[0].size)  # a stream that does not fit fails here, not later
    for method in experiment.methods:
        if method.baseline:
            baselines.make(method.baseline, **dict(method.settings))  # a bad setting fails here, not later
    todo = [Run(m, s) for m in experiment.methods for s in experiment.seeds]
    if not fresh:
        todo = [r for r in todo if not store.run_path(folder, experiment, r.method, r.seed).exists()]
    if todo:
        inputs, labels = standardise(images).to(place), torch.from_numpy(images.y)
        groups = grouped(todo)
        hidden = None if progress is None else not progress
        with tqdm(total=len(groups) * experiment.stream.tasks, unit="task", disable=hidden) as bar:
            for group in groups:
                bar.set_description(", ".join(sorted({r.method.name for r in group})))
                made_by, started = store.provenance(hardware_name(place)), time.perf_counter()
                results = train_group(experiment, group, inputs, labels, bar)
                made_by["wall_s"] = f"{time.perf_counter() - started:.1f}"
                made_by["stacked_runs"] = str(len(group))
                for r, frame in zip(group, results, strict=True):
                    store.write_run(folder, experiment, r.method, r.seed, frame, made_by)
    return store.read_runs(store.experiment_paths(folder, experiment))
