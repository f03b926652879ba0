"""Contracts of dyniso.interventions.gates: biases with which units fire on a chosen share; weights are not touched."""

import math

import pytest
import torch
from torch import nn

from dyniso import nets
from dyniso.activations import MaxMin
from dyniso.interventions import firing_shares, gate_bias, gate_biases

SAMPLES = 64
ACTIVATIONS = {"maxmin": MaxMin(dim=-1), "relu": nn.ReLU()}


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def layers(*batch, dtype=torch.float32):
    return [drawn(*batch, 12, 10, seed=1, dtype=dtype), drawn(*batch, 8, 12, seed=2, dtype=dtype)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("share", [0.0, 1 / 64, 0.25, 0.5, 63 / 64, 1.0])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_unit_of_every_layer_fires_on_exactly_the_share(name, share, dtype):
    weights, x = layers(3, dtype=dtype), drawn(3, SAMPLES, 10, dtype=dtype)
    biases = gate_biases(weights, ACTIVATIONS[name], x, share)
    assert [b.shape for b in biases] == [(3, 12), (3, 8)] and {b.dtype for b in biases} == {dtype}
    for found in firing_shares(weights, biases, ACTIVATIONS[name], x):
        assert found.shape[-1] in ((12, 8) if name == "relu" else (6, 4))
        assert torch.equal(found, torch.full_like(found, share))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_stack_is_each_net_alone_and_each_unit_gets_a_share_of_its_own(name):
    weights, x = layers(3, dtype=torch.float64), drawn(3, SAMPLES, 10, dtype=torch.float64)
    units = [W.shape[-2] // (2 if name == "maxmin" else 1) for W in weights]
    shares = [
        torch.randint(0, SAMPLES + 1, (3, n), generator=torch.Generator().manual_seed(n)) / SAMPLES for n in units
    ]
    biases = gate_biases(weights, ACTIVATIONS[name], x, shares)
    found = firing_shares(weights, biases, ACTIVATIONS[name], x)
    assert all(torch.equal(f, s.double()) for f, s in zip(found, shares, strict=True))
    for k in range(3):
        alone = gate_biases([W[k] for W in weights], ACTIVATIONS[name], x[k], [s[k] for s in shares])
        for b, stacked in zip(alone, biases, strict=True):
            torch.testing.assert_close(b, stacked[k], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_shares_are_those_of_the_net_itself(name):
    net = nets.mlp(10, 3, 12, 2, name, seed=4)
    linear = [m for m in net if isinstance(m, nn.Linear)][:-1]
    x = drawn(SAMPLES, 10)
    for layer, b in zip(linear, gate_biases([m.weight for m in linear], ACTIVATIONS[name], x, 0.5), strict=True):
        layer.bias.data.copy_(b)
    seen = []
    for layer in linear:
        layer.register_forward_hook(lambda _module, _inputs, z: seen.append(z))
    net(x)
    for z in seen:
        fires = z > 0 if name == "relu" else z.unflatten(-1, (-1, 2))[..., 0] > z.unflatten(-1, (-1, 2))[..., 1]
        assert (fires.double().mean(0) == 0.5).all()


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_share_zero_and_one_lie_the_margin_of_standard_deviations_beyond_the_ends(margin):
    z = drawn(SAMPLES, 5, dtype=torch.float64)
    none, all_ = gate_bias(z, 0.0, margin), gate_bias(z, 1.0, margin)
    spread = z.std(0, unbiased=False)
    torch.testing.assert_close(none, -(z.amax(0) + margin * spread))
    torch.testing.assert_close(all_, -(z.amin(0) - margin * spread))


def test_a_unit_without_spread_gets_a_margin_of_one():
    z = torch.full((4, 1), 2.0)
    assert gate_bias(z, 0.0, 3.0).tolist() == [-5.0]
    assert gate_bias(z, 1.0, 3.0).tolist() == [1.0]
    assert gate_bias(drawn(4, 1), 0.0, 0.0).tolist() == (-drawn(4, 1).amax(0)).tolist()


def test_pairs_of_maxmin_get_opposite_biases():
    first, second = (
        gate_biases(layers(), ACTIVATIONS["maxmin"], drawn(SAMPLES, 10), 0.25)[0].unflatten(0, (6, 2)).unbind(1)
    )
    assert torch.equal(first, -second)


def test_where_values_coincide_the_tolerance_says_what_may_be_missed():
    z = torch.tensor([[1.0], [1.0], [1.0], [2.0]])
    with pytest.raises(ValueError, match=r"1 of 1 units cannot fire .* the first on 1 of 4 samples in place of 2"):
        gate_bias(z, 0.5)
    assert int((z + gate_bias(z, 0.5, tolerance=0.5) > 0).sum()) in (0, 1, 4)


def test_a_stack_with_dead_layers_gets_what_can_be_had():
    weights, x = layers(), drawn(SAMPLES, 10)
    weights[1].zero_()
    with pytest.raises(ValueError, match="8 of 8 units cannot fire"):
        gate_biases(weights, ACTIVATIONS["relu"], x, 0.5)
    biases = gate_biases(weights, ACTIVATIONS["relu"], x, 0.5, tolerance=1.0)
    first, second = firing_shares(weights, biases, ACTIVATIONS["relu"], x)
    assert (first == 0.5).all() and set(second.tolist()) <= {0.0, 1.0}


Z = torch.arange(8.0)[:, None]
REFUSED = {
    "above one": (
        lambda: gate_bias(Z, 1.5),
        r"share=1\.5; it must be 0, 1, or from 1/8 to 1 - 1/8: there are 8 samples",
    ),
    "margin": (lambda: gate_bias(Z, 0.5, margin=-1.0), r"margin=-1\.0"),
    "nan share": (lambda: gate_bias(Z, math.nan), "share=nan"),
    "nan value": (lambda: gate_bias(torch.tensor([[1.0], [math.nan]]), 0.5), "1 of 2 entries that are not finite"),
    "negative": (lambda: gate_bias(Z, -0.1), r"share=-0\.1"),
    "no margin at one": (lambda: gate_bias(Z, 1.0, margin=0.0), "on 7 of 8 samples in place of 8"),
    "one axis": (lambda: gate_bias(torch.ones(8), 0.5), r"z has shape \(8,\); expected \(\.\.\., samples, units\)"),
    "too few for it": (lambda: gate_bias(Z, 0.1), r"share=0\.1; .*from 1/8"),
    "too few for the rest": (lambda: gate_bias(Z, 0.9), r"share=0\.9; .*1 - 1/8"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_had_is_refused_with_the_number(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("samples", [3, 7, 49, 320, 512])
def test_every_share_that_so_many_samples_can_show_is_allowed(samples):
    z = drawn(samples, 1, dtype=torch.float64)
    for count in {0, 1, samples // 3, samples - 1, samples}:
        assert int((z + gate_bias(z, count / samples) > 0).sum()) == count
