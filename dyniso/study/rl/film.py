"""Film strips: one environment under a policy as small pictures, for the book."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb
from torch import Tensor

from ...checks import require, require_range
from ..specs.reinforcement import ACTIONS, Games
from .envs import FILM, Envs
from .sequence import Visit

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

Policy = Callable[[Tensor], Tensor]


def film(games: Games, name: str, policy: Policy | None, steps: int, seed: int, every: int = 1) -> list[np.ndarray]:
    """Pictures of one environment: of its start, and after every so many steps; after an episode comes the next.

    Args:
        games: settings of the sequence, e.g. its time limit; the channels of an observation are not permuted here.
        name: of the game. policy: observations (1, 1, *shape), bool, as `Envs` hands them out, e.g. (1, 1, 400) in
            breakout, -> actions (1, 1), whole numbers from 0 to 5; None for random actions.
        steps: of the environment. seed: of game and random actions. every: steps from one picture to the next.
    Returns:
        1 + steps // every pictures, uint8: (120, 120, 3) in MinAtar, (128, 256, 3) in Octax.
    Raises:
        ValueError: the sequence has no such game; `steps` or `every` is below 1. MissingExtraError: a package is
            missing.
    """
    require("name", name, games.names)
    require_range("steps", steps, 1)
    require_range("every", every, 1)
    envs = Envs(games, [Visit(0, 0, name, None)], [seed], 1, torch.device("cpu"), FILM)
    generator = torch.Generator().manual_seed(seed)
    pictures = [picture(games.suite, envs)]
    for step in range(1, steps + 1):
        random = torch.randint(ACTIONS, (1, 1), generator=generator)
        envs.step(random if policy is None else policy(envs.obs))
        if step % every == 0:
            pictures.append(picture(games.suite, envs))
    return pictures


def picture(suite: str, envs: Envs) -> np.ndarray:
    """The present observation of one environment with unpermuted channels, as a picture."""
    seen = envs.whole()[0, 0].numpy()
    cells = channels_in_colour(seen.reshape(10, 10, 10)) if suite == "minatar" else lit_pixels(seen[-1])
    return cells.repeat(CELL[suite], 0).repeat(CELL[suite], 1)


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
