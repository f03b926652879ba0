"""Contracts of dyniso.interventions.spectra: singular values as asked, vectors kept; laws of a given defect."""

import math

import pytest
import torch
from conftest import with_spectrum as matrix

from dyniso.interventions import (
    SPECTRA,
    band,
    bottom,
    flat,
    level,
    log_normal,
    log_normal_of,
    norm_flat,
    prescribed,
    rule,
    scaled,
    spectral,
    spikes,
    with_spectrum,
)
from dyniso.interventions.spectra import NEAR_SINGULAR, defect_of

SETTINGS = {  # of every rule, such that 6 singular values can have them
    "band": {"low": 0.5, "high": 2.0},
    "bottom": {"defect": 1.0},
    "clip": {},
    "flat": {},
    "level": {"value": 1.5},
    "lift": {},
    "log_normal": {"deviation": 0.8},
    "log_normal_of": {"defect": 1.0},
    "norm_flat": {},
    "scaled": {},
    "spectral": {},
    "spikes": {"count": 2, "defect": 1.0},
}
SHAPES = {"square": (6, 6), "tall": (10, 6), "wide": (6, 10)}
SIGMA = [3.0, 1.7, 1.0, 0.6, 0.2, 0.05]
EXACT = {torch.float32: 1e-6, torch.float64: 1e-6}


def expected(W, g):
    """U diag(g(sigma)) V' from an SVD in float64."""
    U, sigma, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return (U * g(sigma)[..., None, :]) @ Vh


def test_every_rule_has_settings_here():
    assert SETTINGS.keys() == SPECTRA.keys()


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_every_rule_changes_singular_values_as_asked_and_keeps_the_vectors(name, shape, dtype):
    W, g = matrix(SIGMA, *shape).to(dtype), rule(name, **SETTINGS[name])
    made = with_spectrum(W, g)
    assert made.dtype == dtype and made.shape == W.shape
    wanted = expected(W, g)
    size = float(torch.linalg.matrix_norm(wanted, 2))
    assert float((made.double() - wanted).abs().max()) <= EXACT[dtype] * size
    sigma = torch.linalg.svdvals(W.double())
    torch.testing.assert_close(
        torch.linalg.svdvals(made.double()), g(sigma).sort(descending=True).values, rtol=0, atol=2e-6 * size
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_a_stack_is_each_matrix_alone_near_singular_ones_among_them(name, shape):
    ends = (0.05, 1e-7, 0.3, 6 * NEAR_SINGULAR, 1.2 * NEAR_SINGULAR, 0.8)  # the largest is 3
    W = torch.stack([matrix([*SIGMA[:5], end], *shape, seed=k) for k, end in enumerate(ends)]).unflatten(0, (2, 3))
    g = rule(name, **SETTINGS[name])
    made = with_spectrum(W, g)
    alone = torch.stack([with_spectrum(one, g) for one in W.flatten(0, 1)]).reshape(made.shape)
    torch.testing.assert_close(made, alone, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("least", [2.0, 1.01, 0.99, 0.1, 1e-6])  # times the border between two ways of computing
def test_near_singular_weights_get_what_an_svd_gives_on_both_sides_of_the_border(least, shape):
    W = matrix(
        [3.0, 2.0, 1.0, 5 * least * NEAR_SINGULAR, 3.3 * least * NEAR_SINGULAR, 3 * least * NEAR_SINGULAR], *shape
    )
    for g in (flat, band(0.5, 2.0), rule("bottom", defect=1.0)):
        assert float((with_spectrum(W, g) - expected(W, g)).abs().max()) < 1e-6


def test_close_singular_values_stay_a_polar_factor():
    W = matrix([1.0, 1.0, 1.0, 1.0 + 1e-9, 0.5, 0.5], 6, 9)
    made = with_spectrum(W, flat)
    torch.testing.assert_close(made @ made.mT, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-12)


def test_rules_give_what_they_say():
    sigma = torch.tensor([4.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    assert flat(sigma).tolist() == [1.0] * 4
    assert norm_flat(sigma).square().sum() == pytest.approx(float(sigma.square().sum()))
    assert float(norm_flat(sigma)[0] / norm_flat(sigma)[-1]) == 1.0
    assert float(scaled(sigma).square().mean()) == pytest.approx(1.0)
    assert float(scaled(sigma)[0] / scaled(sigma)[-1]) == pytest.approx(40.0)
    assert spectral(sigma).tolist() == pytest.approx([1.0, 0.25, 0.125, 0.025])
    assert level(2.0)(sigma).tolist() == [2.0] * 4
    assert band(0.5, 2.0)(sigma).tolist() == [2.0, 1.0, 0.5, 0.5]
    assert rule("clip")(sigma).tolist() == [1.0, 1.0, 0.5, 0.1]
    assert rule("lift")(sigma).tolist() == [4.0, 1.0, 1.0, 1.0]


LAWS = {
    "bottom": lambda m, D: bottom(m, D),
    "log_normal_of": lambda m, D: log_normal_of(m, D),
    "spikes_1": lambda m, D: spikes(m, 1, D),
    "spikes_2": lambda m, D: spikes(m, 2, D),
}


@pytest.mark.parametrize("defect", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("m", [8, 64, 128])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_laws_have_mean_square_one_their_defect_and_descend(law, m, defect):
    sigma = law(m, defect)
    assert sigma.shape == (m,) and sigma.dtype == torch.float64
    assert float(sigma.square().mean()) == pytest.approx(1.0, abs=1e-12)
    assert float(defect_of(sigma)) == pytest.approx(defect, abs=1e-9)
    assert bool((sigma.diff() <= 1e-12).all()) and float(sigma.min()) >= 0


@pytest.mark.parametrize("m", [8, 64, 128])
def test_log_normal_has_the_deviation_of_its_quantiles(m):
    sigma = log_normal(m, 0.7)
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(m).double() + 0.5) / m)
    assert float(sigma.square().mean()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(sigma.log().std() / normal.std(), torch.tensor(0.7, dtype=torch.float64))
    assert log_normal(m, 0.0).tolist() == [1.0] * m


def test_shapes_of_laws_are_those_of_their_names():
    low = bottom(64, 1.0)
    assert int((low < 2e-3).sum()) == 32 and float(low[-1] / low[0]) == pytest.approx(1e-3)
    high = spikes(64, 4, 3.0)
    assert int((high > 1).sum()) == 4 and float(high[4:].std()) == 0


def test_prescribed_spectrum_gives_the_largest_value_to_the_largest():
    W = torch.diag(torch.tensor([0.1, 5.0, 2.0]))
    made = with_spectrum(W, prescribed(lambda m: torch.tensor([3.0, 2.0, 1.0])))
    torch.testing.assert_close(made.diagonal(), torch.tensor([1.0, 3.0, 2.0]))


REFUSED = {
    "bottom: all small": (lambda: bottom(4, 3.0), r"defect=3\.0; .*below m - 1 = 3"),
    "bottom: negative": (lambda: bottom(4, -0.1), r"defect=-0\.1"),
    "level: negative": (lambda: level(-1.0), r"value=-1\.0"),
    "level: not a number": (lambda: level(math.nan), "value=nan"),
    "log_normal: negative": (lambda: log_normal(4, -0.5), r"deviation=-0\.5"),
    "log_normal_of: m - 1": (lambda: log_normal_of(4, 3.0), r"defect=3\.0; .*below m - 1 = 3"),
    "log_normal_of: negative": (lambda: log_normal_of(4, -1.0), r"defect=-1\.0"),
    "no band": (lambda: band(2.0, 1.0), r"band=\(2\.0, 1\.0\); it must be 0 <= low <= high"),
    "no band: negative": (lambda: band(-1.0, 1.0), r"band=\(-1\.0, 1\.0\)"),
    "one axis": (lambda: with_spectrum(torch.ones(3), flat), r"W has shape \(3,\)"),
    "spikes: all": (lambda: spikes(4, 4, 0.5), "count=4; it must be a whole number from 1 to 3"),
    "spikes: negative": (lambda: spikes(4, 1, -0.5), r"defect=-0\.5"),
    "spikes: none": (lambda: spikes(4, 0, 0.5), "count=0"),
    "spikes: too much": (lambda: spikes(4, 2, 1.1), r"defect=1\.1; it must be 0 to 1, .*2 of 4 spikes"),
    "unknown rule": (lambda: rule("flatt"), "spectrum='flatt'; .*did you mean 'flat'"),
    "whole numbers": (lambda: with_spectrum(torch.ones(2, 2, dtype=torch.long), flat), "floating point"),
    "with NaN": (
        lambda: with_spectrum(torch.tensor([[1.0, math.nan]]), flat),
        "W has 1 of 2 entries that are not finite",
    ),
    "zero, scaled": (lambda: with_spectrum(torch.zeros(2, 3), scaled), "2 of 2 not finite"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_had_is_refused_with_the_number(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_polar_factor_of_a_rank_deficient_weight_is_refused_unless_any_vectors_will_do(shape, dtype):
    W = matrix([2.0, 1.0, 1.0, 1.0, 0.0, 0.0], *shape).to(dtype)
    with pytest.raises(
        ValueError, match=r"2 singular values are rounding in torch\.float\d\d, the least .* of the largest"
    ):
        with_spectrum(W, flat)
    made = with_spectrum(W, flat, any_vectors=True).double()
    torch.testing.assert_close(torch.linalg.svdvals(made), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-6)
    kept = expected(W, lambda sigma: (sigma > 0.5).double())
    torch.testing.assert_close(made @ kept.mT, kept @ kept.mT, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["clip", "scaled", "spectral"])
def test_rounding_that_stays_rounding_is_no_reason_to_refuse(name):
    W = matrix([0.1, 0.05, 0.02, 0.01, 1e-18, 1e-19], 6, 9)
    made = with_spectrum(W, rule(name))
    assert float(torch.linalg.svdvals(made)[4]) < 1e-15
