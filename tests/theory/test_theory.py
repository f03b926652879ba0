"""Oracles that follow from the theory and cross module borders: dead rows, the strength law, coupling."""

import numpy as np
import pytest
import torch
from torch import nn

from dyniso.isometry import gram_deviation, gram_deviation_grad, singular_values
from dyniso.nets import mlp
from dyniso.optim import AdamO, isometry_step
from dyniso.polar import polar_factor


def flow_of_one_row(W, s, steps=4000):
    """Row 0 of W after the penalty's flow for time s, all other rows held fixed (Euler)."""
    W = W.clone()
    for _ in range(steps):
        W[0] -= s / steps * gram_deviation_grad(W)[0]
    return W[0]


def test_dead_unit_gets_exactly_no_task_gradient():
    net = mlp(6, 3, width=8, depth=2, seed=0)
    net[1].bias.data[2] = -100.0
    nn.functional.cross_entropy(net(torch.randn(32, 6)), torch.randint(3, (32,))).backward()
    assert torch.equal(net[1].weight.grad[2], torch.zeros(6)) and float(net[1].bias.grad[2]) == 0.0
    assert float(net[1].weight.grad.abs().sum()) > 0


def test_free_row_follows_its_bernoulli_closed_form():
    W = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2
    others, s = W[1:], 0.4
    eigenvalues, basis = torch.linalg.eigh(others.T @ others)
    c = basis.T @ W[0]
    u = torch.linspace(0, s, 20001, dtype=torch.float64)
    integrals = torch.trapezoid(torch.exp(8 * (1 - eigenvalues)[:, None] * u), u)
    closed = c * torch.exp(4 * (1 - eigenvalues) * s) / torch.sqrt(1 + 8 * (c**2 * integrals).sum())
    torch.testing.assert_close(flow_of_one_row(W, s), basis @ closed, rtol=0, atol=1e-3)  # Euler, 4000 steps


def test_row_of_a_wide_layer_turns_into_the_null_space_of_the_others():
    W = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    limit = flow_of_one_row(W, 12.0, steps=8000)
    projector = torch.eye(7, dtype=torch.float64) - torch.linalg.pinv(W[1:]) @ W[1:]
    expected = projector @ W[0]
    torch.testing.assert_close(limit, expected / expected.norm(), rtol=0, atol=1e-3)


def test_row_on_top_of_a_tight_frame_is_shrunk_not_revived():
    W = torch.zeros(5, 4, dtype=torch.float64)
    W[1:] = torch.eye(4, dtype=torch.float64)
    W[0, 0] = 1.0
    assert float(flow_of_one_row(W, 1.0).norm()) == pytest.approx(1 / np.sqrt(1 + 8), abs=1e-3)


def test_with_plain_gradient_descent_coupled_and_decoupled_are_one():
    W, g, lr, strength = torch.randn(5, 4), torch.randn(5, 4), 0.01, 0.3
    coupled = nn.Parameter(W.clone())
    (strength * gram_deviation(coupled) + (g * coupled).sum()).backward()
    torch.optim.SGD([coupled], lr=lr).step()
    decoupled = W - lr * g - isometry_step([W], lr * strength)[0]
    torch.testing.assert_close(coupled.detach(), decoupled)


def test_strength_law_predicts_the_stationary_moment():
    n, rate, runs = 16, 1 / 50, 64  # rate = 8 lr strength, the relaxation a step; the mean over runs has 2 % error
    q = torch.tensor([0.02, 0.1, 0.5]).repeat_interleave(runs)
    lr = (rate * q / n).sqrt()[:, None, None]
    g = torch.Generator().manual_seed(0)
    W, moments = polar_factor(torch.randn(3 * runs, n, n, generator=g)), []
    for k in range(1000):
        W = W - lr * torch.randn(3 * runs, n, n, generator=g) - isometry_step([W], rate / 8, batch_dims=1)[0]
        if k > 300 and k % 20 == 0:
            s = singular_values(W)
            moments.append((s**4 - s**2).mean(1).view(3, runs).mean(1))
    torch.testing.assert_close(torch.stack(moments).mean(0), q[::runs], rtol=0.1, atol=0)


def test_trajectory_equals_a_numpy_transcription_of_equations_19_and_20():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(4, 3))
    p = nn.Parameter(torch.from_numpy(W.copy()))
    lr, strength, b1, b2, eps = 1e-2, 0.2, 0.9, 0.999, 1e-8
    optimizer = AdamO([p], lr=lr, isometry_strength=strength)
    m = v = np.zeros_like(W)
    for t in range(1, 31):
        g = rng.normal(size=W.shape)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        W = W - lr * step - lr * strength * 4 * W @ (W.T @ W - np.eye(3))
        p.grad = torch.from_numpy(g)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), W, rtol=0, atol=1e-12)
