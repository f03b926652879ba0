"""Contracts of dyniso.interventions.gauge: other weights, the same function; which scales do what they are for."""

import math

import pytest
import torch
from torch import nn

from dyniso.activations import GroupSort, MaxMin
from dyniso.interventions import gauged, isometric_scales, random_scales, unit_row_scales, units_of_a_scale
from dyniso.interventions.gauge import defects
from dyniso.interventions.spectra import defect_of

ACTIVATIONS = {
    "groupsort4": GroupSort(4, dim=-1),
    "leaky_relu": nn.LeakyReLU(0.1),
    "maxmin": MaxMin(dim=-1),
    "prelu": nn.PReLU(),
    "relu": nn.ReLU(),
}
CHANGE = {torch.float32: 1e-5, torch.float64: 1e-10}


def net(*batch, dtype=torch.float64, seed=0):
    """Weights and biases 10 - 12 - 8 - 3, the last the head."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((12, 10), (8, 12), (3, 8))
    weights = [torch.randn(*batch, *s, generator=g, dtype=torch.float64).to(dtype) / s[1] ** 0.5 for s in shapes]
    return weights, [torch.randn(*batch, s[0], generator=g, dtype=torch.float64).to(dtype) for s in shapes]


def outputs(weights, biases, activation, x):
    for k, (W, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ W.mT + (0 if b is None else b[..., None, :])
        x = activation(x) if k + 1 < len(weights) else x
    return x.detach()


def changed(before, after):
    """Largest change relative to the largest output."""
    return float((before - after).abs().max() / before.abs().max())


def summed_defect(weights):
    return sum(defect_of(torch.linalg.svdvals(W.double())) for W in weights[:-1])


@pytest.mark.parametrize("dtype", CHANGE, ids=str)
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=["one net", "a stack"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_random_scales_change_weights_and_biases_but_not_the_function(name, batch, dtype):
    activation = ACTIVATIONS[name].to(dtype)
    (weights, biases), x = (
        net(*batch, dtype=dtype),
        torch.randn(20, 10, generator=torch.Generator().manual_seed(5)).to(dtype),
    )
    scales = random_scales(weights[:-1], 1.0, torch.Generator().manual_seed(1), units_of_a_scale(activation))
    made, shifted = gauged(weights, biases, scales)
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(made, weights, strict=True))
    assert all(float((a - b).abs().max()) > 0.1 for a, b in zip(made, weights, strict=True))
    assert torch.equal(shifted[-1], biases[-1]) and not torch.equal(shifted[0], biases[0])
    before = outputs(weights, biases, activation, x)
    assert changed(before, outputs(made, shifted, activation, x)) < CHANGE[dtype]
    ratios = made[0] / weights[0]
    torch.testing.assert_close(ratios, scales[0].exp()[..., None].expand_as(ratios).to(dtype))


def test_a_stack_is_each_net_alone_and_layers_without_bias_stay_so():
    weights, _ = net(3)
    scales = random_scales(weights[:-1], 1.0, torch.Generator().manual_seed(1))
    made, none = gauged(weights, [None] * 3, scales)
    assert none == [None] * 3
    for k in range(3):
        alone, _ = gauged([W[k] for W in weights], [None] * 3, [s[k] for s in scales])
        assert all(torch.equal(a, m[k]) for a, m in zip(alone, made, strict=True))


def test_random_scales_have_the_deviation_and_are_shared_in_groups():
    weights = [torch.ones(4000, 2), torch.ones(3, 2000, 4000)]
    for s, W in zip(random_scales(weights, 0.5, torch.Generator().manual_seed(0)), weights, strict=True):
        assert s.shape == W.shape[:-1] and s.dtype == torch.float64
        assert float(s.std()) == pytest.approx(0.5, rel=0.05) and abs(float(s.mean())) < 0.05
    shared = random_scales(weights, 0.5, torch.Generator().manual_seed(0), shared=2)[1].unflatten(-1, (-1, 2))
    assert torch.equal(shared[..., 0], shared[..., 1]) and len(shared[0, :, 0].unique()) == 1000
    assert not any(s.any() for s in random_scales(weights, 0.0, torch.Generator()))


def test_scales_of_single_units_do_change_a_net_of_maxmin():
    (weights, biases), x = net(), torch.randn(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    made = gauged(weights, biases, random_scales(weights[:-1], 1.0, torch.Generator().manual_seed(1)))
    activation = ACTIVATIONS["maxmin"]
    assert changed(outputs(weights, biases, activation, x), outputs(*made, activation, x)) > 0.01


@pytest.mark.parametrize("dtype", CHANGE, ids=str)
@pytest.mark.parametrize("batch", [(), (3,)], ids=["one net", "a stack"])
def test_unit_rows_have_length_one_and_the_function_is_kept(batch, dtype):
    (weights, biases), x = (
        net(*batch, dtype=dtype),
        torch.randn(20, 10, generator=torch.Generator().manual_seed(5)).to(dtype),
    )
    made, shifted = gauged(weights, biases, unit_row_scales(weights[:-1]))
    for W in made[:-1]:
        lengths = torch.linalg.vector_norm(W.double(), dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-6)
    assert changed(outputs(weights, biases, torch.relu, x), outputs(made, shifted, torch.relu, x)) < CHANGE[dtype]


@pytest.mark.parametrize("name", ["maxmin", "relu"])
@pytest.mark.parametrize("deviation", [0.3, 1.0])
def test_isometric_scales_lower_the_defect_of_every_net_and_keep_the_function(deviation, name):
    activation = ACTIVATIONS[name]
    shared = units_of_a_scale(activation)
    weights, biases = net(2)
    weights, biases = gauged(
        weights, biases, random_scales(weights[:-1], deviation, torch.Generator().manual_seed(1), shared)
    )
    made, shifted = gauged(weights, biases, isometric_scales(weights[:-1], steps=150, shared=shared))
    before, after = summed_defect(weights), summed_defect(made)
    assert bool((after < 0.7 * before).all())
    x = torch.randn(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert changed(outputs(weights, biases, activation, x), outputs(made, shifted, activation, x)) < 1e-10


@pytest.mark.parametrize("lr", [0.03, 30.0])
def test_isometric_scales_never_raise_the_defect(lr):
    weights = [
        torch.linalg.qr(torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(k))).Q
        for k in range(3)
    ]
    weights[0][1] *= 1.5  # one isometric net, and one that is not
    made, _ = gauged(weights, [None] * 3, isometric_scales(weights[:-1], steps=20, lr=lr))
    assert bool((summed_defect(made) <= summed_defect(weights) + 1e-12).all())


def test_isometric_scales_of_a_stack_are_those_of_each_net_alone_also_where_no_gradients_are_kept():
    weights = net(2)[0][:-1]
    with torch.no_grad():
        together = isometric_scales(weights, steps=30)
    for k in range(2):
        for a, b in zip(isometric_scales([W[k] for W in weights], steps=30), together, strict=True):
            torch.testing.assert_close(a, b[k], rtol=0, atol=1e-12)


def test_defect_after_scaling_is_that_of_the_scaled_weights():
    weights, biases = net(3)
    scales = random_scales(weights[:-1], 0.7, torch.Generator().manual_seed(2))
    torch.testing.assert_close(defects(weights[:-1], scales), summed_defect(gauged(weights, biases, scales)[0]))


REFUSED = {
    "deviation": (lambda: random_scales(net()[0], -1.0, torch.Generator()), r"deviation=-1\.0"),
    "deviation nan": (lambda: random_scales(net()[0], math.nan, torch.Generator()), "deviation=nan"),
    "gelu": (lambda: units_of_a_scale(nn.GELU()), "GELU is not known to let a positive scale .* allowed are ReLU"),
    "head too": (lambda: gauged(*net(), [torch.zeros(n) for n in (12, 8, 3)]), "log_scales=3; it must be 2"),
    "steps": (lambda: isometric_scales(net()[0][:-1], steps=0), "steps=0"),
    "tanh": (lambda: units_of_a_scale(nn.Tanh()), "Tanh is not known"),
    "zero rows": (lambda: unit_row_scales([torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])]), "2 rows are zero"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_had_is_refused_with_the_number(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_units_of_a_scale():
    assert {name: units_of_a_scale(one) for name, one in ACTIVATIONS.items()} == {
        "groupsort4": 4,
        "leaky_relu": 1,
        "maxmin": 2,
        "prelu": 1,
        "relu": 1,
    }
