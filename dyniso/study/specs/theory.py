"""The experiments of the theory chapters: two streams, and a short one on which many methods fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .model import AnyExperiment, Experiment, Method, Net, Stream

ADAM = Method("adam", "Adam")
PRINTED = Method("adamo_printed", "AdamO, 1e-3 (printed)", optimizer="adamo", isometry_strength=1e-3)
ADAMO = replace(PRINTED, name="adamo_0.1", label="AdamO, 0.1", isometry_strength=0.1)
COUPLED = replace(PRINTED, name="adamo_coupled", label="coupled, 1e-3", coupled=True)
MAXMIN = Method("maxmin", "MaxMin, Adam", activation="maxmin")
MAXMIN_ADAMO = replace(ADAMO, name="maxmin_adamo_0.1", label="MaxMin, AdamO 0.1", activation="maxmin")
METHODS = (ADAM, PRINTED, ADAMO, COUPLED, MAXMIN, MAXMIN_ADAMO)

OURS = "ours: not stated by the paper"
COMMON_SOURCES = (
    ("net", "MLP of depth 4, width 512 at tier paper (third-party reading of the paper); smaller tiers are ours"),
    ("method.lr", "1e-3 for Adam and AdamO in one experiment family of the paper's appendix"),
    (
        "method.isometry_strength",
        "1e-3 is printed (appendix); 0.1 is ours, where the strength law of the book's chapter on AdamO puts it",
    ),
    ("optimizer state", "kept at task changes; " + OURS),
    ("batch, steps_per_task, samples", OURS),
)
SCALE_SMOKE = Net(width=64, depth=4)
SCALE_CHECK = Net(width=128, depth=4)
SCALE_PAPER = Net(width=512, depth=4)

RANDOM_LABELS = Experiment(
    name="random_labels",
    title="Memorising fresh random labels of the same MNIST images, task after task",
    tier="smoke",
    stream=Stream("random_labels", "mnist-small", samples=640, tasks=10),
    net=SCALE_SMOKE,
    methods=METHODS,
    steps_per_task=300,
    batch=64,
    seeds=(0, 1),
    sources=(*COMMON_SOURCES, ("stream", "random labels as in Zhang et al. 2016, labels uniform and independent")),
)
PERMUTED_PIXELS = replace(
    RANDOM_LABELS,
    name="permuted_pixels",
    title="Digits under a fresh permutation of the pixels, task after task",
    stream=Stream("permuted_pixels", "mnist-small", samples=2000, tasks=10),
    steps_per_task=125,
    batch=16,
    sources=(
        *COMMON_SOURCES,
        ("stream", "online permuted MNIST, one pass, batch 16, as in Kumar et al. 2023, smaller"),
    ),
)


# The short stream of the theory chapters: small enough that two dozen methods fit on two cores.
SHORT_STREAM = replace(
    RANDOM_LABELS,
    seeds=(0, 1),
    sources=(
        *COMMON_SOURCES,
        ("stream", "random labels as in Zhang et al. 2016, labels uniform and independent"),
        ("method.settings", "the constants of each method's source, not tuned here; see dyniso.baselines"),
    ),
)


def with_baseline(baseline: str, label: str, name: str | None = None, **changes: Any) -> Method:
    """Adam with a method of `dyniso.baselines`; keywords that are no fields of Method are the baseline's settings.

    A baseline's own `lr` can therefore not be given here; write the Method out.
    """
    own = {k: changes.pop(k) for k in list(changes) if k in Method.__dataclass_fields__}
    return Method(name or baseline, label, baseline=baseline, settings=tuple(sorted(changes.items())), **own)


L2_INIT = with_baseline("l2_init", "L2-Init, 0.01", strength=0.01)
REDO = with_baseline("redo", "ReDo", threshold=0.1, every=100)
LAYERNORM = Method("layernorm", "LayerNorm", norm="layernorm")
EARLIER_METHODS = replace(
    SHORT_STREAM,
    name="earlier_methods",
    title="Every method on one short stream, through the same instruments",
    measures=("lens",),
    methods=(
        ADAM,
        Method("adamw", "AdamW, 0.1", optimizer="adamw", weight_decay=0.1),
        with_baseline("l2", "L2, 0.001", strength=1e-3),
        L2_INIT,
        with_baseline("feature_rank", "L2-ER"),
        with_baseline("spectral_penalty", "spectral penalty", strength=1e-3),
        with_baseline("spectral_norm", "spectral norm"),
        with_baseline("row_norm", "weight norm"),
        with_baseline("weight_clipping", "weight clipping", kappa=2.0),
        with_baseline("norm_projection", "NaP", name="nap", norm="layernorm_fixed"),
        LAYERNORM,
        with_baseline("parseval", "Parseval, 0.001", strength=1e-3),
        PRINTED,
        ADAMO,
        Method("crelu", "CReLU", activation="crelu"),
        MAXMIN,
        MAXMIN_ADAMO,
        Method("isometric", "isometric net", activation="maxmin", parametrization="newton_schulz"),
        REDO,
        with_baseline("continual_backprop", "continual backprop", rate=1e-3),
        with_baseline("shrink_perturb", "shrink & perturb", shrink=0.999, perturb=0.01, when="step"),
        with_baseline("reset", "head reset", name="reset_head", layers="head"),
        with_baseline("reset", "full reset", name="reset_all", layers="all"),
        with_baseline("fire", "FIRE"),
        with_baseline("fire", "FIRE to one", name="fire_one", steps=30, fan_scaled=False),
        Method("muon", "Muon", optimizer="muon"),
        Method("upgd", "UPGD", optimizer="upgd", lr=1e-2, weight_decay=1e-2),
        with_baseline("churn", "C-CHAIN"),
    ),
)
DORMANCY = replace(
    SHORT_STREAM,
    name="dormancy",
    title="Dormant, dead and reactivated ReLUs, with the pull on live or dead rows only",
    methods=(
        ADAM,
        ADAMO,
        COUPLED,
        with_baseline("isometry", "live rows only, 0.1", name="live_rows_0.1", strength=0.1, rows="live"),
        with_baseline("isometry", "dead rows only, 0.1", name="dead_rows_0.1", strength=0.1, rows="dead"),
        L2_INIT,
        REDO,
        LAYERNORM,
    ),
)


def at_strength(strength: float, coupled: bool, label: str) -> Method:
    return replace(
        PRINTED,
        name=f"{label}_{strength:g}",
        label=f"{label}, {strength:g}",
        isometry_strength=strength,
        coupled=coupled,
    )


STRENGTHS = replace(
    SHORT_STREAM,
    name="strengths",
    title="Coupled against decoupled over strengths, evaluation point, lazy steps",
    methods=(
        ADAM,
        *(at_strength(s, False, "decoupled") for s in (1e-3, 1e-2, 1e-1, 1.0)),
        *(at_strength(s, True, "coupled") for s in (1e-5, 1e-4, 1e-3, 1e-2)),
        with_baseline("isometry", "after Adam, 0.1", name="after_0.1", strength=0.1),
        replace(ADAMO, name="lazy10_0.1", label="every 10, 0.1", isometry_every=10),
        replace(ADAMO, name="lazy50_0.1", label="every 50, 0.1", isometry_every=50),
    ),
)
INTERACTIONS = replace(
    SHORT_STREAM,
    name="interactions",
    title="AdamO beside weight decay, gradient clipping, a schedule, and Muon",
    methods=(
        ADAM,
        ADAMO,
        replace(ADAMO, name="adamo_0.1_l2", label="AdamO + L2", weight_decay=1e-3),
        replace(ADAMO, name="adamo_0.1_adamw", label="AdamO + decay", weight_decay=0.1, decoupled_weight_decay=True),
        Method("adamw", "AdamW, 0.1", optimizer="adamw", weight_decay=0.1),
        replace(ADAMO, name="adamo_0.1_clip", label="AdamO, clipped", clip_norm=0.5),
        replace(ADAM, name="adam_clip", label="Adam, clipped", clip_norm=0.5),
        replace(ADAMO, name="adamo_0.1_cosine", label="AdamO, cosine", schedule="cosine"),
        replace(ADAM, name="adam_cosine", label="Adam, cosine", schedule="cosine"),
        Method("muon", "Muon", optimizer="muon"),
        with_baseline("isometry", "Muon + isometry", name="muon_isometry", optimizer="muon", strength=0.1),
    ),
)
PREDICTORS = replace(
    SHORT_STREAM,
    name="predictors",
    title="The kernel before each task, and the loss removed in it",
    measures=("kernel",),
    methods=(ADAM, PRINTED, ADAMO, COUPLED, MAXMIN, MAXMIN_ADAMO, LAYERNORM, L2_INIT, REDO),
)


def tiers(smoke: AnyExperiment, **changes: dict[str, Any]) -> dict[str, AnyExperiment]:
    """The smoke spec and its heavier versions, each a `replace` of it."""
    return {"smoke": smoke} | {
        tier: replace(smoke, tier=tier, **change)  # type: ignore[type-var]
        for tier, change in changes.items()
    }


def short(smoke: Experiment) -> dict[str, Experiment]:
    """The tiers of an experiment on the short stream."""
    return tiers(
        smoke,
        check=dict(
            stream=replace(smoke.stream, tasks=20),
            steps_per_task=400,
            seeds=(0, 1, 2, 3),
        ),
        paper=dict(
            stream=replace(smoke.stream, samples=8000, tasks=30),
            net=SCALE_PAPER,
            steps_per_task=2000,
            batch=128,
            seeds=tuple(range(8)),
        ),
    )


THEORY: dict[str, dict[str, Experiment]] = {
    "random_labels": tiers(
        RANDOM_LABELS,
        check=dict(
            stream=replace(RANDOM_LABELS.stream, samples=1280, tasks=25),
            net=SCALE_CHECK,
            steps_per_task=1000,
            batch=128,
            seeds=(0, 1, 2, 3),
        ),
        paper=dict(
            stream=replace(RANDOM_LABELS.stream, samples=8000, tasks=30),
            net=SCALE_PAPER,
            steps_per_task=2000,
            batch=128,
            seeds=tuple(range(8)),
        ),
    ),
    "permuted_pixels": tiers(
        PERMUTED_PIXELS,
        check=dict(
            stream=replace(PERMUTED_PIXELS.stream, samples=8000, tasks=40),
            net=SCALE_CHECK,
            steps_per_task=500,
            seeds=(0, 1, 2, 3),
        ),
        paper=dict(
            stream=replace(PERMUTED_PIXELS.stream, dataset="mnist", samples=10_000, tasks=100),
            net=SCALE_PAPER,
            steps_per_task=625,
            seeds=tuple(range(8)),
        ),
    ),
} | {smoke.name: short(smoke) for smoke in (EARLIER_METHODS, DORMANCY, STRENGTHS, INTERACTIONS, PREDICTORS)}
