"""Every experiment, declared once: frozen specs, cost tiers as `replace` of the same spec, and the registry.

Stdlib only: command line, notebooks, figures and tables are generated from here without loading torch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

TIERS = ("smoke", "check", "paper")  # seconds, minutes on 2 cores, a GPU
STREAMS = ("random_labels", "permuted_pixels")
OPTIMIZERS = ("adam", "adamw", "sgd", "adamo", "muon", "upgd")
NORMS = ("none", "layernorm", "layernorm_fixed")
MEASURES = ("kernel", "lens")  # before each task; after the last (dyniso.probes says what they are)
BASELINES = (  # dyniso.baselines has one class for each
    "l2",
    "l2_init",
    "spectral_penalty",
    "parseval",
    "feature_rank",
    "churn",
    "redo",
    "continual_backprop",
    "shrink_perturb",
    "reset",
    "fire",
    "norm_projection",
    "row_norm",
    "spectral_norm",
    "weight_clipping",
    "isometry",
)


def nearest(value: str, allowed: Iterable[str]) -> str:
    """One phrase for an error message: what is allowed, and the nearest name if there is one.

    >>> nearest("smok", TIERS)
    "allowed are 'smoke', 'check', 'paper'; did you mean 'smoke'?"
    """
    names = [str(a) for a in allowed]
    hint = difflib.get_close_matches(str(value), names, 1)
    return "allowed are " + ", ".join(map(repr, names)) + (f"; did you mean {hint[0]!r}?" if hint else "")


def require(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise ValueError naming field, value and what is allowed, unless `value` is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; {nearest(value, allowed)}")


def require_range(name: str, value: float, low: float, high: float = float("inf"), kind: type = int) -> None:
    """Raise ValueError unless `value` is a number of `kind` in [low, high]."""
    fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not fits or not low <= value <= high or value == float("inf"):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}={value!r}; it must be {what} from {low} to {high}")


@dataclass(frozen=True)
class Stream:
    """A sequence of tasks on real images. Tasks are drawn by `dyniso.streams`, as functions of (stream, seed, task)."""

    kind: str = "random_labels"
    dataset: str = "mnist-small"
    samples: int = 1200  # images a task
    tasks: int = 10

    def __post_init__(self) -> None:
        require("stream.kind", self.kind, STREAMS)
        require_range("stream.samples", self.samples, 1)
        require_range("stream.tasks", self.tasks, 1)


@dataclass(frozen=True)
class Net:
    """The multilayer perceptron that every method of an experiment shares, but for the activation."""

    width: int = 128
    depth: int = 4  # hidden layers
    bias: bool = True
    init: str = "orthogonal"
    gain: float = 1.0

    def __post_init__(self) -> None:
        require_range("net.width", self.width, 2)
        require_range("net.depth", self.depth, 1)
        require("net.bias", self.bias, (True, False))
        require("net.init", self.init, ("orthogonal", "kaiming", "default"))
        require_range("net.gain", self.gain, 0, kind=float)


@dataclass(frozen=True)
class Method:
    """One arm: optimizer, activation and their settings. `name` is its key, `label` what figures print."""

    name: str
    label: str
    optimizer: str = "adam"
    activation: str = "relu"
    lr: float = 1e-3
    isometry_strength: float = 0.0
    isometry_every: int = 1
    coupled: bool = False
    baseline: str | None = None  # a method of dyniso.baselines on top of the optimizer
    settings: tuple[tuple[str, Any], ...] = ()  # its fields that are not at their defaults
    norm: str | None = None  # before every activation
    weight_decay: float | None = None  # torch's, in the optimizer; decoupled with "adamw"
    decoupled_weight_decay: bool | None = None  # with "adamo" only
    clip_norm: float | None = None  # global norm of the task gradient, one run at a time
    schedule: str | None = None  # "cosine": from lr to 0 within each task
    parametrization: str | None = None  # "newton_schulz": hidden weights orthogonal by construction

    def __post_init__(self) -> None:
        require(f"{self.name}.optimizer", self.optimizer, OPTIMIZERS)
        for field_name, allowed in (
            ("baseline", BASELINES),
            ("norm", NORMS),
            ("schedule", ("cosine",)),
            ("parametrization", ("newton_schulz",)),
        ):
            if getattr(self, field_name) is not None:
                require(f"{self.name}.{field_name}", getattr(self, field_name), allowed)
        if self.settings and self.baseline is None:
            raise ValueError(f"{self.name}.settings={dict(self.settings)}; they need a baseline")
        for field_name in ("weight_decay", "clip_norm"):
            if getattr(self, field_name) is not None:
                require_range(f"{self.name}.{field_name}", getattr(self, field_name), 0, kind=float)
        if self.decoupled_weight_decay and self.optimizer != "adamo":
            raise ValueError(f"{self.name}.decoupled_weight_decay is for 'adamo'; use optimizer='adamw'")
        require(f"{self.name}.activation", self.activation, ("relu", "maxmin", "abs", "crelu", "tanh", "leaky_relu"))
        require_range(f"{self.name}.lr", self.lr, 0, kind=float)
        require_range(f"{self.name}.isometry_strength", self.isometry_strength, 0, kind=float)
        require_range(f"{self.name}.isometry_every", self.isometry_every, 1)
        require(f"{self.name}.coupled", self.coupled, (True, False))
        if self.optimizer != "adamo" and (self.isometry_strength or self.coupled or self.isometry_every != 1):
            raise ValueError(
                f"{self.name}: an isometry setting has no effect with optimizer={self.optimizer!r}; use 'adamo'"
            )
        c = self.lr * self.isometry_strength * self.isometry_every
        if not self.coupled and c >= 0.25:
            raise ValueError(f"{self.name}: lr * isometry_strength * isometry_every = {c:.4g}; it must be below 1/4")


@dataclass(frozen=True)
class Experiment:
    """A comparison: one stream and net, several methods, several seeds."""

    name: str
    title: str
    tier: str
    stream: Stream
    net: Net
    methods: tuple[Method, ...]
    steps_per_task: int
    batch: int
    seeds: tuple[int, ...] = (0, 1)
    probe: int = 256  # images of the current task on which activations are read
    measures: tuple[str, ...] = ()  # costly ones, of MEASURES
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (field, where its value comes from)

    def __post_init__(self) -> None:
        require("tier", self.tier, TIERS)
        require_range("steps_per_task", self.steps_per_task, 1)
        require_range("batch", self.batch, 1, self.stream.samples)
        require_range("probe", self.probe, 1, self.stream.samples)
        for measure in self.measures:
            require("measures", measure, MEASURES)
        names = [m.name for m in self.methods]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"methods={names}; they need at least one name, each once")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={self.seeds}; they must be distinct whole numbers, at least one")
        for seed in self.seeds:
            require_range("seed", seed, 0, 2**32 - 1)

    def method(self, name: str) -> Method:
        """The method of that name; ValueError with the nearest name otherwise."""
        require("method", name, [m.name for m in self.methods])
        return next(m for m in self.methods if m.name == name)


def with_seeds(experiment: Experiment, count: int) -> Experiment:
    """The same experiment with seeds 0 .. count-1."""
    require_range("seeds", count, 1, 10_000)
    return replace(experiment, seeds=tuple(range(count)))


def only_methods(experiment: Experiment, names: Iterable[str]) -> Experiment:
    """The same experiment with some of its methods, in the order given."""
    return replace(experiment, methods=tuple(experiment.method(name) for name in names))


def absent(value: Any) -> bool:
    """Whether a field stands for "not used"."""
    return value is None or value == ()


def digest(experiment: Experiment, method: Method) -> str:
    """Sixteen hex digits that name one run's settings, whatever its seed and the company it runs in.

    A field that is None or () is left out, so a later field with such a default renames no stored run.

    >>> e = get("random_labels")
    >>> digest(e, e.methods[0]) == digest(with_seeds(e, 7), e.methods[0])
    True
    """
    settings = asdict(experiment)
    for left_out in ("methods", "seeds", "sources", "title", "tier"):
        del settings[left_out]
    settings["method"] = {k: v for k, v in asdict(method).items() if k not in ("name", "label") and not absent(v)}
    settings = {k: v for k, v in settings.items() if not absent(v)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


ADAM = Method("adam", "Adam")
ADAMO = Method("adamo", "AdamO, 1e-3 (printed)", optimizer="adamo", isometry_strength=1e-3)
ADAMO_STRONG = replace(ADAMO, name="adamo_0.1", label="AdamO, 0.1", isometry_strength=0.1)
COUPLED = replace(ADAMO, name="adamo_coupled", label="coupled, 1e-3", coupled=True)
MAXMIN = Method("maxmin", "MaxMin, Adam", activation="maxmin")
MAXMIN_ADAMO = replace(ADAMO_STRONG, name="maxmin_adamo_0.1", label="MaxMin, AdamO 0.1", activation="maxmin")
METHODS = (ADAM, ADAMO, ADAMO_STRONG, COUPLED, MAXMIN, MAXMIN_ADAMO)

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
    """Adam with a method of `dyniso.baselines`; keywords that are no fields of Method are the baseline's settings."""
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
        ADAMO,
        ADAMO_STRONG,
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
        ADAMO_STRONG,
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
        ADAMO, name=f"{label}_{strength:g}", label=f"{label}, {strength:g}", isometry_strength=strength, coupled=coupled
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
        replace(ADAMO_STRONG, name="lazy10_0.1", label="every 10, 0.1", isometry_every=10),
        replace(ADAMO_STRONG, name="lazy50_0.1", label="every 50, 0.1", isometry_every=50),
    ),
)
INTERACTIONS = replace(
    SHORT_STREAM,
    name="interactions",
    title="AdamO beside weight decay, gradient clipping, a schedule, and Muon",
    methods=(
        ADAM,
        ADAMO_STRONG,
        replace(ADAMO_STRONG, name="adamo_0.1_l2", label="AdamO + L2", weight_decay=1e-3),
        replace(
            ADAMO_STRONG, name="adamo_0.1_adamw", label="AdamO + decay", weight_decay=0.1, decoupled_weight_decay=True
        ),
        Method("adamw", "AdamW, 0.1", optimizer="adamw", weight_decay=0.1),
        replace(ADAMO_STRONG, name="adamo_0.1_clip", label="AdamO, clipped", clip_norm=0.5),
        replace(ADAM, name="adam_clip", label="Adam, clipped", clip_norm=0.5),
        replace(ADAMO_STRONG, name="adamo_0.1_cosine", label="AdamO, cosine", schedule="cosine"),
        replace(ADAM, name="adam_cosine", label="Adam, cosine", schedule="cosine"),
        Method("muon", "Muon", optimizer="muon"),
        with_baseline("isometry", "Muon + isometry", name="muon_isometry", optimizer="muon", strength=0.1, lr=1e-3),
    ),
)
PREDICTORS = replace(
    SHORT_STREAM,
    name="predictors",
    title="The kernel before each task, and the loss removed in it",
    measures=("kernel",),
    methods=(ADAM, ADAMO, ADAMO_STRONG, COUPLED, MAXMIN, MAXMIN_ADAMO, LAYERNORM, L2_INIT, REDO),
)


def tiers(smoke: Experiment, **changes: dict[str, Any]) -> dict[str, Experiment]:
    """The smoke spec and its heavier versions, each a `replace` of it."""
    return {"smoke": smoke} | {tier: replace(smoke, tier=tier, **change) for tier, change in changes.items()}


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


REGISTRY: dict[str, dict[str, Experiment]] = {
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


def get(name: str, tier: str = "smoke") -> Experiment:
    """The registered experiment at a tier.

    Raises:
        ValueError: unknown name or tier; names the value, what is allowed, and the nearest name.

    >>> get("random_labels", "paper").net.width
    512
    """
    require("experiment", name, REGISTRY)
    require("tier", tier, TIERS)
    return REGISTRY[name][tier]
