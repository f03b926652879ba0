"""The pull of eq. 20 on many weights at once, a batch of equal shapes after another, and when it diverges.

A pull subtracts scale * grad R(W) from W, with grad R(W) = 4 E W and E the smaller Gram matrix less the identity.
`dyniso.optim.AdamO` takes it in two halves: first E of every weight, from which divergence can be told before anything
changes, then the products, batch after batch. So beside the weights only the Es and one product are alive.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import require_shape, require_that
from .isometry import full_precision, half_precision

SIDES = ("both", "above")  # which singular values are pulled: all, or those above 1
BATCH = 2**18  # entries of the weights that are stacked into one product (1 MB); a larger weight is never copied
SYMMETRIC_FROM = 512  # smaller side from which half of a Gram is copied from the other half on a CPU (benchmarks)
Blocks = tuple[int, int]  # rows and columns of maps that a packed weight holds: (3, 1) is q, k and v in attention


class IsometryDivergenceError(RuntimeError):
    """The explicit isometry step would diverge. `runs`: positions of the runs concerned, flat over the batch axes."""

    def __init__(self, message: str, runs: list[int]):
        super().__init__(message)
        self.runs = runs


class Member(NamedTuple):
    """One weight as its owner holds it, and the matrices (b, out, in) that share the memory of `held`."""

    owner: Tensor
    held: Tensor  # the owner itself, or a copy: in single precision, gathered, or laid out in order
    mats: Tensor
    maps: int  # matrices of one run: 1, or 3 where q, k and v are packed into one weight
    is_copy: bool

    @property
    def runs(self) -> int:
        return len(self.mats) // self.maps


def member(weight: Tensor, batch_dims: int = 0, blocks: Blocks = (1, 1)) -> Member:
    """A weight as matrices, without a copy where its dtype and memory layout allow.

    Args:
        weight: shape (*batch, out, in) or (*batch, out, in, k, ...), e.g. (512, 784); sharded ones are gathered.
        batch_dims: leading axes that index independent runs.
        blocks: (3, 1) if three maps lie below each other in the weight, (1, 3) if beside each other.
    Raises:
        ValueError: too few axes, or blocks that do not fit.

    >>> tuple(member(torch.zeros(12, 4), blocks=(3, 1)).mats.shape)
    (3, 4, 4)
    """
    expected = f"a matrix or a kernel after batch_dims={batch_dims} axes"
    require_shape(weight.ndim >= batch_dims + 2, "weight", weight, expected)
    require_blocks(weight, batch_dims, blocks)
    held, is_copy = whole(weight), is_sharded(weight)
    if half_precision(held):
        held, is_copy = held.float(), True
    flat = columns_in_order(held, batch_dims)
    if flat is None:
        flat = held = held.contiguous()
        is_copy = True
    b, (rows, columns), out = math.prod(weight.shape[:batch_dims]), blocks, weight.shape[batch_dims]
    mats = flat.view(b * rows, out // rows, -1)
    if columns > 1:
        mats = mats.view(out, columns, -1).transpose(0, 1)
    return Member(weight, held, mats, rows * columns, is_copy)


def require_blocks(weight: Tensor, batch_dims: int, blocks: Blocks) -> None:
    """Refuse blocks that do not fit a weight (*batch, out, in, ...); ValueError.

    >>> require_blocks(torch.zeros(8, 4), 0, (3, 1))
    Traceback (most recent call last):
    ValueError: weight has shape (8, 4); expected sides that hold 3 x 1 equal blocks
    """
    pair = isinstance(blocks, Sequence) and len(blocks) == 2 and not isinstance(blocks, str)
    counts = pair and all(isinstance(n, Integral) and n >= 1 for n in blocks)
    require_that(counts, "isometry_blocks", blocks, "two whole numbers of at least 1, rows and columns of blocks")
    rows, columns = blocks
    alone = 1 in blocks and (columns == 1 or (weight.ndim == 2 and not batch_dims))
    require_that(alone, "isometry_blocks", blocks, "(n, 1), or for one matrix (1, n)")
    fits = weight.shape[batch_dims] % rows == 0 and weight.shape[batch_dims + 1] % columns == 0
    require_shape(fits, "weight", weight, f"sides that hold {rows} x {columns} equal blocks")


def columns_in_order(weight: Tensor, batch_dims: int) -> Tensor | None:
    """A contiguous view of a weight, its columns in any order as those of a channels-last kernel; None without one."""
    if weight.is_contiguous():
        return weight
    strides = weight.stride()
    columns = sorted(range(batch_dims + 1, weight.ndim), key=lambda axis: -strides[axis])
    view = weight.permute([*range(batch_dims + 1), *columns])
    return view if view.is_contiguous() else None


def whole(weight: Tensor) -> Tensor:
    """A weight without its graph; all of it, gathered from its shards, where it is a DTensor."""
    return weight.detach().full_tensor() if is_sharded(weight) else weight.detach()  # type: ignore[attr-defined]


def is_sharded(weight: Tensor) -> bool:
    """Whether a weight is spread over processes (`torch.distributed.tensor.DTensor`), asked without that import."""
    return hasattr(weight, "full_tensor")


def shard_like(full: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor as a weight has it: this process's part of it where the weight is sharded; no communication."""
    if not is_sharded(weight):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None)  # type: ignore[attr-defined]


class Bucket:
    """Weights that give matrices of one shape, dtype and device: one batch W (b, out, in), and E = Gram - I, (b, m, m).

    `scale` is a number, or a tensor of the batch shape; c is the same with one value a matrix, (b,).
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        scale: float | Tensor,
        batch_dims: int = 0,
        blocks: Blocks = (1, 1),
        side: str = SIDES[0],
    ):
        self.weights, self.batch_dims, self.blocks, self.side = weights, batch_dims, blocks, side
        self.views: list[Member] = []
        members = self.members()
        W = joined(members)
        with full_precision(W):
            self.E: Tensor | None = gram_less_identity(W)
        self.c = scale
        if isinstance(scale, Tensor):
            scale = scale.to(W)
            each = [scale.flatten().repeat_interleave(m.maps) for m in members] if scale.ndim else []
            self.c = torch.cat(each) if each else scale.expand(len(W))

    def members(self) -> list[Member]:
        """Its weights as matrices; copies, which cost memory, are made anew for each use."""
        if self.views:
            return self.views
        found = [member(w, self.batch_dims, self.blocks) for w in self.weights]
        self.views = [] if any(m.is_copy for m in found) else found
        return found

    def steps(self) -> Iterator[tuple[Member, Tensor]]:
        """Each weight with scale * grad R of its matrices (b, out, in), to be subtracted from them. Call it once."""
        members = self.members()
        W, E = joined(members), self.E
        with full_precision(W):
            E = gram_less_identity(W) if E is None else E
            E = E if self.side == "both" else positive_part(E)
            c = self.c[:, None, None] if isinstance(self.c, Tensor) else self.c
            E.mul_(4 * c)
            if isinstance(c, Tensor):
                E.masked_fill_(c == 0, 0)  # not 0 * inf
            product = W @ E if W.shape[1] >= W.shape[2] else E @ W
        self.E = None
        yield from zip(members, product.split([len(m.mats) for m in members]), strict=True)

    def spare(self) -> None:
        """Forget the Gram of sharded weights: every process would hold all of it. They are gathered once more."""
        if is_sharded(self.weights[0]):
            self.E = None

    def room(self) -> Any:
        """By how much sigma^2 may pass 1 before the step throws it further out: 1/(2c); -1 from c = 1/4 on."""
        if isinstance(self.c, Tensor):
            return torch.where(self.c < 0.25, 0.5 / self.c, -1.0)
        return -1.0 if self.c >= 0.25 else 0.5 / self.c if self.c else math.inf

    def suspicious(self) -> Tensor:
        """Whether an upper bound of sigma_max^2 - 1, the norm of E, is not within the room for some matrix; ()."""
        return ~(torch.linalg.vector_norm(self.E, dim=(1, 2)) <= self.room()).all()

    def raise_if_divergent(self) -> None:
        """Raise IsometryDivergenceError, with numbers, if a sigma_max^2 really passes its limit. Synchronises."""
        members, E = self.members(), self.E
        assert E is not None
        room = torch.as_tensor(self.room(), dtype=E.dtype, device=E.device).expand(len(E))
        finite = torch.isfinite(joined(members)).flatten(1).all(1)  # NaN from the task itself is not this step's doing
        near = finite & ~(E.abs().sum(-1).amax(-1) <= room)  # row sums are the closer bound of large weights
        if not near.any():
            return
        known = torch.isfinite(E).flatten(1).all(1)  # the Gram of finite weights may overflow
        top = torch.full_like(room, torch.inf)
        top[known] = torch.linalg.eigvalsh(E[known])[:, -1]
        over = (near & (top > room)).nonzero().flatten().tolist()
        if over:
            self.refuse(members, over, 1 + top, 1 + room)

    def refuse(self, members: list[Member], over: list[int], top: Tensor, limit: Tensor) -> None:
        """Raise the error for the matrix that is furthest beyond its limit, (b,) each."""
        places = [(m, place) for m in members for place in range(len(m.mats))]
        worst = max(over, key=lambda i: float(top[i] / limit[i]))
        weight, place = places[worst]
        c = float(self.c[worst]) if isinstance(self.c, Tensor) else self.c
        where = f"a weight of shape {tuple(weight.owner.shape)}"
        where += f", map {place % weight.maps} of {weight.maps}" if weight.maps > 1 else ""
        where += f", run {place // weight.maps}" if weight.runs > 1 else ""
        reason = "c must be below 1/4, or no singular value settles at 1"
        if c < 0.25:
            reason = f"the limit is sigma_max^2 = 1 + 1/(2c) = {float(limit[worst]):.4g}"
        raise IsometryDivergenceError(
            f"the isometry step would diverge: {where} has sigma_max^2 = {float(top[worst]):.4g} at "
            f"c = isometry_lr * isometry_strength * isometry_every = {c:.4g}; {reason}. No parameter was changed by "
            "this step; lower one of the three factors, or start from smaller weights",
            sorted({place // m.maps for m, place in (places[i] for i in over)}),
        )


def joined(members: Sequence[Member]) -> Tensor:
    """The matrices of some weights as one batch; those of a single weight are not copied."""
    return members[0].mats if len(members) == 1 else torch.cat([m.mats for m in members])


def gram_less_identity(W: Tensor) -> Tensor:
    """E = smaller Gram - I of each matrix, (b, out, in) -> (b, m, m), m = min(out, in).

    The identity is taken off the diagonal alone, so that near an isometry E is exact to rounding.

    >>> gram_less_identity(2 * torch.eye(2)[None])
    tensor([[[3., 0.],
             [0., 3.]]])
    """
    small = min(W.shape[1:])
    if small >= SYMMETRIC_FROM and small % 4 == 0 and W.device.type == "cpu":
        E = torch.stack([symmetric_gram(w) for w in W]) if len(W) > 1 else symmetric_gram(W[0])[None]
    else:
        E = W.mT @ W if W.shape[1] >= W.shape[2] else W @ W.mT
    E.diagonal(dim1=1, dim2=2).sub_(1)
    return E


def positive_part(E: Tensor) -> Tensor:
    """Symmetric matrices (b, m, m) with their negative eigenvalues set to 0; NaN where a matrix is not finite.

    Of a Gram less the identity: what singular values above 1 contribute.

    >>> positive_part(torch.tensor([[[3.0, 0.0], [0.0, -0.5]]]))
    tensor([[[3., 0.],
             [0., 0.]]])
    """
    finite = torch.isfinite(E).flatten(1).all(1)[:, None, None]
    eigenvalues, Q = torch.linalg.eigh(torch.where(finite, E, 0.0))
    return torch.where(finite, (Q * eigenvalues.clamp_min(0)[:, None]) @ Q.mT, torch.nan)


def symmetric_gram(W: Tensor) -> Tensor:
    """`smaller_gram` of one matrix from 10 of its 16 blocks; the others are their transposes."""
    rows = W if W.shape[0] < W.shape[1] else W.mT  # W'W of a square one, as `smaller_gram` has it
    m, step = len(rows), len(rows) // 4
    G = rows.new_empty(m, m)
    for start in range(0, m, step):
        end = start + step
        torch.mm(rows[start:end], rows[:end].mT, out=G[start:end, :end])
        G[:start, start:end] = G[start:end, :start].mT
    return G


def buckets(
    weights: Iterable[Tensor],
    scale: float | Tensor,
    batch_dims: int = 0,
    blocks: Blocks = (1, 1),
    side: str = SIDES[0],
) -> list[Bucket]:
    """Group weights that can share one batched call; a batch has at most BATCH entries, or a single weight.

    Args:
        weights, scale, batch_dims: as in `isometry_step`.
        blocks: as in `member`. side: of `SIDES`.
    Returns:
        One bucket or more for each combination of shape, layout, dtype and device.

    >>> [len(bucket.weights) for bucket in buckets([torch.eye(2), torch.eye(3), torch.eye(2)], 0.1)]
    [2, 1]
    """
    by_kind: dict[Any, list[list[Tensor]]] = defaultdict(list)
    for w in weights:
        batches = by_kind[w.shape, w.dtype, w.device, is_sharded(w)]
        if batches and (len(batches[-1]) + 1) * w.numel() <= BATCH:
            batches[-1].append(w)
        else:
            batches.append([w])
    return [Bucket(batch, scale, batch_dims, blocks, side) for batches in by_kind.values() for batch in batches]


def check(due: Sequence[Bucket]) -> None:
    """Raise IsometryDivergenceError if a step would diverge: a bound of each bucket, one host synchronisation, and a
    close look only where a bound passes its limit. Not while a CUDA graph is captured.
    """
    device = due[0].weights[0].device if due else torch.device("cpu")
    if not due or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return
    if torch.stack([bucket.suspicious().to(device) for bucket in due]).any():
        for bucket in due:
            bucket.raise_if_divergent()
    for bucket in due:
        bucket.spare()


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
    found: dict[int, Tensor] = {}
    for bucket in buckets(weights, scale, batch_dims):
        found |= {id(m.owner): as_owner(m, step, batch_dims) for m, step in bucket.steps()}
    return [found[id(w)] for w in weights]


def as_owner(weight: Member, mats: Tensor, batch_dims: int = 0, blocks: Blocks = (1, 1)) -> Tensor:
    """Matrices as `Member.mats` has them, in the shape, layout, dtype and shards of the weight itself."""
    like = torch.empty_like(weight.held)
    member(like, batch_dims, blocks).mats.copy_(mats)
    return shard_like(like.to(weight.owner.dtype), weight.owner)
