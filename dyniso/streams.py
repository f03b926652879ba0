"""Continual task sequences as pure functions of (stream, seed, task).

Any task in any order gives the same bytes: nothing is carried from task to task, and every draw has its own generator.
Tasks are indices into one array of images, so that stacked runs share the images on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .data import Images
from .specs import Stream, require_range

ROWS, LABELS, PERMUTATION, ORDER = range(4)  # one independent generator for each kind of draw


class Task(NamedTuple):
    """What one seed sees in one task, as indices into the images."""

    rows: np.ndarray  # (samples,) int64: which images
    labels: np.ndarray  # (samples,) int64: their labels in this task
    permutation: np.ndarray | None  # (pixels,) int64: the pixel that comes to each place, or None


def generator(purpose: int, seed: int, *index: int) -> np.random.Generator:
    """The generator of one draw; distinct (seed, index) of one length give independent streams."""
    return np.random.default_rng([purpose, seed, *index])


def make_task(stream: Stream, seed: int, task: int, labels: np.ndarray, pixels: int) -> Task:
    """Draw one task.

    random_labels: the same images throughout a seed, labels uniform over the ten classes and fresh each task.
    permuted_pixels: fresh images each task under a fresh permutation of all pixels (task 0 keeps the original order),
    with their true labels.

    Args:
        stream: the declared stream.
        seed: whole number, at least 0.
        task: 0 .. stream.tasks - 1.
        labels: true labels of all images, shape (n,).
        pixels: length of one flattened image, e.g. 784.
    Raises:
        ValueError: task outside the stream, or more samples asked for than there are images.
    Source: Zhang et al. 2016 (random labels); Goodfellow et al. 2013, Kumar et al. 2023 (permuted MNIST).
    """
    require_range("task", task, 0, stream.tasks - 1)
    if stream.samples > len(labels):
        raise ValueError(f"stream.samples={stream.samples}; {stream.dataset} has only {len(labels)} images")
    if stream.kind == "random_labels":
        rows = generator(ROWS, seed).permutation(len(labels))[: stream.samples]
        return Task(rows, generator(LABELS, seed, task).integers(10, size=stream.samples), None)
    rows = generator(ROWS, seed, task).permutation(len(labels))[: stream.samples]
    permutation = np.arange(pixels) if task == 0 else generator(PERMUTATION, seed, task).permutation(pixels)
    return Task(rows, labels[rows], permutation)


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


def standardise(images: Images) -> Tensor:
    """Flattened images with zero mean and unit variance over all pixels of the set: float32, shape (n, pixels).

    A unit-variance input keeps unit-variance coordinates through orthogonal layers, so no layer starts saturated.
    """
    x = torch.from_numpy(images.x).flatten(1).float()
    return (x - x.mean()) / x.std()


def task_arrays(x: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """The inputs (samples, pixels) and labels (samples,) of one task, as tensors on x's device."""
    inputs = x[torch.from_numpy(task.rows).to(x.device)]
    if task.permutation is not None:
        inputs = inputs[:, torch.from_numpy(task.permutation).to(x.device)]
    return inputs, torch.from_numpy(task.labels).to(x.device)
