"""dyniso.theory.costs: operations and memory against counts by hand."""

import pytest
import torch
from torch import nn

from dyniso.isometry import gram_deviation_grad
from dyniso.theory.costs import allocated, flops, gram_deviation_grad_in_blocks, step_over_passes

W = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_penaltys_gradient_takes_two_products():
    assert flops(lambda: gram_deviation_grad(W)) == 4 * 6**2 * 12


@pytest.mark.parametrize(("m", "batch"), [(4, 8), (10, 3)])
def test_step_takes_two_thirds_of_size_over_batch_of_the_passes(m, batch):
    assert step_over_passes(nn.Linear(m, m), torch.zeros(batch, m)) == pytest.approx(2 * m / 3 / batch)


def test_each_position_of_an_image_counts_as_a_sample():
    conv = nn.Conv2d(4, 4, 1, bias=False)
    assert step_over_passes(conv, torch.zeros(2, 4, 3, 3)) == pytest.approx(2 * 4 / 3 / (2 * 9))


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_one_triangle_of_blocks_gives_the_gradient_with_fewer_operations(blocks):
    torch.testing.assert_close(gram_deviation_grad_in_blocks(W, blocks), gram_deviation_grad(W))
    share = flops(lambda: gram_deviation_grad_in_blocks(W, blocks)) / (4 * 6**2 * 12)
    assert share == pytest.approx((2 + (blocks + 1) / blocks) / 4)


def test_views_and_results_in_place_are_not_counted_as_allocated():
    assert allocated(lambda A: (A.T[:2] + 1).mul_(2), W) == [(2, 12)]


def test_closed_form_allocates_the_gram_matrix_and_the_step():
    assert allocated(gram_deviation_grad, W) == [(6, 6), (12, 6)]
