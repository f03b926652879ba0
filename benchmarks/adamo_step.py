"""A whole training step with AdamO over one with fused `torch.optim.Adam`; Muon and the penalty in the loss beside it.

Three nets: the paper's MLP (3072-512x4-10, batch 128), a small one (784-100x4-10, batch 16), and a transformer of six
layers (width 256, 2,048 tokens; on fresh minibatches all). Also the memory that a step holds beside the weights, the
error of a pull against float64, and how far the lazy flow (every = 10, 50) is from the exact one after 1,000 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from bench import interleaved, ratio
from torch import Tensor, nn

from dyniso.isometry import gram_deviation, gram_deviation_grad, singular_values
from dyniso.nets import mlp
from dyniso.optim import AdamO, isometry_groups, isometry_step
from dyniso.polar import polar_factor

STRENGTH, LR, BATCHES = 1e-2, 1e-3, 8
GPU_AIMS = {("MLP 3072-512x4, batch 128", "every=10"): 1.1}


class Size(NamedTuple):
    """One net with its minibatches, and how many steps a round takes."""

    name: str
    net: Callable[[], nn.Module]
    batch: tuple[int, ...]  # shape of one minibatch of inputs
    steps: int
    aims: dict[str, float]

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Fresh minibatches for ever: on one alone Adam slows down by denormal moments."""
        x = torch.randn(BATCHES, *self.batch, device=device)
        y = torch.randint(10, (BATCHES, self.batch[0]), device=device)
        while True:
            yield from zip(x, y, strict=True)


class Transformer(nn.Module):
    """Six layers of width 256 on 32 sequences of 64 tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


SIZES = (
    Size("MLP 3072-512x4, batch 128", lambda: mlp(3072, 10, 512, 4, init="default"), (128, 3072), 50,
         {"every=10": 1.22, "every=50": 1.06}),
    Size("MLP 784-100x4, batch 16", lambda: mlp(784, 10, 100, 4, init="default"), (16, 784), 100,
         {"every=1": 1.9, "every=10": 1.2}),
    Size("transformer 6 x 256, 2,048 tokens", Transformer, (32, 64, 256), 2, {"every=1": 1.06}),
)  # fmt: skip


def training(size: Size, device: torch.device, arm: str) -> Callable[[], None]:
    """A round of training steps of one arm."""
    torch.manual_seed(0)
    net = size.net().to(device)
    groups = isometry_groups(net, head="head" if isinstance(net, Transformer) else "exclude")
    pulled = [p for group in groups[:-1] for p in group["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if arm.startswith("every="):
        every = int(arm.removeprefix("every="))
        optimizers = [
            AdamO([{"isometry_strength": STRENGTH} | g for g in groups], LR, isometry_every=every, fused=True)
        ]
    elif arm == "Muon":
        rest = {id(p) for p in pulled}
        others = [p for p in net.parameters() if id(p) not in rest]
        optimizers = [torch.optim.Muon(pulled, lr=LR), torch.optim.Adam(others, lr=LR, fused=True)]
    else:
        optimizers = [torch.optim.Adam(net.parameters(), lr=LR, fused=True)]
    batches = size.batches(device)

    def steps_of_training() -> None:
        for _ in range(size.steps):
            x, y = next(batches)
            net.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            if arm == "penalty in the loss":
                loss = loss + STRENGTH * sum(gram_deviation(p) for p in pulled)
            loss.backward()
            for optimizer in optimizers:
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


def error_near_isometry(device: torch.device) -> dict[str, object]:
    """Relative error of a float32 pull against float64, 1 % away from an isometry."""
    g = torch.Generator().manual_seed(0)
    near = polar_factor(torch.randn(512, 512, generator=g, dtype=torch.float64))
    W = (near + 0.01 * torch.randn(512, 512, generator=g, dtype=torch.float64) / 512**0.5).float()
    exact = gram_deviation_grad(W.double())
    found = isometry_step([W.to(device)], 1.0)[0].cpu().double()
    error = torch.linalg.matrix_norm(found - exact) / torch.linalg.matrix_norm(exact)
    return {"what": "relative error of a pull near an isometry, float32 against float64", "value": float(error)}


def memory(device: torch.device, kind: str) -> dict[str, object]:
    """Most bytes that a step holds beside what there was, over those of 24 weights of 1024 x 1024."""
    weights = [nn.Parameter(torch.randn(1024, 1024, device=device) / 32) for _ in range(24)]
    optimizer = (
        AdamO(weights, isometry_strength=STRENGTH, fused=True)
        if kind == "AdamO"
        else torch.optim.Adam(weights, fused=True)
    )
    for p in weights:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    extra = peak_beyond(optimizer.step, device)
    return {"what": f"extra memory of a step with {kind} / weights, 24 of 1024 x 1024", "ratio": extra / (24 * 2**22),
            "aim_at_most": 1.4 if kind == "AdamO" else None}  # fmt: skip


def peak_beyond(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes that a call holds at one time beyond those before it, by torch's own record."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    now = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now)
    return most


def rows(device: torch.device) -> list[dict[str, object]]:
    """One row for each net and arm, then memory, accuracy and laziness."""
    made: list[dict[str, object]] = []
    arms = ["Adam", "every=1", "every=10", "every=50", "Muon", "penalty in the loss"]
    for size in SIZES:
        times = interleaved({arm: training(size, device, arm) for arm in arms}, device)
        for arm in arms[1:]:
            name = f"AdamO {arm}" if arm.startswith("every") else arm
            aim = size.aims.get(arm) if device.type == "cpu" else GPU_AIMS.get((size.name, arm))
            made.append(
                {"what": f"{size.name}: step with {name} / fused Adam", **ratio(times, arm, "Adam"), "aim_at_most": aim}
            )
    made += [memory(device, kind) for kind in ("AdamO", "fused Adam")]
    return [*made, error_near_isometry(device), *(lazy_gap(device, every) for every in (10, 50))]
