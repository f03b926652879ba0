"""Pictures of what predicts learning (`dyniso.report.predictors`); each returns the figure and its plotted points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .. import figures
from ..results import Results
from .styles import style_of


def side_by_side(results: Results, metrics: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Metrics over tasks below each other, all between 0 and 1; means over seeds."""
    figures.use_style()
    points = results.wide(metrics).groupby(["method", "task"], sort=False)[list(metrics)].mean().reset_index()
    fig, axes = plt.subplots(len(metrics), 1, figsize=(5.2, 3.1 * len(metrics)), sharex=True, squeeze=False)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for arm, label in results.labels.items():
            line = points[points["method"] == arm]
            ax.plot(line["task"], line[metric], label=label, **style_of(arm))
        ax.set(ylabel=figures.LABELS.get(metric, metric), ylim=(0, 1.02))
        ax.grid(True)
    axes.flat[-1].set_xlabel("task")
    axes.flat[0].legend(ncols=2, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    return fig, points


def bars_figure(bars: pd.DataFrame, labels: Mapping[str, str]) -> tuple[Figure, pd.DataFrame]:
    """Rank correlations with their intervals (`predictors.bars`), the strongest above."""
    figures.use_style()
    first = bars.groupby("predictor", sort=False)["rho"].first().abs().sort_values()
    order = {p: i for i, p in enumerate(first.index)}
    fig, ax = plt.subplots(figsize=(5.2, 4.8))
    for (over, part), shift, marker, colour in zip(
        bars.groupby("over"), (0.15, -0.15), "os", figures.palette(2), strict=True
    ):
        y = part["predictor"].map(order) + shift
        ax.plot(part["rho"], y, marker, color=colour, label=over)
        ax.hlines(y, part["low"].fillna(part["rho"]), part["high"].fillna(part["rho"]), color=colour)
    ax.axvline(0, color=figures.INK, lw=0.8)
    ax.set(
        yticks=list(order.values()), yticklabels=[labels[p] for p in order], xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1)
    )
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return fig, bars
