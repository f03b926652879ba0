"""The pull of eq. 20 on many weights at once: one batched product pair for each distinct shape, and when it diverges.

A pull is scale * grad R(W), to be subtracted from W; `dyniso.optim.AdamO` does that. Weights of one shape, dtype and
device share a `Bucket`, whichever layer or run they belong to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .isometry import as_matrix, gram_deviation_grad, smaller_gram


class IsometryDivergenceError(RuntimeError):
    """The explicit isometry step would diverge. `runs`: positions of the runs concerned, flat over the batch axes."""

    def __init__(self, message: str, runs: list[int]):
        super().__init__(message)
        self.runs = runs


class Bucket:
    """All matrices of one shape, dtype and device as one batch (b, out, in), with their Grams.

    `scale` is a number, or one value a matrix of shape (b,).
    """

    def __init__(self, weights: Sequence[Tensor], scale: float | Tensor, batch_dims: int):
        self.weights = weights
        mats = [as_matrix(w.detach(), batch_dims) for w in weights]
        self.W = torch.stack(mats).flatten(0, batch_dims) if len(mats) > 1 or batch_dims != 1 else mats[0]
        if self.W.dtype in (torch.float16, torch.bfloat16):  # a half-precision Gram would be noise of size 1e-3
            self.W = self.W.float()
        self.gram = smaller_gram(self.W)
        if isinstance(scale, Tensor):
            scale = scale.to(self.W)
            scale = scale.flatten().repeat(len(weights)) if scale.ndim else scale.expand(len(self.W))
        self.scale = scale

    def displacements(self) -> list[tuple[Tensor, Tensor]]:
        """Each weight with its scale * grad R, in the weight's own shape and dtype."""
        step = gram_deviation_grad(self.W, self.gram)
        if isinstance(self.scale, Tensor):
            step.mul_(self.scale[:, None, None]).masked_fill_((self.scale == 0)[:, None, None], 0)  # not 0 * inf
        else:
            step.mul_(self.scale)
        parts = step.chunk(len(self.weights))
        return [(w, part.reshape(w.shape).to(w.dtype)) for w, part in zip(self.weights, parts, strict=True)]

    def limit(self) -> Tensor:
        """Largest sigma^2 that the step does not throw further out: 1 + 1/(2 scale), 0 from 1/4 on. Shape (b,)."""
        scale = torch.as_tensor(self.scale, dtype=self.gram.dtype, device=self.gram.device).expand(len(self.W))
        return torch.where(scale < 0.25, 1 + 0.5 / scale, 0.0)

    def suspicious(self) -> Tensor:
        """Where an upper bound of sigma_max^2, by row sums or norm of the Gram, is not within the limit; (b,), bool."""
        bound = torch.minimum(self.gram.abs().sum(-1).amax(-1), torch.linalg.matrix_norm(self.gram))
        return ~(bound <= self.limit())

    def raise_if_divergent(self) -> None:
        """Raise IsometryDivergenceError, with numbers, if a sigma_max^2 really passes its limit. Synchronises."""
        finite = torch.isfinite(self.W).flatten(1).all(1)  # NaN from the task itself is not this step's doing
        if not (self.suspicious() & finite).any():
            return
        whole = torch.isfinite(self.gram).flatten(1).all(1)  # the Gram of finite weights may overflow
        top = torch.linalg.eigvalsh(torch.where(whole[:, None, None], self.gram, 0.0))[:, -1]
        top, limit = torch.where(whole, top, torch.inf), self.limit()
        over = finite & (top > limit)
        if not over.any():
            return
        indices = over.nonzero().flatten().tolist()
        worst = max(indices, key=lambda i: float(top[i] / limit[i]))
        per_weight = len(self.W) // len(self.weights)
        c = float(torch.as_tensor(self.scale).expand(len(self.W))[worst])
        where = f"a weight of shape {tuple(self.weights[worst // per_weight].shape)}"
        where += f", run {worst % per_weight}," if per_weight > 1 else ""
        reason = "c must be below 1/4, or no singular value settles at 1"
        if c < 0.25:
            reason = f"the limit is sigma_max^2 = 1 + 1/(2c) = {float(limit[worst]):.4g}"
        raise IsometryDivergenceError(
            f"the isometry step would diverge: {where} has sigma_max^2 = {float(top[worst]):.4g} at "
            f"c = isometry_lr * isometry_strength * isometry_every = {c:.4g}; {reason}. No parameter was changed by "
            "this step; lower one of the three factors, or start from smaller weights",
            sorted({i % per_weight for i in indices}),
        )


def buckets(weights: Iterable[Tensor], scale: float | Tensor, batch_dims: int = 0) -> list[Bucket]:
    """Group weights that can share one batched call.

    Args:
        weights, scale, batch_dims: as in `isometry_step`.
    Returns:
        One bucket for each combination of shape, dtype and device.

    >>> [len(bucket.W) for bucket in buckets([torch.eye(2), torch.eye(3), torch.eye(2)], 0.1)]
    [2, 1]
    """
    by_kind: dict[Any, list[Tensor]] = defaultdict(list)
    for w in weights:
        by_kind[w.shape, w.dtype, w.device].append(w)
    return [Bucket(same, scale, batch_dims) for same in by_kind.values()]


def isometry_step(weights: Sequence[Tensor], scale: float | Tensor, batch_dims: int = 0) -> list[Tensor]:
    """The decoupled displacement scale * grad R(W) for each weight; nothing is modified.

    Args:
        weights: matrices (*batch, out, in) or kernels (*batch, out, in, k, ...), e.g. [(512, 784), (512, 512)].
        scale: isometry_lr * strength * every: a number, or a tensor of the batch shape (one value a run).
        batch_dims: leading axes that index independent runs.
    Returns:
        One tensor a weight, in order, same shapes and dtypes. One batched product pair for each distinct shape.
    Raises:
        ValueError: a weight with fewer than batch_dims + 2 axes.
    Source: arXiv 2606.09762, second term of eq. 20.

    >>> isometry_step([2 * torch.eye(2)], 0.1)[0]
    tensor([[2.4000, 0.0000],
            [0.0000, 2.4000]])
    """
    found = {id(w): step for bucket in buckets(weights, scale, batch_dims) for w, step in bucket.displacements()}
    return [found[id(w)] for w in weights]
