"""Film strips: observations of a game as small pictures, side by side, for the book. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb

from ...checks import require, require_range

GROUND = "#2e3440"  # between the grounds of a light and of a dark page
EDGE = "#808080"  # between frames; the ink of the figures
CHANNELS = (  # of MinAtar, by number; after Okabe and Ito, lighter on a dark ground
    "#ffffff",
    "#ffb347",
    "#56b4e9",
    "#00b386",
    "#f0e442",
    "#f2701d",
    "#d070c0",
    "#8c9eff",
    "#b0b0b0",
    "#c8f5c8",
)
LIT = "#f0e442"  # a pixel of Octax
CELL = {"minatar": 12, "octax": 4}  # pixels of a picture a cell has on each side


def pictures(suite: str, seen: np.ndarray) -> list[np.ndarray]:
    """Observations of one environment, one after the other, as pictures.

    Args:
        suite: "minatar" or "octax". seen: as `dyniso.study.rl.watch` gives them, bool: (n, 10, 10, 10) in MinAtar,
            (n, 4, 32, 64) in Octax, of which the last frame is drawn.
    Returns:
        n pictures, uint8: (120, 120, 3) in MinAtar, (128, 256, 3) in Octax.
    Raises:
        ValueError: an unknown suite.
    """
    require("suite", suite, CELL)
    cells = [channels_in_colour(one) if suite == "minatar" else lit_pixels(one[-1]) for one in seen]
    return [one.repeat(CELL[suite], 0).repeat(CELL[suite], 1) for one in cells]


def channels_in_colour(seen: np.ndarray) -> np.ndarray:
    """Cells of (rows, columns, channels), bool, in the colour of their last channel that is on, (rows, columns, 3).

    >>> channels_in_colour(np.array([[[True, False], [True, True], [False, False]]]))[0].tolist()
    [[255, 255, 255], [255, 179, 71], [46, 52, 64]]
    """
    cells = np.full((*seen.shape[:2], 3), rgb(GROUND), dtype=np.uint8)
    for channel in range(seen.shape[2]):
        cells[seen[..., channel]] = rgb(CHANNELS[channel])
    return cells


def lit_pixels(frame: np.ndarray) -> np.ndarray:
    """Pixels of (rows, columns), bool, in two colours, (rows, columns, 3)."""
    return np.where(frame[..., None], rgb(LIT), rgb(GROUND))


def strip(frames: Sequence[np.ndarray], gap: int = 1) -> np.ndarray:
    """Pictures side by side, from left to right, with `gap` pixels of grey between two.

    >>> strip([np.zeros((2, 3, 3), np.uint8)] * 4, gap=2).shape
    (2, 18, 3)

    Args:
        frames: of one shape, (rows, columns, 3), uint8.
    Raises:
        ValueError: no frame, or frames of several shapes; a negative gap.
    """
    require_range("gap", gap, 0)
    shapes = {frame.shape for frame in frames}
    if len(shapes) != 1:
        raise ValueError(f"frames of shapes {sorted(shapes)}; a strip needs one shape")
    ((rows, _, _),) = shapes
    edge = np.broadcast_to(rgb(EDGE), (rows, gap, 3))
    parts = [part for frame in frames for part in (edge, frame)]
    return np.concatenate(parts[1:], axis=1)


def rgb(colour: str) -> np.ndarray:
    """A colour as three bytes."""
    return np.rint(255 * np.array(to_rgb(colour))).astype(np.uint8)
