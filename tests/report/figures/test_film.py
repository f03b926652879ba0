"""Contracts of dyniso.report.figures.film: pictures of observations, one colour a channel, and strips of them."""

import numpy as np
import pytest

from dyniso.report.figures.film import CELL, CHANNELS, EDGE, GROUND, channels_in_colour, pictures, rgb, strip


def test_picture_of_minatar_has_a_square_of_the_channels_colour_for_each_cell():
    seen = np.zeros((2, 10, 10, 10), dtype=bool)
    seen[1, 9, 4, 3] = True
    first, second = pictures("minatar", seen)
    assert (first.shape, first.dtype) == ((120, 120, 3), np.uint8)
    assert (first == rgb(GROUND)).all()
    size = CELL["minatar"]
    assert (second[9 * size : 10 * size, 4 * size : 5 * size] == rgb(CHANNELS[3])).all()
    assert (second != first).any(-1).sum() == size**2


def test_picture_of_octax_is_its_last_frame():
    seen = np.random.default_rng(0).random((1, 4, 32, 64)) < 0.5
    (made,) = pictures("octax", seen)
    assert made.shape == (128, 256, 3)
    assert np.array_equal((made[::4, ::4] != rgb(GROUND)).any(-1), seen[0, -1])


def test_pictures_of_an_unknown_suite_are_refused():
    with pytest.raises(ValueError, match=r"suite='atari'; allowed are 'minatar', 'octax'"):
        pictures("atari", np.zeros((1, 10, 10, 10), dtype=bool))


def test_later_channels_are_drawn_over_earlier_ones():
    both = np.ones((1, 1, 2), dtype=bool)
    assert channels_in_colour(both)[0, 0].tolist() == rgb(CHANNELS[1]).tolist()


def test_strip_puts_frames_side_by_side_with_grey_between():
    made = strip([np.full((2, 3, 3), v, np.uint8) for v in (10, 20)], gap=2)
    assert made.dtype == np.uint8
    assert made[0, :, 0].tolist() == [10] * 3 + [int(rgb(EDGE)[0])] * 2 + [20] * 3


@pytest.mark.parametrize("frames", [[], [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)]])
def test_strip_of_no_frames_or_several_shapes_is_refused(frames):
    with pytest.raises(ValueError, match="needs one shape"):
        strip(frames)


SEEN_BY = {  # linear red, green, blue as seen: Machado, Oliveira & Fernandes 2009, full severity
    "most": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    c = rgb(colour) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def test_colours_of_channels_stand_out_from_the_ground():
    light, dark, *channels = (linear(c) @ XYZ[1] + 0.05 for c in ("#ffffff", GROUND, *CHANNELS))
    assert min(channels) / dark > 4 and light / dark > 4


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_colours_of_channels_differ_as_seen_by(seen_by):
    seen = np.clip([np.array(SEEN_BY[seen_by]) @ linear(c) for c in (*CHANNELS, GROUND)], 0, 1)
    x, y, z = np.cbrt(seen @ XYZ.T / XYZ.sum(1)).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(11, dtype=bool)]
    assert apart.min() > 10  # CIE 1976; 2 can just be told apart side by side
