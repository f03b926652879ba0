"""Contracts of dyniso.streams: tasks are pure functions of (stream, seed, task), on every machine."""

import hashlib

import numpy as np
import pytest
import torch

from dyniso import data
from dyniso.specs import Stream
from dyniso.streams import batch_order, make_task, standardise, task_arrays

KINDS = ("random_labels", "permuted_pixels")
both_kinds = pytest.mark.parametrize("kind", KINDS)
LABELS = np.arange(1000) % 7  # true labels of pretended images; 7 classes, so random ones over 10 cannot be theirs
PIXELS = 784


def stream(kind: str, samples: int = 600, tasks: int = 5) -> Stream:
    return Stream(kind, "mnist-small", samples=samples, tasks=tasks)


def drawn(kind: str, seed: int = 0, task: int = 0) -> bytes:
    return b"".join(part.tobytes() for part in make_task(stream(kind), seed, task, LABELS, PIXELS) if part is not None)


@both_kinds
def test_tasks_in_any_order_are_the_same_bytes(kind):
    forwards = [drawn(kind, 3, t) for t in range(5)]
    assert [drawn(kind, 3, t) for t in reversed(range(5))] == forwards[::-1]


@both_kinds
def test_every_seed_and_task_has_its_own_draw(kind):
    assert len({drawn(kind, seed, task) for seed in range(4) for task in range(5)}) == 20


@both_kinds
def test_no_draw_touches_the_global_generators(kind):
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    drawn(kind)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


# A change means that every stored result came from other tasks.
GOLDEN = {"random_labels": "19daf7e42f294152", "permuted_pixels": "db67f25d63321ca1"}


@both_kinds
def test_task_has_the_golden_bytes(kind):
    assert hashlib.sha256(drawn(kind, seed=1, task=2)).hexdigest()[:16] == GOLDEN[kind]


def test_batch_order_has_the_golden_values():
    assert batch_order(stream(KINDS[0]), 1, 2, 3, 4).tolist() == [
        [570, 18, 91, 466],
        [476, 177, 386, 42],
        [268, 13, 192, 48],
    ]


@both_kinds
def test_images_of_a_task_are_distinct_and_in_range(kind):
    rows = make_task(stream(kind), 0, 1, LABELS, PIXELS).rows
    assert len(np.unique(rows)) == 600
    assert rows.min() >= 0
    assert rows.max() < len(LABELS)


def test_random_labels_keep_the_images_of_a_seed_and_redraw_the_labels():
    first, second = (make_task(stream("random_labels"), 0, t, LABELS, PIXELS) for t in (0, 1))
    assert (first.rows == second.rows).all()
    assert (first.labels == second.labels).mean() < 0.2  # chance 0.1, standard error 0.012


def test_random_labels_are_uniform_and_independent_of_the_images():
    tasks = [make_task(stream("random_labels", tasks=50), 0, t, LABELS, PIXELS) for t in range(50)]
    table = np.zeros((10, 7))
    for task in tasks:
        np.add.at(table, (task.labels, LABELS[task.rows]), 1)
    expected = np.full(10, 0.1)[:, None] * table.sum(0)
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert 25 < chi2 < 120  # 63 degrees of freedom: mean 63, standard deviation 11.2


def test_permuted_pixels_have_true_labels():
    task = make_task(stream("permuted_pixels"), 0, 3, LABELS, PIXELS)
    assert (task.labels == LABELS[task.rows]).all()


def test_first_permutation_is_the_identity_and_later_ones_are_other_bijections():
    first, *later = (make_task(stream("permuted_pixels"), 0, t, LABELS, PIXELS).permutation for t in range(5))
    assert (first == np.arange(PIXELS)).all()
    for permutation in later:
        assert (np.sort(permutation) == np.arange(PIXELS)).all()
        assert (permutation == np.arange(PIXELS)).mean() < 0.02  # one fixed point is expected


def test_undoing_the_permutation_gives_the_original_pixels():
    x = torch.arange(1000 * PIXELS, dtype=torch.float32).view(1000, PIXELS)
    task = make_task(stream("permuted_pixels"), 0, 3, LABELS, PIXELS)
    inputs, labels = task_arrays(x, task)
    assert not torch.equal(inputs, x[task.rows])
    assert torch.equal(inputs[:, np.argsort(task.permutation)], x[task.rows])
    assert labels.tolist() == task.labels.tolist()


def test_random_label_inputs_are_the_chosen_images():
    x = torch.arange(2000.0).view(1000, 2)
    task = make_task(stream("random_labels"), 0, 3, LABELS, 2)
    assert torch.equal(task_arrays(x, task)[0], x[task.rows])


@pytest.mark.parametrize(
    ("samples", "task", "message"),
    [
        (1001, 0, "stream.samples=1001; mnist-small has only 1000 images"),
        (600, 5, "task=5; it must be a whole number from 0 to 4"),
        (600, -1, "task=-1"),
    ],
)
def test_task_that_cannot_be_drawn_is_an_error(samples, task, message):
    with pytest.raises(ValueError, match=message):
        make_task(stream("random_labels", samples), 0, task, LABELS, PIXELS)


def test_longer_batch_order_begins_with_the_shorter_one():
    long = batch_order(stream(KINDS[0]), 0, 1, 40, 64)
    for steps in (1, 8, 9, 10, 27):
        assert (batch_order(stream(KINDS[0]), 0, 1, steps, 64) == long[:steps]).all()


def test_batches_of_one_epoch_are_disjoint_and_in_range():
    order = batch_order(stream(KINDS[0]), 0, 1, 20, 64)  # 9 batches of 64 an epoch, 24 images left out
    assert order.shape == (20, 64)
    assert order.min() >= 0
    assert order.max() < 600
    assert [len(np.unique(epoch)) for epoch in (order[:9], order[9:18], order[18:])] == [576, 576, 128]


def test_epochs_seeds_and_tasks_have_their_own_order():
    orders = [batch_order(stream(KINDS[0]), seed, task, 2, 600) for seed in (0, 1) for task in (0, 1)]
    assert len({epoch.tobytes() for order in orders for epoch in order}) == 8


@pytest.mark.parametrize(("steps", "batch", "named"), [(3, 601, "batch=601"), (3, 0, "batch=0"), (0, 8, "steps=0")])
def test_batches_that_cannot_be_drawn_are_an_error(steps, batch, named):
    with pytest.raises(ValueError, match=named):
        batch_order(stream(KINDS[0]), 0, 0, steps, batch)


def test_standardised_images_have_mean_zero_and_variance_one():
    images = data.load("mnist-small")
    x = standardise(images)
    assert x.shape == (len(images), 784)
    assert x.dtype == torch.float32
    assert abs(float(x.double().mean())) < 1e-4
    assert float(x.double().std()) == pytest.approx(1, abs=1e-4)
