"""Pictures of arms on games (`dyniso.report.arms`); each returns the figure and its plotted points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...study.specs.reinforcement import SINGLE
from .. import arms, figures, returns
from ..results import Results
from .styles import style_of

THOUSANDS = FuncFormatter(lambda value, _: f"{value / 1000:.0f}k")


def strips_figure(strips: Mapping[str, object], height: float) -> Figure:
    """Film strips below each other, each with the name of its game.

    Args:
        strips: name -> picture, (rows, columns, 3), uint8, of `dyniso.report.figures.film.strip`.
    """
    figures.use_style()
    fig, axes = plt.subplots(len(strips), 1, figsize=(6.4, height), squeeze=False, layout="constrained")
    for ax, (name, pixels) in zip(axes.flat, strips.items(), strict=True):
        ax.imshow(pixels, interpolation="nearest")
        ax.set_title(name.replace("_", " "), fontsize=9, loc="left", pad=2)
        ax.set_axis_off()
    return fig


def within_figure(results: Results, picked: Sequence[str], count: int) -> tuple[Figure, pd.DataFrame]:
    """Return within a visit, one panel an arm and game: the first and the last cycles, and a fresh net's.

    Args:
        count: how many cycles are first, and how many last.
    """
    figures.use_style()
    cycles = results.experiment.tasks // len(results.games)
    spans = {"first": range(count), "last": range(cycles - count, cycles)}
    points = [arms.within(results, span).assign(cycles=name) for name, span in spans.items()]
    drawn, fresh = pd.concat(points, ignore_index=True), arms.within(results, range(cycles))
    fresh = fresh[fresh["method"] == SINGLE]
    size = len(picked), len(results.games)
    fig, axes = plt.subplots(*size, figsize=(6.4, 7.2), sharex=True, sharey="col", squeeze=False, layout="constrained")
    for row, arm in zip(axes, picked, strict=True):
        for ax, game in zip(row, results.games, strict=True):
            one = fresh[fresh["game"] == game]
            ax.plot(one["steps"], one["value"], color=figures.INK, linestyle=":", label="fresh net, all cycles")
            for name, dash in (("first", "--"), ("last", "-")):
                p = drawn[(drawn["method"] == arm) & (drawn["game"] == game) & (drawn["cycles"] == name)]
                ax.plot(
                    p["steps"], p["value"], color=style_of(arm)["color"], linestyle=dash, label=f"{name} {count} cycles"
                )
            ax.grid(True)
            ax.set_title(f"{results.labels[arm]}: {game.replace('_', ' ')}", fontsize=8)
            ax.xaxis.set_major_formatter(THOUSANDS)
    for ax in axes[-1]:
        ax.set_xlabel("steps into the visit")
    axes[len(picked) // 2, 0].set_ylabel("return of the episodes that ended")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig, drawn[drawn["method"].isin(picked)]


def each_cycle_figure(results: Results, measures: Mapping[str, tuple[str, str]]) -> tuple[Figure, pd.DataFrame]:
    """Curves within a visit, one panel a game and cycle, one curve an arm.

    Args:
        measures: game -> the metric that is drawn there and what its axis says.
    """
    figures.use_style()
    cycles, labels = results.experiment.tasks // len(results.games), results.labels
    drawn = pd.concat(
        arms.within(results, [c], metric).query("game == @game").assign(cycle=c + 1, metric=metric)
        for game, (metric, _) in measures.items()
        for c in range(cycles)
    )
    size = len(measures), cycles
    fig, axes = plt.subplots(*size, figsize=(6.4, 5.2), sharex=True, sharey="row", squeeze=False, layout="constrained")
    for row, (game, (_, axis)) in zip(axes, measures.items(), strict=True):
        for c, ax in enumerate(row):
            for arm, label in labels.items():
                p = drawn[(drawn["method"] == arm) & (drawn["cycle"] == c + 1) & (drawn["game"] == game)]
                ax.plot(p["steps"], p["value"], label=label, **style_of(arm))
            ax.set_title(f"{game}, cycle {c + 1}", fontsize=9)
            ax.xaxis.set_major_formatter(THOUSANDS)
            ax.grid(True)
        row[0].set_ylabel(axis)
    for ax in axes[-1]:
        ax.set_xlabel("steps into the visit", fontsize=8)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig, drawn


def families_figure(results: Results, families: Mapping[str, Sequence[str]]) -> tuple[Figure, pd.DataFrame]:
    """Score over cycles, one panel a family of arms."""
    figures.use_style()
    points = returns.by_cycle(results.frame, arms.games_of(results))
    lines = len(families)
    fig, axes = plt.subplots(
        lines, 1, figsize=(6.4, 3.2 * lines), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (family, names) in zip(axes.flat, families.items(), strict=True):
        for arm in names:
            p, style = points[points["method"] == arm], style_of(arm)
            ax.plot(p["cycle"] + 1, p["mean"], label=results.labels[arm], **style)
            ax.fill_between(p["cycle"] + 1, p["low"], p["high"], color=style["color"], alpha=0.12, linewidth=0)
        ax.axhline(1, color=figures.INK, linewidth=1)
        ax.set_title(family, fontsize=10, loc="left")
        ax.legend(ncols=2, fontsize=8)
        ax.grid(True)
    axes.flat[lines // 2].set_ylabel("return over that of a fresh net")
    axes.flat[-1].set_xlabel("cycle")
    return fig, points


def instruments_figure(
    measured: pd.DataFrame, families: Mapping[str, Sequence[str]], titles: Mapping[str, str], single: str
) -> tuple[Figure, pd.DataFrame]:
    """Score against each of six measures, a dot an arm, coloured by family.

    Args:
        measured: by arm: a column a measure, and "score".
        titles: measure -> what its axis says. single: what the fresh net is called.
    """
    figures.use_style()
    fig, axes = plt.subplots(3, 2, figsize=(6.4, 8.4), layout="constrained")
    for ax, (key, title) in zip(axes.flat, titles.items(), strict=True):
        for colour, (family, names) in zip(figures.palette(len(families)), families.items(), strict=True):
            own = measured.loc[list(names)]
            ax.scatter(own[key], own["score"], color=colour, s=24, label=family)
        own = measured.loc[[SINGLE]]
        ax.scatter(own[key], own["score"], color=figures.INK, marker="x", s=36, label=single)
        ax.set_xlabel(title)
        ax.set_xscale("log" if key in figures.LOGARITHMIC else "linear")
        ax.grid(True)
    axes[1, 0].set_ylabel("score in the last cycles")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig, measured.rename_axis("method").reset_index()
