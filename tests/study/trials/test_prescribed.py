"""Contracts of dyniso.study.trials.prescribed. Oracles: the laws and lengths that were asked for."""

import pytest
import torch
from torch import nn

from dyniso.entk import empirical_ntk, feature_grams
from dyniso.kernels import ntk_summary, plasticity
from dyniso.study.trials import prescribed
from dyniso.study.trials.prescribed import (
    NETWORKS,
    Recipe,
    constant,
    images,
    matrix,
    measure,
    network,
    power_law,
    some,
    sphere,
)


def values(model: nn.Sequential) -> list[list[float]]:
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    return [torch.linalg.svdvals(layer.weight.detach()).tolist() for layer in linear]


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (constant(3.0), [3.0, 3.0, 3.0, 3.0]),
        (some(2, 0.1), [0.1, 0.1, 1.0, 1.0]),
        (prescribed.share(0.75, 5.0), [5.0, 5.0, 5.0, 1.0]),
        (power_law(8.0, 2.0), [8.0, 2.0, 8 / 9, 0.5]),
    ],
)
def test_law_gives_the_singular_values_that_it_names(law, expected):
    assert law(4).tolist() == pytest.approx(expected)
    for rows, columns in ((4, 6), (6, 4), (4, 4)):
        sigma = torch.linalg.svdvals(matrix(rows, columns, law))
        assert sigma.tolist() == pytest.approx(sorted(expected, reverse=True))


def test_layers_of_a_network_have_the_spectra_of_its_recipe():
    model = network(Recipe("maxmin", some(1, 4.0), constant(2.0)), 12, 3, 8, seed=1)
    *hidden, head = values(model)
    assert len(hidden) == 3 and head == pytest.approx([2.0] * 3)
    assert all(layer == pytest.approx([4.0] + [1.0] * 7) for layer in hidden)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_networks_of_one_seed_share_their_singular_vectors_and_other_seeds_do_not():
    ones, twos = (network(Recipe("relu", constant(v), constant(1.0)), 12, 3, 8, seed=4) for v in (1.0, 2.0))
    torch.testing.assert_close(2 * ones[3].weight, twos[3].weight)
    other = network(Recipe("relu", constant(1.0), constant(1.0)), 12, 3, 8, seed=5)
    assert (other[3].weight - ones[3].weight).abs().max() > 0.1


def test_layers_of_one_network_do_not_share_their_singular_vectors():
    model = network(Recipe("relu", constant(1.0), constant(1.0)), 12, 3, 8)
    assert (model[3].weight - model[5].weight).abs().max() > 0.1


def test_use_of_a_network_leaves_the_kept_singular_vectors_alone():
    before = matrix(8, 8, constant(1.0))
    network(Recipe("relu", constant(1.0), constant(1.0)), 8, 3, 8)[1].weight.data.zero_()
    torch.testing.assert_close(matrix(8, 8, constant(1.0)), before)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_named_network_is_built_and_measured(name):
    found = measure(network(NETWORKS[name], 12, 3, 8), sphere(4, 10.0, size=12))
    assert found["kernel"] >= found["block"] >= 1 - 1e-9 and 0 < found["mean_over_max"] <= 1 and 0 < found["P_10"] <= 1


def test_measures_are_those_of_the_kernel():
    model, x = network(NETWORKS["ReLU, power law"], 12, 3, 8), sphere(4, 10.0, size=12)
    theta = empirical_ntk(model, x, method="jacobian")
    blocks = torch.stack([theta[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] for i in range(4)])
    expected = {
        "kernel": float(torch.linalg.cond(theta)),
        "block": float(torch.linalg.cond(blocks).mean()),
        "mean_over_max": float(ntk_summary(theta).mean_over_max),
        "P_10": float(plasticity(theta, 10)),
        "last_gram": float(torch.linalg.cond(feature_grams(model, x)["7"])),
    }
    assert measure(model, x) == pytest.approx(expected, rel=1e-6)


def test_inputs_have_the_length_and_the_cosine_that_were_asked_for():
    x = sphere(64, 784.0, 0.6, seed=2)
    assert x.square().sum(1).tolist() == pytest.approx([784.0] * 64)
    cosines = (x @ x.T / 784)[~torch.eye(64, dtype=torch.bool)]
    assert float(cosines.mean()) == pytest.approx(0.6, abs=0.05)
    assert float(sphere(64, 1.0, seed=2).mean(0).norm()) < 0.25  # 1/sqrt(64) = 0.125 without correlation


def test_cosine_above_one_is_refused():
    with pytest.raises(ValueError, match=r"correlation=1.5; it must be a number from 0"):
        sphere(3, 1.0, 1.5)


def test_images_are_standardised_and_differ_between_seeds():
    (x, y), (other, _) = images(64, 0), images(64, 1)
    assert x.shape == (64, 784) and y.shape == (64,) and x.dtype == torch.float64
    assert abs(float(x.mean())) < 0.1 and float(x.std()) == pytest.approx(1, abs=0.1)
    assert not torch.equal(x, other)


def test_survey_has_a_row_for_each_network_kind_of_inputs_and_seed():
    networks = {name: NETWORKS[name] for name in ("MaxMin, orthogonal", "ReLU, He Gaussian")}
    inputs = {str(length): lambda seed, length=length: sphere(3, length, size=12, seed=seed) for length in (1.0, 9.0)}
    rows = prescribed.survey(networks, inputs, seeds=2, width=8)
    keys = {(row["network"], row["inputs"], row["seed"]) for row in rows}
    assert len(rows) == len(keys) == 8
    (row,) = (row for row in rows if (row["network"], row["inputs"], row["seed"]) == ("MaxMin, orthogonal", "9.0", 1))
    expected = measure(network(NETWORKS["MaxMin, orthogonal"], 12, width=8, seed=1), sphere(3, 9.0, size=12, seed=1))
    assert {key: row[key] for key in expected} == pytest.approx(expected)
