"""A group of runs at play: rollouts, updates of PPO, evaluation episodes, and the observations that probes read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..instruments import single
from ..instruments.stacked import Measures, each_run, over_steps
from ..specs.reinforcement import ACTIONS, OBSERVATIONS, GameExperiment
from ..stack import Run
from .agent import Agent
from .envs import EVALUATE, PROBE, TRAIN, Envs, first_returns
from .ppo import Losses, Rollout, advantages, losses, minibatches, sample
from .sequence import Visit, visit

KERNEL = 64  # observations of the kernel that is measured before a visit
PROBE_ENVS = 8


class Player:
    """A group of runs at play: agents, environments, random numbers, and the episodes so far.

    Args:
        experiment: with the settings of PPO. runs: methods x seeds that differ in seed and isometry strength only.
        device: where agents and rollouts live.
    """

    def __init__(self, experiment: GameExperiment, runs: list[Run], device: torch.device):
        self.experiment, self.device = experiment, device
        self.seeds = [run.seed for run in runs]
        shape = OBSERVATIONS[experiment.games.suite]
        self.agent = Agent(experiment, runs, (1000,) if experiment.games.suite == "minatar" else shape, device)
        self.generators = [torch.Generator(device).manual_seed(0xD1CE + run.seed) for run in runs]
        self.envs: Envs | None = None
        self.returns = torch.zeros(len(runs), experiment.ppo.envs, device=device)  # of the episodes under way
        self.index = -1

    def visits(self, index: int) -> list[Visit]:
        """The visit of every run."""
        return [visit(self.experiment.games, seed, index) for seed in self.seeds]

    def enter(self, index: int) -> None:
        """Start a visit: a new game, all episodes from their start."""
        self.index = index
        self.envs = Envs(
            self.experiment.games, self.visits(index), self.seeds, self.experiment.ppo.envs, self.device, TRAIN
        )
        self.returns.zero_()

    @property
    def columns(self) -> Tensor | None:
        """Which entries of whole observations the present ones are; see `Envs`."""
        assert self.envs is not None
        return self.envs.columns

    def draws(self, *shape: int) -> Tensor:
        """Uniform draws (steps, runs, ...), each run from its own generator."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self.generators], 1)

    @torch.no_grad()
    def play(self, episodes: dict[str, Tensor]) -> Rollout:
        """One rollout of every run; rewards, and returns and number of finished episodes, are added to `episodes`."""
        assert self.envs is not None
        ppo, envs = self.experiment.ppo, self.envs
        runs = len(self.seeds)
        uniform = self.draws(ppo.steps, ppo.envs, ACTIONS)
        obs = torch.empty(ppo.steps, runs, ppo.envs, *envs.shape, dtype=torch.bool, device=self.device)
        ends = torch.empty_like(obs)
        actions = torch.empty(ppo.steps, runs, ppo.envs, dtype=torch.int64, device=self.device)
        log_probs, values, rewards = torch.empty(3, *actions.shape, device=self.device)
        terminated, truncated = torch.empty(2, *actions.shape, dtype=torch.bool, device=self.device)
        for t in range(ppo.steps):
            obs[t] = envs.obs
            logits, values[t] = self.agent(obs[t], envs.columns)
            actions[t], log_probs[t] = sample(logits, uniform[t])
            _, rewards[t], terminated[t], truncated[t], ends[t] = envs.step(actions[t])
            over = terminated[t] | truncated[t]
            self.returns += rewards[t]
            episodes["returns"] += torch.where(over, self.returns, 0).sum(-1)
            episodes["finished"] += over.sum(-1)
            episodes["rewards"] += rewards[t].sum(-1)
            self.returns.masked_fill_(over, 0)
        next_values = torch.cat([values[1:], self.agent.value(envs.obs, envs.columns)[None]])
        if ppo.time_limit == "bootstrap":
            self.bootstrap(next_values, ends, truncated)
        return Rollout(obs, actions, log_probs, values, rewards, terminated, truncated, next_values)

    def bootstrap(self, next_values: Tensor, ends: Tensor, truncated: Tensor) -> None:
        """Put the critic's value of where an episode was cut in place of that of the next episode's start."""
        _, runs, envs = truncated.shape
        flat = truncated.transpose(0, 1).flatten(1)  # (runs, steps * envs)
        most = int(flat.sum(1).max())
        if not most:
            return
        order = flat.int().argsort(dim=1, descending=True, stable=True)  # all cut ones of a run, then the others
        rows = torch.arange(runs, device=self.device)[:, None]
        for positions in order.split(envs, 1)[: -(-most // envs)]:  # as many at once as ever: a product may round by it
            t, e = positions // envs, positions % envs
            found = self.agent.value(ends[t, rows, e], self.columns)
            next_values[t, rows, e] = torch.where(truncated[t, rows, e], found, next_values[t, rows, e])

    def learn(self, rollout: Rollout, done: float) -> Losses:
        """Several epochs of minibatches on one rollout; means over all minibatches of its last epoch.

        Args:
            done: fraction of the visit done, for the learning rate.
        """
        ppo, agent = self.experiment.ppo, self.agent
        agent.schedule(done)
        advantage = advantages(rollout, ppo.gamma, ppo.gae_lambda, ppo.time_limit)
        flat = [x.transpose(0, 1).flatten(1, 2) for x in (*rollout[:4], advantage)]  # (runs, steps * envs, ...)
        rows = torch.arange(len(self.seeds), device=self.device)[:, None]
        for _ in range(ppo.epochs):
            seen = []
            for positions in minibatches(ppo, self.generators, self.device):
                obs, actions, log_probs, values, gains = (x[rows, positions] for x in flat)
                logits, new_values = agent(obs, self.columns)
                found = losses(logits, new_values, actions, log_probs, values, gains, ppo)
                agent.update(found.total)
                seen.append(found._replace(total=found.total.detach()))
        return Losses(*(over_steps(torch.stack(column)) for column in zip(*seen, strict=True)))

    @torch.no_grad()
    def evaluate(self, visits: list[Visit]) -> Tensor:
        """Mean return of one episode in each of some fresh environments, with sampled actions, (runs,)."""
        count = self.experiment.evaluation_envs
        envs = Envs(self.experiment.games, visits, self.seeds, count, self.device, EVALUATE)
        generators = [torch.Generator(self.device).manual_seed(0xE7A1 + s + 2**20 * v.number)
                      for s, v in zip(self.seeds, visits, strict=True)]  # fmt: skip

        def act(obs: Tensor) -> Tensor:
            draws = [torch.rand(count, ACTIONS, generator=g, device=self.device) for g in generators]
            return sample(self.agent.logits(obs, envs.columns), torch.stack(draws))[0]

        return first_returns(envs, act).mean(-1)

    def probe(self, visits: list[Visit]) -> Tensor:
        """Observations (runs, samples, *shape) of random play, the same for all methods of a seed."""
        envs = Envs(self.experiment.games, visits, self.seeds, PROBE_ENVS, self.device, PROBE)
        seen = []
        generators = [torch.Generator(self.device).manual_seed(0x9806 + s) for s in self.seeds]
        for _ in range(-(-self.experiment.probe // PROBE_ENVS)):
            seen.append(envs.whole())
            for _ in range(2):
                actions = [torch.randint(ACTIONS, (PROBE_ENVS,), generator=g, device=self.device) for g in generators]
                envs.step(torch.stack(actions))
        return torch.stack(seen, 1).flatten(1, 2)[:, : self.experiment.probe]

    def kernel(self, probe: Tensor) -> Measures:
        """The actor's kernel on part of the probe, observations spread over it."""
        with torch.no_grad():
            x = self.agent.features(probe[:, :: probe.shape[1] // KERNEL][:, :KERNEL])
        return each_run(self.agent.parts["actor"], single.kernel, x)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes within a visit."""
        return {
            "agent": self.agent.state_dict(),
            "envs": None if self.envs is None else self.envs.state_dict(),
            "generators": [g.get_state() for g in self.generators],
            "returns": self.returns,
        }

    def load_state_dict(self, state: dict[str, Any], index: int) -> None:
        """Take up what `state_dict` gave in visit `index`."""
        self.agent.load_state_dict(state["agent"])
        self.enter(index)
        assert self.envs is not None
        self.envs.load_state_dict(state["envs"])
        self.returns.copy_(state["returns"])
        for g, kept in zip(self.generators, state["generators"], strict=True):
            g.set_state(kept.cpu())
