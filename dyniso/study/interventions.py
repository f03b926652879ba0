"""Interventions on the runs of a stack, as specs declare them: `dyniso.interventions` on each arm's own runs.

Arms of one stack differ in what is done to them; what is drawn for a run depends on its seed, the task and the layer
alone, so all arms of a seed get the same draws.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import interventions as surgery
from ..activations import ACTIVATION_TYPES
from ..checks import require, require_range, require_that
from ..groups import isometry_groups
from .specs import Intervention
from .stack import Run, Stack

IMAGES = 512  # of the coming task, on which gates are set and measured
FRESH = 1_000_003  # times the task and one, added to the seed: the seed of a fresh net
DRAWS = 7_919  # likewise, the seed of what is drawn for an intervention


class Arm:
    """Runs of a stack that get the same interventions, and what these may look at.

    Args:
        stack: all runs. rows: this arm's, in the stack. seeds: of these. index: the coming task.
        images: of the coming task, (rows, samples, features); None within a task.
        fresh: seed -> a freshly drawn net of the arm's shape.
    """

    def __init__(
        self,
        stack: Stack,
        rows: Sequence[int],
        seeds: Sequence[int],
        index: int,
        images: Tensor | None,
        fresh: Callable[[int], nn.Sequential],
    ):
        self.stack, self.rows, self.seeds, self.index, self.images = stack, list(rows), list(seeds), index, images
        self.draw_fresh = fresh
        self.hidden = stack.regularised()  # names of the weights
        self.moved = torch.zeros(len(self.rows))  # root mean square by which projections changed singular values
        self.own_shares: list[Tensor] | None = None

    def get(self, name: str) -> Tensor:
        """The arm's share of a parameter, (rows, ...)."""
        return self.stack.params[name].detach()[self.rows]

    def put(self, name: str, value: Tensor) -> None:
        """Write it back."""
        with torch.no_grad():
            self.stack.params[name][self.rows] = value

    def biases(self) -> list[str]:
        """Names of the hidden layers' biases."""
        names = [name.removesuffix("weight") + "bias" for name in self.hidden]
        return [name for name in names if name in self.stack.params]

    @property
    def activation(self) -> nn.Module:
        """Between the layers."""
        return activation_of(self.stack.template)

    def generators(self, layer: int) -> Iterator[torch.Generator]:
        """One generator a run, for draws of one layer."""
        for seed in self.seeds:
            yield torch.Generator().manual_seed(seed + DRAWS * (self.index + 1) + 101 * layer)

    def fresh(self) -> dict[str, Tensor]:
        """Parameters of a fresh net for each run, by name, where the stack is."""
        nets = [self.draw_fresh(seed + FRESH * (self.index + 1)) for seed in self.seeds]
        params = self.stack.params.items()
        return {
            name: torch.stack([net.get_parameter(name).detach() for net in nets]).to(p.device) for name, p in params
        }

    def shares(self) -> list[Tensor]:
        """On which share of the coming task's images each unit fires now."""
        weights, biases = [self.get(n) for n in self.hidden], [self.get(n) for n in self.biases()]
        return surgery.firing_shares(weights, biases, self.activation, self.seen())

    def seen(self) -> Tensor:
        """Images of the coming task."""
        require_that(self.images is not None, "intervention", "gates", "at a task boundary: it looks at images")
        assert self.images is not None
        return self.images


def activation_of(net: nn.Sequential) -> nn.Module:
    """What stands between the layers of a net."""
    return next(layer for layer in net if isinstance(layer, ACTIVATION_TYPES))


def each(arm: Arm, change: Callable[[Tensor, torch.Generator, int, str], Tensor]) -> None:
    """Change every hidden weight of every run with draws of its own: (weight, generator, run, name) -> weight."""
    for layer, name in enumerate(arm.hidden):
        W = arm.get(name)
        made = [change(W[r], g, r, name) for r, g in enumerate(arm.generators(layer))]
        arm.put(name, torch.stack(made))


def flat_distance(W: Tensor) -> Tensor:
    """How far away the polar factor of a weight is, by which every displaced arm moves it."""
    return torch.linalg.matrix_norm((surgery.with_spectrum(W, surgery.flat, any_vectors=True) - W).double())


def spectrum(arm: Arm, rule: str, **settings: Any) -> None:
    """Singular values by a rule of `dyniso.interventions.SPECTRA`, singular vectors kept.

    One that training has brought to 0 gets any vector that is orthogonal to the others.
    """
    chosen = surgery.rule(rule, **settings)
    for name in arm.hidden:
        W = arm.get(name)
        made = surgery.with_spectrum(W, chosen, any_vectors=True)
        change = torch.linalg.matrix_norm(made - W) / math.sqrt(min(W.shape[-2:]))
        arm.moved = torch.maximum(arm.moved.to(W.device), change)
        arm.put(name, made)


def re_paired(arm: Arm) -> None:
    """Singular values dealt out anew among the pairs of singular vectors."""
    each(arm, lambda W, g, run, name: surgery.re_paired(W, g))


def haar(arm: Arm) -> None:
    """Random singular vectors, singular values kept."""
    each(arm, lambda W, g, run, name: surgery.haar(W, g))


def rotated(arm: Arm) -> None:
    """A random rotation of the outputs that moves each weight as far as `flat` would."""
    each(arm, lambda W, g, run, name: surgery.rotated(W, flat_distance(W), g))


def noisy(arm: Arm) -> None:
    """Gaussian noise that moves each weight as far as `flat` would."""
    each(arm, lambda W, g, run, name: surgery.noisy(W, flat_distance(W), g))


def shrink_perturb(arm: Arm) -> None:
    """Towards a fresh draw, as far as `flat` would move each weight."""
    target = arm.fresh()
    each(arm, lambda W, g, run, name: surgery.toward(W, target[name][run], flat_distance(W)))


def gates(arm: Arm, share: float | str, margin: float = 1.0) -> None:
    """Hidden biases with which units fire on a share of the images; "own": on what each unit did before the surgery.

    Where values coincide, as behind dead layers, a unit gets the share next to it: `before_firing` says what was had.
    """
    weights = [arm.get(name) for name in arm.hidden]
    wanted: Any = arm.own_shares if share == "own" else share
    made = surgery.gate_biases(weights, arm.activation, arm.seen(), wanted, margin, tolerance=1.0)
    for name, b in zip(arm.biases(), made, strict=True):
        arm.put(name, b)


def zero_biases(arm: Arm) -> None:
    """Hidden biases 0."""
    for name in arm.biases():
        arm.put(name, torch.zeros_like(arm.get(name)))


def fresh(arm: Arm, part: str) -> None:
    """A fresh draw of "hidden" layers (weights and biases), the "head", or "all"."""
    hidden = {*arm.hidden, *arm.biases()}
    chosen = {"hidden": hidden, "head": arm.stack.params.keys() - hidden, "all": arm.stack.params.keys()}[part]
    for name, value in arm.fresh().items():
        if name in chosen:
            arm.put(name, value)


def gauge(arm: Arm, deviation: float | None = None, scales: str = "normal") -> None:
    """The same function from other weights: ln of the units' scales "normal", "rows" of length 1, or "isometric"."""
    shared = surgery.units_of_a_scale(arm.activation)
    names = [name for name in arm.stack.params if name.endswith("weight")]
    weights = [arm.get(name) for name in names]
    if scales == "normal":
        rows = [
            surgery.random_scales([W[r] for W in weights[:-1]], float(deviation or 0.0), g, shared)
            for r, g in enumerate(arm.generators(0))
        ]
        logs = [torch.stack(column) for column in zip(*rows, strict=True)]
    elif scales == "rows":
        logs = surgery.unit_row_scales(weights[:-1])
    else:
        logs = surgery.isometric_scales(weights[:-1], shared=shared)
    biases = [arm.get(name.removesuffix("weight") + "bias") for name in names]
    for name, W, b in zip(names, *surgery.gauged(weights, biases, logs), strict=True):
        arm.put(name, W)
        assert b is not None
        arm.put(name.removesuffix("weight") + "bias", b)


def nothing(arm: Arm) -> None:
    """No change of weights: the kind acts on gradients (`Interventions.scale_gradients`)."""


# Every kind that a spec may name; the allowed names are read from the keys, so they stand as literals.
KINDS: dict[str, Callable[..., None]] = {
    "spectrum": spectrum,
    "re_paired": re_paired,
    "haar": haar,
    "rotated": rotated,
    "noisy": noisy,
    "shrink_perturb": shrink_perturb,
    "gates": gates,
    "zero_biases": zero_biases,
    "fresh": fresh,
    "gauge": gauge,
    "frozen_biases": nothing,
    "matched_rate": nothing,
}


class Place(NamedTuple):
    """Where in a run an intervention may be due."""

    task: int  # its number
    branch: int  # the first task after the trunk, 0 without one
    step: int | None = None  # steps done in this task; None before the first

    def is_due(self, what: Intervention) -> bool:
        """Whether an intervention is made here."""
        if self.step is not None:
            return what.when == "steps" and what.every is not None and self.step % what.every == 0
        at_branch = self.task == self.branch
        return {
            "start": self.task == 0,
            "branch": at_branch,
            "boundary": self.task >= max(self.branch, 1),
            "steps": at_branch,
        }[what.when]


class Interventions:
    """All interventions on the runs of a stack.

    Args:
        runs: of the stack, in order. stack: their nets. branch: the first task after the trunk.
        fresh: run -> a net drawn for its method and seed.
    Raises:
        ValueError: an unknown rule or setting, now and not at the first boundary.
    """

    def __init__(self, runs: list[Run], stack: Stack, branch: int, fresh: Callable[[Run], nn.Sequential]):
        self.runs, self.stack, self.branch, self.fresh = runs, stack, branch, fresh
        self.arms: dict[tuple[Intervention, ...], list[int]] = {}
        for row, run in enumerate(runs):
            if run.method.interventions:
                self.arms.setdefault(run.method.interventions, []).append(row)
        for what in {w for plan in self.arms for w in plan}:
            check(what, stack.template)
        self.steps = sorted({w.every for plan in self.arms for w in plan if w.every})
        device = next(iter(stack.params.values())).device
        self.rate = torch.ones(len(runs), device=device)  # factor of the gradients of each run
        self.kept = self.factors("frozen_biases", device)
        self.moved = torch.zeros(len(runs), device=device)

    def factors(self, kind: str, device: torch.device) -> Tensor:
        """0 for the runs that have an intervention of a kind, 1 for the others."""
        has = [any(w.kind == kind for w in run.method.interventions) for run in self.runs]
        return 1.0 - torch.tensor(has, device=device).float()

    def before_task(self, index: int, images: Tensor, kernel_max: Callable[[Stack, Tensor], Tensor]) -> None:
        """What is due before a task.

        Args:
            images: of the coming task, (runs, samples, features). kernel_max: largest eigenvalue of the kernel of each
                run of a stack on some images, for "matched_rate".
        """
        self.moved.zero_()
        self.make(Place(index, self.branch), images)
        matched = (self.factors("matched_rate", images.device) == 0).nonzero()[:, 0]
        if len(matched) and index == self.branch:
            here = kernel_max(self.stack, images)
            drawn = Stack([self.fresh(run) for run in self.runs], images.device)
            self.rate[matched] = (kernel_max(drawn, images) / here).float()[matched]

    def after_step(self, index: int, step: int) -> None:
        """What is due after `step` steps of a task."""
        if any(step % every == 0 for every in self.steps):
            self.make(Place(index, self.branch, step), None)

    def make(self, place: Place, images: Tensor | None) -> None:
        """Everything that is due at a place; runs that are not finite are left alone."""
        finite: list[bool] | None = None
        for plan, rows in self.arms.items():
            due = [what for what in plan if place.is_due(what)]
            if not due:
                continue
            finite = self.stack.finite().tolist() if finite is None else finite
            alive = [r for r in rows if finite[r]]
            if not alive:
                continue
            method = self.runs[alive[0]].method
            arm = Arm(
                self.stack,
                alive,
                [self.runs[r].seed for r in alive],
                place.task,
                None if images is None else images[alive][:, :IMAGES],
                lambda seed, method=method: self.fresh(Run(method, seed)),  # type: ignore[misc]
            )
            if any(("share", "own") in what.settings for what in due):
                arm.own_shares = arm.shares()
            for what in due:
                KINDS[what.kind](arm, **dict(what.settings))
            if place.step is not None:
                self.moved[alive] = torch.maximum(self.moved[alive], arm.moved.to(self.moved.device))

    def scale_gradients(self) -> None:
        """Gradients of hidden biases to 0 where these are frozen, and all of a run's by its rate."""
        biases = {name.removesuffix("weight") + "bias" for name in self.stack.regularised()} if self.frozen else set()
        for name, p in self.stack.params.items():
            if p.grad is not None:
                factor = self.rate * self.kept if name in biases else self.rate
                p.grad.mul_(factor.reshape(-1, *[1] * (p.ndim - 1)))

    @property
    def frozen(self) -> bool:
        """Whether any run has frozen biases."""
        return bool((self.kept == 0).any())

    @property
    def acts_on_gradients(self) -> bool:
        """Whether any run has an intervention of that kind."""
        kinds = {w.kind for plan in self.arms for w in plan}
        return bool(kinds & {"frozen_biases", "matched_rate"})

    def state_dict(self) -> Mapping[str, Tensor]:
        """What a run that goes on must know."""
        return {"rate": self.rate}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it up."""
        self.rate.copy_(state["rate"])


ALLOWED = {("fresh", "part"): ("hidden", "head", "all"), ("gauge", "scales"): ("normal", "rows", "isometric")}


def check(what: Intervention, net: nn.Sequential, samples: int = IMAGES) -> None:
    """Raise ValueError for what an intervention cannot do, before anything is trained: it may be due hours later.

    Args:
        net: one of the arm's. samples: of a task.
    """
    settings = dict(what.settings)
    for key, value in settings.items():
        if (what.kind, key) in ALLOWED:
            require(f"{what.kind}.{key}", value, ALLOWED[what.kind, key])
    try:
        inspect.signature(KINDS[what.kind]).bind(None, **settings)
        if what.kind in CHECKS:
            CHECKS[what.kind](what, net, min(samples, IMAGES))
    except TypeError as error:
        raise ValueError(f"intervention {what.kind!r} with settings {settings}: {error}") from None


def check_spectrum(what: Intervention, net: nn.Sequential, samples: int) -> None:
    """The rule and its settings, on as many singular values as each hidden weight has."""
    settings = dict(what.settings)
    chosen = surgery.rule(settings.pop("rule"), **settings)
    for W in isometry_groups(net)[0]["params"]:
        chosen(torch.ones(min(W.shape), dtype=torch.float64))


def check_gates(what: Intervention, net: nn.Sequential, samples: int) -> None:
    """A share that so many samples can show; and a time at which there are images."""
    settings = dict(what.settings)
    require_that(what.when != "steps", "gates.when", what.when, "a task boundary: it looks at images")
    share = 0.5 if settings["share"] == "own" else settings["share"]
    surgery.gate_bias(torch.arange(float(samples))[:, None], share, settings.get("margin", 1.0))


def check_gauge(what: Intervention, net: nn.Sequential, samples: int) -> None:
    """An activation that lets scales through, single ones for rows of length 1."""
    settings = dict(what.settings)
    shared = surgery.units_of_a_scale(activation_of(net))
    single = settings.get("scales") != "rows" or shared == 1
    require_that(single, "gauge.scales", "rows", f"another: {shared} units share a scale, whose rows differ in length")
    if settings.get("deviation") is not None:
        require_range("gauge.deviation", settings["deviation"], 0, kind=float)


CHECKS: dict[str, Callable[[Intervention, nn.Sequential, int], None]] = {
    "spectrum": check_spectrum,
    "gates": check_gates,
    "gauge": check_gauge,
}
