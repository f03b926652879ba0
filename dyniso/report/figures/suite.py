"""Pictures of several streams side by side (`dyniso.report.suite`); each returns the figure and its plotted points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import figures, suite
from ..results import Results
from .styles import style_of

MARKERS = "osD^v"


def labels_of(results: Mapping[str, Results]) -> dict[str, str]:
    """What figures call each arm."""
    return next(iter(results.values())).labels


def curves_figure(
    results: Mapping[str, Results], arms: Sequence[str], together: Mapping[str, int]
) -> tuple[Figure, pd.DataFrame]:
    """Score over tasks, one panel a stream, one legend above; see `suite.curves`."""
    figures.use_style()
    points, lines = suite.curves(results, arms, together), -(-len(results) // 2)
    fig, axes = plt.subplots(lines, 2, figsize=(6.6, 2.6 * lines + 0.9), squeeze=False, layout="constrained")
    for ax, name in zip(axes.flat, results, strict=False):
        for arm in arms:
            p = points[(points["stream"] == name) & (points["method"] == arm)]
            style = style_of(arm)
            ax.plot(p["task"], p["mean"], label=labels_of(results)[arm], **style)
            ax.fill_between(p["task"], p["low"], p["high"], color=style["color"], alpha=0.2, linewidth=0)
        ax.set(title=name, xlabel="task", ylabel="score")
        ax.grid(True)
    for ax in axes.flat[len(results) :]:
        ax.set_axis_off()
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig, points


def board_figure(results: Mapping[str, Results]) -> tuple[Figure, pd.DataFrame]:
    """Mean late scores as a matrix of arms and streams, coloured by the rank on each stream."""
    figures.use_style()
    board, labels = suite.board(results), labels_of(results)
    ranks = board.rank(ascending=False)
    fig, ax = plt.subplots(figsize=(5.6, 8.2), layout="constrained")
    ax.imshow(ranks, cmap="cividis_r", vmin=1, vmax=len(board), aspect="auto")
    for (row, column), score in np.ndenumerate(board.to_numpy(float)):
        colour = "white" if ranks.to_numpy()[row, column] > 0.55 * len(board) else "black"
        ax.text(column, row, f"{score:.2f}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(results)), [name.replace("_", "\n") for name in results], fontsize=7)
    ax.set_yticks(range(len(board)), [labels[m] for m in board.index], fontsize=8)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    return fig, board.rename_axis("method").reset_index()


def gains_figure(results: Mapping[str, Results], rival: str) -> tuple[Figure, pd.DataFrame]:
    """Gain over a rival with its interval, an arm a line; see `suite.gains`."""
    figures.use_style()
    gains, labels = suite.gains(results, rival), labels_of(results)
    fig, ax = plt.subplots(figsize=(5.2, 7.4), layout="constrained")
    y = np.arange(len(gains))
    ax.hlines(y, gains["low"], gains["high"], color=figures.palette(1)[0], linewidth=3, alpha=0.5)
    ax.plot(gains["gain"], y, "o", color=figures.palette(1)[0])
    ax.axvline(0, color=figures.INK, linewidth=1)
    ax.set(yticks=y, yticklabels=[labels[m] for m in gains.index], xlabel=f"gain over {labels[rival]} in late score")
    ax.invert_yaxis()
    ax.grid(True, axis="x")
    return fig, gains.reset_index()


def predictors_figure(
    cloud: pd.DataFrame, metrics: Sequence[str] = ("P_100", "isometry_defect")
) -> tuple[Figure, pd.DataFrame]:
    """Late score against metrics of `suite.predictors`, one panel a metric, one marker an arm and stream."""
    figures.use_style()
    colours, lines = figures.palette(len(MARKERS)), len(metrics)
    fig, axes = plt.subplots(lines, 1, figsize=(5.2, 3.3 * lines), sharey=True, squeeze=False, layout="constrained")
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for i, name in enumerate(cloud["stream"].unique()):
            p, k = cloud[cloud["stream"] == name], i % len(MARKERS)
            x = p[metric].clip(lower=1e-4) if metric in figures.LOGARITHMIC else p[metric]
            ax.plot(x, p["score"], MARKERS[k], color=colours[k], label=name, alpha=0.75, markersize=5)
        ax.grid(True)
        ax.set(xlabel=figures.LABELS.get(metric, metric), ylabel="late score")
        ax.set_xscale("log" if metric in figures.LOGARITHMIC else "linear")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig, cloud
