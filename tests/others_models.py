"""Nets as people write them, each with a batch of inputs, and methods with settings under which they act at once."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dyniso import baselines


class Plain(NamedTuple):
    """A net and its inputs."""

    net: nn.Module
    x: torch.Tensor


class Functional(nn.Module):
    """F.relu in the forward pass, and layers registered from the head to the first."""

    def __init__(self):
        super().__init__()
        self.head, self.second, self.first = nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(6, 8)

    def forward(self, x):
        return self.head(F.relu(self.second(torch.relu(self.first(x)))))


class Residual(nn.Module):
    """One block whose inner units belong to one layer each, and a stream that has no layer of its own."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (nn.Linear(*s) for s in ((6, 8), (8, 8), (8, 8), (8, 3)))
        self.act = nn.ReLU()

    def forward(self, x):
        h = self.stem(x)
        return self.head(h + self.outer(self.act(self.inner(h))))


class Transformer(nn.Module):
    """Two of torch's encoder layers, with dropout, and a head on the mean of the tokens."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn() -> nn.Module:
    first = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*first, *second, nn.Linear(24, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (16, 6)),
    "cnn": (cnn, (16, 1, 8, 8)),
    "functional": (Functional, (16, 6)),
    "residual": (Residual, (16, 6)),
    "transformer": (Transformer, (16, 5, 8)),
}
AT_ONCE = {  # settings under which a method acts within a few steps
    "redo": {"threshold": 0.9, "every": 1},
    "continual_backprop": {"rate": 0.1, "maturity": 0},
    "self_normalized_resets": {"rejection": 1.0, "observations": 1, "longest": 3},
    "isometry": {"strength": 1.0, "lr": 0.1},
    "weight_clipping": {"kappa": 0.1},
    "l2_init": {"strength": 1.0},
    "churn": {"strength": 1.0},
}


@pytest.fixture
def make_net() -> Callable[[str], Plain]:
    """The net of a name with its inputs, always the same; its first hidden unit is silent."""

    def make(name: str) -> Plain:
        build, shape = NETS[name]
        torch.manual_seed(0)
        net = build()
        silent = {"mlp": "0", "cnn": "1", "functional": "first", "residual": "inner"}
        with torch.no_grad():
            net.get_parameter(f"{silent.get(name, 'encoder.layers.0.linear1')}.bias")[0] = -100.0
        return Plain(net, torch.randn(*shape, generator=torch.Generator().manual_seed(1)))

    return make


@pytest.fixture
def make_method() -> Callable[[str], baselines.Baseline]:
    """The method of a name, so set that it acts at once."""
    return lambda name: baselines.make(name, **AT_ONCE.get(name, {}))


@pytest.fixture
def train() -> Callable[..., None]:
    """Some steps of a plain loop, and a change of the task."""

    def loop(net, x, optimizer, method=None, steps=4):
        torch.manual_seed(3)  # for dropout
        for _ in range(steps):
            optimizer.zero_grad()
            loss = net(x).square().mean() + (method.penalty() if method else 0)
            if loss.requires_grad:
                loss.backward()
            optimizer.step()
            if method:
                method.after_step()
        if method:
            method.new_task()

    return loop
