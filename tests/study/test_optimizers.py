"""Contracts of dyniso.study.optimizers: one function a name, and each run of a stack learns as it would alone."""

import pytest
import torch
from torch import nn

from dyniso import baselines
from dyniso.nets import mlp
from dyniso.optim import AdamO
from dyniso.study.optimizers import OPTIMIZERS, make_optimizer
from dyniso.study.specs import OPTIMIZERS as NAMES
from dyniso.study.specs import Method
from dyniso.study.stack import Run, Stack

CPU = torch.device("cpu")
SETTINGS = {"adamo": dict(isometry_strength=0.5), "adamw": dict(weight_decay=0.1), "sgd": dict(lr=0.1)}
BUILT = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adamo": AdamO,
    "muon": baselines.Several,
    "upgd": baselines.UPGD,
}


def runs_of(name: str, seeds=(0, 1, 2)) -> list[Run]:
    return [Run(Method("m", "m", optimizer=name, **SETTINGS.get(name, {})), seed) for seed in seeds]


def stack_of(runs: list[Run]) -> Stack:
    return Stack([mlp(6, 3, width=8, depth=2, seed=run.seed) for run in runs], CPU)


def stepped(runs: list[Run], steps: int = 4) -> Stack:
    """A stack after some steps on noise that depends on the seed alone."""
    stack = stack_of(runs)
    optimizer = make_optimizer(runs, stack.params, stack.regularised)
    draws = [torch.Generator().manual_seed(run.seed) for run in runs]
    for _ in range(steps):
        x = torch.stack([torch.randn(5, 6, generator=g) for g in draws])
        optimizer.zero_grad()
        stack(x).square().mean((1, 2)).sum().backward()
        optimizer.step()
    return stack


def test_table_has_a_function_for_every_name_that_a_spec_allows_and_no_other():
    assert set(OPTIMIZERS) == set(NAMES) == set(BUILT)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_of_a_name_trains_every_parameter_at_the_rate_of_the_method(name):
    runs = runs_of(name)
    stack = stack_of(runs)
    made = make_optimizer(runs, stack.params, stack.regularised)
    assert isinstance(made, BUILT[name])
    rates = {group["lr"] for group in made.param_groups}
    assert runs[0].method.lr in rates
    before = {n: p.detach().clone() for n, p in stack.params.items()}
    after = stepped(runs).params
    assert [n for n, p in before.items() if torch.equal(p, after[n])] == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stacked_run_learns_as_it_does_alone(name):
    together = stepped(runs_of(name))
    alone = stepped(runs_of(name, (1,)))
    for key, p in together.params.items():
        assert torch.equal(p[1], alone.params[key][0])


def test_adamo_without_any_strength_is_adam():
    runs = [Run(Method("m", "m", optimizer="adamo"), 0)]
    stack = stack_of(runs)
    made = make_optimizer(runs, stack.params, stack.regularised)
    assert isinstance(made, torch.optim.Adam) and not isinstance(made, AdamO)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_adam_in_a_group_of_adamo_has_strength_zero(order):
    methods = [Method("a", "a"), Method("o", "o", optimizer="adamo", isometry_strength=0.3)]
    runs = [Run(methods[i], 0) for i in order]
    stack = stack_of(runs)
    made = make_optimizer(runs, stack.params, stack.regularised)
    assert isinstance(made, AdamO)
    strengths = made.param_groups[0]["isometry_strength"].tolist()
    assert strengths == pytest.approx([methods[i].isometry_strength for i in order])
    assert made.param_groups[1]["isometry_strength"] == 0


def test_only_optimizers_that_pull_ask_which_matrices_are_pulled():
    def refuse():
        raise AssertionError("asked")

    for name in ("adam", "adamw", "sgd", "upgd"):
        runs = runs_of(name)
        make_optimizer(runs, stack_of(runs).params, refuse)
    with pytest.raises(AssertionError, match="asked"):
        make_optimizer(runs_of("muon"), stack_of(runs_of("muon")).params, refuse)


def test_options_of_adam_reach_it():
    runs = runs_of("adam")
    stack = stack_of(runs)
    (group,) = make_optimizer(runs, stack.params, stack.regularised, eps=0.25).param_groups
    assert group["eps"] == 0.25


def test_unknown_optimizer_is_an_error_that_names_the_nearest():
    runs = runs_of("adam")
    object.__setattr__(runs[0].method, "optimizer", "adamm")
    with pytest.raises(ValueError, match=r"optimizer='adamm'.*did you mean 'adam'"):
        make_optimizer(runs, {"w": nn.Parameter(torch.ones(3, 2, 2))}, list)


def test_noise_of_upgd_is_that_of_the_seed_of_each_run():
    runs = runs_of("upgd", (0, 1))
    stack = Stack([mlp(6, 3, width=8, depth=2, seed=5) for _ in runs], CPU)  # one net twice
    made = make_optimizer(runs, stack.params, stack.regularised)
    stack(torch.ones(2, 4, 6)).square().mean((1, 2)).sum().backward()
    made.step()
    assert not any(torch.equal(p[0], p[1]) for name, p in stack.params.items() if name.endswith("weight"))


def test_settings_of_adamo_reach_it():
    settings = dict(
        isometry_strength=0.1, isometry_every=3, weight_decay=0.2, decoupled_weight_decay=True, coupled=True
    )
    runs = [Run(Method("m", "m", optimizer="adamo", **settings), 0)]
    stack = stack_of(runs)
    for group in make_optimizer(runs, stack.params, stack.regularised).param_groups:
        assert {name: group[name] for name in settings if name != "isometry_strength"} == {
            name: value for name, value in settings.items() if name != "isometry_strength"
        }
