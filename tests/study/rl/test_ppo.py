"""Contracts of dyniso.study.rl.ppo and of the player on small worlds with known answers; no game package is needed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dyniso.study.rl import player as player_module
from dyniso.study.rl.envs import Step
from dyniso.study.rl.player import Player
from dyniso.study.rl.ppo import Rollout, advantages, losses, minibatches, sample
from dyniso.study.specs import GameExperiment, Method
from dyniso.study.specs.reinforcement import ACTIONS, PPO, Games, PolicyNet
from dyniso.study.stack import Run

CPU = torch.device("cpu")
NUMBERS = 2e-6  # gamma lambda and means of truths are float32 whatever else is float64
ROUNDING = 2e-5  # float32, a few steps of Adam


def rollout_of(steps=12, runs=2, envs=3, seed=0, ends=0.3) -> Rollout:
    """Random values and rewards in float64; ends of both kinds, never both at once."""
    rng = np.random.default_rng(seed)
    shape = (steps, runs, envs)
    kind = rng.choice(3, size=shape, p=[1 - ends, ends / 2, ends / 2])
    terminated, truncated = torch.from_numpy(kind == 1), torch.from_numpy(kind == 2)
    values, rewards, next_values = (torch.from_numpy(rng.normal(size=shape)) for _ in range(3))
    nothing = torch.zeros(shape)
    return Rollout(nothing, nothing, nothing, values, rewards, terminated, truncated, next_values)


def by_definition(rollout: Rollout, gamma: float, gae_lambda: float, time_limit: str = "bootstrap") -> np.ndarray:
    """sum_l (gamma lambda)^l delta_{t+l}, up to the end of the episode or of the rollout."""
    rewards, values, following = (np.asarray(x) for x in (rollout.rewards, rollout.values, rollout.next_values))
    found = np.zeros(rewards.shape)
    for index in np.ndindex(*rewards.shape):
        for t in range(index[0], len(rewards)):
            here = (t, *index[1:])
            terminated, truncated = bool(rollout.terminated[here]), bool(rollout.truncated[here])
            worthless = terminated or (truncated and time_limit == "terminate")
            delta = rewards[here] + (0 if worthless else gamma * following[here]) - values[here]
            found[index] += (gamma * gae_lambda) ** (t - index[0]) * delta
            if terminated or truncated:
                break
    return found


# --------------------------------------------------------------------------------------------------- advantages

unit = st.floats(0, 1)


@given(seed=st.integers(0, 10_000), gamma=unit, gae_lambda=unit, ends=unit, steps=st.integers(1, 12))
@pytest.mark.parametrize("time_limit", ["bootstrap", "terminate"])
def test_advantages_equal_their_definition(time_limit, seed, gamma, gae_lambda, ends, steps):
    rollout = rollout_of(steps=steps, runs=2, envs=1, seed=seed, ends=ends)
    found = advantages(rollout, gamma, gae_lambda, time_limit)
    np.testing.assert_allclose(found, by_definition(rollout, gamma, gae_lambda, time_limit), rtol=NUMBERS, atol=NUMBERS)


def test_advantage_with_lambda_zero_is_the_error_of_one_step():
    r = rollout_of(seed=1)
    expected = r.rewards + 0.9 * r.next_values * (~r.terminated) - r.values
    torch.testing.assert_close(advantages(r, 0.9, 0.0), expected, rtol=NUMBERS, atol=NUMBERS)


def test_advantage_with_lambda_one_is_the_discounted_return_less_the_value():
    r = rollout_of(seed=2)
    r = r._replace(next_values=torch.cat([r.values[1:], r.next_values[-1:]]), truncated=torch.zeros_like(r.truncated))
    to_come = r.next_values[-1]
    for t in range(len(r.rewards) - 1, -1, -1):
        to_come = r.rewards[t] + 0.9 * to_come * (~r.terminated[t])
        torch.testing.assert_close(advantages(r, 0.9, 1.0)[t], to_come - r.values[t], rtol=NUMBERS, atol=NUMBERS)


def test_cut_episode_is_worth_its_last_observation_and_an_ended_one_nothing():
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    yes, no = torch.ones(1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, dtype=torch.bool)
    cut = Rollout(one, one, one, 2 * one, 3 * one, no, yes, 10 * one)
    assert advantages(cut, 0.5, 0.9).item() == 3 + 0.5 * 10 - 2
    assert advantages(cut, 0.5, 0.9, "terminate").item() == 3 - 2
    assert advantages(cut._replace(terminated=yes, truncated=no), 0.5, 0.9).item() == 3 - 2


def test_nothing_flows_back_over_the_end_of_an_episode():
    r = rollout_of(steps=6, ends=0.0)
    for kind in ("terminated", "truncated"):
        ended = getattr(r, kind).clone()
        ended[2] = True
        ended_at_2 = r._replace(**{kind: ended})
        other = ended_at_2._replace(rewards=torch.cat([r.rewards[:3], r.rewards[3:] + 100]))
        first, second = (advantages(x, 0.9, 0.9)[:3] for x in (ended_at_2, other))
        assert torch.equal(first, second)


# ------------------------------------------------------------------------------------------------------- losses


def losses_by_loop(logits, values, actions, old_log_probs, old_values, advantage, ppo):
    """One run, plain numbers: total, policy, value, entropy, kl, clipped."""
    gains = (advantage - advantage.mean()) / (advantage.std() + 1e-8) if ppo.normalise_advantages else advantage
    policy, value, entropy, kl, clipped = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(actions)):
        p = np.exp(logits[i] - logits[i].max())
        p /= p.sum()
        ratio = p[actions[i]] / np.exp(old_log_probs[i])
        policy -= min(ratio * gains[i], np.clip(ratio, 1 - ppo.clip, 1 + ppo.clip) * gains[i])
        target = old_values[i] + advantage[i]
        error = (values[i] - target) ** 2
        if ppo.clip_value:
            near = old_values[i] + np.clip(values[i] - old_values[i], -ppo.clip, ppo.clip)
            error = max(error, (near - target) ** 2)
        value += error / 2
        entropy -= (p * np.log(p)).sum()
        kl += ratio - 1 - np.log(ratio)
        clipped += abs(ratio - 1) > ppo.clip
    policy, value, entropy, kl, clipped = (x / len(actions) for x in (policy, value, entropy, kl, clipped))
    return policy + ppo.value_weight * value - ppo.entropy * entropy, policy, value, entropy, kl, clipped


def a_minibatch(seed: int, runs: int = 2, size: int = 40) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(runs, size, ACTIONS, generator=g, dtype=torch.float64)
    old = (logits + 0.3 * torch.randn(logits.shape, generator=g)).log_softmax(-1)
    actions = torch.randint(ACTIONS, (runs, size), generator=g)
    values, old_values, advantage = torch.randn(3, runs, size, generator=g, dtype=torch.float64)
    return [logits, values, actions, old.gather(-1, actions[..., None])[..., 0], old_values, 3 * advantage + 1]


@pytest.mark.parametrize("clip_value", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
def test_losses_equal_a_plain_loop(clip_value, normalise):
    ppo = PPO(clip_value=clip_value, normalise_advantages=normalise, entropy=0.07, value_weight=0.3)
    batch = a_minibatch(seed=3)
    found = losses(*batch, ppo)
    for run in range(2):
        expected = losses_by_loop(*(x[run].numpy() for x in batch), ppo)
        np.testing.assert_allclose([float(x[run]) for x in found], expected, rtol=1e-7, atol=1e-9)
    assert 0 < found.clipped.min() < found.clipped.max() < 1


def test_shift_and_scale_of_advantages_change_the_policy_loss_only_without_normalisation():
    *rest, advantage = a_minibatch(seed=4)
    for normalise in (True, False):
        ppo = PPO(normalise_advantages=normalise)
        plain, other = (losses(*rest, a, ppo).policy for a in (advantage, 5 * advantage + 2))
        assert torch.allclose(plain, other, atol=1e-6) == normalise


@pytest.mark.parametrize(("advantage", "moves"), [(1.0, False), (-1.0, True)])
def test_action_that_is_already_much_likelier_is_pushed_back_only_if_it_was_bad(advantage, moves):
    logits = torch.zeros(1, 1, ACTIONS).requires_grad_()
    old = torch.full((1, 1), np.log(1 / ACTIONS / 2))  # now twice as likely
    zero = torch.zeros(1, 1)
    ppo = PPO(normalise_advantages=False, entropy=0.0)
    losses(logits, zero, torch.zeros(1, 1, dtype=torch.int64), old, zero, zero + advantage, ppo).total.sum().backward()
    assert bool(logits.grad.any()) == moves


# ---------------------------------------------------------------------------------------- minibatches and actions


def test_minibatches_of_an_epoch_partition_the_batch_of_every_run():
    ppo = PPO(envs=6, steps=4, minibatches=3)
    generators = [torch.Generator().manual_seed(s) for s in (0, 1)]
    first, second = minibatches(ppo, generators, CPU), minibatches(ppo, generators, CPU)
    assert first.shape == (3, 2, 8)
    for found in (first, second):
        for run in range(2):
            assert sorted(found[:, run].flatten().tolist()) == list(range(24))
    assert not torch.equal(first, second)  # each epoch has its own order
    assert not torch.equal(first[:, 0], first[:, 1])


def test_sampled_actions_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -0.5])
    count = 60_000
    uniform = torch.rand(count, ACTIONS, generator=torch.Generator().manual_seed(0))
    actions, log_probs = sample(logits.expand(count, -1), uniform)
    expected = count * logits.softmax(-1)
    statistic = ((actions.bincount(minlength=ACTIONS) - expected).square() / expected).sum()
    assert float(statistic) < 20.5  # chi-square, 5 degrees of freedom: passed by chance once in a thousand
    assert torch.equal(log_probs, logits.log_softmax(-1)[actions])


def test_sample_is_a_function_of_its_uniforms_and_finite_at_their_ends():
    logits = torch.randn(50, ACTIONS, generator=torch.Generator().manual_seed(1))
    uniform = torch.rand(50, ACTIONS, generator=torch.Generator().manual_seed(2))
    before = torch.get_rng_state()
    first, second = sample(logits, uniform), sample(logits, uniform)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for end in (0.0, 1 - 2**-24):
        edge = torch.full((1, ACTIONS), end)
        actions, log_probs = sample(logits[:1], edge)
        assert actions.item() == logits[0].argmax().item()  # equal draws: the likeliest
        assert log_probs.isfinite().all()


# ---------------------------------------------------------------------------------------------------- small worlds


class World:
    """Stands for Envs: states as one-hot rows; `move(states, actions)` gives states, rewards and ends.

    Every episode starts in state 0 and is cut after `limit` steps.
    """

    shape = (1000,)
    columns = None

    def __init__(self, move, runs, envs, limit=10**9):
        self.move, self.limit = move, limit
        self.states = torch.zeros(runs, envs, dtype=torch.int64)
        self.age = torch.zeros_like(self.states)

    def seen(self, states):
        return torch.nn.functional.one_hot(states, self.shape[0]).bool()

    @property
    def obs(self):
        return self.seen(self.states)

    def step(self, actions):
        states, rewards, terminated = self.move(self.states, actions)
        self.age += 1
        truncated = (self.age >= self.limit) & ~terminated
        over = terminated | truncated
        self.states, self.age = states.masked_fill(over, 0), self.age.masked_fill(over, 0)
        return Step(self.obs, rewards.float(), terminated, truncated, self.seen(states))


def bandit(states, actions):
    return states, actions == 3, torch.ones_like(states, dtype=torch.bool)


def chain(states, actions):
    """Action 1 goes right, others back to the start; a reward of 1 behind state 3, where it ends."""
    onward = torch.where(actions == 1, states + 1, 0)
    return onward, onward == 4, onward == 4


def wage(states, actions):
    """One state; a reward of 1 at every step; it never ends by itself."""
    return states, torch.ones_like(states), torch.zeros_like(states, dtype=torch.bool)


def player_of(move, ppo, runs=None, limit=10**9, depth=1, width=8) -> Player:
    """A player in a world; runs are methods x seeds."""
    runs = runs or [Run(Method("adam", "Adam", lr=1e-2), seed) for seed in (0, 1)]
    methods = tuple({run.method.name: run.method for run in runs}.values())
    games = Games(names=("breakout",), steps_per_game=ppo.batch)
    net = PolicyNet(width=width, depth=depth)
    experiment = GameExperiment("small", "small", "smoke", games, net, ppo, methods, curve=1, probe=64)
    player = Player(experiment, runs, CPU)
    player.envs = World(move, len(runs), ppo.envs, limit)
    return player


def sums(player: Player) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(len(player.seeds)) for name in ("returns", "finished", "rewards")}


def learned(player: Player, updates: int) -> dict[str, torch.Tensor]:
    """The sums of the last update's episodes, after some updates."""
    for _ in range(updates):
        episodes = sums(player)
        player.learn(player.play(episodes), 0.0)
    return episodes


@torch.no_grad()
def policy(player: Player, states: int) -> torch.Tensor:
    """Probabilities (runs, states, actions)."""
    x = torch.eye(states, 1000).bool().expand(len(player.seeds), -1, -1)
    return player.agent.logits(x).softmax(-1)


@torch.no_grad()
def values(player: Player, states: int) -> torch.Tensor:
    """(runs, states)."""
    return player.agent.value(torch.eye(states, 1000).bool().expand(len(player.seeds), -1, -1))


SMALL = PPO(envs=16, steps=8, minibatches=2, epochs=4, gamma=0.9)


def test_bandit_is_solved_and_its_value_found():
    player = player_of(bandit, SMALL)
    episodes = learned(player, 40)
    assert (policy(player, 1)[:, 0, 3] > 0.9).all()
    assert (episodes["returns"] / episodes["finished"] > 0.9).all()
    assert (episodes["finished"] == SMALL.batch).all()
    expected = episodes["rewards"] / SMALL.batch
    torch.testing.assert_close(values(player, 1)[:, 0], expected, rtol=0, atol=0.1)


def test_chain_is_solved_and_the_values_fall_off_by_gamma():
    player = player_of(chain, replace(SMALL, entropy=1e-3), width=16)  # of 8 ReLUs too many may die for four values
    learned(player, 50)
    assert (policy(player, 4)[:, :, 1] > 0.9).all()
    expected = torch.tensor([0.9**3, 0.9**2, 0.9, 1.0]).expand(2, -1)
    torch.testing.assert_close(values(player, 4), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("time_limit", "expected"),
    [("bootstrap", 1 / (1 - 0.8)), ("terminate", float(np.mean([(1 - 0.8**k) / (1 - 0.8) for k in (1, 2, 3, 4)])))],
)
def test_value_of_a_steady_wage_is_that_of_the_time_limit_in_force(time_limit, expected):
    ppo = replace(SMALL, gamma=0.8, gae_lambda=1.0, time_limit=time_limit, clip_value=False, clip_gradient=10.0)
    player = player_of(wage, ppo, limit=4)  # a rollout is two whole episodes
    learned(player, 60)
    torch.testing.assert_close(values(player, 1)[:, 0], torch.full((2,), expected), rtol=0, atol=0.1)


def test_bootstrap_puts_the_last_observations_value_where_an_episode_was_cut_and_nowhere_else():
    def walk(states, actions):  # never ends before the limit of 5
        return states + 1, actions, (states == 2) & (actions == 0)

    ppo = replace(SMALL, steps=13)
    for time_limit in ("bootstrap", "terminate"):
        player = player_of(walk, replace(ppo, time_limit=time_limit), limit=5)
        rollout = player.play(sums(player))
        cut, ended = rollout.truncated, rollout.terminated
        assert cut.any()
        assert ended.any()
        assert not (cut & ended).any()
        of_end, of_start = values(player, 6)[:, 5], values(player, 1)[:, 0]
        fresh = torch.cat([rollout.values[1:], player.agent.value(player.envs.obs).detach()[None]])
        own = torch.where(cut, of_end[:, None], fresh) if time_limit == "bootstrap" else fresh
        torch.testing.assert_close(rollout.next_values, own, rtol=1e-5, atol=1e-6)
        assert ((of_end - of_start).abs() > 1e-3).all()


def test_rollout_holds_what_was_seen_done_and_paid_in_order():
    player = player_of(chain, SMALL)
    rollout = player.play(sums(player))
    seen = rollout.obs.int().argmax(-1)
    onward = torch.where(rollout.actions == 1, seen + 1, 0)
    assert torch.equal(rollout.terminated, onward == 4)
    assert torch.equal(rollout.rewards, rollout.terminated.float())
    assert torch.equal(seen[1:], onward.masked_fill(onward == 4, 0)[:-1])
    for t in range(SMALL.steps):
        logits, value = player.agent(rollout.obs[t])
        torch.testing.assert_close(rollout.values[t], value.detach(), rtol=1e-5, atol=1e-6)
        taken = logits.log_softmax(-1).gather(-1, rollout.actions[t][..., None])[..., 0]
        torch.testing.assert_close(rollout.log_probs[t], taken.detach(), rtol=1e-5, atol=1e-6)


def test_returns_are_summed_over_whole_episodes_that_may_span_rollouts():
    player = player_of(wage, replace(SMALL, steps=7), limit=10)
    first, second = sums(player), sums(player)
    player.play(first)
    player.play(second)
    assert first["finished"].tolist() == [0, 0]
    assert first["rewards"].tolist() == [7 * 16] * 2
    assert second["finished"].tolist() == [16, 16]
    assert second["returns"].tolist() == [10 * 16] * 2
    assert player.returns.unique().tolist() == [4]


# ------------------------------------------------------------------------------------------------------ the update


def reference_step(p, moments, count, lr, eps, batch, ppo):
    """One minibatch of one run in float64: losses as by the loop, gradients by hand, clip, Adam. p is changed."""
    x, actions, old_log_probs, old_values, advantage = batch
    n = len(actions)
    gains = (advantage - advantage.mean()) / (advantage.std() + 1e-8) if ppo.normalise_advantages else advantage
    hidden, out = {}, {}
    for part in ("actor", "critic"):
        hidden[part] = np.maximum(x @ p[f"{part}.1.weight"].T + p[f"{part}.1.bias"], 0)
        out[part] = hidden[part] @ p[f"{part}.3.weight"].T + p[f"{part}.3.bias"]
    logits, value = out["actor"], out["critic"][:, 0]
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probs = shifted / shifted.sum(1, keepdims=True)
    chosen = np.eye(ACTIONS)[actions]
    ratio = (probs * chosen).sum(1) / np.exp(old_log_probs)
    kept = np.clip(ratio, 1 - ppo.clip, 1 + ppo.clip)
    active = ratio * gains <= kept * gains
    d_logits = -(active * gains * ratio)[:, None] * (chosen - probs) / n
    entropy = -(probs * np.log(probs)).sum(1, keepdims=True)
    d_logits += ppo.entropy * probs * (np.log(probs) + entropy) / n
    target = old_values + advantage
    d_value = value - target
    if ppo.clip_value:
        near = old_values + np.clip(value - old_values, -ppo.clip, ppo.clip)
        inside = np.abs(value - old_values) < ppo.clip
        d_value = np.where((near - target) ** 2 > (value - target) ** 2, inside * (near - target), value - target)
    outer = {"actor": d_logits, "critic": ppo.value_weight * d_value[:, None] / n}
    grads = {}
    for part, d in outer.items():
        inner = d @ p[f"{part}.3.weight"] * (hidden[part] > 0)
        grads |= {f"{part}.3.weight": d.T @ hidden[part], f"{part}.3.bias": d.sum(0)}
        grads |= {f"{part}.1.weight": inner.T @ x, f"{part}.1.bias": inner.sum(0)}
    if ppo.clip_by == "norm":
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        grads = {k: g * min(1, ppo.clip_gradient / (norm + 1e-6)) for k, g in grads.items()}
    else:
        grads = {k: np.clip(g, -ppo.clip_gradient, ppo.clip_gradient) for k, g in grads.items()}
    for k, g in grads.items():
        m, v = moments.setdefault(k, [np.zeros_like(g), np.zeros_like(g)])
        m[:], v[:] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p[k] -= lr * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + eps)


@pytest.mark.parametrize(
    "change",
    [{}, {"clip_by": "value", "clip_gradient": 0.01}, {"clip_value": False, "normalise_advantages": False}],
    ids=["norm", "value", "nothing clipped or normalised"],
)
def test_update_equals_an_independent_one_in_float64(change):
    ppo = replace(PPO(envs=8, steps=8, minibatches=2, epochs=2, gamma=0.9, clip_gradient=0.1, eps=1e-3), **change)
    player = player_of(chain, ppo, limit=6)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the small head of the start, where every policy is the same
        for p in player.agent.params.values():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    rollout = player.play(sums(player))
    orders = [torch.Generator() for _ in player.seeds]
    for g, own in zip(orders, player.generators, strict=True):
        g.set_state(own.get_state())
    start = [{k: p[r].detach().double().numpy().copy() for k, p in player.agent.params.items()} for r in (0, 1)]
    found = player.learn(rollout, 0.0)
    gains = by_definition(rollout, ppo.gamma, ppo.gae_lambda)
    for r, params in enumerate(start):
        flat = [x[:, r].flatten(0, 1).double().numpy() for x in (rollout.obs, rollout.log_probs, rollout.values)]
        actions = rollout.actions[:, r].flatten().numpy()
        moments, count = {}, 0
        for _ in range(ppo.epochs):
            for positions in torch.randperm(ppo.batch, generator=orders[r]).view(2, -1).numpy():
                obs, log_probs, values_then = (x[positions] for x in flat)
                batch = (obs, actions[positions], log_probs, values_then, gains[:, r].flatten()[positions])
                count += 1
                reference_step(params, moments, count, 1e-2, ppo.eps, batch, ppo)
        for name, p in player.agent.params.items():
            np.testing.assert_allclose(p[r].detach(), params[name], rtol=ROUNDING, atol=ROUNDING, err_msg=name)
    assert (found.kl > 0).all()


def test_first_minibatch_meets_the_policy_that_played(monkeypatch):
    found, original = [], player_module.losses
    monkeypatch.setattr(player_module, "losses", lambda *a: (found.append(original(*a)), found[-1])[1])
    player = player_of(chain, replace(SMALL, clip=0.01))
    player.learn(player.play(sums(player)), 0.0)
    assert len(found) == SMALL.epochs * SMALL.minibatches
    first, last = found[0], found[-1]
    assert first.kl.abs().max() < 1e-6  # the ratio is 1 up to the rounding of another batch size
    assert first.clipped.tolist() == [0, 0]
    assert (last.kl > 1e-5).all()
    assert (last.clipped > 0).all()


def test_reported_losses_are_means_over_the_last_epoch(monkeypatch):
    found, original = [], player_module.losses
    monkeypatch.setattr(player_module, "losses", lambda *a: (found.append(original(*a)), found[-1])[1])
    player = player_of(chain, SMALL)
    reported = player.learn(player.play(sums(player)), 0.0)
    for name in ("policy", "value", "entropy", "kl", "clipped"):
        last = torch.stack([getattr(x, name) for x in found[-SMALL.minibatches :]]).mean(0)
        assert torch.equal(getattr(reported, name), last)


@pytest.mark.parametrize(("anneal", "factors"), [(True, [1.0, 0.5, 0.25]), (False, [1.0, 1.0, 1.0])])
def test_rate_follows_the_visit_only_if_it_is_annealed(anneal, factors):
    player = player_of(chain, replace(SMALL, anneal=anneal))
    for done, factor in zip((0.0, 0.5, 0.75), factors, strict=True):
        player.learn(player.play(sums(player)), done)
        assert [group["lr"] for group in player.agent.optimizer.param_groups] == [1e-2 * factor]


# ---------------------------------------------------------------------------------- stacked runs, alone and diverged

STRENGTHS = tuple(Method(f"s{s}", f"s{s}", "adamo", lr=1e-2, isometry_strength=s) for s in (0.0, 1.0, 5.0))


def test_stacked_runs_of_several_strengths_equal_each_alone():
    runs = [Run(m, seed) for m in STRENGTHS for seed in (0, 1)]
    together = player_of(chain, SMALL, runs, depth=2)
    learned(together, 3)
    for r, run in enumerate(runs):
        alone = player_of(chain, SMALL, [run], depth=2)
        learned(alone, 3)
        for name, p in alone.agent.params.items():
            torch.testing.assert_close(together.agent.params[name][r], p[0], rtol=1e-3, atol=1e-4)
    hidden = together.agent.params["actor.3.weight"]
    assert len({round(norm, 4) for norm in hidden.detach().flatten(1).norm(dim=1).tolist()}) == len(runs)


def test_pull_takes_hidden_matrices_of_actor_and_critic_and_leaves_heads_and_biases():
    player = player_of(chain, SMALL, [Run(STRENGTHS[1], 0), Run(STRENGTHS[2], 0)], depth=2)
    agent = player.agent
    expected = [f"{part}.{layer}.weight" for part in ("actor", "critic") for layer in (1, 3)]
    assert agent.regularised() == expected
    before = {name: p.detach().clone() for name, p in agent.params.items()}
    for p in agent.params.values():
        p.grad = torch.zeros_like(p)
    agent.optimizer.step()
    moved = [name for name, p in agent.params.items() if not torch.equal(p, before[name])]
    assert moved == expected
    for name in expected:  # sigma = sqrt 2 at the start; the pull is towards 1
        defect = [torch.linalg.svdvals(p[name]).sub(1).abs().amax(-1) for p in (agent.params, before)]
        assert (defect[0] < defect[1]).all()


def test_methods_of_a_seed_start_from_the_same_weights_and_play_the_same_first_rollout():
    kinds = [{}, {"bias": False}, {"activation": "maxmin"}, {"baseline": "fire"}, {"norm": "layernorm"}]
    players = [player_of(chain, SMALL, [Run(Method("m", "m", **kind), 7)], depth=2) for kind in kinds]
    first, *others = ([layer.weight for part in ("actor", "critic") for layer in p.agent.parts[part].linear_maps()]
                      for p in players)  # fmt: skip
    for weights in others:
        assert all(torch.equal(w, v) for w, v in zip(weights, first, strict=True))
    same = [players[0], players[1], players[3]]  # the same function at the start: biases are zero
    rollouts = [player.play(sums(player)) for player in same]
    assert all(torch.equal(r.actions, rollouts[0].actions) for r in rollouts)
    states = [player.generators[0].get_state() for player in same]
    assert all(torch.equal(state, states[0]) for state in states)


def test_run_that_diverges_becomes_nan_and_harms_no_other():
    runs = [Run(STRENGTHS[2], seed) for seed in (0, 1, 2)]
    player, calm = (player_of(chain, SMALL, runs, depth=2) for _ in range(2))
    with torch.no_grad():
        player.agent.params["actor.3.weight"][0] *= 1e3  # the pull throws it out
        player.agent.params["critic.1.bias"][2] = torch.nan  # the task has lost it
    learned(player, 3)
    learned(calm, 3)
    assert player.agent.finite().tolist() == [False, True, False]
    for name, p in player.agent.params.items():
        assert torch.equal(p[1], calm.agent.params[name][1])
        assert p[0].isnan().all()


def test_runs_of_other_seeds_draw_other_numbers_and_a_run_of_one_seed_its_own():
    together, alone = player_of(chain, SMALL), player_of(chain, SMALL, [Run(Method("adam", "Adam"), 1)])
    draws = together.draws(2, 3, ACTIONS)
    assert not torch.equal(draws[:, 0], draws[:, 1])
    assert torch.equal(draws[:, 1], alone.draws(2, 3, ACTIONS)[:, 0])
