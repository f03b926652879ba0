"""Kernels as matrices: their spectrum, the plasticity P_K that follows from it with its bounds, and descent on them.

A kernel Theta is symmetric and positive semi-definite, (..., N, N), with N = n C rows for n samples of C outputs. On a
kernel that stands still, a gradient step of size eta takes the residual r to (I - eta Theta) r, so the part of r along
eigenvalue lambda keeps the fraction (1 - eta lambda)^2 of its loss. All that is here follows from that line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import require, require_range, require_shape, require_that, require_type
from .isometry import effective_rank

ASYMMETRY = 1e-3  # of the largest entry: above what TF32 matrix products leave in a symmetric kernel

# --------------------------------------------------------------------------------------------------- the spectrum


class NTKSummary(NamedTuple):
    """Spectrum of a kernel of size N = n C, all float64; leading axes of theta are kept.

    Attributes:
        eigenvalues: (..., N), ascending, unit of theta; rounding can make the smallest slightly negative.
        condition_number: lambda_max/lambda_min; infinite where lambda_min <= eps lambda_max, eps of theta's dtype.
        mean_over_max: mean(lambda)/lambda_max, in [1/N, 1]; 0 for a zero kernel.
        effective_rank: exp of the entropy of lambda/sum(lambda), in [1, N]; 0 for a zero kernel.
        trace: sum of lambda.
    """

    eigenvalues: Tensor
    condition_number: Tensor  # shape (...,), as those below
    mean_over_max: Tensor
    effective_rank: Tensor
    trace: Tensor


def ntk_summary(theta: Tensor) -> NTKSummary:
    """Eigenvalues of a kernel and the scale-free summaries of them.

    Args:
        theta: symmetric, shape (..., N, N). Eigenvalues below about N eps lambda_max are rounding: compute the kernel
            in float64 where the condition number matters.
    Returns:
        NTKSummary, computed in float64.
    Raises:
        ValueError: theta is empty, not square, not finite or clearly asymmetric (names shape or value).
    Source: condition number: arXiv 2606.09762, section 2; effective rank: Roy & Vetterli 2007.
    >>> summary = ntk_summary(torch.diag(torch.tensor([1.0, 4.0])))
    >>> summary.eigenvalues.tolist(), summary.condition_number.item(), summary.mean_over_max.item()
    ([1.0, 4.0], 4.0, 0.625)
    """
    eigenvalues = _eigenvalues(theta)
    low, high, trace = eigenvalues[..., 0], eigenvalues[..., -1], eigenvalues.sum(-1)
    singular = low <= torch.finfo(theta.dtype).eps * high
    condition = torch.where(singular, torch.inf, high / torch.where(singular, 1.0, low))
    size = eigenvalues.shape[-1]
    rank = effective_rank(eigenvalues.clamp_min(0))
    return NTKSummary(eigenvalues, condition, trace / (size * _positive(high)), rank, trace)


def without_constant_output(theta: Tensor, outputs: int) -> Tensor:
    """The kernel restricted to output directions that sum to zero over the C outputs of each sample.

    Softmax ignores a constant added to all logits, so the residual p - y of cross-entropy has no such part.

    Args:
        theta: symmetric, shape (..., n C, n C), row i C + c.
        outputs: C, at least 2.
    Returns:
        Shape (..., n (C - 1), n (C - 1)), in an orthonormal basis of the complement of the constant.
    Raises:
        ValueError: as `ntk_summary`; outputs < 2 or not a divisor of the size.
    Source: derived in the book's chapter on plasticity and the kernel.
    >>> without_constant_output(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 2)
    tensor([[1.]])
    """
    _require_kernel(theta)
    size = theta.shape[-1]
    if outputs < 2 or size % outputs:
        raise ValueError(f"outputs is {outputs}; expected at least 2 and a divisor of {size}")
    start = torch.eye(outputs, dtype=theta.dtype, device=theta.device)
    start[:, 0] = 1
    Q = torch.linalg.qr(start).Q[:, 1:]  # (C, C - 1); the first column of Q is the constant
    blocks = theta.unflatten(-1, (-1, outputs)).unflatten(-3, (-1, outputs))  # (..., n, C, n, C)
    return torch.einsum("ck,...icjd,dl->...ikjl", Q, blocks, Q).flatten(-2).flatten(-3, -2)


def kernel_of_spectrum(eigenvalues: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A kernel with these eigenvalues and uniformly random eigenvectors.

        Theta = Q diag(lambda) Q'

    Args:
        eigenvalues: shape (N,), floating point, none negative; their order is kept.
        generator: source of the draw, on the CPU; None is torch's global one.
    Returns:
        Theta, shape (N, N), and Q, whose column i belongs to eigenvalue i.
    Raises:
        ValueError: eigenvalues is not a vector, or one of them is negative.
    Source: uniform by the sign convention of Mezzadri 2007 (math-ph/0609050).
    >>> theta, Q = kernel_of_spectrum(torch.tensor([2.0, 1.0]))
    >>> torch.allclose(theta @ Q, Q * torch.tensor([2.0, 1.0]), atol=1e-6)
    True
    """
    if eigenvalues.ndim != 1 or not (eigenvalues >= 0).all():
        raise ValueError(f"eigenvalues is {eigenvalues}; a kernel needs a vector (N,) without negative numbers")
    size = len(eigenvalues)
    normal = torch.randn(size, size, dtype=eigenvalues.dtype, generator=generator)
    Q, R = torch.linalg.qr(normal)
    Q = (Q * R.diagonal().sign()).to(eigenvalues.device)
    return (Q * eigenvalues) @ Q.T, Q


# ------------------------------------------------------------------------------------------------------ plasticity


def plasticity(theta: Tensor, steps: int | Tensor, step_size: float | Tensor | None = None) -> Tensor:
    """Expected fraction of the squared loss that `steps` gradient steps remove, for residuals without a direction.

        P_K = 1 - (1/N) sum_i (1 - eta lambda_i)^(2K)

    With eta = 1/lambda_max it is scale-free, in [1 - (1 - 1/kappa)^2K, 1 - (1 - mean(lambda)/lambda_max)^2K], and 1
    for all K exactly if theta = c I. The kernel is held fixed over the K steps.

    Args:
        theta: symmetric, shape (..., N, N).
        steps: K, at least 1; an integer or an integer tensor of any shape, e.g. torch.tensor([1, 10, 100]).
        step_size: eta > 0, unit of 1/theta; a number or shape (...,). None means 1/lambda_max; beyond 2/lambda_max
            the loss grows and P_K becomes negative.
    Returns:
        Shape (..., *steps.shape), float64, unitless, at most 1; 0 for a zero kernel.
    Raises:
        ValueError: as `ntk_summary`; steps < 1 or not integer; step_size not positive.
    Source: derived in the book's chapter on plasticity and the kernel; a reconstruction of the definition in
        arXiv 2606.09762, section 2.
    >>> plasticity(torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([1, 2]))
    tensor([0.8750, 0.9688], dtype=torch.float64)
    """
    lambdas = _eigenvalues(theta).clamp_min(0)
    K = _whole_steps(steps).to(theta.device)
    eta = (
        1 / _positive(lambdas[..., -1])
        if step_size is None
        else torch.as_tensor(step_size, dtype=lambdas.dtype, device=lambdas.device)
    )
    if not (eta > 0).all():
        raise ValueError(f"step_size={step_size}; it must be positive")
    left = (1 - eta[..., None] * lambdas).square()  # (..., N): fraction of the loss left along each direction, K = 1
    return (1 - (left[..., None, :] ** K.reshape(-1, 1)).mean(-1)).reshape(theta.shape[:-2] + K.shape)


def plasticity_bounds(theta: Tensor, steps: int | Tensor) -> tuple[Tensor, Tensor]:
    """The two numbers between which P_K lies at eta = 1/lambda_max.

        1 - (1 - 1/kappa)^2K  <=  P_K  <=  1 - (1 - mean(lambda)/lambda_max)^2K

    Args:
        theta: symmetric, shape (..., N, N).
        steps: K, as in `plasticity`.
    Returns:
        Lower and upper bound, each of shape (..., *steps.shape), float64. The lower is 0 for a singular kernel.
    Raises:
        ValueError: as `plasticity`.
    Source: derived in the book's chapter on plasticity and the kernel: the lower by the slowest direction, the upper by
        Jensen's inequality.
    >>> plasticity_bounds(torch.diag(torch.tensor([1.0, 2.0])), 1)
    (tensor(0.7500, dtype=torch.float64), tensor(0.9375, dtype=torch.float64))
    """
    K, summary = _whole_steps(steps).to(theta.device), ntk_summary(theta)
    lower, upper = (
        1 - (1 - share[..., None]) ** (2 * K.reshape(-1))
        for share in (1 / summary.condition_number, summary.mean_over_max)
    )
    shape = theta.shape[:-2] + K.shape
    return lower.reshape(shape), upper.reshape(shape)


def flow_plasticity(theta: Tensor, time: float) -> Tensor:
    """Expected fraction of the squared loss that gradient flow removes, for residuals without a direction.

        P(t) = 1 - (1/N) sum_i exp(-2 lambda_i t)

    Only products lambda_i t enter: twice the kernel is twice the time. K steps of 1/lambda_max remove at least as much
    as flow in the time K/lambda_max.

    Args:
        theta: symmetric, shape (..., N, N).
        time: t >= 0, unit of 1/theta: the sum of the steps' sizes.
    Returns:
        Shape (...,), float64, in [0, 1].
    Raises:
        ValueError: as `ntk_summary`; time negative.
    Source: derived in the book's chapter on plasticity and the kernel.
    >>> round(float(flow_plasticity(torch.eye(2), 0.5 * math.log(2))), 4)
    0.5
    """
    require_range("time", time, 0.0, kind=float)
    return 1 - (-2 * _eigenvalues(theta).clamp_min(0) * time).exp().mean(-1)


def best_step_size(theta: Tensor) -> Tensor:
    """The constant step that serves the worst residual best, 2/(lambda_max + lambda_min).

    Source: derived in the book's chapter on plasticity and the kernel; textbook result on descent on a quadratic.
    >>> best_step_size(torch.diag(torch.tensor([1.0, 3.0])))
    tensor(0.5000, dtype=torch.float64)
    """
    lambdas = _eigenvalues(theta)
    return 2 / _positive(lambdas[..., 0] + lambdas[..., -1])


def worst_loss_left(theta: Tensor, steps: int, step_size: float | Tensor | None = None) -> Tensor:
    """Largest fraction of the loss that K steps leave of any residual.

        max_i (1 - eta lambda_i)^2K,   at the best step  ((kappa - 1)/(kappa + 1))^2K

    Args:
        theta: symmetric, shape (..., N, N).
        steps: K, at least 1.
        step_size: eta > 0, unit of 1/theta; a number or shape (...,). None means `best_step_size`.
    Returns:
        Shape (...,), float64; above 1 where the step diverges.
    Raises:
        ValueError: as `ntk_summary`; steps < 1.
    Source: derived in the book's chapter on plasticity and the kernel.
    >>> worst_loss_left(torch.diag(torch.tensor([1.0, 3.0])), 1)
    tensor(0.2500, dtype=torch.float64)
    """
    require_range("steps", steps, 1)
    lambdas = _eigenvalues(theta)
    eta = (
        best_step_size(theta)
        if step_size is None
        else torch.as_tensor(step_size, dtype=lambdas.dtype, device=lambdas.device)
    )
    return (1 - eta[..., None] * lambdas).square().amax(-1) ** steps


def loss_left(theta: Tensor, residuals: Tensor, steps: Sequence[int], step_size: float | Tensor) -> Tensor:
    """Fraction of the loss left of each residual after some numbers of steps, by descent itself, step by step.

    The check of the formulas above: it knows nothing of eigenvalues.

    Args:
        theta: symmetric, shape (N, N).
        residuals: one a column, shape (N, draws), none zero.
        steps: numbers of steps to report, ascending, e.g. (1, 10, 100).
        step_size: eta, unit of 1/theta.
    Returns:
        Shape (len(steps), draws).
    Raises:
        ValueError: no steps, or not ascending from 1.
    >>> loss_left(torch.diag(torch.tensor([1.0, 3.0])), torch.eye(2), [1, 2], 0.5)
    tensor([[0.2500, 0.2500],
            [0.0625, 0.0625]])
    """
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1:
        raise ValueError(f"steps is {steps}; expected ascending numbers of at least 1")
    r, left = residuals / residuals.norm(dim=0), []
    for k in range(1, steps[-1] + 1):
        r = r - step_size * theta @ r
        if k in steps:
            left.append(r.square().sum(0))
    return torch.stack(left)


# ------------------------------------------------------------------------- cosines through one nonlinearity


def _absolute(c: Tensor) -> Tensor:
    return 2 / math.pi * ((1 - c * c).sqrt() + c * c.asin())


def _half_way(c: Tensor) -> Tensor:
    return (c + _absolute(c)) / 2


CORRELATION_MAPS = {"abs": _absolute, "maxmin": _half_way, "relu": _half_way, "crelu": _half_way}


def correlation_map(activation: str, c: float | Tensor) -> Tensor:
    """Cosine of phi(u) and phi(v) for wide Gaussian u, v of correlation c.

        rho(c) = E|g g'| = 2/pi ( sqrt(1 - c^2) + c arcsin c )   for |z|
        ( c + rho(c) ) / 2                                       for MaxMin, ReLU and CReLU

    Args:
        activation: "abs", "maxmin", "relu" or "crelu".
        c: correlations in [-1, 1], any shape.
    Returns:
        Shape of c, float64. At least c: no nonlinearity here pulls samples apart.
    Raises:
        ValueError: another activation, or c outside [-1, 1].
    Source: derived in the book's chapter on what isometry controls; for ReLU Cho & Saul 2009 (arc-cosine kernel).
    >>> correlation_map("relu", torch.tensor([0.0, 1.0]))
    tensor([0.3183, 1.0000], dtype=torch.float64)
    """
    require("activation", activation, CORRELATION_MAPS)
    c = torch.as_tensor(c, dtype=torch.float64)
    if not (c.abs() <= 1).all():
        raise ValueError(f"c={c}; a correlation lies between -1 and 1")
    return CORRELATION_MAPS[activation](c)


# ---------------------------------------------------------------------------------------------------------- checks


def _whole_steps(steps: int | Tensor) -> Tensor:
    K = torch.as_tensor(steps)
    whole = not K.is_floating_point() and K.numel() and (K >= 1).all()
    require_that(whole, "steps", steps, "integers of at least 1")
    return K


def _eigenvalues(theta: Tensor) -> Tensor:
    _require_kernel(theta)
    return torch.linalg.eigvalsh((theta.double() + theta.double().mT) / 2)


def _positive(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def _require_kernel(theta: Tensor) -> None:
    require_type("theta", theta, Tensor, "a tensor of shape (..., N, N), e.g. empirical_ntk(model, x)")
    shape = tuple(theta.shape)
    square = theta.ndim >= 2 and shape[-1] == shape[-2] and theta.numel()
    require_shape(square, "theta", theta, "a non-empty square (..., N, N)")
    if not theta.is_floating_point() or not torch.isfinite(theta).all():
        bad = theta.numel() - int(torch.isfinite(theta).sum())
        raise ValueError(f"theta ({theta.dtype}) has to be floating point and finite; {bad} entries are not finite")
    gap = float((theta - theta.mT).abs().max() / _positive(theta.abs().max()))
    if gap > ASYMMETRY:
        raise ValueError(
            f"theta of shape {shape} is not symmetric: largest difference is {gap:.3g} of the largest entry"
        )
