"""The package as a house: storeys, rooms and the imports between them, drawn from the sources.

A storey is the core, the study or the report; a room is a module, or a package of several. Within a storey each arrow
is an import that no chain of others implies (the transitive reduction); between two storeys all imports are one arrow
with their number. Needs networkx, which the extra `book` brings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...study.sources import PACKAGE, imported_names, modules
from .. import figures

STOREYS = ("core", "study", "report")  # from the ground up
FRONT = ("dyniso", "dyniso.__main__", "dyniso.cli", "dyniso.study", "dyniso.report")  # doors, in no storey


def storey_of(module: str) -> str:
    """The storey that a module is in.

    >>> storey_of("dyniso.study.rl.ppo"), storey_of("dyniso.optim")
    ('study', 'core')
    """
    part = module.split(".")[1]
    return part if part in STOREYS else "core"


def room_of(module: str) -> str:
    """The module within its storey, or the package that it is in.

    >>> room_of("dyniso.study.rl.ppo"), room_of("dyniso.optim")
    ('rl', 'optim')
    """
    return module.split(".")[1 if storey_of(module) == "core" else 2]


def rooms(graph: Mapping[str, Iterable[str]]) -> nx.DiGraph:
    """(storey, room) -> those that it imports from, with the number of imports of modules as "imports".

    Args:
        graph: of `dyniso.study.sources.import_graph`.
    """
    found = nx.DiGraph()
    found.add_nodes_from((storey_of(m), room_of(m)) for m in graph if m not in FRONT)
    for module, imported in graph.items():
        for other in imported:
            if module in FRONT or other in FRONT:
                continue
            a, b = ((storey_of(m), room_of(m)) for m in (module, other))
            if a != b:
                found.add_edge(a, b, imports=found.get_edge_data(a, b, {"imports": 0})["imports"] + 1)
    return found


def between_storeys(house: nx.DiGraph) -> dict[tuple[str, str], int]:
    """How many imports of modules run from one storey into another."""
    counts: dict[tuple[str, str], int] = {}
    for a, b, data in house.edges(data=True):
        if a[0] != b[0]:
            counts[a[0], b[0]] = counts.get((a[0], b[0]), 0) + data["imports"]
    return counts


def upwards(house: nx.DiGraph) -> list[tuple[str, str]]:
    """Imports between storeys that run up; there must be none."""
    return [pair for pair in between_storeys(house) if STOREYS.index(pair[0]) < STOREYS.index(pair[1])]


def drawn(house: nx.DiGraph, storey: str) -> nx.DiGraph:
    """The arrows within a storey that no chain of others implies."""
    inside = house.subgraph([node for node in house if node[0] == storey])
    return nx.transitive_reduction(inside)


def places(house: nx.DiGraph, storey: str, most: int = 6) -> dict[tuple[str, str], tuple[float, int]]:
    """Where each room of a storey stands: (x from -1 to 1, row from 0), what it imports in lower rows."""
    found: dict[tuple[str, str], tuple[float, int]] = {}
    row = 0
    for generation in nx.topological_generations(drawn(house, storey).reverse()):
        ordered = sorted(generation, key=lambda n: (np.mean([found[m][0] for m in house[n] if m in found] or [0]), n))
        for start in range(0, len(ordered), most):
            part = ordered[start : start + most]
            xs = (np.arange(len(part)) - (len(part) - 1) / 2) / (most / 2)
            found |= {node: (float(x), row) for node, x in zip(part, xs, strict=True)}
            row += 1
    return found


def needs_torch(graph: Mapping[str, Iterable[str]], folder: Path = PACKAGE) -> set[str]:
    """Every module that loads torch when it is imported, by its own import statements or another module's."""
    import ast

    direct = set()
    for module, path in modules(folder).items():
        names = imported_names(ast.parse(path.read_text(encoding="utf-8")), module, lazy=False)
        direct |= {module} if any(name.split(".")[0] == "torch" for name in names) else set()
    whole = nx.DiGraph([(m, n) for m, found in graph.items() for n in found])
    whole.add_nodes_from(graph)
    return {m for m in graph if direct & ({m} | nx.descendants(whole, m))}


def house_figure(graph: Mapping[str, Iterable[str]]) -> tuple[Figure, pd.DataFrame]:
    """The house in one picture: the report above, the study, the core below.

    Args:
        graph: of `dyniso.study.sources.import_graph`.
    Returns:
        The figure, and every import between rooms: importer, imported, imports.
    """
    figures.use_style()
    house, torch_side = rooms(graph), {(storey_of(m), room_of(m)) for m in needs_torch(graph) if m not in FRONT}
    located = {storey: places(house, storey) for storey in STOREYS}
    heights = {storey: 1 + max(row for _, row in located[storey].values()) for storey in STOREYS}
    fig, axes = plt.subplots(
        len(STOREYS), 1, figsize=(7, 1.0 * sum(heights.values()) + 1.5), layout="constrained",
        gridspec_kw={"height_ratios": [heights[s] for s in reversed(STOREYS)]},
    )  # fmt: skip
    counts = between_storeys(house)
    for ax, storey in zip(axes, reversed(STOREYS), strict=True):
        draw_storey(ax, drawn(house, storey), located[storey], torch_side)
        down = ", ".join(f"{n} imports from the {below}" for (above, below), n in counts.items() if above == storey)
        ax.set_title(f"{storey}: {down}" if down else storey, loc="left")
    table = [(".".join(a), ".".join(b), data["imports"]) for a, b, data in sorted(house.edges(data=True))]
    return fig, pd.DataFrame(table, columns=["importer", "imported", "imports"])


def draw_storey(
    ax: Axes, arrows: nx.DiGraph, place: Mapping[tuple[str, str], tuple[float, int]], torch_side: set[tuple[str, str]]
) -> None:
    """Rooms as boxes, torch's orange and round, the others blue; arrows from importer down to imported."""
    blue, orange = figures.palette(2)
    line = dict(arrowstyle="-|>", color=figures.INK, shrinkA=0, shrinkB=0, linewidth=1.2)
    for a, b in arrows.edges:
        (x, y), (to, below) = place[a], place[b]
        lean = float(np.clip(0.07 * (x - to), -0.08, 0.08))  # arrows arrive side by side on top of a box
        bend = 0.0 if y - below == 1 else 0.15 * (1 if x >= to else -1)
        style = line | dict(connectionstyle=f"arc3,rad={bend}")
        ax.annotate("", (to + lean, below + 0.22), (x - lean, y - 0.22), arrowprops=style, zorder=1)
    for node, (x, y) in place.items():
        with_torch = node in torch_side
        box = dict(facecolor=orange if with_torch else blue, edgecolor="none",
                   boxstyle="round,pad=0.35" if with_torch else "square,pad=0.35")  # fmt: skip
        ax.text(x, y, node[1], color="black" if with_torch else "white", ha="center", va="center", size=11, bbox=box)
    ax.set(xlim=(-1.1, 1.1), ylim=(-0.5, 0.5 + max(row for _, row in place.values())))
    ax.set_axis_off()
