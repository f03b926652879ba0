"""dyniso.theory.revival: a layer with dead units, and the updates that wake them or do not."""

import math

import pytest
import torch

from dyniso.theory.flow import matrix_flow
from dyniso.theory.revival import half_uncovered, scene, shrunk_and_perturbed, spectral_limit, steps_until, time_to


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


PLAY = scene(32, draws(), samples=600)


def test_scene_has_orthonormal_rows_and_inputs_of_mean_norm_one():
    torch.testing.assert_close(PLAY.healthy @ PLAY.healthy.T, torch.eye(32).double())
    assert float(PLAY.inputs.norm(dim=1).mean()) == pytest.approx(1)
    assert float(PLAY.inputs.min()) == 0


@pytest.mark.parametrize("bias", [0.0, -0.2])
def test_killed_rows_fire_on_no_input_and_the_others_are_as_before(bias):
    W = PLAY.killed(bias)
    assert PLAY.dying == 10
    assert float((PLAY.inputs @ W[:10].T + bias).max()) <= 0
    torch.testing.assert_close(W.norm(dim=1), torch.ones(32).double())
    assert torch.equal(W[10:], PLAY.healthy[10:])


def test_rows_that_cannot_be_killed_are_an_error_that_counts_them():
    with pytest.raises(RuntimeError, match="10 of 10 units do not die"):
        PLAY.killed(5.0)


def test_width_too_small_to_have_a_dying_unit_is_refused():
    with pytest.raises(ValueError, match="width=3"):
        scene(3, draws())


def test_flow_of_the_penalty_wakes_units_without_a_bias_and_not_below_the_floor():
    W, floor = PLAY.killed(0.0), -1.001 * float(PLAY.inputs.norm(dim=1).max())
    assert PLAY.dead(matrix_flow(W, 6.0), 0.0) == 0
    assert PLAY.dead(matrix_flow(W, 6.0), floor) == 10


def test_time_to_is_the_first_time_and_nan_if_there_is_none():
    times = torch.tensor([1.0, 2.0, 3.0])
    assert time_to(0.5, lambda s: 8 if s < 2 else 4, 8, times) == 2.0
    assert math.isnan(time_to(0.5, lambda s: 8, 8, times))


def test_random_row_of_a_wider_layer_is_uncovered_later():
    narrow, wide = (half_uncovered(n, draws(), rows=400) for n in (8, 128))
    assert (wide - narrow) / math.log(16) == pytest.approx(1 / 8, abs=0.03)


def test_spectral_penalty_moves_the_largest_singular_value_only():
    W = torch.diag(torch.tensor([3.0, 0.4, 0.2])).double()
    torch.testing.assert_close(
        torch.linalg.svdvals(spectral_limit(W)), torch.tensor([1.0, 0.4, 0.2]).double(), rtol=0, atol=1e-3
    )


def test_one_draw_of_shrink_and_perturb_has_the_law_of_all_steps():
    W, shrink, perturb = torch.ones(60, 50), 0.9, 0.1
    slow = W
    g = draws(1)
    for _ in range(5):
        slow = shrink * slow + perturb * torch.randn(W.shape, generator=g) / 50**0.5
    fast, left = shrunk_and_perturbed(W, 5, draws(2), shrink, perturb)
    assert left == pytest.approx(shrink**5)
    assert float(fast.mean()) == pytest.approx(float(slow.mean()), abs=0.01)
    assert float(fast.std()) == pytest.approx(float(slow.std()), rel=0.06)


def test_decoupled_pull_takes_the_time_of_the_flow():
    W = torch.diag(torch.tensor([0.5, 1.5])).double()
    small = lambda V: float(torch.linalg.svdvals(V)[-1]) > 0.9  # noqa: E731
    steps = steps_until(small, W, lr=1e-3, isometry_strength=0.5)
    exact = math.log((0.5**-2 - 1) / (0.9**-2 - 1)) / 8
    assert steps == pytest.approx(exact / 5e-4, rel=0.02)


def test_coupled_pull_waits_until_adam_has_forgotten_larger_gradients():
    W = torch.diag(torch.tensor([0.5, 1.5])).double()
    moved = lambda V: float((V - W).abs().max()) > 0.05  # noqa: E731
    options = {"lr": 1e-3, "betas": (0.9, 0.98), "isometry_strength": 0.1, "coupled": True}
    fresh, after_ten, after_thousand = (steps_until(moved, W, past=past, **options) for past in (None, 10, 1000))
    assert fresh < after_ten < after_thousand
    assert after_thousand - after_ten == pytest.approx(2 * math.log(100) / 0.02, rel=0.2)


def test_condition_that_never_holds_costs_all_steps():
    assert steps_until(lambda W: False, torch.eye(2), most=7, lr=1e-3, isometry_strength=0.1) == 7
