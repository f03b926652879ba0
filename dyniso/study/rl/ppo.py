"""Proximal policy optimisation for stacked runs: advantages, losses, one update. Works on any leading axes.

Source: Schulman et al. 2017 (arXiv 1707.06347); advantages Schulman et al. 2016 (arXiv 1506.02438); time limits as in
Pardo et al. 2018 (arXiv 1712.00378).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..specs.reinforcement import PPO


class Rollout(NamedTuple):
    """What a group of runs has seen and done since the last update; time is the first axis."""

    obs: Tensor  # (steps, runs, envs, *shape), bool
    actions: Tensor  # (steps, runs, envs), int64
    log_probs: Tensor  # (steps, runs, envs), of the actions when they were taken
    values: Tensor  # (steps, runs, envs), of the critic then
    rewards: Tensor  # (steps, runs, envs)
    terminated: Tensor  # (steps, runs, envs), bool: the episode ended by itself
    truncated: Tensor  # (steps, runs, envs), bool: it was cut at its time limit
    next_values: Tensor  # (steps, runs, envs): the critic's value of the observation after the step, before any reset


def advantages(rollout: Rollout, gamma: float, gae_lambda: float, time_limit: str = "bootstrap") -> Tensor:
    """Generalised advantage estimates.

        delta_t = r_t + gamma V(s_{t+1}) (1 - terminated_t) - V(s_t)
        A_t     = delta_t + gamma lambda (1 - ended_t) A_{t+1}

    s_{t+1} is the observation before any reset, so an episode cut at its time limit is worth what the critic says of
    where it was cut; with time_limit "terminate" it is worth nothing there, as if it had ended by itself.

    Returns:
        Shape (steps, ...), of the rewards' unit.
    Source: arXiv 1506.02438, eq. 16; the two ends kept apart as in arXiv 1712.00378, section 3.
    """
    over = rollout.terminated | rollout.truncated
    worthless = rollout.terminated if time_limit == "bootstrap" else over
    delta = rollout.rewards + gamma * rollout.next_values.masked_fill(worthless, 0) - rollout.values
    keep = (gamma * gae_lambda) * (~over)
    found = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        following = delta[t] + keep[t] * following
        found[t] = following
    return found


class Losses(NamedTuple):
    """Of one minibatch, one value a run, (runs,)."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor  # estimate of KL(old, new), mean of ratio - 1 - log ratio
    clipped: Tensor  # share of ratios outside 1 +- clip


def losses(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    old_values: Tensor,
    advantage: Tensor,
    ppo: PPO,
) -> Losses:
    """The clipped objective of a minibatch.

    Args:
        logits: (runs, batch, actions); the other tensors are (runs, batch). advantage: as estimated, not normalised.
    Source: arXiv 1707.06347, eqs. 7 and 9; value clipping and normalisation as in the implementation of that paper.
    """
    log_probs = nn.functional.log_softmax(logits, dim=-1)
    taken = log_probs.gather(-1, actions[..., None])[..., 0]
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean(-1)
    log_ratio = taken - old_log_probs
    ratio = log_ratio.exp()
    returns = advantage + old_values
    if ppo.normalise_advantages:
        spread = advantage.std(-1, unbiased=False, keepdim=True)
        advantage = (advantage - advantage.mean(-1, keepdim=True)) / (spread + 1e-8)
    kept = ratio.clamp(1 - ppo.clip, 1 + ppo.clip)
    policy = -torch.minimum(ratio * advantage, kept * advantage).mean(-1)
    error = (values - returns).square()
    if ppo.clip_value:
        near = old_values + (values - old_values).clamp(-ppo.clip, ppo.clip)
        error = torch.maximum(error, (near - returns).square())
    value = error.mean(-1) / 2
    total = policy + ppo.value_weight * value - ppo.entropy * entropy
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).mean(-1)
        clipped = ((ratio - 1).abs() > ppo.clip).float().mean(-1)
    return Losses(total, policy.detach(), value.detach(), entropy.detach(), kl, clipped)


def minibatches(ppo: PPO, generators: list[torch.Generator], device: torch.device) -> Tensor:
    """Positions of each minibatch of one epoch, (minibatches, runs, size): a partition of the batch for every run."""
    orders = torch.stack([torch.randperm(ppo.batch, generator=g, device=device) for g in generators])
    return orders.unflatten(1, (ppo.minibatches, -1)).transpose(0, 1)


def sample(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Actions drawn from a softmax, and their log-probabilities, by the Gumbel maximum.

    Args:
        logits: (..., actions). uniform: draws from [0, 1) of the same shape; the result is a function of both.

    >>> sample(torch.tensor([[0.0, 50.0]]), torch.tensor([[0.5, 0.5]]))[0]
    tensor([1])
    """
    log_probs = nn.functional.log_softmax(logits, dim=-1)
    gumbel = -(-(uniform.clamp(1e-10, 1 - 1e-7)).log()).log()
    actions = (log_probs + gumbel).argmax(-1)
    return actions, log_probs.gather(-1, actions[..., None])[..., 0]
