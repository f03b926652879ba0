"""dyniso.theory.strength: the guarantee, the laws of strength, and the balance."""

import math

import pytest
import torch

from dyniso.optim import AdamO, isometry_step
from dyniso.polar import polar_factor
from dyniso.theory.strength import (
    GUARANTEE_LIMIT,
    adam_update,
    attacked,
    balance,
    ceiling,
    guaranteed_interval,
    moment,
    noise_strength,
    white_gradients,
    white_updates,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def isometry(n=6):
    return polar_factor(torch.randn(n, n, generator=generator(), dtype=torch.float64))


@pytest.mark.parametrize("ratio", [0.1, 0.8, 1.5])
def test_push_and_pull_balance_at_both_ends_of_the_interval(ratio):
    low, high = guaranteed_interval(ratio)
    assert 3**-0.5 < low < 1 < high
    assert 4 * (low - low**3) == pytest.approx(ratio)
    assert 4 * (high**3 - high) == pytest.approx(ratio)


def test_inner_root_is_gone_beyond_the_limit_of_the_guarantee():
    assert not math.isnan(guaranteed_interval(0.999 * GUARANTEE_LIMIT)[0])
    assert math.isnan(guaranteed_interval(1.001 * GUARANTEE_LIMIT)[0])


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf])
def test_ratio_that_is_not_positive_is_refused(ratio):
    with pytest.raises(ValueError, match="above 0"):
        guaranteed_interval(ratio)


@pytest.mark.parametrize("attack", ["shrink", "stretch", "random"])
def test_attack_stays_within_the_guaranteed_interval(attack):
    low, high = guaranteed_interval(0.8)
    lowest, highest = attacked(isometry(), 0.8, attack, 0.02, generator(), steps=400)
    assert low - 1e-9 <= lowest <= highest <= high + 1e-9


def test_steady_attack_reaches_the_end_of_the_interval():
    assert attacked(isometry(), 0.8, "shrink", 0.02, generator())[0] == pytest.approx(guaranteed_interval(0.8)[0])


def test_attack_beyond_the_limit_destroys_the_isometry():
    assert attacked(isometry(), 1.6, "shrink", 0.02, generator())[0] < 0.3


def test_unknown_attack_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'shrink'"):
        attacked(isometry(), 0.4, "shrnk", 0.02, generator())


def test_white_updates_obey_the_law():
    q = torch.tensor([0.02, 0.1])
    found = moment(white_updates(q, 16, 2500, generator())).mean(0)
    torch.testing.assert_close(found, q, rtol=0.25, atol=0)


def test_ceiling_holds_the_defect_against_updates_that_never_change():
    n, target, lr = 8, 0.02, 0.02
    u = isometry(n)  # root mean square n^-1/2
    strength, W = ceiling(n, 1 / n, target), isometry(n)
    for _ in range(2000):
        W = W + lr * u - isometry_step([W], lr * strength)[0]
    defect = float((torch.linalg.svdvals(W) ** 2 - 1).square().mean())
    assert 0.5 * target < defect < 1.3 * target


def test_noise_needs_strength_in_proportion_to_rate_and_width_and_the_ceiling_the_root_of_width_only():
    assert noise_strength(2e-3, 128, 1.0, 0.05) == pytest.approx(4 * noise_strength(1e-3, 64, 1.0, 0.05))
    assert ceiling(256, 1.0, 0.05) == pytest.approx(2 * ceiling(64, 1.0, 0.05))


def test_momentum_makes_single_updates_of_white_gradients_small():
    found = white_gradients((16, 32), 2e-3, torch.tensor([0.02, 0.03]), generator(), steps=1600)
    assert found.spectra.shape == (4, 2, 16)
    assert found.r2 == pytest.approx(1 / 19, abs=0.02)


def test_norm_changes_by_what_the_balance_says():
    lr, strength, W = 1e-4, 0.3, isometry() * torch.linspace(0.8, 1.2, 6).double()
    u = torch.randn(6, 6, generator=generator(1), dtype=torch.float64)
    new = W - lr * u - isometry_step([W], lr * strength)[0]
    b = balance(W, u, lr, strength)
    growth = float(new.square().sum() - W.square().sum())
    assert growth == pytest.approx(float(b.noise + b.push - b.moment) * 8 * lr * strength * 6, rel=1e-3)


def test_adam_update_is_what_adam_moved_by():
    p = torch.nn.Parameter(torch.randn(5, 4, generator=generator()))
    optimizer = AdamO([p], lr=0.1, isometry_strength=0.0)
    for k in range(3):
        before, p.grad = p.detach().clone(), torch.randn(5, 4, generator=generator(k))
        optimizer.step()
    state = optimizer.state[p]
    u = adam_update(state["exp_avg"], state["exp_avg_sq"], state["step"])
    torch.testing.assert_close(before - 0.1 * u, p.detach(), rtol=1e-5, atol=1e-6)
