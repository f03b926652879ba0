"""Pictures of the causal experiments (`dyniso.report.rivals`); each returns the figure and its plotted points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import figures, rivals
from ..results import Results
from .styles import COLOURS

BLUE, ORANGE, GREEN, VIOLET, GREY = (COLOURS[c] for c in ("blue", "orange", "green", "violet", "grey"))
ACCURACY = "online accuracy of the outcome task"
CELLS = {  # (vectors, spectrum) -> arm
    ("own", "kept"): "kept_own",
    ("own", "flat"): "flat_own",
    ("Haar", "kept"): "haar_own",
    ("Haar", "flat"): "flat_haar",
}


def two_by_two(panels: Mapping[str, Results]) -> tuple[Figure, pd.DataFrame]:
    """Spectrum by vectors: accuracy in each cell with half its interval, below each other; title -> results."""
    figures.use_style()
    fig, axes = plt.subplots(len(panels), 1, figsize=(4.2, 2.9 * len(panels)), layout="constrained", squeeze=False)
    rows = []
    for ax, (title, results) in zip(axes.flat, panels.items(), strict=True):
        fresh = rivals.t_interval(rivals.outcome(results, "fresh")).mean
        for (vectors, spectrum), arm in CELLS.items():
            found = rivals.t_interval(rivals.outcome(results, arm))
            rows.append({"stream": title, "vectors": vectors, "spectrum": spectrum, "arm": arm, **found._asdict()})
            x, y = ("kept", "flat").index(spectrum), ("own", "Haar").index(vectors)
            share = float(np.clip(found.mean / fresh, 0, 1))
            ax.add_patch(plt.Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, color=ORANGE, alpha=0.06 + 0.26 * share, lw=0))
            text = f"{found.mean:.2f} ± {found.high - found.mean:.2f}"
            ax.text(x, y, text, ha="center", va="center", fontsize=13, color=figures.INK, fontweight="bold")
        ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xticks=(0, 1), yticks=(0, 1))
        ax.set_xticklabels(["spectrum kept", "spectrum flat"])
        ax.set_yticklabels(["vectors own", "vectors Haar"])
        ax.set_title(f"{title} (fresh net {fresh:.2f})", loc="left", fontsize=11)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return fig, pd.DataFrame(rows)


def dots(
    panels: Mapping[str, Results], order: Sequence[str], colours: Mapping[str, str] | None = None, height: float = 0.24
) -> tuple[Figure, pd.DataFrame]:
    """Outcome of arms as dots with intervals, one line an arm, panels below each other.

    Args:
        order: arms, from above. colours: arm -> colour; blue where it says nothing.
    """
    figures.use_style()
    size = (5.0, (height * len(order) + 0.8) * len(panels))
    fig, axes = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False)
    rows = []
    for ax, (title, results) in zip(axes.flat, panels.items(), strict=True):
        frame = rivals.arms(results).set_index("arm").loc[list(order)]
        for y, (arm, row) in enumerate(frame.iterrows()):
            colour = (colours or {}).get(str(arm), BLUE)
            ax.plot(row["mean"], y, "o", color=colour, markersize=5)
            ax.hlines(y, row["low"], row["high"], color=colour, linewidth=1.6)
        ax.set(yticks=range(len(frame)), yticklabels=frame["label"], xlim=(0, 0.95))
        ax.set_ylim(len(frame) - 0.4, -0.6)
        ax.set_title(title, loc="left", fontsize=11)
        ax.grid(axis="x")
        ax.tick_params(axis="y", labelsize=9)
        rows.append(frame.reset_index().assign(panel=title))
    axes.flat[-1].set_xlabel(ACCURACY)
    return fig, pd.concat(rows, ignore_index=True)


def along(
    ax: Axes, results: Results, arms: Mapping[float, str], metric: str | None, **style: object
) -> list[dict[str, object]]:
    """A line with intervals over a setting: x -> arm; the outcome, or a metric before it."""
    rows: list[dict[str, object]] = []
    tasks = rivals.outcome_tasks(results)
    for x, arm in arms.items():
        values = rivals.outcome(results, arm) if metric is None else results.per_seed(metric, arm, tasks)
        rows.append({"x": x, "arm": arm, "metric": metric or "outcome", **rivals.t_interval(values)._asdict()})
    frame = pd.DataFrame(rows)
    ax.plot(frame["x"], frame["mean"], **style)  # type: ignore[arg-type]
    ax.fill_between(frame["x"], frame["low"], frame["high"], color=style["color"], alpha=0.15, lw=0)
    return rows


def lines_figure(
    panels: Sequence[tuple[str, str | None, Sequence[tuple[str, Results, Mapping[float, str], Mapping[str, object]]]]],
    xlabel: str,
    height: float = 2.7,
) -> tuple[Figure, pd.DataFrame]:
    """Panels below each other: (label of y, metric or None for the outcome, [(label, results, x -> arm, style)])."""
    figures.use_style()
    size = (4.8, height * len(panels) + 0.5)
    fig, axes = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False, sharex=True)
    rows = []
    for ax, (ylabel, metric, lines) in zip(axes.flat, panels, strict=True):
        for label, results, arms, style in lines:
            found = along(ax, results, arms, metric, label=label, marker="o", markersize=4, **style)
            rows += [row | {"line": label, "experiment": results.experiment.name} for row in found]
        ax.set_ylabel(ylabel)
        ax.grid(True)
        ax.legend(fontsize=8)
    axes.flat[-1].set_xlabel(xlabel)
    return fig, pd.DataFrame(rows)


def over_tasks(
    panels: Mapping[str, tuple[Results, Mapping[str, str]]], metric: str = "online_accuracy"
) -> tuple[Figure, pd.DataFrame]:
    """A metric over tasks, panels below each other: title -> (results, arm -> colour); labels at the ends of lines."""
    figures.use_style()
    size = (5.0, 3.3 * len(panels))
    fig, axes = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False)
    parts = []
    for ax, (title, (results, arms)) in zip(axes.flat, panels.items(), strict=True):
        points = results.points(metric, list(arms))
        last = points[points["task"] == points["task"].max()].set_index("method")["mean"]
        places = spaced(last, 0.055)
        for arm, colour in arms.items():
            line = points[points["method"] == arm]
            ax.plot(line["task"] + 1, line["mean"], color=colour)
            ax.fill_between(line["task"] + 1, line["low"], line["high"], color=colour, alpha=0.15, lw=0)
            x = line["task"].max() + 1.4
            ax.text(x, places[arm], results.labels[arm], color=colour, fontsize=8.5, va="center")
        ax.set(ylim=(0, 1), ylabel="online accuracy", xlabel="task")
        ax.set_xlim(1, points["task"].max() * 1.42 + 1)
        ax.set_title(title, loc="left", fontsize=11)
        ax.grid(True)
        parts.append(points.assign(panel=title))
    return fig, pd.concat(parts, ignore_index=True)


def spaced(values: pd.Series, gap: float) -> dict[str, float]:
    """Places for labels near some values, at least a gap apart."""
    places: dict[str, float] = {}
    before = -np.inf
    for name, value in values.sort_values().items():
        before = max(float(value), before + gap)
        places[str(name)] = before
    return places


def scatter(results: Results, metrics: Mapping[str, str], colours: Mapping[str, str]) -> tuple[Figure, pd.DataFrame]:
    """Outcome of each run against numbers measured before it, panels below each other: metric -> label of x."""
    figures.use_style()
    frame = rivals.candidates(results)
    size = (4.8, 3.0 * len(metrics))
    fig, axes = plt.subplots(len(metrics), 1, figsize=size, layout="constrained", squeeze=False)
    for ax, (metric, label) in zip(axes.flat, metrics.items(), strict=True):
        for arm, colour in colours.items():
            part = frame[frame["method"] == arm]
            ax.plot(part[metric], part["outcome"], "o", color=colour, markersize=4, alpha=0.7)
            ax.annotate(
                results.labels[arm], (part[metric].mean(), part["outcome"].mean()), color=colour, fontsize=8,
                xytext=(4, 4), textcoords="offset points",
            )  # fmt: skip
        ax.set(xlabel=label, ylabel="online accuracy, last tasks")
        ax.grid(True)
    return fig, frame[["method", "seed", *metrics, "outcome"]]


def routes_figure(found: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> tuple[Figure, pd.DataFrame]:
    """Rank correlation of each candidate with the outcome, experiment by experiment: a column of squares each."""
    figures.use_style()
    table = pd.DataFrame({name: frame.set_index("predictor")["runs"] for name, frame in found.items()}).loc[
        list(labels)
    ]
    fig, ax = plt.subplots(figsize=(5.2, 0.34 * len(labels) + 1.6), layout="constrained")
    for y, (_, row) in enumerate(table.iterrows()):
        for x, value in enumerate(row):
            if value == value:
                ax.add_patch(
                    plt.Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, lw=0, color=ORANGE if value < 0 else BLUE,
                                  alpha=0.08 + 0.55 * abs(value))
                )  # fmt: skip
                ax.text(x, y, f"{value:+.2f}", ha="center", va="center", fontsize=8.5)
    ax.set(xlim=(-0.5, len(table.columns) - 0.5), ylim=(len(table) - 0.5, -0.5))
    ax.set(xticks=range(len(table.columns)), yticks=range(len(table)))
    ax.set_xticklabels(table.columns, rotation=35, ha="left", fontsize=8.5)
    ax.xaxis.tick_top()
    ax.set_yticklabels([labels[name] for name in table.index], fontsize=9)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return fig, table.reset_index()
