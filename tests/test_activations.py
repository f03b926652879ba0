"""Contracts of dyniso.activations. Oracles: closed forms of the Jacobians and of the correlation maps."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from dyniso.activations import ACTIVATIONS, Abs, CReLU, GroupSort, Householder, MaxMin, activation

ISOMETRIC = {
    "maxmin": MaxMin(),
    "groupsort-2": GroupSort(2),
    "groupsort-4": GroupSort(4),
    "groupsort-full": GroupSort(16),
    "householder": Householder(),
    "householder-angle": Householder(angle=0.7),
    "householder-learned": Householder(learned=True),
    "abs": Abs(),
    "crelu": CReLU(),
    "identity": nn.Identity(),
}
isometric = pytest.mark.parametrize("phi", ISOMETRIC.values(), ids=ISOMETRIC)
FLOAT64 = 1e-12  # float64 products of 16-wide matrices: rounding is near 1e-15
MONTE_CARLO = 4e-3  # 10^6 samples a point: standard error 1e-3 or less


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_identity(gram: torch.Tensor, tolerance: float) -> None:
    assert torch.dist(gram, torch.eye(len(gram), dtype=gram.dtype), p=math.inf) < tolerance


@isometric
def test_jacobian_of_isometric_activation_has_all_singular_values_one(phi):
    for seed in range(5):
        J = torch.autograd.functional.jacobian(phi, normal(16, seed=seed))
        assert_identity(J.T @ J, FLOAT64)


@isometric
def test_jacobian_of_isometric_activation_is_isometric_at_ties_too(phi):
    J = torch.autograd.functional.jacobian(phi, torch.zeros(16, dtype=torch.float64))
    assert_identity(J.T @ J, FLOAT64)


@isometric
def test_isometric_activation_keeps_the_norm(phi):
    z = normal(100, 16)
    torch.testing.assert_close(phi(z).norm(dim=-1), z.norm(dim=-1))


@isometric
def test_isometric_activation_is_one_lipschitz(phi):
    u, v = normal(200, 16), normal(200, 16, seed=1)
    assert ((phi(u) - phi(v)).norm(dim=-1) <= (u - v).norm(dim=-1) + FLOAT64).all()


@isometric
def test_inner_products_never_decrease_under_an_isometric_activation(phi):
    u, v = normal(200, 16), normal(200, 16, seed=1)
    assert ((phi(u) * phi(v)).sum(-1) - (u * v).sum(-1)).min() > -FLOAT64


@isometric
def test_vmap_jacrev_and_compile_agree_with_the_plain_call(phi):
    z = normal(6, 16)
    torch.testing.assert_close(vmap(phi)(z), phi(z))
    stacked = vmap(jacrev(phi))(z)
    torch.testing.assert_close(stacked[2], torch.autograd.functional.jacobian(phi, z[2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(torch.compile(phi, backend="eager", fullgraph=True)(z), phi(z))


@pytest.mark.parametrize("name", ["maxmin", "groupsort-4", "householder", "crelu"])
def test_channel_activation_equals_the_feature_activation_with_channels_last(name):
    z = normal(3, 8, 5, 5)
    expected = activation(name, dim=-1)(z.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(activation(name, dim=-3)(z), expected)
    torch.testing.assert_close(activation(name, dim=1)(z), expected)
    torch.testing.assert_close(activation(name, dim=-3)(z[0]), expected[0])


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (8, 4, 4), (2, 8, 6), (2, 8, 4, 4, 4)])
@pytest.mark.parametrize("phi", [MaxMin(), GroupSort(4), Householder(), CReLU(), activation("maxmin")], ids=repr)
def test_maps_are_not_paired_pixel_by_pixel_without_a_word(phi, shape):
    with pytest.raises(ValueError, match=r"can lie along several axes; say dim=-3 for channels of maps"):
        phi(torch.zeros(shape))


def test_maxmin_groupsort_2_and_householder_at_a_right_angle_are_the_same_map():
    z = normal(50, 16)
    assert torch.equal(MaxMin()(z), GroupSort(2)(z))
    torch.testing.assert_close(Householder()(z), MaxMin()(z))


def test_learned_householder_angle_receives_a_gradient():
    phi = Householder(learned=True)
    phi(normal(10, 4).float()).pow(3).sum().backward()
    assert phi.angle.grad is not None
    assert phi.angle.grad != 0


def correlation_after(phi: nn.Module, c: float, groups: int = 250_000, width: int = 4) -> float:
    """Correlation of phi(u) and phi(v) about zero for standard normal entries of correlation c."""
    u = normal(groups, width, dtype=torch.float32)
    v = c * u + math.sqrt(1 - c * c) * normal(groups, width, seed=1, dtype=torch.float32)
    a, b = phi(u).flatten(), phi(v).flatten()
    return float(a @ b / (a.norm() * b.norm()))


def arc_cosine_map(c: float) -> float:
    return c / 2 + (math.sqrt(1 - c * c) + c * math.asin(c)) / math.pi


@pytest.mark.parametrize("name", ["maxmin", "relu", "crelu"])
@pytest.mark.parametrize("c", [-0.6, 0.0, 0.4, 0.9])
def test_maxmin_relu_and_crelu_share_the_arc_cosine_correlation_map(name, c):
    assert correlation_after(activation(name), c) == pytest.approx(arc_cosine_map(c), abs=MONTE_CARLO)


@pytest.mark.parametrize("c", [-0.6, 0.0, 0.4, 0.9])
def test_absolute_value_has_twice_the_even_part_of_the_map(c):
    expected = 2 / math.pi * (math.sqrt(1 - c * c) + c * math.asin(c))
    assert correlation_after(Abs(), c) == pytest.approx(expected, abs=MONTE_CARLO)


@pytest.mark.parametrize(("name", "at_zero"), [("maxmin", 0.318), ("relu", 0.318), ("crelu", 0.318)])
def test_uncorrelated_inputs_get_correlation_318(name, at_zero):
    assert correlation_after(activation(name), 0.0) == pytest.approx(at_zero, abs=MONTE_CARLO)


def test_groupsort_4_gives_uncorrelated_inputs_correlation_574():
    assert correlation_after(GroupSort(4), 0.0) == pytest.approx(0.574, abs=MONTE_CARLO)


def test_every_listed_activation_name_builds():
    for name in ACTIVATIONS:
        assert isinstance(activation(name.replace("-k", "-4")), nn.Module)


ERRORS = {
    "odd width": (lambda: MaxMin()(torch.zeros(2, 5)), r"width 5 .* group 2"),
    "odd channels": (lambda: MaxMin(dim=-3)(torch.zeros(2, 3, 4, 4)), r"width 3 along dim -3 .* group 2"),
    "odd householder": (lambda: Householder()(torch.zeros(7)), r"width 7 .* group 2"),
    "group": (lambda: GroupSort(4)(torch.zeros(2, 6)), r"width 6 .* group 4"),
    "group of one": (lambda: GroupSort(1), r"group=1"),
    "unknown activation": (lambda: activation("maxmim"), r"activation='maxmim'; .* did you mean 'maxmin'"),
    "literal k": (lambda: activation("groupsort-k"), r"put a number for k"),
    "group zero": (lambda: activation("groupsort-0"), r"group=0"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_bad_value_is_a_value_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call()
