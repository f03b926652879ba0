"""Methods that replace single units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import require, require_range
from ..dormancy import dormancy_score
from .attached import Attached
from .base import Baseline, require_elementwise, require_positive
from .layers import on_columns, outgoing


@dataclass(frozen=True)
class ReDo(Baseline, name="redo"):
    """Every `every` steps, units with dormancy score <= threshold get fresh incoming and zero outgoing weights.

    The score is the mean activation over the layer's mean, on the inputs of the last forward pass. First all incoming
    weights are drawn, then all outgoing ones become zero, also between two new units. Adam's moments of both slices
    become zero; its step count stays. Units with a frozen weight before or behind them are left alone.

    Args:
        threshold: tau >= 0; .025 and .1 are usual, 0 takes units that never fired.
        every: steps between recycling; 1,000 is usual.
    Source: Sokar et al. 2023 (arXiv 2302.12902) and its code.
    """

    threshold: float = 0.025
    every: int = 1000

    def check(self) -> None:
        require_positive(self, "threshold")
        require_range("ReDo.every", self.every, 1)

    @property
    def acts_on(self) -> str:
        return "units"

    def start(self, net: Attached) -> None:
        require_elementwise(net)

    def after_step(self, net: Attached) -> None:
        if net.steps % self.every == 0:
            net.reset_units({index: dormancy_score(h) <= self.threshold for index, h in net.replaceable()})


@dataclass(frozen=True)
class ContinualBackprop(Baseline, name="continual_backprop"):
    """After every step, replaces a small fraction of the mature units with the least utility.

    Units older than `maturity` steps are eligible; rate * eligible units a step accumulate until a whole one is due.
    A replaced unit hands its mean contribution to the next bias, so the outputs keep their mean.

    Args:
        rate: rho, units replaced per eligible unit and step; 1e-6 to 1e-3 in the literature.
        maturity: steps during which a new unit is safe; 100 to 10,000.
        decay: of the running averages, below 1.
        utility: "contribution": mean |h| * mean |w_out|; "adaptable_contribution": mean |h - mean h| * mean |w_out| /
            mean |w_in|.
    Source: Dohare et al. 2024 (Nature 632) and its code; torch keeps one step count a tensor, so the step count of
        replaced entries is not reset.
    """

    rate: float = 1e-4
    maturity: int = 100
    decay: float = 0.99
    utility: str = "contribution"

    def check(self) -> None:
        require_range("ContinualBackprop.rate", self.rate, 0, 1, kind=float)
        require_range("ContinualBackprop.maturity", self.maturity, 0)
        require_range("ContinualBackprop.decay", self.decay, 0, 0.999999, kind=float)
        require("ContinualBackprop.utility", self.utility, ("contribution", "adaptable_contribution"))

    @property
    def acts_on(self) -> str:
        return "units"

    def start(self, net: Attached) -> None:
        require_elementwise(net)
        for name in ("age", "utility", "mean"):
            net.state[name] = net.per_unit()
        net.state["due"] = [age[..., 0].clone() for age in net.state["age"]]

    def after_step(self, net: Attached) -> None:
        masks = {index: self.replaced(net, index, h.to(net.state["age"][index])) for index, h in net.replaceable()}
        for index, mask in masks.items():
            self.hand_over(net, index, mask)
        net.reset_units(masks)
        for index, mask in masks.items():
            for name in ("age", "utility", "mean"):
                net.state[name][index].masked_fill_(mask, 0)

    def replaced(self, net: Attached, index: int, h: Tensor) -> Tensor:
        """Which units of a layer are replaced now, (*runs, units); ages and averages are brought up to date."""
        age, utility, mean, due = (net.state[name][index] for name in ("age", "utility", "mean", "due"))
        age += 1
        mean.lerp_(h.mean(-2), 1 - self.decay)
        utility.lerp_(self.instant(net, index, h, self.corrected(mean, age)), 1 - self.decay)
        eligible = age > self.maturity
        due += self.rate * eligible.sum(-1)
        score = self.corrected(utility, age).masked_fill(~eligible, torch.inf)
        mask = eligible & (score.argsort(-1).argsort(-1) < due.floor()[..., None])
        due -= mask.sum(-1)
        return mask

    def corrected(self, average: Tensor, age: Tensor) -> Tensor:
        return average / (1 - self.decay**age).clamp_min(1e-12)

    def instant(self, net: Attached, index: int, h: Tensor, mean: Tensor) -> Tensor:
        """The utility that this minibatch gives each unit; outgoing weights are those of all its readers."""
        unit = net.units[index]
        views = [outgoing(reader, h.shape[-1], net.batch_dims) for reader in unit.readers]
        out = sum(W.abs().sum((-3, -1)) for W in views) / sum(W.shape[-3] * W.shape[-1] for W in views)
        if self.utility == "contribution":
            return h.abs().mean(-2) * out
        into = unit.layer.weight.abs().flatten(net.batch_dims + 1).mean(-1)
        return (h - mean[..., None, :]).abs().mean(-2) * out / into.clamp_min(1e-12)

    def hand_over(self, net: Attached, index: int, mask: Tensor) -> None:
        """Add the mean contribution of the replaced units to the biases of their readers."""
        mean = self.corrected(net.state["mean"][index], net.state["age"][index]) * mask
        for reader in net.units[index].readers:
            if reader.bias is not None:
                contribution = reader.weight * on_columns(reader, mean, net.batch_dims)
                net.rewrite(reader.bias, reader.bias + contribution.flatten(net.batch_dims + 1).sum(-1))


@dataclass(frozen=True)
class SelfNormalizedResets(Baseline, name="self_normalized_resets"):
    """Resets a unit that has been silent for longer than its own past makes plausible.

    Silent means zero on every sample of a step. A unit's times between two firings are counted; it is reset when

        P(A >= a) <= rejection,   a its present silence in steps, A a past time of its own

    so a unit that fires rarely by nature is left in peace, and one that used to fire at every step is reset soon. Its
    past is kept over resets.

    Args:
        rejection: eta, the level at which silence is called abnormal, between 0 and 1; .01 to .08 in the literature.
        observations: past times that a unit needs before its own distribution counts (ours: with fewer, also of a unit
            that has never fired, the distribution of its whole layer counts).
        longest: silences are counted up to this many steps; a longer one counts as this long (ours).
    Source: Farias and Jozefiak 2024 (arXiv 2410.20098), the rule; their code counts samples and keeps a threshold that
        it updates every few tasks.
    """

    rejection: float = 0.01
    observations: int = 20
    longest: int = 500

    def check(self) -> None:
        require_range("SelfNormalizedResets.rejection", self.rejection, 0, 1, kind=float)
        require_range("SelfNormalizedResets.observations", self.observations, 1)
        require_range("SelfNormalizedResets.longest", self.longest, 2)

    @property
    def acts_on(self) -> str:
        return "units"

    def start(self, net: Attached) -> None:
        require_elementwise(net)
        net.state["silent"] = net.per_unit(dtype=torch.int64)
        net.state["times"] = net.per_unit(self.longest + 1)

    def after_step(self, net: Attached) -> None:
        masks = {index: self.abnormal(net, index, h) for index, h in net.replaceable()}
        net.reset_units(masks)
        for index, mask in masks.items():
            net.state["silent"][index].masked_fill_(mask, 0)

    def abnormal(self, net: Attached, index: int, h: Tensor) -> Tensor:
        """Which units of a layer are silent for too long, (*runs, units); times and silences are brought up to date."""
        silent, times = (net.state[name][index] for name in ("silent", "times"))
        silent.add_(1).clamp_max_(self.longest)
        fired = (h != 0).any(-2)
        times.scatter_add_(-1, silent[..., None], fired[..., None].to(times))
        silent.masked_fill_(fired, 0)
        few = times.sum(-1, keepdim=True) < self.observations
        counts = torch.where(few, times.sum(-2, keepdim=True), times)
        tail = counts.flip(-1).cumsum(-1).flip(-1).gather(-1, silent[..., None])[..., 0]
        total = counts.sum(-1)
        return ~fired & (total >= self.observations) & (tail <= self.rejection * total)
