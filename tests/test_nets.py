"""Contracts of dyniso.nets: orthogonal layers stay so, and builders build what they say."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from dyniso.activations import ACTIVATIONS
from dyniso.initialisation import initialise, orthogonal_
from dyniso.isometry import as_matrix
from dyniso.nets import NORMS, cnn, mlp, orthogonal

FLOAT32 = 1e-5  # float32 factorisations of up to 128-wide matrices: rounding is near 1e-6


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_identity(gram: torch.Tensor, tolerance: float) -> None:
    assert torch.dist(gram, torch.eye(len(gram), dtype=gram.dtype), p=math.inf) < tolerance


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
    "method": (lambda: orthogonal(nn.Linear(2, 2), "caley"), r"method='caley'; .* did you mean 'cayley'"),
    "conv by cayley": (lambda: orthogonal(nn.Conv2d(2, 2, 3), "cayley"), r"\(2, 2, 3, 3\); use 'newton_schulz'"),
    "no weight": (lambda: orthogonal(nn.ReLU()), r"ReLU has no weight"),
    "vector weight": (lambda: orthogonal(nn.LayerNorm(4)), r"LayerNorm .* \(4,\)"),
    "twice": (lambda: orthogonal(orthogonal(nn.Linear(2, 2))), r"already parametrized"),
    "steps": (lambda: orthogonal(nn.Linear(2, 2), "newton_schulz", steps=0), r"steps=0"),
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


@pytest.mark.parametrize("build", [lambda: mlp(4, 2, width=6), lambda: cnn((1, 8, 8), 2)], ids=["mlp", "cnn"])
def test_nets_are_built_on_the_default_device(build):
    with torch.device("meta"):
        model = build()
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_generator_is_used_in_place_of_the_seed_and_advanced():
    g = torch.Generator().manual_seed(3)
    first, second, again = (mlp(4, 2, width=6, depth=1, generator=h) for h in (g, g, torch.Generator().manual_seed(3)))
    weights = [net[1].weight.detach() for net in (first, second, again, mlp(4, 2, width=6, depth=1))]
    assert torch.equal(weights[0], weights[2])
    assert not any(torch.equal(weights[0], other) for other in (weights[1], weights[3]))


def test_fixed_norm_learns_nothing_and_the_other_a_scale_and_a_shift():
    plain, learned, fixed = (len(list(mlp(4, 2, 6, 2, norm=norm).parameters())) for norm in NORMS)
    assert fixed == plain and learned == plain + 4
