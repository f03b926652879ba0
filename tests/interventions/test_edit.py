"""Contracts of dyniso.interventions.edit_: every hidden matrix of a model and nothing else, or nothing at all."""

import copy

import pytest
import torch
from torch import nn

from dyniso import nets
from dyniso.interventions import edit_, flat, level, scaled, with_spectrum


def to_flat(W):
    return with_spectrum(W, flat)


def state(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changed(model, before):
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def singular_values(W):
    return torch.linalg.svdvals(W.detach().double().flatten(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hidden_weights_of_a_sequential_are_changed_and_head_and_biases_are_not(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 2)).to(dtype)
    before = state(net)
    assert edit_(net, to_flat) is net
    assert changed(net, before) == {"0.weight", "2.weight"}
    for name in ("0.weight", "2.weight"):
        made = net.get_parameter(name)
        assert made.dtype == dtype and made.requires_grad
        torch.testing.assert_close(made.detach(), with_spectrum(before[name], flat), rtol=0, atol=1e-6)
    assert edit_(net, to_flat)(torch.ones(3, 6, dtype=dtype)).requires_grad


class WithAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        h = self.embed(x)
        return self.head(self.norm(h + self.attention(h, h, h)[0]))


def test_packed_q_k_and_v_are_changed_as_three_maps():
    torch.manual_seed(1)
    model = WithAttention()
    before, seen = state(model), []

    def change(W):
        seen.append(tuple(W.shape))
        return with_spectrum(W, scaled)

    edit_(model, change)
    assert changed(model, before) == {"attention.in_proj_weight", "attention.out_proj.weight", "embed.weight"}
    assert (3, 6, 6) in seen
    for made, own in zip(
        model.attention.in_proj_weight.chunk(3), before["attention.in_proj_weight"].chunk(3), strict=True
    ):
        torch.testing.assert_close(made.detach(), with_spectrum(own, scaled))
        assert float(singular_values(made).square().mean()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_kernels_are_changed_as_matrices_whatever_their_layout(layout):
    net = nets.cnn((3, 8, 8), 4, (6, 8), (10,), "relu", seed=0).to(memory_format=layout)
    before = state(net)
    edit_(net, lambda W: with_spectrum(W, level(2.0)))
    kernels = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(kernels) == 2
    for W in kernels:
        torch.testing.assert_close(singular_values(W), torch.full((len(W),), 2.0).double(), rtol=0, atol=2e-6)
    left = {name for name in before if name.endswith("bias")} | {list(before)[-2]}
    assert changed(net, before) == before.keys() - left


def test_low_precision_weights_keep_their_dtype():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).to(torch.bfloat16)
    assert edit_(net, to_flat)[0].weight.dtype == torch.bfloat16
    torch.testing.assert_close(singular_values(net[0].weight), torch.ones(6).double(), rtol=0, atol=0.02)


def second_fails(calls):
    def change(W):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("no")
        return 2 * W

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda W: W.mT, r"the change made \(1, 6, 9\) of \(1, 9, 6\); expected the same shape"),
        (lambda W: W[0], r"the change made \(9, 6\) of \(1, 9, 6\)"),
        (second_fails([]), "no"),
    ],
    ids=["transposed", "an axis less", "second raises"],
)
def test_a_change_that_fails_writes_nothing(change, message):
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2))
    before = state(net)
    with pytest.raises(ValueError, match=message):
        edit_(net, change)
    assert changed(net, before) == set()


def test_a_change_in_place_of_what_it_is_given_harms_nothing():
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2))
    expected = copy.deepcopy(net)
    expected[0].weight.data.mul_(2)
    edit_(net, lambda W: W.mul_(2))
    assert torch.equal(net[0].weight, expected[0].weight)
    with pytest.raises(ValueError, match="expected the same shape"):
        edit_(net, lambda W: W.mul_(2)[..., :1])
    assert torch.equal(net[0].weight, expected[0].weight)
