"""Training on changing random labels at several strengths at once, and the strength that a given defect needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ... import nets
from ...checks import require_range
from ...optim import AdamO
from ...theory.strength import Balance, adam_update, balance
from .. import data
from ..stack import Stack

STRENGTHS = (0.1, 0.25, 0.6, 1.5)
SIDE = 4  # pixels a side that are averaged: 28 x 28 images become 7 x 7


class Setting(NamedTuple):
    """What one stack of nets trains with; three hidden layers, batches of 32 of 640 samples."""

    lr: float
    width: int
    activation: str
    steps: int = 1200
    task_steps: int = 200  # new random labels after so many steps
    seed: int = 0


def pixels() -> Tensor:
    """Small MNIST images, averaged over squares and standardised: (images, 49), float32."""
    images = torch.from_numpy(data.load("mnist-small").x).float()
    small = nn.functional.avg_pool2d(images, SIDE).flatten(1)
    return (small - small.mean()) / small.std()


def _nets(setting: Setting, inputs: int, strengths: Tensor) -> tuple[Stack, AdamO, list[str]]:
    """A net for each strength from one initialisation, their optimizer, and the names of the square weights."""
    one = lambda: nets.mlp(inputs, 10, setting.width, 3, setting.activation, seed=setting.seed)  # noqa: E731
    stack = Stack([one() for _ in strengths], torch.device("cpu"))
    names = stack.regularised()
    pulled = {"params": [stack.params[k] for k in names], "isometry_strength": strengths}
    rest = {"params": [p for k, p in stack.params.items() if k not in names], "isometry_strength": 0.0}
    return stack, AdamO([pulled, rest], lr=setting.lr, batch_dims=1, fused=True), names[1:]


def train(setting: Setting, inputs: Tensor, strengths: tuple[float, ...] = STRENGTHS) -> pd.DataFrame:
    """Train one net a strength on random labels; averages of `dyniso.theory.strength.balance` over the second half.

    Args:
        setting: as above.
        inputs: all samples, shape (images, features), e.g. `pixels()`; 640 are drawn.
        strengths: isometry strengths, one net each.
    Returns:
        One row a strength: activation, lr, width, strength, and the fields of `Balance`, means of the square layers.
    Raises:
        ValueError: fewer than 20 steps.
    """
    require_range("steps", setting.steps, 20)
    lambdas = torch.tensor(strengths)
    stack, optimizer, square = _nets(setting, inputs.shape[1], lambdas)
    g, seen = torch.Generator().manual_seed(setting.seed), []
    x = inputs[torch.randperm(len(inputs), generator=g)[:640]]
    for k in range(setting.steps):
        if k % setting.task_steps == 0:
            labels = torch.randint(10, (len(x),), generator=g)
        rows = torch.randint(len(x), (32,), generator=g)
        optimizer.zero_grad()
        _loss(stack(x[rows].expand(len(lambdas), -1, -1)), labels[rows]).backward()
        watched = square if k >= setting.steps // 2 and k % 10 == 0 else []
        before = {name: stack.params[name].detach().clone() for name in watched}
        optimizer.step()
        if watched:
            seen.append(_mean_balance(stack, optimizer, before, setting.lr, lambdas))
    means = torch.stack(seen).mean(0).T
    table = pd.DataFrame(means.numpy(), columns=list(Balance._fields)).assign(strength=strengths)
    return table.assign(activation=setting.activation, lr=setting.lr, width=setting.width)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over runs of each run's mean cross-entropy; logits (runs, batch, classes), labels (batch,) for all runs."""
    runs = len(logits)
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(runs)) * runs


def _mean_balance(stack: Stack, optimizer: AdamO, before: dict[str, Tensor], lr: float, strengths: Tensor) -> Tensor:
    """The balance of each run, mean over layers: (fields, runs)."""
    found = []
    for name, W in before.items():
        state = optimizer.state[stack.params[name]]
        u = adam_update(state["exp_avg"], state["exp_avg_sq"], state["step"])
        found.append(torch.stack(balance(W, u, lr, strengths)))
    return torch.stack(found).mean(0)


class Needed(NamedTuple):
    """What a tolerated defect needs, read off between measured strengths."""

    strength: float
    r2: float  # mean square of the update there
    inside: bool  # whether the tolerated defect lies between measured ones


def needed_strength(runs: pd.DataFrame, defect: float = 0.05) -> Needed:
    """The strength at which the defect is as tolerated: linear in logarithms between the strengths of one setting.

    Args:
        runs: rows of `train` of one setting.
        defect: tolerated mean (sigma^2 - 1)^2.

    >>> runs = pd.DataFrame({"defect": [0.2, 0.0125], "strength": [0.1, 1.6], "r2": [1.0, 1.0]})
    >>> round(needed_strength(runs).strength, 3), needed_strength(runs).inside
    (0.4, True)
    """
    runs = runs.sort_values("defect")
    measured = runs["defect"].to_numpy(dtype=float)
    logs = np.log(runs[["defect", "strength", "r2"]].to_numpy(dtype=float)).T
    strength, r2 = (float(np.exp(np.interp(np.log(defect), logs[0], values))) for values in logs[1:])
    return Needed(strength, r2, bool(measured[0] < defect < measured[-1]))


class PowerLaw(NamedTuple):
    """strength ~ lr^lr_power * width^width_power, by least squares on logarithms, with standard errors."""

    lr_power: float
    width_power: float
    lr_error: float
    width_error: float


def power_law(lr: pd.Series, width: pd.Series, strength: pd.Series) -> PowerLaw:
    """Exponents of learning rate and width.

    >>> lr, n = pd.Series([1e-3, 1e-2, 1e-3, 1e-2]), pd.Series([16.0, 16.0, 64.0, 64.0])
    >>> fit = power_law(lr, n, lr * n**0.5)
    >>> round(fit.lr_power, 6), round(fit.width_power, 6)
    (1.0, 0.5)
    """
    A = np.column_stack([np.ones(len(lr)), np.log(lr), np.log(width)])
    y = np.log(strength.to_numpy(dtype=float))
    b, *_ = np.linalg.lstsq(A, y, rcond=None)
    variance = ((y - A @ b) ** 2).sum() / (len(y) - 3)
    errors = np.sqrt(np.diag(np.linalg.inv(A.T @ A)) * variance)
    return PowerLaw(float(b[1]), float(b[2]), float(errors[1]), float(errors[2]))
