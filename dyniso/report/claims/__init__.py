"""What the paper claims, what we measured, and the verdict that follows; no torch.

A claim names the experiments that it is judged on, and an effect: a function from the stored runs of one experiment to
one number a seed (on games one a game and seed), signed so that it predicts more than `threshold`. In each experiment
the mean over seeds (the interquartile mean over games and seeds) has a 95 % bootstrap interval, and it speaks

    for           if the whole interval lies above the threshold
    against       if the whole interval lies below it
    undecided     otherwise
    not testable  if it does not lie below, and the claim is that something is kept which the claim's control, the same
                  effect of Adam, keeps as well, with its whole interval above the threshold: nothing could be lost

`rule.word` makes one word of what the experiments say: reproduced, partly, not, undecided, not testable or not run. It
is made three times: over all experiments, over those on the paper's own benchmarks, and over ours (`benchmarks`). An
experiment says nothing where a table, method, seed or number is missing or was made with other settings, or there are
fewer than MIN_SEEDS seeds; then the claim is not run, whatever the other experiments say.

Beside the verdict stands the mean over all experiments as strata, with a stratified bootstrap interval; it decides
nothing. How well a task goes is one score for classification and regression (`dyniso.report.results`). A
diverged run has the worst value of its metric (`WORST`), is never left out, and is named in the reason. A verdict
speaks of its scale alone. With four seeds the interval is too narrow: it clears a threshold where all four seeds do, at
times where three do. A statement says who claims or asks what, so that it is true whatever the verdict.

A new stream of the supervised suite is judged by itself (`names.SUITE`); any other experiment is where its name is
added to a tuple of `names`. Sequences of games have claims of their own (`games`), and a score that a fresh agent
measures (`dyniso.report.results`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from ...checks import require
from ...study import specs
from ..results import SCORE, WORST, NotRunError, Results
from .comparisons import COMPARISONS
from .games import GAMES
from .learning import LEARNING
from .mechanism import MECHANISM
from .rule import NONE, SIDES, SOURCES, VERDICTS, word
from .show import HEAD, as_record, as_rows, lines
from .verdict import MIN_SEEDS, Claim, Finding, Pooled, Verdict, find, judge

__all__ = [
    "CLAIMS",
    "HEAD",
    "MIN_SEEDS",
    "NONE",
    "SCORE",
    "SIDES",
    "SOURCES",
    "VERDICTS",
    "WORST",
    "Claim",
    "Finding",
    "NotRunError",
    "Pooled",
    "Verdict",
    "as_record",
    "as_rows",
    "effect",
    "find",
    "judge",
    "judge_about",
    "judge_all",
    "lines",
    "word",
]

CLAIMS: tuple[Claim, ...] = (*LEARNING, *COMPARISONS, *MECHANISM, *GAMES)


def effect(id: str, stored: Results) -> tuple[float, float, float]:
    """Effect of a registered claim on one experiment's numbers, with the ends of its interval.

    Raises:
        ValueError: no claim of that id. NotRunError: a number is missing.
    """
    require("claim", id, [claim.id for claim in CLAIMS])
    found = find(next(claim for claim in CLAIMS if claim.id == id), stored)
    return found.effect, found.low, found.high


def judge_all(tier: str = "check") -> list[tuple[Claim, Verdict]]:
    """Every registered claim with its verdict.

    Raises:
        ValueError: an unknown tier.
    """
    return judge_each(CLAIMS, tier)


def judge_about(experiments: Iterable[str], tier: str = "check") -> list[tuple[Claim, Verdict]]:
    """The registered claims that one of some experiments has a say in, with their verdicts.

    Raises:
        ValueError: an unknown experiment or tier.
    """
    names = set(experiments)
    for name in names:
        require("experiment", name, specs.everything())
    return judge_each([claim for claim in CLAIMS if names & set(claim.experiments)], tier)


def judge_each(some: Iterable[Claim], tier: str) -> list[tuple[Claim, Verdict]]:
    """Claims with their verdicts; each table is read once."""
    read = functools.cache(Results.stored)
    return [(claim, judge(claim, tier, read)) for claim in some]
