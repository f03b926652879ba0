"""Rows in long form -> arrays (methods, seeds, tasks): which layers count, and what becomes of several of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..checks import require
from ..stats import Array

OVER = ("mean", "min", "max")  # of layers
HEAD = r"^(?P<net>.*?)(?P<order>\d+)\.weight$"  # net "", or of games "actor."


class Rows:
    """The rows of some methods and seeds, found by metric without another pass over all of them.

    Args:
        frame: long form (`dyniso.study.store`); rows of other methods and seeds are left out.
        tasks: how many; task -1, before any training, has index 0 of the last axis.
    """

    def __init__(self, frame: pd.DataFrame, methods: Sequence[str], seeds: Sequence[int], tasks: int) -> None:
        self.shape = len(methods), len(seeds), tasks + 1
        method = pd.Index(methods).get_indexer(pd.Index(frame["method"]))
        seed = pd.Index(seeds).get_indexer(pd.Index(frame["seed"]))
        task = frame["task"].to_numpy(int) + 1
        self.layer, self.layers = pd.factorize(frame["layer"])
        self.hidden = ~(is_head(method, self.layer, self.layers) | self.layers.str.startswith("point")[self.layer])
        self.value = frame["value"].to_numpy(float)
        self.cell = (method * len(seeds) + seed) * (tasks + 1) + task
        codes, metrics = pd.factorize(frame["metric"])
        kept = (method >= 0) & (seed >= 0) & (task >= 0) & (task <= tasks)
        self.of = {metric: np.flatnonzero(kept & (codes == k)) for k, metric in enumerate(metrics)}
        self.known: dict[tuple[str, str, str], Array] = {}

    def table(self, metric: str, layers: str = "hidden", over: str = "mean") -> Array:
        """A metric, shape (methods, seeds, tasks + 1), NaN where a number is missing or NaN in one of the layers.

        Raises:
            ValueError: layers that there are not, with the nearest name, or another `over`.
        """
        key = metric, layers, over
        if key not in self.known:
            require("over", over, OVER)
            rows = self.of.get(metric, np.array([], int))
            rows = rows[self.chosen(layers)[rows]]
            self.known[key] = reduced(self.value[rows], self.cell[rows], int(np.prod(self.shape)), over)
        return self.known[key].reshape(self.shape)

    def chosen(self, layers: str) -> NDArray[np.bool_]:
        """The rows of some layers: "hidden", a layer's name, or "actor" for the hidden layers of that net."""
        if layers == "hidden":
            return self.hidden
        nets = sorted({name.split(".")[0] for name in self.layers if not name[:1].isdigit() and "." in name})
        require("layers", layers, ["hidden", *nets, *self.layers])
        if layers in nets:
            return self.hidden & self.layers.str.startswith(f"{layers}.")[self.layer]
        return self.layer == self.layers.get_loc(layers)


def is_head(method: NDArray[np.intp], layer: NDArray[np.intp], layers: pd.Index) -> NDArray[np.bool_]:
    """Which rows are of a head: the weight with the highest number in its net; nets with norms count otherwise."""
    parts = layers.to_series().str.extract(HEAD)
    order = pd.to_numeric(parts["order"]).to_numpy()[layer]
    nets = pd.factorize(parts["net"])[0][layer]
    weights = np.flatnonzero(~np.isnan(order))
    group = method[weights] * (nets.max(initial=0) + 1) + nets[weights]
    top = np.full(group.max(initial=-1) + 1, -1.0)
    np.maximum.at(top, group, order[weights])
    head = np.zeros(len(layer), bool)
    head[weights] = order[weights] == top[group]
    return head


def reduced(values: Array, cells: NDArray[np.intp], count: int, over: str) -> Array:
    """What several values of one cell become, shape (count,); NaN for a cell without a value, or with a NaN."""
    sizes = np.bincount(cells, minlength=count)
    if over == "mean":
        sums = np.bincount(cells, values, minlength=count)
        return np.divide(sums, sizes, out=np.full(count, np.nan), where=sizes > 0)
    found = np.full(count, np.inf if over == "min" else -np.inf)
    (np.minimum if over == "min" else np.maximum).at(found, cells, values)
    return np.where(sizes > 0, found, np.nan)
