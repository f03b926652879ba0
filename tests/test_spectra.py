"""Contracts of dyniso.spectra: chosen singular values, and a rescaling that is done by hand."""

import pytest
import torch

from dyniso.isometry import summarise_spectrum
from dyniso.spectra import scale_free_defect


def test_scale_free_defect_is_the_isometry_defect_of_the_weight_at_mean_square_one():
    sigma = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)).double() * 4
    scaled = sigma / sigma.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(scale_free_defect(sigma), summarise_spectrum(scaled).isometry_defect)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_scale_free_defect_does_not_depend_on_scale_or_order(scale):
    assert float(scale_free_defect(torch.tensor([2.0, 0.0, 1.0, 1.0]) * scale)) == pytest.approx(1.0, rel=1e-5)


def test_scale_free_defect_ends_at_m_minus_one_and_is_nan_of_zeros():
    assert float(scale_free_defect(torch.tensor([3.0, 0.0, 0.0, 0.0]))) == pytest.approx(3)
    assert scale_free_defect(torch.zeros(4)).isnan()
