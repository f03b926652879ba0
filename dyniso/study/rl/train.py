"""Continual PPO: a group of runs goes through a sequence of games together, and what they do is recorded.

Every method of a seed starts from the same weights (where shapes agree), plays the same sequence, and draws its actions
and minibatches from the same random numbers, so comparisons are paired.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..checkpoint import Checkpoint
from ..instruments.stacked import Measures, frames, over_steps
from ..learner import denormals_as_zero
from ..specs.reinforcement import GameExperiment, Games
from ..stack import Run
from .player import Player
from .ppo import Losses, advantages
from .sequence import Visit, visit


class Log:
    """What a visit has shown so far: sums by point of its curve, on the device."""

    def __init__(self, runs: int, points: int, device: torch.device):
        self.sums = {name: torch.zeros(points, runs, device=device) for name in ("returns", "finished", "rewards")}
        self.steps = torch.zeros(points, dtype=torch.float64)
        self.losses: dict[str, list[Tensor]] = defaultdict(list)

    def point(self, index: int) -> dict[str, Tensor]:
        """The sums of one point, to be added to."""
        return {name: values[index] for name, values in self.sums.items()}

    def measures(self) -> Measures:
        """Mean return of the episodes that ended (NaN where none did), reward for 1,000 steps, and losses."""
        found: Measures = {}
        returns, finished, rewards = self.sums.values()
        for point in range(len(returns)):
            found[f"point{point + 1}", "return"] = returns[point] / finished[point]
            found[f"point{point + 1}", "reward_rate"] = 1000 * rewards[point] / float(self.steps[point])
        found["", "return"] = returns.sum(0) / finished.sum(0)
        found["", "episodes"] = finished.sum(0)
        found["", "reward_rate"] = 1000 * rewards.sum(0) / float(self.steps.sum())
        return found | {("", name): over_steps(torch.stack(values)) for name, values in self.losses.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "steps": self.steps, "losses": dict(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.steps = state["sums"], state["steps"].cpu()
        self.losses = defaultdict(list, state["losses"])


@denormals_as_zero()
def train_group(
    experiment: GameExperiment, runs: list[Run], device: torch.device, bar: tqdm, checkpoint: Checkpoint
) -> list[pd.DataFrame]:
    """Take a group of runs through all visits.

    Returns:
        One frame a run, columns task (the visit), layer, metric, value. Measures of task -1 are those at the start.
    Raises:
        OutOfTime: the checkpoint's deadline has passed.
    """
    player = Player(experiment, runs, device)
    recorded: list[tuple[int, Measures]] = []
    dead: dict[str, list[Tensor]] | None = None
    first, begun, log, before = 0, 0, None, None
    saved = checkpoint.load(device)
    if saved:
        first, begun = saved["visit"], saved["iteration"]
        recorded, dead, before = saved["recorded"], saved["dead"], saved["before"]
        player.load_state_dict(saved["player"], first)
        log = Log(len(runs), experiment.curve, device)
        log.load_state_dict(saved["log"])
        bar.update(first * experiment.iterations + begun)
    else:
        recorded.append((-1, player.agent.measures(player.probe(player.visits(0)), None)[0]))
    for index in range(first, experiment.tasks):
        probe = player.probe(player.visits(index))
        if log is None or before is None:
            if index:
                player.agent.new_task(index)
            player.enter(index)
            log, before = Log(len(runs), experiment.curve, device), player.kernel(probe)
        for iteration in range(begun, experiment.iterations):
            advance(experiment, player, log, iteration)
            bar.update()
            if (index, iteration) != (experiment.tasks - 1, experiment.iterations - 1):
                now = {"visit": index, "iteration": iteration + 1, "recorded": recorded, "dead": dead, "before": before}
                checkpoint.after_part(
                    lambda now=now, log=log: now | {"player": player.state_dict(), "log": log.state_dict()}  # type: ignore[misc]
                )
        after, dead = leave(experiment, player, log, index, probe, dead)
        recorded.append((index, before | after))
        begun, log, before = 0, None, None
    return frames(recorded, len(runs))


def advance(experiment: GameExperiment, player: Player, log: Log, iteration: int) -> None:
    """One rollout and one update of every run."""
    point = iteration * experiment.curve // experiment.iterations
    rollout = player.play(log.point(point))
    log.steps[point] += experiment.ppo.batch
    found = player.learn(rollout, iteration / experiment.iterations)
    for name, value in zip(Losses._fields[1:], found[1:], strict=True):
        log.losses[f"{name}_loss" if name in ("policy", "value") else name].append(value)
    with torch.no_grad():
        ppo = experiment.ppo
        returns = advantages(rollout, ppo.gamma, ppo.gae_lambda, ppo.time_limit) + rollout.values
        left = (returns - rollout.values).transpose(0, 1).flatten(1).var(-1)
        log.losses["explained_variance"].append(1 - left / returns.transpose(0, 1).flatten(1).var(-1).clamp_min(1e-8))


def leave(
    experiment: GameExperiment,
    player: Player,
    log: Log,
    index: int,
    probe: Tensor,
    dead: dict[str, list[Tensor]] | None,
) -> tuple[Measures, dict[str, list[Tensor]]]:
    """What is measured at the end of a visit; and which units are dead then."""
    visits = player.visits(index)
    names = experiment.games.names
    found = log.measures()
    found["", "evaluation_return"] = player.evaluate(visits)
    if experiment.evaluate == "all":
        for name in names:
            there = [last_met(experiment.games, seed, index, name) for seed in player.seeds]
            found[name, "evaluation_return"] = player.evaluate([v._replace(number=index) for v in there])
    measured, dead = player.agent.measures(probe, dead)
    alive = player.agent.finite()
    found = {key: torch.where(alive, value, torch.nan) for key, value in (found | measured).items()}
    found["", "game"] = torch.tensor([float(names.index(v.game)) for v in visits], device=player.device)
    return found | {("", "diverged"): (~alive).float()}, dead


def last_met(games: Games, seed: int, index: int, name: str) -> Visit:
    """The last visit to a game until visit `index`, whose channels the run has learned; or else the first to come."""
    order = (*range(index, -1, -1), *range(index + 1, games.visits))
    return next(v for v in (visit(games, seed, i) for i in order) if v.game == name)


class GameEngine:
    """Trains groups of runs on one sequence of games (see `dyniso.study.runner.Engine`).

    Raises:
        MissingExtraError: a package that plays the games is not installed.
    """

    unit = "update"

    def __init__(self, experiment: GameExperiment, device: torch.device):
        self.experiment, self.device = experiment, device
        self.parts = experiment.tasks * experiment.iterations
        size = 1000 if experiment.games.suite == "minatar" else 4 * 32 * 64
        minibatch = experiment.ppo.batch // experiment.ppo.minibatches
        self.bytes_a_run = 4 * experiment.ppo.batch * size + 16 * minibatch * size  # rollout twice, as bytes; gathers

    def train_group(self, runs: list[Run], bar: tqdm, checkpoint: Checkpoint) -> list[pd.DataFrame]:
        """See `train_group`."""
        return train_group(self.experiment, runs, self.device, bar, checkpoint)
