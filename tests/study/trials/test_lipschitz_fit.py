"""dyniso.study.trials.lipschitz_fit: constraints hold at the end of training, and the fit is measured on the target."""

import pytest
import torch

from dyniso.isometry import singular_values
from dyniso.study.trials.lipschitz_fit import fit, make_target, project


@pytest.fixture(scope="module")
def target():
    return make_target(torch.Generator().manual_seed(0), samples=256)


def test_target_is_centred_and_one_lipschitz(target):
    y = target(target.train_x)
    assert float(y.mean()) == pytest.approx(0, abs=1e-6)
    stretch = (y[:, None] - y).abs() / torch.cdist(target.train_x, target.train_x).clamp_min(1e-3)
    assert float(stretch.max()) <= 1 + 1e-3


@pytest.mark.parametrize(("constraint", "tolerance"), [("projected", 1e-5), ("parametrised", 1e-4)])
def test_orthogonal_constraints_keep_every_singular_value_at_one(target, constraint, tolerance):
    found = fit(target, "maxmin", 8, 2, steps=20, constraint=constraint)
    assert len(found.weights()) == 3
    assert max(float((singular_values(W) - 1).abs().max()) for W in found.weights()) < tolerance


def test_clipping_bounds_singular_values_and_lets_them_fall(target):
    sigma = [singular_values(W) for W in fit(target, "relu", 8, 2, steps=40, constraint="clipped").weights()]
    assert max(float(s.max()) for s in sigma) <= 1 + 1e-5
    assert min(float(s.min()) for s in sigma) < 0.99


def test_error_is_that_of_the_net_and_falls_with_training(target):
    short, long = (fit(target, "maxmin", 16, 2, steps=steps) for steps in (1, 150))
    assert long.error < 0.7 * short.error
    truth = target(target.test_x)
    by_hand = (long.net(target.test_x)[:, 0].detach() - truth).square().mean().sqrt() / truth.std()
    assert long.error == pytest.approx(float(by_hand), rel=1e-5)


def test_steep_target_needs_a_scaled_output(target):
    plain, scaled = (fit(target, "maxmin", 16, 2, steps=150, scale=s, steepness=3.0).error for s in (1.0, 3.0))
    assert scaled < 0.8 * plain


def test_unknown_constraint_is_refused_with_the_nearest(target):
    with pytest.raises(ValueError, match="did you mean 'projected'"):
        fit(target, "maxmin", constraint="project")


def test_parametrised_weight_is_left_to_its_parametrisation():
    W = torch.diag(torch.tensor([0.5, 2.0]))
    project(W, "parametrised")
    assert W.diag().tolist() == [0.5, 2.0]
