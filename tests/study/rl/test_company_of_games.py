"""A run's rows in games are, bit for bit, the same alone, beside others, in another order: on a CPU, on one thread."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_games import CONVOLUTIONAL, CPU, TINY, arm
from tqdm import tqdm

from dyniso.study.checkpoint import Checkpoint
from dyniso.study.rl.agent import Agent
from dyniso.study.rl.envs import TRAIN, Envs
from dyniso.study.rl.player import Player
from dyniso.study.rl.sequence import visit
from dyniso.study.rl.train import train_group
from dyniso.study.specs.reinforcement import PPO
from dyniso.study.stack import Run

RAGGED = PPO(envs=8, steps=10, epochs=2, minibatches=4)  # batches of 20, no lines of 16 floats
GAMES = replace(
    TINY,
    games=replace(TINY.games, steps_per_game=160, max_episode_steps=9),
    net=replace(TINY.net, width=20, depth=3),
    ppo=RAGGED,
    evaluate="all",
)
FRAMES = replace(
    CONVOLUTIONAL,
    games=replace(CONVOLUTIONAL.games, steps_per_game=160, max_episode_steps=9),
    net=replace(CONVOLUTIONAL.net, width=20, backbone=(3, 5, 7)),
    ppo=replace(RAGGED, clip_by="value"),
)
ARMS = {
    "adam": arm("adam"),
    "adamo": arm("adamo"),
    "adamo, every 4": replace(arm("adamo"), isometry_every=4),
    "maxmin_adamo_no_bias": arm("maxmin_adamo_no_bias"),
    **{name: arm(name) for name in ("layernorm", "crelu", "l2_init", "spectral", "nap", "redo", "shrink_perturb")},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def games():
    pytest.importorskip("jax")
    pytest.importorskip("gymnax")


def assert_company_does_not_matter(experiment, runs, folder):
    """The rows of all runs together are those of the last alone, and of the others in reverse order."""

    def rows(members):
        bar, saves = tqdm(disable=True), Checkpoint(folder, ["m-0.parquet"], 1e9)
        return dict(zip(members, train_group(experiment, members, CPU, bar, saves), strict=True))

    together = rows(runs)
    for company in (runs[-1:], runs[-2::-1]):
        for run, frame in rows(company).items():
            np.testing.assert_array_equal(frame["value"], together[run]["value"])


@pytest.mark.parametrize("name", ARMS)
def test_rows_of_a_run_do_not_depend_on_the_runs_beside_it(games, tmp_path, name):
    assert_company_does_not_matter(GAMES, [Run(ARMS[name], seed) for seed in range(4)], tmp_path)


@pytest.mark.parametrize("name", ["adam", "adamo"])
def test_rows_of_a_convolutional_agent_do_not_depend_on_the_runs_beside_it(games, tmp_path, name):
    pytest.importorskip("octax")
    assert_company_does_not_matter(FRAMES, [Run(ARMS[name], seed) for seed in range(2)], tmp_path)


def test_rows_of_a_run_do_not_depend_on_the_strengths_of_the_runs_beside_it(games, tmp_path):
    weak = replace(arm("adamo"), name="weak", isometry_strength=0.1)
    methods = (arm("adamo"), arm("adam"), weak)
    assert_company_does_not_matter(GAMES, [Run(m, 0) for m in methods], tmp_path)


def test_observations_of_a_run_have_one_shape_whichever_games_the_others_are_in(games):
    seeds = (0, 3)  # one in Breakout, with 4 channels, one in Space Invaders, with 6
    visits = [visit(TINY.games, seed, 0) for seed in seeds]
    together = Envs(TINY.games, visits, seeds, 8, CPU, TRAIN)
    assert {v.game for v in visits} == set(TINY.games.names)
    for r, seed in enumerate(seeds):
        alone = Envs(TINY.games, [visits[r]], [seed], 8, CPU, TRAIN)
        assert torch.equal(alone.obs[0], together.obs[r])
        assert torch.equal(alone.columns[0], together.columns[r])


def test_value_of_a_cut_episode_does_not_depend_on_how_many_of_another_run_are_cut(monkeypatch):
    player = Player(TINY, [Run(arm("adam"), seed) for seed in (0, 3)], CPU)
    monkeypatch.setattr(Player, "columns", None)
    ends = torch.rand(16, 2, 8, 1000, generator=torch.Generator().manual_seed(0)) < 0.1
    found = []
    for others in (0, 1, 30, 128):  # of 16 x 8
        truncated = torch.zeros(2, 128, dtype=torch.bool)
        truncated[0, [5, 50, 77]], truncated[1, :others] = True, True
        truncated = truncated.unflatten(1, (16, 8)).transpose(0, 1)
        next_values = torch.full((16, 2, 8), torch.nan)
        with torch.no_grad():
            player.bootstrap(next_values, ends, truncated)
        assert torch.equal(next_values.isfinite(), truncated)
        found.append(next_values[:, 0][truncated[:, 0]])
    assert all(torch.equal(values, found[0]) for values in found[1:])


def test_gradients_of_actor_and_critic_do_not_depend_on_the_runs_beside_them():
    runs = [Run(arm("adam"), seed) for seed in range(3)]
    obs = torch.rand(3, 64, 1000, generator=torch.Generator().manual_seed(0)) < 0.1
    agents = Agent(TINY, runs, (1000,), CPU), Agent(TINY, runs[1:2], (1000,), CPU)
    for agent, seen in zip(agents, (obs, obs[1:2]), strict=True):
        logits, values = agent(seen)
        (logits.square().sum() + (values - 1).square().sum()).backward()
    for together, alone in zip(*(agent.params.values() for agent in agents), strict=True):
        assert torch.equal(together.grad[1], alone.grad[0])
