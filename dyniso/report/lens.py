"""What each method does to isometry, after the last task: medians over seeds, a row a method, and their picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import figures
from .results import Results

BEYOND = 1e10  # a condition number that is printed as infinite
LENS = {  # column -> metric, what becomes of several hidden layers
    "mu_1": ("mu_1", "mean"),
    "mu_2": ("mu_2", "mean"),
    "sigma_max": ("sigma_max", "max"),
    "sigma_min": ("sigma_min", "min"),
    "defect": ("isometry_defect", "mean"),
    "D_mean2": ("D_mean2", "mean"),
    "dormant": ("dormant_0.025", "mean"),
}


def table(results: Results) -> pd.DataFrame:
    """A row a method: `LENS`, and of the net's ends block, gram and rank; accuracy is the mean on late tasks.

    block is the conditioning of the first layer's backward map, infinite where no gradient comes through; gram and rank
    are of the last hidden layer.
    """
    last = f"hidden{results.experiment.net.depth}"  # type: ignore[attr-defined]
    asked = {column: (metric, "hidden", over) for column, (metric, over) in LENS.items()}
    asked |= {"block": ("block_condition", "hidden1", "mean"), "gram": ("gram_condition", last, "mean")}
    asked |= {"rank": ("feature_rank", last, "mean")}
    found = {
        column: {m: float(np.median(results.per_seed(metric, m, "last", *rest))) for m in results.labels}
        for column, (metric, *rest) in asked.items()
    }
    lens = pd.DataFrame(found).assign(accuracy=results.means("online_accuracy"))
    return lens.assign(block=lens["block"].where(lens["block"] > 0, np.inf))


def short(value: float) -> str:
    """A number as a cell prints it.

    >>> short(1.234), short(2500.0), short(np.inf)
    ('1.23', '2e3', '∞')
    """
    if value >= BEYOND:
        return "∞"
    return f"{value:.2f}" if value < 100 else f"{value:.0e}".replace("e+0", "e")


def matrix_figure(lens: pd.DataFrame, columns: Mapping[str, str], labels: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """A matrix of methods and instruments: dark is the isometric value 1, bright a factor of 100 or more from it.

    Args:
        columns: of the lens -> what stands above. labels: of its rows.
    """
    figures.use_style()
    shown = lens[list(columns)]
    distance = np.abs(np.log10(shown.clip(1e-3, 1e3).to_numpy(float)))
    fig, ax = plt.subplots(figsize=(5.2, 8.4))
    ax.imshow(distance, cmap="cividis", vmin=0, vmax=2, aspect="auto")
    for (r, c), far in np.ndenumerate(distance):
        text, colour = short(float(shown.iloc[r, c])), "black" if far > 1 else "white"  # type: ignore[arg-type]
        ax.text(c, r, text, ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(columns)), list(columns.values()), fontsize=8)
    ax.set_yticks(range(len(lens)), list(labels), fontsize=8)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    return fig, shown.reset_index(names="method")
