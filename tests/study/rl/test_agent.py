"""Contracts of dyniso.study.rl.agent: what a change of game keeps and what it draws anew."""

import math

import pytest
import torch
from tiny_games import CONVOLUTIONAL, CPU, RESUMED, TINY, arm

from dyniso.study.rl.agent import Agent
from dyniso.study.specs import REINFORCEMENT, TIERS, GameExperiment
from dyniso.study.specs.reinforcement import OBSERVATIONS, SINGLE
from dyniso.study.stack import Run

CASES = [(name, tier) for name in REINFORCEMENT for tier in TIERS]
every_case = pytest.mark.parametrize(("name", "tier"), CASES)


def agent_of(name: str, experiment: GameExperiment = TINY, seeds=(0, 1), steps: int = 2) -> Agent:
    """Agents that have made some steps on noise."""
    shape = OBSERVATIONS["octax"] if experiment.net.backbone else (1000,)
    agent = Agent(experiment, [Run(arm(name), s) for s in seeds], shape, CPU)
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        logits, values = agent(torch.rand(len(seeds), 32, *shape, generator=generator) < 0.1)
        agent.update(logits.square().mean((1, 2)) + (values - 1).square().mean(1))
    return agent


@every_case
def test_registered_experiment_knows_its_own_name_and_tier_and_makes_its_agents(name, tier):
    registered = REINFORCEMENT[name][tier]
    assert (registered.name, registered.tier) == (name, tier)
    shape = OBSERVATIONS[registered.games.suite]
    shape = (math.prod(shape),) if registered.games.suite == "minatar" else shape
    for method in registered.methods:
        agent = Agent(registered, [Run(method, 0)], shape, CPU)
        logits, values = agent(torch.zeros(1, 2, *shape, dtype=torch.bool))
        assert (logits.shape, values.shape) == ((1, 2, 6), (1, 2))


def penalty(agent: Agent) -> float:
    """What the method adds to the loss of all runs."""
    return sum(attached.penalty().sum().item() for attached in agent.attached.values())


def copies(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in agent.params.items()}


@pytest.mark.parametrize("name", RESUMED)
def test_adams_state_is_cleared_at_a_change_of_game_only_where_the_method_says_so(name):
    agent = agent_of(name)
    assert len(agent.optimizer.state) == len(agent.params)
    agent.new_task(1)
    assert bool(agent.optimizer.state) == (name == "adam_kept")


@pytest.mark.parametrize("name", ["adam", "adamo", "l2_init", "nap", "spectral", "redo", "layernorm", "crelu"])
def test_weights_stay_at_a_change_of_game(name):
    agent = agent_of(name)
    before = copies(agent)
    agent.new_task(1)
    assert all(torch.equal(p, before[n]) for n, p in agent.params.items())


def test_anchor_of_l2_init_stays_at_the_first_weights():
    fresh, agent = agent_of("l2_init", steps=0), agent_of("l2_init")
    agent.new_task(1)
    moved = [agent.params[name].detach() - p.detach() for name, p in fresh.params.items()]
    assert penalty(fresh) == 0
    assert all(p.any() for p in moved)
    torch.testing.assert_close(penalty(agent), 0.1 / 2 * sum(p.square().sum().item() for p in moved))


def test_norms_of_nap_stay_those_of_the_first_weights():
    fresh, agent = agent_of("nap", steps=0), agent_of("nap")
    agent.new_task(1)
    for part in ("actor", "critic"):
        *hidden, head = agent.parts[part].linear_maps()
        for layer in hidden:
            start = fresh.params[f"{part}.{layer.name}.weight"]
            assert not torch.equal(layer.weight, start)
            torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), start.flatten(1).norm(dim=1))
        moved = head.weight.flatten(1).norm(dim=1) - fresh.params[f"{part}.{head.name}.weight"].flatten(1).norm(dim=1)
        assert (moved.abs() > 1e-4).all()


@pytest.mark.parametrize("experiment", [TINY, CONVOLUTIONAL], ids=["minatar", "octax"])
def test_fresh_agent_is_drawn_by_the_law_of_the_first_and_differs_in_every_visit(experiment):
    fresh, agent = agent_of(SINGLE, experiment, steps=0), agent_of(SINGLE, experiment)
    drawn = [copies(fresh)]
    for number in (1, 2):
        agent.new_task(number)
        drawn.append(copies(agent))
    for name, start in drawn[0].items():
        others = [d[name] for d in drawn[1:]]
        if not start.any():
            assert not any(p.any() for p in others), name  # biases that start at zero
            continue
        assert not (start == others[0]).any() and not (others[0] == others[1]).any(), name
        if not name.startswith("backbone"):  # orthogonal, with the gain of its place
            expected = torch.linalg.svdvals(start)
            assert all(torch.allclose(torch.linalg.svdvals(p), expected, atol=1e-5) for p in others), name


def test_fire_makes_hidden_weights_orthogonal_up_to_its_scale_and_leaves_heads():
    agent = agent_of("fire")
    before = copies(agent)
    agent.new_task(1)
    for part in ("actor", "critic"):
        *hidden, head = agent.parts[part].linear_maps()
        for layer in hidden:
            out, inputs = layer.weight.shape[1:]
            sigma = torch.linalg.svdvals(layer.weight.detach()) / math.sqrt(out / inputs)
            torch.testing.assert_close(sigma, torch.ones_like(sigma), rtol=0, atol=2e-2)
        assert torch.equal(head.weight, before[f"{part}.{head.name}.weight"])


def test_pull_leaves_convolutions_heads_and_biases():
    agent = agent_of("adamo", CONVOLUTIONAL, steps=0)
    expected = [f"{part}.{layer}.weight" for part in ("actor", "critic") for layer in (1, 3)]
    before = copies(agent)
    for p in agent.params.values():
        p.grad = torch.zeros_like(p)
    agent.optimizer.step()
    assert [name for name, p in agent.params.items() if not torch.equal(p, before[name])] == expected
    assert agent.regularised() == expected


@pytest.mark.parametrize("name", RESUMED)
def test_diverged_agent_harms_no_other_at_a_change_of_game(name):
    agents = agent_of(name), agent_of(name)
    agents[0].give_up([0])
    for agent in agents:
        agent.new_task(1)
    for p, q in zip(agents[0].params.values(), agents[1].params.values(), strict=True):
        assert torch.equal(p[1], q[1])
    assert agents[0].finite().tolist() == [name == SINGLE, True]  # a fresh agent lives again


def test_actor_and_critic_start_from_draws_of_their_own():
    params = agent_of("adam", steps=0).params
    for layer in (1, 3):
        assert not torch.equal(params[f"actor.{layer}.weight"], params[f"critic.{layer}.weight"])
