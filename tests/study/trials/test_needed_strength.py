"""dyniso.study.trials.needed_strength: training against the pull, and what is read off from it."""

import numpy as np
import pandas as pd
import pytest
import torch

from dyniso.study.trials.needed_strength import Setting, needed_strength, pixels, power_law, train


@pytest.fixture(scope="module")
def runs():
    inputs = torch.randn(700, 12, generator=torch.Generator().manual_seed(0))
    return train(Setting(3e-3, 8, "maxmin", steps=160, task_steps=40), inputs, strengths=(0.1, 1.0))


def test_stronger_pull_leaves_a_smaller_defect(runs):
    assert list(runs["strength"]) == [0.1, 1.0]
    assert runs["defect"][1] < 0.5 * runs["defect"][0]


def test_strengths_do_not_influence_each_other(runs):
    inputs = torch.randn(700, 12, generator=torch.Generator().manual_seed(0))
    alone = train(Setting(3e-3, 8, "maxmin", steps=160, task_steps=40), inputs, strengths=(1.0,))
    assert alone["defect"][0] == pytest.approx(runs["defect"][1], rel=1e-3)


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="steps=4"):
        train(Setting(1e-3, 8, "relu", steps=4), torch.zeros(700, 12))


def test_pixels_are_standardised_and_a_sixteenth_of_the_image():
    x = pixels()
    assert x.shape[1] == 49
    assert float(x.mean()) == pytest.approx(0, abs=1e-4)
    assert float(x.std()) == pytest.approx(1, abs=1e-4)


def test_strength_between_two_measured_ones_is_interpolated_in_logarithms():
    runs = pd.DataFrame({"defect": [0.4, 0.1], "strength": [0.01, 0.16], "r2": [0.1, 0.4]})
    found = needed_strength(runs, defect=0.2)
    assert found.strength == pytest.approx(0.04)
    assert found.r2 == pytest.approx(0.2)
    assert found.inside


def test_defect_outside_the_measured_ones_is_marked():
    runs = pd.DataFrame({"defect": [0.4, 0.1], "strength": [0.01, 0.16], "r2": [0.1, 0.4]})
    assert not needed_strength(runs, defect=0.05).inside


def test_power_law_finds_exponents_and_says_how_sure_it_is():
    lr, n = (pd.Series(v.ravel()) for v in np.meshgrid([1e-3, 3e-3, 9e-3], [16.0, 32.0, 64.0]))
    noise = np.exp(0.1 * np.random.default_rng(0).normal(size=9))
    exact, noisy = power_law(lr, n, lr**0.3 * n**0.5), power_law(lr, n, lr**0.3 * n**0.5 * noise)
    assert (exact.lr_power, exact.width_power) == pytest.approx((0.3, 0.5))
    assert exact.lr_error < 1e-9 < 0.01 < noisy.lr_error
