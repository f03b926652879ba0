"""A user's own arrays as a data set: every kind of stream draws from them, and what cannot be right is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyniso.report.results import Results
from dyniso.study import data, runner, store
from dyniso.study.specs import OWN, STREAM_KINDS, Net, Stream, digest, get
from dyniso.study.streams import REAL_TARGETS
from dyniso.study.tasks import load_source

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 1, 4, 4)) + 50
Y = np.arange(120) % 6
REAL = RNG.normal(size=120)


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """What a test registers is forgotten after it, and it sees nothing of what others registered."""
    monkeypatch.setattr(data, "_OWN", {})
    before = dict(OWN)
    OWN.clear()
    yield
    OWN.clear()
    OWN.update(before)


def experiment(kind: str, dataset: str = "mine", **changes):
    registered, tasks = get("random_labels"), 1 if kind == "class_pairs" else 2
    small = dict(net=Net(width=8, depth=2), steps_per_task=4, batch=8, probe=16, seeds=(0,))
    small["stream"] = Stream(kind, dataset, samples=32, tasks=tasks, **changes)
    return replace(registered, name="own", methods=(registered.method("adam"),), **small)


def values(rows, metric):
    return rows[rows["metric"] == metric]["value"]


@pytest.mark.parametrize("kind", [kind for kind in STREAM_KINDS if kind != "slow_regression"])
def test_runner_trains_every_kind_on_own_labels(kind, tmp_path):
    data.register("mine", X, Y)
    e = experiment(kind)
    rows = runner.run(e, "cpu", tmp_path, progress=False)
    assert values(rows, "online_accuracy").between(0, 1).all()
    assert Results(e, rows).chance == (1 / 2 if kind == "class_pairs" else 1 / 6)


@pytest.mark.parametrize("kind", REAL_TARGETS)
def test_runner_trains_own_real_targets_as_a_regression(kind, tmp_path):
    data.register("mine", X, REAL)
    e = experiment(kind)
    rows = runner.run(e, "cpu", tmp_path, progress=False)
    assert (e.score, load_source(e.stream, CPU).outputs) == ("online_loss", 1)
    assert np.isfinite(values(rows, "online_loss")).all()
    assert not len(values(rows, "online_accuracy"))


def test_random_labels_of_own_images_have_as_many_classes_as_the_stream_says(tmp_path):
    data.register("mine", X, REAL)
    e = experiment("random_labels", classes=25)
    assert load_source(e.stream, CPU).outputs == 25
    assert len(values(runner.run(e, "cpu", tmp_path, progress=False), "online_accuracy")) == 2


def test_convolutional_net_trains_on_own_images(tmp_path):
    data.register("mine", torch.rand(120, 3, 4, 4), torch.from_numpy(Y))
    e = replace(experiment("permuted_pixels"), net=Net(width=8, depth=1, channels=(4,)))
    assert len(runner.run(e, "cpu", tmp_path, progress=False))


def test_other_arrays_of_the_same_name_reuse_no_run(tmp_path):
    other, paths = X.copy(), []
    other[0, 0, 0, 0] += 1
    for x, y in ((X, Y), (other, Y), (X, np.roll(Y, 1)), (X, Y)):
        data.register("mine", x, y)
        e = experiment("random_labels")
        runner.run(e, "cpu", tmp_path, progress=False)
        paths += store.experiment_paths(tmp_path, e)
    assert len(set(paths)) == 3
    assert paths[0] == paths[3]


def test_digest_of_arrays_has_their_type_shape_and_number_of_classes():
    whole = RNG.integers(256, size=(12, 4, 4))
    cases = [(whole.astype(np.uint8), None), (whole.astype(float), None), (whole.astype(float), 7)]
    cases += [(whole.astype(float).reshape(12, 2, 8), None)]
    found = []
    for x, classes in cases:
        data.register("mine", x, Y[:12], classes)
        found.append(Stream(dataset="mine", samples=9).content)
    assert len(set(found)) == len(cases)


def test_stream_made_before_its_arrays_were_replaced_is_refused_before_training(tmp_path):
    early = experiment("random_labels")
    data.register("mine", X, Y)
    bound = experiment("random_labels")
    data.register("mine", X + 1, Y)
    for stale in (early, bound):
        with pytest.raises(ValueError, match=r"'mine' stands for other arrays.*make the stream again"):
            runner.run(stale, "cpu", tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_registered_arrays_are_copies_both_ways():
    x, y = X.copy(), Y.copy()
    data.register("mine", x, y)
    x[:], y[:] = 0, 0
    data.load("mine").x[:] = 0
    assert np.array_equal(data.load("mine").x, X)
    assert np.array_equal(data.load("mine").y, Y)


def test_numbers_of_numpy_and_of_python_name_the_same_run():
    data.register("mine", X, Y)
    of_numpy = experiment("random_labels", classes=Y.max() + 1)
    of_python = experiment("random_labels", classes=6)
    adam = of_python.methods[0]
    assert digest(of_numpy, adam) == digest(of_python, adam)
    assert digest(of_numpy, replace(adam, lr=np.float32(0.5))) == digest(of_python, replace(adam, lr=0.5))


def test_streams_of_the_built_in_sets_have_the_digest_that_they_had():
    e = get("random_labels")
    assert (e.stream.content, e.stream.real, e.stream.classes) == (None, None, None)
    assert digest(e, e.method("adam")) == "bc08c128acf3fdb4"


FORMS = {
    "list": (X.reshape(120, 16).tolist(), Y.tolist()),
    "float16": (X.astype(np.float16), Y.astype(np.uint8)),
    "bfloat16 tensor": (torch.from_numpy(X).bfloat16(), torch.from_numpy(Y).int()),
    "tensor with a gradient": (torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)),
    "uint8 without channels": (RNG.integers(256, size=(120, 4, 4)).astype(np.uint8), Y),
    "far from zero": (X + 1e9, Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_own_images_of_any_form_become_inputs_of_mean_zero_and_variance_one(form):
    data.register("mine", *FORMS[form])
    inputs = load_source(Stream(dataset="mine", samples=9), CPU).inputs
    assert (inputs.shape, inputs.dtype) == ((120, 16), torch.float32)
    assert abs(float(inputs.double().mean())) < 1e-5
    assert float(inputs.double().std()) == pytest.approx(1, abs=1e-5)


def broken(value):
    x = X.copy()
    x[3, 0, 1, 1] = value
    return x


REFUSED = {
    "NaN": (broken(np.nan), Y, "x='an array with NaN, infinite or huge numbers'"),
    "infinite": (broken(np.inf), Y, "finite in float32"),
    "huge": (broken(1e200), Y, "finite in float32"),
    "masked": (np.ma.masked_array(X, X > 51), Y, "x='an array with masked numbers'"),
    "constant": (np.ones((120, 4)), Y, "of more than one value"),
    "whole pixels": (X.astype(int), Y, "x.dtype='int64'; it must be uint8 or floating point"),
    "complex": (X + 1j, Y, "x.dtype='complex128'"),
    "text": (X, ["cat"] * 120, "y.dtype='<U3'; it must be whole numbers for labels"),
    "truth values": (X, Y > 2, "y.dtype='bool'"),
    "ragged": ([[1.0, 2.0], [3.0]], [0, 1], "x has rows of different lengths"),
    "one image": (X[0, 0, 0], Y, "x has shape (4,); expected (n, features)"),
    "channels last": (np.zeros((120, 8, 8, 3)), Y, "channels before height and width: np.moveaxis(x, 3, 1)"),
    "none": (np.zeros((0, 4)), [], "with n at least 1"),
    "lengths": (X, Y[:-1], "y has shape (119,); expected (120,)"),
    "one-hot": (X, np.eye(6)[Y], "y has shape (120, 6); expected (120,)"),
    "negative": (X, Y - 1, "the smallest label=-1"),
    "from one": (X, Y + 1, "y='labels without 0'"),
    "gaps": (X, 2 * Y, "y='labels without 1'"),
    "real NaN": (X, REAL * np.nan, "y='an array with NaN"),
    "real huge": (X, REAL * 1e200, "y='an array with NaN, infinite or huge"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_cannot_be_a_data_set_are_refused_in_one_line(case):
    x, y, message = REFUSED[case]
    with pytest.raises(ValueError) as refused:
        data.register("mine", x, y)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "mine" not in OWN


@pytest.mark.parametrize("name", ["mnist-small", "cifar100", "bits", "", 3])
def test_name_that_is_taken_or_no_word_is_refused(name):
    with pytest.raises(ValueError, match=r"name=.*taken are mnist-small, .*, bits"):
        data.register(name, X, Y)


@pytest.mark.parametrize(("classes", "message"), [(5, "classes=5; .* from 6"), (6.5, "classes=6.5")])
def test_number_of_classes_below_the_labels_is_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        data.register("mine", X, Y, classes=classes)
    assert data.register("mine", X, Y, classes=8).classes == 8


STREAMS = {
    "too many samples": (Y, dict(samples=121), "stream.samples=121; mine has only 120 images"),
    "one class": (0 * Y, dict(), "'mine' has 1 class; a classification needs at least 2"),
    "real targets without classes": (REAL, dict(), "'shuffled_labels' and 'permuted_pixels' take them"),
    "pairs of real targets": (REAL, dict(kind="class_pairs"), "the others need whole numbers"),
}


@pytest.mark.parametrize("case", STREAMS)
def test_stream_that_own_arrays_cannot_fill_is_refused_when_it_is_made(case):
    y, changes, message = STREAMS[case]
    data.register("mine", X, y)
    with pytest.raises(ValueError) as refused:
        Stream(**dict(kind="random_labels", dataset="mine", samples=9) | changes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(kind="class_pairs", tasks=4), "mine has 6 classes, 3 pairs"),
        (dict(kind="class_pairs", tasks=2, samples=41), "have only 40 images"),
        (dict(scale="symmetric"), "stream.scale='symmetric'; it must be 'standard'"),
        (dict(pool=3), "stream.pool=3; it must divide the images of mine"),
        (dict(dataset="min"), "did you mean 'mine'?; `register` adds arrays of your own"),
    ],
)
def test_stream_that_does_not_fit_own_arrays_is_refused_before_training(changes, message, tmp_path):
    data.register("mine", X, Y)
    stream = Stream(**dict(kind="random_labels", dataset="mine", samples=32, tasks=2) | changes)
    with pytest.raises(ValueError) as refused:
        runner.run(replace(experiment("random_labels"), stream=stream), "cpu", tmp_path, progress=False)
    assert message in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_own_arrays_have_one_split():
    data.register("mine", X, Y)
    with pytest.raises(ValueError, match="split='test'; allowed are 'train'"):
        data.load("mine", "test")
