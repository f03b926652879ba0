"""Continual task sequences as pure functions of (stream, seed, task): which samples, which labels, in which order.

Any task in any order gives the same bytes: nothing is carried from task to task, and every draw has its own generator.
A kind of stream is one function in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..checks import require, require_range
from .specs import Stream

ROWS, LABELS, PERMUTATION, ORDER, CLASSES, TARGET, INPUTS, MIXTURE = range(8)  # one generator for each kind of draw
SLOW_BITS, FAST_BITS, TARGET_UNITS, BETA = 15, 5, 100, 0.7  # of slow_regression
DRIFT = 0.1  # share of the samples that get a new label in each task of drifting_labels
FEATURES = SLOW_BITS + FAST_BITS + 1  # of slow_regression: one bit is always on


class Task(NamedTuple):
    """What one seed sees in one task, as indices into the images."""

    rows: np.ndarray  # (samples,) int64: which images
    labels: np.ndarray  # (samples,): their labels in this task, int64; float32 targets for regression
    permutation: np.ndarray | None  # (pixels,) int64: the pixel that comes to each place, or None
    inputs: np.ndarray | None = None  # (samples, features) float32 where they are no images


def generator(purpose: int, seed: int, *index: int) -> np.random.Generator:
    """The generator of one draw; distinct (seed, index) of one length give independent streams."""
    return np.random.default_rng([purpose, seed, *index])


class Data(NamedTuple):
    """What the tasks of a stream are drawn from."""

    labels: np.ndarray  # (n,): true labels of all images, int64, or float32 targets
    pixels: int  # length of one flattened image
    classes: int  # of the data set, also where `labels` lacks one


def make_task(
    stream: Stream, seed: int, task: int, labels: np.ndarray, pixels: int, classes: int | None = None
) -> Task:
    """Draw one task of a stream; what each kind is stands at its function in `KINDS`.

    Args:
        stream: the declared stream.
        seed: whole number, at least 0.
        task: 0 .. stream.tasks - 1.
        labels: true labels of all images, shape (n,).
        pixels: length of one flattened image, e.g. 784.
        classes: of the data set; None is the largest label and one.
    Raises:
        ValueError: a kind that is not in `KINDS`, a task outside the stream, or more samples or classes asked for than
            there are.
    """
    require("stream.kind", stream.kind, KINDS)
    require_range("task", task, 0, stream.tasks - 1)
    if classes is None:
        classes = int(np.max(labels, initial=-1)) + 1
    return KINDS[stream.kind](stream, seed, task, Data(labels, pixels, classes))


def images_of(stream: Stream, labels: np.ndarray, *draw: int) -> np.ndarray:
    """Which images a task shows, (samples,): one draw of them for each seed, or for each (seed, task)."""
    if stream.samples > len(labels):
        raise ValueError(f"stream.samples={stream.samples}; {stream.dataset} has only {len(labels)} images")
    return generator(ROWS, *draw).permutation(len(labels))[: stream.samples]


def drawn_classes(stream: Stream, data: Data) -> int:
    """How many classes labels are drawn from: what the stream says, or as many as the data set has."""
    return stream.classes or data.classes


def random_labels(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """The same images throughout a seed, labels uniform over all classes and fresh each task.

    Source: Zhang et al. 2016.
    """
    rows = images_of(stream, data.labels, seed)
    return Task(rows, generator(LABELS, seed, task).integers(drawn_classes(stream, data), size=stream.samples), None)


def drifting_labels(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """The same images throughout a seed; from task to task a share `DRIFT` of them, drawn anew, gets a new label.

    Between two tasks little changes and over many everything does: random_labels without sharp boundaries. The label
    that is drawn may be the one that was there. Source: ours.
    """
    rows = images_of(stream, data.labels, seed)
    classes = drawn_classes(stream, data)
    now = generator(LABELS, seed, 0).integers(classes, size=stream.samples)
    for step in range(1, task + 1):
        draw = generator(LABELS, seed, step)
        changed = draw.random(stream.samples) < DRIFT
        now = np.where(changed, draw.integers(classes, size=stream.samples), now)
    return Task(rows, now, None)


def shuffled_labels(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """The same images throughout a seed, their true labels dealt out among them anew each task.

    Source: Kumar et al. 2023.
    """
    rows = images_of(stream, data.labels, seed)
    return Task(rows, generator(LABELS, seed, task).permutation(data.labels[rows]), None)


def permuted_pixels(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """Fresh images each task under a fresh permutation of all pixels, with their true labels.

    Task 0 keeps the original order. Source: Goodfellow et al. 2013, Kumar et al. 2023.
    """
    rows = images_of(stream, data.labels, seed, task)
    permutation = np.arange(data.pixels) if task == 0 else generator(PERMUTATION, seed, task).permutation(data.pixels)
    return Task(rows, data.labels[rows], permutation)


def shuffled_classes(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """The same images throughout a seed; each task renames the classes by a permutation, task 0 keeps the names.

    Source: Elsayed & Mahmood 2024.
    """
    rows = images_of(stream, data.labels, seed)
    names = np.arange(data.classes)
    names = names if task == 0 else generator(CLASSES, seed, task).permutation(names)
    return Task(rows, names[data.labels[rows]], None)


def class_pairs(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """Images of two classes that no other task of this seed has, named 0 and 1.

    Source: Dohare et al. 2024.
    """
    classes = data.classes
    if 2 * stream.tasks > classes:
        raise ValueError(f"stream.tasks={stream.tasks}; {stream.dataset} has {classes} classes, {classes // 2} pairs")
    counts = np.bincount(data.labels, minlength=classes)
    rarest = np.argsort(counts, kind="stable")[:2]  # of any pair, so that no seed fails after training has begun
    if stream.samples > counts[rarest].sum():
        only = f"classes {rarest.tolist()} have only {counts[rarest].sum()} images"
        raise ValueError(f"stream.samples={stream.samples}; {only}")
    pair = generator(CLASSES, seed).permutation(classes)[2 * task : 2 * task + 2]
    candidates = np.flatnonzero(np.isin(data.labels, pair))
    rows = generator(ROWS, seed, task).permutation(candidates)[: stream.samples]
    return Task(rows, (data.labels[rows] == pair[1]).astype(np.int64), None)


def slow_regression(stream: Stream, seed: int, task: int, data: Data) -> Task:
    """Bits, most of them fixed within a task, and the output of a fixed net of threshold units on them.

    Source: Dohare et al. 2024; see `slow_bits` and `slow_target`.
    """
    inputs = slow_bits(stream.samples, seed, task)
    return Task(np.arange(stream.samples), slow_target(inputs, seed), None, inputs)


# Every kind that a spec may name; the allowed names are read from the keys, so they stand as literals.
KINDS: dict[str, Callable[[Stream, int, int, Data], Task]] = {
    "random_labels": random_labels,
    "drifting_labels": drifting_labels,
    "shuffled_labels": shuffled_labels,
    "permuted_pixels": permuted_pixels,
    "shuffled_classes": shuffled_classes,
    "class_pairs": class_pairs,
    "slow_regression": slow_regression,
}
OUTPUTS = {"class_pairs": 2, "slow_regression": 1}  # of a net; the other kinds: one a class
LABELS_DRAWN = ("random_labels", "drifting_labels")  # from as many classes as the stream says, or the data set has
REAL_TARGETS = ("shuffled_labels", "permuted_pixels")  # only move true labels about: real numbers do as well


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


def linear_errors(stream: Stream, seeds: Sequence[int]) -> np.ndarray:
    """Mean squared error of the linear least-squares fit of every task of a regression, without intercept.

    Some tasks are harder than others for every learner; this says by how much.

    Returns:
        Shape (seeds, tasks), in the unit of the squared targets.
    Raises:
        ValueError: the stream is no regression.
    """
    if not stream.is_regression:
        raise ValueError(f"stream.kind={stream.kind!r}; a linear fit needs 'slow_regression'")

    def error(seed: int, task: int) -> float:
        drawn = make_task(stream, seed, task, np.empty(0), 0)
        assert drawn.inputs is not None
        x, y = drawn.inputs.astype(float), drawn.labels.astype(float)
        return float(np.mean((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2))

    return np.array([[error(seed, task) for task in range(stream.tasks)] for seed in seeds])
