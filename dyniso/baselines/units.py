"""Methods that replace single units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import require, require_range
from ..dormancy import dormancy_score
from .attached import Attached, Baseline, require_elementwise, require_positive, times


@dataclass(frozen=True)
class ReDo(Baseline, name="redo"):
    """Every `every` steps, units with dormancy score <= threshold get fresh incoming and zero outgoing weights.

    The score is the mean activation over the layer's mean, on the inputs of the last forward pass. Adam's moments of
    both slices become zero; its step count stays.

    Args:
        threshold: tau >= 0; .025 and .1 are usual, 0 takes units that never fired.
        every: steps between recycling; 1,000 is usual.
    Source: Sokar et al. 2023 (arXiv 2302.12902) and its code.
    """

    threshold: float = 0.025
    every: int = 1000

    def __post_init__(self) -> None:
        require_positive(self, "threshold")
        require_range("ReDo.every", self.every, 1)

    def start(self, net: Attached) -> None:
        require_elementwise(net)

    def after_step(self, net: Attached) -> None:
        if net.steps % self.every:
            return
        masks = [dormancy_score(h.detach()) <= self.threshold for h in net.activations]
        for index, mask in enumerate(masks):
            net.reset_units(index, mask)


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

    def __post_init__(self) -> None:
        require_range("ContinualBackprop.rate", self.rate, 0, 1, kind=float)
        require_range("ContinualBackprop.maturity", self.maturity, 0)
        require_range("ContinualBackprop.decay", self.decay, 0, 0.999999, kind=float)
        require("ContinualBackprop.utility", self.utility, ("contribution", "adaptable_contribution"))

    def start(self, net: Attached) -> None:
        require_elementwise(net)
        shapes = [layer.weight.shape[: net.batch_dims + 1] for layer in net.hidden]
        for name in ("age", "utility", "mean"):
            net.state[name] = [net.layers[0].weight.new_zeros(shape) for shape in shapes]
        net.state["due"] = [net.zero() for _ in shapes]

    def after_step(self, net: Attached) -> None:
        for index, h in enumerate(net.activations):
            mask = self.replaced(net, index, h.detach())
            self.hand_over(net, index, mask)
            net.reset_units(index, mask)
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
        """The utility that this minibatch gives each unit."""
        out = net.outgoing(net.layers[index + 1].weight, h.shape[-1]).abs().mean((-3, -1))
        if self.utility == "contribution":
            return h.abs().mean(-2) * out
        into = net.layers[index].weight.abs().flatten(net.batch_dims + 1).mean(-1)
        return (h - mean[..., None, :]).abs().mean(-2) * out / into.clamp_min(1e-12)

    def hand_over(self, net: Attached, index: int, mask: Tensor) -> None:
        """Add the mean contribution of the replaced units to the next layer's bias."""
        following = net.layers[index + 1]
        if following.bias is not None:
            mean = self.corrected(net.state["mean"][index], net.state["age"][index]) * mask
            following.bias.add_(times(net.outgoing(following.weight, mask.shape[-1]).sum(-1), mean))


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

    def __post_init__(self) -> None:
        require_range("SelfNormalizedResets.rejection", self.rejection, 0, 1, kind=float)
        require_range("SelfNormalizedResets.observations", self.observations, 1)
        require_range("SelfNormalizedResets.longest", self.longest, 2)

    def start(self, net: Attached) -> None:
        require_elementwise(net)
        shapes = [layer.weight.shape[: net.batch_dims + 1] for layer in net.hidden]
        net.state["silent"] = [net.layers[0].weight.new_zeros(shape, dtype=torch.int64) for shape in shapes]
        net.state["times"] = [net.layers[0].weight.new_zeros(*shape, self.longest + 1) for shape in shapes]

    def after_step(self, net: Attached) -> None:
        for index, h in enumerate(net.activations):
            mask = self.abnormal(net, index, h.detach())
            net.reset_units(index, mask)
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
