"""dyniso.theory.conventions: variants of the penalty against eq. 16 and against their own predictions."""

import pytest
import torch

from dyniso.isometry import gram_deviation_grad
from dyniso.theory.conventions import CONVENTIONS, Convention, measure


def tall(rows=24, columns=8):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / rows**0.5


def test_factor_four_is_the_gradient_of_eq_16():
    torch.testing.assert_close(Convention(4, 1, 1).grad(tall()), gram_deviation_grad(tall()))


@pytest.mark.parametrize("name", list(CONVENTIONS))
def test_convention_rests_relaxes_and_breaks_where_computed(name):
    convention = CONVENTIONS[name]
    found = measure(convention, tall())
    assert found.resting_value == pytest.approx(convention.resting_value, abs=1e-6)
    assert found.relaxation == pytest.approx(convention.relaxation, rel=0.01)
    assert found.settles
    assert found.leaves


def test_wide_matrix_is_refused():
    with pytest.raises(ValueError, match=r"\(8, 24\)"):
        measure(Convention(4, 1, 1), tall().T)
