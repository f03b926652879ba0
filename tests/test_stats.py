"""Contracts of dyniso.stats, against values by hand and a known distribution."""

import numpy as np
import pytest

from dyniso.stats import bootstrap_interval, iqm, mean


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("n", [4, 8, 40])
def test_iqm_of_a_count_that_4_divides_is_the_mean_without_the_outer_quarters(n):
    values = normal(3, n)
    middle = np.sort(values, -1)[:, n // 4 : -n // 4]
    np.testing.assert_allclose(iqm(values), middle.mean(-1), rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 1.0, 50.0], (0.25 * 0 + 1 + 0.25 * 50) / 1.5),  # weights 1/12, 1/3, 1/12
        ([100.0, 4.0, 2.0, 3.0, 0.0], (0.75 * 2 + 3 + 0.75 * 4) / 2.5),
    ],
)
def test_iqm_of_other_counts_takes_the_values_at_the_cut_with_their_fraction(values, expected):
    assert float(iqm(np.array(values))) == pytest.approx(expected, rel=1e-12)


def test_iqm_ignores_one_outlier_of_four_and_the_order_of_seeds():
    assert float(iqm(np.array([1e9, 1.0, 3.0, 2.0]))) == 2.5
    assert float(iqm(np.array([3.0, 2.0, 1e9, 1.0]))) == 2.5


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says(level):
    samples = normal(400, 30)  # 400 experiments of 30 seeds; true mean 0
    rng = np.random.default_rng(1)
    ends = [bootstrap_interval(sample, rng, level=level, draws=300) for sample in samples]
    covered = np.mean([low <= 0 <= high for low, high in ends])
    assert abs(covered - level) < 0.06  # standard error up to 0.02, and percentile intervals are a little narrow


def test_interval_contains_the_statistic_of_the_sample_and_is_ordered():
    values = normal(20, 8)
    low, high = bootstrap_interval(values, np.random.default_rng(0), iqm)
    assert (low < high).all()
    assert ((low <= iqm(values)) & (iqm(values) <= high)).all()


def test_two_seeds_give_their_own_range_as_interval():
    low, high = bootstrap_interval(np.array([[1.0, 3.0], [5.0, 5.0]]), np.random.default_rng(0))
    assert low.tolist() == [1.0, 5.0]
    assert high.tolist() == [3.0, 5.0]


def test_interval_is_a_function_of_the_generators_state():
    values = normal(5, 8)
    ends = [bootstrap_interval(values, np.random.default_rng(seed), draws=50) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_wider_level_gives_a_wider_interval():
    values = normal(12)
    (low, high), (low_wide, high_wide) = (
        bootstrap_interval(values, np.random.default_rng(0), level=level) for level in (0.5, 0.99)
    )
    assert low_wide < low < high < high_wide


def test_diverged_seed_leaves_no_interval_and_no_warning():
    values = np.array([[1.0, 2.0, np.nan], [1.0, 2.0, 3.0], [np.nan, np.nan, np.nan]])
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == np.isnan(mean(values)).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.ones(3), {"level": 1.0}, "level=1.0"),
        (np.ones(3), {"level": 0.0}, "level=0.0"),
        (np.ones(3), {"level": 95}, "level=95"),
        (np.ones((2, 0)), {}, r"shape \(2, 0\)"),
        (np.array(1.0), {}, r"shape \(\)"),
        (np.ones(3), {"draws": 0}, "draws=0"),
    ],
)
def test_interval_that_cannot_be_is_an_error_naming_the_value(values, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, np.random.default_rng(0), **options)
