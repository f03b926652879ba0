"""Contracts of dyniso.interventions.vectors: singular values kept, vectors changed; displacements of a chosen size."""

import math

import pytest
import torch
from conftest import with_spectrum as matrix

from dyniso.interventions import flat, haar, noisy, re_paired, rotated, toward, with_spectrum

SHAPES = {"square": (6, 6), "tall": (10, 6), "wide": (6, 10)}
SIGMA = [3.0, 1.7, 1.0, 0.6, 0.2, 0.05]
CHANGES = {
    "haar": lambda W, g: haar(W, g),
    "re_paired": lambda W, g: re_paired(W, g),
    "rotated": lambda W, g: rotated(W, 0.7, g),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stack(shape, dtype):
    return torch.stack([matrix(SIGMA, *shape, seed=k) for k in range(4)]).unflatten(0, (2, 2)).to(dtype)


def norm(W):
    return torch.linalg.matrix_norm(W.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_singular_values_of_every_matrix_of_a_stack_are_kept_and_the_weight_is_not(name, shape, dtype):
    W = stack(shape, dtype)
    made = CHANGES[name](W, seeded(1))
    assert made.shape == W.shape and made.dtype == dtype
    kept = torch.linalg.svdvals(made.double()) - torch.tensor(SIGMA, dtype=torch.float64)
    assert float(kept.abs().max()) < 3e-6
    assert bool((norm(made - W) > 0.1).all())
    assert float(norm(made[0, 0] - made[0, 1])) > 0.1  # draws of its own for each
    torch.testing.assert_close(CHANGES[name](W[0, 0], seeded()), CHANGES[name](W[:1, :1], seeded())[0, 0])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_re_pairing_keeps_all_singular_vectors_and_deals_out_the_values_anew(shape):
    W = stack(shape, torch.float64)
    U, sigma, Vh = torch.linalg.svd(W, full_matrices=False)
    core = U.mT @ re_paired(W, seeded(3)) @ Vh.mT
    dealt = core.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(core, torch.diag_embed(dealt), rtol=0, atol=1e-12)
    torch.testing.assert_close(dealt.sort(-1, descending=True).values, sigma, rtol=0, atol=1e-12)
    assert not torch.allclose(dealt, sigma)


def test_re_pairing_does_nothing_after_flat_and_draws_every_order():
    W = with_spectrum(matrix(SIGMA, 6, 9), flat)
    torch.testing.assert_close(re_paired(W, seeded()), W, rtol=0, atol=1e-12)
    three = matrix([3.0, 2.0, 1.0], 3, 3).expand(300, 3, 3)
    orders = {tuple(one.round(decimals=6).flatten().tolist()) for one in re_paired(three, seeded())}
    assert len(orders) == math.factorial(3)


def test_haar_vectors_are_uniform_over_signs_and_directions():
    W = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)).expand(4000, 2, 2)
    made = haar(W, seeded())
    assert float(made.mean(0).abs().max()) < 0.03
    torch.testing.assert_close(made.square().mean(0), torch.full((2, 2), 0.25, dtype=torch.float64), rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("share", [1e-3, 0.3, 1.0, 1.3])
def test_rotation_keeps_gram_and_right_vectors_and_goes_as_far_as_asked(share, shape):
    W = stack(shape, torch.float64)
    distance = share * norm(W) * torch.tensor([[1.0, 0.9], [0.8, 0.7]])
    made = rotated(W, distance, seeded())
    torch.testing.assert_close(made.mT @ made, W.mT @ W, rtol=0, atol=1e-10)
    torch.testing.assert_close(norm(made - W), distance, rtol=1e-3, atol=0)


def test_rotation_in_single_precision_goes_as_far_as_asked_and_the_first_time():
    W = matrix(SIGMA, 6, 9).float()
    assert float(norm(rotated(W, 0.01, seeded()) - W)) == pytest.approx(0.01, rel=1e-3)
    near, far = (rotated(W.double(), d, seeded()) for d in (1e-3, 2e-3))
    torch.testing.assert_close(far - W, 2 * (near - W), rtol=0, atol=1e-5)  # the same way, twice as far
    assert torch.equal(rotated(W, 0.0, seeded()), W)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_noise_goes_as_far_as_asked_matrix_by_matrix(shape, dtype):
    W, distance = stack(shape, dtype), torch.tensor([[0.5, 1.0], [2.0, 0.0]])
    made = noisy(W, distance, seeded())
    torch.testing.assert_close(norm(made - W), distance.double(), rtol=1e-6 if dtype == torch.float64 else 1e-5, atol=0)
    assert torch.equal(made[1, 1], W[1, 1])
    step = noisy(W, 1.0, seeded()) - W
    torch.testing.assert_close(noisy(W, 3.0, seeded()) - W, 3 * step, rtol=0, atol=1e-5)


@pytest.mark.parametrize("distance", [0.0, 0.5, 100.0])
def test_toward_a_target_goes_on_a_straight_line_as_far_as_asked(distance):
    W, target = stack((6, 10), torch.float64), torch.zeros(2, 2, 6, 10, dtype=torch.float64)
    made = toward(W, target, distance)
    factor = 1 - distance / norm(W)
    torch.testing.assert_close(made, factor[..., None, None] * W, rtol=0, atol=1e-12)


A, NAN = torch.ones(2, 3), torch.tensor([[1.0, math.nan]])
REFUSED = {
    "haar: NaN": (lambda: haar(NAN, seeded()), "1 of 2 entries that are not finite"),
    "haar: one axis": (lambda: haar(torch.ones(3), seeded()), r"W has shape \(3,\)"),
    "noisy: NaN": (lambda: noisy(NAN, 1.0, seeded()), "1 of 2 entries"),
    "noisy: infinite": (lambda: noisy(A, math.inf, seeded()), "distance=inf; it must be at least 0 and finite"),
    "noisy: negative": (lambda: noisy(A, -1.0, seeded()), r"distance=-1\.0; it must be at least 0"),
    "noisy: one axis": (lambda: noisy(torch.ones(3), 1.0, seeded()), r"W has shape \(3,\)"),
    "re_paired: NaN": (lambda: re_paired(NAN, seeded()), "1 of 2 entries"),
    "re_paired: one axis": (lambda: re_paired(torch.ones(3), seeded()), r"W has shape \(3,\)"),
    "rotated: NaN": (lambda: rotated(NAN, 1.0, seeded()), "1 of 2 entries"),
    "rotated: negative": (lambda: rotated(A, -1.0, seeded()), r"distance=-1\.0"),
    "rotated: one output": (lambda: rotated(A[:1], 1.0, seeded()), r"distance=0\.577 \|W\|"),
    "rotated: too far": (lambda: rotated(A, 2.1 * 6**0.5, seeded()), r"distance=2\.1 \|W\|; no rotation"),
    "toward: itself": (lambda: toward(A, A, 1.0), "direction=0.0"),
    "toward: NaN": (lambda: toward(NAN, torch.ones(1, 2), 1.0), "1 of 2 entries"),
    "toward: negative": (lambda: toward(A, 2 * A, -0.5), r"distance=-0\.5"),
    "toward: shape": (
        lambda: toward(A, torch.ones(3, 2), 1.0),
        r"target has shape \(3, 2\); expected that of W, \(2, 3\)",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_had_is_refused_with_the_number(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()
