"""Late accuracy by strength: arms named "coupled_0.01" are families, each at several strengths."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .. import figures
from ..results import Results
from .styles import style_of

AT_ITS_BEST = {"decoupled": "decoupled_0.1", "coupled": "coupled_0.001"}  # whose colour and dash a family has


def strength_sweep(results: Results, families: Sequence[str]) -> pd.DataFrame:
    """A row a family, strength and seed: arm, strength, seed, accuracy on late tasks."""
    rows = [
        {"arm": family, "strength": float(name.removeprefix(f"{family}_")), "seed": seed, "accuracy": accuracy}
        for family in families
        for name in results.labels
        if name.startswith(f"{family}_")
        for seed, accuracy in zip(
            results.experiment.seeds, results.per_seed("online_accuracy", name).tolist(), strict=True
        )
    ]
    return pd.DataFrame(rows)


def strength_figure(results: Results, families: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Late accuracy by strength: points are seeds, lines means; Adam as a thin line."""
    figures.use_style()
    sweep = strength_sweep(results, families)
    fig, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for family, marker in zip(families, "os", strict=False):
        part, style = sweep[sweep["arm"] == family], style_of(AT_ITS_BEST[family])
        means = part.groupby("strength")["accuracy"].mean()
        ax.plot(means.index, means, label=family, **style)
        ax.plot(part["strength"], part["accuracy"], marker, color=style["color"], markersize=4, alpha=0.6)
    ax.axhline(results.mean("online_accuracy", "adam"), linewidth=1, label="Adam", **style_of("adam"))
    ax.set(xscale="log", xlabel="strength", ylabel="online accuracy, late tasks")
    ax.legend()
    return fig, sweep
