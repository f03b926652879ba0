"""What an experiment is made of: frozen specs that check their values, and the digest that names a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from typing import Any, TypeVar

from ...checks import require, require_range, require_that
from .. import declared
from .intervention import Intervention, Trunk
from .own import OWN

TIERS = ("smoke", "check", "paper")  # seconds, minutes on 2 cores, a GPU
STREAM_KINDS = declared.names("study.streams", "KINDS")
OUTPUTS: dict[str, int] = declared.literal("study.streams", "OUTPUTS")  # of kinds whose net has not one a class
LABELS_DRAWN = declared.names("study.streams", "LABELS_DRAWN")  # kinds whose labels say nothing about the images
REAL_TARGETS = declared.names("study.streams", "REAL_TARGETS")  # kinds that take real numbers for labels
BITS = "bits"  # the data set of slow_regression: made by `dyniso.study.streams`, not loaded
SCALES = ("standard", "symmetric")  # zero mean and unit variance; linear from 0..255 to -1..1
OPTIMIZERS = declared.names("study.optimizers", "OPTIMIZERS")
ACTIVATIONS = tuple(a for a in declared.names("activations", "ACTIVATIONS") if not a.endswith("-k"))  # a family's name
NORMS = declared.names("nets", "NORMS")
INITS = declared.names("initialisation", "INITS")
BASELINES = tuple(declared.methods())
SCHEDULES = declared.names("study.learner", "SCHEDULES")
MEASURES = {  # costly ones (dyniso.study.instruments.single says what they hold)
    "kernel": "before every task",
    "kernel_ends": "before the first and the last task",
    "lens": "after the last task",
    "before": "before every task (after a trunk: from the branch on), on stacked MLPs",
}


@dataclass(frozen=True)
class Stream:
    """A sequence of tasks. Tasks are drawn by `dyniso.study.streams`, as functions of (stream, seed, task)."""

    kind: str = "random_labels"
    dataset: str = "mnist-small"
    samples: int = 1200  # images a task
    tasks: int = 10
    pool: int | None = None  # images are averaged over pool x pool pixels first
    scale: str | None = None  # of pixels, one of SCALES; None is "standard"
    transition: float | None = None  # share of a task's steps in which samples of the task before it fade out
    classes: int | None = None  # that labels are drawn from, in LABELS_DRAWN; None is as many as the data set has
    content: str | None = field(default=None, init=False)  # digest of a user's own arrays
    real: bool | None = field(default=None, init=False)  # whether a user's own targets are real numbers

    def __post_init__(self) -> None:
        require("stream.kind", self.kind, STREAM_KINDS)
        require_range("stream.samples", self.samples, 1)
        require_range("stream.tasks", self.tasks, 1)
        if self.classes is not None:
            require_range("stream.classes", self.classes, 2)
            require("stream.kind with stream.classes", self.kind, LABELS_DRAWN)
        if self.dataset in OWN:
            self.bind_own_data()
        if (self.kind == "slow_regression") != (self.dataset == BITS):
            raise ValueError(f"stream.dataset={self.dataset!r} with kind={self.kind!r}; {BITS!r} is slow_regression's")
        if self.pool is not None:
            require_range("stream.pool", self.pool, 2)
        if self.scale is not None:
            require("stream.scale", self.scale, SCALES)
        if self.transition is not None:
            require_range("stream.transition", self.transition, 0, 1, kind=float)

    def bind_own_data(self) -> None:
        """Note which arrays a user has registered under the name; ValueError where this kind cannot draw from them."""
        content, count, classes = OWN[self.dataset]
        if self.samples > count:
            raise ValueError(f"stream.samples={self.samples}; {self.dataset} has only {count} images")
        if self.classes is None and not classes:
            if self.kind not in REAL_TARGETS:
                allowed = f"{' and '.join(map(repr, REAL_TARGETS))} take them, the others need whole numbers"
                raise ValueError(
                    f"stream.kind={self.kind!r}; the targets of {self.dataset!r} are real numbers: {allowed}"
                )
            object.__setattr__(self, "real", True)
        elif (self.classes or classes) < 2:
            raise ValueError(f"stream.dataset={self.dataset!r} has {classes} class; a classification needs at least 2")
        object.__setattr__(self, "content", content)

    def outputs(self, classes: int) -> int:
        """Outputs of a net on this stream, for a data set of that many classes."""
        return 1 if self.is_regression else OUTPUTS.get(self.kind, self.classes or classes)

    @property
    def is_regression(self) -> bool:
        return self.kind == "slow_regression" or bool(self.real)

    @property
    def score(self) -> str:
        """The metric that says how well a task went while it was learned."""
        return "online_loss" if self.is_regression else "online_accuracy"


@dataclass(frozen=True)
class Net:
    """The net that all methods of an experiment share, but for activation and norm: an MLP, or a CNN with channels."""

    width: int = 128
    depth: int = 4  # hidden linear layers
    bias: bool = True
    init: str = "orthogonal"
    gain: float = 1.0
    channels: tuple[int, ...] = ()  # of 3 x 3 convolutions before the linear layers, each on half the pixels

    def __post_init__(self) -> None:
        require_range("net.width", self.width, 2)
        require_range("net.depth", self.depth, 0 if self.channels else 1)
        for count in self.channels:
            require_range("net.channels", count, 1)
        require("net.bias", self.bias, (True, False))
        require("net.init", self.init, INITS)
        require_range("net.gain", self.gain, 0, kind=float)


@dataclass(frozen=True)
class Method:
    """One arm: optimizer, activation and their settings. `name` is its key, `label` what figures print.

    A name means one arm. Where nothing is tuned it has one set of settings in all experiments: "adamo_0.1". In the
    tuned suite it is the best of this method's candidates on the stream ("adamo": one of `CANDIDATES["adamo"]`), in the
    sweeps one of them ("adamo.2"). In the causal experiments it says what is done to the weights; the experiment says
    when. In games all arms of an experiment have its learning rate, and AdamO its strength.
    """

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
    schedule: str | None = None  # from lr to 0 within each task, one of SCHEDULES
    parametrization: str | None = None  # "newton_schulz": hidden weights orthogonal by construction
    reset_optimizer: bool | None = None  # clear the optimizer's state at every task boundary
    bias: bool | None = None  # in games: whether linear layers have one; None is yes
    isometry_side: str | None = None  # "above": only singular values above 1 are pulled; None is "both"
    interventions: tuple[Intervention, ...] = ()  # on its weights, at boundaries or between steps

    def __post_init__(self) -> None:
        require(f"{self.name}.optimizer", self.optimizer, OPTIMIZERS)
        for field_name, allowed in (
            ("baseline", BASELINES),
            ("norm", NORMS),
            ("schedule", SCHEDULES),
            ("parametrization", ("newton_schulz",)),
            ("isometry_side", ("above",)),
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
        require(f"{self.name}.activation", self.activation, ACTIVATIONS)
        require_range(f"{self.name}.lr", self.lr, 0, kind=float)
        require_range(f"{self.name}.isometry_strength", self.isometry_strength, 0, kind=float)
        require_range(f"{self.name}.isometry_every", self.isometry_every, 1)
        require(f"{self.name}.coupled", self.coupled, (True, False))
        require(f"{self.name}.reset_optimizer", self.reset_optimizer, (True, False, None))
        require(f"{self.name}.bias", self.bias, (True, False, None))
        if self.optimizer != "adamo" and (
            self.isometry_strength or self.coupled or self.isometry_every != 1 or self.isometry_side
        ):
            raise ValueError(
                f"{self.name}: an isometry setting has no effect with optimizer={self.optimizer!r}; use 'adamo'"
            )
        c = self.lr * self.isometry_strength * self.isometry_every
        if not self.coupled and c >= 0.25:
            raise ValueError(f"{self.name}: lr * isometry_strength * isometry_every = {c:.4g}; it must be below 1/4")


AnyExperiment = TypeVar("AnyExperiment", bound="Comparison")


class Comparison:
    """What every experiment is: named arms under several seeds. Frozen dataclasses derive from it."""

    name: str
    title: str
    tier: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    sources: tuple[tuple[str, str], ...]

    def check_arms(self) -> None:
        """Raise ValueError for an unknown tier, no or repeated methods, bad seeds, and names that can be no file's."""
        require("tier", self.tier, TIERS)
        names = [m.name for m in self.methods]
        for name in (self.name, *names):
            fits = isinstance(name, str) and name and not name.startswith(".") and not set(name) & {*"/\\", "\0"}
            require_that(fits, "name", name, "a word that can name a file: no / or \\, no . at its start")
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

    @property
    def tasks(self) -> int:
        """How many tasks a run goes through."""
        raise NotImplementedError

    @property
    def score(self) -> str:
        """The metric that says how well a task went while it was learned."""
        raise NotImplementedError

    @property
    def size(self) -> str:
        """Net, length and batch in one phrase."""
        raise NotImplementedError


@dataclass(frozen=True)
class Experiment(Comparison):
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
    threshold: float | None = None  # of accuracy, for the number of steps until it is reached
    trunk: Trunk | None = None  # what all arms of a seed share before they part
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (field, where its value comes from)

    def __post_init__(self) -> None:
        self.check_arms()
        require_range("steps_per_task", self.steps_per_task, 1)
        require_range("batch", self.batch, 1, self.stream.samples)
        require_range("probe", self.probe, 1, self.stream.samples)
        for measure in self.measures:
            require("measures", measure, MEASURES)
        for method in self.methods:
            if method.bias is not None:
                raise ValueError(f"{method.name}.bias={method.bias}; it is for games, streams have net.bias")
            if method.optimizer == "muon" and self.net.channels:
                raise ValueError(
                    f"{method.name}: 'muon' takes matrices only; leave out net.channels={self.net.channels}"
                )
            self.check_interventions(method)
        if self.threshold is not None:
            require_range("threshold", self.threshold, 0, 1, kind=float)
        if self.stream.is_regression and (self.threshold is not None or self.measures):
            raise ValueError("a regression has no classes; leave out threshold and measures")
        if self.stream.dataset == BITS and self.net.channels:
            raise ValueError(f"slow_regression has no images; leave out net.channels={self.net.channels}")

    def check_interventions(self, method: Method) -> None:
        """Raise ValueError for a branch without a trunk, a trunk that is too long, and nets that cannot be changed."""
        if self.trunk:
            require_range("trunk.tasks", self.trunk.tasks, 1, self.stream.tasks - 1)
            if method.parametrization:
                raise ValueError(f"{method.name}.parametrization={method.parametrization!r}; a trunk has none")
        for what in method.interventions:
            if (what.when == "branch") != (what.when in ("start", "branch") and self.trunk is not None):
                raise ValueError(f"{method.name}: {what.kind!r} when={what.when!r} with trunk={self.trunk}")
            if self.net.channels or not self.net.bias or method.parametrization or method.norm:
                raise ValueError(
                    f"{method.name}: {what.kind!r} needs an MLP with biases, without norm or parametrization"
                )
            if what.kind == "matched_rate" and method.optimizer != "sgd":
                raise ValueError(f"{method.name}.optimizer={method.optimizer!r}; 'matched_rate' is for 'sgd'")

    @property
    def tasks(self) -> int:
        return self.stream.tasks

    @property
    def score(self) -> str:
        return self.stream.score

    @property
    def size(self) -> str:
        layers = [*map(str, self.net.channels), f"{self.net.depth} x {self.net.width}"]
        return f"{' + '.join(layers)}, {self.tasks} tasks x {self.steps_per_task} steps x batch {self.batch}"


def with_seeds(experiment: AnyExperiment, count: int) -> AnyExperiment:
    """The same experiment with the first of its seeds, and beyond them those that follow its last.

    So stored runs are found again where a spec does not begin at seed 0, as the sweeps and the games at tier paper.
    """
    require_range("seeds", count, 1, 10_000)
    following = range(max(experiment.seeds) + 1, max(experiment.seeds) + 1 + count)
    return replace(experiment, seeds=(*experiment.seeds, *following)[:count])  # type: ignore[type-var]


def only_methods(experiment: AnyExperiment, names: Iterable[str]) -> AnyExperiment:
    """The same experiment with some of its methods, in the order given."""
    return replace(experiment, methods=tuple(experiment.method(name) for name in names))  # type: ignore[type-var]


def present(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are used: neither None nor ()."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and not (isinstance(value, tuple) and not value)
    }


def plain_number(value: Any) -> int | float:
    """A number of numpy as Python's own, so that a run is called the same whoever counted; TypeError for the rest."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{value!r} is no setting of an experiment; expected numbers, text, True, False, None, and tuples")


def digest(experiment: Comparison, method: Method) -> str:
    """Sixteen hex digits that name one run's settings, whatever its seed and the company it runs in.

    A field that is None or () is left out, at any level, so a later field with such a default renames no stored run.

    >>> adam = Method("adam", "Adam")
    >>> e = Experiment("tiny", "two tasks", "smoke", Stream(tasks=2), Net(), (adam,), steps_per_task=9, batch=8)
    >>> digest(e, adam) == digest(with_seeds(e, 7), adam)
    True
    """
    settings = asdict(experiment)  # type: ignore[call-overload]
    for left_out in ("methods", "seeds", "sources", "title", "tier"):
        del settings[left_out]
    settings["method"] = {k: v for k, v in asdict(method).items() if k not in ("name", "label")}
    settings["method"]["interventions"] = tuple(present(what) for what in settings["method"]["interventions"])
    settings = {k: present(v) if isinstance(v, dict) else v for k, v in present(settings).items()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=plain_number).encode()).hexdigest()[:16]
