"""The optimizers of stacked runs: one function a name. Settings are shared but for the isometry strength, one a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import baselines
from ..checks import require
from ..optim import AdamO
from .specs import Method
from .stack import Run


class Wanted(NamedTuple):
    """What an optimizer is built for."""

    runs: list[Run]
    params: Mapping[str, Tensor]  # of all runs, each (runs, ...)
    pulled: Callable[[], Collection[str]]  # names those that AdamO and Muon take; asked by these only
    adam: dict[str, Any]  # options of torch's Adam for the methods that use it, e.g. eps

    @property
    def method(self) -> Method:
        """The settings that all runs share."""
        return self.runs[0].method

    @property
    def decay(self) -> float:
        return self.method.weight_decay or 0.0

    @property
    def everything(self) -> list[Tensor]:
        return list(self.params.values())

    @property
    def options(self) -> dict[str, Any]:
        """Of torch's Adam and what derives from it."""
        return self.adam | dict(lr=self.method.lr, weight_decay=self.decay, fused=True)

    def parted(self) -> tuple[list[Tensor], list[Tensor]]:
        """The hidden matrices, and everything else."""
        names = self.pulled()
        rest = [p for name, p in self.params.items() if name not in names]
        return [self.params[name] for name in names], rest


def make_optimizer(
    runs: list[Run], params: Mapping[str, Tensor], pulled: Callable[[], Collection[str]], **adam: Any
) -> Any:
    """The optimizer of a group of runs; Adam's among AdamO's have strength 0.

    Args:
        runs: of one optimizer, or of Adam and AdamO.
        params, pulled, adam: see `Wanted`.
    Raises:
        ValueError: an optimizer that is not in `OPTIMIZERS`.
    """
    names = {run.method.optimizer for run in runs}
    for name in names:
        require("optimizer", name, OPTIMIZERS)
    build = adamo if "adamo" in names else OPTIMIZERS[runs[0].method.optimizer]
    return build(Wanted(runs, params, pulled, adam))


class RunByRun:
    """For torch's Adam and what derives from it: a step that rounds each run as if it were alone.

    On a CPU the fused step takes whole lines of 16 floats, and what is left over at the end of a tensor one by one,
    with another rounding. So where the share of a run is no number of whole lines, it is given to torch as a tensor of
    its own. State and parameters stay stacked.
    """

    LINE = 16

    def _init_group(self, group: Any, *lists: list[Tensor]) -> bool:
        """As torch's: fill the lists of parameters, gradients, moments and step counts that one step works on."""
        found: list[list[Tensor]] = [[] for _ in lists]
        has_complex: bool = super()._init_group(group, *found)  # type: ignore[misc]
        for index, p in enumerate(found[0]):
            ragged = p.device.type == "cpu" and p.numel() // len(p) % self.LINE
            for into, column in zip(lists[:-1], found[:-1], strict=True):
                into += (column[index].detach().unbind() if ragged else [column[index]]) if column else []
            count = found[-1][index]  # the one that counts up; the others are of this step
            lists[-1].extend([count, *(count.clone() for _ in range(len(p) - 1 if ragged else 0))])
        return has_complex


class Adam(RunByRun, torch.optim.Adam):
    """Torch's Adam on stacked runs."""


class AdamW(RunByRun, torch.optim.AdamW):
    """Torch's AdamW on stacked runs."""


class StackedAdamO(RunByRun, AdamO):
    """AdamO on stacked runs."""


def adam(wanted: Wanted) -> Any:
    """Torch's Adam; weight decay is added to the gradient."""
    return Adam(wanted.everything, **wanted.options)


def adamw(wanted: Wanted) -> Any:
    """Torch's AdamW; weight decay is decoupled."""
    return AdamW(wanted.everything, **wanted.options)


def sgd(wanted: Wanted) -> Any:
    """Torch's SGD without momentum."""
    return torch.optim.SGD(wanted.everything, lr=wanted.method.lr, weight_decay=wanted.decay)


def adamo(wanted: Wanted) -> Any:
    """AdamO with one strength a run; torch's Adam where all are 0."""
    strengths = [run.method.isometry_strength for run in wanted.runs]
    if not any(strengths):
        return adam(wanted)
    pulled, rest = wanted.parted()
    per_run = torch.tensor(strengths, device=pulled[0].device)
    return StackedAdamO(
        [{"params": pulled, "isometry_strength": per_run}, {"params": rest, "isometry_strength": 0.0}],
        isometry_every=wanted.method.isometry_every,
        isometry_side=wanted.method.isometry_side or "both",
        coupled=wanted.method.coupled,
        batch_dims=1,
        decoupled_weight_decay=bool(wanted.method.decoupled_weight_decay),
        **wanted.options,
    )


def muon(wanted: Wanted) -> Any:
    """Torch's Muon on the hidden matrices of each run, at ten times the learning rate of the Adam beside it."""
    pulled, rest = wanted.parted()
    lr, decay = 10 * wanted.method.lr, wanted.decay
    of_matrices = baselines.PerRun(pulled, lambda params: torch.optim.Muon(params, lr=lr, weight_decay=decay))
    return baselines.Several(of_matrices, Adam(rest, **wanted.options))


def upgd(wanted: Wanted) -> Any:
    """UPGD, its noise drawn under the seed of each run."""
    params, lr = wanted.everything, wanted.method.lr
    generators = [torch.Generator(params[0].device).manual_seed(run.seed) for run in wanted.runs]
    return baselines.UPGD(params, lr, weight_decay=wanted.decay, generators=generators, batch_dims=1)


# Every optimizer that a spec may name; the allowed names are read from the keys, so they stand as literals.
OPTIMIZERS: dict[str, Callable[[Wanted], Any]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
    "adamo": adamo,
    "muon": muon,
    "upgd": upgd,
}
