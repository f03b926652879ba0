"""dyniso.theory.isometric: nets that are isometric to rounding, and the instruments that look at them."""

import pytest
import torch
from torch import nn

from dyniso.isometry import as_matrix, singular_values
from dyniso.kernels import correlation_map
from dyniso.nets import cnn
from dyniso.theory import isometric
from dyniso.theory.isometric import (
    all_gates_open,
    input_gradients,
    isometric_net,
    jacobians,
    likeness_over_depth,
    lower_thresholds,
    not_affine,
    orthogonal_to_rounding,
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=draws(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", ["maxmin", "groupsort-4", "householder", "abs"])
def test_jacobian_of_a_square_isometric_net_is_orthogonal(name):
    J = jacobians(isometric_net(name, [8] * 6, draws()), inputs(3, 8))
    torch.testing.assert_close(singular_values(J), torch.ones(3, 8).double())


def test_jacobian_of_a_relu_net_is_not():
    J = jacobians(isometric_net("relu", [8] * 6, draws()), inputs(3, 8))
    assert float(singular_values(J).amin()) < 0.5


def test_given_head_replaces_the_last_weight():
    head = inputs(2, 6)
    net = isometric_net("maxmin", [8, 6, 2], draws(), head=head)
    assert torch.equal(net[-1].weight, head)
    torch.testing.assert_close(singular_values(jacobians(net, inputs(4, 8))), singular_values(head).expand(4, 2))


def test_one_width_is_refused():
    with pytest.raises(ValueError, match=r"widths=\[8\]"):
        isometric_net("maxmin", [8], draws())


def test_input_gradient_is_the_row_of_the_jacobian_and_leaves_the_input_alone():
    net, x = isometric_net("maxmin", [6, 6, 1], draws()), inputs(5, 6)
    torch.testing.assert_close(input_gradients(net, x), jacobians(net, x)[:, 0])
    assert not x.requires_grad


def test_lowered_thresholds_add_before_each_gate_and_take_off_behind():
    net, x, b = isometric_net("relu", [5, 5, 5, 1], draws()), inputs(7, 5), 0.7
    W = [layer.weight for layer in net[::2]]
    h = torch.relu(x @ W[0].T + b) - b
    expected = (torch.relu(h @ W[1].T + b) - b) @ W[2].T
    shifted = lower_thresholds(net, b)(x)
    torch.testing.assert_close(shifted, expected + net[-1].bias + (b * W[2].sum(1)))


def test_relu_gradient_has_norm_one_exactly_where_all_gates_are_open():
    net, x = lower_thresholds(isometric_net("relu", [6, 6, 6, 1], draws()), 1.5), inputs(400, 6)
    unit = input_gradients(net, x).norm(dim=1) > 1 - 1e-9
    assert torch.equal(unit, all_gates_open(net, x))
    assert 0 < int(unit.sum()) < 400


def test_affine_function_leaves_nothing_unexplained_and_a_bent_one_does():
    x = inputs(100, 3)
    assert not_affine(x, x @ inputs(3, 1) + 2) < 1e-20
    assert not_affine(x, x.square().sum(1, keepdim=True)) > 0.5


def test_pairs_make_inputs_alike_as_the_correlation_map_says():
    found = likeness_over_depth(2, draws(), width=256, samples=24, depth=2, draws=3)
    assert [row.layers for row in found] == [0, 1, 2]
    assert abs(found[0].cosine) < 0.02
    once = correlation_map("maxmin", 0.0)
    assert found[1].cosine == pytest.approx(float(once), abs=0.02)
    assert found[2].cosine == pytest.approx(float(correlation_map("maxmin", once)), abs=0.02)


def test_larger_groups_make_inputs_more_alike_and_the_gram_worse():
    small, large = (likeness_over_depth(k, draws(), width=32, samples=8, depth=1)[1] for k in (2, 32))
    assert large.cosine > small.cosine + 0.3
    assert large.condition > small.condition


def test_group_that_does_not_divide_the_width_is_refused():
    with pytest.raises(ValueError, match="not divisible by group 3"):
        likeness_over_depth(3, draws(), width=32, samples=4)


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (isometric_net("maxmin", [4, 4], draws(3)) for _ in range(2))
    assert torch.equal(first[0].weight, second[0].weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(first, nn.Sequential)


def test_orthogonal_to_rounding_keeps_directions_and_draws_biases():
    net = cnn((1, 8, 8), 4, (4,), (), "maxmin", downsample="unshuffle", seed=0)
    before = [as_matrix(p.detach().double()) for p in net.parameters() if p.ndim > 1]
    made = orthogonal_to_rounding(net, torch.Generator().manual_seed(1))
    after = [as_matrix(p.detach()) for p in made.parameters() if p.ndim > 1]
    assert max(float((singular_values(W) - 1).abs().max()) for W in after) < 1e-14
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) < 1e-6
    assert all(float(p.detach().abs().max()) > 0 for p in made.parameters() if p.ndim == 1)


def test_cosine_is_a_mean_over_pairs_of_different_inputs():
    alike = likeness_over_depth(32, draws(), width=32, samples=2, depth=6, draws=4)[-1]
    assert alike.cosine == pytest.approx(1, abs=0.05)  # sorting everything makes any two inputs alike


def test_one_singular_draw_does_not_decide_the_condition_number(monkeypatch):
    sigma = torch.tensor([[2.0, 1.0], [3.0, 1.0], [1e9, 1.0]]).double()
    monkeypatch.setattr(isometric, "singular_values", lambda K: sigma)
    assert likeness_over_depth(2, draws(), width=4, samples=2, depth=1, draws=3)[0].condition == 3
