"""How far a weight is from an isometry, and the nearest isometry to it.

Everything here works on the last two axes, (out, in), so a stack of runs (runs, out, in) takes the same path as one
layer of one network. Notation: W = U diag(sigma) V', m = min(out, in), n = max(out, in).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import require_shape, require_that, require_type


def require_matrix(W: Tensor) -> None:
    """Refuse what is no weight.

    Args:
        W: a weight, shape (..., out, in).
    Raises:
        TypeError: W is no tensor.
        ValueError: W has fewer than two axes, an empty one, or is not floating point.

    >>> require_matrix(torch.ones(3))
    Traceback (most recent call last):
    ValueError: W has shape (3,); expected at least 2 non-empty axes (..., out, in)
    """
    require_type("W", W, Tensor, "a tensor of shape (..., out, in)")
    require_shape(W.ndim >= 2 and 0 not in W.shape, "W", W, "at least 2 non-empty axes (..., out, in)")
    require_that(W.is_floating_point(), "W.dtype", W.dtype, "floating point")


def require_finite(W: Tensor) -> None:
    """`require_matrix`, and a ValueError that counts the entries that are NaN or infinite. Synchronises.

    >>> require_finite(torch.tensor([[1.0, torch.nan]]))
    Traceback (most recent call last):
    ValueError: W has 1 of 2 entries that are not finite; shape (1, 2)
    """
    require_matrix(W)
    bad = W.numel() - int(torch.isfinite(W).sum())
    if bad:
        raise ValueError(f"W has {bad} of {W.numel()} entries that are not finite; shape {tuple(W.shape)}")


def as_matrix(weight: Tensor, batch_dims: int = 0) -> Tensor:
    """A weight as a stack of matrices: convolution kernels become (out, in*k*k), matrices stay as they are.

    Args:
        weight: shape (*batch, out, in) or (*batch, out, in, k, ...), e.g. (64, 32, 3, 3) or (8, 512, 784).
        batch_dims: number of leading axes that index independent runs.
    Returns:
        Shape (*batch, out, in*k*...): a view where the memory layout allows one.
    Raises:
        ValueError: fewer than two axes after the batch axes.
    Source: the paper reshapes kernels to matrices; the layout (rows = output channels) is our choice.

    >>> as_matrix(torch.zeros(64, 32, 3, 3)).shape
    torch.Size([64, 288])
    >>> as_matrix(torch.zeros(5, 64, 32, 3, 3), batch_dims=1).shape
    torch.Size([5, 64, 288])
    """
    expected = f"a matrix or a kernel after batch_dims={batch_dims} axes"
    require_shape(weight.ndim >= batch_dims + 2, "weight", weight, expected)
    return weight.flatten(batch_dims + 1) if weight.ndim > batch_dims + 2 else weight


def half_precision(W: Tensor) -> bool:
    """Whether W is float16 or bfloat16, in which a Gram matrix is noise of size 1e-3 or overflows.

    >>> half_precision(torch.ones(2, dtype=torch.bfloat16))
    True
    """
    return W.dtype in (torch.float16, torch.bfloat16)


@contextmanager
def full_precision(W: Tensor) -> Iterator[Tensor]:
    """W in single precision at least, and no autocast while the block runs; autograd leads back to W's own dtype.

    >>> with full_precision(torch.ones(2, dtype=torch.float16)) as W:
    ...     print(W.dtype)
    torch.float32
    """
    kind = W.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if casts else nullcontext():
        yield W.float() if half_precision(W) else W


def smaller_gram(W: Tensor) -> Tensor:
    """The m x m Gram matrix: W'W for tall and square W, WW' for wide W.

    Args:
        W: shape (..., out, in), e.g. (8, 512, 784).
    Returns:
        Shape (..., m, m), m = min(out, in), e.g. (8, 512, 512); float32 for half-precision W, under autocast too.

    >>> smaller_gram(torch.tensor([[1.0, 2.0]]))
    tensor([[5.]])
    """
    with full_precision(W) as W:
        return W.mT @ W if W.shape[-2] >= W.shape[-1] else W @ W.mT


def gram_deviation(W: Tensor) -> Tensor:
    """Squared Frobenius distance of the smaller Gram matrix of W from the identity.

        R(W) = ||W'W - I||_F^2   if out >= in,   ||WW' - I||_F^2 otherwise
             = sum_i (sigma_i^2 - 1)^2

    Args:
        W: weight, shape (..., out, in), e.g. (8, 512, 784): 8 runs at once. Floating point, any device.
    Returns:
        Shape (...,), unitless; float32 for half-precision W, under autocast too. Zero exactly where all singular
        values are 1. Differentiable.
    Raises:
        ValueError: W has fewer than 2 axes, an empty axis, or is not floating point.
    Source: arXiv 2606.09762, eq. 16.

    >>> float(gram_deviation(torch.eye(3)))
    0.0
    >>> float(gram_deviation(2 * torch.eye(3)))
    27.0
    """
    require_matrix(W)
    G = smaller_gram(W)
    return (G - torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)).square().sum((-2, -1))


def gram_deviation_grad(W: Tensor) -> Tensor:
    """Gradient of `gram_deviation` in closed form: 4 W (W'W - I) = 4 (WW' - I) W.

    In singular values this is U diag(4 sigma (sigma^2 - 1)) V': it never turns a singular vector.

    Args:
        W: weight, shape (..., out, in).
    Returns:
        Shape (..., out, in); float32 for half-precision W, under autocast too. Two matrix products, 4 m^2 n flops.
    Raises:
        ValueError: as `gram_deviation`.
    Source: derived from arXiv 2606.09762, eq. 16. The authors' RL code uses the factor 2 (half of this).

    >>> gram_deviation_grad(2 * torch.eye(2))
    tensor([[24.,  0.],
            [ 0., 24.]])
    """
    require_matrix(W)
    G = smaller_gram(W)
    with full_precision(W) as W:
        product = W @ G if W.shape[-2] >= W.shape[-1] else G @ W
        return product.sub_(W).mul_(4)  # not (G - I) W: equal rows would round apart, and the flow leaves them equal


def spectrum(W: Tensor) -> Tensor:
    """`singular_values` without its checks: no host synchronisation, and the caller vouches for finite entries.

    Below float64 they are the roots of the eigenvalues of the float64 Gram: an error of 1.5e-8 sigma_max, less than
    that of a float32 SVD.

    Args:
        W: shape (..., out, in), any float dtype.
    Returns:
        Shape (..., m), descending; float64 for float64, float32 otherwise.

    >>> spectrum(torch.diag(torch.tensor([1.0, 3.0])))
    tensor([3., 1.])
    """
    W = W.detach()
    if W.dtype == torch.float64:
        return torch.linalg.svdvals(W)
    return torch.linalg.eigvalsh(smaller_gram(W.double())).flip(-1).clamp_min(0).sqrt().float()


def singular_values(W: Tensor) -> Tensor:
    """Singular values in descending order.

    Args:
        W: shape (..., out, in), any float dtype and device.
    Returns:
        Shape (..., m), float32 at least, on W's device.
    Raises:
        ValueError: as `gram_deviation`, or W holds NaN or infinity (the message says how many entries).

    >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    tensor([4., 3.])
    """
    require_finite(W)
    return spectrum(W)


def effective_rank(sigma: Tensor) -> Tensor:
    """exp of the entropy of sigma/sum(sigma) over the last axis.

    Args:
        sigma: singular values, or other numbers of at least 0, shape (..., m).
    Returns:
        Shape (...,), from 1 to m; 0 where all are zero, NaN where one is.
    Source: Roy and Vetterli 2007. The authors' later code uses sigma^2 in place of sigma.

    >>> round(float(effective_rank(torch.ones(4))), 4)
    4.0
    """
    p = sigma / sigma.sum(-1, keepdim=True).clamp_min(torch.finfo(sigma.dtype).tiny)
    entropy = -torch.special.xlogy(p, p).sum(-1)
    return torch.where(sigma.amax(-1) == 0, torch.zeros_like(entropy), entropy.exp())  # NaN stays NaN


class SpectrumSummary(NamedTuple):
    """Summary of one spectrum per leading index; every field has shape (...,)."""

    min: Tensor
    max: Tensor
    mean: Tensor
    condition_number: Tensor  # max / min, infinite for a singular matrix
    isometry_defect: Tensor  # mean (sigma^2 - 1)^2 = gram_deviation / m
    effective_rank: Tensor


def summarise_spectrum(sigma: Tensor) -> SpectrumSummary:
    """`spectrum_summary` from singular values that are at hand already.

    Args:
        sigma: shape (..., m), any order.
    Returns:
        SpectrumSummary, each field of shape (...,).

    >>> float(summarise_spectrum(torch.tensor([2.0, 1.0])).mean)
    1.5
    """
    low, high = sigma.amin(-1), sigma.amax(-1)
    return SpectrumSummary(
        low, high, sigma.mean(-1), high / low, (sigma.square() - 1).square().mean(-1), effective_rank(sigma)
    )


def spectrum_summary(W: Tensor) -> SpectrumSummary:
    """Extremes, mean, condition number, mean (sigma^2 - 1)^2 and effective rank of W's singular values.

    Args:
        W: shape (..., out, in).
    Returns:
        SpectrumSummary, each field of shape (...,), unitless.
    Raises:
        ValueError: as `singular_values`.

    >>> s = spectrum_summary(torch.diag(torch.tensor([1.0, 2.0])))
    >>> float(s.condition_number), float(s.isometry_defect)
    (2.0, 4.5)
    """
    return summarise_spectrum(singular_values(W))


def jacobian_singular_values(module: nn.Module, x: Tensor) -> Tensor:
    """Singular values, in descending order, of the Jacobian of a module at one input.

    Args:
        module: maps a batch to a batch, each sample on its own. x: one sample, e.g. (1, 8, 8), without a batch axis.
    Returns:
        Shape (min(outputs, inputs),): with all of them 1 the module is an isometry near x.
    Raises:
        ValueError: the Jacobian holds NaN or infinity.
    Source: arXiv 2606.09762, section 2 (dynamical isometry).

    >>> jacobian_singular_values(nn.Flatten(), torch.zeros(2, 2)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    jacobian = torch.func.jacrev(lambda z: module(z[None])[0].flatten())(x)
    return singular_values(jacobian.flatten(1).detach())


def conv_operator_singular_values(weight: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Singular values of a stride-1 convolution with circular padding, as a linear map on size x size images.

    The map is block-diagonal in the Fourier basis: one (out, in) block per frequency.

    Args:
        weight: kernel, shape (..., out, in, kh, kw) with kh, kw at most the image size.
        size: image height and width in pixels.
    Returns:
        Shape (..., h*w*min(out, in)), descending.
    Raises:
        ValueError: the kernel has fewer than 4 axes or is larger than the image.
    Source: Sedghi, Gupta, Long 2019 (Fourier blocks).

    >>> delta = torch.zeros(2, 2, 3, 3); delta[:, :, 1, 1] = torch.eye(2)
    >>> conv_operator_singular_values(delta, 4).unique().tolist()
    [1.0]
    """
    h, w = (size, size) if isinstance(size, int) else size
    fits = weight.ndim >= 4 and weight.shape[-2] <= h and weight.shape[-1] <= w
    require_shape(fits, "weight", weight, f"a kernel (..., out, in, kh, kw) no larger than {(h, w)}")
    blocks = torch.fft.fft2(weight.detach().to(torch.promote_types(weight.dtype, torch.float32)), s=(h, w))
    sigma = torch.linalg.svdvals(blocks.movedim((-2, -1), (-4, -3)))  # (..., h, w, min(out, in))
    return sigma.flatten(-3).sort(dim=-1, descending=True).values
