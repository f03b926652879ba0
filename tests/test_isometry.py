"""dyniso.isometry: the oracles of the theory (closed forms, invariances)."""

import math

import numpy as np
import pytest
import torch
from conftest import with_spectrum
from hypothesis import given, settings
from hypothesis import strategies as st

from dyniso.isometry import (
    as_matrix,
    conv_operator_singular_values,
    effective_rank,
    gram_deviation,
    gram_deviation_grad,
    singular_values,
    smaller_gram,
    spectrum_summary,
)
from dyniso.polar import polar_factor

SHAPES = [(7, 4), (4, 7), (5, 5), (3, 6, 4), (2, 3, 4, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_closed_form_gradient_equals_autograd(shape):
    W = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (expected,) = torch.autograd.grad(gram_deviation(W).sum(), W)
    torch.testing.assert_close(gram_deviation_grad(W.detach()), expected, rtol=1e-12, atol=1e-12)


def test_both_gram_forms_have_one_gradient_and_differ_by_the_rank_deficiency():
    W = torch.randn(9, 4, dtype=torch.float64)
    tall = (W.T @ W - torch.eye(4, dtype=torch.float64)).square().sum()
    wide = (W @ W.T - torch.eye(9, dtype=torch.float64)).square().sum()
    assert float(wide - tall) == pytest.approx(9 - 4, abs=1e-10)
    torch.testing.assert_close(4 * (W @ W.T @ W - W), gram_deviation_grad(W))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=6), st.integers(0, 3), st.booleans(), st.integers(0, 10**6))
def test_gram_deviation_is_the_sum_over_the_chosen_spectrum(sigma, extra, transpose, seed):
    W = with_spectrum(sigma, len(sigma) + extra, len(sigma), seed)
    W = W.T if transpose else W
    assert float(gram_deviation(W)) == pytest.approx(sum((s * s - 1) ** 2 for s in sigma), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(singular_values(W), sorted(sigma, reverse=True), rtol=1e-8, atol=1e-10)


def test_flow_follows_its_closed_form_and_keeps_the_singular_vectors():
    W0 = with_spectrum([0.2, 0.7, 1.8], 5, 3)
    W, dt, steps = W0.clone(), 1e-4, 5000
    for _ in range(steps):
        W = W - dt * gram_deviation_grad(W)
    s0 = singular_values(W0)
    expected = (1 + (s0**-2 - 1) * math.exp(-8 * dt * steps)) ** -0.5
    torch.testing.assert_close(singular_values(W), expected, rtol=0, atol=5e-4)  # Euler error O(dt)
    U, _, Vh = torch.linalg.svd(W0, full_matrices=False)
    core = U.T @ W @ Vh.T
    assert float((core - torch.diag(core.diag())).abs().max()) < 1e-12


def test_flow_ends_at_the_polar_factor_and_leaves_a_zero_singular_value_at_zero():
    W0 = with_spectrum([0.0, 0.5, 1.5], 4, 4 - 1)
    W = W0.clone()
    for _ in range(100):  # rounding feeds sigma = 0 with 1e-17, which grows by 1.2 a step
        W = W - 0.05 * gram_deviation_grad(W)
    torch.testing.assert_close(
        singular_values(W), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_one_explicit_step_is_bjorck_with_b_four_times_the_scale():
    W, scale = with_spectrum([0.6, 1.1, 1.4], 3, 3), 0.07
    b = 4 * scale
    torch.testing.assert_close(W - scale * gram_deviation_grad(W), (1 + b) * W - b * W @ W.T @ W, rtol=0, atol=1e-14)


def test_conv_operator_spectrum_equals_the_explicit_matrix():
    kernel = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    conv = torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
    conv.weight.data = kernel
    matrix = torch.stack([conv(e.view(1, 2, 5, 5)).flatten() for e in torch.eye(50, dtype=torch.float64)], 1).detach()
    torch.testing.assert_close(
        conv_operator_singular_values(kernel, 5), torch.linalg.svdvals(matrix), rtol=0, atol=1e-9
    )


def test_isometric_kernel_matrix_fixes_only_the_mean_square_of_the_operator():
    kernel = polar_factor(torch.randn(16, 16 * 9, generator=torch.Generator().manual_seed(0))).view(16, 16, 3, 3)
    sigma = conv_operator_singular_values(kernel, 8)
    assert float(sigma.square().mean()) == pytest.approx(1, abs=1e-5)
    assert float(sigma.min()) < 0.1 and float(sigma.max()) > 1.5


def test_stacked_weights_give_the_same_numbers_as_one_at_a_time():
    W = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    for function in (gram_deviation, gram_deviation_grad, singular_values, polar_factor, smaller_gram):
        torch.testing.assert_close(function(W), torch.stack([function(w) for w in W]))
    for stacked, singles in zip(spectrum_summary(W), zip(*map(spectrum_summary, W), strict=True), strict=True):
        torch.testing.assert_close(stacked, torch.stack(singles))


def test_summary_matches_a_spectrum_known_by_hand():
    s = spectrum_summary(with_spectrum([2.0, 1.0, 0.5], 3, 5))
    assert (
        float(s.min) == pytest.approx(0.5)
        and float(s.max) == pytest.approx(2)
        and float(s.mean) == pytest.approx(3.5 / 3)
    )
    assert float(s.condition_number) == pytest.approx(4)
    assert float(s.isometry_defect) == pytest.approx((9 + 0 + 0.75**2) / 3)
    p = np.array([2, 1, 0.5]) / 3.5
    assert float(s.effective_rank) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_effective_rank_of_a_zero_matrix_is_zero():
    assert float(effective_rank(torch.zeros(4))) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gram_deviation(torch.ones(3)), r"shape \(3,\)"),
        (lambda: gram_deviation(torch.ones(2, 2, dtype=torch.int64)), "int64"),
        (lambda: singular_values(torch.ones(0, 3)), r"shape \(0, 3\)"),
        (lambda: singular_values(torch.tensor([[1.0, math.nan]])), "1 of 2 entries that are not finite"),
        (lambda: spectrum_summary(torch.full((2, 2), math.inf)), "4 of 4"),
        (lambda: as_matrix(torch.ones(3, 2), batch_dims=1), "batch_dims=1"),
        (lambda: conv_operator_singular_values(torch.ones(1, 1, 5, 5), 4), r"\(1, 1, 5, 5\)"),
    ],
)
def test_bad_input_is_named_in_the_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("function", [gram_deviation, gram_deviation_grad, smaller_gram, singular_values, polar_factor])
def test_autocast_does_not_reach_the_mathematics(function):
    W = torch.randn(32, 24, generator=torch.Generator().manual_seed(0)) / 5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = function(W)
    assert torch.equal(inside, function(W))


def test_gradient_of_the_penalty_near_an_isometry_is_small_under_autocast_too():
    W = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram_deviation(W).backward()
    assert float(W.grad.norm()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_penalty_does_not_overflow(dtype):
    W = (300 * torch.eye(64)).to(dtype).requires_grad_()
    R = gram_deviation(W)
    R.backward()
    assert R.dtype == torch.float32 and R.item() == pytest.approx(64 * (9e4 - 1) ** 2, rel=1e-5)
    assert float(gram_deviation_grad(W.detach())[0, 0]) == pytest.approx(4 * 300 * (9e4 - 1), rel=1e-5)


@pytest.mark.parametrize("shape", [(12, 6), (6, 12), (9, 9)], ids=str)
def test_equal_rows_get_equal_gradients_to_the_last_bit(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    W[1] = W[0]
    for _ in range(50):
        W = W - 1e-2 * gram_deviation_grad(W)
    assert torch.equal(W[0], W[1])


def test_singular_values_of_a_rank_deficient_matrix_are_zero_and_not_nan():
    g = torch.Generator().manual_seed(0)
    W = torch.randn(20, 12, 1, generator=g) @ torch.randn(20, 1, 12, generator=g)  # rounding makes eigenvalues negative
    sigma = singular_values(W)
    assert torch.isfinite(sigma).all() and float(sigma[:, 1:].max()) < 1e-5 * float(sigma.max())
