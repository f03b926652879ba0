"""dyniso.polar: polynomial iterations that end at the nearest isometry, against the SVD and published coefficients."""

import math

import numpy as np
import pytest
import torch
from conftest import with_spectrum

from dyniso.isometry import singular_values
from dyniso.polar import (
    CUSHION,
    POLAR_STEPS,
    SCHEMES,
    apply_polynomials,
    bjorck_polynomial,
    minimax_polynomial,
    orthogonalise,
    polar_factor,
    scale_below_one,
    step_polynomials,
)


@pytest.mark.parametrize("method", POLAR_STEPS)
@pytest.mark.parametrize("shape", [(64, 64), (30, 50), (50, 30), (3, 16, 16)])
def test_iterative_polar_factors_agree_with_the_svd(method, shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(polar_factor(W, method), polar_factor(W, "svd"), rtol=0, atol=2e-4)


@pytest.mark.parametrize("method", POLAR_STEPS)
def test_polar_factor_takes_enough_steps_for_a_condition_number_of_a_million(method):
    W = with_spectrum(np.geomspace(1e-5, 1, 12), 12, 12)  # the scaling takes another factor, below 10
    assert float((singular_values(polar_factor(W, method)) - 1).abs().max()) < 1e-12


def test_polar_factor_is_the_nearest_isometry():
    W = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = torch.dist(W, polar_factor(W))
    others = [torch.dist(W, torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q) for _ in range(50)]
    assert best < min(others)


# ------------------------------------------------------------------------------------- odd polynomials

# scheme: steps from singular values spread over [0.001, 1], and over [0.7, 1], until all are within 1e-9 of one
STEPS_TO_ONE = {
    "newton_schulz": (22, 5),
    "bjorck-2": (14, 3),
    "bjorck-3": (11, 3),
    "bjorck-4": (10, 3),
    "cans": (11, 11),  # the interval schemes follow `lower`, here 0.001, whatever the spectrum is
    "polar_express": (8, 8),
}
# [(8.28721, ...)]: Amsel et al. 2025 (arXiv 2505.16932) for lower = 0.001, before the authors' division by 1.01
POLAR_EXPRESS = [
    (8.28721, -23.59589, 17.30039),
    (4.10706, -2.94785, 0.54484),
    (3.94869, -2.90890, 0.55182),
    (3.31842, -2.48849, 0.51005),
    (2.30065, -1.66890, 0.41881),
    (1.89130, -1.26800, 0.37680),
    (1.87500, -1.25000, 0.37500),
]


def on_values(polynomials, sigma):
    """p_n(... p_1(sigma)) by numpy, apart from the library's loop."""
    for p in polynomials:
        sigma = sum(c * sigma ** (2 * k + 1) for k, c in enumerate(p))
    return sigma


@pytest.mark.parametrize(("scheme", "steps"), STEPS_TO_ONE.items(), ids=STEPS_TO_ONE)
@pytest.mark.parametrize(("start", "lower"), [(0, 1e-3), (1, 0.7)])
def test_known_spectrum_reaches_one_in_the_stated_number_of_steps(scheme, steps, start, lower):
    W = with_spectrum(np.geomspace(lower, 1, 32), 40, 32)
    steps = steps[start]
    before, after = (apply_polynomials(W, step_polynomials(scheme, steps)[:n]) for n in (steps - 1, steps))
    errors = [float((singular_values(X) - 1).abs().max()) for X in (before, after)]
    assert errors[1] < 1e-9 < errors[0]


def test_muon_stays_away_from_one_at_any_number_of_steps():
    W = with_spectrum(np.geomspace(1e-3, 1, 32), 32, 32)
    for steps in (10, 20, 40, 80):
        error = float((singular_values(apply_polynomials(W, step_polynomials("muon", steps))) - 1).abs().max())
        assert 0.2 < error < 0.35


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8), (3, 9, 4)], ids=["tall", "wide", "square", "stacked"])
def test_polynomial_of_a_matrix_is_the_polynomial_of_its_singular_values(scheme, shape):
    W = scale_below_one(torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    U, sigma, Vh = torch.linalg.svd(W, full_matrices=False)
    polynomials = step_polynomials(scheme, 4)
    expected = U * on_values(polynomials, sigma)[..., None, :] @ Vh
    torch.testing.assert_close(apply_polynomials(W, polynomials), expected, rtol=0, atol=1e-11)


def test_singular_values_alone_go_through_as_one_by_one_matrices():
    sigma = torch.linspace(0.1, 1, 7, dtype=torch.float64)
    polynomials = step_polynomials("polar_express", 3)
    torch.testing.assert_close(
        apply_polynomials(sigma[:, None, None], polynomials).flatten(), on_values(polynomials, sigma)
    )


def test_bjorck_coefficients_are_the_published_ones():
    assert bjorck_polynomial(2) == (15 / 8, -10 / 8, 3 / 8)
    assert bjorck_polynomial(3) == (35 / 16, -35 / 16, 21 / 16, -5 / 16)
    assert bjorck_polynomial(4) == (315 / 128, -420 / 128, 378 / 128, -180 / 128, 35 / 128)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bjorck_map_is_flat_at_one_to_its_order(order):
    p = np.polynomial.Polynomial(np.ravel([(0, c) for c in bjorck_polynomial(order)]))
    assert [p(1), *(p.deriv(n)(1) for n in range(1, order + 1))] == pytest.approx([1] + order * [0], abs=1e-12)
    assert abs(p.deriv(order + 1)(1)) > 1


@pytest.mark.parametrize("terms", [2, 3, 4])
@pytest.mark.parametrize("interval", [(1e-9, 1), (1e-3, 1), (0.1, 1), (0.7, 1.3), (0.95, 1.05)])
def test_minimax_error_alternates_at_one_more_point_than_it_has_coefficients(terms, interval):
    grid = np.linspace(*interval, 2001)
    error = on_values([minimax_polynomial(*interval, terms)], grid) - 1
    turns = [0, *np.flatnonzero(np.diff(error)[:-1] * np.diff(error)[1:] < 0) + 1, len(grid) - 1]
    alternating = (-1.0) ** np.arange(1, terms + 2) * np.abs(error).max()
    np.testing.assert_allclose(error[turns], alternating, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [(1e-6, 1), (0.1, 1), (0.6, 1.4), (0.999, 1.001)])
def test_best_cubic_has_its_closed_form(a, b):
    e = ((a * a + a * b + b * b) / 3) ** 0.5
    c = 2 / (2 * e**3 + a * b * (a + b))
    assert minimax_polynomial(a, b, 2) == pytest.approx((3 * c * e * e, -c), rel=1e-9)


def test_minimax_polynomial_of_a_short_interval_is_bjorcks():
    for terms in (2, 3):
        assert minimax_polynomial(0.998, 1.002, terms) == pytest.approx(bjorck_polynomial(terms - 1), rel=1e-4)
        assert minimax_polynomial(1, 1, terms) == bjorck_polynomial(terms - 1)


def test_polar_express_has_the_published_coefficients():
    np.testing.assert_allclose(step_polynomials("polar_express", 7, 1e-3), POLAR_EXPRESS, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheme", ["cans", "polar_express"])
@pytest.mark.parametrize("lower", [1e-5, 1e-3, 0.1])
def test_interval_schemes_centre_the_image_of_their_interval_at_one_in_every_step(scheme, lower):
    sigma, widths = np.geomspace(lower, 1, 100_001), []
    for p in step_polynomials(scheme, 20, lower):
        sigma = on_values([p], sigma)
        assert sigma.max() + sigma.min() == pytest.approx(2, abs=1e-6)
        widths.append(sigma.max() - sigma.min())
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-12


def test_cushion_of_polar_express_acts_only_on_wide_intervals():
    first, later = step_polynomials("polar_express", 2, 2 * CUSHION), step_polynomials("polar_express", 2, CUSHION / 2)
    assert first[0] == pytest.approx(minimax_polynomial(2 * CUSHION, 1, 3))
    assert later[0][0] > minimax_polynomial(CUSHION, 1, 3)[0]


def test_cold_projection_needs_fewer_steps_with_interval_schemes():
    W = with_spectrum(np.geomspace(1e-3, 1, 32), 32, 32)
    errors = {s: float((singular_values(orthogonalise(W, s, 12)) - 1).abs().max()) for s in SCHEMES}
    assert max(errors["cans"], errors["polar_express"]) < 1e-3 < 0.5 < errors["newton_schulz"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_orthogonalise_is_differentiable(scheme):
    W = with_spectrum([0.4, 0.7, 1.0], 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda V: orthogonalise(V, scheme, 3), W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: polar_factor(torch.eye(2), "qr"), "'qr'; allowed are 'svd'"),
        (lambda: polar_factor(torch.full((2, 2), math.nan)), "not finite"),
        (lambda: polar_factor(torch.eye(2), "polar_expres"), "did you mean 'polar_express'"),
        (lambda: polar_factor(torch.eye(2), "muon"), "allowed are 'svd', 'newton_schulz'"),
        (lambda: polar_factor(torch.ones(3, 0), "cans"), r"shape \(3, 0\)"),
        (lambda: polar_factor(torch.full((2, 2), math.inf), "cans"), "not finite"),
        (lambda: orthogonalise(torch.ones(0, 3), "cans", 3), r"shape \(0, 3\)"),
        (lambda: orthogonalise(torch.eye(2), "bjork-2", 3), "did you mean 'bjorck-2'"),
        (lambda: orthogonalise(torch.eye(2), "cans", 0), "steps=0"),
        (lambda: step_polynomials("cans", 3, lower=0.0), "lower=0.0"),
    ],
)
def test_bad_input_is_named_in_the_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("method", POLAR_STEPS)
def test_rank_deficient_matrix_is_reported_by_the_iterative_polar_factor(method):
    with pytest.raises(RuntimeError, match=rf"{method}.*rank-deficient"):
        polar_factor(torch.ones(4, 4), method)


def test_float64_is_held_to_the_rounding_of_float64():
    W = with_spectrum(
        [1.0, 4.2e-7], 2, 2
    )  # the iteration stops at |Gram - I| of about 1e-7, which float32 would call exact
    with pytest.raises(RuntimeError, match="stopped at"):
        polar_factor(W, "newton_schulz")
    assert polar_factor(W, "newton_schulz", tolerance=1e-5).shape == (2, 2)
