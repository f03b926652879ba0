"""Stacked runs against the same runs in a Python loop: 784-100x4-10, batch 16; 8 runs on a CPU, 8 and 80 on a GPU.

The loop is what a user writes: one module and one fused Adam a run, stepped one after another on resident data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench import interleaved, ratio
from torch import nn

from dyniso.nets import mlp
from dyniso.specs import Method
from dyniso.stack import Run, Stack

BATCH, INPUTS, WIDTH, DEPTH = 16, 784, 100, 4


def looped(device: torch.device, runs: int, steps: int) -> Callable[[], None]:
    """`steps` steps of each run, one run after the other in each step."""
    nets = [mlp(INPUTS, 10, WIDTH, DEPTH, seed=r).to(device) for r in range(runs)]
    optimizers = [torch.optim.Adam(net.parameters(), fused=True) for net in nets]
    x = torch.randn(runs, BATCH, INPUTS, device=device)
    y = torch.randint(10, (runs, BATCH), device=device)

    def train() -> None:
        for _ in range(steps):
            for r in range(runs):
                optimizers[r].zero_grad()
                nn.functional.cross_entropy(nets[r](x[r]), y[r]).backward()
                optimizers[r].step()

    return train


def stacked(device: torch.device, runs: int, steps: int) -> Callable[[], None]:
    """The same steps with all runs on a leading axis."""
    stack = Stack([mlp(INPUTS, 10, WIDTH, DEPTH, seed=r) for r in range(runs)], device)
    optimizer = stack.optimizer([Run(Method("adam", "Adam"), r) for r in range(runs)])
    x = torch.randn(runs, BATCH, INPUTS, device=device)
    y = torch.randint(10, (runs, BATCH), device=device)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            losses = nn.functional.cross_entropy(stack(x).flatten(0, 1), y.flatten(), reduction="none")
            losses.view(runs, BATCH).mean(1).sum().backward()
            optimizer.step()

    return train


def rows(device: torch.device) -> list[dict[str, object]]:
    """One row for each number of runs; the ratio is loop / stacked, so more is better."""
    made: list[dict[str, object]] = []
    for runs, aim in ((8, 2.0),) if device.type == "cpu" else ((8, None), (80, 20.0)):
        steps = 40 if runs == 8 else 10
        times = interleaved({"loop": looped(device, runs, steps), "stacked": stacked(device, runs, steps)}, device)
        made.append({"what": f"{runs} runs, loop / stacked", **ratio(times, "loop", "stacked"), "aim_at_least": aim})
    return made
