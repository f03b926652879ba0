"""Every setting of an experiment at each of its tiers, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from .. import specs, tuning
from ..specs import Experiment
from .text import bullets, folded, plain, shown, table, words


def settings_of(experiment: Experiment) -> dict[str, str]:
    """Every field of stream, net and experiment as text, but for methods, sources, and what names the experiment."""
    left_out = {"name", "title", "tier", "stream", "net", "methods", "sources"}
    found = {words(f.name): shown(getattr(experiment.stream, f.name)) for f in fields(experiment.stream)}
    found |= {f"net {words(f.name)}": shown(getattr(experiment.net, f.name)) for f in fields(experiment.net)}
    own = [f.name for f in fields(experiment) if f.name not in left_out]
    return found | {words(name): shown(getattr(experiment, name)) for name in own}


def experiment_block(by_tier: Mapping[str, Experiment]) -> str:
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


def methods_line(experiment: Experiment) -> str:
    """The methods of an experiment in one paragraph; those of a sweep by their number."""
    if experiment.name.startswith(tuning.SWEEP):
        count = len(specs.CANDIDATES)
        return (
            f"{len(experiment.methods)} arms: {count} methods with {len(experiment.methods) // count} candidates each."
        )
    return f"{len(experiment.methods)} methods: {'; '.join(plain(m.label) for m in experiment.methods)}."
