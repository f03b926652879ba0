"""The causal experiments as they are declared: every arm that a prediction names exists, and every arm runs."""

from dataclasses import replace

import pytest
import torch

from dyniso.study import runner, specs
from dyniso.study.specs.rivals import RIVALS, arms_of
from dyniso.study.stack import Run
from dyniso.study.train import StreamEngine, train_group


@pytest.mark.parametrize("tier", sorted(specs.TIERS))
@pytest.mark.parametrize("name", sorted(RIVALS))
def test_every_arm_that_a_rival_predicts_is_one_of_its_experiment(name, tier):
    arms = {method.name for method in specs.CAUSAL[name][tier].methods}
    assert {arm for checks in RIVALS[name].values() for arm in arms_of(checks)} <= arms


def cut(experiment):
    """All arms, one seed, two tasks of ten steps, width 16, on images of 7 x 7 pixels."""
    stream = replace(experiment.stream, samples=64, pool=4, tasks=min(experiment.tasks, 2))
    net = replace(experiment.net, width=16)
    return replace(experiment, net=net, stream=stream, seeds=(0,), steps_per_task=10, batch=8, probe=32)


DIFFERENT = {replace(cut(e["smoke"]), name="one", title=""): name for name, e in reversed(specs.CAUSAL.items())}


@pytest.mark.parametrize("name", sorted(DIFFERENT.values()))
def test_every_arm_of_an_experiment_runs_and_is_measured_before_each_task(name):
    experiment = cut(specs.get(name))
    engine = StreamEngine(experiment, torch.device("cpu"))
    first = experiment.trunk.tasks if experiment.trunk else 0
    for group in runner.grouped([Run(method, 0) for method in experiment.methods]):
        for rows in train_group(experiment, group, engine.source):
            assert not rows[rows["metric"] == "diverged"]["value"].any()
            measured = rows[rows["metric"] == "before_P_100"]
            assert list(measured["task"]) == list(range(first, experiment.tasks)) and measured["value"].notna().all()
