"""Every setting of an experiment at each of its tiers, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ...study import specs
from ...study.specs import Comparison
from .. import tuning
from ..notebook import table
from .text import bullets, folded, plain, shown, words

LEFT_OUT = ("name", "title", "tier", "methods", "sources")  # what names an experiment, or is shown elsewhere
BARE = ("stream", "games")  # parts whose fields need no prefix


def settings_of(experiment: Comparison) -> dict[str, str]:
    """Every field of an experiment and of its parts as text, but for methods, sources, and what names the experiment.

    Parts are stream and net, or games, net and ppo; they come first.
    """
    found: dict[str, str] = {}
    own: dict[str, str] = {}
    every: Any = experiment  # each kind of experiment is a dataclass
    for f in fields(every):
        value = getattr(experiment, f.name)
        if f.name == "trunk" and value is not None:
            own[words(f.name)] = str(value)
        elif is_dataclass(value):
            prefix = "" if f.name in BARE else f"{f.name} "
            found |= {prefix + words(part.name): shown(getattr(value, part.name)) for part in fields(value)}
        elif f.name not in LEFT_OUT:
            own[words(f.name)] = shown(value)
    return found | own


def experiment_block(by_tier: Mapping[str, Comparison]) -> str:
    """One experiment, folded: what differs between its tiers, what does not, methods, where values come from."""
    first = next(iter(by_tier.values()))
    columns = {tier: settings_of(experiment) for tier, experiment in by_tier.items()}
    names = list(settings_of(first))
    differ = [name for name in names if len({column[name] for column in columns.values()}) > 1]
    alike = [f"{name} {plain(settings_of(first)[name])}" for name in names if name not in differ]
    rows = [{"": name} | {tier: plain(column[name]) for tier, column in columns.items()} for name in differ]
    return folded(
        plain(first.title),
        f"Its name is `{first.name}`.",
        *([table(rows)] if rows else []),
        f"At every tier: {'; '.join(alike)}.",
        methods_line(first),
        "Where the values come from:",
        bullets(f"*{plain(field)}*: {plain(text)}" for field, text in first.sources),
    )


def methods_line(experiment: Comparison) -> str:
    """The methods of an experiment in one paragraph; those of a sweep by their number."""
    if experiment.name.startswith(tuning.SWEEP):
        count = len(specs.CANDIDATES)
        return (
            f"{len(experiment.methods)} arms: {count} methods with {len(experiment.methods) // count} candidates each."
        )
    return f"{len(experiment.methods)} methods: {'; '.join(plain(named(m)) for m in experiment.methods)}."


def named(method: specs.Method) -> str:
    """The label of an arm, and what is done to its weights."""
    plan = ", ".join(map(str, method.interventions))
    return f"{method.label} [{plan}]" if plan else method.label
