"""What the stored runs took, on each machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from textwrap import shorten
from typing import Any, NamedTuple

import pandas as pd

from ...study import specs, store
from ...study.specs import Comparison, Experiment, GameExperiment
from ..notebook import table
from .text import duration, plain, reason, shown

Read = Callable[[Any], pd.DataFrame]  # of an experiment of any kind


class Costs(NamedTuple):
    """What the stored runs took, one row an experiment, tier and machine; and what has no usable table."""

    stored: pd.DataFrame  # experiment, tier, hardware, runs, steps (of one run), wall_s (of all runs), games (or not)
    missing: dict[tuple[str, str], str]  # (experiment, tier) -> '' if it is not stored, else why it cannot be used


def run_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run: method, seed, hardware, stacked_runs, wall_s of its stack, and `share_s`, its part of that.

    Stacked runs are trained together and each stores the seconds of the whole stack, so the shares of the runs add up
    to the time that was spent, whichever of them a table holds.

    Raises:
        UnusableError: the number of stacked runs is not stored.
    """
    columns = ["method", "seed", "hardware", "stacked_runs", "wall_s"]
    runs = frame[columns].drop_duplicates(ignore_index=True)
    stacked = pd.to_numeric(runs["stacked_runs"], errors="coerce")
    if not (stacked >= 1).all():
        raise store.UnusableError("stacked_runs is missing; run the experiment again")
    return runs.assign(stacked_runs=stacked.astype(int), share_s=runs["wall_s"] / stacked)


def steps_of(experiment: Comparison) -> int:
    """Training steps of one run of a stream; environment steps of one run through a sequence of games."""
    if isinstance(experiment, GameExperiment):
        return experiment.games.visits * experiment.games.steps_per_game
    assert isinstance(experiment, Experiment)
    return experiment.tasks * experiment.steps_per_task


def measured_costs(
    registry: Mapping[str, Mapping[str, Comparison]] | None = None, read: Read = store.read_compact
) -> Costs:
    """What every stored experiment took, on each machine; the registry is `specs.everything()` by default."""
    found, missing = [], {}
    for name, by_tier in (specs.everything() if registry is None else registry).items():
        for tier, experiment in by_tier.items():
            try:
                runs = run_costs(read(experiment))
            except FileNotFoundError:
                missing[name, tier] = ""
                continue
            except store.UnusableError as error:
                missing[name, tier] = reason(error)
                continue
            steps, games = steps_of(experiment), isinstance(experiment, GameExperiment)
            for hardware, part in runs.groupby("hardware"):
                found.append((name, tier, hardware, len(part), steps, part["share_s"].sum(), games))
    columns = ["experiment", "tier", "hardware", "runs", "steps", "wall_s", "games"]
    return Costs(pd.DataFrame(found, columns=columns), missing)


def cost_row(name: str, part: pd.DataFrame) -> dict[str, str]:
    """One line of the cost table, for one or several rows of `Costs.stored`."""
    runs, wall_s = int(part["runs"].sum()), float(part["wall_s"].sum())
    steps = sorted({int(s) for s in part["steps"]})
    size = f"{runs} × {shown(steps[0])}" if len(steps) == 1 else shown(runs)
    return {
        "experiment": plain(name),
        "runs × steps": size,
        "wall": duration(wall_s),
        "a run": f"{wall_s / runs:.1f} s",
    }


def cost_blocks(found: Costs) -> list[str]:
    """For each machine a title and a table with a row an experiment and tier, and the total."""
    blocks = []
    for hardware, part in found.stored.groupby("hardware"):
        one = [cost_row(", ".join(map(str, key)), p) for key, p in part.groupby(["experiment", "tier"], sort=False)]
        total = {key: f"**{text}**" for key, text in cost_row("total", part).items()}
        blocks.append(f"**{plain(str(hardware))}**\n\n{table([*one, total])}")
    return blocks


def speed_rows(found: Costs) -> list[dict[str, str]]:
    """Environment steps a second of the stored runs on games, updates included; a row an experiment and machine."""
    own = found.stored[found.stored["games"].astype(bool)]
    speeds = (own["runs"] * own["steps"] / own["wall_s"]).round().astype(int)
    return [
        {
            "experiment": plain(f"{name}, {tier}"),
            "machine": plain(hardware),
            "environment steps": f"{runs} × {shown(int(steps))}",
            "a second": shown(int(speed)),
        }
        for (name, tier, hardware, runs, steps), speed in zip(
            own[["experiment", "tier", "hardware", "runs", "steps"]].itertuples(index=False), speeds, strict=True
        )
    ]


def stack_rows(experiment: Comparison, read: Read = store.read_compact) -> list[dict[str, str]]:
    """One row for the runs that were stacked together, the cheapest first; none where nothing is stored."""
    try:
        runs = run_costs(read(experiment))
    except (FileNotFoundError, store.UnusableError):
        return []
    labels = {m.name: plain(m.label) for m in experiment.methods}
    rows = []
    for _, part in runs.sort_values("share_s").groupby(["hardware", "stacked_runs", "wall_s"], sort=False):
        names = "; ".join(labels[name] for name in labels if name in set(part["method"]))
        rows.append({"stack": names, "runs": str(len(part)), "a run": f"{part['share_s'].iloc[0]:.1f} s"})
    return rows


def not_run(found: Costs, tiers: Iterable[str] = specs.TIERS) -> list[str]:
    """One line a tier: which experiments have no usable table, and why if they have one that is not."""
    lines = []
    for tier in tiers:
        whys = {name: why for (name, t), why in found.missing.items() if t == tier}
        names = [f"`{name}`" + (f" ({plain(shorten(why, 160))})" if why else "") for name, why in whys.items()]
        stored = len(set(found.stored.loc[found.stored["tier"] == tier, "experiment"]))
        text = f"**{tier}**: {stored} stored; not run: "
        everything = not stored and not any(whys.values())
        lines.append(text + ("none" if not names else "all" if everything else ", ".join(names)))
    return lines


def cached(read: Read = store.read_compact) -> Read:
    """`read`, with what it gave kept: by name and tier, as specs with lists of methods are slow to compare."""
    kept: dict[tuple[str, str], pd.DataFrame] = {}

    def reading(experiment: Comparison) -> pd.DataFrame:
        key = experiment.name, experiment.tier
        if key not in kept:
            kept[key] = read(experiment)
        return kept[key]

    return reading
