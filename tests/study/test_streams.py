"""Contracts of dyniso.study.streams: tasks are pure functions of (stream, seed, task), on every machine."""

import hashlib

import numpy as np
import pytest
import torch

from dyniso.study import streams
from dyniso.study.specs import BITS, STREAM_KINDS, Stream
from dyniso.study.streams import (
    LABELS_DRAWN,
    Task,
    batch_order,
    from_new_task,
    linear_errors,
    make_task,
    slow_bits,
    slow_target,
)

KINDS = tuple(STREAM_KINDS)
IMAGE_KINDS = [kind for kind in KINDS if kind != "slow_regression"]
every_kind = pytest.mark.parametrize("kind", KINDS)
LABELS = np.arange(1000) % 7  # true labels of pretended images; 7 classes, so random ones over 10 cannot be theirs
CLASSES = 10  # over which random labels are drawn
PAIR_LABELS = np.arange(6600) % 22  # enough classes for 11 pairs
PIXELS = 784


def stream(kind: str, samples: int = 600, tasks: int = 5) -> Stream:
    dataset = BITS if kind == "slow_regression" else "mnist-small"
    return Stream(kind, dataset, samples=samples, tasks=tasks, classes=CLASSES if kind in LABELS_DRAWN else None)


def draw(kind: str, seed: int = 0, task: int = 0):
    return make_task(stream(kind), seed, task, PAIR_LABELS if kind == "class_pairs" else LABELS, PIXELS)


def drawn(kind: str, seed: int = 0, task: int = 0) -> bytes:
    return b"".join(part.tobytes() for part in draw(kind, seed, task) if part is not None)


@every_kind
def test_tasks_in_any_order_are_the_same_bytes(kind):
    forwards = [drawn(kind, 3, t) for t in range(5)]
    assert [drawn(kind, 3, t) for t in reversed(range(5))] == forwards[::-1]


@every_kind
def test_every_seed_and_task_has_its_own_draw(kind):
    assert len({drawn(kind, seed, task) for seed in range(4) for task in range(5)}) == 20


@every_kind
def test_no_draw_touches_the_global_generators(kind):
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    drawn(kind)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


# A change means that every stored result came from other tasks.
GOLDEN = {
    "random_labels": "19daf7e42f294152",
    "drifting_labels": "e9cfeee59db3869c",
    "permuted_pixels": "db67f25d63321ca1",
    "shuffled_labels": "0fdeeb6ba9dc8578",
    "shuffled_classes": "4781cc9478d9939c",
    "class_pairs": "c22a83cb4bc7d838",
    "slow_regression": "33b9412b2edaba7f",
}


@every_kind
def test_task_has_the_golden_bytes(kind):
    assert hashlib.sha256(drawn(kind, seed=1, task=2)).hexdigest()[:16] == GOLDEN[kind]


def test_batch_order_has_the_golden_values():
    assert batch_order(stream(KINDS[0]), 1, 2, 3, 4).tolist() == [
        [570, 18, 91, 466],
        [476, 177, 386, 42],
        [268, 13, 192, 48],
    ]


def test_every_kind_that_a_spec_may_name_has_a_function_and_no_other():
    assert set(streams.KINDS) == set(STREAM_KINDS)


def test_kind_without_a_function_is_an_error_and_not_permuted_pixels():
    undrawn = stream("random_labels")
    object.__setattr__(undrawn, "kind", "permuted_pixel")
    with pytest.raises(ValueError, match=r"stream\.kind='permuted_pixel'.*did you mean 'permuted_pixels'"):
        make_task(undrawn, 0, 0, LABELS, PIXELS)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_images_of_a_task_are_distinct_and_in_range(kind):
    rows = draw(kind, 0, 1).rows
    assert len(np.unique(rows)) == 600
    assert rows.min() >= 0
    assert rows.max() < len(PAIR_LABELS if kind == "class_pairs" else LABELS)


def test_random_labels_keep_the_images_of_a_seed_and_redraw_the_labels():
    first, second = (make_task(stream("random_labels"), 0, t, LABELS, PIXELS) for t in (0, 1))
    assert (first.rows == second.rows).all()
    assert (first.labels == second.labels).mean() < 0.2  # chance 0.1, standard error 0.012


@pytest.mark.parametrize("kind", LABELS_DRAWN)
@pytest.mark.parametrize(("said", "of_the_set", "drawn"), [(None, None, 7), (None, 9, 9), (3, 9, 3), (50, None, 50)])
def test_labels_are_drawn_from_as_many_classes_as_the_stream_says_or_the_data_set_has(kind, said, of_the_set, drawn):
    task = make_task(Stream(kind, samples=600, tasks=5, classes=said), 0, 1, LABELS, PIXELS, of_the_set)
    assert (task.labels.min(), task.labels.max()) == (0, drawn - 1)


def test_classes_of_kinds_that_have_the_true_labels_cannot_be_chosen():
    with pytest.raises(ValueError, match=r"'permuted_pixels'; allowed are 'random_labels', 'drifting_labels'"):
        Stream("permuted_pixels", classes=5)


def test_pairs_of_which_the_rarest_is_too_small_are_refused_whatever_the_seed():
    labels = np.repeat(np.arange(6), [100, 100, 100, 100, 20, 30])
    for seed in range(5):
        with pytest.raises(ValueError, match=r"stream\.samples=60; classes \[4, 5\] have only 50 images"):
            make_task(stream("class_pairs", 60, 2), seed, 0, labels, PIXELS)


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


# --------------------------------------------------------------------------------------------- the other streams


def test_shuffled_labels_keep_the_images_and_the_histogram_of_labels():
    first, second = draw("shuffled_labels", 0, 0), draw("shuffled_labels", 0, 1)
    assert (first.rows == second.rows).all()
    assert (np.bincount(first.labels) == np.bincount(second.labels)).all()
    assert (np.bincount(first.labels) == np.bincount(LABELS[first.rows])).all()
    assert (first.labels != second.labels).mean() > 0.7  # chance 6/7


def test_shuffled_classes_rename_the_true_classes_by_a_bijection():
    for task in range(4):
        found = draw("shuffled_classes", 0, task)
        pairs = set(zip(LABELS[found.rows].tolist(), found.labels.tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 7
        assert (task == 0) == all(a == b for a, b in pairs)


def test_class_pairs_of_a_seed_share_no_class_and_have_labels_zero_and_one():
    seen: list[int] = []
    for task in range(5):
        found = draw("class_pairs", 3, task)
        classes = sorted(set(PAIR_LABELS[found.rows].tolist()))
        assert len(classes) == 2
        assert len(set(zip(PAIR_LABELS[found.rows].tolist(), found.labels.tolist(), strict=True))) == 2
        assert set(found.labels.tolist()) == {0, 1}
        seen += classes
    assert len(set(seen)) == 10


@pytest.mark.parametrize(
    ("samples", "tasks", "message"), [(600, 12, r"stream\.tasks=12;.*11 pairs"), (601, 5, "have only 600 images")]
)
def test_class_pairs_that_do_not_fit_are_an_error(samples, tasks, message):
    with pytest.raises(ValueError, match=message):
        make_task(stream("class_pairs", samples, tasks), 0, 0, PAIR_LABELS, PIXELS)


def test_slow_bits_are_constant_in_a_task_fast_ones_are_fair_and_the_last_is_one():
    first, second = (slow_bits(2000, 0, task) for task in (0, 1))
    assert (first[:, :15] == first[0, :15]).all()
    assert (first[0, :15] != second[0, :15]).any()
    assert np.abs(first[:, 15:20].mean(0) - 0.5).max() < 0.06  # five standard errors
    assert (first[:, 20] == 1).all()


def test_slow_target_is_the_sum_of_threshold_units_spelled_out():
    inputs = slow_bits(50, 1, 0)
    draws = np.random.default_rng([5, 1])
    W = 2 * draws.integers(2, size=(100, 21)) - 1
    signs = 2 * draws.integers(2, size=100) - 1
    for x, y in zip(inputs, slow_target(inputs, 1), strict=True):
        fired = [float(w @ x) > 0.7 * 21 - (w < 0).sum() for w in W]
        assert y == sum(s for s, on in zip(signs, fired, strict=True) if on)


def test_slow_target_is_the_same_function_in_every_task_of_a_seed():
    same = slow_bits(10, 0, 0)
    assert (slow_target(same, 0) == slow_target(same, 0)).all()
    assert (slow_target(same, 0) != slow_target(same, 1)).any()


# --------------------------------------------------------------------------------------------------- transition


def test_transition_fades_the_task_before_out_and_then_is_over():
    fading = Stream(samples=600, tasks=5, transition=0.5)
    fresh = from_new_task(fading, 0, 1, 400, 32)
    assert fresh.shape == (400, 32)
    assert fresh[200:].all()
    shares = fresh[:200].reshape(4, -1).mean(1)
    np.testing.assert_allclose(shares, [0.125, 0.375, 0.625, 0.875], atol=0.05)


@pytest.mark.parametrize(("transition", "task"), [(None, 3), (0.0, 3), (1.0, 0)])
def test_nothing_is_mixed_without_a_transition_or_in_the_first_task(transition, task):
    assert from_new_task(Stream(samples=600, tasks=5, transition=transition), 0, task, 10, 4) is None


def test_drifting_labels_change_a_tenth_from_task_to_task_and_all_but_chance_in_the_long_run():
    long = Stream("drifting_labels", samples=1000, tasks=100, classes=10)
    tasks = [make_task(long, 0, k, LABELS, PIXELS) for k in (0, 1, 2, 99)]
    kept = [float(np.mean(tasks[0].labels == t.labels)) for t in tasks[1:]]
    assert kept == pytest.approx([0.91, 0.829, 0.1], abs=0.035)  # .9 kept, and a tenth of the others by chance
    assert all(np.array_equal(tasks[0].rows, t.rows) for t in tasks)


def test_linear_error_is_zero_where_the_targets_are_linear(monkeypatch):
    stream = Stream("slow_regression", BITS, samples=64, tasks=2)

    def linear_task(stream, seed, task, labels, pixels):
        x = np.random.default_rng(seed).normal(size=(stream.samples, 5)).astype(np.float32)
        return Task(np.arange(stream.samples), (x @ np.arange(5)).astype(np.float32), None, x)

    monkeypatch.setattr(streams, "make_task", linear_task)
    assert linear_errors(stream, [0, 1]).max() < 1e-9


def test_linear_error_of_slow_regression_is_below_the_variance_of_the_targets():
    stream = Stream("slow_regression", BITS, samples=500, tasks=2)
    variance = make_task(stream, 0, 1, np.empty(0), 0).labels.var()
    assert 0.01 * variance < linear_errors(stream, [0])[0, 1] < variance


def test_linear_error_of_a_classification_is_refused():
    with pytest.raises(ValueError, match="'random_labels'"):
        linear_errors(Stream(), [0])


def test_every_seed_and_task_mixes_other_samples():
    fading = Stream(samples=600, tasks=5, transition=1.0)
    masks = [from_new_task(fading, seed, task, 20, 32).tobytes() for seed in (0, 1) for task in (1, 2)]
    assert len(set(masks)) == 4


def test_first_step_of_a_transition_has_samples_of_the_new_task_and_the_last_some_of_the_old():
    fading = Stream(samples=20_000, tasks=2, transition=0.5)
    shares = from_new_task(fading, 0, 1, 8, 20_000).mean(1)
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1], atol=0.02)  # standard error 0.0035
