"""Stored rows -> figure and table of exactly the plotted points. Never trains; no torch.

Figures have a transparent ground and mid-grey axes, so they read on a white page and on a dark one.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...study import store
from ...study.specs import Comparison, Experiment, GameExperiment
from ..results import Results
from .styles import style_of

INK = "#808080"  # contrast at least 3.5 on white and on the book's dark ground
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))]
STYLE: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.dpi": 110,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    **{f"{part}.color": INK for part in ("xtick", "ytick", "text")},
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
}
LABELS = {
    "online_accuracy": "online accuracy",
    "end_accuracy": "accuracy at the end of the task",
    "online_loss": "online loss (nats)",
    "dormant_0.025": r"dormant units ($\tau=0.025$)",
    "dormant_0.1": r"dormant units ($\tau=0.1$)",
    "dead": "dead units",
    "reactivated": "units reactivated since last task",
    "sigma_max": "largest singular value",
    "sigma_min": "smallest singular value",
    "sigma_mean": "mean singular value",
    "isometry_defect": r"mean $(\sigma^2-1)^2$",
    "condition_number": "condition number of weights",
    "effective_rank": "effective rank of weights",
    "activation_rank": "effective rank of activations",
    "steps_to_threshold": "steps to the threshold",
    "return": "return over that of a fresh net",
    "evaluation_return": "evaluation, over a fresh net's",
    "reward_rate": "reward rate over that of a fresh net",
    "weight_norm": "norm of all parameters",
    "update_norm": "distance moved in a task",
    "distance": "distance from the first weights",
    "P_10": "$P_{10}$",
    "P_100": "$P_{100}$",
}
FRACTIONS = ("online_accuracy", "end_accuracy", "dormant_0.025", "dormant_0.1", "dead", "reactivated")
LOGARITHMIC = ("isometry_defect", "condition_number", "sigma_min")
DEFAULT_METRICS = ("online_accuracy", "dormant_0.025", "sigma_max")
CYCLE_METRICS = ("return", "evaluation_return", "dormant_0.025", "isometry_defect")


def use_style() -> None:
    """Set the house style for all figures that follow; `notebook.show` shows them, a cell's end does not.

    Whatever it leaves open is matplotlib's default, not what a matplotlibrc says: a figure is the same for everybody.
    """
    mpl.rcdefaults()
    mpl.rcParams.update(STYLE)
    if "inline" in mpl.get_backend():
        plt.switch_backend("agg")


def palette(count: int) -> list[tuple[float, float, float]]:
    """Colour-blind-safe colours of what is no arm (arms have `styles`); `DASHES` tell them apart as well."""
    return list(sns.color_palette("colorblind", count))


def draw_metric(ax: Axes, points: pd.DataFrame, experiment: Comparison) -> None:
    """One panel: a line a method with its interval shaded, in the experiment's order of methods."""
    metric = points["metric"].iloc[0]
    for method in experiment.methods:
        p = points[points["method"] == method.name].sort_values("task")
        if p.empty:
            continue
        style = style_of(method.name)
        ax.plot(p["task"] + 1, p["mean"], label=method.label, **style)
        ax.fill_between(p["task"] + 1, p["low"], p["high"], color=style["color"], alpha=0.2, linewidth=0)
    ax.set_xlabel("task" if points["task"].min() >= 0 else "tasks trained (0: initialisation)")
    ax.set_ylabel(LABELS.get(metric, metric))
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    if metric in FRACTIONS:
        ax.set_ylim(0, max(0.05, min(1.03, 1.15 * points["high"].max())))
        ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    if metric in LOGARITHMIC:
        ax.set_yscale("log")
        trained = points[points["task"] >= 0]["low"]
        if trained.min() > 0:  # the defect at initialisation is rounding, ten decades below all else
            ax.set_ylim(bottom=max(0.5 * trained.min(), 0.8 * points["low"].min()))
    ax.grid(True)


def tasks_figure(
    frame: pd.DataFrame, experiment: Comparison, metrics: Sequence[str] = DEFAULT_METRICS
) -> tuple[Figure, pd.DataFrame]:
    """Curves over tasks, one panel a metric, one legend above; a gap where a run has no number.

    Args:
        frame: rows of the experiment in long form.
        experiment: gives order, labels and colours of the methods.
        metrics: names in the rows, drawn from left to right, two panels a row.
    Returns:
        The figure and the plotted points (see `Results.points`).
    Raises:
        ValueError: no metrics, or one that the rows do not have.
    """
    results = Results(experiment, frame)
    return panels(experiment, {metric: results.points(metric) for metric in metrics})


def panels(experiment: Comparison, points: Mapping[str, pd.DataFrame], xlabel: str = "") -> tuple[Figure, pd.DataFrame]:
    """One panel a metric, two a row, one legend above; the figure and all points. ValueError without a metric."""
    if not points:
        raise ValueError("metrics=(); name at least one")
    use_style()
    columns = min(2, len(points))
    lines = -(-len(points) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(4.3 * columns, 3.3 * lines), squeeze=False, layout="constrained")
    for ax, own in zip(axes.flat, points.values(), strict=False):
        draw_metric(ax, own, experiment)
        ax.set_xlabel(xlabel or ax.get_xlabel())
    for ax in axes.flat[len(points) :]:
        ax.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))
    return fig, pd.concat(points.values(), ignore_index=True)


def cycles_figure(
    frame: pd.DataFrame, experiment: GameExperiment, metrics: Sequence[str] = CYCLE_METRICS
) -> tuple[Figure, pd.DataFrame]:
    """`tasks_figure` for a sequence of games: curves over cycles.

    Args:
        frame: rows of the experiment in long form, those of the fresh net (`returns.SINGLE`) among them.
        experiment: gives order, labels and colours of the methods that are drawn.
        metrics: names in the rows.
    Returns:
        The figure and the plotted points (see `Results.cycle_points`).
    Raises:
        ValueError: no metrics, one that the rows do not have, or no fresh net.
    """
    results = Results(experiment, frame)
    return panels(experiment, {metric: results.cycle_points(metric) for metric in metrics}, "cycle")


def protocol(results: Results) -> str:
    """Size, seeds and machine of the stored runs of a stream, for a caption."""
    e = results.experiment
    assert isinstance(e, Experiment)
    return (
        f"Tier {e.tier}: {e.stream.samples:,} images a task, {e.tasks} tasks of {e.steps_per_task} steps, batch "
        f"{e.batch}, {e.net.depth} layers of {e.net.width} units. Mean over {len(e.seeds)} seeds, shaded: 95 % "
        f"bootstrap interval. Ran on {results.hardware}, commit {results.commit}."
    )


def save(fig: Figure, table: pd.DataFrame, folder: Path, name: str, stamp: dict[str, str]) -> list[Path]:
    """Write <name>.png, <name>.csv (the plotted points) and <name>.json (what produced them); returns the paths.

    Raises:
        OSError: they cannot be written, e.g. for want of room; then none of them is (names the folder).
    """
    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=150, bbox_inches="tight")
    plt.close(fig)
    contents = {"png": picture.getvalue(), "csv": table.to_csv(index=False).encode()}
    contents["json"] = (json.dumps(stamp, indent=2) + "\n").encode()
    paths = [folder / f"{name}.{suffix}" for suffix in contents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".figure-") as scratch:
            written = [Path(scratch, path.name) for path in paths]
            for path, content in zip(written, contents.values(), strict=True):
                path.write_bytes(content)
            for path, final in zip(written, paths, strict=True):
                os.replace(path, final)
    except OSError as error:
        place = f"cannot write to {str(folder)!r}: {error.strerror}"
        raise OSError(f"{place}; choose a folder that can be written, with room") from None
    return paths


def stamp_of(frame: pd.DataFrame, experiment: Comparison) -> dict[str, str]:
    """What produced these rows: experiment, tier, seeds, digests, commits, versions, hardware."""
    return {
        "experiment": experiment.name,
        "tier": experiment.tier,
        "seeds": ", ".join(map(str, sorted(frame["seed"].unique()))),
        "digests": store.as_json(experiment),
        "commits": ", ".join(sorted(frame["commit"].unique())),
        "torch": ", ".join(sorted(frame["torch"].unique())),
        "hardware": store.hardware_of(frame),
    }
