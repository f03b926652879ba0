"""The causal experiments: surgery on spectra, vectors, gates, scale, rank and function, each with the rest held.

`RIVALS` holds what each hypothesis predicts, arm by arm, and `MARGIN` the threshold: both were written down before any
run on the seeds that judge (4 to 11). `dyniso.report.rivals` compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .intervention import Intervention, Trunk
from .model import Experiment, Method, Net, Stream
from .theory import OURS, tiers, with_baseline

SEEDS = tuple(range(4, 12))  # that judge; 0 to 3 were for exploring
EVERY = 10  # steps between two projections of a held spectrum
SOURCES = (
    ("interventions", "designs and definitions: " + OURS),
    ("net", "four layers of 64, as in the supervised suite; 128 where the name says so; " + OURS),
    ("stream", "random labels as in Zhang et al. 2016; permuted pixels as in Goodfellow et al. 2013; sizes are ours"),
    ("method.lr", "1e-3 as elsewhere; on pixels 1e-2, where plain Adam loses plasticity at this scale; " + OURS),
    ("optimizer state", "fresh at the branch, in every arm; " + OURS),
    ("seeds", "0 to 3 explored settings, 4 to 11 judge"),
)
LABELS = Stream("random_labels", "mnist-small", samples=640, tasks=10)
PIXELS = Stream("permuted_pixels", "mnist-small", samples=4000, tasks=31)
WIDTH = Net(width=64, depth=4)


def at_branch(kind: str, **settings: Any) -> Intervention:
    return Intervention(kind, "branch", tuple(sorted(settings.items())))


def at_boundary(kind: str, **settings: Any) -> Intervention:
    return Intervention(kind, "boundary", tuple(sorted(settings.items())))


def at_start(kind: str, **settings: Any) -> Intervention:
    return Intervention(kind, "start", tuple(sorted(settings.items())))


def held(rule: str, every: int = EVERY, **settings: Any) -> Intervention:
    """A spectrum that a projection puts back after every few steps."""
    return Intervention("spectrum", "steps", tuple(sorted({"rule": rule, **settings}.items())), every)


def arm(name: str, label: str, *plan: Intervention, **changes: Any) -> Method:
    return Method(name, label, interventions=plan, **changes)


def experiment(name: str, title: str, stream: Stream, arms: Iterable[Method], **changes: Any) -> dict[str, Experiment]:
    """All tiers of one experiment: check as given, smoke of seconds, paper on CIFAR-10 with the paper's width."""
    settings: dict[str, Any] = dict(steps_per_task=300, batch=64, seeds=SEEDS, measures=("before",), net=WIDTH)
    settings |= dict(sources=SOURCES) | changes
    check = Experiment(name, title, "check", stream, methods=tuple(arms), **settings)
    trunk = check.trunk
    smoke = replace(
        check,
        tier="smoke",
        trunk=trunk and replace(trunk, tasks=1),
        stream=replace(stream, samples=320, tasks=2 if trunk else min(stream.tasks, 4)),
        steps_per_task=12,
        batch=32,
        seeds=(0, 1),
    )
    large = replace(stream, dataset="cifar10", samples=10_000 if stream.kind == "permuted_pixels" else 8000)
    return tiers(
        smoke,
        check={f: getattr(check, f) for f in ("stream", "steps_per_task", "batch", "seeds", "trunk")},
        paper=dict(
            stream=large,
            net=replace(check.net, width=512),
            trunk=trunk,
            steps_per_task=2000,
            batch=128,
            seeds=SEEDS,
        ),
    )


# ------------------------------------------------------------------------------------- E1: surgery at one boundary

SURGERY = {
    "kept": ("W kept", ()),
    "scaled": ("scaled", (at_branch("spectrum", rule="scaled"),)),
    "flat": ("flat", (at_branch("spectrum", rule="flat"),)),
    "re_paired": ("re-paired", (at_branch("re_paired"),)),
    "haar": ("Haar", (at_branch("haar"),)),
}
FLAT_HAAR = (at_branch("spectrum", rule="flat"), at_branch("haar"))
GATES = {
    "own": ("", ()),
    "collapsed": (", gates as collapsed", (at_branch("gates", share="own"),)),
    "balanced": (", balanced gates", (at_branch("gates", share=0.5),)),
}
CONTROLS = (
    arm("fresh", "fresh net", at_branch("fresh", part="all")),
    arm("flat_haar", "flat and Haar", *FLAT_HAAR),
    arm("clip", "clip", at_branch("spectrum", rule="clip")),
    arm("lift", "lift", at_branch("spectrum", rule="lift")),
    arm("norm_flat", "norm-flat", at_branch("spectrum", rule="norm_flat")),
    arm("rotated", "rotated", at_branch("rotated")),
    arm("noisy", "noise", at_branch("noisy")),
    arm("shrink_perturb", "shrink & perturb", at_branch("shrink_perturb")),
)
SURGERY_ARMS = (
    *(
        arm(f"{w}_{g}", label + of_gates, *plan, *gates)
        for w, (label, plan) in SURGERY.items()
        for g, (of_gates, gates) in GATES.items()
    ),
    *CONTROLS,
)


def surgery(stream: str, width: int) -> dict[str, Experiment]:
    """One boundary, one surgery, one task, on a trunk that has lost its plasticity."""
    suffix = "" if width == WIDTH.width else f"_{width}"
    common: dict[str, Any] = dict(net=replace(WIDTH, width=width))
    if stream == "labels":
        common |= dict(stream=replace(LABELS, tasks=21), trunk=Trunk(20))
        arms = SURGERY_ARMS
    else:
        common |= dict(stream=PIXELS, trunk=Trunk(30, lr=1e-2), steps_per_task=150)
        arms = tuple(replace(method, lr=1e-2) for method in SURGERY_ARMS)
    title = (
        f"One surgery at one boundary, {'random labels' if stream == 'labels' else 'permuted pixels'}, width {width}"
    )
    return experiment(f"surgery_{stream}{suffix}", title, arms=arms, **common)


# --------------------------------------------------------------------------------------- E2: spectra that are held

DEVIATIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
DEFECTS = (0.5, 1.0, 3.0)
FREE = arm("free", "free")
SHAPES = (
    *(arm(f"ln_{d:g}", f"log-normal {d:g}", held("log_normal", deviation=d)) for d in DEVIATIONS),
    *(
        method
        for D in DEFECTS
        for method in (
            arm(f"bottom@{D:g}", f"bottom, D {D:g}", held("bottom", defect=D)),
            arm(f"ln@{D:g}", f"log-normal, D {D:g}", held("log_normal_of", defect=D)),
            arm(f"spike4@{D:g}", f"4 spikes, D {D:g}", held("spikes", count=4, defect=D)),
            arm(f"spike1@{D:g}", f"1 spike, D {D:g}", held("spikes", count=1, defect=D)),
        )
    ),
    FREE,
)
SIDES = (
    SHAPES[0],
    arm("norm", "norm only", held("scaled")),
    arm("clip", "clip at 1", held("clip")),
    arm("lift", "lift to 1", held("lift")),
    arm("spectral", "spectral norm 1", held("spectral")),
    arm("band", "band [.5, 2]", held("band", low=0.5, high=2.0)),
    arm("level_1.41", "all 1.41", held("level", value=2**0.5)),
    arm("level_2", "all 2", held("level", value=2.0)),
    FREE,
)
LN_1 = held("log_normal", deviation=1.0)
CHAIN = (
    arm("ln_1", "log-normal 1", LN_1),
    arm("ln_1_gates", "log-normal 1, balanced gates", LN_1, at_boundary("gates", share=0.5)),
    arm("ln_1_re_paired", "log-normal 1, re-paired", LN_1, at_boundary("re_paired")),
    arm("ln_1_no_biases", "log-normal 1, no biases", LN_1, Intervention("frozen_biases")),
    arm("ln_0_gates", "flat, balanced gates", held("flat"), at_boundary("gates", share=0.5)),
)
FEW = ("ln_0", "ln_1", "bottom@1", "ln@1", "spike4@1", "spike1@1", "clip", "lift", "level_2", "free")


def held_spectra(which: str, activation: str, width: int = 64) -> dict[str, Experiment]:
    """Spectra that cannot change, vectors that can: ten tasks of random labels."""
    arms = {"shapes": SHAPES, "sides": SIDES + (CHAIN if activation == "relu" else ())}.get(which)
    if arms is None:
        every = {method.name: method for method in SHAPES + SIDES}
        arms = tuple(every[name] for name in FEW)
    suffix = "" if width == 64 else f"_{width}"
    return experiment(
        f"held_{which}_{activation}{suffix}",
        f"Held spectra ({which}), {'ReLU' if activation == 'relu' else 'MaxMin'}, width {width}",
        LABELS,
        (replace(method, activation=activation) for method in arms),
        net=replace(WIDTH, width=width),
    )


# -------------------------------------------------------------------------------- E3: the same at every boundary

BOUNDARY = tuple(
    replace(method, reset_optimizer=True)
    for method in (
        arm("none", "none"),
        arm("flat", "flat", at_boundary("spectrum", rule="flat")),
        arm("scaled", "scaled", at_boundary("spectrum", rule="scaled")),
        arm("re_paired", "re-paired", at_boundary("re_paired")),
        arm("scaled_re_paired", "scaled, re-paired", at_boundary("spectrum", rule="scaled"), at_boundary("re_paired")),
        arm("re_paired_balanced", "re-paired, balanced", at_boundary("re_paired"), at_boundary("gates", share=0.5)),
        arm("clip", "clip", at_boundary("spectrum", rule="clip")),
        arm("lift", "lift", at_boundary("spectrum", rule="lift")),
        arm("fresh_hidden", "fresh W and b", at_boundary("fresh", part="hidden")),
        arm(
            "flat_gates_.05", "flat, gates .05", at_boundary("spectrum", rule="flat"), at_boundary("gates", share=0.05)
        ),
        arm("fresh", "fresh net", at_boundary("fresh", part="all")),
    )
)

# ------------------------------------------------------------------------- E4: the same function, another spectrum

GAUGES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)


def gauge(when: str, trunk: Trunk | None) -> dict[str, Experiment]:
    """One function, other weights: under Adam, and under SGD at a rate that fits each kernel."""
    make = at_branch if trunk else at_start
    plans = {f"normal_{d:g}": (f"ln S {d:g}", (make("gauge", deviation=d),)) for d in GAUGES}
    if trunk:
        plans |= {
            "rows": ("unit rows", (make("gauge", scales="rows"),)),
            "isometric": ("isometric gauge", (make("gauge", scales="isometric"),)),
            "flat": ("flat (another function)", (make("spectrum", rule="flat"),)),
        }
    arms = [arm(f"{name}_adam", f"{label}, Adam", *plan) for name, (label, plan) in plans.items()]
    sgd: dict[str, Any] = dict(optimizer="sgd", lr=0.1)
    arms += [
        arm(f"{name}_sgd", f"{label}, SGD", *plan, Intervention("matched_rate"), **sgd)
        for name, (label, plan) in plans.items()
    ]
    stream = replace(LABELS, tasks=trunk.tasks + 1 if trunk else 1)
    title = f"The same function from other weights, on a {when} net"
    return experiment(f"gauge_{when}", title, stream, arms, trunk=trunk)


# ------------------------------------------------------------------- E5: isometry forced, is plasticity lost or not?

FLAT = held("flat")
CONSTRUCTED = (
    arm("own", "gates own", FLAT, activation="maxmin"),
    *(
        arm(
            f"q{q:g}_m{margin:g}_{state}",
            f"share {q:g}, margin {margin:g}, {state}",
            at_start("gates", share=q, margin=margin),
            FLAT,
            *((Intervention("frozen_biases"),) if state == "frozen" else ()),
            activation="maxmin",
        )
        for q, margin in ((0.5, 1.0), (0.1, 1.0), (0.02, 1.0), (0.0, 1.0), (0.0, 3.0))
        for state in ("frozen", "free")
    ),
)
RATES = (1e-3, 3e-3, 1e-2)


def organic(activation: str) -> dict[str, Experiment]:
    """All hidden singular values held at 1 while rates grow: does plasticity stay?"""
    flat = held("flat", every=5)
    arms = []
    for lr in RATES:
        plans = {
            "free": (),
            "held": (flat,),
            "no_biases": (flat, Intervention("frozen_biases")),
            "fresh_head": (flat, at_boundary("fresh", part="head")),
        }
        if activation == "maxmin":
            plans = {name: plans[name] for name in ("free", "held")}
        arms += [
            arm(f"{name}_{lr:g}", f"{name.replace('_', ' ')}, {lr:g}", *plan, lr=lr, activation=activation)
            for name, plan in plans.items()
        ]
    title = f"Singular values held at 1, higher and higher rates, {'ReLU' if activation == 'relu' else 'MaxMin'}"
    stream = replace(LABELS, tasks=30)
    return experiment(f"forced_{activation}", title, stream, arms, steps_per_task=200)


# ------------------------------------------------------------------------------------------ E6: rank or kernel?

ALPHA = 0.1


def rank_arms() -> list[Method]:
    """A penalty that raises or lowers the rank of the last features, under plain Adam, AdamO, and held isometry."""
    found = []
    for way, label, alpha in (
        ("none", "no penalty", 0.0),
        ("raise", "rank raised", ALPHA),
        ("lower", "rank lowered", -ALPHA),
    ):
        extra: dict[str, Any] = {}
        if alpha:
            extra = dict(baseline="feature_logdet", settings=(("alpha", alpha),))
        found += [
            arm(f"adam_{way}", f"Adam, {label}", **extra),
            arm(f"adamo_{way}", f"AdamO, {label}", optimizer="adamo", isometry_strength=0.1, **extra),
            arm(f"held_{way}", f"held, {label}", FLAT, **extra),
        ]
    return found


ROUTES = (
    arm("adam", "Adam"),
    arm("adamo_0.1", "AdamO, 0.1", optimizer="adamo", isometry_strength=0.1),
    with_baseline("fire", "FIRE"),
    with_baseline("l2_init", "L2-Init, 0.01", strength=0.01),
    Method("layernorm", "LayerNorm", norm="layernorm"),
)

# ------------------------------------------------------------------------------------ a pull on one side only


def one_sided(stream: str) -> dict[str, Experiment]:
    """AdamO that pulls only singular values above 1, beside the whole pull."""
    rate: dict[str, Any] = dict(lr=1e-3 if stream == "labels" else 1e-2)
    arms = [arm("adam", "Adam", **rate)]
    for strength in (0.1, 1.0):
        pulled: dict[str, Any] = dict(optimizer="adamo", isometry_every=EVERY, isometry_strength=strength, **rate)
        arms += [
            arm(f"both_{strength:g}", f"both sides, {strength:g}", **pulled),
            arm(f"above_{strength:g}", f"above 1 only, {strength:g}", isometry_side="above", **pulled),
        ]
    where, title = (replace(LABELS, tasks=20), "random labels") if stream == "labels" else (PIXELS, "permuted pixels")
    steps = 400 if stream == "labels" else 150
    return experiment(f"one_sided_{stream}", f"AdamO on one side only, {title}", where, arms, steps_per_task=steps)


CAUSAL: dict[str, dict[str, Experiment]] = {
    tiers_["check"].name: tiers_
    for tiers_ in (
        surgery("labels", 64),
        surgery("pixels", 64),
        surgery("labels", 128),
        surgery("pixels", 128),
        *(held_spectra(which, activation) for which in ("shapes", "sides") for activation in ("relu", "maxmin")),
        *(held_spectra("few", activation, 128) for activation in ("relu", "maxmin")),
        experiment("every_boundary", "The same surgery at every boundary", replace(LABELS, tasks=20), BOUNDARY),
        gauge("fresh", None),
        gauge("collapsed", Trunk(20)),
        experiment("constructed", "Isometric nets with gates set by hand", replace(LABELS, tasks=6), CONSTRUCTED),
        organic("relu"),
        organic("maxmin"),
        experiment("rank_or_kernel", "Rank of features raised or lowered", replace(LABELS, tasks=12), rank_arms()),
        experiment(
            "routes", "What methods change before each task", replace(LABELS, tasks=20), ROUTES, steps_per_task=400
        ),
        one_sided("labels"),
        one_sided("pixels"),
    )
}
