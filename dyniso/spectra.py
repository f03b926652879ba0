"""Summaries of singular values beside those of `dyniso.isometry`, which no optimizer needs."""

from __future__ import annotations

from torch import Tensor


def scale_free_defect(sigma: Tensor) -> Tensor:
    """Isometry defect of the weight once its mean square singular value is 1: mean (sigma^2 / mean(sigma^2) - 1)^2.

    The squared coefficient of variation of sigma^2. Zero for every multiple of an isometry; at most m - 1,
    where one singular value is not zero.

    Args:
        sigma: singular values, shape (..., m), any order.
    Returns:
        Shape (...,), unitless; NaN where all singular values are zero.
    Source: ours; the isometry defect is that of arXiv 2606.09762, eq. 16, over m.

    >>> import torch
    >>> scale_free_defect(torch.tensor([[3.0, 3.0, 3.0], [2.0, 0.0, 0.0]])).tolist()
    [0.0, 2.0]
    """
    squares = sigma.square()
    return (squares / squares.mean(-1, keepdim=True) - 1).square().mean(-1)
