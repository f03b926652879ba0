"""Contracts of dyniso.study.tasks: what stacked runs see of their tasks on the device."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyniso.study import data
from dyniso.study.specs import Stream, get
from dyniso.study.streams import Task, make_task
from dyniso.study.tasks import Source, load_source, load_task, standardise, task_order

CPU = torch.device("cpu")
LABELS = np.arange(1000) % 7  # true labels of pretended images
PIXELS = 784


def stream(kind: str) -> Stream:
    return Stream(kind, samples=600, tasks=5)


def whole_task(kind: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Task]:
    """Inputs and labels of all samples of task 3 of seed 0, as a run is given them, and the task that they are of."""
    experiment = replace(get("random_labels"), stream=stream(kind))
    loaded = load_task(experiment, [0], 3, Source(x, LABELS, x.shape[1:], 10))
    (inputs,), (labels,) = loaded.take(torch.arange(600)[None])
    return inputs, labels, make_task(stream(kind), 0, 3, LABELS, x.shape[1])


def test_undoing_the_permutation_gives_the_original_pixels():
    x = torch.arange(1000 * PIXELS, dtype=torch.float32).view(1000, PIXELS)
    inputs, labels, task = whole_task("permuted_pixels", x)
    assert not torch.equal(inputs, x[task.rows])
    assert torch.equal(inputs[:, np.argsort(task.permutation)], x[task.rows])
    assert labels.tolist() == task.labels.tolist()


def test_random_label_inputs_are_the_chosen_images():
    x = torch.arange(2000.0).view(1000, 2)
    inputs, labels, task = whole_task("random_labels", x)
    assert torch.equal(inputs, x[task.rows])
    assert labels.tolist() == task.labels.tolist()


def test_standardised_images_have_mean_zero_and_variance_one():
    images = data.load("mnist-small")
    x = standardise(images)
    assert x.shape == (len(images), 784)
    assert x.dtype == torch.float32
    assert abs(float(x.double().mean())) < 1e-4
    assert float(x.double().std()) == pytest.approx(1, abs=1e-4)


def test_pooled_images_are_means_of_squares_and_a_pool_that_does_not_divide_is_an_error():
    images = data.load("mnist-small")
    x = standardise(images, pool=2, scale="symmetric").view(-1, 14, 14)
    pixels = torch.from_numpy(images.x[:, 0]).float()
    torch.testing.assert_close(x[:, 3, 5], pixels[:, 6:8, 10:12].mean((1, 2)) / 127.5 - 1)
    with pytest.raises(ValueError, match=r"stream\.pool=3; it must divide"):
        standardise(images, pool=3)


def test_symmetric_scale_maps_black_to_minus_one_and_white_to_one():
    x = standardise(data.load("mnist-small"), scale="symmetric")
    assert (x.min(), x.max()) == (-1, 1)


def test_unknown_scale_is_an_error_and_not_the_standard_one():
    with pytest.raises(ValueError, match=r"scale='symetric'.*did you mean 'symmetric'"):
        standardise(data.load("mnist-small"), scale="symetric")


@pytest.mark.parametrize("kind", ["random_labels", "permuted_pixels"])
def test_mixed_minibatch_takes_each_sample_whole_from_one_of_the_two_tasks(kind):
    fading = Stream(kind, samples=64, tasks=3, transition=1.0)
    experiment = replace(get("random_labels"), stream=fading, steps_per_task=20, batch=16, probe=32)
    source = load_source(fading, CPU)
    now, before = (load_task(experiment, [0, 1], task, source) for task in (2, 1))
    position = task_order(experiment, [0, 1], 2)[7]
    (x, y), new, old = now.take(position, 7), now.take(position), before.take(position)
    mask = now.fresh[7]
    assert mask.any()
    assert not mask.all()
    assert torch.equal(x[mask], new[0][mask])
    assert torch.equal(x[~mask], old[0][~mask])
    assert torch.equal(y[mask], new[1][mask])
    assert torch.equal(y[~mask], old[1][~mask])
