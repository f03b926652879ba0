"""Surgery on weights that keeps the function: positive scales of units, which ReLU lets through.

phi(S z) = S phi(z) for positive diagonal S. So W_l <- S_l W_l S_(l-1)^-1 and b_l <- S_l b_l, and the head absorbs the
last scale: every input gives the same output, from other singular values and another kernel. MaxMin does so where the
two units of a pair have one scale.

Source: Dinh et al. 2017 (arXiv 1703.04933) for the symmetry.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..activations import GroupSort
from ..checks import require_range, require_that
from ..isometry import smaller_gram

SCALES_OF = {nn.ReLU: 1, nn.LeakyReLU: 1, nn.PReLU: 1}  # activation -> neighbouring units that share a scale


def units_of_a_scale(activation: nn.Module) -> int:
    """How many neighbouring units must share a scale: 1 for ReLU, the group of GroupSort, 2 for MaxMin.

    Raises:
        ValueError: an activation that does not let positive scales through, e.g. GELU, or one that is not known.

    >>> units_of_a_scale(nn.ReLU())
    1
    """
    if isinstance(activation, GroupSort):
        return activation.group
    if type(activation) in SCALES_OF:
        return SCALES_OF[type(activation)]
    raise ValueError(
        f"{type(activation).__name__} is not known to let a positive scale of single units through; allowed are ReLU, "
        "LeakyReLU, PReLU, MaxMin, GroupSort"
    )


@torch.no_grad()
def gauged(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None], log_scales: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The same function from other weights.

    Args:
        weights: of all layers, the head last, each (..., out, in). biases: of the same layers, (..., out) or None.
        log_scales: ln S of each hidden layer, (..., out); equal in a pair for MaxMin (see `units_of_a_scale`).
    Returns:
        New weights and biases, same shapes and dtypes. Outputs change by rounding only.
    Raises:
        ValueError: not one ln S for each hidden layer; the head has none.
    """
    require_that(
        len(log_scales) == len(weights) - 1, "log_scales", len(log_scales), f"{len(weights) - 1}, one a hidden layer"
    )
    made_weights, made_biases = [], []
    below: Tensor | None = None
    for layer, (W, b) in enumerate(zip(weights, biases, strict=True)):
        scale = log_scales[layer].double().exp() if layer < len(log_scales) else None
        X = W.double()
        X = X if below is None else X / below[..., None, :]
        X = X if scale is None else X * scale[..., None]
        made_weights.append(X.to(W.dtype))
        made_biases.append(b if b is None or scale is None else (b.double() * scale).to(b.dtype))
        below = scale
    return made_weights, made_biases


def random_scales(
    weights: Sequence[Tensor], deviation: float, generator: torch.Generator, shared: int = 1
) -> list[Tensor]:
    """ln S of hidden layers: normal with a standard deviation, one draw for each unit (or for each group of `shared`).

    Args:
        weights: of the hidden layers, each (..., out, in). deviation: at least 0. shared: see `units_of_a_scale`.
    Returns:
        One (..., out) for each, float64.
    """
    require_range("deviation", deviation, 0, kind=float)
    found = []
    for W in weights:
        drawn = torch.randn(*W.shape[:-2], W.shape[-2] // shared, generator=generator, dtype=torch.float64)
        found.append((deviation * drawn).repeat_interleave(shared, -1).to(W.device))
    return found


@torch.no_grad()
def unit_row_scales(weights: Sequence[Tensor]) -> list[Tensor]:
    """ln S with which every row of every hidden weight has length 1 (ReLU).

    Args:
        weights: of the hidden layers, each (..., out, in).
    Raises:
        ValueError: a row of zeros, which no scale makes longer.
    """
    found: list[Tensor] = []
    for W in weights:
        X = W.double() / found[-1].exp()[..., None, :] if found else W.double()
        lengths = torch.linalg.vector_norm(X, dim=-1)
        if not (lengths > 0).all():
            raise ValueError(f"{int((lengths == 0).sum())} rows are zero; no scale gives them length 1")
        found.append(-lengths.log())
    return found


@torch.enable_grad()
def isometric_scales(weights: Sequence[Tensor], steps: int = 500, lr: float = 0.03, shared: int = 1) -> list[Tensor]:
    """ln S that minimises the summed defect mean (sigma^2 - 1)^2 of the hidden weights, by Adam from S = 1.

    Args:
        weights: of the hidden layers, each (..., out, in). steps, lr: of Adam on ln S.
        shared: as in `units_of_a_scale`.
    Returns:
        One (..., out) for each, float64: the best found, at worst S = 1. Compare the defect before and after.
    """
    require_range("steps", steps, 1)
    own = [W.detach().double() for W in weights]
    free = [
        torch.zeros(*W.shape[:-2], W.shape[-2] // shared, dtype=torch.float64, device=W.device, requires_grad=True)
        for W in own
    ]
    optimizer = torch.optim.Adam(free, lr=lr)
    best: list[Tensor] = [s.detach().clone() for s in free]
    least: Tensor | None = None
    for _ in range(steps + 1):
        scales = [s.repeat_interleave(shared, -1) for s in free]
        loss = defects(own, scales)  # of each net, (...,)
        with torch.no_grad():
            better = torch.ones_like(loss, dtype=torch.bool) if least is None else loss < least
            least = loss.detach() if least is None else torch.where(better, loss.detach(), least)
            best = [torch.where(better[..., None], s, b) for s, b in zip(free, best, strict=True)]
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return [s.detach().repeat_interleave(shared, -1) for s in best]


def defects(weights: Sequence[Tensor], log_scales: Sequence[Tensor]) -> Tensor:
    """Sum over the hidden layers of mean (sigma^2 - 1)^2 after scaling, (...,); differentiable in ln S."""
    total: Tensor | None = None
    for layer, (W, s) in enumerate(zip(weights, log_scales, strict=True)):
        X = s.exp()[..., None] * W
        X = X if layer == 0 else X * (-log_scales[layer - 1]).exp()[..., None, :]
        G = smaller_gram(X)
        identity = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
        found = (G - identity).square().sum((-2, -1)) / G.shape[-1]
        total = found if total is None else total + found
    assert total is not None
    return total
