"""One environment under a policy, watched: its raw observations, for whoever wants to draw them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...checks import require, require_range
from ..specs.reinforcement import ACTIONS, Games
from .envs import FILM, Envs
from .sequence import Visit

SHAPES = {"minatar": (10, 10, 10), "octax": (4, 32, 64)}  # (rows, columns, channels); (frames, rows, columns)

Policy = Callable[[Tensor], Tensor]


def watch(games: Games, name: str, policy: Policy | None, steps: int, seed: int, every: int = 1) -> np.ndarray:
    """Observations of one environment: its start, and after every so many steps; after an episode comes the next.

    Args:
        games: settings of the sequence, e.g. its time limit; the channels of an observation are not permuted here.
        name: of the game. policy: observations (1, 1, *shape), bool, as `Envs` hands them out, e.g. (1, 1, 600) in
            a sequence with space_invaders, -> actions (1, 1), whole numbers from 0 to 5; None for random actions.
        steps: of the environment. seed: of game and random actions. every: steps from one observation to the next.
    Returns:
        (1 + steps // every, *shape), bool, with the shape of a whole observation: (10, 10, 10) in MinAtar, rows,
        columns and channels; (4, 32, 64) in Octax, frames, rows and columns.
    Raises:
        ValueError: the sequence has no such game; `steps` or `every` is below 1. MissingExtraError: a package is
            missing.
    """
    require("name", name, games.names)
    require_range("steps", steps, 1)
    require_range("every", every, 1)
    envs = Envs(games, [Visit(0, 0, name, None)], [seed], 1, torch.device("cpu"), FILM)
    generator = torch.Generator().manual_seed(seed)
    seen = [envs.whole()]
    for step in range(1, steps + 1):
        random = torch.randint(ACTIONS, (1, 1), generator=generator)
        envs.step(random if policy is None else policy(envs.obs))
        if step % every == 0:
            seen.append(envs.whole())
    return torch.cat(seen).reshape(-1, *SHAPES[games.suite]).numpy()
