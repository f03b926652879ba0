"""The supervised suite: every method on every stream, each with a sweep of equal budget on seeds of its own.

A method enters a stream with the candidate that was best in that stream's sweep (`tuned.TUNED`, an index into
`CANDIDATES`); what the sweep found is stored and shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .model import BITS, Experiment, Method, Net, Stream
from .theory import OURS, with_baseline
from .theory import tiers as tiers_of
from .tuned import TUNED

BUDGET = 4  # candidates of every method
TUNING_SEEDS = (100, 101)
RATES = (3e-3, 1e-3, 3e-4, 1e-4)
STRONG = (1e-3, 3e-4)  # learning rates of methods that have a strength to choose as well


def over_rates(method: Method, rates: Sequence[float] = RATES) -> tuple[Method, ...]:
    """One candidate a learning rate."""
    return named(method, [replace(method, lr=rate) for rate in rates])


def over_settings(method: Method, *settings: dict[str, Any]) -> tuple[Method, ...]:
    """Two learning rates times the settings: those of the baseline where it has one, of the method otherwise."""

    def changed(own: dict[str, Any]) -> Method:
        return replace(method, settings=tuple(sorted(own.items()))) if method.baseline else replace(method, **own)

    return named(method, [replace(changed(own), lr=rate) for own in settings for rate in STRONG])


def named(method: Method, candidates: Sequence[Method]) -> tuple[Method, ...]:
    """The candidates as arms of a sweep: their names and labels say which one each is."""
    if len(candidates) != BUDGET:
        raise ValueError(f"{method.name} has {len(candidates)} candidates; every method has {BUDGET}")
    return tuple(replace(c, name=f"{method.name}.{k}", label=f"{method.label} {k}") for k, c in enumerate(candidates))


ADAM = Method("adam", "Adam")
ADAMO = Method("adamo", "AdamO", optimizer="adamo", isometry_strength=0.1)
STRENGTHS = {"isometry_strength": 0.1}, {"isometry_strength": 1.0}
CANDIDATES: dict[str, tuple[Method, ...]] = {
    "sgd": over_rates(Method("sgd", "SGD", optimizer="sgd"), (0.1, 0.03, 0.01, 0.003)),
    "adam": over_rates(ADAM),
    "adam_reset": over_rates(Method("adam_reset", "Adam, state reset", reset_optimizer=True)),
    "adamw": over_settings(Method("adamw", "AdamW", optimizer="adamw"), {"weight_decay": 0.1}, {"weight_decay": 1.0}),
    "l2": over_settings(with_baseline("l2", "L2"), {"strength": 1e-3}, {"strength": 1e-2}),
    "l2_init": over_settings(with_baseline("l2_init", "L2-Init"), {"strength": 1e-3}, {"strength": 1e-2}),
    "shrink_perturb": over_settings(
        with_baseline("shrink_perturb", "shrink & perturb"),
        {"shrink": 1 - 1e-3, "perturb": 1e-2, "when": "step"},
        {"shrink": 1 - 1e-4, "perturb": 1e-2, "when": "step"},
    ),
    "redo": over_settings(
        with_baseline("redo", "ReDo"), {"threshold": 0.025, "every": 1000}, {"threshold": 0.1, "every": 100}
    ),
    "continual_backprop": over_settings(
        with_baseline("continual_backprop", "continual backprop"), {"rate": 1e-4}, {"rate": 1e-3}
    ),
    "upgd": over_rates(Method("upgd", "UPGD", optimizer="upgd", weight_decay=1e-2), (0.1, 0.03, 0.01, 0.003)),
    "layernorm": over_rates(Method("layernorm", "LayerNorm", norm="layernorm")),
    "crelu": over_rates(Method("crelu", "CReLU", activation="crelu")),
    "spectral_penalty": over_settings(
        with_baseline("spectral_penalty", "spectral penalty"), {"strength": 1e-3}, {"strength": 1e-2}
    ),
    "parseval": over_settings(with_baseline("parseval", "Parseval"), {"strength": 1e-3}, {"strength": 1e-2}),
    "nap": over_rates(with_baseline("norm_projection", "NaP", name="nap", norm="layernorm_fixed")),
    "fire": over_rates(with_baseline("fire", "FIRE")),
    "muon": over_rates(Method("muon", "Muon", optimizer="muon")),
    "reset_head": over_rates(with_baseline("reset", "head reset", name="reset_head", layers="head")),
    "reset_all": over_rates(with_baseline("reset", "full reset", name="reset_all", layers="all", reset_optimizer=True)),
    "adamo_printed": over_rates(
        replace(ADAMO, name="adamo_printed", label="AdamO, 1e-3 (printed)", isometry_strength=1e-3)
    ),
    "adamo": over_settings(ADAMO, *STRENGTHS),
    "adamo_lazy": over_settings(
        replace(ADAMO, name="adamo_lazy", label="AdamO, every 10", isometry_every=10), *STRENGTHS
    ),
    "adamo_coupled": over_settings(
        replace(ADAMO, name="adamo_coupled", label="AdamO, coupled", coupled=True),
        {"isometry_strength": 1e-3},
        {"isometry_strength": 1e-2},
    ),
    "maxmin": over_rates(Method("maxmin", "MaxMin", activation="maxmin")),
    "maxmin_adamo": over_settings(
        replace(ADAMO, name="maxmin_adamo", label="MaxMin, AdamO", activation="maxmin"), *STRENGTHS
    ),
    # a pull of 1/8, whatever Adam's rate, is one cubic Newton-Schulz step after every update: weights stay orthogonal
    "maxmin_hard": over_rates(
        Method(
            "maxmin_hard",
            "MaxMin, hard",
            activation="maxmin",
            baseline="isometry",
            settings=(("lr", 1 / 8), ("strength", 1.0)),
        )
    ),
}
FEW = ("adam", "l2_init", "redo", "layernorm", "parseval", "adamo_printed", "adamo", "maxmin", "maxmin_adamo")


def tuned(stream: str, names: Sequence[str]) -> tuple[Method, ...]:
    """Each method with the candidate that was best on a stream; the first where no sweep is stored yet."""
    chosen = []
    for name in names:
        candidate = CANDIDATES[name][TUNED.get(stream, {}).get(name, 0)]
        chosen.append(replace(candidate, name=name, label=candidate.label.rpartition(" ")[0]))
    return tuple(chosen)


SOURCES = (
    ("net", "MLP of depth 4, width 512 at tier paper (third-party reading of the paper); smaller tiers are ours"),
    ("stream", "which streams: third-party reading of the paper; sizes and tasks: " + OURS),
    (
        "methods",
        "of four candidates each, the best in the stream's own sweep on seeds 100 and 101; candidates are ours",
    ),
    ("optimizer state", "kept at task changes but for adam_reset; " + OURS),
    ("steps_per_task, batch", OURS),
)
LABELS_CHECK = dict(steps_per_task=400, batch=64)
PIXELS_CHECK = dict(steps_per_task=250, batch=16)
PAPER = dict(steps_per_task=2000, batch=128)
PAPER_MNIST, PAPER_CIFAR = dict(dataset="mnist", samples=10_000), dict(samples=10_000, pool=None)
MLP, PAPER_MLP = Net(width=64, depth=4), Net(width=512, depth=4)
MEASURES = ("kernel_ends", "lens")

# name: (title, stream at check, settings at check, changes of the stream at paper, tasks in the sweep)
SUITE: dict[str, tuple[str, Stream, dict[str, Any], dict[str, Any], int]] = {
    "labels_mnist": (
        "Fresh random labels of the same digits",
        Stream("random_labels", "mnist-small", samples=640, tasks=15),
        LABELS_CHECK | dict(threshold=0.5, measures=MEASURES),
        PAPER_MNIST | dict(tasks=20),
        6,
    ),
    "labels_cifar10": (
        "Fresh random labels of the same photographs (CIFAR-10)",
        Stream("random_labels", "cifar10", samples=640, tasks=15, pool=2),
        LABELS_CHECK | dict(threshold=0.5, measures=MEASURES),
        PAPER_CIFAR | dict(tasks=20),
        6,
    ),
    "pixels_mnist": (
        "Digits under a fresh permutation of the pixels",
        Stream("permuted_pixels", "mnist-small", samples=4000, tasks=30),
        PIXELS_CHECK | dict(threshold=0.7, measures=MEASURES),
        PAPER_MNIST | dict(tasks=100),
        10,
    ),
    "pixels_cifar10": (
        "Photographs (CIFAR-10) under a fresh permutation of the pixels",
        Stream("permuted_pixels", "cifar10", samples=4000, tasks=30, pool=2),
        PIXELS_CHECK | dict(threshold=0.25, measures=MEASURES),
        PAPER_CIFAR | dict(tasks=100),
        10,
    ),
    "classes_cifar100": (
        "The same photographs (CIFAR-100), their classes renamed",
        Stream("shuffled_classes", "cifar100", samples=2000, tasks=15, pool=2),
        LABELS_CHECK | dict(threshold=0.2, measures=("lens",)),  # the kernel of 64 inputs would have 6,400 rows
        PAPER_CIFAR | dict(tasks=20),
        6,
    ),
    "pairs_cifar100": (
        "Two classes of CIFAR-100 after two others",
        Stream("class_pairs", "cifar100", samples=960, tasks=50, pool=2),
        dict(steps_per_task=120, batch=32, threshold=0.7, measures=MEASURES),
        dict(pool=None),
        10,
    ),
    "slow_regression": (
        "Regression on bits of which most change slowly",
        Stream("slow_regression", BITS, samples=1000, tasks=20),
        dict(steps_per_task=1000, batch=1),
        dict(samples=10_000, tasks=100),
        6,
    ),
}


def suite(name: str) -> dict[str, Experiment]:
    """The experiment of a stream at every tier."""
    title, stream, settings, paper, _ = SUITE[name]
    net = Net(width=8, depth=1) if stream.is_regression else MLP
    check = Experiment(
        name,
        title,
        "check",
        stream,
        net,
        tuned(name, list(CANDIDATES)),
        seeds=(0, 1, 2, 3),
        sources=SOURCES,
        **settings,
    )
    return at_tiers(check, paper)


def at_tiers(check: Experiment, paper: dict[str, Any]) -> dict[str, Experiment]:
    """A check spec with a smaller and a larger one."""
    stream = check.stream
    samples, batch = min(stream.samples, 320), min(check.batch, 32)
    small = replace(stream, samples=samples, tasks=3)
    probe = min(check.probe, samples)
    smoke = replace(check, tier="smoke", stream=small, steps_per_task=20, batch=batch, seeds=(0, 1), probe=probe)
    large: dict[str, Any] = dict(stream=replace(stream, **paper), seeds=tuple(range(8)))
    large |= dict(steps_per_task=10_000) if stream.is_regression else PAPER
    if not stream.is_regression:
        large["net"] = replace(check.net, width=512) if not check.net.channels else PAPER_CNN
    if stream.kind == "class_pairs":
        large |= dict(steps_per_task=300)
    return tiers_of(
        smoke,
        check={f: getattr(check, f) for f in ("stream", "steps_per_task", "batch", "seeds", "probe")},
        paper=large,
    )


def sweep(name: str) -> dict[str, Experiment]:
    """The sweep of a stream: every candidate of every method, fewer tasks, seeds of its own, no costly measures."""
    _, stream, _, paper, tasks = SUITE[name]
    check = suite(name)["check"]
    swept = replace(
        check,
        name=f"tune_{name}",
        title=f"Sweep: {check.title[0].lower()}{check.title[1:]}",
        stream=replace(stream, tasks=tasks),
        methods=tuple(candidate for arms in CANDIDATES.values() for candidate in arms),
        measures=(),
        seeds=TUNING_SEEDS,
    )
    made = at_tiers(swept, paper)
    made["paper"] = replace(made["paper"], stream=replace(made["paper"].stream, tasks=tasks), seeds=TUNING_SEEDS)
    made["smoke"] = replace(made["smoke"], seeds=TUNING_SEEDS)
    return made


PAPER_CNN = Net(width=512, depth=1, channels=(32, 64))
CNN = at_tiers(
    Experiment(
        "cnn_labels_cifar10",
        "Fresh random labels of the same photographs, a convolutional net",
        "check",
        replace(SUITE["labels_cifar10"][1], samples=320, tasks=15),
        Net(width=64, depth=1, channels=(8, 16)),
        tuned("labels_cifar10", FEW),
        steps_per_task=300,
        batch=32,
        seeds=(0, 1, 2, 3),
        measures=("kernel_ends",),
        threshold=0.5,
        sources=(*SOURCES, ("methods", "the settings tuned for the MLP on labels_cifar10; " + OURS)),
    ),
    PAPER_CIFAR,
)
GRADUAL = {
    f"labels_mnist_gradual_{round(100 * share)}": at_tiers(
        replace(
            suite("labels_mnist")["check"],
            name=f"labels_mnist_gradual_{round(100 * share)}",
            title=f"Fresh random labels that come in over {share:.0%} of each task",
            stream=replace(SUITE["labels_mnist"][1], transition=share),
            methods=tuned("labels_mnist", FEW),
            measures=(),
        ),
        PAPER_MNIST,
    )
    for share in (0.5, 1.0)
}
SUPERVISED: dict[str, dict[str, Experiment]] = {
    **{name: suite(name) for name in SUITE},
    "cnn_labels_cifar10": CNN,
    **GRADUAL,
    **{f"tune_{name}": sweep(name) for name in SUITE},
}
