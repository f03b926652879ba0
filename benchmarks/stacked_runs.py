"""Stacked runs against the same runs in a Python loop, and against the time that memory alone would need.

The loop is what a user writes: one module and one fused Adam a run, stepped one after another on resident data. On a
CPU 8 runs of 784-100x4-10 at batch 16; on a GPU 8 and 80 runs of the paper's MLP, 3072-512x4-10, at batch 128.
Convolutions: the way that a stack takes on this device against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from bench import interleaved, ratio
from torch import nn

from dyniso.nets import mlp
from dyniso.study.optimizers import make_optimizer
from dyniso.study.specs import Method
from dyniso.study.stack import Run, Stack, convolve

PASSES = 10  # over the parameters in one step, at least: weights forward, weights backward, gradient written; Adam
# reads weights, gradient and two moments and writes weights and moments
COPIED = 2**26  # float32 entries of the copy that measures the bandwidth: 256 MiB, beyond any cache


class Size(NamedTuple):
    """One net and batch."""

    inputs: int
    width: int
    batch: int

    def net(self, seed: int) -> nn.Sequential:
        return mlp(self.inputs, 10, self.width, 4, init="default", seed=seed)  # orthogonal ones take long to draw

    def data(self, runs: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        shape = runs, self.batch
        return torch.randn(*shape, self.inputs, device=device), torch.randint(10, shape, device=device)


SMALL, PAPER = Size(784, 100, 16), Size(3072, 512, 128)


def looped(size: Size, device: torch.device, runs: int, steps: int) -> Callable[[], None]:
    """`steps` steps of each run, one run after the other in each step."""
    nets = [size.net(r).to(device) for r in range(runs)]
    optimizers = [torch.optim.Adam(net.parameters(), fused=True) for net in nets]
    x, y = size.data(runs, device)

    def train() -> None:
        for _ in range(steps):
            for r in range(runs):
                optimizers[r].zero_grad()
                nn.functional.cross_entropy(nets[r](x[r]), y[r]).backward()
                optimizers[r].step()

    return train


def stacked(size: Size, device: torch.device, runs: int, steps: int) -> Callable[[], None]:
    """The same steps with all runs on a leading axis."""
    stack = Stack([size.net(r) for r in range(runs)], device)
    optimizer = make_optimizer([Run(Method("adam", "Adam"), r) for r in range(runs)], stack.params, stack.regularised)
    x, y = size.data(runs, device)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            losses = nn.functional.cross_entropy(stack(x).flatten(0, 1), y.flatten(), reduction="none")
            losses.view(runs, size.batch).mean(1).sum().backward()
            optimizer.step()

    return train


def adam_steps(device: torch.device, alone: bool) -> Callable[[], None]:
    """50 steps of Adam on 6 runs of 784-64x4-10, each run's entries rounded as if it were alone, or not."""
    runs = [Run(Method("adam", "Adam"), r) for r in range(6)]
    stack = Stack([mlp(784, 10, 64, 4, init="default", seed=r) for r in range(6)], device)
    plain = torch.optim.Adam(list(stack.params.values()), lr=1e-3, fused=True)
    optimizer = make_optimizer(runs, stack.params, stack.regularised) if alone else plain
    for p in stack.params.values():
        p.grad = torch.randn_like(p)

    def steps() -> None:
        for _ in range(50):
            optimizer.step()

    return steps


def copied(device: torch.device) -> Callable[[], None]:
    """One copy of a large tensor: it reads and writes every entry."""
    source, target = torch.zeros(2, COPIED, device=device)
    return lambda: target.copy_(source)


def convolved(device: torch.device, in_groups: bool) -> Callable[[], None]:
    """Forward and backward through one convolution of 8 runs, 64 to 8 channels, on 256 images each, as in Octax."""
    layer = nn.Conv2d(64, 8, (8, 4), (4, 2), (2, 1))
    W, b = (torch.randn(8, *p.shape, device=device, requires_grad=True) for p in (layer.weight, layer.bias))
    x = torch.rand(8, 256, 4, 32, 64, device=device).movedim(-1, -3)  # pixels of a row as channels, last in memory

    def train() -> None:
        W.grad = b.grad = None
        convolve(layer, x, W, b, in_groups).square().sum().backward()

    return train


def rows(device: torch.device) -> list[dict[str, object]]:
    """Two rows for each number of runs: loop / stacked (more is better), stacked / memory floor (1 is the floor)."""
    made: list[dict[str, object]] = []
    on_cpu = device.type == "cpu"
    for runs, aim in ((8, 2.0),) if on_cpu else ((8, None), (80, 20.0)):
        size, steps = SMALL if on_cpu else PAPER, 40 if runs == 8 else 10
        calls = {"loop": looped, "stacked": stacked}
        timed = {name: make(size, device, runs, steps) for name, make in calls.items()} | {"copy": copied(device)}
        times = interleaved(timed, device)
        what = f"{runs} runs of {size.inputs}-{size.width}x4-10, batch {size.batch}"
        made.append({"what": f"{what}, loop / stacked", **ratio(times, "loop", "stacked"), "aim_at_least": aim})
        parameters = runs * sum(p.numel() for p in size.net(0).parameters())
        copies = steps * PASSES * parameters / (2 * COPIED)  # a copy touches each entry twice
        floor = times | {"floor": [copies * t for t in times["copy"]]}
        limit = None if on_cpu else 2.0
        made.append(
            {"what": f"{what}, stacked / memory floor", **ratio(floor, "stacked", "floor"), "aim_at_most": limit}
        )
    price = interleaved({"alone": adam_steps(device, True), "together": adam_steps(device, False)}, device)
    made.append(
        {"what": "Adam's step for 6 runs of 784-64x4-10, each rounded alone / not", **ratio(price, "alone", "together")}
    )
    ways = {name: convolved(device, name == "in groups") for name in ("in groups", "one by one")}
    better = ("in groups", "one by one") if on_cpu else ("one by one", "in groups")  # as `Stack` does it comes last
    what = f"convolution of 8 runs, {better[0]} / {better[1]}"
    return [*made, {"what": what, **ratio(interleaved(ways, device), *better)}]
