"""The gauge experiment: ReLU nets that compute one function with other weights, and how fast descent trains them.

For a positive diagonal S, phi(S z) = S phi(z). So W_l -> S W_l, b_l -> S b_l, W_{l+1} -> W_{l+1} S^-1 leaves the
function as it is on every input, and changes singular values and kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...entk import empirical_ntk
from ...kernels import ntk_summary, plasticity
from . import prescribed

BUDGETS = (1, 10, 100)  # numbers of steps after which the loss is read
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)  # of Adam


@torch.no_grad()
def rescale_(model: nn.Sequential, deviation: float, seed: int = 0) -> nn.Sequential:
    """Rescale every hidden unit by exp(deviation * normal), in place: the same function, other weights.

    Args:
        model: linear layers with biases and ReLU between them.
        deviation: standard deviation of log S, at least 0; at 0 nothing changes.
        seed: of the normal draws.
    Returns:
        The same model.
    Raises:
        ValueError: an activation that does not commute with a positive scale of single units (names it).
    Source: Dinh et al. 2017 (arXiv 1703.04933) for the symmetry.
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    >>> x = torch.ones(1, 2).double()
    >>> f, _ = model(x), rescale_(model, 1.0)
    >>> torch.allclose(model(x), f)
    True
    """
    for module in model:
        if not isinstance(module, (nn.Linear, nn.Flatten, nn.ReLU, nn.LeakyReLU)):
            raise ValueError(f"{type(module).__name__} does not commute with a positive scale; expected ReLU")
    generator = torch.Generator().manual_seed(100 + seed)
    for below, above in pairwise(_linear(model)):
        normal = torch.randn(below.out_features, generator=generator, dtype=torch.float64)
        scale = (deviation * normal).exp().to(below.weight)
        below.weight.mul_(scale[:, None])
        below.bias.mul_(scale)
        above.weight.div_(scale)
    return model


def loss_removed(
    model: nn.Module, x: Tensor, residual: Tensor, steps: Sequence[int], optimizer: Any, **options: Any
) -> list[float]:
    """Fraction of the squared loss that full-batch training of a copy of the model removes, after each of `steps`.

    Args:
        model: left as it is.
        x: inputs, shape (n, ...).
        residual: f(x) - y at the start, shape (n, C): the targets are chosen to make it so.
        steps: numbers of steps to report, e.g. (1, 10, 100).
        optimizer: a class of torch.optim, made with `options`.
    Returns:
        One number for each of `steps`.
    >>> model = nn.Linear(1, 1, bias=False)
    >>> loss_removed(model, torch.ones(1, 1), torch.ones(1, 1), (1, 2), torch.optim.SGD, lr=0.5)
    [0.75, 0.9375]
    """
    twin, y = copy.deepcopy(model), model(x).detach() - residual
    method, losses = optimizer(twin.parameters(), **options), []
    for _ in range(max(steps) + 1):
        loss = (twin(x) - y).square().sum() / 2
        losses.append(loss.item())
        method.zero_grad()
        loss.backward()
        method.step()
    return [1 - losses[k] / losses[0] for k in steps]


def residuals(outputs: int, labels: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Where training starts: random signs, a tenth of them, or centred one-hot codes of the labels; (n, outputs)."""
    generator = torch.Generator().manual_seed(200 + seed)
    signs = torch.randn(len(labels), outputs, generator=generator, dtype=torch.float64).sign().to(labels.device)
    truth = nn.functional.one_hot(labels, outputs).double() - 1.0 / outputs
    return {"random signs": signs, "a tenth of them": signs / 10, "true labels": truth}


def observe(
    model: nn.Sequential, x: Tensor, targets: Mapping[str, Tensor]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """What a net is, how fast gradient descent and Adam train it, and what its kernel at the start predicts.

    Descent runs at 1/lambda_max from every residual, Adam at each of RATES from the first.

    Args:
        model: float64, left as it is.
        x: inputs, shape (n, ...).
        targets: name -> residual at the start, shape (n, C), e.g. from `residuals`.
    Returns:
        One row of the net (kappa_W2, kappa_theta, P_10, and what Adam removes in ten steps at each rate), and a row
        for each target and budget (target, steps, predicted, removed).
    """
    theta = empirical_ntk(model, x)
    spectrum, predicted = ntk_summary(theta), plasticity(theta, torch.tensor(BUDGETS)).tolist()
    net = {
        "kappa_W2": float(torch.linalg.cond(_linear(model)[1].weight.detach())),
        "kappa_theta": float(spectrum.condition_number),
        "P_10": predicted[BUDGETS.index(10)],
    }
    first, runs = next(iter(targets.values())), []
    for lr in RATES:
        (net[f"Adam {lr:g}"],) = loss_removed(model, x, first, (10,), torch.optim.Adam, lr=lr)
    for target, residual in targets.items():
        removed = loss_removed(model, x, residual, BUDGETS, torch.optim.SGD, lr=float(1 / spectrum.eigenvalues[-1]))
        rows = zip(BUDGETS, predicted, removed, strict=True)
        runs += [{"target": target, "steps": K, "predicted": p, "removed": r} for K, p, r in rows]
    return net, runs


def experiment(
    base: nn.Sequential, samples: int, deviations: Sequence[float], seed: int = 0
) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """`observe` for one net, rescaled more and more, on random MNIST images.

    Args:
        base: ReLU net from 784 inputs, float64, left as it is.
        samples: number of images.
        deviations: standard deviations of log S.
        seed: of images, random signs and scales.
    Returns:
        The rows of `observe`, with deviation, seed and, of the nets, change_of_f: by how much an output moved.
    """
    head = _linear(base)[-1]
    x, labels = (part.to(head.weight.device) for part in prescribed.images(samples, seed))
    targets = residuals(head.out_features, labels, seed)
    nets, runs = [], []
    for deviation in deviations:
        model = rescale_(copy.deepcopy(base), deviation, seed)
        net, of_net = observe(model, x, targets)
        moved = float((model(x) - base(x)).detach().abs().max())
        setting = {"deviation": deviation, "seed": seed}
        nets.append(setting | net | {"change_of_f": moved})
        runs += [setting | run for run in of_net]
    return nets, runs


def _linear(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]
