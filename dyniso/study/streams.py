"""Continual task sequences as pure functions of (stream, seed, task).

Any task in any order gives the same bytes: nothing is carried from task to task, and every draw has its own generator.
Tasks are indices into one array of images, so that stacked runs share the images on the device; only the bits of
slow_regression are made for each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import require_range
from .data import Images, load
from .specs import BITS, Experiment, Stream

ROWS, LABELS, PERMUTATION, ORDER, CLASSES, TARGET, INPUTS, MIXTURE = range(8)  # one generator for each kind of draw
SLOW_BITS, FAST_BITS, TARGET_UNITS, BETA = 15, 5, 100, 0.7  # of slow_regression


class Task(NamedTuple):
    """What one seed sees in one task, as indices into the images."""

    rows: np.ndarray  # (samples,) int64: which images
    labels: np.ndarray  # (samples,): their labels in this task, int64; float32 targets for regression
    permutation: np.ndarray | None  # (pixels,) int64: the pixel that comes to each place, or None
    inputs: np.ndarray | None = None  # (samples, features) float32 where they are no images


def generator(purpose: int, seed: int, *index: int) -> np.random.Generator:
    """The generator of one draw; distinct (seed, index) of one length give independent streams."""
    return np.random.default_rng([purpose, seed, *index])


def make_task(stream: Stream, seed: int, task: int, labels: np.ndarray, pixels: int) -> Task:
    """Draw one task.

    random_labels: the same images throughout a seed, labels uniform over ten classes and fresh each task.
    shuffled_labels: the same images throughout a seed, their true labels dealt out among them anew each task.
    permuted_pixels: fresh images each task under a fresh permutation of all pixels (task 0 keeps the original order),
        with their true labels.
    shuffled_classes: the same images throughout a seed; each task renames the classes by a permutation (task 0 keeps
        the names).
    class_pairs: two classes a task, named 0 and 1, no class twice.
    slow_regression: bits and the output of a fixed net of threshold units on them; see `slow_bits`.

    Args:
        stream: the declared stream.
        seed: whole number, at least 0.
        task: 0 .. stream.tasks - 1.
        labels: true labels of all images, shape (n,).
        pixels: length of one flattened image, e.g. 784.
    Raises:
        ValueError: task outside the stream, or more samples or classes asked for than there are.
    Source: Zhang et al. 2016 (random labels); Goodfellow et al. 2013, Kumar et al. 2023 (permuted pixels, shuffled
        labels); Elsayed & Mahmood 2024 (shuffled classes); Dohare et al. 2024 (class pairs, slow regression).
    """
    require_range("task", task, 0, stream.tasks - 1)
    if stream.kind == "slow_regression":
        inputs = slow_bits(stream.samples, seed, task)
        return Task(np.arange(stream.samples), slow_target(inputs, seed), None, inputs)
    if stream.kind == "class_pairs":
        return pair_task(stream, seed, task, labels)
    if stream.samples > len(labels):
        raise ValueError(f"stream.samples={stream.samples}; {stream.dataset} has only {len(labels)} images")
    draw = (seed, task) if stream.kind == "permuted_pixels" else (seed,)
    rows = generator(ROWS, *draw).permutation(len(labels))[: stream.samples]
    if stream.kind == "random_labels":
        return Task(rows, generator(LABELS, seed, task).integers(10, size=stream.samples), None)
    if stream.kind == "shuffled_labels":
        return Task(rows, generator(LABELS, seed, task).permutation(labels[rows]), None)
    if stream.kind == "shuffled_classes":
        names = np.arange(labels.max() + 1)
        names = names if task == 0 else generator(CLASSES, seed, task).permutation(names)
        return Task(rows, names[labels[rows]], None)
    permutation = np.arange(pixels) if task == 0 else generator(PERMUTATION, seed, task).permutation(pixels)
    return Task(rows, labels[rows], permutation)


def pair_task(stream: Stream, seed: int, task: int, labels: np.ndarray) -> Task:
    """Images of two classes that no other task of this seed has."""
    classes = int(labels.max()) + 1
    if 2 * stream.tasks > classes:
        raise ValueError(f"stream.tasks={stream.tasks}; {stream.dataset} has {classes} classes, {classes // 2} pairs")
    pair = generator(CLASSES, seed).permutation(classes)[2 * task : 2 * task + 2]
    candidates = np.flatnonzero(np.isin(labels, pair))
    if stream.samples > len(candidates):
        raise ValueError(f"stream.samples={stream.samples}; classes {pair.tolist()} have only {len(candidates)} images")
    rows = generator(ROWS, seed, task).permutation(candidates)[: stream.samples]
    return Task(rows, (labels[rows] == pair[1]).astype(np.int64), None)


def slow_bits(samples: int, seed: int, task: int) -> np.ndarray:
    """Inputs of slow_regression, (samples, 21) float32 of 0 and 1: 15 bits fixed in a task, 5 random ones, one 1.

    Source: Dohare et al. 2024, slowly-changing regression; each task draws all slow bits anew, their code's default.
    """
    slow = generator(CLASSES, seed, task).integers(2, size=SLOW_BITS)
    fast = generator(INPUTS, seed, task).integers(2, size=(samples, FAST_BITS))
    return np.hstack([np.tile(slow, (samples, 1)), fast, np.ones((samples, 1))]).astype(np.float32)


def slow_target(inputs: np.ndarray, seed: int) -> np.ndarray:
    """Targets of slow_regression, (samples,) float32: a seed's fixed net of 100 threshold units with weights of +-1.

    A unit fires where w.x exceeds beta * inputs - (number of its weights that are -1); outputs add up with signs.
    """
    draws = generator(TARGET, seed)
    W = 2 * draws.integers(2, size=(TARGET_UNITS, inputs.shape[1])) - 1
    signs = 2 * draws.integers(2, size=TARGET_UNITS) - 1
    thresholds = BETA * inputs.shape[1] - (W < 0).sum(1)
    return ((inputs @ W.T > thresholds) @ signs).astype(np.float32)


def batch_order(stream: Stream, seed: int, task: int, steps: int, batch: int) -> np.ndarray:
    """Positions 0 .. samples-1 of each minibatch, shape (steps, batch): shuffled epochs, a short tail dropped.

    A longer request begins with a shorter one (prefix property).

    Raises:
        ValueError: steps below 1, or a batch that is not within 1 .. samples.
    """
    require_range("steps", steps, 1)
    require_range("batch", batch, 1, stream.samples)
    per_epoch = stream.samples // batch
    epochs = []
    for epoch in range(-(-steps // per_epoch)):
        shuffled = generator(ORDER, seed, task, epoch).permutation(stream.samples)
        epochs.append(shuffled[: per_epoch * batch].reshape(per_epoch, batch))
    return np.concatenate(epochs)[:steps]


def from_new_task(stream: Stream, seed: int, task: int, steps: int, batch: int) -> np.ndarray | None:
    """Which samples of each minibatch come from this task and not from the one before, (steps, batch) bool.

    With a transition of T = stream.transition * steps steps, a sample of step s (from 0) is new with probability
    (s + 1)/(T + 1), and always after T steps. None where all are new: no transition, or the first task.
    """
    span = round((stream.transition or 0) * steps)
    if not span or task == 0:
        return None
    chance = np.minimum((np.arange(steps) + 1) / (span + 1), 1.0)
    return generator(MIXTURE, seed, task).random((steps, batch)) < chance[:, None]


def standardise(images: Images, pool: int | None = None, scale: str | None = None) -> Tensor:
    """Flattened images, float32, shape (n, pixels).

    A unit-variance input keeps unit-variance coordinates through orthogonal layers, so no layer starts saturated.

    Args:
        pool: side of the squares of pixels that are averaged first; None leaves the size.
        scale: "standard" (also None): zero mean and unit variance over all pixels of the set; "symmetric": from the
            pixel values 0 .. 255 to -1 .. 1.
    Raises:
        ValueError: a pool that does not divide height and width.
    """
    x = torch.from_numpy(images.x).float()
    if pool:
        if x.shape[-2] % pool or x.shape[-1] % pool:
            raise ValueError(f"stream.pool={pool}; it must divide the images of {images.name}, {tuple(x.shape[-2:])}")
        x = torch.nn.functional.avg_pool2d(x, pool)
    x = x.flatten(1)
    return x / 127.5 - 1 if scale == "symmetric" else (x - x.mean()) / x.std()


def inputs_of(stream: Stream, images: Images | None) -> tuple[Tensor, np.ndarray, tuple[int, ...]]:
    """What a stream draws from: inputs (n, features), true labels (n,), and the shape of one sample.

    Args:
        images: of the stream's data set; None for slow_regression, whose inputs are made for each task.
    """
    if images is None:
        assert stream.dataset == BITS
        features = SLOW_BITS + FAST_BITS + 1
        return torch.zeros(1, features), np.zeros(1, np.int64), (features,)
    channels, height, width = images.x.shape[1:]
    pool = stream.pool or 1
    return standardise(images, stream.pool, stream.scale), images.y, (channels, height // pool, width // pool)


def task_arrays(x: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """The inputs (samples, pixels) and labels (samples,) of one task, as tensors on x's device."""
    labels = torch.from_numpy(task.labels).to(x.device)
    if task.inputs is not None:
        return torch.from_numpy(task.inputs).to(x.device), labels
    inputs = x[torch.from_numpy(task.rows).to(x.device)]
    if task.permutation is not None:
        inputs = inputs[:, torch.from_numpy(task.permutation).to(x.device)]
    return inputs, labels


class Source(NamedTuple):
    """What all tasks of a stream draw from, on the device that trains."""

    inputs: Tensor  # (n, features), shared by all runs
    labels: np.ndarray  # (n,) true labels, on the host
    shape: tuple[int, ...]  # of one sample: (features,) or (channels, height, width)
    outputs: int  # of a net on this stream


def load_source(stream: Stream, device: torch.device) -> Source:
    """Read what a stream needs, and check that it fits, before any training.

    Raises:
        ValueError: more images or classes asked for than the data set has, or a pool that does not divide an image.
        DataError: the data set is not there and cannot be fetched.
    """
    images = None if stream.dataset == BITS else load(stream.dataset)
    inputs, labels, shape = inputs_of(stream, images)
    make_task(stream, 0, stream.tasks - 1, labels, inputs.shape[1])
    return Source(inputs.to(device), labels, shape, stream.outputs(images.classes if images else 0))


class TaskData(NamedTuple):
    """One task of every run of a group, on the device."""

    images: Tensor  # (n, features) shared, or (runs, samples, features) of each run's own
    rows: Tensor  # (runs, samples)
    labels: Tensor  # (runs, samples)
    permutation: Tensor | None  # (runs, 1, features)
    before: TaskData | None = None  # the task that fades out
    fresh: Tensor | None = None  # (steps, runs, batch), bool: which samples of a minibatch are of this task

    def take(self, positions: Tensor, step: int | None = None) -> tuple[Tensor, Tensor]:
        """Inputs (runs, batch, features) and labels (runs, batch) at positions (runs, batch).

        Given a step, samples that are not yet of this task come from the same positions of the one before.
        """
        if self.images.ndim == 3:
            x = self.images.gather(1, positions[..., None].expand(-1, -1, self.images.shape[-1]))
        else:
            x = self.images[self.rows.gather(1, positions)]
        if self.permutation is not None:
            x = x.gather(2, self.permutation.expand_as(x))
        y = self.labels.gather(1, positions)
        if step is None or self.fresh is None or self.before is None:
            return x, y
        old_x, old_y = self.before.take(positions)
        return torch.where(self.fresh[step][..., None], x, old_x), torch.where(self.fresh[step], y, old_y)


def load_task(experiment: Experiment, seeds: Sequence[int], task: int, source: Source) -> TaskData:
    """Draw one task for each run's seed and move it to the source's device."""
    stream, device = experiment.stream, source.inputs.device
    drawn = {seed: make_task(stream, seed, task, source.labels, source.inputs.shape[1]) for seed in set(seeds)}

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.from_numpy(getattr(drawn[seed], name)) for seed in seeds]).to(device)

    first = drawn[seeds[0]]
    images = source.inputs if first.inputs is None else stacked("inputs")
    permutation = None if first.permutation is None else stacked("permutation")[:, None]
    now = TaskData(images, stacked("rows"), stacked("labels"), permutation)
    size = experiment.steps_per_task, experiment.batch
    masks = [from_new_task(stream, seed, task, *size) for seed in seeds]
    if masks[0] is None:
        return now
    fresh = torch.stack([torch.from_numpy(mask) for mask in masks], 1).to(device)
    before = load_task(replace(experiment, stream=replace(stream, transition=None)), seeds, task - 1, source)
    return now._replace(before=before, fresh=fresh)


def task_order(experiment: Experiment, seeds: Sequence[int], task: int) -> Tensor:
    """Positions of every minibatch of a task, shape (steps, runs, batch)."""
    steps, batch = experiment.steps_per_task, experiment.batch
    orders = {seed: batch_order(experiment.stream, seed, task, steps, batch) for seed in set(seeds)}
    return torch.stack([torch.from_numpy(orders[seed]) for seed in seeds], 1)
