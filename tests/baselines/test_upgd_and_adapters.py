"""UPGD and the adapters as torch optimizers: they copy, pickle, wait for gradients, and keep to the parameters."""

import copy
import pickle

import pytest
import torch
from torch import nn

from dyniso.baselines import UPGD, PerRun, Several, forget

COPIES = [copy.deepcopy, lambda held: pickle.loads(pickle.dumps(held))]


def parameters() -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=draws)) for shape in ((2, 4, 3), (2, 4))]


def per_run(params: list) -> PerRun:
    return PerRun(params[:1], lambda ps: torch.optim.Muon(ps, lr=0.1))


BUILT = {
    "upgd": lambda ps: UPGD(ps, generators=[torch.Generator().manual_seed(3)]),
    "upgd of two runs": lambda ps: UPGD(
        ps, generators=[torch.Generator().manual_seed(seed) for seed in (3, 4)], batch_dims=1
    ),
    "per run": per_run,
    "several": lambda ps: Several(per_run(ps), torch.optim.Adam(ps[1:], lr=0.1)),
}


def stepped(params, optimizer, start: int = 0) -> None:
    for step in range(start, start + 3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "pickle"])
@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_copy_goes_on_like_the_original_and_apart_from_it(build, copied):
    params = parameters()
    optimizer = build(params)
    stepped(params, optimizer)
    others, twin = copied((params, optimizer))
    before = [p.detach().clone() for p in params]
    stepped(others, twin, 3)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    stepped(params, optimizer, 3)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert not torch.equal(params[0], before[0])


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_saved_state_goes_on_in_a_new_optimizer(build):
    params = parameters()
    optimizer = build(params)
    stepped(params, optimizer)
    others = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = build(others)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    stepped(params, optimizer, 3)
    stepped(others, resumed, 3)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_step_without_gradients_changes_nothing(build):
    params = parameters()
    optimizer = build(params)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_step_of_upgd_calls_its_closure_with_gradients_on_and_returns_the_loss():
    params = parameters()
    optimizer = UPGD(params)

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in params)
        loss.backward()
        return loss

    before = params[0].detach().clone()
    expected = sum(p.detach().square().sum() for p in params)
    torch.testing.assert_close(optimizer.step(closure).detach(), expected)
    assert not torch.equal(params[0], before)


def test_utility_is_corrected_by_the_updates_of_its_own_parameter():
    late, always = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = UPGD([late, always], lr=0.0, noise=0.0)
    for step in range(5):
        always.grad = -torch.ones(2)
        late.grad = -torch.ones(2) if step == 4 else None
        optimizer.step()
    beta = optimizer.param_groups[0]["beta"]
    corrected = [optimizer.state[p]["utility"] / (1 - beta ** optimizer.state[p]["step"]) for p in (late, always)]
    torch.testing.assert_close(*corrected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_upgd_with_gradients_of_zero_is_finite_in_every_precision(dtype):
    p = nn.Parameter(torch.ones(3, dtype=dtype))
    p.grad = torch.zeros_like(p)
    UPGD([p]).step()
    assert bool(torch.isfinite(p).all())


def test_number_of_generators_is_that_of_the_runs():
    with pytest.raises(ValueError, match=r"generators=.*one generator a run, 2 in all"):
        UPGD(parameters(), generators=[torch.Generator()], batch_dims=1)
    with pytest.raises(ValueError, match=r"generators saved=0; it must be 1"):
        BUILT["upgd"](parameters()).load_state_dict(UPGD(parameters()).state_dict())


def test_slices_follow_a_stack_whose_data_is_replaced():
    params = parameters()
    optimizer = per_run(params)
    params[0].data = torch.zeros_like(params[0])
    stepped(params[:1], optimizer)
    assert params[0].detach().any()


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_optimizer_that_forgets_steps_like_a_new_one(build):
    params = parameters()
    optimizer = build(params)
    stepped(params, optimizer)
    forget(optimizer)
    others = [nn.Parameter(p.detach().clone()) for p in params]
    fresh = build(others)
    for old, new in zip(getattr(optimizer, "generators", ()), getattr(fresh, "generators", ()), strict=True):
        new.set_state(old.get_state())
    stepped(params, optimizer)
    stepped(others, fresh)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
