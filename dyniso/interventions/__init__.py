"""Interventions on weights: change one property of a net and keep the others, to find out which one matters.

Spectra (`with_spectrum` and its rules), singular vectors (`re_paired`, `haar`, `rotated`), displacement (`noisy`,
`toward`), gates (`gate_biases`) and gauges (`gauged`). Each is a pure function on weights (..., out, in), of one net or
of a stack. `edit_` applies one to every hidden matrix of a model, in place:

    edit_(model, lambda W: with_spectrum(W, flat))  # at a task boundary
    if step % 10 == 0:  # a held spectrum, in a training loop
        edit_(model, lambda W: with_spectrum(W, flat))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..groups import isometry_groups
from ..pull import as_owner, member
from .gates import firing_shares, gate_bias, gate_biases
from .gauge import gauged, isometric_scales, random_scales, unit_row_scales, units_of_a_scale
from .spectra import (
    SPECTRA,
    band,
    bottom,
    flat,
    level,
    log_normal,
    log_normal_of,
    norm_flat,
    prescribed,
    rule,
    scaled,
    spectral,
    spikes,
    with_spectrum,
)
from .vectors import haar, noisy, re_paired, rotated, toward

__all__ = [
    "SPECTRA",
    "band",
    "bottom",
    "edit_",
    "firing_shares",
    "flat",
    "gate_bias",
    "gate_biases",
    "gauged",
    "haar",
    "isometric_scales",
    "level",
    "log_normal",
    "log_normal_of",
    "noisy",
    "norm_flat",
    "prescribed",
    "random_scales",
    "re_paired",
    "rotated",
    "rule",
    "scaled",
    "spectral",
    "spikes",
    "toward",
    "unit_row_scales",
    "units_of_a_scale",
    "with_spectrum",
]


@torch.no_grad()
def edit_(model: nn.Module, change: Callable[[Tensor], Tensor], **options: Any) -> nn.Module:
    """Apply a change to every hidden matrix of a model, in place: those that `isometry_groups` would have pulled.

    Packed q, k and v and recurrent gates are changed as maps of their own, kernels as (out, in k k) matrices; the head,
    biases, norms and embeddings stay. Nothing is written if any of the changes raises.

    Args:
        model: any module. change: (maps, out, in) -> the same shape.
        options: of `dyniso.isometry_groups`: head, example, split.
    Returns:
        The same model.
    Raises:
        ValueError: as `isometry_groups` and as the change, or a change that returns another shape.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> edit_(net, lambda W: with_spectrum(W, flat))[0].weight.detach().norm().round(decimals=4)
    tensor(2.)
    """
    made: list[tuple[Tensor, Tensor]] = []
    for group in isometry_groups(model, **options)[:-1]:
        blocks = group.get("isometry_blocks", (1, 1))
        for p in group["params"]:
            own = member(p.detach(), 0, blocks)
            new = change(own.mats.clone())
            if new.shape != own.mats.shape:
                raise ValueError(
                    f"the change made {tuple(new.shape)} of {tuple(own.mats.shape)}; expected the same shape"
                )
            made.append((p, as_owner(own, new, 0, blocks)))
    for p, new in made:
        p.copy_(new)
    return model
