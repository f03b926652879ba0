"""Figures of the chapters on the kernel. Each draws the points of a table that the chapter has made; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import DASHES, INK, palette

WIDTH = 5.2  # inches: one column of a page


def spectra(curves: pd.DataFrame) -> Figure:
    """P_K over the number of steps, a line a spectrum, and dots where descent was run.

    Args:
        curves: columns spectrum, steps, P_K, and simulated (missing where nothing was run).
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for (name, p), colour, dash in zip(curves.groupby("spectrum", sort=False), palette(5), DASHES, strict=False):
        ax.plot(p["steps"], p["P_K"], color=colour, linestyle=dash, label=name)
        ax.plot(p["steps"], p["simulated"], "o", color=colour, markersize=5)
    ax.set(xscale="log", xlabel="gradient steps K", ylabel="fraction of the loss removed, $P_K$", ylim=(0, 1.04))
    ax.grid(True)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def tightness(table: pd.DataFrame) -> Figure:
    """Condition numbers and their bounds, one row a network: of one sample above, of all samples below.

    Args:
        table: column network and the first six fields of `dyniso.theory.kernel_factors.Tightness`.
    """
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 6.4), sharex=True, layout="constrained")
    _draw_bounds(axes[0], table, "block", ("block_sums", "block_product"))
    _draw_bounds(axes[1], table, "kernel", ("kernel_sums", "kernel_ratio"))
    axes[0].set_title("one sample, worst of the batch")
    axes[1].set(title="all samples", xlabel="condition number")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def _draw_bounds(ax: Axes, table: pd.DataFrame, measured: str, bounds: Sequence[str]) -> None:
    """A row a network: what is measured, the bounds, and an arrow where a bound is infinite."""
    colours, y = palette(3), np.arange(len(table))
    labels = ("bound, ratio of sums", "bound, last expression")
    ax.plot(table[measured], y, "o", color=colours[0], label="measured")
    for bound, label, marker, colour in zip(bounds, labels, "sD", colours[1:], strict=True):
        finite = table[bound].where(np.isfinite(table[bound]))
        ax.plot(finite, y, marker, color=colour, label=label, markerfacecolor="none", markersize=7)
        edge = ax.get_yaxis_transform()
        for row in y[~np.isfinite(table[bound])]:
            ax.plot([0.985], [row], ">", color=colour, transform=edge, clip_on=False)
            ax.text(0.965, row, "infinite", transform=edge, ha="right", va="center", color=colour)
    ax.set(xscale="log", yticks=y, yticklabels=table["network"])
    ax.invert_yaxis()
    ax.grid(True, axis="x")


def by_inputs(measured: pd.DataFrame) -> Figure:
    """Condition number of the kernel, one row a network, a point a seed, a colour a kind of inputs.

    Args:
        measured: columns network, inputs, kernel.
    """
    networks, kinds = measured["network"].unique(), measured.groupby("inputs", sort=False)
    fig, ax = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    for (kind, p), marker, colour in zip(kinds, "osD", palette(3), strict=False):
        y = p["network"].map({name: k for k, name in enumerate(networks)})
        ax.plot(p["kernel"], y, marker, color=colour, label=kind, alpha=0.75, markersize=6)
    ax.set(xscale="log", xlabel="condition number of the kernel, κ(Θ)", yticks=range(len(networks)))
    ax.set_yticklabels(list(networks))
    ax.invert_yaxis()
    ax.grid(True)
    fig.legend(loc="outside upper center", ncols=3)
    return fig


def correlations(maps: pd.DataFrame, formulas: pd.DataFrame) -> Figure:
    """Correlation after a nonlinearity over that before: markers by Monte Carlo, lines by formula.

    Args:
        maps: columns activation, c, simulated, formula (missing where there is none; then the markers are joined).
        formulas: a column a line, its name the label, indexed by c.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 5.4), layout="constrained")
    ax.axline((0, 0), slope=1, color=INK, linewidth=1)
    colours = palette(8)
    for name, colour, dash in zip(formulas.columns, colours, DASHES, strict=False):
        ax.plot(formulas.index, formulas[name], color=colour, linestyle=dash, label=name)
    for (phi, p), marker, colour in zip(maps.groupby("activation", sort=False), "osD^vP*X", colours, strict=False):
        line = ":" if p["formula"].isna().all() else ""
        ax.plot(p["c"], p["simulated"], marker, linestyle=line, color=colour, label=phi, markerfacecolor="none")
    ax.set(xlabel="correlation before the nonlinearity, c", ylabel="correlation after")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02))
    ax.grid(True)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def gauge(nets: pd.DataFrame, progress: Mapping[str, str]) -> Figure:
    """Condition numbers, and the loss that ten steps remove, over how far a net is rescaled.

    Args:
        nets: columns deviation, kappa_W2, kappa_theta, and those of `progress`; a row a net.
        progress: label -> column, of the panel below.
    """
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 7), sharex=True, layout="constrained")
    colours, by_deviation = palette(6), nets.groupby("deviation")
    for key, label, k in (("kappa_W2", "κ of $W_2$", 0), ("kappa_theta", "κ(Θ)", 1)):
        means = np.exp(np.log(nets[key]).groupby(nets["deviation"]).mean())
        top.plot(means.index, means, linestyle=DASHES[k], color=colours[k], label=label)
        top.plot(nets["deviation"], nets[key], "o", color=colours[k], markersize=4)
    for (label, key), marker, k in zip(progress.items(), "osD^", range(2, 6), strict=True):
        means = by_deviation[key].mean()
        bottom.plot(means.index, means, marker, linestyle=DASHES[k], color=colours[k], label=label)
    top.set(yscale="log", ylabel="condition number")
    bottom.set(xlabel="standard deviation of log S", ylabel="loss removed in 10 steps", ylim=(0, 1))
    for ax in (top, bottom):
        ax.grid(True)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return fig


def predictions(runs: pd.DataFrame) -> Figure:
    """What descent removed over what the kernel at the start predicted, a colour a target.

    Args:
        runs: columns target, predicted, removed.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 5), layout="constrained")
    for (target, p), marker, colour in zip(runs.groupby("target", sort=False), "osD", palette(3), strict=False):
        ax.plot(p["predicted"], p["removed"], marker, color=colour, label=target, alpha=0.7, markerfacecolor="none")
    ax.axline((0, 0), slope=1, color=INK, linewidth=1)
    ax.set(xlabel="predicted by the kernel at the start, $P_K$", ylabel="removed by gradient descent")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.grid(True)
    fig.legend(loc="outside upper center", ncols=3)
    return fig
