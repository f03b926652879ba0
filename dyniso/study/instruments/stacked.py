"""What is recorded of a stack: task performance, weights, activations. One value a run, no host synchronisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from ...dormancy import dead_units, dormant_fraction, reactivated
from ...isometry import effective_rank, spectrum, summarise_spectrum
from ..stack import Stack
from ..tasks import TaskData

Measures = dict[tuple[str, str], Tensor]  # (layer, metric) -> (runs,)
TAU = (0.025, 0.1)  # dormancy thresholds of Sokar et al. 2023
WINDOW = 20  # minibatches over which accuracy is averaged before it is compared with a threshold


def loss_and_hits(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and correctness of every sample, each (runs, batch): cross-entropy in nats, or squared error for real y.

    Args:
        outputs: (runs, batch, outputs). y: (runs, batch), whole numbers for classes, floating point for regression.
    Returns:
        The loss, and 1 or 0 for a right or wrong class (NaN for regression).
    """
    if y.is_floating_point():
        of_one = outputs.mT[..., 0, :]  # not outputs[..., 0]: its gradient would be rounded with the runs beside it
        return (of_one - y).square(), torch.full_like(y, torch.nan)
    loss = nn.functional.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
    return loss, (outputs.detach().argmax(-1) == y).float()


@torch.no_grad()
def evaluate(stack: Stack, task: TaskData, chunk: int = 1000) -> tuple[Tensor, Tensor]:
    """Accuracy and mean loss of every run on its whole task, shape (runs,)."""
    runs, samples = task.rows.shape
    totals = torch.zeros(2, runs, device=task.rows.device)
    for start in range(0, samples, chunk):
        positions = torch.arange(start, min(start + chunk, samples), device=task.rows.device).expand(runs, -1)
        x, y = task.take(positions)
        loss, hits = loss_and_hits(stack(x), y)
        totals += torch.stack([hits.sum(1), loss.sum(1)])
    accuracy, mean_loss = totals / samples
    return accuracy, mean_loss


def over_steps(values: Tensor) -> Tensor:
    """Mean over the first axis of (steps, runs), summed for each run in the same order whatever runs are beside it.

    >>> over_steps(torch.tensor([[1.0, 4.0], [2.0, 8.0]]))
    tensor([1.5000, 6.0000])
    """
    return values.T.contiguous().mean(1)


def steps_to(threshold: float, hits: Tensor) -> Tensor:
    """First step at which the accuracy of the last `WINDOW` minibatches reaches a threshold; all steps if none does.

    Args:
        hits: accuracy of every minibatch, (steps, runs).
    Returns:
        Steps, shape (runs,).

    >>> steps_to(0.5, torch.cat([torch.zeros(30, 1), torch.ones(30, 1)]))
    tensor([40.])
    """
    window = min(WINDOW, len(hits))
    total = torch.cat([torch.zeros_like(hits[:1]), hits]).double().cumsum(0)
    reached = (total[window:] - total[:-window]) / window >= threshold - 1e-6
    first = torch.where(reached, 0.0, 1.0).cumprod(0).sum(0)  # how many windows fall short before one does not
    return (first + window).clamp_max(len(hits))


@torch.no_grad()
def weight_measures(stack: Stack) -> Measures:
    """Singular-value summaries of every weight matrix, the head included; of zeros for a run that is not finite."""
    found: Measures = {}
    for name, W in stack.weights().items():
        finite = torch.isfinite(W).flatten(1).all(1)
        sigma = spectrum(torch.where(finite[:, None, None], W, 0.0))
        for metric, value in summarise_spectrum(sigma)._asdict().items():
            found[name, f"sigma_{metric}" if metric in ("min", "max", "mean") else metric] = value
    found["", "weight_norm"] = run_norm(list(stack.params.values()))
    return found


def run_norm(params: list[Tensor]) -> Tensor:
    """Euclidean norm of all parameters of each run, shape (runs,)."""
    return torch.stack([p.detach().flatten(1).norm(dim=1) for p in params], 1).norm(dim=1)


@torch.no_grad()
def activation_measures(stack: Stack, x: Tensor, dead_before: list[Tensor] | None) -> tuple[Measures, list[Tensor]]:
    """Dormant fractions and rank of every hidden layer on inputs (runs, samples, features); dead and reactivated ReLUs.

    Only a ReLU that never fires gets no gradient, so only there does "dead" mean that the task cannot wake it.
    """
    found: Measures = {}
    dead_now: list[Tensor] = []
    seen: list[Tensor] = []
    stack(x, seen)
    is_relu = any(isinstance(layer, nn.ReLU) for layer in stack.template)
    for layer, h in enumerate(seen):
        name = f"hidden{layer + 1}"
        for tau in TAU:
            found[name, f"dormant_{tau}"] = dormant_fraction(h, tau)
        finite = torch.isfinite(h).flatten(1).all(1)
        found[name, "activation_rank"] = effective_rank(spectrum(torch.where(finite[:, None, None], h, 0.0)))
        if is_relu:
            dead_now.append(dead_units(h))
            found[name, "dead"] = dead_now[-1].float().mean(-1)
            if dead_before is not None:
                found[name, "reactivated"] = reactivated(dead_before[layer], dead_now[-1]).float().mean(-1)
    return found, dead_now


def each_run(stack: Stack, instrument: Callable[..., dict[tuple[str, str], float]], *arguments: Tensor) -> Measures:
    """An instrument for single nets on every run that is finite; NaN for the others."""
    finite = stack.finite().tolist()
    rows = [instrument(stack.single(r), *(a[r] for a in arguments)) if ok else {} for r, ok in enumerate(finite)]
    keys = dict.fromkeys(key for row in rows for key in row)
    device = next(iter(stack.params.values())).device
    return {key: torch.tensor([row.get(key, math.nan) for row in rows], device=device) for key in keys}


def frames(recorded: list[tuple[int, Measures]], runs: int) -> list[pd.DataFrame]:
    """Measures as one long frame a run; one transfer from the device."""
    keys = [(task, layer, metric) for task, found in recorded for layer, metric in found]
    values = torch.stack([v for _, found in recorded for v in found.values()]).T.tolist()
    base = pd.DataFrame(keys, columns=["task", "layer", "metric"])
    return [base.assign(value=values[r]) for r in range(runs)]
