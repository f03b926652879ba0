"""Contracts of dyniso.stats, against values by hand and a known distribution."""

import numpy as np
import pytest

from dyniso.stats import (
    bootstrap_interval,
    estimate,
    iqm,
    mean,
    mean_ranks,
    paired_difference,
    paired_improvement,
    probability_of_improvement,
    stratified_bootstrap_interval,
    wins,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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
    generator = rng(1)
    ends = [bootstrap_interval(sample, generator, level=level, draws=300) for sample in samples]
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


INF = float("inf")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, INF], 1.5),
        ([-INF, 1, 2, INF], 1.5),
        ([-INF, 0.0, 1.0, 50.0, 60.0, 2.0, 3.0, INF], (1 + 2 + 3 + 50) / 4),
        ([0.0, INF, INF, INF], INF),
        ([0.0, 1.0, INF], INF),  # the last of three counts for a quarter
        ([INF], INF),
        ([-INF, INF], np.nan),
        ([0.0, 1.0, 2.0, np.nan], np.nan),  # sorted, it lies where nothing counts
        ([1, 3], 2.0),
    ],
)
def test_infinite_value_outside_the_middle_half_leaves_the_iqm_as_it_is(values, expected):
    np.testing.assert_allclose(iqm(values), expected)
    np.testing.assert_allclose(iqm([values, values]), [expected] * 2)


def test_interval_of_runs_that_diverged_is_infinite_where_they_reach_it_and_no_warning():
    low, high = bootstrap_interval([0.0, 1.0, 2.0, INF], 0, iqm)
    assert 0 <= low < 1.5 and high == INF
    assert [float(end) for end in bootstrap_interval([INF, INF], 0)] == [INF, INF]
    assert np.isnan(bootstrap_interval([-INF, INF], 0)).all()
    low, high = stratified_bootstrap_interval([[1.0, 1.0], [INF, 2.0]], 0, mean)
    assert (low, high) == (1.5, INF)


def test_interval_of_finite_values_is_the_percentile_of_the_resampled_statistic():
    values, picks = normal(9), rng(3).integers(9, size=(500, 9))
    expected = np.percentile(values[picks].mean(-1), [2.5, 97.5])
    np.testing.assert_allclose(bootstrap_interval(values, 3, draws=500), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("of_lists", "of_arrays"),
    [
        (lambda: bootstrap_interval([0.1, 0.2], 3), lambda: bootstrap_interval(np.array([0.1, 0.2]), rng(3))),
        (lambda: bootstrap_interval([1, 2], np.int64(3)), lambda: bootstrap_interval(np.array([1.0, 2.0]), rng(3))),
        (
            lambda: stratified_bootstrap_interval([[1, 2], [3, 5]], 3),
            lambda: stratified_bootstrap_interval(np.array([[1.0, 2.0], [3.0, 5.0]]), rng(3)),
        ),
        (lambda: paired_difference([1, 4], [0, 1], 3), lambda: paired_difference(np.array([1, 4]), [0, 1], rng(3))),
        (lambda: paired_improvement([1, 4], (2, 3)), lambda: 0.5),
        (lambda: probability_of_improvement([[1, 4]], [[2, 3]]), lambda: 0.5),
        (lambda: wins([1, 4], 2), lambda: [0.0, 1.0]),
        (lambda: mean([[1, 4]]), lambda: [2.5]),
        (lambda: mean_ranks([3, 1, 3]), lambda: [2.5, 1.0, 2.5]),
        (lambda: estimate([1, 2, 6]), lambda: estimate(np.array([1.0, 2.0, 6.0]))),
    ],
)
def test_lists_whole_numbers_and_seeds_give_what_arrays_and_generators_give(of_lists, of_arrays):
    np.testing.assert_array_equal(of_lists(), of_arrays())


@pytest.mark.parametrize("generator", [None, -1, 0.5, "0", True, np.random.RandomState(0), np.random.random])
def test_what_is_neither_generator_nor_seed_is_an_error_that_says_so(generator):
    with pytest.raises(ValueError, match=r"generator=.*a seed, a whole number from 0"):
        bootstrap_interval([0.1, 0.2], generator)


@pytest.mark.parametrize("statistic", [mean, iqm, estimate])
@pytest.mark.parametrize("values", [[], [[], []], 1.0])
def test_statistic_of_no_seeds_is_an_error_and_no_nan(statistic, values):
    with pytest.raises(ValueError, match=r"values has shape \(.*\); expected \(..., seeds\), at least one seed"):
        statistic(values)


def test_difference_of_two_runs_that_diverged_is_nan_without_a_warning():
    assert np.isnan(paired_difference([INF, 1.0], [INF, 0.0], 0)).all()
    assert wins([INF], [INF]).tolist() == [0.5]


# ---------------------------------------------------------------------------------------------------- strata


def test_one_stratum_gives_the_interval_of_plain_seeds():
    values = normal(3, 1, 8)
    for statistic in (mean, iqm):
        plain = bootstrap_interval(values[:, 0], rng(), statistic)
        np.testing.assert_allclose(stratified_bootstrap_interval(values, rng(), statistic), plain)


def test_strata_with_one_seed_each_have_no_spread_whatever_lies_between_them():
    low, high = stratified_bootstrap_interval(np.array([[0.0], [1.0], [2.0], [100.0]]), rng())
    assert float(low) == float(high) == 1.5


def test_seeds_are_never_drawn_across_strata():
    values = np.array([[0.0, 1.0], [100.0, 101.0]])
    low, high = stratified_bootstrap_interval(values, rng(), statistic=lambda v: v.max(-1) - v.min(-1), level=0.99)
    assert (float(low), float(high)) == (99.0, 101.0)  # mixed draws would reach 0


def test_strata_are_drawn_independently_so_their_noise_averages_out():
    values = np.tile(np.array([0.0, 1.0]), (64, 1))
    low, high = stratified_bootstrap_interval(values, rng(), mean)
    standard_error = 0.5 / np.sqrt(2 * 64)
    assert float(high - low) == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_statistic_of_the_interval_runs_over_both_axes_as_in_rliable():
    values = np.round(normal(8, 5).T + np.arange(5)[:, None], 1)  # 5 games, 8 runs
    low, high = stratified_bootstrap_interval(values, rng(), iqm, draws=4000)
    assert float(low) < float(iqm(values.reshape(-1))) < float(high)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_stratified_interval_moves_with_a_shift_and_a_scale(statistic):
    values = normal(2, 3, 8)
    ends = np.array(stratified_bootstrap_interval(values, rng(), statistic))
    moved = np.array(stratified_bootstrap_interval(10 + 3 * values, rng(), statistic))
    np.testing.assert_allclose(moved, 10 + 3 * ends)


def test_stratified_interval_is_a_function_of_the_generators_state():
    values = normal(3, 8)
    a, b, c = (stratified_bootstrap_interval(values, rng(seed), draws=50) for seed in (3, 3, 4))
    assert a == b != c


def test_diverged_seed_leaves_no_stratified_interval():
    values = normal(2, 3, 8)
    values[0, 1, 2] = np.nan
    low, high = stratified_bootstrap_interval(values, rng(), mean)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3), {"level": 1.5}, "level=1.5; it must lie between 0 and 1"),
        ((2, 3), {"draws": 0}, "draws=0"),
        ((3,), {}, r"shape \(3,\) with draws=2000; the last 2 axes"),
        ((0, 3), {}, r"shape \(0, 3\)"),
        ((2, 0), {}, r"shape \(2, 0\)"),
    ],
)
def test_stratified_interval_that_cannot_be_is_an_error_naming_the_value(shape, options, message):
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap_interval(np.ones(shape), rng(), **options)


# ---------------------------------------------------------------------------------------------------- two methods

PAIRS = [  # x, y of one stratum each, P(X > Y) by counting pairs
    ([1.0, 3.0], [2.0], 1 / 2),
    ([5.0], [5.0], 1 / 2),
    ([1.0, 2.0, 3.0], [0.0, 2.0], (1 + 0 + 1 + 0.5 + 1 + 1) / 6),
    ([9.0, 8.0], [1.0, 2.0, 3.0], 1.0),
]


@pytest.mark.parametrize(("x", "y", "expected"), PAIRS)
def test_probability_of_improvement_counts_pairs_of_runs_with_ties_for_a_half(x, y, expected):
    found = probability_of_improvement(np.array([x]), np.array([y]))
    assert float(found) == pytest.approx(expected)


def test_probability_of_improvement_is_the_mean_over_strata_not_over_pairs():
    x, y = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [7.0, 8.0]])
    assert float(probability_of_improvement(x, y)) == 0.5
    assert probability_of_improvement(np.stack([x, y]), np.stack([y, y])).tolist() == [0.5, 0.5]


def test_probability_of_improvement_of_rliable_on_the_same_numbers():
    generator = rng()  # rliable 1.2.0, metrics.probability_of_improvement(x, y) with runs x tasks, gives .49791667
    x = np.round(generator.normal(size=(8, 5)) + np.arange(5), 1)
    y = np.round(generator.normal(size=(6, 5)) + np.arange(5) - 0.3, 1)
    assert float(probability_of_improvement(x.T, y.T)) == pytest.approx(0.4979166666666666, abs=1e-12)


@pytest.mark.parametrize("compare", [probability_of_improvement, paired_improvement])
def test_improvement_of_either_over_the_other_adds_up_to_one_and_only_order_matters(compare):
    x, y = np.round(normal(4, 3, 8), 1), np.round(normal(4, 3, 8, seed=1), 1)
    np.testing.assert_allclose(compare(x, y) + compare(y, x), 1)
    np.testing.assert_allclose(compare(np.exp(x) + 5, np.exp(y) + 5), compare(x, y))


def test_unpaired_improvement_ignores_the_order_of_seeds_and_the_paired_form_does_not():
    x, y = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 2.0]])
    swapped = y[:, ::-1]
    assert probability_of_improvement(x, y) == probability_of_improvement(x, swapped)
    assert (paired_improvement(x, y).item(), paired_improvement(x, swapped).item()) == (1.0, 2 / 3)


def test_paired_methods_ignore_a_common_relabelling_of_seeds():
    x, y, order = normal(8), normal(8, seed=1), [3, 1, 0, 2, 7, 6, 5, 4]
    assert paired_improvement(x, y) == paired_improvement(x[order], y[order])
    assert float(paired_difference(x, y, rng())[0]) == pytest.approx(
        float(paired_difference(x[order], y[order], rng())[0])
    )


def test_nan_never_counts_as_a_win_or_a_loss():
    x, y = np.array([[1.0, np.nan], [1.0, 2.0]]), np.array([[0.0, 0.0], [0.0, 0.0]])
    assert np.isnan(wins(x, y)).tolist() == [[False, True], [False, False]]
    assert np.isnan(paired_improvement(x, y)).tolist() == [True, False]
    assert np.isnan(probability_of_improvement(x, y)) and np.isnan(probability_of_improvement(y, x))


def test_paired_difference_takes_out_what_seeds_share():
    shared = 100 * normal(8)
    x, y = shared + 1 + 0.01 * normal(8, seed=1), shared
    estimate, low, high = paired_difference(x, y, rng())
    assert 0.98 < low < estimate < high < 1.02


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_paired_difference_is_the_statistic_of_x_minus_y_and_ignores_a_common_shift(statistic):
    x, y = normal(3, 8), normal(3, 8, seed=1)
    estimate, low, high = paired_difference(x, y, rng(), statistic)
    np.testing.assert_allclose(estimate, statistic(x - y))
    np.testing.assert_allclose((low, high), bootstrap_interval(x - y, rng(), statistic))
    np.testing.assert_allclose(paired_difference(x + 7, y + 7, rng(), statistic), (estimate, low, high))


def test_paired_difference_of_one_seed_is_its_own_interval():
    assert [float(n) for n in paired_difference(np.array([3.0]), np.array([1.0]), rng())] == [2.0, 2.0, 2.0]


def test_paired_difference_with_a_diverged_seed_is_nan():
    assert np.isnan(paired_difference(np.array([1.0, np.nan]), np.array([0.0, 0.0]), rng())).all()


@pytest.mark.parametrize(
    ("compare", "x", "y"),
    [
        (probability_of_improvement, (2, 3), (3, 3)),
        (probability_of_improvement, (3,), (3,)),
        (probability_of_improvement, (2, 0), (2, 3)),
        (probability_of_improvement, (2, 3), (2, 0)),
        (paired_improvement, (3,), (4,)),
        (paired_improvement, (0,), (0,)),
        (paired_improvement, (), ()),
        (lambda x, y: paired_difference(x, y, rng()), (4,), (1,)),
    ],
)
def test_methods_that_cannot_be_compared_are_an_error_naming_both_shapes(compare, x, y):
    with pytest.raises(ValueError) as error:
        compare(np.ones(x), np.ones(y))
    assert f"x of shape {x} and y of shape {y}; both must be" in str(error.value)


def test_paired_difference_names_a_level_out_of_range():
    with pytest.raises(ValueError, match="level=0; it must lie between 0 and 1"):
        paired_difference(np.ones(3), np.ones(3), rng(), level=0)
