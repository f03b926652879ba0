"""What the paper claims, what we measured, and the verdict that follows; no torch.

A claim names the experiments that it is judged on, and an effect: a function from the stored runs of one experiment to
one number a seed, signed so that the claim predicts more than `threshold`. In each experiment the mean over seeds has a
95 % bootstrap interval, and the experiment speaks

    for        if the whole interval lies above the threshold
    against    if the whole interval lies below it
    undecided  otherwise

The verdict is

    reproduced  if all experiments speak for the claim
    not         if all speak against it
    partly      in any other case
    not run     if in one of the experiments a table, method, seed or number is missing or was made with other settings,
                or there are fewer than MIN_SEEDS seeds, whatever the other experiments say

A diverged run has the worst value of its metric (`WORST`), is never left out, and is named in the reason. A verdict
speaks of its scale alone. With four seeds the interval is too narrow: it clears a threshold about as soon as all four
seeds do. A statement says who claims or asks what, so that it is true whatever the verdict.

To judge claims on one more experiment, add its name to a tuple of names in `learning` or `mechanism`.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

from .. import store
from .learning import LEARNING
from .mechanism import MECHANISM
from .verdict import KINDS, MIN_SEEDS, VERDICTS, WORST, Claim, Finding, NotRunError, Runs, Verdict, find, judge

__all__ = [
    "CLAIMS",
    "KINDS",
    "MIN_SEEDS",
    "VERDICTS",
    "WORST",
    "Claim",
    "Finding",
    "NotRunError",
    "Runs",
    "Verdict",
    "as_record",
    "find",
    "judge",
    "judge_all",
]

CLAIMS: tuple[Claim, ...] = (*LEARNING, *MECHANISM)


def judge_all(tier: str = "check") -> list[tuple[Claim, Verdict]]:
    """Every registered claim with its verdict; each table is read once.

    Raises:
        ValueError: an unknown tier.
    """
    read = functools.cache(store.read_compact)
    return [(claim, judge(claim, tier, read)) for claim in CLAIMS]


def as_record(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    """Everything about a claim and its verdict that JSON can hold; numbers are None where it was not run."""
    return asdict(claim) | asdict(verdict) | {"scale": verdict.scale}
