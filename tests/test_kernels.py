"""Contracts of dyniso.kernels. Oracles: chosen spectra, descent step by step, and closed forms by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dyniso.activations import activation
from dyniso.kernels import (
    CORRELATION_MAPS,
    best_step_size,
    correlation_map,
    flow_plasticity,
    kernel_of_spectrum,
    loss_left,
    ntk_summary,
    plasticity,
    plasticity_bounds,
    without_constant_output,
    worst_loss_left,
)

FLOAT64 = 1e-10  # relative; sums of a few thousand float64 products: rounding is near 1e-14
seeds = pytest.mark.parametrize("seed", range(6))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(a: Tensor, b: Tensor, tolerance: float = FLOAT64) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max() / b.abs().max()) < tolerance


# ------------------------------------------------------------------------------------------------- the spectrum


def with_spectrum(*eigenvalues: float) -> Tensor:
    return kernel_of_spectrum(torch.tensor(eigenvalues, dtype=torch.float64), torch.Generator().manual_seed(0))[0]


def test_summary_of_a_chosen_spectrum():
    summary = ntk_summary(with_spectrum(1.0, 2.0, 5.0))
    assert_close(summary.eigenvalues, torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    entropy = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    expected = {"condition_number": 5, "mean_over_max": 8 / 15, "effective_rank": math.exp(entropy), "trace": 8}
    assert {k: float(getattr(summary, k)) for k in expected} == pytest.approx(expected)


def test_singular_kernel_has_infinite_condition_number():
    v = normal(5, 2)
    assert ntk_summary(v @ v.T).condition_number == math.inf
    nearly = torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64))
    assert ntk_summary(nearly.float()).condition_number == math.inf  # below float32 resolution
    assert float(ntk_summary(nearly).condition_number) == pytest.approx(1e9)


def test_zero_kernel_learns_nothing():
    summary = ntk_summary(torch.zeros(3, 3))
    assert [float(v) for v in summary[1:]] == [math.inf, 0, 0, 0]
    assert plasticity(torch.zeros(3, 3), 10) == 0


def test_stacked_kernels_equal_separate_kernels():
    stack = torch.stack([with_spectrum(1.0, 2.0, 5.0), with_spectrum(0.1, 1.0, 1.0), torch.zeros(3, 3).double()])
    steps = torch.tensor([[1, 2], [10, 1000]])
    for field, separate in zip(ntk_summary(stack), zip(*map(ntk_summary, stack), strict=True), strict=True):
        torch.testing.assert_close(field, torch.stack(separate))
    assert plasticity(stack, steps).shape == (3, 2, 2)
    torch.testing.assert_close(plasticity(stack, steps), torch.stack([plasticity(t, steps) for t in stack]))
    torch.testing.assert_close(plasticity(stack, steps)[1, 1, 0], plasticity(stack[1], 10))


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("step_size", [None, 0.3])
def test_plasticity_equals_gradient_descent_on_isotropic_residuals(steps, step_size):
    theta = with_spectrum(*[i**-1.5 for i in range(1, 41)])
    eta = 1.0 if step_size is None else step_size  # lambda_max is 1
    r0 = normal(20_000, 40)
    r = r0
    for _ in range(steps):
        r = r - eta * r @ theta
    removed = float((1 - r.square().sum(1) / r0.square().sum(1)).mean())
    assert float(plasticity(theta, steps, step_size)) == pytest.approx(removed, abs=2e-3)  # standard error 5e-4


@seeds
@pytest.mark.parametrize("steps", [1, 3, 30])
def test_plasticity_lies_between_the_bounds_of_equation_2(steps, seed):
    lambdas = normal(12, seed=seed).exp()
    kappa, mean = float(lambdas.max() / lambdas.min()), float(lambdas.mean() / lambdas.max())
    lower, upper = (float(bound) for bound in plasticity_bounds(torch.diag(lambdas), steps))
    assert lower == pytest.approx(1 - (1 - 1 / kappa) ** (2 * steps))
    assert upper == pytest.approx(1 - (1 - mean) ** (2 * steps))
    assert lower <= plasticity(torch.diag(lambdas), steps) <= upper


def test_bounds_of_stacked_kernels_have_the_shape_of_their_plasticity():
    stack = torch.stack([with_spectrum(1.0, 2.0, 5.0), torch.zeros(3, 3).double()])
    steps = torch.tensor([[1, 2, 3], [4, 5, 6]])
    lower, upper = plasticity_bounds(stack, steps)
    assert lower.shape == upper.shape == plasticity(stack, steps).shape == (2, 2, 3)
    assert_close(lower[0], plasticity_bounds(stack[0], steps)[0])
    assert not lower[1].any() and not upper[1].any()  # a zero kernel learns nothing


@pytest.mark.parametrize("slow", [1, 399])
def test_bounds_are_approached_by_one_fast_and_by_one_slow_direction(slow):
    lambdas = torch.ones(400, dtype=torch.float64)
    lambdas[:slow] = 0.01
    lower, upper = plasticity_bounds(torch.diag(lambdas), 10)
    assert float(plasticity(torch.diag(lambdas), 10)) == pytest.approx(float(upper if slow == 1 else lower), abs=3e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_plasticity_is_one_for_a_multiple_of_the_identity(scale):
    assert float(plasticity(scale * torch.eye(4), 1)) == pytest.approx(1)


def test_plasticity_does_not_depend_on_the_scale_of_the_kernel():
    theta = with_spectrum(1.0, 2.0, 5.0)
    torch.testing.assert_close(plasticity(1e4 * theta, 3), plasticity(theta, 3))


def test_rounding_below_zero_is_not_amplified_by_many_steps():
    theta = torch.diag(torch.tensor([1.0, -1e-6], dtype=torch.float64))
    assert float(plasticity(theta, 10**8)) == pytest.approx(0.5)


def test_plasticity_is_negative_where_the_step_diverges():
    assert plasticity(torch.eye(2), 5, step_size=3.0) < 0


def test_constant_output_is_projected_out_of_every_sample():
    n, C = 4, 3
    J = normal(n * C, 50)
    centred = (J.reshape(n, C, 50) - J.reshape(n, C, 50).mean(1, keepdim=True)).reshape(n * C, 50)
    reduced = without_constant_output(J @ J.T, C)
    assert reduced.shape == (8, 8)
    expected = torch.linalg.eigvalsh(centred @ centred.T)[n:]  # the n constants have eigenvalue zero
    assert_close(torch.linalg.eigvalsh(reduced), expected)


def test_constant_output_is_all_that_is_projected_out():
    shared = torch.kron(with_spectrum(1.0, 2.0), torch.ones(3, 3, dtype=torch.float64))
    assert without_constant_output(shared, 3).abs().max() < FLOAT64
    theta = torch.stack([torch.eye(6), 2 * torch.eye(6)]).double()
    assert_close(without_constant_output(theta, 3), theta[:, :4, :4])


# -------------------------------------------------------------------------------------------- other conventions


def test_kernel_of_spectrum_has_the_spectrum_and_the_eigenvectors_that_it_says():
    lambdas = torch.tensor([3.0, 0.5, 7.0, 0.0], dtype=torch.float64)
    theta, Q = kernel_of_spectrum(lambdas, torch.Generator().manual_seed(3))
    assert_close(Q.T @ Q, torch.eye(4, dtype=torch.float64))
    assert_close(theta @ Q, Q * lambdas)
    assert not torch.equal(theta, kernel_of_spectrum(lambdas, torch.Generator().manual_seed(4))[0])


def test_eigenvectors_of_a_random_kernel_have_no_preferred_direction():
    g = torch.Generator().manual_seed(0)
    first = torch.stack([kernel_of_spectrum(torch.ones(3).double(), g)[1][:, 0] for _ in range(2000)])
    assert first.mean(0).abs().max() < 0.05  # standard error 0.013; plain QR has a fixed sign in its first entry
    assert (first.T @ first / 2000 - torch.eye(3) / 3).abs().max() < 0.05


def test_flow_is_the_limit_of_many_short_steps():
    theta, time = with_spectrum(*[i**-1.2 for i in range(1, 21)]), 10.0
    gaps = [float(plasticity(theta, k, step_size=time / k) - flow_plasticity(theta, time)) for k in (100, 1000, 10_000)]
    assert gaps[0] / 8 > gaps[1] > 0 and gaps[1] / 8 > gaps[2] > 0 and gaps[2] < 1e-4


@seeds
def test_steps_of_one_over_lambda_max_remove_at_least_what_flow_does(seed):
    lambdas = normal(12, seed=seed).exp()
    theta, unit = torch.diag(lambdas), float(1 / lambdas.max())
    for steps in (1, 10, 100):
        assert plasticity(theta, steps) >= flow_plasticity(theta, steps * unit)


def test_twice_the_kernel_is_twice_the_time():
    theta = with_spectrum(1.0, 2.0, 5.0)
    assert_close(flow_plasticity(2 * theta, 0.3), flow_plasticity(theta, 0.6))


def test_worst_residual_at_the_best_step_is_the_formula_of_the_condition_number():
    theta = with_spectrum(*torch.linspace(1, 0.01, 30).tolist())
    assert float(best_step_size(theta)) == pytest.approx(2 / 1.01)
    assert float(worst_loss_left(theta, 10)) == pytest.approx((99 / 101) ** 20)


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 1.5])
def test_every_other_step_leaves_more_of_the_worst_residual(factor):
    theta = with_spectrum(1.0, 2.0, 5.0)
    assert worst_loss_left(theta, 3, factor * best_step_size(theta)) > worst_loss_left(theta, 3)


def test_descent_from_eigenvectors_leaves_what_the_formula_says():
    lambdas = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    theta, Q = kernel_of_spectrum(lambdas, torch.Generator().manual_seed(1))
    left = loss_left(theta, 5 * Q, (1, 4), 0.4)  # lengths of residuals do not matter
    assert_close(left, torch.stack([(1 - 0.4 * lambdas) ** 2, (1 - 0.4 * lambdas) ** 8]))
    assert float(left[1].max()) == pytest.approx(float(worst_loss_left(theta, 4, 0.4)))


def test_descent_over_an_orthonormal_basis_removes_the_plasticity():
    theta = with_spectrum(*[i**-1.5 for i in range(1, 21)])
    left = loss_left(theta, torch.eye(20, dtype=torch.float64), (7,), 0.9)
    assert float(1 - left.mean()) == pytest.approx(float(plasticity(theta, 7, step_size=0.9)), abs=1e-12)


# ------------------------------------------------------------------------------------------------ correlations


@pytest.mark.parametrize("name", CORRELATION_MAPS)
@pytest.mark.parametrize("c", [-0.9, 0.0, 0.3, 0.8, 1.0])
def test_correlation_map_equals_monte_carlo(name, c):
    u, w = normal(2, 2**17)
    phi = activation(name)
    cosine = torch.cosine_similarity(phi(u), phi(c * u + math.sqrt(1 - c * c) * w), dim=0)
    assert float(correlation_map(name, c)) == pytest.approx(float(cosine), abs=0.01)  # standard error below 3e-3


def test_correlation_maps_never_pull_samples_apart():
    c = torch.from_numpy(np.linspace(-1, 1, 201))
    assert all((correlation_map(name, c) >= c - 1e-12).all() for name in CORRELATION_MAPS)


# ------------------------------------------------------------------------------------------------------- errors


BAD_VALUES = {
    "not square": (lambda: ntk_summary(torch.zeros(2, 3)), r"\(2, 3\)"),
    "vector": (lambda: ntk_summary(torch.zeros(3)), r"\(3,\)"),
    "empty": (lambda: plasticity(torch.zeros(0, 0), 1), r"\(0, 0\)"),
    "nan": (lambda: ntk_summary(torch.eye(3) * torch.nan), r"9 entries are not finite"),
    "infinite": (lambda: plasticity(torch.diag(torch.tensor([1.0, torch.inf])), 1), r"not finite"),
    "integer": (lambda: ntk_summary(torch.eye(3, dtype=torch.int64)), r"int64"),
    "asymmetric": (lambda: ntk_summary(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), r"\(2, 2\) is not symmetric.*0.5"),
    "no steps": (lambda: plasticity(torch.eye(2), 0), r"steps=0"),
    "half steps": (lambda: plasticity(torch.eye(2), torch.tensor([1.5])), r"steps=tensor\(\[1.5"),
    "step size": (lambda: plasticity(torch.eye(2), 1, step_size=-1.0), r"step_size=-1.0"),
    "one output": (lambda: without_constant_output(torch.eye(4), 1), r"outputs is 1"),
    "undivided": (lambda: without_constant_output(torch.eye(4), 3), r"outputs is 3.*divisor of 4"),
    "bounds, no steps": (lambda: plasticity_bounds(torch.eye(2), 0), r"steps=0"),
    "negative time": (lambda: flow_plasticity(torch.eye(2), -1.0), r"time=-1.0; it must be"),
    "worst, no steps": (lambda: worst_loss_left(torch.eye(2), 0), r"steps=0; it must be"),
    "descending steps": (lambda: loss_left(torch.eye(2), torch.eye(2), (2, 1), 0.1), r"steps is \(2, 1\)"),
    "no step at all": (lambda: loss_left(torch.eye(2), torch.eye(2), (), 0.1), r"steps is \(\)"),
    "negative eigenvalue": (lambda: kernel_of_spectrum(torch.tensor([1.0, -1.0])), r"without negative numbers"),
    "matrix of eigenvalues": (lambda: kernel_of_spectrum(torch.eye(2)), r"vector \(N,\)"),
    "unknown map": (lambda: correlation_map("rellu", 0.0), r"activation='rellu'.*did you mean 'relu'"),
    "no correlation": (lambda: correlation_map("relu", 1.5), r"c=1.5.*between -1 and 1"),
}


@pytest.mark.parametrize(("call", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_value_is_a_value_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rounding_below_zero_is_not_amplified_by_a_long_flow():
    theta = torch.diag(torch.tensor([1.0, -1e-6], dtype=torch.float64))
    assert float(flow_plasticity(theta, 1e8)) == pytest.approx(0.5)
