"""From stored runs to a verdict: what a claim is, and the one rule for all (see `dyniso.report.claims`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...checks import require
from ...stats import Array, estimate, mean, paired_improvement, stratified_bootstrap_interval
from ...study import specs, store
from ...study.specs import Comparison
from ..results import NotRunError, Results
from .benchmarks import is_of_the_paper
from .rule import SOURCES, word

MIN_SEEDS = 3  # an interval from fewer is the range of two numbers, or none

Effect = Callable[[Results], Array]  # stored results -> (seeds,) or (games, seeds)


@dataclass(frozen=True)
class Claim:
    """One claim, how it is measured, and what counts for it."""

    id: str
    statement: str  # who says what, in our words: true whatever the verdict
    kind: str  # a key of SOURCES
    source: str  # where it is said
    experiments: tuple[str, ...]
    metric: str  # the effect in words, in the sense that the claim predicts
    unit: str
    effect: Effect
    threshold: float = 0.0  # the claim predicts an effect above it
    control: Effect | None = None  # of a claim that something is kept: the same effect of the arm that should lose it

    def __post_init__(self) -> None:
        require("kind", self.kind, SOURCES)
        if not self.source and self.kind != "question":
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
    values: tuple[float, ...]  # the effect in every seed, or in every seed of the first game, the second, ...
    effect: float  # their mean; of games their interquartile mean
    low: float
    high: float
    improved: float  # share of the values that are above the threshold, ties for a half
    side: str  # of `rule.SIDES`, but for "missing"
    of_the_paper: bool  # on one of the paper's own benchmarks
    diverged: tuple[str, ...]
    games: tuple[str, ...] = ()  # of a sequence of games

    @property
    def length(self) -> str:
        """Tasks or visits in one phrase."""
        return f"{self.tasks} visits to {', '.join(self.games)}" if self.games else f"{self.tasks} tasks"


@dataclass(frozen=True)
class Pooled:
    """All experiments of a claim together, each with the same weight; seeds are drawn again within each."""

    effect: float
    low: float
    high: float
    improved: float


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim; the effect is that of the experiment that speaks least for it, None if not run."""

    id: str  # of the claim
    tier: str
    verdict: str  # of `rule.VERDICTS`, over all experiments
    on_paper: str  # the same over those on the paper's own benchmarks; `rule.NONE` where there is none
    on_ours: str  # and over the others
    where: str | None  # the experiment of the effect
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    reason: str
    findings: tuple[Finding, ...]  # of every experiment that could be judged
    missing: dict[str, str]  # why the others could not
    paper: tuple[str, ...]  # its experiments on the paper's own benchmarks, missing ones too
    pooled: Pooled | None = None  # None with one experiment, different numbers of seeds, or something missing

    @property
    def scale(self) -> str:
        """Tasks, net and seeds of all experiments in one phrase."""
        sizes: dict[str, list[str]] = {}
        for f in self.findings:
            sizes.setdefault(f"{f.length}, net {f.net}, {f.seeds} seeds", []).append(f.experiment)
        return "; ".join([f"tier {self.tier}", *(f"{', '.join(names)}: {size}" for size, names in sizes.items())])


def find(claim: Claim, runs: Results) -> Finding:
    """Judge a claim on one experiment. NotRunError if its rows do not suffice."""
    experiment, seeds = runs.experiment, len(runs.experiment.seeds)
    if seeds < MIN_SEEDS:
        raise NotRunError(f"{experiment.name} has only {seeds} of the {MIN_SEEDS} seeds that an interval needs")
    runs.diverged.clear()
    values, diverged = claim.effect(runs), tuple(sorted(runs.diverged))
    if values.shape not in ((seeds,), (len(runs.games), seeds)) or not np.isfinite(values).all():
        raise NotRunError(f"{experiment.name} gives no number for every seed: {values.tolist()}")
    effect, low, high = estimate(values)
    side = "for" if low > claim.threshold else "against" if high < claim.threshold else "undecided"
    if side != "against" and keeps_as_well(claim, runs):
        side = "not testable"
    flat = values.reshape(-1)
    return Finding(
        experiment=experiment.name,
        tier=experiment.tier,
        tasks=experiment.tasks,
        net=runs.net,
        seeds=seeds,
        hardware=runs.hardware,
        commit=runs.commit,
        values=tuple(flat.tolist()),
        effect=effect,
        low=low,
        high=high,
        improved=float(paired_improvement(flat, np.full_like(flat, claim.threshold))),
        side=side,
        of_the_paper=is_of_the_paper(experiment),
        diverged=diverged,
        games=runs.games,
    )


def keeps_as_well(claim: Claim, runs: Results) -> bool:
    """Whether the control of a claim surely keeps what it should lose, so that the experiment cannot test the claim."""
    if claim.control is None:
        return False
    _, low, _ = estimate(claim.control(runs))
    return low > claim.threshold


def pool(findings: Sequence[Finding]) -> Pooled | None:
    """The mean effect over experiments as strata, with its interval; None if there is nothing to pool."""
    if len(findings) < 2 or len({f.seeds for f in findings}) > 1 or any(f.games for f in findings):
        return None
    values = np.array([f.values for f in findings])
    low, high = map(float, stratified_bootstrap_interval(values, np.random.default_rng(0), mean))
    return Pooled(float(values.mean()), low, high, float(np.mean([f.improved for f in findings])))


Read = Callable[[Comparison], Results]  # from an experiment


def judge(claim: Claim, tier: str = "check", read: Read = Results.stored) -> Verdict:
    """The verdict on a claim from the committed tables of a tier, by the rule of `dyniso.report.claims`.

    Args:
        read: gives an experiment's numbers, or raises FileNotFoundError or UnusableError.
    Raises:
        ValueError: an unknown tier.
    """
    require("tier", tier, specs.TIERS)
    findings, missing = findings_of(claim, tier, read)
    paper = on_papers_benchmarks(claim)
    made: dict[str, Any] = {"id": claim.id, "tier": tier, "unit": claim.unit} | words_of(claim, findings, paper)
    made |= {"findings": tuple(findings.values()), "missing": missing, "paper": paper}
    if missing:
        why = reason_missing(missing, len(claim.experiments))
        return Verdict(**made, where=None, effect=None, low=None, high=None, reason=why)
    least = min(findings.values(), key=lambda f: f.low)
    made |= {"where": least.experiment, "effect": least.effect, "low": least.low, "high": least.high}
    return Verdict(**made, reason=reason(claim, made["findings"]), pooled=pool(made["findings"]))


def findings_of(claim: Claim, tier: str, read: Read) -> tuple[dict[str, Finding], dict[str, str]]:
    """By experiment, what it says; and of those that say nothing, why."""
    findings, missing = {}, {}
    for name in claim.experiments:
        experiment: Comparison | None = specs.everything().get(name, {}).get(tier)
        try:
            if experiment is None:
                raise NotRunError(f"there is no experiment {name} at tier {tier}")
            findings[name] = find(claim, read(experiment))
        except (NotRunError, FileNotFoundError, store.UnusableError) as error:
            missing[name] = str(error)
    return findings, missing


def on_papers_benchmarks(claim: Claim) -> tuple[str, ...]:
    """Those of a claim's experiments that are on the paper's own benchmarks, whatever the tier."""
    known = [name for name in claim.experiments if name in specs.everything()]
    return tuple(name for name in known if is_of_the_paper(next(iter(specs.everything()[name].values()))))


def words_of(claim: Claim, findings: Mapping[str, Finding], paper: Sequence[str]) -> dict[str, str]:
    """The three verdicts, by the field of `Verdict` that has each."""
    sides = {name: findings[name].side if name in findings else "missing" for name in claim.experiments}
    return {
        "verdict": word(sides.values()),
        "on_paper": word(side for name, side in sides.items() if name in paper),
        "on_ours": word(side for name, side in sides.items() if name not in paper),
    }


def reason_missing(missing: dict[str, str], experiments: int) -> str:
    """What the first of the missing experiments lacks, and which are the others."""
    first, *others = missing
    counted = f"{len(missing)} of {experiments} experiments missing: " if experiments > 1 else ""
    return f"{counted}{missing[first]}" + (f"; likewise missing: {', '.join(others)}" if others else "")


def reason(claim: Claim, findings: Sequence[Finding]) -> str:
    """One sentence: on which side of the threshold the intervals lie, and which runs diverged."""
    words = {
        "for": "lies above {} in",
        "against": "lies below {} in",
        "undecided": "reaches to both sides of {} in",
        "not testable": "says nothing where the control stays above {} as well, in",
    }
    parts = []
    for side, text in words.items():
        names = [f.experiment for f in findings if f.side == side]
        parts += [f"{text.format(format(claim.threshold, 'g'))} {', '.join(names)}"] if names else []
    diverged = [f"{run} of {f.experiment}" for f in findings for run in f.diverged]
    counted = f"; diverged and counted as the worst: {'; '.join(diverged)}" if diverged else ""
    return f"the interval {' and '.join(parts)}{counted}"
