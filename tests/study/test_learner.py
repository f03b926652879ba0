"""Contracts of dyniso.study.learner: what streams and games share, on nets of two parts."""

import copy

import pytest
import torch

from dyniso import baselines
from dyniso.nets import mlp
from dyniso.optim import IsometryDivergenceError
from dyniso.study.learner import SCHEDULES, Clip, Learner, clip, denormals_as_zero
from dyniso.study.specs import Method
from dyniso.study.stack import Run

CPU = torch.device("cpu")
SEEDS = (0, 1)
RESET_ALL = dict(baseline="reset", settings=(("layers", "all"),))
ARMS = {
    "adam": {},
    "adamo": dict(optimizer="adamo", isometry_strength=0.5),
    "muon": dict(optimizer="muon"),
    "redo": dict(baseline="redo", settings=(("every", 2), ("threshold", 0.5))),
    "l2_init": dict(baseline="l2_init", settings=(("strength", 0.1),)),
    "reset": RESET_ALL,
}


def nets_of(seed: int) -> dict:
    """Two parts, "first" and "second", of one run."""
    return {part: mlp(4, 2, width=6, depth=2, seed=2 * seed + own) for own, part in enumerate(("first", "second"))}


def learner_of(seeds=SEEDS, parts=("first", "second"), method: dict | None = None, **options) -> Learner:
    """A method, Adam by default, that acts on some parts."""
    runs = [Run(Method("m", "m", **({"lr": 1e-2} | (method or {}))), seed) for seed in seeds]
    draws = {part: [10 * seed for seed in seeds] for part in parts}
    return Learner(runs, [nets_of(seed) for seed in seeds], CPU, draws, **options)


def taught(learner: Learner, steps: int = 3, start: int = 0) -> Learner:
    """The learner after some steps on noise."""
    runs = len(learner.finite())
    for step in range(start, start + steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).expand(runs, -1, -1)
        outputs = [learner.forward(part, x) for part in learner.parts]
        learner.update(sum((out - 1).square().mean((1, 2)) for out in outputs))
    return learner


def copies(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.params.items()}


# ---------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_step_moves_the_parameters_of_every_part(arm):
    learner = learner_of(method=arm)
    before = copies(learner)
    taught(learner, 1)
    assert [name for name, p in learner.params.items() if torch.equal(p, before[name])] == []


def test_method_acts_on_the_named_parts_alone():
    learner = learner_of(parts=("second",), method=ARMS["l2_init"])
    assert list(learner.attached) == ["second"]
    assert {name.split(".")[0] for name in learner.regularised()} == {"second"}
    plain = taught(learner_of(), 2)
    taught(learner, 2)
    moved = {n.split(".")[0] for n, p in learner.params.items() if not torch.equal(p, plain.params[n])}
    assert moved == {"second"}


def test_penalty_is_added_once_for_each_run():
    learner = learner_of(method=dict(optimizer="sgd", lr=1.0, baseline="l2", settings=(("strength", 0.25),)))
    before = copies(learner)
    learner.update(torch.zeros(2, requires_grad=True) * 0)
    for name, p in learner.params.items():
        torch.testing.assert_close(p.detach(), 0.75 * before[name])


def test_looking_at_a_part_records_nothing_and_learning_from_it_does():
    learner = learner_of(method=ARMS["redo"])
    x = torch.ones(2, 3, 4)
    learner.parts["first"](x)
    assert learner.attached["first"].activations == []
    learner.forward("first", x)
    assert [h.shape for h in learner.attached["first"].activations] == [(2, 3, 6), (2, 3, 6)]
    assert learner.attached["first"].inputs is x
    assert learner.attached["second"].activations == []


def test_runs_that_diverge_one_after_another_in_one_step_are_given_up_and_the_others_go_on(monkeypatch):
    learner = learner_of(seeds=(0, 1, 2))
    errors = [IsometryDivergenceError("a", [0]), IsometryDivergenceError("b", [2])]
    original = learner.optimizer.step
    monkeypatch.setattr(
        learner.optimizer, "step", lambda: (_ for _ in ()).throw(errors.pop(0)) if errors else original()
    )
    before = copies(learner)
    taught(learner, 1)
    assert errors == []
    assert learner.finite().tolist() == [False, True, False]
    assert not torch.equal(learner.params["first.1.weight"][1], before["first.1.weight"][1])


def test_run_is_finite_only_if_every_part_is():
    learner = learner_of()
    with torch.no_grad():
        learner.params["second.1.weight"][1, 0, 0] = torch.inf
    assert learner.finite().tolist() == [True, False]


# ------------------------------------------------------------------------------------------- schedule, clipping


@pytest.mark.parametrize(
    ("name", "rates"), [("cosine", [4e-2, 2e-2, 0, 4e-2]), ("linear", [4e-2, 2e-2, 0, 4e-2]), (None, [4e-2] * 4)]
)
def test_schedule_ends_a_task_at_zero_and_starts_the_next_at_the_full_rate(name, rates):
    learner = learner_of(method=dict(lr=4e-2), schedule=name)
    found = []
    for done in (0.0, 0.5, 1.0, 0.0):
        learner.schedule(done)
        found.append(learner.optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(rates, abs=1e-12)


def test_schedule_keeps_the_ratio_of_the_rates_of_several_optimizers():
    learner = learner_of(method=dict(optimizer="muon", lr=1e-3), schedule="linear")
    learner.schedule(0.5)
    assert {group["lr"] for group in learner.optimizer.param_groups} == {5e-4, 5e-3}


def test_unknown_schedule_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match=r"schedule='cosin'.*did you mean 'cosine'"):
        learner_of(schedule="cosin")
    assert set(SCHEDULES) == {"cosine", "linear"}


def gradients() -> list[torch.nn.Parameter]:
    """Parameters of three runs; the gradients of the first are small, those of the last large."""
    params = [torch.nn.Parameter(torch.zeros(3, 2, 2)), torch.nn.Parameter(torch.zeros(3, 4))]
    for p in params:
        p.grad = torch.ones_like(p) * torch.tensor([1e-3, 1.0, 50.0]).reshape(-1, *[1] * (p.ndim - 1))
    return params


def test_clipping_by_norm_is_torchs_for_each_run_alone():
    params, alone = gradients(), gradients()
    clip(params, Clip(0.5))
    for run in range(3):
        own = [torch.nn.Parameter(p[run].detach()) for p in alone]
        for mine, p in zip(own, alone, strict=True):
            mine.grad = p.grad[run].clone()
        torch.nn.utils.clip_grad_norm_(own, 0.5)
        for mine, p in zip(own, params, strict=True):
            torch.testing.assert_close(p.grad[run], mine.grad)


def test_clipping_by_value_bounds_each_entry_and_leaves_smaller_ones():
    params = gradients()
    clip(params, Clip(0.5, "value"))
    for p in params:
        assert p.grad.flatten(1).unique(dim=1)[:, 0].tolist() == pytest.approx([1e-3, 0.5, 0.5])


def test_clipping_in_any_other_way_is_an_error():
    with pytest.raises(ValueError, match=r"clip\.by='size'; allowed are 'norm', 'value'"):
        clip(gradients(), Clip(0.5, "size"))


# --------------------------------------------------------------------------------------------- a change of task


@pytest.mark.parametrize(("reset", "kept"), [(None, True), (True, False)])
def test_optimizer_forgets_at_a_change_of_task_only_where_the_method_says_so(reset, kept):
    learner = taught(learner_of(method=dict(reset_optimizer=reset)))
    learner.new_task(1)
    assert bool(learner.optimizer.state) == kept


def test_method_that_renews_takes_the_nets_that_are_drawn_for_the_task_and_a_new_optimizer():
    def drawn(number):
        return [nets_of(seed + 100 * number) for seed in SEEDS]

    learner = taught(learner_of(method=RESET_ALL, renew=drawn))
    assert learner.attached == {}
    learner.new_task(3)
    assert not learner.optimizer.state
    for run, expected in enumerate(drawn(3)):
        for name, p in learner.params.items():
            part, _, own = name.partition(".")
            assert torch.equal(p[run], expected[part].get_parameter(own))


@pytest.mark.parametrize("method", [{}, dict(baseline="reset"), dict(baseline="fire")], ids=["none", "head", "fire"])
def test_method_that_keeps_something_is_not_renewed_though_nets_could_be_drawn(method):
    def refuse(number):
        raise AssertionError("drawn")

    taught(learner_of(method=method, renew=refuse)).new_task(1)


def test_method_that_renews_draws_by_itself_where_nobody_else_does():
    learner = taught(learner_of(method=RESET_ALL))
    before = copies(learner)
    learner.new_task(1)
    assert not torch.equal(learner.params["first.1.weight"], before["first.1.weight"])


@pytest.mark.parametrize("name", baselines.CLASSES)
def test_only_a_reset_of_all_layers_renews(name):
    assert not baselines.make(name).renews
    assert baselines.make("reset", layers="all").renews


# -------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_learner_that_takes_up_a_state_goes_on_bit_for_bit(arm):
    first = taught(learner_of(method=arm))
    first.new_task(1)
    second = learner_of(method=arm)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for learner in (first, second):
        taught(learner, 3, start=3)
        learner.new_task(2)
    for name, p in first.params.items():
        assert torch.equal(p, second.params[name]), name


def test_denormals_count_as_zero_while_it_trains_and_as_themselves_afterwards():
    tiny = torch.tensor([1e-40])
    with denormals_as_zero():
        assert float(tiny * 1) == 0
    assert float(tiny * 1) > 0


def test_a_caller_who_flushes_denormals_still_does_afterwards():
    torch.set_flush_denormal(True)
    try:
        with denormals_as_zero():
            pass
        assert float(torch.tensor([1e-40]) * 1) == 0
    finally:
        torch.set_flush_denormal(False)
