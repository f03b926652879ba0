"""Contracts of dyniso.nets. Oracles: closed forms of the Jacobians and of the correlation maps."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, stack_module_state, vmap

from dyniso.activations import ACTIVATIONS, Abs, CReLU, GroupSort, Householder, MaxMin, activation
from dyniso.isometry import as_matrix, conv_operator_singular_values
from dyniso.nets import cnn, delta_orthogonal_, initialise, mlp, orthogonal, orthogonal_

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
FLOAT32 = 1e-5  # float32 factorisations of up to 128-wide matrices: rounding is near 1e-6
MONTE_CARLO = 4e-3  # 10^6 samples a point: standard error 1e-3 or less


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_identity(gram: torch.Tensor, tolerance: float) -> None:
    assert torch.dist(gram, torch.eye(len(gram), dtype=gram.dtype), p=math.inf) < tolerance


# ------------------------------------------------------------------------------------------------ activations


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
    expected = activation(name)(z.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(activation(name, dim=-3)(z), expected)
    torch.testing.assert_close(activation(name, dim=1)(z), expected)
    torch.testing.assert_close(activation(name, dim=-3)(z[0]), expected[0])


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


# ------------------------------------------------------------------------------------------- orthogonal layers

LAYERS = {
    **{
        f"{method}-{out}x{inp}": (method, lambda out=out, inp=inp: nn.Linear(inp, out))
        for method in ("householder", "cayley", "matrix_exp", "newton_schulz")
        for out, inp in ((12, 12), (20, 8), (8, 20))
    },
    "newton_schulz-conv": ("newton_schulz", lambda: nn.Conv2d(3, 8, 3)),
}


@pytest.mark.parametrize(("method", "build"), LAYERS.values(), ids=LAYERS)
def test_orthogonal_layer_has_singular_values_one_before_and_after_optimizer_steps(method, build):
    layer = orthogonal(build(), method)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    x = normal(4, *layer.weight.shape[1:2], *layer.weight.shape[2:], dtype=torch.float32)
    before = layer.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().sin().sum().backward()
        optimizer.step()
    assert torch.dist(layer.weight, before) > 0.05
    for W in (before, layer.weight.detach()):
        assert (torch.linalg.svdvals(as_matrix(W)) - 1).abs().max() < FLOAT32


@pytest.mark.parametrize(("method", "build"), LAYERS.values(), ids=LAYERS)
def test_orthogonal_keeps_an_already_orthogonal_weight_and_the_global_generator(method, build):
    layer = initialise(build(), "orthogonal", generator=torch.Generator().manual_seed(0))
    if isinstance(layer, nn.Conv2d):
        layer.weight.data = orthogonal_(layer.weight.data.flatten(1)).reshape(layer.weight.shape)
    before, state = layer.weight.detach().clone(), torch.get_rng_state()
    orthogonal(layer, method)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.dist(layer.weight, before, p=math.inf) < FLOAT32


def test_newton_schulz_layer_starts_at_the_nearest_orthogonal_matrix():
    layer = nn.Linear(8, 5)
    U, _, Vh = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    assert torch.dist(orthogonal(layer, "newton_schulz").weight, U @ Vh) < FLOAT32


def test_newton_schulz_layer_starts_orthogonal_from_an_ill_conditioned_weight():
    layer = nn.Linear(4, 4)
    layer.weight.data = torch.diag(torch.tensor([1.0, 1e-2, 1e-4, 1e-6]))
    assert torch.dist(orthogonal(layer, "newton_schulz").weight, torch.eye(4)) < FLOAT32


# ---------------------------------------------------------------------------------------------- initialisation


@pytest.mark.parametrize(("out", "inp"), [(6, 6), (9, 4), (4, 9)])
def test_orthogonal_draw_has_every_singular_value_at_the_gain(out, inp):
    W = orthogonal_(torch.empty(out, inp), gain=1.7, generator=torch.Generator().manual_seed(1))
    assert (torch.linalg.svdvals(W) - 1.7).abs().max() < FLOAT32


@pytest.mark.parametrize(("out", "inp"), [(6, 6), (9, 4)])
def test_delta_orthogonal_convolution_is_exactly_isometric_at_stride_one(out, inp):
    kernel = delta_orthogonal_(torch.empty(out, inp, 3, 3, dtype=torch.float64))
    x = normal(5, inp, 7, 7)
    y = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), kernel)
    torch.testing.assert_close(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    assert (conv_operator_singular_values(kernel, 7) - 1).abs().max() < FLOAT64


def test_delta_orthogonal_with_fewer_outputs_than_inputs_is_isometric_backwards():
    kernel = delta_orthogonal_(torch.empty(3, 8, 3, 3, dtype=torch.float64))
    assert_identity(kernel[:, :, 1, 1] @ kernel[:, :, 1, 1].T, FLOAT64)


def test_each_group_of_a_grouped_convolution_is_isometric():
    conv = initialise(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), "orthogonal")
    x = normal(3, 8, 5, 5, dtype=torch.float32)
    torch.testing.assert_close(conv(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


def test_strided_convolution_gets_an_orthogonal_kernel_matrix_that_sees_every_pixel():
    conv = initialise(nn.Conv2d(4, 6, 3, stride=2), "orthogonal")
    assert (torch.linalg.svdvals(as_matrix(conv.weight.detach())) - 1).abs().max() < FLOAT32
    assert (conv.weight.abs().sum((0, 1)) > 0).all()


@pytest.mark.parametrize("scheme", ["orthogonal", "kaiming"])
def test_biases_start_at_zero(scheme):
    model = initialise(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2)), scheme)
    assert all((p == 0).all() for name, p in model.named_parameters() if "bias" in name)


def test_kaiming_has_the_standard_deviation_of_he():
    weight = initialise(nn.Linear(200, 1000), "kaiming", gain=3.0).weight
    assert float(weight.detach().std()) == pytest.approx(
        3 * math.sqrt(2 / 200), rel=0.01
    )  # 2e5 draws: 0.2 % standard error


def test_default_scheme_repeats_torch_exactly_for_the_same_generator_state():
    torch.manual_seed(3)
    expected = nn.Linear(7, 5)
    drawn = initialise(nn.Linear(7, 5), "default", generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn.weight, expected.weight)
    assert torch.equal(drawn.bias, expected.bias)


def test_head_gain_scales_only_the_head():
    gains = [torch.linalg.svdvals(m.weight).max().item() for m in mlp(6, 3, 8, 2, gain=1.5, head_gain=0.01)[1::2]]
    assert gains == pytest.approx([1.5, 1.5, 0.01], abs=FLOAT32)


# ---------------------------------------------------------------------------------------------------- builders

NETS = {
    "mlp": lambda **kw: mlp(12, 3, 8, 2, **kw),
    "cnn": lambda **kw: cnn((2, 8, 8), 3, (4, 8), (8,), **kw),
    "cnn-unshuffle": lambda **kw: cnn((2, 8, 8), 3, (4, 8), (8,), downsample="unshuffle", **kw),
}
builders = pytest.mark.parametrize("build", NETS.values(), ids=NETS)


def inputs_of(build) -> torch.Tensor:
    return normal(5, 12, dtype=torch.float32) if build is NETS["mlp"] else normal(5, 2, 8, 8, dtype=torch.float32)


@builders
@pytest.mark.parametrize("name", [name.replace("-k", "-4") for name in ACTIVATIONS])
@pytest.mark.parametrize("norm", ["none", "layernorm", "layernorm_fixed"])
def test_every_activation_and_norm_builds_and_runs(build, name, norm):
    assert build(activation=name, norm=norm)(inputs_of(build)).shape == (5, 3)


@builders
@pytest.mark.parametrize("init", ["orthogonal", "kaiming", "default"])
def test_builder_is_deterministic_and_leaves_the_global_generator_alone(build, init):
    state = torch.get_rng_state()
    nets = [build(init=init, seed=s).state_dict() for s in (4, 4, 5)]
    generator = torch.Generator().manual_seed(4)
    passed = [build(init=init, generator=generator.manual_seed(4)).state_dict() for _ in range(2)]
    following = build(init=init, generator=generator).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    for same, other in (nets[:2], nets[2]), (passed, following):
        assert all(torch.equal(same[0][k], same[1][k]) for k in other)
        assert any(not torch.equal(same[0][k], other[k]) for k in other)


def test_inputs_drawn_with_the_seed_of_the_net_are_not_aligned_with_its_weights():
    x = normal(8, 784, dtype=torch.float32)  # as torch.manual_seed(0); torch.randn(8, 784)
    W = mlp(784, 10, 512, 1, init="kaiming", seed=0)[1].weight.detach()
    cosine = nn.functional.normalize(x) @ nn.functional.normalize(W).T
    assert cosine.abs().max() < 0.25  # 4096 cosines of standard deviation 1/28


@builders
@pytest.mark.parametrize("name", ["relu", "maxmin", "householder", "crelu"])
def test_stacked_parameters_under_vmap_equal_separate_nets(build, name):
    nets = [build(activation=name, seed=seed) for seed in range(3)]
    params, buffers = stack_module_state(nets)
    x = inputs_of(build)
    stacked = vmap(lambda p, b: functional_call(nets[0], (p, b), (x,)))(params, buffers)
    torch.testing.assert_close(stacked, torch.stack([net(x) for net in nets]))


@builders
def test_no_bias_means_no_bias(build):
    assert not [name for name, _ in build(bias=False).named_parameters() if "bias" in name]


def test_paper_net_is_four_hidden_layers_of_512():
    shapes = [tuple(m.weight.shape) for m in mlp(3072, 10) if isinstance(m, nn.Linear)]
    assert shapes == [(512, 3072), (512, 512), (512, 512), (512, 512), (10, 512)]


@pytest.mark.parametrize("size", [7, 15, 28])
def test_cnn_takes_images_that_the_stride_does_not_divide(size):
    assert cnn((3, size, size + 1), 4, kernel=5, stride=3)(torch.zeros(2, 3, size, size + 1)).shape == (2, 4)


def test_depth_zero_is_a_linear_map():
    assert [type(m) for m in mlp(4, 2, depth=0)] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("name", ["maxmin", "groupsort-4", "abs", "householder"])
def test_sixty_four_layer_orthogonal_net_has_input_output_jacobian_with_singular_values_one(name):
    model = mlp(16, 16, 16, 64, name, seed=2).double()
    J = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], normal(16))
    assert_identity(J.T @ J, 1e-4)  # the weights are orthogonal to float32 only: 65 layers of about 1e-7 each


def test_unshuffled_stride_one_net_is_isometric_where_the_strided_one_is_not():
    x = normal(1, 1, 8, 8, dtype=torch.float32)
    spread = {}
    for downsample in ("unshuffle", "stride"):
        trunk = cnn((1, 8, 8), 4, (4, 16), (), "maxmin", downsample=downsample)[:-1]
        J = torch.autograd.functional.jacobian(lambda z, trunk=trunk: trunk(z[None])[0], x[0]).flatten(1)
        spread[downsample] = (torch.linalg.svdvals(J) - 1).abs().max()
    assert spread["unshuffle"] < FLOAT32
    assert spread["stride"] > 0.1


# ------------------------------------------------------------------------------------------------------ errors

ERRORS = {
    "odd width": (lambda: MaxMin()(torch.zeros(2, 5)), r"width 5 .* group 2"),
    "odd channels": (lambda: MaxMin(dim=-3)(torch.zeros(2, 3, 4, 4)), r"width 3 along dim -3 .* group 2"),
    "odd householder": (lambda: Householder()(torch.zeros(7)), r"width 7 .* group 2"),
    "group": (lambda: GroupSort(4)(torch.zeros(2, 6)), r"width 6 .* group 4"),
    "group of one": (lambda: GroupSort(1), r"group=1"),
    "unknown activation": (lambda: activation("maxmim"), r"activation='maxmim'; .* did you mean 'maxmin'"),
    "literal k": (lambda: activation("groupsort-k"), r"put a number for k"),
    "group zero": (lambda: activation("groupsort-0"), r"group=0"),
    "method": (lambda: orthogonal(nn.Linear(2, 2), "caley"), r"method='caley'; .* did you mean 'cayley'"),
    "conv by cayley": (lambda: orthogonal(nn.Conv2d(2, 2, 3), "cayley"), r"\(2, 2, 3, 3\); use 'newton_schulz'"),
    "no weight": (lambda: orthogonal(nn.ReLU()), r"ReLU has no weight"),
    "vector weight": (lambda: orthogonal(nn.LayerNorm(4)), r"LayerNorm .* \(4,\)"),
    "twice": (lambda: orthogonal(orthogonal(nn.Linear(2, 2))), r"already parametrized"),
    "steps": (lambda: orthogonal(nn.Linear(2, 2), "newton_schulz", steps=0), r"steps=0"),
    "not a matrix": (lambda: orthogonal_(torch.empty(2, 2, 3, 3)), r"\(2, 2, 3, 3\)"),
    "even kernel": (lambda: delta_orthogonal_(torch.empty(2, 2, 4, 4)), r"\(2, 2, 4, 4\).*odd"),
    "no window": (lambda: delta_orthogonal_(torch.empty(2, 2)), r"\(2, 2\)"),
    "scheme": (lambda: initialise(nn.Linear(2, 2), "ortogonal"), r"scheme='ortogonal'; .* did you mean 'orthogonal'"),
    "parametrized": (lambda: initialise(nn.Sequential(orthogonal(nn.Linear(2, 2)))), r"'0' is parametrized"),
    "width": (lambda: mlp(4, 2, width=0), r"width=0; it must be a whole number from 1"),
    "inputs": (lambda: mlp(-1, 2), r"inputs=-1"),
    "outputs": (lambda: mlp(4, 0), r"outputs=0"),
    "depth": (lambda: mlp(4, 2, depth=-1), r"depth=-1; it must be a whole number from 0"),
    "odd mlp": (lambda: mlp(4, 2, width=7, activation="maxmin"), r"width 7 .* group 2 .* 'maxmin'"),
    "norm": (lambda: mlp(4, 2, norm="layer_norm"), r"norm='layer_norm'; .* did you mean 'layernorm'"),
    "init": (lambda: mlp(4, 2, init="xavier"), r"init='xavier'; allowed are 'orthogonal', 'kaiming', 'default'"),
    "odd cnn": (lambda: cnn(channels=(15,), activation="maxmin"), r"width 15 .* group 2"),
    "odd hidden": (lambda: cnn(hidden=(6,), activation="groupsort-4"), r"width 6 .* group 4"),
    "cnn channels": (lambda: cnn(channels=(8, 0)), r"channels\[1\]=0"),
    "cnn kernel": (lambda: cnn(kernel=4), r"kernel=4"),
    "cnn stride": (lambda: cnn(stride=0), r"stride=0"),
    "downsample": (lambda: cnn(downsample="pool"), r"downsample='pool'; allowed are 'stride', 'unshuffle'"),
    "undivided": (lambda: cnn((1, 10, 10), downsample="unshuffle"), r"stride 2 does not divide .* 5 x 5"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_bad_value_is_a_value_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call()
