"""dyniso.theory.flow: closed forms against explicit steps, and the lines at which the steps break."""

import math

import pytest
import torch

from dyniso.isometry import gram_deviation_grad, singular_values
from dyniso.polar import polar_factor
from dyniso.theory.flow import (
    descended,
    divergence_limit,
    fate,
    flow,
    half_life,
    matrix_flow,
    predicted_fate,
    pulled,
    stepped,
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("start", [0.01, 0.5, 1.0, 3.0])
def test_flow_is_the_limit_of_many_small_steps(start):
    by_steps = stepped(start, 1e-5, 20_000)
    assert float(flow(torch.tensor(start), 0.2)) == pytest.approx(float(by_steps), abs=1e-3)


def test_flow_keeps_zero_for_ever_and_starts_where_it_is_told():
    sigma = torch.tensor([0.0, 0.3, 2.0]).double()
    torch.testing.assert_close(flow(sigma, 0.0), sigma)
    assert flow(torch.zeros(1), torch.tensor([0.0, 1.0, 1000.0])).tolist() == [0, 0, 0]


def test_no_start_passes_the_wall():
    times = torch.linspace(0.01, 2, 50)
    wall = flow(torch.inf, times)
    torch.testing.assert_close(wall, (1 - torch.exp(-8 * times.double())) ** -0.5)
    assert bool((flow(torch.tensor([[2.0], [30.0]]), times) < wall).all())


@pytest.mark.parametrize(("sigma", "time"), [(-1.0, 0.1), (1.0, -0.1)])
def test_flow_refuses_negative_values_and_times(sigma, time):
    with pytest.raises(ValueError, match="at least 0"):
        flow(torch.tensor(sigma), time)


def test_matrix_flow_follows_descent_on_the_penalty():
    W = gaussian(6, 4) / 3
    torch.testing.assert_close(matrix_flow(W, 0.4), descended(W, 1e-4, 4000), rtol=0, atol=1e-3)


def test_matrix_flow_ends_at_the_polar_factor():
    W = gaussian(5, 8)
    torch.testing.assert_close(matrix_flow(W, 30.0), polar_factor(W))


def test_small_deviation_halves_in_the_half_life():
    c = 1e-4
    assert float(stepped(1.001, c, round(half_life(c))) - 1) == pytest.approx(0.0005, rel=0.01)


def test_half_life_refuses_a_step_that_does_not_settle():
    with pytest.raises(ValueError, match=r"c=0\.3"):
        half_life(0.3)


@pytest.mark.parametrize("c", [0.01, 0.1, 0.4])
def test_values_grow_beyond_the_divergence_limit_and_only_there(c):
    limit = divergence_limit(c)
    assert abs(float(stepped(1.01 * limit, c, 1))) > 1.01 * float(limit)
    assert abs(float(stepped(0.99 * limit, c, 1))) < 0.99 * float(limit)


def test_fate_is_as_predicted_away_from_the_lines():
    sigma = torch.tensor([0.2, 1.5, 0.7, 30.0, 0.5]).double()
    c = torch.tensor([0.05, 0.05, 0.35, 0.05, 0.8]).double()
    assert fate(sigma, c).tolist() == predicted_fate(sigma, c).tolist() == [0, 0, 2, 3, 3]


def test_a_value_close_to_the_limit_loses_its_sign():
    sigma, c = torch.tensor([2.6]).double(), torch.tensor([0.05]).double()
    assert float(sigma) < float(divergence_limit(c))
    assert fate(sigma, c).tolist() == [1]
    assert predicted_fate(sigma, c).tolist() == [0]


def test_pulled_moves_a_matrix_as_the_flow_says_and_leaves_its_input():
    W = gaussian(6, 4) / 3
    before = W.clone()
    moved = pulled(W, 500, lr=1e-3, isometry_strength=0.2)
    torch.testing.assert_close(moved, matrix_flow(W, 1e-3 * 0.2 * 500), rtol=0, atol=2e-3)
    assert torch.equal(W, before)
    assert float((singular_values(moved) - singular_values(W)).abs().max()) > 0.1


def test_pulled_in_two_parts_equals_pulled_at_once():
    W, options = gaussian(4, 4), {"lr": 1e-3, "isometry_strength": 0.3}
    assert torch.equal(pulled(pulled(W, 30, **options), 20, **options), pulled(W, 50, **options))


def test_vector_is_not_touched():
    v = gaussian(7)
    assert torch.equal(pulled(v, 20, lr=0.1, isometry_strength=1.0), v)


def test_half_life_times_rate_is_the_logarithm_of_two():
    assert 8e-3 * half_life(1e-3) == pytest.approx(math.log(2))


def test_descent_takes_the_closed_form_gradient():
    W = gaussian(3, 5)
    torch.testing.assert_close(descended(W, 0.01, 1), W - 0.01 * gram_deviation_grad(W))
