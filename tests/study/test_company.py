"""A run's rows are, bit for bit, the same alone, beside others, and in another order: on a CPU, on one thread."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyniso.nets import NORMS
from dyniso.study.learner import SCHEDULES
from dyniso.study.specs import BASELINES, Method, Net, Stream, get
from dyniso.study.stack import Run
from dyniso.study.tasks import load_source
from dyniso.study.train import train_group

ACTING = {  # settings with which a method acts within a few steps
    "redo": (("every", 3), ("threshold", 0.5)),
    "continual_backprop": (("maturity", 2), ("rate", 0.1)),
    "isometry": (("rows", "live"), ("strength", 1.0), ("window", 2)),
    "shrink_perturb": (("perturb", 0.01), ("shrink", 0.99), ("when", "step")),
}
ARMS = {
    "adam": {},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "adamo": {"optimizer": "adamo", "isometry_strength": 0.5},
    "adamo, every 4": {"optimizer": "adamo", "isometry_strength": 0.5, "isometry_every": 4},
    "coupled": {"optimizer": "adamo", "isometry_strength": 0.01, "coupled": True},
    "muon": {"optimizer": "muon"},
    "upgd": {"optimizer": "upgd", "lr": 1e-2},
    "clipped": {"clip_norm": 0.5},
    "maxmin": {"activation": "maxmin"},
    "crelu": {"activation": "crelu"},
    **{norm: {"norm": norm} for norm in NORMS},
    **{schedule: {"schedule": schedule} for schedule in SCHEDULES},
    **{name: {"baseline": name, "settings": ACTING.get(name, ())} for name in BASELINES},
}
NETS = {  # with layers whose share of a run is no multiple of the processor's lines of 16 floats
    "mlp": Net(width=20, depth=3),
    "cnn": Net(width=20, depth=1, channels=(4, 6)),
}
FEW = ("adam", "adamo", "spectral_penalty", "upgd", "clipped")  # on convolutions too


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_company_does_not_matter(experiment, runs):
    """The rows of all runs together are those of the last alone, and of the first three in another order."""
    source = load_source(experiment.stream, torch.device("cpu"))
    together = dict(zip(runs, train_group(experiment, runs, source), strict=True))
    for company in ([runs[-1]], [runs[2], runs[0]]):
        for run, rows in zip(company, train_group(experiment, company, source), strict=True):
            np.testing.assert_array_equal(rows["value"], together[run]["value"])


CASES = [(net, arm) for net in NETS for arm in ARMS if net == "mlp" or arm in FEW]


@pytest.mark.parametrize(("net", "arm"), CASES, ids=[f"{net}, {arm}" for net, arm in CASES])
def test_rows_of_a_run_do_not_depend_on_the_runs_beside_it(net, arm):
    stream = Stream("random_labels", "mnist-small", samples=100, tasks=2)
    experiment = replace(get("random_labels"), stream=stream, net=NETS[net], steps_per_task=40, batch=20, probe=33)
    method = Method("m", "m", **ARMS[arm])
    assert_company_does_not_matter(experiment, [Run(method, seed) for seed in range(5)])


def test_rows_of_a_run_do_not_depend_on_the_strengths_of_the_runs_beside_it():
    stream = Stream("random_labels", "mnist-small", samples=100, tasks=2)
    experiment = replace(get("random_labels"), stream=stream, net=NETS["mlp"], steps_per_task=40, batch=20, probe=33)
    strong = Method("strong", "strong", optimizer="adamo", isometry_strength=0.5)
    adam, weak = Method("adam", "adam"), replace(strong, name="weak", isometry_strength=0.1)
    assert_company_does_not_matter(experiment, [Run(m, seed) for seed in range(2) for m in (strong, adam, weak)])


def test_rows_of_a_regression_do_not_depend_on_the_runs_beside_it():
    spec = get("slow_regression")
    short = dict(net=Net(width=64, depth=1), steps_per_task=30, batch=37)
    experiment = replace(spec, stream=replace(spec.stream, tasks=2), **short)
    assert_company_does_not_matter(experiment, [Run(spec.method("adam"), seed) for seed in range(5)])


@pytest.mark.parametrize("measure", ["kernel", "lens"])
def test_costly_measures_of_a_run_do_not_depend_on_the_runs_beside_it(measure):
    stream = Stream("random_labels", "mnist-small", samples=100, tasks=2)
    short = dict(steps_per_task=25, batch=20, probe=64)
    experiment = replace(get("random_labels"), stream=stream, net=NETS["mlp"], measures=(measure,), **short)
    assert_company_does_not_matter(experiment, [Run(Method("m", "m"), seed) for seed in range(3)])
