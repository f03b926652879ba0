"""Contracts of dyniso.entk. Oracles: the book's equations of the kernel, and the two methods for each other."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dyniso import entk
from dyniso.activations import MaxMin
from dyniso.entk import backward_maps, empirical_ntk, feature_grams
from dyniso.kernels import ntk_summary
from dyniso.nets import cnn, mlp, orthogonal

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # "conv same"
FLOAT64 = 1e-10  # relative; sums of a few thousand float64 products: rounding is near 1e-14


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(a: Tensor, b: Tensor, tolerance: float = FLOAT64) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max() / b.abs().max()) < tolerance


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Float64, every parameter (biases and norms too) away from its special initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def narrow_mlp(name: str, seed: int, inputs: int = 8) -> nn.Sequential:
    return randomise(mlp(inputs, 3, 8, 3, name, init="kaiming", seed=seed), seed)


# ------------------------------------------------------------------------------- the two methods for each other


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


class Residual(nn.Module):
    """A net that calls its layers out of registration order, has an idle head, and works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.idle = nn.Linear(6, 2), nn.Linear(6, 2)
        self.enter, self.block = nn.Linear(5, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        h += self.block(input=h.relu())
        return self.out(h.relu_())


class PickyGradient(torch.autograd.Function):
    """Identity whose backward pass reads a number, which vmap cannot do."""

    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, g):
        assert math.isfinite(g.sum().item())
        return g


class Picky(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return PickyGradient.apply(z)


def conv_net(*args: object, **options: object) -> nn.Sequential:
    head = [MaxMin(-3), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2)]
    return nn.Sequential(nn.Conv2d(4, 4, *args, **options), *head)


def token_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


FLAT, IMAGE, TOKENS = (5,), (4, 6, 6), (3, 5)
CASES = {
    "linear": (lambda: nn.Linear(5, 3), FLAT),
    "relu": (lambda: mlp(5, 3, 8, 3), FLAT),
    "relu without bias": (lambda: mlp(5, 3, 8, 3, bias=False), FLAT),
    "maxmin": (lambda: mlp(5, 3, 8, 3, "maxmin"), FLAT),
    "crelu": (lambda: mlp(5, 3, 8, 2, "crelu"), FLAT),
    "groupsort": (lambda: mlp(5, 3, 8, 2, "groupsort-4"), FLAT),
    "abs": (lambda: mlp(5, 3, 8, 2, "abs"), FLAT),
    "tanh": (lambda: mlp(5, 3, 8, 2, "tanh"), FLAT),
    "layernorm": (lambda: mlp(5, 3, 8, 2, norm="layernorm"), FLAT),
    "fixed layernorm": (lambda: mlp(5, 3, 8, 2, norm="layernorm_fixed"), FLAT),
    "one output": (lambda: mlp(5, 1, 8, 2), FLAT),
    "output without axis": (lambda: nn.Sequential(mlp(5, 1, 8, 2), nn.Flatten(0)), FLAT),
    "output of two axes": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (2, 3))), FLAT),
    "inplace relu": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)), FLAT),
    "residual": (Residual, FLAT),
    "frozen weight": (lambda: frozen(mlp(5, 3, 8, 2), "1.weight", "3.weight"), FLAT),
    "frozen bias": (lambda: frozen(mlp(5, 3, 8, 2), "3.bias", "5.bias"), FLAT),
    "frozen layer": (lambda: frozen(mlp(5, 3, 8, 2), "1.weight", "1.bias"), FLAT),
    "frozen norm weight": (lambda: frozen(mlp(5, 3, 8, 1, norm="layernorm"), "2.weight"), FLAT),
    "tokens": (token_net, TOKENS),
    "cnn": (lambda: cnn((4, 6, 6), 3, (4, 6), (4,)), IMAGE),
    "cnn layernorm": (lambda: cnn((4, 6, 6), 3, (4,), (4,), "maxmin", norm="layernorm"), IMAGE),
    "cnn unshuffle": (lambda: cnn((4, 6, 6), 3, (4,), (4,), "maxmin", downsample="unshuffle"), IMAGE),
    "conv padding": (lambda: conv_net(3, padding=2), IMAGE),
    "conv stride": (lambda: conv_net(3, stride=2), IMAGE),
    "conv rectangle": (lambda: conv_net((1, 4), stride=(2, 1), padding=(0, 1)), IMAGE),
    "conv dilation": (lambda: conv_net(2, dilation=2, padding=1), IMAGE),
    "conv same": (lambda: conv_net((2, 3), padding="same", dilation=(1, 2)), IMAGE),
    "conv valid": (lambda: conv_net(3, padding="valid"), IMAGE),
    "conv circular": (lambda: conv_net(3, padding=1, padding_mode="circular"), IMAGE),
    "conv reflect same": (lambda: conv_net(3, padding="same", padding_mode="reflect"), IMAGE),
    "conv groups": (lambda: conv_net(3, groups=2), IMAGE),
    "conv depthwise": (lambda: conv_net(3, groups=4, bias=False), IMAGE),
    "conv frozen weight": (lambda: frozen(conv_net(3), "0.weight"), IMAGE),
    "conv frozen bias": (lambda: frozen(conv_net(3), "0.bias"), IMAGE),
    "no batching rule": (lambda: nn.Sequential(nn.Linear(5, 4), Picky(), nn.Tanh(), nn.Linear(4, 3)), FLAT),
    "eval dropout": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(), nn.Linear(4, 3)).eval(), FLAT),
}
BOTH = {name: case for name, case in CASES.items() if name != "no batching rule"}  # jacrev batches too
cases = pytest.mark.parametrize(("build", "shape"), BOTH.values(), ids=BOTH)


@cases
def test_layerwise_equals_jacobian(build, shape):
    model, x = randomise(build()), normal(4, *shape)
    assert_close(empirical_ntk(model, x), empirical_ntk(model, x, method="jacobian"))


@cases
def test_layerwise_equals_jacobian_between_two_sets_of_inputs_in_chunks(build, shape):
    model, x1, x2 = randomise(build()), normal(3, *shape), normal(5, *shape, seed=1)
    expected = empirical_ntk(model, x1, x2, method="jacobian")
    assert_close(empirical_ntk(model, x1, x2), expected)
    assert_close(empirical_ntk(model, x1, x2, chunk=2), expected)
    assert_close(empirical_ntk(model, x1, x2, "jacobian", chunk=1), expected)


def test_kernel_equals_central_differences_over_every_parameter():
    for build, shape in (CASES["maxmin"], CASES["cnn"], CASES["layernorm"]):
        model, x = randomise(build()), normal(3, *shape)
        theta = parameters_to_vector(model.parameters()).detach()
        columns = []
        for i in range(len(theta)):
            sides = []
            for step in (1e-5, -1e-5):
                vector_to_parameters(
                    theta.index_add(0, torch.tensor([i]), theta.new_tensor([step])), model.parameters()
                )
                sides.append(model(x).detach().flatten())
            columns.append((sides[0] - sides[1]) / 2e-5)
        J = torch.stack(columns, 1)
        vector_to_parameters(theta, model.parameters())
        assert_close(empirical_ntk(model, x), J @ J.T, 1e-7)  # differences: curvature 1e-10, rounding 1e-11


def test_slices_of_one_unit_give_the_same_kernel(monkeypatch):
    for name in ("cnn", "conv groups", "tokens"):
        build, shape = CASES[name]
        model, x = randomise(build()), normal(3, *shape)
        expected = empirical_ntk(model, x)
        monkeypatch.setattr(entk, "TRANSIENT", 1)
        assert_close(empirical_ntk(model, x), expected)
        monkeypatch.undo()


def test_operations_that_vmap_cannot_batch_take_one_backward_pass_per_output():
    build, shape = CASES["no batching rule"]
    model, x = randomise(build()), normal(4, *shape)
    plain = nn.Sequential(model[0], nn.Tanh(), model[3])
    assert_close(empirical_ntk(model, x), empirical_ntk(plain, x, method="jacobian"))


def test_row_index_is_sample_major():
    x = normal(3, 5)
    theta = empirical_ntk(nn.Linear(5, 2, bias=False).double(), x)
    assert_close(theta[::2, ::2], x @ x.T)  # output 0 of every sample
    assert theta[::2, 1::2].abs().max() == 0


def test_float32_kernel_is_float32_and_close_to_float64():
    model, x = mlp(5, 3, 8, 2, "maxmin"), normal(4, 5)
    theta = empirical_ntk(model, x.float())
    assert theta.dtype == torch.float32
    assert_close(theta.double(), empirical_ntk(model.double(), x), 1e-5)


def test_jacobian_takes_what_layerwise_refuses():
    x = normal(6, 5)
    for model in (
        nn.Sequential(orthogonal(nn.Linear(5, 4), "cayley"), nn.Tanh(), nn.Linear(4, 2)).double(),
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double(),
        mlp(5, 2, 4, 1, "householder").double(),
    ):
        theta = empirical_ntk(model, x, method="jacobian")
        assert theta.shape == (12, 12)
        assert ntk_summary(theta).trace > 0


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.entries = max(self.entries, *sizes, 0)
        return result


@pytest.mark.parametrize(
    ("build", "shape"), [(lambda: mlp(32, 5, 64, 3, "maxmin"), (32,)), (lambda: cnn(channels=(8, 16)), (1, 28, 28))]
)
def test_layerwise_never_allocates_the_jacobian(build, shape):
    model, x = build(), normal(6, *shape).float()
    entries = model(x).numel() * sum(p.numel() for p in model.parameters())  # n C P
    largest = {}
    for method in ("layerwise", "jacobian"):
        with LargestTensor() as mode:
            empirical_ntk(model, x, method=method)
        largest[method] = mode.entries
    assert largest["jacobian"] >= entries
    assert largest["layerwise"] < entries / 20


# --------------------------------------------------------------------------------------------- model untouched


def snapshot(model: nn.Module) -> list[object]:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    grads = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = [v.clone() for v in model.state_dict().values()]
    flags = [(m.training) for m in model.modules()] + [p.requires_grad for p in model.parameters()]
    return [hooks, grads, state, flags, torch.get_rng_state()]


@pytest.mark.parametrize("method", ["layerwise", "jacobian"])
def test_model_and_generator_are_untouched(method):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, affine=method == "jacobian"), nn.Linear(4, 2)).double()
    x = normal(6, 5)
    model(x).sum().backward()
    model[2].bias.grad = None
    model[0].register_forward_hook(lambda m, args, out: 2 * out)
    before = snapshot(model)
    if method == "layerwise":
        with pytest.raises(ValueError, match="depend on other samples"):  # leaves by way of an error, in train mode
            empirical_ntk(model, x)
        assert torch.equal(before[2][2], model[1].running_mean)
        model[1].eval()
        before = snapshot(model)
    empirical_ntk(model, x, method=method)
    after = snapshot(model)
    assert str(after) == str(before)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["layerwise", "jacobian"])
def test_works_inside_no_grad_and_inference_mode(context, method):
    model, x = mlp(5, 3, 8, 2, "maxmin").double(), normal(4, 5)
    expected = empirical_ntk(model, x)
    with context():
        y = x * 1
        assert_close(empirical_ntk(model, y, method=method), expected)
        assert_close(feature_grams(model, y)["1"], x @ x.T + 1)
        assert len(backward_maps(model, y)) == 3
    assert not expected.requires_grad


@pytest.mark.parametrize("method", ["layerwise", "jacobian"])
def test_inputs_survive_a_net_that_works_in_place(method):
    x = normal(4, 5)
    before = x.clone()
    empirical_ntk(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 2).double()), x, method=method)
    assert torch.equal(x, before)


def test_user_hooks_keep_their_effect():
    x = normal(4, 5)
    model = mlp(5, 3, 8, 2).double()
    model[1].register_forward_hook(lambda module, args, output: 2 * output)
    assert_close(empirical_ntk(model, x), empirical_ntk(model, x, method="jacobian"))


# ---------------------------------------------------------------------------------- layer quantities and theory


@pytest.mark.parametrize("name", ["relu", "maxmin", "tanh"])
def test_backward_maps_are_products_of_layer_jacobians(name):
    model, x = narrow_mlp(name, seed=1), normal(3, 8)
    maps = backward_maps(model, x)
    assert list(maps) == ["1", "3", "5", "7"]
    for layer in (1, 3, 5):
        for i in range(3):
            z = model[: layer + 1](x[i : i + 1])
            J = torch.autograd.functional.jacobian(lambda z, start=layer + 1: model[start:](z)[0], z)
            assert_close(maps[str(layer)][i], J[:, 0])
    assert_close(maps["7"], torch.eye(3, dtype=torch.float64).expand(3, 3, 3))


def test_backward_maps_include_frozen_parametrized_and_convolution_layers():
    layers = [nn.Conv2d(4, 2, 3), nn.Flatten(), orthogonal(nn.Linear(32, 6)), MaxMin(), nn.Linear(6, 3)]
    model = nn.Sequential(*layers).double().requires_grad_(False)
    maps = backward_maps(model, normal(5, *IMAGE))
    assert {name: tuple(B.shape) for name, B in maps.items()} == {"0": (5, 3, 32), "2": (5, 3, 6), "4": (5, 3, 3)}
    W = model[4].weight
    assert_close(maps["2"] @ maps["2"].mT, (W @ W.T).expand(5, 3, 3))  # MaxMin permutes
    assert list(feature_grams(model.requires_grad_(True), normal(5, *IMAGE))) == ["2", "4"]


def test_kernel_is_the_sum_over_layers_of_equation_3():
    model, x = narrow_mlp("relu", seed=2), normal(4, 8)
    grams, maps = feature_grams(model, x), backward_maps(model, x)
    total = sum(grams[name][:, None, :, None] * torch.einsum("icd,jed->icje", maps[name], maps[name]) for name in grams)
    assert_close(empirical_ntk(model, x), total.reshape(12, 12))


def test_feature_grams_follow_what_is_trained():
    x = normal(4, 5)
    model = frozen(mlp(5, 3, 8, 2).double(), "1.weight", "3.bias", "5.weight", "5.bias")
    grams = feature_grams(model, x, chunk=3)
    h = model[:3](x)
    assert list(grams) == ["1", "3"]
    assert_close(grams["1"], torch.ones(4, 4, dtype=torch.float64))
    assert_close(grams["3"], (h @ h.T).detach())


seeds = pytest.mark.parametrize("seed", range(6))


@seeds
@pytest.mark.parametrize("name", ["relu", "maxmin", "abs"])
def test_last_feature_gram_is_a_floor_of_the_kernel(name, seed):
    model, x = narrow_mlp(name, seed), normal(5, 8, seed=seed)
    theta = empirical_ntk(model, x)
    floor = torch.kron(feature_grams(model, x)["7"], torch.eye(3, dtype=torch.float64))
    assert torch.linalg.eigvalsh(theta - floor)[0] > -FLOAT64 * theta.abs().max()


def layer_norms(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """a_l = |h_{l-1}|^2 + 1 for each linear layer, shape (n,)."""
    return [K.diagonal() for K in feature_grams(model, x).values()]


def test_isometric_net_with_orthogonal_head_has_a_multiple_of_the_identity_as_block():
    model, x = mlp(20, 4, 16, 6, "maxmin", head_gain=2.0).double(), normal(3, 20)
    theta = empirical_ntk(model, x)
    *hidden, last = layer_norms(model, x)
    for i in range(3):
        expected = (last[i] + 2.0**2 * sum(a[i] for a in hidden)) * torch.eye(4, dtype=torch.float64)
        assert_close(theta[4 * i : 4 * i + 4, 4 * i : 4 * i + 4], expected, 1e-5)  # weights orthogonal to float32


def test_free_head_gives_the_condition_number_of_the_formula():
    model, x = mlp(20, 4, 16, 6, "maxmin").double(), normal(1, 20)
    with torch.no_grad():
        model[-1].weight.copy_(normal(4, 16, seed=3))
    low, high = torch.linalg.svdvals(model[-1].weight.detach())[[-1, 0]].square()
    *hidden, last = (a[0] for a in layer_norms(model, x))
    expected = (last + high * sum(hidden)) / (last + low * sum(hidden))
    measured = ntk_summary(empirical_ntk(model, x)).condition_number
    assert float(measured) == pytest.approx(float(expected), rel=1e-5)
    assert 1.5 < measured <= high / low


@seeds
@pytest.mark.parametrize("name", ["maxmin", "abs", "tanh"])
def test_theorem_1_bounds_the_block_by_layer_conditioning(name, seed):
    model, x = narrow_mlp(name, seed), normal(1, 8, seed=seed)
    kappa = float(ntk_summary(empirical_ntk(model, x)).condition_number)
    ratios = []  # kappa(M_m), m = 2..L, M_m = W_m D_{m-1}
    for layer in (1, 3, 5):
        z = model[: layer + 1](x)[0]
        M = torch.autograd.functional.jacobian(lambda z, k=layer: model[k + 2](model[k + 1](z)), z)
        sigma = torch.linalg.svdvals(M)
        ratios.append(float(sigma[0] / sigma[-1]))
    products = [math.prod(r**2 for r in ratios[start:]) for start in range(4)]
    assert kappa <= max(products) * (1 + 1e-9) <= products[0] * (1 + 2e-9)


@seeds
@pytest.mark.parametrize("name", ["relu", "maxmin", "abs"])
def test_theorem_2_bounds_the_kernel_by_grams_and_backward_maps(name, seed):
    model, x = narrow_mlp(name, seed, inputs=16), normal(4, 16, seed=seed)
    theta = ntk_summary(empirical_ntk(model, x)).eigenvalues
    grams = [torch.linalg.eigvalsh(K) for K in feature_grams(model, x).values()]
    sigma = [torch.linalg.svdvals(B).square() for B in backward_maps(model, x).values()]
    lower = sum(g[0] * s.min() for g, s in zip(grams, sigma, strict=True))
    upper = sum(g[-1] * s.max() for g, s in zip(grams, sigma, strict=True))
    assert lower * (1 - 1e-9) <= theta[0]
    assert theta[-1] <= upper * (1 + 1e-9)
    worst = max(float(g[-1] / g[0] * s.max() / s.min()) for g, s in zip(grams, sigma, strict=True))
    assert theta[-1] / theta[0] <= worst * (1 + 1e-9)


def test_relu_gauge_leaves_the_function_and_changes_the_kernel():
    model, x = mlp(10, 3, 32, 3, init="kaiming").double(), normal(8, 10)
    f, before = model(x).detach(), ntk_summary(empirical_ntk(model, x)).condition_number
    with torch.no_grad():
        for layer in (1, 3, 5):
            scale = torch.exp(1.5 * normal(32, seed=layer))
            model[layer].weight.mul_(scale[:, None])
            model[layer].bias.mul_(scale)
            model[layer + 2].weight.div_(scale)
    assert_close(model(x).detach(), f, 1e-12)
    assert ntk_summary(empirical_ntk(model, x)).condition_number > 3 * before


# ------------------------------------------------------------------------------------------------------ errors


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


class TiedDecoder(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.layer.weight


class BehindTheBack(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.layer.weight)


class OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def shared_weight() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    return model


LAYERWISE_ERRORS = {
    "own parameter": (lambda: nn.Sequential(OwnParameter()), r"'0' \(OwnParameter\).*scale.*method=\"jacobian\""),
    "parametrized": (lambda: nn.Sequential(orthogonal(nn.Linear(5, 5, bias=False))), r"'0.parametrizations.weight'"),
    "weight norm": (lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 5))), r"'0' \(Linear\).*weight_g"),
    "embedding": (lambda: nn.Sequential(nn.Linear(5, 5), nn.Embedding(3, 2)), r"'1' \(Embedding\)"),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), r"'1' \(BatchNorm1d\)"),
    "batch statistics": (lambda: nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5, affine=False)), r"other samples"),
    "householder": (lambda: mlp(5, 3, 4, 1, "householder"), r"'2' \(Householder\)"),
    "called twice": (Twice, r"'layer' \(Linear\) is called more than once.*method=\"jacobian\""),
    "module twice": (lambda: nn.Sequential(*[nn.Linear(5, 5)] * 2), r"'1' \(Linear\) shares a parameter with '0'"),
    "shared weight": (shared_weight, r"'1' \(Linear\) shares a parameter with '0'"),
    "tied decoder": (TiedDecoder, r"'layer' \(Linear\) has a parameter that is also used without calling it"),
    "behind the back": (BehindTheBack, r"'layer' \(Linear\) has a parameter that is also used without calling it"),
    "dropout": (lambda: nn.Sequential(nn.Linear(5, 5), nn.Dropout()), r"'1' \(Dropout\) is active.*eval\(\)"),
    "frozen": (lambda: nn.Linear(5, 3).requires_grad_(False), r"Linear has no trainable parameter"),
    "sum over samples": (lambda: nn.Sequential(nn.Linear(5, 1), nn.Flatten(0), nn.Unflatten(0, (1, 4))), r"\(1, 4\)"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own notice about weight_norm
@pytest.mark.parametrize(("build", "message"), LAYERWISE_ERRORS.values(), ids=LAYERWISE_ERRORS)
def test_layerwise_refuses_what_it_cannot_factor(build, message):
    with pytest.raises(ValueError, match=message):
        empirical_ntk(build().double(), normal(4, 5))


CALL_ERRORS = {
    "method": (
        lambda: empirical_ntk(nn.Linear(2, 2), torch.ones(1, 2), method="exact"),
        r"method='exact'; allowed are 'layerwise', 'jacobian'",
    ),
    "chunk": (lambda: empirical_ntk(nn.Linear(2, 2), torch.ones(1, 2), chunk=0), r"chunk=0"),
    "no samples": (lambda: backward_maps(nn.Linear(2, 2), torch.ones(0, 2)), r"\(0, 2\)"),
    "tokens": (lambda: feature_grams(nn.Linear(2, 2), torch.ones(3, 4, 2)), r"\(3, 4, 2\), not \(n, features\)"),
}


@pytest.mark.parametrize(("call", "message"), CALL_ERRORS.values(), ids=CALL_ERRORS)
def test_bad_value_is_a_value_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call()
