"""The games of several runs side by side, as the learner sees them: torch in, torch out.

Stepping is one jitted JAX call for each distinct game; actions and observations cross by DLPack without copies where
both sides are on one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...checks import require, require_range
from ..specs.reinforcement import ACTIONS, OBSERVATIONS, Games
from .games import compiled, make_game, require_games
from .sequence import Visit

TRAIN, EVALUATE, PROBE, FILM, RANDOM = range(5)  # streams of random numbers of environments


class Step(NamedTuple):
    """What one step of all environments gives."""

    obs: Tensor  # (runs, envs, *shape), bool; of the new episode where one ended
    reward: Tensor  # (runs, envs), float32
    terminated: Tensor  # (runs, envs), bool: the episode ended by itself
    truncated: Tensor  # (runs, envs), bool: it was cut at its time limit
    final_obs: Tensor  # (runs, envs, *shape), bool; of the old episode where one ended, else obs


class Envs:
    """Environments of several runs, each run in its own game with its own order of channels.

    What a run sees does not depend on which other runs are beside it.

    An observation of MinAtar is 10 x 10 pixels x 10 channels, most of them empty: a game has 4 to 10 of its own, which
    the visit puts at other places. Only the game's own are handed out, flat, in its own order, with the places that
    they have in the whole observation: a first layer then multiplies few zeros. `whole` gives the 1,000 entries.

    Args:
        games: settings of the sequence. visits: one a run. seeds: one a run.
        envs: of each run. device: of the tensors; JAX steps there too if it can, else on the CPU.
        stream: apart from other environments of the same run: TRAIN, EVALUATE, PROBE, FILM or RANDOM.
    Attributes:
        obs: the present observations, (runs, envs, *shape), bool; shape: (100 k,) for MinAtar with k the most channels
            of a game of the sequence, whichever are at hand; (4, 32, 64) for Octax.
        columns: where each entry is in the whole observation, (runs, 100 k); None for Octax.
    Raises:
        ValueError: numbers of visits and seeds that differ. MissingExtraError: a package is missing.
    """

    def __init__(
        self,
        games: Games,
        visits: Sequence[Visit],
        seeds: Sequence[int],
        envs: int,
        device: torch.device,
        stream: int = TRAIN,
    ):
        if len(visits) != len(seeds) or not visits:
            raise ValueError(f"{len(visits)} visits and {len(seeds)} seeds; one of each is needed for every run")
        require_games(games.suite)
        import jax

        self.runs, self.envs, self.device = len(visits), envs, device
        kind = "gpu" if device.type == "cuda" else "cpu"
        try:
            self.place = jax.devices(kind)[device.index or 0]
        except RuntimeError:  # JAX without a GPU backend
            self.place = jax.devices("cpu")[0]
        self.parts = []
        with jax.default_device(self.place):
            for name in dict.fromkeys(v.game for v in visits):
                rows = [r for r, v in enumerate(visits) if v.game == name]
                keys = np.stack([lane_keys(seeds[r], visits[r].number, stream, envs) for r in rows])
                lanes, obs = compiled(games, name).reset(jax.device_put(keys, self.place))  # placed: else the second
                self.parts.append(Part(rows, compiled(games, name).step, lanes, obs))  # step would compile again
        self.columns: Tensor | None = None
        self.shape: tuple[int, ...] = OBSERVATIONS[games.suite]
        if games.suite == "minatar":
            most = max(make_game("minatar", name, games.max_episode_steps).channels for name in games.names)
            self.columns = torch.from_numpy(np.stack([places(v, most) for v in visits])).to(device)
            self.shape = (100 * most,)
        self.obs = self.joined([part.obs for part in self.parts], self.shape)

    def joined(self, found: Sequence[Any], shape: tuple[int, ...] = ()) -> Tensor:
        """What the games gave, run by run again: (runs, envs, *shape), with empty channels where a game has fewer."""
        tensors = [torch.from_dlpack(x).to(self.device) for x in found]
        if len(tensors) == 1 and tensors[0].numel() == self.runs * self.envs * math.prod(shape):
            return tensors[0].reshape(self.runs, self.envs, *shape)
        if self.columns is not None and shape:
            out = tensors[0].new_zeros(self.runs, self.envs, 100, shape[0] // 100)
            for part, tensor in zip(self.parts, tensors, strict=True):
                out[part.rows, ..., : tensor.shape[-1]] = tensor.flatten(2, 3)
            return out.flatten(2)
        out = tensors[0].new_empty(self.runs, self.envs, *shape)
        for part, tensor in zip(self.parts, tensors, strict=True):
            out[part.rows] = tensor
        return out

    def whole(self) -> Tensor:
        """The present observations with all their channels in the order of the visit, (runs, envs, 1000) in MinAtar."""
        if self.columns is None:
            return self.obs.clone()
        empty = torch.zeros(self.runs, self.envs, 1000, dtype=torch.bool, device=self.device)
        return empty.scatter_(2, self.columns[:, None].expand(-1, self.envs, -1), self.obs)

    def step(self, actions: Tensor) -> Step:
        """Advance every environment by one step; an episode that ends starts anew.

        Args:
            actions: (runs, envs), whole numbers from 0 to 5; one that a game lacks is mapped (`Games.invalid_action`).
        Raises:
            ValueError: another shape or device, a floating-point dtype, or (looked at on a CPU only) an action outside
                0 .. 5.
        """
        import jax

        if actions.shape != (self.runs, self.envs) or actions.is_floating_point() or actions.dtype == torch.bool:
            raise ValueError(
                f"actions are {tuple(actions.shape)}, {actions.dtype}; expected whole numbers {(self.runs, self.envs)}"
            )
        if actions.device.type != self.device.type:
            raise ValueError(f"actions are on {actions.device}; these environments are on {self.device}")
        if actions.device.type == "cpu" and not 0 <= int(actions.min()) <= int(actions.max()) < ACTIONS:
            raise ValueError(
                f"actions from {int(actions.min())} to {int(actions.max())}; allowed are 0 to {ACTIONS - 1}"
            )
        target = self.device if self.place.platform == "gpu" else torch.device("cpu")
        native = actions.detach().to(target, torch.int32)
        found = []
        sent = [native if len(self.parts) == 1 else native[part.rows] for part in self.parts]  # kept while JAX reads
        for index, (part, own) in enumerate(zip(self.parts, sent, strict=True)):
            lanes, *seen = part.step(part.lanes, jax.numpy.from_dlpack(own.contiguous()))
            self.parts[index] = part._replace(lanes=lanes, obs=seen[0])
            found.append(seen)
        obs, *scalars, ends = zip(*found, strict=True)
        reward, terminated, truncated = map(self.joined, scalars)
        step = Step(self.joined(obs, self.shape), reward, terminated, truncated, self.joined(ends, self.shape))
        self.obs = step.obs
        return step

    def state_dict(self) -> dict[str, Any]:
        """The state of every environment, as bytes."""
        import jax

        leaves = [jax.tree.leaves((part.lanes, part.obs)) for part in self.parts]
        return {"parts": [[torch.from_numpy(as_bytes(leaf)) for leaf in part] for part in leaves]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` of environments of the same games gave.

        Raises:
            ValueError: the state is of other games or numbers of environments.
        """
        import jax

        flat = [jax.tree.flatten((part.lanes, part.obs)) for part in self.parts]
        if [[leaf.nbytes for leaf in leaves] for leaves, _ in flat] != [
            [len(s) for s in part] for part in state["parts"]
        ]:
            raise ValueError("the saved environments are of another game or number; make Envs as they were made")
        for index, ((leaves, tree), saved) in enumerate(zip(flat, state["parts"], strict=True)):
            restored = [  # copied: JAX may else keep the memory of the saved state as its own
                jax.device_put(s.cpu().numpy().copy().view(leaf.dtype).reshape(leaf.shape), self.place)
                for leaf, s in zip(leaves, saved, strict=True)
            ]
            lanes, obs = jax.tree.unflatten(tree, restored)
            self.parts[index] = self.parts[index]._replace(lanes=lanes, obs=obs)
        self.obs = self.joined([part.obs for part in self.parts], self.shape)


def first_returns(envs: Envs, act: Callable[[Tensor], Tensor]) -> Tensor:
    """Return of the first episode of each environment, (runs, envs).

    Args:
        envs: at the start of their episodes. act: observations (runs, envs, *shape) -> actions (runs, envs).
    """
    returns = torch.zeros(envs.runs, envs.envs, device=envs.device)
    going = torch.ones_like(returns, dtype=torch.bool)
    steps = 0
    while steps % 32 or bool(going.any()):  # asked now and then: a GPU waits for the answer
        now = envs.step(act(envs.obs))
        returns += torch.where(going, now.reward, 0)
        going &= ~(now.terminated | now.truncated)
        steps += 1
    return returns


def random_return(games: Games, name: str, episodes: int = 64, seed: int = 0) -> float:
    """Mean return of episodes in which each of the six actions is as likely as any other.

    Args:
        games: settings of the sequence. name: of one of its games.
    Raises:
        ValueError: the sequence has no such game; no episodes. MissingExtraError: a package is missing.
    """
    require("name", name, games.names)
    require_range("episodes", episodes, 1)
    envs = Envs(games, [Visit(0, 0, name, None)], [seed], episodes, torch.device("cpu"), RANDOM)
    generator = torch.Generator().manual_seed(seed)
    return float(first_returns(envs, lambda _: torch.randint(ACTIONS, (1, episodes), generator=generator)).mean())


class Part(NamedTuple):
    """The runs that are in one game."""

    rows: list[int]
    step: Any  # jitted
    lanes: Any  # keys, states and last actions, leaves (rows, envs, ...)
    obs: Any  # (rows, envs, *shape), bool


def places(visit: Visit, channels: int) -> np.ndarray:
    """Where 100 pixels x `channels` channels, flat in the game's own order, are in the 1,000 entries of a visit."""
    order = range(10) if visit.channels is None else visit.channels
    seen_at = np.argsort(np.array(order))[:channels]  # channel c of the game is seen as channel seen_at[c]
    return (10 * np.arange(100)[:, None] + seen_at).reshape(-1)


def lane_keys(seed: int, visit: int, stream: int, envs: int) -> np.ndarray:
    """Keys of the environments of one run, (envs, 2), uint32: any of them whatever the number of others."""
    import jax

    key = jax.random.PRNGKey(np.uint32(seed))
    for number in (visit, stream):
        key = jax.random.fold_in(key, number)
    return np.asarray(jax.vmap(lambda lane: jax.random.fold_in(key, lane))(np.arange(envs, dtype=np.uint32)))


def as_bytes(leaf: Any) -> np.ndarray:
    """A copy of an array's bytes, flat, uint8."""
    return np.frombuffer(np.ascontiguousarray(np.asarray(leaf)).tobytes(), dtype=np.uint8).copy()
