"""dyniso.theory.tolerance: measures of nearness, prescribed spectra, and the bound over depth."""

import pytest
import torch
from torch import nn

from dyniso.isometry import gram_deviation, singular_values
from dyniso.nets import mlp
from dyniso.theory.tolerance import (
    SPECTRA,
    cost,
    defect,
    depth_bound,
    inequalities,
    set_spectra,
    tolerance,
    with_spectrum,
)


def small_net(seed=0):
    return mlp(12, 3, 8, 2, "maxmin", head_gain=1.0, seed=seed).double()


def draws():
    return torch.Generator().manual_seed(0)


def test_defect_is_the_penalty_over_the_number_of_singular_values():
    W = torch.randn(7, 4, generator=draws(), dtype=torch.float64)
    assert float(defect(singular_values(W))) == pytest.approx(float(gram_deviation(W)) / 4)


def test_inequalities_hold_for_random_spectra():
    sigma = 2 * torch.rand(500, 6, generator=draws(), dtype=torch.float64)
    assert all(float(ratio.max()) <= 1 + 1e-12 for ratio in inequalities(sigma).values())


def test_one_zero_among_ones_makes_the_second_inequality_an_equality():
    sigma = torch.tensor([0.0, 1.0, 1.0, 1.0]).double()
    assert float(inequalities(sigma)["b"]) == pytest.approx(1)


def test_two_extremes_make_the_fourth_inequality_an_equality():
    assert float(inequalities(torch.tensor([0.8, 1.2]).double())["d"]) == pytest.approx(1)


@pytest.mark.parametrize("law", list(SPECTRA))
def test_each_law_reaches_its_tolerance_and_does_not_pass_it(law):
    assert float(tolerance(SPECTRA[law](5, 0.3))) == pytest.approx(0.3)
    assert bool((SPECTRA[law](5, 0.0) == 1).all())


def test_spectrum_is_replaced_and_singular_vectors_stay():
    W = torch.randn(6, 4, generator=draws(), dtype=torch.float64)
    sigma = torch.tensor([0.2, 3.0, 1.0, 0.5]).double()
    changed = with_spectrum(W, sigma)
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    torch.testing.assert_close(U.T @ changed @ Vh.T, sigma.diag())


def test_spectrum_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"\(6, 4\) has 4 values"):
        with_spectrum(torch.zeros(6, 4), torch.ones(3))


def test_every_layer_of_a_net_gets_the_spectrum():
    net = set_spectra(small_net(), "even from 1 − δ to 1 + δ", 0.25, draws())
    for layer in net:
        if isinstance(layer, nn.Linear):
            found = singular_values(layer.weight)
            torch.testing.assert_close(found.sort().values, torch.linspace(0.75, 1.25, len(found)).double())


def test_unknown_law_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'one value 1 − δ'"):
        set_spectra(small_net(), "one value 1 - δ", 0.1, draws())


@pytest.mark.parametrize("law", list(SPECTRA))
def test_condition_number_of_a_net_is_within_the_depth_bound(law):
    net = set_spectra(small_net(), law, 0.3, draws())
    found = cost(net, torch.randn(5, 12, generator=draws(), dtype=torch.float64))
    assert 1 <= found.condition_number <= depth_bound(0.3, layers=3) * (1 + 1e-9)


def test_isometric_net_costs_nothing_and_a_spread_costs_plasticity():
    x = nn.functional.normalize(torch.randn(5, 12, generator=draws(), dtype=torch.float64), dim=1)
    exact = cost(set_spectra(small_net(), "one value 1 − δ", 0.0, draws()), x)
    spread = cost(set_spectra(small_net(), "even from 1 − δ to 1", 0.9, draws()), x)
    assert exact.condition_number == pytest.approx(1)
    assert spread.plasticity_10 < exact.plasticity_10 <= exact.plasticity_100


@pytest.mark.parametrize(("delta", "layers"), [(1.0, 3), (-0.1, 3), (0.1, 0)])
def test_depth_bound_refuses_what_it_does_not_bound(delta, layers):
    with pytest.raises(ValueError, match="must be"):
        depth_bound(delta, layers)


def test_cost_is_that_of_the_worst_input():
    net = set_spectra(mlp(12, 3, 8, 2, "relu", head_gain=1.0).double(), "even from 1 − δ to 1 + δ", 0.3, draws())
    x = torch.randn(9, 12, generator=draws(), dtype=torch.float64)
    each = [cost(net, row[None]).condition_number for row in x]
    assert cost(net, x).condition_number == pytest.approx(max(each)) and max(each) > 1.01 * sorted(each)[4]


def test_last_layer_has_nothing_behind_it_that_could_stretch():
    assert depth_bound(0.3, 1) == 1
