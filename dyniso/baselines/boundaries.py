"""Methods that rewrite weights at task boundaries (shrink and perturb also after every step)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..checks import require, require_range
from ..polar import newton_schulz
from .attached import Attached
from .base import Baseline, require_positive


@dataclass(frozen=True)
class Reset(Baseline, name="reset"):
    """At every task boundary, draws the head or all layers anew and clears the optimizer's moments of what it drew.

    Args:
        layers: "head" or "all".
    """

    layers: str = "head"

    def check(self) -> None:
        require("Reset.layers", self.layers, ("head", "all"))

    @property
    def renews(self) -> bool:
        return self.layers == "all"

    @property
    def acts_on(self) -> str:
        return self.layers

    def new_task(self, net: Attached) -> None:
        for p in net.parameters(net.layers if self.layers == "all" else net.heads):
            net.replace(p, net.fresh(p))


@dataclass(frozen=True)
class ShrinkPerturb(Baseline, name="shrink_perturb"):
    """theta <- shrink * theta + perturb * draw, on weights and biases, at task boundaries or after every step.

    Six methods of this name are in use; `SHRINK_PERTURB` holds their settings.

    Args:
        shrink: factor, 0 to 1. perturb: factor of the draw.
        draw: "fresh" (the initial law), "initial" (the stored initial values) or "noise" (standard normal).
        when: "task" or "step".
        scaled_by_lr: multiplies 1 - shrink and perturb by the learning rate.
        clear_moments: whether the optimizer's moments become zero (only sensible with when="task").
    Source: Ash & Adams 2020 (arXiv 1910.08475) for the name and the boundary form.
    """

    shrink: float = 0.4
    perturb: float = 0.1
    draw: str = "fresh"
    when: str = "task"
    scaled_by_lr: bool = False
    clear_moments: bool = True

    def check(self) -> None:
        require_range("ShrinkPerturb.shrink", self.shrink, 0, 1, kind=float)
        require_positive(self, "perturb")
        require("ShrinkPerturb.draw", self.draw, ("fresh", "initial", "noise"))
        require("ShrinkPerturb.when", self.when, ("task", "step"))

    @property
    def acts_on(self) -> str:
        return "all"

    def start(self, net: Attached) -> None:
        if self.scaled_by_lr:
            net.learning_rate()  # asks for an optimizer now, not after the first step

    def new_task(self, net: Attached) -> None:
        if self.when == "task":
            self.apply(net)

    def after_step(self, net: Attached) -> None:
        if self.when == "step":
            self.apply(net)

    def apply(self, net: Attached) -> None:
        rate = net.learning_rate() if self.scaled_by_lr else 1.0
        kept = 1 - rate * (1 - self.shrink)
        change = net.replace if self.clear_moments and self.when == "task" else net.rewrite
        for p in net.parameters():
            draw = {"fresh": net.fresh, "initial": lambda q: net.initial[id(q)], "noise": net.normal}[self.draw](p)
            rest = p * kept if kept else torch.zeros_like(p)  # of a weight that is infinite, nothing is left either
            change(p, torch.add(rest, draw, alpha=rate * self.perturb))


SHRINK_PERTURB = {
    "ash": ShrinkPerturb(),  # warm start, new optimizer
    "dohare": ShrinkPerturb(1.0, 1e-5, "noise", "step"),  # with L2 beside it; sigma 1e-6 to 1e-4
    "kumar": ShrinkPerturb(1 - 1e-3, 1e-2, "fresh", "step"),  # 1 - p and sigma from their tuning
    "elsayed": ShrinkPerturb(1 - 1e-2, 0.1, "noise", "step", scaled_by_lr=True),
    "fire": ShrinkPerturb(0.2, 0.8, "initial", "task"),
}


@dataclass(frozen=True)
class FIRE(Baseline, name="fire"):
    """At every task boundary, replaces each hidden weight by its (scaled) polar factor.

    Args:
        steps: Newton-Schulz steps; the 10 of the source leave the smallest singular values of square layers far below
            one, 30 bring them up.
        fan_scaled: multiplies by sqrt(out/in), as the source does; False leaves all singular values at one.
    Source: FIRE (arXiv 2602.08040) and its code. Convolutions are handled tap by tap and divided by the window's size.
    """

    steps: int = 10
    fan_scaled: bool = True

    def check(self) -> None:
        require_range("FIRE.steps", self.steps, 1)

    def new_task(self, net: Attached) -> None:
        for layer in net.hidden:
            taps = layer.weight.detach().flatten(net.batch_dims + 2) if layer.weight.ndim > net.batch_dims + 2 else None
            W = layer.weight if taps is None else taps.movedim(-1, net.batch_dims)
            scale = math.sqrt(W.shape[-2] / W.shape[-1]) if self.fan_scaled else 1.0
            Q = newton_schulz(W, self.steps) * scale / (1 if taps is None else taps.shape[-1])
            net.rewrite(layer.weight, Q if taps is None else Q.movedim(net.batch_dims, -1).reshape(layer.weight.shape))
