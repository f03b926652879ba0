"""Environment steps a second, acting, stepping and learning together: stacked seeds against a PPO loop for one seed.

The loop is what a user writes: one actor, one critic, one fused Adam, minibatches one after another. It runs on the
same gymnax environments, and on the original Python engine. All play Breakout with the paper's nets; an update of one
seed takes 64 environments x 64 steps on a CPU, the authors' 2,048 x 128 on a GPU. A JAX PPO from end to end is not
timed: none that installs runs with the present gymnax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from bench import interleaved, ratio
from torch import Tensor, nn

from dyniso.nets import mlp
from dyniso.study.rl.envs import Envs
from dyniso.study.rl.player import Player
from dyniso.study.rl.ppo import Rollout, advantages
from dyniso.study.rl.sequence import visit
from dyniso.study.specs.reinforcement import ACTIONS, PPO, GameExperiment, Games, PolicyNet, arms
from dyniso.study.stack import Run

GAMES = Games(names=("breakout",), cycles=1, steps_per_game=2048 * 128, permute_channels=False)
SMALL = PPO(envs=64, steps=64, minibatches=8)


def experiment(ppo: PPO, seeds: int) -> GameExperiment:
    """Breakout with the paper's nets and Adam."""
    method = arms(2.5e-4, 0.05)[0]
    return GameExperiment(
        "bench", "Breakout", "smoke", GAMES, PolicyNet(), ppo, (method,), tuple(range(seeds)), curve=1, probe=64
    )


def stacked(ppo: PPO, seeds: int, device: torch.device) -> Callable[[], None]:
    """One rollout and update of stacked seeds."""
    settings = experiment(ppo, seeds)
    player = Player(settings, [Run(settings.methods[0], s) for s in settings.seeds], device)
    player.enter(0)
    episodes = {name: torch.zeros(seeds, device=device) for name in ("returns", "finished", "rewards")}

    def iterate() -> None:
        player.learn(player.play(episodes), 0.0)

    return iterate


class World(Protocol):
    """Environments of one seed: observations (envs, 1000)."""

    obs: Tensor

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and ends, each (envs,)."""


class Vectorised:
    """gymnax, all environments in one call."""

    def __init__(self, envs: int, device: torch.device):
        self.inner = Envs(GAMES, [visit(GAMES, 0, 0)], [0], envs, device)
        self.obs = self.inner.whole()[0].float()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        now = self.inner.step(actions[None])
        self.obs = self.inner.whole()[0].float()
        return now.reward[0], (now.terminated | now.truncated)[0]


class Original:
    """The Python engine, one environment after another."""

    def __init__(self, envs: int, device: torch.device):
        from minatar import Environment

        self.device = device
        self.games = [Environment("breakout", sticky_action_prob=0.0) for _ in range(envs)]
        for seed, game in enumerate(self.games):
            game.seed(seed)
            game.reset()
        self.native = [0, 1, 3, 0, 0, 0]  # no-op, left, right; the others do not exist
        self.look()

    def look(self) -> None:
        obs = np.zeros((len(self.games), 10, 10, 10), dtype=np.float32)
        for row, game in zip(obs, self.games, strict=True):
            row[..., :4] = game.state()
        self.obs = torch.from_numpy(obs).flatten(1).to(self.device)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        found = [game.act(self.native[a]) for game, a in zip(self.games, actions.tolist(), strict=True)]
        for game, (_, over) in zip(self.games, found, strict=True):
            if over:
                game.reset()
        self.look()
        rewards, ends = zip(*found, strict=True)
        return torch.tensor(rewards, device=self.device).float(), torch.tensor(ends, device=self.device)


def looped(ppo: PPO, make: Callable[[int, torch.device], World], device: torch.device) -> Callable[[], None]:
    """One rollout and update of one seed as a plain loop."""
    actor = mlp(1000, ACTIONS, 64, 4, gain=2**0.5, head_gain=0.01).to(device)
    critic = mlp(1000, 1, 64, 4, gain=2**0.5, head_gain=1.0).to(device)
    both = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(both, lr=2.5e-4, eps=ppo.eps, fused=True)
    world = make(ppo.envs, device)

    @torch.no_grad()
    def play() -> Rollout:
        rows: list[tuple[Any, ...]] = []
        for _ in range(ppo.steps):
            obs = world.obs
            choice = torch.distributions.Categorical(logits=actor(obs))
            action = choice.sample()
            value = critic(obs)[:, 0]
            rewards, ends = world.step(action)
            rows.append((obs, action, choice.log_prob(action), value, rewards, ends, torch.zeros_like(ends)))
        columns = [torch.stack(column) for column in zip(*rows, strict=True)]
        return Rollout(*columns, torch.cat([columns[3][1:], critic(world.obs)[None, :, 0]]))

    def iterate() -> None:
        rollout = play()
        gains = advantages(rollout, ppo.gamma, ppo.gae_lambda).flatten()
        obs, actions, old_log_probs, old_values = (x.flatten(0, 1) for x in rollout[:4])
        targets = gains + old_values
        for _ in range(ppo.epochs):
            for rows in torch.randperm(ppo.batch, device=device).view(ppo.minibatches, -1):
                choice = torch.distributions.Categorical(logits=actor(obs[rows]))
                ratios = (choice.log_prob(actions[rows]) - old_log_probs[rows]).exp()
                a = (gains[rows] - gains[rows].mean()) / (gains[rows].std() + 1e-8)
                policy = -torch.minimum(ratios * a, ratios.clamp(1 - ppo.clip, 1 + ppo.clip) * a).mean()
                value = critic(obs[rows])[:, 0]
                near = old_values[rows] + (value - old_values[rows]).clamp(-ppo.clip, ppo.clip)
                error = torch.maximum((value - targets[rows]).square(), (near - targets[rows]).square()).mean() / 2
                optimizer.zero_grad()
                (policy + ppo.value_weight * error - ppo.entropy * choice.entropy().mean()).backward()
                nn.utils.clip_grad_norm_(both, ppo.clip_gradient)
                optimizer.step()

    return iterate


def rows(device: torch.device) -> list[dict[str, object]]:
    """Ratios of time for the same environment steps, and steps a second of 8 stacked seeds."""
    on_cpu = device.type == "cpu"
    ppo = SMALL if on_cpu else PPO()
    calls = {
        "one": stacked(ppo, 1, device),
        "eight": stacked(ppo, 8, device),
        "loop": looped(ppo, Vectorised, device),
        "original": looped(ppo, Original, device),
    }
    times = interleaved(calls, device, rounds=5 if on_cpu else 2)  # 262,144 steps of the Python games take long
    times["loop of 8"] = [8 * t for t in times["loop"]]
    times["original of 8"] = [8 * t for t in times["original"]]
    steps = [8 * ppo.batch / t for t in times["eight"]]
    what = f"PPO on Breakout, {ppo.envs} x {ppo.steps} steps an update"
    return [
        {"what": f"{what}: loop of 8 seeds / 8 stacked", **ratio(times, "loop of 8", "eight"), "aim_at_least": None},
        {
            "what": f"{what}: loop of 8 seeds on Python MinAtar / 8 stacked",
            **ratio(times, "original of 8", "eight"),
            "aim_at_least": 1.5 if on_cpu else None,
        },
        {
            "what": f"{what}: one seed on Python MinAtar / one stacked",
            **ratio(times, "original", "one"),
            "aim_at_least": 1.5 if on_cpu else None,
        },
        {
            "what": f"{what}: 8 stacked / one",
            **ratio(times, "eight", "one"),
            "aim_at_most": None if on_cpu else 2.0,
        },
        {
            "what": f"{what}: environment steps a second, 8 stacked",
            "value": sorted(steps)[len(steps) // 2],
            "low": min(steps),
            "high": max(steps),
            "aim_at_least": None if on_cpu else 2e6,
        },
    ]
