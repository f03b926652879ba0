"""A whole training step with AdamO over one with fused `torch.optim.Adam`: the paper's MLP, batch 128.

Also how far the lazy flow (every = 10, 50) is from the exact one in its singular values after 1,000 steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench import interleaved, ratio
from torch import nn

from dyniso.isometry import singular_values
from dyniso.nets import mlp
from dyniso.optim import AdamO, isometry_groups

BATCH, INPUTS, STRENGTH, LR = 128, 3072, 1e-2, 1e-3


def training(device: torch.device, every: int | None, steps: int) -> Callable[[], None]:
    """`steps` training steps of one net; every=None is plain Adam."""
    net = mlp(INPUTS, 10, 512, 4, seed=0).to(device)
    x = torch.randn(BATCH, INPUTS, device=device)
    y = torch.randint(10, (BATCH,), device=device)
    if every is None:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    else:
        groups = isometry_groups(net, isometry_strength=STRENGTH)
        optimizer = AdamO(groups, lr=LR, isometry_every=every, fused=True)

    def steps_of_training() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    return steps_of_training


def lazy_gap(device: torch.device, every: int) -> dict[str, object]:
    """Largest difference of singular values between the lazy and the exact flow, and how far the flow moved them."""
    start = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).to(device) / 512**0.5
    finals = []
    for k in (1, every):
        p = nn.Parameter(start.clone())
        optimizer = AdamO([p], lr=LR, isometry_strength=0.1, isometry_every=k)
        p.grad = torch.zeros_like(p)
        for _ in range(1000):
            optimizer.step()
        finals.append(singular_values(p.detach()))
    gap, moved = (finals[0] - finals[1]).abs().max(), (finals[0] - singular_values(start)).abs().max()
    return {
        "what": f"lazy flow, every={every}: largest difference of a singular value",
        "value": float(gap),
        "moved": float(moved),
    }


def rows(device: torch.device) -> list[dict[str, object]]:
    """One row for each interval."""
    steps = 50  # a multiple of every interval
    arms: dict[str, int | None] = {"adam": None, "every=1": 1, "every=10": 10, "every=50": 50}
    times = interleaved({name: training(device, every, steps) for name, every in arms.items()}, device)
    aims = {"every=1": None, "every=10": 1.3, "every=50": 1.1}
    made: list[dict[str, object]] = [
        {"what": f"training step, AdamO {name} / fused Adam", **ratio(times, name, "adam"), "aim_at_most": aim}
        for name, aim in aims.items()
    ]
    return made + [lazy_gap(device, every) for every in (10, 50)]
