"""From stored runs to a verdict: what a claim is, and the one rule by which all are judged (see `dyniso.claims`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .. import specs, store
from ..figures import hidden_layers
from ..specs import Experiment, require
from ..stats import Array, bootstrap_interval

VERDICTS = ("reproduced", "partly", "not", "not run")
KINDS = ("paper", "third-party reading", "authors' code", "our derivation", "our question")
MIN_SEEDS = 3  # an interval from fewer is the range of two numbers, or none
WORST = {
    "online_accuracy": 0.0,
    "P_100": 0.0,
    "reactivated": 0.0,
    "dead": 1.0,
    "dormant_0.025": 1.0,
    "isometry_defect": float(np.finfo(np.float32).max),  # the largest number that a table holds
}


class NotRunError(Exception):
    """What a claim needs is not stored; the text says what."""


@dataclass(frozen=True)
class Runs:
    """The stored rows of one experiment, read by metric and method."""

    experiment: Experiment
    frame: pd.DataFrame
    diverged: set[str] = field(default_factory=set)  # runs that were read and have diverged, e.g. "adam, seed 3"

    def by_task(self, metric: str, method: str, tasks: Sequence[int] | None = None) -> Array:
        """Mean over hidden layers, shape (seeds, tasks), the worst value of the metric where the run has diverged.

        Raises:
            NotRunError: a method, seed, task or number is missing (a NaN of a run that has not diverged is missing).
            ValueError: a metric that `WORST` does not have.
        """
        require("metric", metric, WORST)
        tasks = range(self.experiment.stream.tasks) if tasks is None else tasks
        rows = self.frame[self.frame["method"] == method]
        cells = hidden_layers(rows[rows["metric"] == metric]).groupby(["seed", "task"])["value"]
        values = self.table(cells.mean().where(cells.count() == cells.size()), tasks)  # mean alone would skip NaN
        flags = rows[rows["metric"] == "diverged"].groupby(["seed", "task"])["value"].max()
        dead = self.table(flags, tasks) > 0
        missing = np.argwhere(np.isnan(values) & ~dead)
        if len(missing):
            seed, task = self.experiment.seeds[missing[0][0]], tasks[missing[0][1]]
            raise NotRunError(f"{self.experiment.name} has no {metric} of {method}, seed {seed}, task {task}")
        self.diverged.update(f"{method}, seed {self.experiment.seeds[i]}" for i in np.flatnonzero(dead.any(1)))
        return np.where(dead, WORST[metric], values)

    def table(self, cells: pd.Series, tasks: Iterable[int]) -> Array:
        """Cells indexed by (seed, task) as an array of the experiment's seeds by `tasks`, NaN where there is none."""
        wanted = pd.MultiIndex.from_product([self.experiment.seeds, tasks])
        return cells.reindex(wanted).to_numpy(float).reshape(len(self.experiment.seeds), -1)

    @property
    def fifth(self) -> int:
        """A fifth of the tasks, at least one: what "the first tasks" and "the last tasks" are."""
        return max(1, self.experiment.stream.tasks // 5)

    def first(self, metric: str, method: str) -> Array:
        """Mean over the first tasks, shape (seeds,)."""
        return self.by_task(metric, method)[:, : self.fifth].mean(1)

    def last(self, metric: str, method: str) -> Array:
        """Mean over the last tasks, shape (seeds,)."""
        return self.by_task(metric, method)[:, -self.fifth :].mean(1)

    def methods(self, prefix: str) -> tuple[str, ...]:
        """Names of the experiment's methods that begin with `prefix`."""
        return tuple(m.name for m in self.experiment.methods if m.name.startswith(prefix))


Effect = Callable[[Runs], Array]  # -> (seeds,)


@dataclass(frozen=True)
class Claim:
    """One claim, how it is measured, and what counts for it."""

    id: str
    statement: str  # who says what, in our words: true whatever the verdict
    kind: str  # of KINDS
    source: str
    experiments: tuple[str, ...]
    metric: str  # the effect in words, in the sense that the claim predicts
    unit: str
    effect: Effect
    threshold: float = 0.0  # the claim predicts an effect above it

    def __post_init__(self) -> None:
        require("kind", self.kind, KINDS)
        if not self.source and self.kind != "our question":
            raise ValueError(f"{self.id}: source={self.source!r}; a claim of kind {self.kind!r} needs one")
        if not self.experiments or len(set(self.experiments)) < len(self.experiments):
            raise ValueError(f"{self.id}: experiments={self.experiments}; they need at least one name, each once")


@dataclass(frozen=True)
class Finding:
    """What one experiment says about a claim, and at which scale."""

    experiment: str
    tier: str
    tasks: int
    net: str
    seeds: int
    hardware: str
    commit: str
    effect: float
    low: float
    high: float
    side: str  # "for", "against" or "undecided"
    diverged: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim; the effect is that of the experiment that speaks least for it, None if not run."""

    id: str  # of the claim
    tier: str
    verdict: str  # of VERDICTS
    where: str | None  # the experiment of the effect
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    reason: str
    findings: tuple[Finding, ...]  # of every experiment that could be judged

    @property
    def scale(self) -> str:
        """Experiments, tasks, net and seeds in one phrase."""
        sizes = (f"{f.experiment}: {f.tasks} tasks, net {f.net}, {f.seeds} seeds" for f in self.findings)
        return "; ".join([f"tier {self.tier}", *sizes])


def find(claim: Claim, experiment: Experiment, frame: pd.DataFrame) -> Finding:
    """Judge a claim on the rows of one experiment. NotRunError if they do not suffice."""
    seeds = len(experiment.seeds)
    if seeds < MIN_SEEDS:
        raise NotRunError(f"{experiment.name} has only {seeds} of the {MIN_SEEDS} seeds that an interval needs")
    runs = Runs(experiment, frame)
    values = claim.effect(runs)
    if values.shape != (seeds,) or not np.isfinite(values).all():
        raise NotRunError(f"{experiment.name} gives no number for every seed: {values.tolist()}")
    effect, (low, high) = float(values.mean()), map(float, bootstrap_interval(values, np.random.default_rng(0)))
    side = "for" if low > claim.threshold else "against" if high < claim.threshold else "undecided"
    return Finding(
        experiment=experiment.name,
        tier=experiment.tier,
        tasks=experiment.stream.tasks,
        net=f"{experiment.net.depth} x {experiment.net.width}",
        seeds=seeds,
        hardware=store.hardware_of(frame),
        commit=", ".join(sorted(frame["commit"].unique())),
        effect=effect,
        low=low,
        high=high,
        side=side,
        diverged=tuple(sorted(runs.diverged)),
    )


Read = Callable[[Experiment], pd.DataFrame]


def judge(claim: Claim, tier: str = "check", read: Read = store.read_compact) -> Verdict:
    """The verdict on a claim from the committed tables of a tier, by the rule of this module.

    Args:
        read: gives an experiment's rows, or raises FileNotFoundError or UnusableError.
    Raises:
        ValueError: an unknown tier.
    """
    require("tier", tier, specs.TIERS)
    findings, missing = [], []
    for name in claim.experiments:
        experiment = specs.REGISTRY.get(name, {}).get(tier)
        try:
            if experiment is None:
                raise NotRunError(f"there is no experiment {name} at tier {tier}")
            findings.append(find(claim, experiment, read(experiment)))
        except (NotRunError, FileNotFoundError, store.UnusableError) as error:
            missing.append(str(error))
    if missing:
        nothing = None, None, None, None
        return Verdict(claim.id, tier, "not run", *nothing, claim.unit, "; ".join(missing), tuple(findings))
    least = min(findings, key=lambda f: f.low)
    sides = {f.side for f in findings}
    verdict = {"for": "reproduced", "against": "not"}.get(sides.pop() if len(sides) == 1 else "", "partly")
    shown = least.experiment, least.effect, least.low, least.high
    return Verdict(claim.id, tier, verdict, *shown, claim.unit, reason(claim, findings), tuple(findings))


def reason(claim: Claim, findings: Sequence[Finding]) -> str:
    """One sentence: on which side of the threshold the intervals lie, and which runs diverged."""
    words = {"for": "lies above {} in", "against": "lies below {} in", "undecided": "reaches to both sides of {} in"}
    parts = []
    for side, text in words.items():
        names = [f.experiment for f in findings if f.side == side]
        parts += [f"{text.format(format(claim.threshold, 'g'))} {', '.join(names)}"] if names else []
    diverged = [f"{run} of {f.experiment}" for f in findings for run in f.diverged]
    counted = f"; diverged and counted as the worst: {'; '.join(diverged)}" if diverged else ""
    return f"the interval {' and '.join(parts)}{counted}"
