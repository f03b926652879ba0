"""Contracts of dyniso.study.stack: several nets as one give what each gives alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dyniso.study.specs import Net
from dyniso.study.stack import Stack, convolve
from dyniso.study.tasks import load_source
from dyniso.study.train import make_net

CPU = torch.device("cpu")
ROUNDING = 2e-5  # float32: a batched product rounds otherwise than a single one


@pytest.fixture
def convolutional(tiny):
    """Two tasks of 6 steps on digits; two convolutions and one hidden layer."""
    return replace(tiny, net=Net(width=8, depth=1, channels=(4, 6)))


@pytest.mark.parametrize("activation", ["relu", "maxmin", "crelu"])
@pytest.mark.parametrize("norm", [None, "layernorm"])
def test_stacked_convolutional_nets_give_what_each_gives_alone(convolutional, activation, norm):
    method = replace(convolutional.methods[0], activation=activation, norm=norm)
    source = load_source(convolutional.stream, CPU)
    nets = [make_net(convolutional, method, seed, source) for seed in (0, 1)]
    x = source.inputs[:20].view(2, 10, -1)
    seen: list[torch.Tensor] = []
    found = Stack(nets, CPU)(x, seen)
    for run, net in enumerate(nets):
        torch.testing.assert_close(found[run], net(x[run]), rtol=ROUNDING, atol=ROUNDING)
    units = (8, 12, 16) if activation == "crelu" else (4, 6, 8)
    assert [h.shape for h in seen] == [(2, 10 * 14 * 14, units[0]), (2, 10 * 7 * 7, units[1]), (2, 10, units[2])]


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_stacked_convolution_equals_each_alone_with_its_gradients(in_groups, bias):
    layers = [nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2, bias=bias) for _ in range(3)]
    x = torch.randn(3, 5, 4, 7, 8)
    W = torch.stack([layer.weight for layer in layers])
    b = torch.stack([layer.bias for layer in layers]) if bias else None
    found = convolve(layers[0], x, W, b, in_groups)
    expected = torch.stack([layer(own) for layer, own in zip(layers, x, strict=True)])
    torch.testing.assert_close(found, expected)
    leaves = [p for layer in layers for p in layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), leaves), torch.autograd.grad(expected.sin().sum(), leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
