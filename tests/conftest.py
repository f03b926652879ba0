"""One experiment that trains in a fraction of a second, and rows made by hand."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from others_models import make_method, make_net, train  # noqa: F401 - fixtures

from dyniso.report.results import Results
from dyniso.study.specs import Experiment, Net, Stream, get


@pytest.fixture
def tiny() -> Experiment:
    """The registered random_labels with 2 tasks of 6 steps, width 8; Adam and AdamO 0.1, seeds 0 and 1."""
    registered = get("random_labels")
    return replace(
        registered,
        stream=Stream("random_labels", "mnist-small", samples=64, tasks=2),
        net=Net(width=8, depth=2),
        methods=(registered.method("adam"), registered.method("adamo_0.1")),
        steps_per_task=6,
        batch=16,
        probe=32,
    )


def long_rows(experiment: Experiment) -> pd.DataFrame:
    """Rows in the store's long form whose values are readable: 100 method + 10 seed + task, plus 1000 for the head."""
    rows = []
    for m, method in enumerate(experiment.methods):
        for seed in experiment.seeds:
            for task in range(experiment.tasks):
                value = 100 * m + 10 * seed + task
                layers = {"1.weight": value, "3.weight": value + 2, "11.weight": value + 1000}
                rows += [(method.name, seed, task, layer, "sigma_max", float(v)) for layer, v in layers.items()]
                rows.append((method.name, seed, task, "", "online_accuracy", value / 1000))
    frame = pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"])
    facts = {"digest": "d", "commit": "abc", "torch": "2", "hardware": "a CPU", "wall_s": 1.0}
    return frame.assign(experiment=experiment.name, tier=experiment.tier, **facts)


@pytest.fixture
def hand_made(tiny: Experiment) -> pd.DataFrame:
    return long_rows(tiny)


def tiny_results(experiment: Experiment, gain: float) -> Results:
    """Accuracy .5 of the first arm and .5 + gain of the second in every run and task; sigma_max likewise, 1 and 2."""
    rows = []
    for m, method in enumerate(experiment.methods):
        for seed in experiment.seeds:
            for task in range(experiment.tasks):
                numbers = {"online_accuracy": 0.5 + gain * m, "sigma_max": 1.0 + m, "diverged": 0.0}
                rows += [(method.name, seed, task, "", metric, value) for metric, value in numbers.items()]
    return Results(experiment, pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"]))


def with_spectrum(sigma, out, inp, seed=0):
    """A float64 matrix (out, in) with the given singular values and random singular vectors."""
    g = torch.Generator().manual_seed(seed)
    m = len(sigma)
    U = torch.linalg.qr(torch.randn(out, m, generator=g, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(inp, m, generator=g, dtype=torch.float64)).Q
    return U @ torch.diag(torch.as_tensor(sigma, dtype=torch.float64)) @ V.T
