"""Protocols of other papers at their own settings, to hold the engine against numbers that were not tuned to.

Tier `paper` is the original protocol, tier `check` as much of it as two cores do in minutes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from .model import BITS, Experiment, Method, Net, Stream
from .theory import tiers, with_baseline


class Published(NamedTuple):
    """A number that another paper prints for one of these experiments: the mean over tasks of the stream's score."""

    experiment: str
    tier: str
    method: str
    value: float
    tolerance: float  # of our mean over seeds; ours to choose, before the first run
    source: str


ADAM = Method("adam", "Adam, 1e-3")
KUMAR_NET = Net(width=100, depth=2, init="default")
KUMAR = "Kumar, Marklund & Van Roy 2023 (arXiv 2308.11958)"
PERMUTED_MNIST = Experiment(
    "external_permuted_mnist",
    "Online permuted MNIST as in Kumar et al. 2023, table 2: 20 tasks of 10,000 images, one pass",
    "smoke",
    Stream("permuted_pixels", "mnist", samples=2000, tasks=2, scale="symmetric"),
    KUMAR_NET,
    (
        ADAM,
        with_baseline("l2_init", "L2-Init, 1e-3", name="l2_init_0.001", strength=1e-3),
        with_baseline("l2_init", "L2-Init, 1e-2", name="l2_init_0.01", strength=1e-2),
        Method("adamo_0.1", "AdamO, 0.1", optimizer="adamo", isometry_strength=0.1),
    ),
    steps_per_task=125,
    batch=16,
    seeds=(0, 1, 2),
    sources=(
        ("stream", f"{KUMAR}: 10,000 images drawn anew each task, first task in the original order, inputs in [-1, 1]"),
        ("net", f"{KUMAR}: 784-100-100-10, ReLU, torch's default initialisation"),
        ("methods", f"{KUMAR}, table 2 (L2-Init 1e-3); Adam at the same rate, 1e-2 and AdamO beside it are ours"),
        ("steps_per_task, batch", f"{KUMAR}: one pass, batch 16"),
    ),
)
RANDOM_LABELS = replace(
    PERMUTED_MNIST,
    name="external_random_label_mnist",
    title="Random-label MNIST as in Kumar et al. 2023: 1,200 images, labels dealt out anew, 400 passes a task",
    stream=Stream("shuffled_labels", "mnist", samples=1200, tasks=2, scale="symmetric"),
    methods=(
        replace(ADAM, name="adam_0.0001", label="Adam, 1e-4", lr=1e-4),
        ADAM,
        with_baseline("l2_init", "L2-Init, 1e-2", name="l2_init_0.01_at_0.0001", strength=1e-2, lr=1e-4),
        Method("crelu", "CReLU", activation="crelu"),
        Method("layernorm_0.0001", "LayerNorm", norm="layernorm", lr=1e-4),
        Method("adamo_0.1", "AdamO, 0.1", optimizer="adamo", isometry_strength=0.1),
    ),
    sources=(
        ("stream", f"{KUMAR}: 50 tasks of 1,200 fixed images; each pass has 75 batches here, 74 in their code"),
        ("net", f"{KUMAR}: 784-100-100-10, ReLU, torch's default initialisation"),
        ("methods", f"{KUMAR}, tables 3 and 4: tuned rates and strengths; Adam 1e-3 and AdamO are ours"),
        ("steps_per_task, batch", f"{KUMAR}: 400 passes, batch 16; at check 20 passes"),
    ),
)
DOHARE = "Dohare et al. 2024 (Nature 632) and its code"
REGRESSION = Experiment(
    "external_slow_regression",
    "Slowly-changing regression as in Dohare et al. 2024: bits that flip every 10,000 steps, a net of five ReLUs",
    "smoke",
    Stream("slow_regression", BITS, samples=500, tasks=3),
    Net(width=5, depth=1, init="kaiming"),
    tuple(
        Method(f"{kind}_{rate:g}", f"{label}, {rate:g}", optimizer=kind, lr=rate)
        for kind, label in (("sgd", "SGD"), ("adam", "Adam"))
        for rate in (0.01, 0.003, 0.001)
    ),
    steps_per_task=500,
    batch=1,
    probe=256,
    seeds=(0, 1, 2),
    sources=(
        ("stream", f"{DOHARE}: 20 bits of which 15 change slowly, 100 threshold units; 100 tasks of 10,000 at paper"),
        ("net", f"{DOHARE}: 5 hidden ReLUs, Kaiming initialisation"),
        ("methods", f"{DOHARE}: SGD and Adam at 0.01, 0.003 and 0.001"),
        ("steps_per_task, batch", f"{DOHARE}: batch 1; a fifth of the steps and tasks at check"),
    ),
)
EXTERNAL = {
    PERMUTED_MNIST.name: tiers(
        PERMUTED_MNIST,
        check=dict(stream=replace(PERMUTED_MNIST.stream, samples=10_000, tasks=20), steps_per_task=625),
        paper=dict(stream=replace(PERMUTED_MNIST.stream, samples=10_000, tasks=500), steps_per_task=625),
    ),
    RANDOM_LABELS.name: tiers(
        RANDOM_LABELS,
        check=dict(stream=replace(RANDOM_LABELS.stream, tasks=10), steps_per_task=1500),
        paper=dict(stream=replace(RANDOM_LABELS.stream, tasks=50), steps_per_task=30_000),
    ),
    REGRESSION.name: tiers(
        REGRESSION,
        check=dict(stream=replace(REGRESSION.stream, samples=2000, tasks=20), steps_per_task=2000),
        paper=dict(stream=replace(REGRESSION.stream, samples=10_000, tasks=100), steps_per_task=10_000),
    ),
}
PUBLISHED = (
    Published(
        PERMUTED_MNIST.name, "check", "l2_init_0.001", 0.811, 0.005, f"{KUMAR}, table 2, total online accuracy, 5 seeds"
    ),
)
