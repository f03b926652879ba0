"""dyniso.theory.convergence: errors of the polynomial schemes, against the matrices that they stand for."""

import pytest
import torch

from dyniso.isometry import singular_values
from dyniso.polar import SCHEMES, minimax_polynomial, orthogonalise, scale_below_one, step_polynomials
from dyniso.theory.convergence import LABELS, errors_along, evaluate, extremes, need, steps_to

NEAR = torch.linspace(0.7, 1.3, 9).double()


def gaussian(size=12):
    return torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_errors_of_singular_values_are_those_of_the_matrix(scheme):
    M = gaussian()
    found = errors_along(scheme, singular_values(scale_below_one(M)), 5, lower=1e-3)
    assert len(found) == 6
    matrix = float((singular_values(orthogonalise(M, scheme, 5)) - 1).abs().max())
    assert found[-1] == pytest.approx(matrix, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("scheme", "factor", "order"), [("newton_schulz", 1.5, 2), ("bjorck-2", 2.5, 3)])
def test_error_shrinks_with_the_order_of_the_scheme(scheme, factor, order):
    before, after = errors_along(scheme, torch.tensor([1 - 1e-3]).double(), 1)
    assert after == pytest.approx(factor * before**order, rel=0.01)


def test_every_scheme_but_muons_arrives_from_near():
    arrived = {s: steps_to(errors_along(s, NEAR, 12)) for s in SCHEMES}
    assert [s for s, steps in arrived.items() if steps is None] == ["muon"]


def test_interval_schemes_that_know_the_interval_are_not_slower_than_those_that_guess():
    sigma = singular_values(gaussian()) / 10
    told = steps_to(errors_along("cans", sigma, 30))
    guessed = steps_to(errors_along("cans", sigma / sigma.max(), 30, lower=1e-4))
    assert told <= guessed


def test_need_counts_one_product_for_each_coefficient():
    found = need("bjorck-3", NEAR / NEAR.max(), lower=1e-3)
    assert found.products == 4 * found.steps
    assert len(step_polynomials("bjorck-3", 1)[0]) == 4


def test_need_of_a_scheme_that_does_not_arrive_is_none():
    assert need("muon", NEAR / NEAR.max(), lower=1e-3) is None


@pytest.mark.parametrize("terms", [2, 3])
def test_errors_of_a_minimax_polynomial_alternate_once_more_than_it_has_coefficients(terms):
    heights = extremes(minimax_polynomial(0.2, 1, terms), 0.2, 1)
    assert len(heights) == terms + 1
    for k, height in enumerate(heights):
        assert height == pytest.approx(-((-1) ** k) * abs(heights[0]), abs=1e-5)


def test_polynomial_is_evaluated_in_the_shape_of_its_argument():
    sigma = torch.tensor([[0.0, 1.0], [2.0, 0.5]])
    torch.testing.assert_close(evaluate((3.0, -2.0), sigma), 3 * sigma - 2 * sigma**3)


def test_every_scheme_has_a_label():
    assert list(LABELS) == list(SCHEMES)
