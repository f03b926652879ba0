"""The tasks of stacked runs on the device that trains: what they draw from, and their minibatches.

Tasks are indices into one array of images, which stacked runs share; only the bits of slow_regression are made for each
task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import require, require_that
from .data import Images, content_of, load
from .specs import BITS, SCALES, Experiment, Stream
from .streams import FEATURES, batch_order, from_new_task, make_task


def standardise(images: Images, pool: int | None = None, scale: str | None = None) -> Tensor:
    """Flattened images, float32, shape (n, pixels).

    A unit-variance input keeps unit-variance coordinates through orthogonal layers, so no layer starts saturated.

    Args:
        pool: side of the squares of pixels that are averaged first; None leaves the size.
        scale: "standard" (also None): zero mean and unit variance over all pixels of the set; "symmetric": from the
            pixel values 0 .. 255 to -1 .. 1.
    Raises:
        ValueError: a pool that does not divide height and width, or "symmetric" for pixels that are not uint8.
    """
    require("scale", scale, (None, *SCALES))
    symmetric = scale == "symmetric"
    require_that(not symmetric or images.x.dtype == np.uint8, "stream.scale", scale, "'standard' for pixels not uint8")
    x = torch.from_numpy(images.x)
    x = x.double() if x.is_floating_point() else x.float()  # a user's own pixels may lie far from zero
    if pool:
        if x.shape[-2] % pool or x.shape[-1] % pool:
            raise ValueError(f"stream.pool={pool}; it must divide the images of {images.name}, {tuple(x.shape[-2:])}")
        x = torch.nn.functional.avg_pool2d(x, pool)
    x = x.flatten(1)
    return x / 127.5 - 1 if symmetric else ((x - x.mean()) / x.std()).float()


def inputs_of(stream: Stream, images: Images | None) -> tuple[Tensor, np.ndarray, tuple[int, ...]]:
    """What a stream draws from: inputs (n, features), true labels (n,), and the shape of one sample.

    Args:
        images: of the stream's data set; None for slow_regression, whose inputs are made for each task.
    """
    if images is None:
        assert stream.dataset == BITS
        return torch.zeros(1, FEATURES), np.zeros(1, np.int64), (FEATURES,)
    channels, height, width = images.x.shape[1:]
    pool = stream.pool or 1
    return standardise(images, stream.pool, stream.scale), images.y, (channels, height // pool, width // pool)


class Source(NamedTuple):
    """What all tasks of a stream draw from, on the device that trains."""

    inputs: Tensor  # (n, features), shared by all runs
    labels: np.ndarray  # (n,) true labels, on the host
    shape: tuple[int, ...]  # of one sample: (features,) or (channels, height, width)
    outputs: int  # of a net on this stream
    classes: int | None = None  # of the data set; None: as many as `labels` has


def load_source(stream: Stream, device: torch.device) -> Source:
    """Read what a stream needs, and check that it fits, before any training.

    Raises:
        ValueError: more images or classes asked for than the data set has, a pool that does not divide an image, or
            arrays that are not those that the stream was made for.
        DataError: the data set is not there and cannot be fetched.
    """
    images = None if stream.dataset == BITS else load(stream.dataset)
    if stream.content != content_of(stream.dataset):
        raise ValueError(
            f"{stream.dataset!r} stands for other arrays since this stream was made; make the stream again"
        )
    inputs, labels, shape = inputs_of(stream, images)
    classes = images.classes if images else 0
    make_task(stream, 0, stream.tasks - 1, labels, inputs.shape[1], classes)
    return Source(inputs.to(device), labels, shape, stream.outputs(classes), classes)


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
    pixels = source.inputs.shape[1]
    drawn = {seed: make_task(stream, seed, task, source.labels, pixels, source.classes) for seed in set(seeds)}

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
