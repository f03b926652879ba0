"""Claims and verdicts as lines of text and as records for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...stats import with_interval
from .rule import NONE
from .verdict import Claim, Finding, Pooled, Verdict

INDENT = " " * 14
HEAD = f"{'all':12}  {'the paper':12}  {'ours':12}  verdicts on all, on the paper's and on our benchmarks"


def as_record(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    """Everything about a claim and its verdict that JSON can hold; numbers are None where it was not run."""
    said = {key: value for key, value in asdict(claim).items() if key not in ("effect", "control")}  # functions
    return said | asdict(verdict) | {"scale": verdict.scale}


def lines(claim: Claim, verdict: Verdict, verbose: bool = False) -> list[str]:
    """One line: verdicts, effect with 95 % interval, reason, scale, statement; if verbose then one an experiment."""
    v = verdict
    shown = ""
    if v.effect is not None and v.low is not None and v.high is not None:
        pooled = f", mean of {len(v.findings)} experiments {numbers(v.pooled)}" if v.pooled else ""
        shown = f"{with_interval(v.effect, v.low, v.high, '+.3f')} {v.unit} in {v.where}{pooled}; "
    line = (
        f"{v.verdict:12}  {v.on_paper:12}  {v.on_ours:12}  {claim.id}: {shown}{v.reason}; {v.scale}. {claim.statement}"
    )
    return [line, *(experiment_line(claim, v, name) for name in claim.experiments)] if verbose else [line]


def as_rows(judged: Sequence[tuple[Claim, Verdict]]) -> list[dict[str, str]]:
    """For a table in Markdown: each claim; its verdict with the least and the pooled effect, or why there is none.

    Where there are experiments on the paper's benchmarks and on ours, each claim has those two verdicts in columns.
    """
    rows = [{"claim": c.statement, "verdict and effect": f"**{v.verdict}**, {short(v)}"} for c, v in judged]
    if all(v.on_paper == NONE for _, v in judged) or all(v.on_ours == NONE for _, v in judged):
        return rows
    return [row | {"the paper's": v.on_paper, "ours": v.on_ours} for row, (_, v) in zip(rows, judged, strict=True)]


def short(verdict: Verdict) -> str:
    """The effect in the experiment that speaks least for the claim, and over all if there are several."""
    if verdict.effect is None:
        return verdict.reason
    assert verdict.low is not None and verdict.high is not None
    least = with_interval(verdict.effect, verdict.low, verdict.high)
    where = f" in {verdict.where}" if len(verdict.findings) > 1 else ""
    return least + where + (f"; over all {verdict.pooled.effect:+.2f}" if verdict.pooled else "")


def experiment_line(claim: Claim, verdict: Verdict, name: str) -> str:
    """What one experiment says about a claim, or why it says nothing."""
    if name in verdict.missing:
        return f"{INDENT}{'missing':12}  {name}: {verdict.missing[name]}"
    f = next(f for f in verdict.findings if f.experiment == name)
    counted = f"{f.improved * len(f.values):g} of {len(f.values)}"
    above = f"{counted} {'seeds of games' if len(f.values) > f.seeds else 'seeds'} above {claim.threshold:g}"
    diverged = f"; diverged: {'; '.join(f.diverged)}" if f.diverged else ""
    size = f"{f.length}, net {f.net}; {f.hardware}, commit {f.commit}"
    return f"{INDENT}{f.side:12}  {name}: {numbers(f)} {claim.unit}, {above}{diverged}; {size}"


def numbers(found: Finding | Pooled) -> str:
    """Effect and interval."""
    return with_interval(found.effect, found.low, found.high, "+.3f")
