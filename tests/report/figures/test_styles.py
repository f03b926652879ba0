"""One style an arm: none is missing, all can be seen on both grounds, and arms drawn together can be told apart."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dyniso.report import figures
from dyniso.report.figures.styles import COLOURS, STYLES, style_of
from dyniso.study import specs

DARK = "#14181e"  # the book's ground in its dark theme
CHECK = {  # arms of the causal experiments are dots and lines with their names beside them, in the colours of a figure
    name: by_tier["check"] for name, by_tier in specs.everything().items() if name not in specs.CAUSAL
}
TOGETHER = {  # arms that one figure of the book draws
    **{name: [m.name for m in e.methods] for name, e in CHECK.items() if len(e.methods) <= 12},
    "suite": ["adam", "l2_init", "layernorm", "adamo_printed", "adamo", "maxmin", "maxmin_adamo"],
    "suite, instruments": ["adam", "l2_init", "muon", "adamo_printed", "adamo", "maxmin"],
    "minatar, instruments": ["adam", "adam_kept", "maxmin", "adamo", "maxmin_adamo_no_bias", "l2_init"],
}
# linear RGB -> what an eye without red or without green cones sees (Viénot, Brettel and Mollon 1999)
BLIND = {
    "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}
TO_LMS = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
TO_LAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
APART = 0.04  # in Oklab, where black and white are 1 apart; .02 is just seen side by side


def linear(colour) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(colour, ground) -> float:
    """Of WCAG 2: 1 to 21."""
    light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (colour, ground))
    return (light[1] + 0.05) / (light[0] + 0.05)


def distance(one, other, eye) -> float:
    """In Oklab, as that eye sees the two."""
    seen = (TO_LAB @ np.cbrt(TO_LMS @ np.clip(eye @ linear(c), 0, 1)) for c in (one, other))
    return float(np.linalg.norm(next(seen) - next(seen)))


@pytest.mark.parametrize("ground", ["#ffffff", DARK])
@pytest.mark.parametrize("colour", [*COLOURS.values(), figures.INK])
def test_every_colour_has_a_contrast_of_three_against_the_ground(colour, ground):
    assert contrast(colour, ground) >= 3


@pytest.mark.parametrize("tier", specs.TIERS)
@pytest.mark.parametrize("name", CHECK)
def test_every_arm_of_every_experiment_has_a_style(name, tier):
    for method in specs.find(name, tier).methods:
        assert style_of(method.name)["color"] in COLOURS.values()


def test_no_style_is_of_an_arm_that_no_experiment_has():
    assert STYLES.keys() == {m.name for e in CHECK.values() for m in e.methods if not e.name.startswith("tune_")}


@pytest.mark.parametrize("name", [name for name in CHECK if not name.startswith("tune_")])
def test_no_two_arms_of_an_experiment_have_one_style(name):
    styles = [STYLES[m.name] for m in CHECK[name].methods]
    assert len(set(styles)) == len(styles)


@pytest.mark.parametrize("eye", [np.eye(3), *BLIND.values()], ids=["all colours", *BLIND])
@pytest.mark.parametrize("arms", TOGETHER.values(), ids=TOGETHER)
def test_arms_drawn_together_differ_in_dash_or_in_a_colour_that_every_eye_tells_apart(arms, eye):
    for one, other in combinations(arms, 2):
        (colour, dash), (rival, its_dash) = STYLES[one], STYLES[other]
        assert dash != its_dash or distance(colour, rival, eye) > APART, (one, other)


def test_adamo_is_one_colour_wherever_it_is_drawn():
    names = ["adamo", "adamo_0.1", "adamo_printed", "adamo_no_bias", "decoupled_0.1"]
    assert {STYLES[name][0] for name in names} == {COLOURS["orange"]}


def test_candidate_of_a_sweep_is_drawn_like_its_method_and_an_unknown_arm_names_the_nearest():
    assert style_of("adamo.3") == style_of("adamo")
    with pytest.raises(ValueError, match="did you mean 'adamo'"):
        style_of("adamoo")
