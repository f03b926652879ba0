"""The other plasticity methods, each as one small declarative class, for a net of yours or for stacked runs.

Three lines put one to work in a plain loop, marked here with a star:

    >>> import torch
    >>> from dyniso.baselines import ReDo, attach
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> method = attach(ReDo(threshold=0.1, every=100), model, optimizer)  # *
    >>> for x in torch.randn(3, 16, 4):
    ...     loss = model(x).square().mean() + method.penalty()  # *
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    ...     method.after_step()  # *
    >>> method.new_task()  # at a change of the task, where one is known

A model that is no `nn.Sequential` is read from one traced pass: `attach(ReDo(), model, optimizer, example=x)`. What a
method cannot act on is named in a ValueError; `layers=[...]` says on which layers it shall act.

A class states its name in its first line and its settings as fields, and overrides what it needs of `start`, `penalty`,
`after_step`, `new_task`; the table `CLASSES` fills itself. It changes weights through `Attached.rewrite` and `replace`
alone, which leave frozen parameters as they are. All work on the last axes, (..., out, in) for weights and (...,
samples, units) for activations, so that the same lines serve one net and stacked runs. Names of methods are used for
several algorithms in the literature: each class says which one it is. Adam, AdamW, SGD and Muon are torch's; LayerNorm
is a norm of `dyniso.nets`, CReLU and GroupSort are in `dyniso.activations`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..checks import require, require_keys
from .adapters import PerRun, Several, clear, forget
from .attached import Attached
from .attaching import attach
from .base import CLASSES, Baseline
from .boundaries import FIRE, SHRINK_PERTURB, Reset, ShrinkPerturb
from .layers import Layer, Units, is_elementwise
from .optimizers import UPGD
from .penalties import L2, Churn, FeatureLogDet, FeatureRank, L2Init, Parseval, SpectralPenalty
from .projections import Isometry, NormProjection, RowNorm, SpectralNorm, WeightClipping
from .units import ContinualBackprop, ReDo, SelfNormalizedResets

__all__ = [
    "CLASSES",
    "FIRE",
    "L2",
    "SHRINK_PERTURB",
    "UPGD",
    "Attached",
    "Baseline",
    "Churn",
    "ContinualBackprop",
    "FeatureLogDet",
    "FeatureRank",
    "Isometry",
    "L2Init",
    "Layer",
    "NormProjection",
    "Parseval",
    "PerRun",
    "ReDo",
    "Reset",
    "RowNorm",
    "SelfNormalizedResets",
    "Several",
    "ShrinkPerturb",
    "SpectralNorm",
    "SpectralPenalty",
    "Units",
    "WeightClipping",
    "attach",
    "clear",
    "forget",
    "is_elementwise",
    "make",
]


def make(name: str, **settings: Any) -> Baseline:
    """The method of a name.

    Args:
        name: one of `CLASSES`.
        settings: its fields that are not at their defaults.
    Returns:
        The method; `attach` puts it to work.
    Raises:
        ValueError: an unknown name or setting (suggests the nearest), or a value out of range.

    >>> make("redo", threshold=0.1)
    ReDo(threshold=0.1, every=1000)
    """
    require("baseline", name, CLASSES)
    require_keys(name, settings, [f.name for f in fields(CLASSES[name])])
    return CLASSES[name](**settings)
