"""Which game, with which order of channels, comes when: pure functions of (games, seed, visit)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...checks import require_range
from ..specs.reinforcement import OBSERVATIONS, Games


class Visit(NamedTuple):
    """One stay of one run in one game."""

    number: int  # of the visit, from 0
    cycle: int
    game: str
    channels: tuple[int, ...] | None  # channels[k]: which channel of the padded observation is seen as the k-th


def game_order(games: Games, seed: int, cycle: int) -> tuple[str, ...]:
    """The games of one cycle in order.

    "shuffled" draws from numpy's generator under seed + 7919 cycle, as the authors' script does; a given seed need not
    give their order.

    >>> sorted(game_order(Games(), seed=0, cycle=3)) == sorted(Games().names)
    True
    """
    if games.order == "fixed":
        return games.names
    return tuple(games.names[i] for i in np.random.default_rng(seed + 7919 * cycle).permutation(len(games.names)))


def visit(games: Games, seed: int, index: int) -> Visit:
    """Visit `index` of a run with that seed.

    Channel orders are drawn under 10000 seed + 100 game + cycle, the authors' recipe, by numpy's generator, which
    gives other orders than theirs.

    Raises:
        ValueError: the sequence has no such visit.
    """
    require_range("visit", index, 0, games.visits - 1)
    cycle, position = divmod(index, len(games.names))
    game = game_order(games, seed, cycle)[position]
    if not games.permute_channels:
        return Visit(index, cycle, game, None)
    generator = np.random.default_rng(10_000 * seed + 100 * games.names.index(game) + cycle)
    return Visit(index, cycle, game, tuple(generator.permutation(OBSERVATIONS[games.suite][-1]).tolist()))
