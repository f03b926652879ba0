"""One game as two JAX functions for one environment: the packages' own, with ends by themselves and by time kept apart.

MinAtar is gymnax's (Young & Tian 2019, arXiv 1903.03176; Lange 2022); Octax is octax's CHIP-8 (Radji et al. 2025,
arXiv 2510.01764). JAX is imported when a game is first made; the learner never sees it.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from ...checks import require, require_extra
from ..specs.reinforcement import ACTIONS, OBSERVATIONS, SUITES, Games

MINATAR = {
    "breakout": "Breakout-MinAtar",
    "asterix": "Asterix-MinAtar",
    "space_invaders": "SpaceInvaders-MinAtar",
    "freeway": "Freeway-MinAtar",
    "seaquest": "Seaquest-MinAtar",
}


def require_games(suite: str = "minatar") -> None:
    """Raise MissingExtraError, in one line, if a package that plays the suite is not installed."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the learner needs the GPU's memory too
    require_extra("rl", "jax", "gymnax", *(("octax",) if suite == "octax" else ()))
    import jax

    # the learner waits for every step anyhow, best on its own thread; without effect once JAX has run
    jax.config.update("jax_cpu_enable_async_dispatch", False)


class Game(NamedTuple):
    """One game: `reset(key) -> (state, obs)`; `step(key, state, action) -> state, obs, reward, terminated, truncated`.

    obs is bool, (10, 10, channels) in MinAtar and (4, 32, 64) in Octax; action is native, 0 .. actions - 1.
    """

    reset: Callable[..., Any]
    step: Callable[..., Any]
    actions: int
    noop: int  # the native action that does nothing
    channels: int  # of an observation; the frames, in Octax


@functools.cache
def make_game(suite: str, name: str, max_episode_steps: int | None = None) -> Game:
    """A game of a suite.

    Args:
        max_episode_steps: after which an episode is cut; None for the package's own (MinAtar 1,000, Freeway 2,500;
            Octax 4,500).
    Raises:
        ValueError: unknown suite or game. MissingExtraError: a package is missing.
    """
    require("suite", suite, SUITES)
    require("game", name, SUITES[suite])
    require_games(suite)
    return minatar(name, max_episode_steps) if suite == "minatar" else octax(name, max_episode_steps)


def minatar(name: str, max_episode_steps: int | None) -> Game:
    """A game of gymnax with its minimal action set."""
    import gymnax

    env, params = gymnax.make(MINATAR[name])
    if max_episode_steps is not None:
        params = params.replace(max_steps_in_episode=max_episode_steps)

    def reset(key: Any) -> Any:
        obs, state = env.reset_env(key, params)
        return state, obs.astype(bool)

    def step(key: Any, state: Any, action: Any) -> Any:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return state, obs.astype(bool), reward, terminated, env.is_truncated(state, params)

    return Game(reset, step, env.num_actions, 0, env.obs_shape[-1])


def octax(name: str, max_episode_steps: int | None) -> Game:
    """A game of octax, which always starts in one state; its last action presses no key."""
    from octax.environments import create_environment

    warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)  # octax's own code

    limit = {} if max_episode_steps is None else {"max_num_steps_per_episodes": max_episode_steps}
    env, _ = create_environment(name, **limit)

    def reset(key: Any) -> Any:
        state, obs, _ = env.reset(key)
        return state, obs.swapaxes(-1, -2)

    def step(_: Any, state: Any, action: Any) -> Any:
        state, obs, reward, terminated, truncated, _ = env.step(state, action)
        return state, obs.swapaxes(-1, -2), reward, terminated, truncated

    return Game(reset, step, env.num_actions, env.num_actions - 1, OBSERVATIONS["octax"][0])


def native_actions(games: Games, name: str) -> tuple[int, ...]:
    """What each of the agent's actions is in a game; one that the game lacks is its first, or its no-op."""
    game = make_game(games.suite, name, games.max_episode_steps)
    other = 0 if games.invalid_action == "first" else game.noop
    return tuple(a if a < game.actions else other for a in range(ACTIONS))


class Lanes(NamedTuple):
    """The jitted functions of one game for (runs, envs) environments at once."""

    reset: Callable[..., Any]  # keys (runs, envs, 2) -> lanes, obs
    step: Callable[..., Any]  # lanes, actions (runs, envs) -> lanes, obs, reward, terminated, truncated, ends


@functools.cache
def compiled(games: Games, name: str) -> Lanes:
    """The functions of one game under the settings of a sequence; compiled once for each number of runs.

    Every environment has a key of its own, so what happens in one does not depend on how many others there are.
    """
    import jax
    import jax.numpy as jnp

    game = make_game(games.suite, name, games.max_episode_steps)
    mapping = jnp.array(native_actions(games, name), dtype=jnp.int32)
    starts = no_op_starts(game, games.noop_starts)

    def begin(key: Any) -> Any:
        if starts is None:
            return game.reset(key)
        count = starts[1].shape[0]
        row = jax.random.randint(key, (), 0, count)
        state, obs = jax.tree.map(lambda leaf: leaf[row], starts)
        return (state.replace(rng=key) if hasattr(state, "rng") else state), obs

    def first(key: Any) -> Any:
        key, own = jax.random.split(key)
        state, obs = begin(own)
        return (key, state, jnp.int32(game.noop)), obs

    def onward(lane: Any, action: Any) -> Any:
        key, state, last = lane
        key, of_step, of_reset, of_sticky = jax.random.split(key, 4)
        action = mapping[action]
        if games.sticky:
            action = jnp.where(jax.random.uniform(of_sticky) < games.sticky, last, action)
        state, obs, reward, terminated, truncated = game.step(of_step, state, action)
        over = terminated | truncated
        fresh, fresh_obs = begin(of_reset)
        state = jax.tree.map(lambda new, old: jnp.where(over, new, old).astype(jnp.asarray(old).dtype), fresh, state)
        lane = (key, state, jnp.where(over, game.noop, action).astype(jnp.int32))
        seen = jnp.where(over, fresh_obs, obs)
        return lane, seen, reward.astype(jnp.float32), terminated, truncated & ~terminated, obs

    def reset(keys: Any) -> Any:
        lanes, obs = jax.vmap(jax.vmap(first))(keys)
        return jax.tree.map(strong, lanes), obs

    def strong(leaf: Any) -> Any:  # a weakly typed leaf would make the second step compile again
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    def step(lanes: Any, actions: Any) -> Any:
        lanes, obs, reward, terminated, truncated, ends = jax.vmap(jax.vmap(onward))(lanes, actions)
        lanes = jax.tree.map(strong, lanes)
        return lanes, obs, reward, terminated, truncated, ends

    return Lanes(jax.jit(reset), jax.jit(step))


def no_op_starts(game: Game, most: int) -> Any:
    """States and observations after 0 .. most no-ops from one start, as far as the episode goes on; None for most 0."""
    import jax
    import jax.numpy as jnp

    if not most:
        return None
    step = jax.jit(game.step)
    state, obs = game.reset(jax.random.PRNGKey(0))
    found = [(state, obs)]
    for key in jax.random.split(jax.random.PRNGKey(1), most):
        state, obs, _, terminated, truncated = step(key, state, game.noop)
        if bool(terminated | truncated):
            break
        found.append((state, obs))
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *found)
