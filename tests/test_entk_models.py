"""The kernel of other people's models: the right value, or one sentence that says why there is none."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyniso.entk import backward_maps, empirical_ntk, feature_grams
from dyniso.nets import cnn, mlp

BOTH = pytest.mark.parametrize("method", ["layerwise", "jacobian"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row_by_row(model: nn.Module, x: Tensor) -> Tensor:
    """The kernel from one backward pass of one sample after the other: knows nothing of hooks or batching."""
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for sample in x.split(1):
        for output in model(sample).flatten():
            grads = torch.autograd.grad(output, params, allow_unused=True, retain_graph=True)
            pairs = zip(grads, params, strict=True)
            rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
    J = torch.stack(rows)
    return J @ J.T


def forward(function, *layers: nn.Module) -> nn.Module:
    """A net of float64 layers a, b, ... whose forward pass is given."""

    class Net(nn.Module):
        def forward(self, x):
            return function(self, x)

    net = Net()
    for name, layer in zip("abcdef", layers, strict=False):
        net.add_module(name, layer)
    return net.double()


def encoder(**options) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)
    return nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Flatten(), nn.Linear(12, 2))


def with_statistics(model: nn.Module) -> nn.Module:
    """Eval mode, after batches whose statistics are not 0 and 1."""
    model.double().train()
    for seed in range(3):
        model(1 + 2 * normal(8, 3, 6, 6, seed=seed))
    return model.eval()


def conv_with_batch_norm() -> nn.Module:
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5)]
    return with_statistics(nn.Sequential(*body, nn.Linear(5, 2)))


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])


FLAT, IMAGE, TOKENS = (4, 5), (3, 3, 6, 6), (3, 3, 4)
MODELS = {  # model, shape of the inputs, whether "layerwise" gives a value
    "batch norm in eval": (conv_with_batch_norm, IMAGE, True),
    "encoder": (lambda: encoder().double().eval(), TOKENS, False),
    "encoder, norm first": (lambda: encoder(norm_first=True, activation="gelu").double().eval(), TOKENS, False),
    "GRU": (lambda: Gru().double().eval(), TOKENS, False),
    "residual": (lambda: forward(lambda m, x: m.b(x + m.a(x).relu()), nn.Linear(5, 5), nn.Linear(5, 2)), FLAT, True),
    "branches": (
        lambda: forward(lambda m, x: m.a(x).relu() * m.b(x).tanh(), nn.Linear(5, 2), nn.Linear(5, 2)), FLAT, True
    ),
    "tied": (lambda: forward(lambda m, x: m.a(x).relu() @ m.a.weight, nn.Linear(5, 5)), FLAT, False),
    "shared module": (lambda: forward(lambda m, x: m.a(m.a(x).relu()), nn.Linear(5, 5)), FLAT, False),
    "scripted loop": (lambda: forward(lambda m, x: sum(m.a(x) for _ in range(2)), nn.Linear(5, 2)), FLAT, False),
    "no influence": (
        lambda: forward(lambda m, x: m.a(x) + m.b(x).detach(), nn.Linear(5, 2), nn.Linear(5, 2)), FLAT, True
    ),
    "dropout of zero": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.0), nn.Linear(4, 2)).double(), FLAT, True),
}  # fmt: skip


@pytest.mark.parametrize(("build", "shape", "factors"), MODELS.values(), ids=MODELS)
def test_kernel_is_that_of_single_backward_passes_or_refused(build, shape, factors):
    model, x = build(), normal(*shape)
    expected = row_by_row(model, x)
    torch.testing.assert_close(empirical_ntk(model, x, method="jacobian"), expected, rtol=1e-9, atol=1e-9)
    if factors:
        torch.testing.assert_close(empirical_ntk(model, x), expected, rtol=1e-9, atol=1e-9)
    else:
        with pytest.raises(ValueError, match=r"use empirical_ntk.*method=\"jacobian\""):
            empirical_ntk(model, x)


@BOTH
@pytest.mark.parametrize("called", [False, True])
def test_kernel_of_a_compiled_model_is_the_eager_one(method, called):
    model, x = mlp(5, 3, 8, 2).double(), normal(4, 5)
    expected = empirical_ntk(model, x, method=method)
    compiled = torch.compile(model, backend="eager")
    parts = nn.Sequential(torch.compile(model[:3], backend="eager"), model[3:])
    if called:
        compiled(x), parts(x)
    for other in (compiled, parts):
        torch.testing.assert_close(empirical_ntk(other, x, method=method), expected)
    assert list(backward_maps(compiled, x)) == list(feature_grams(compiled, x)) == ["1", "3", "5"]


def test_kernel_of_a_model_that_was_compiled_in_place_is_the_eager_one():
    model, x = mlp(5, 3, 8, 2).double(), normal(4, 5)
    expected = empirical_ntk(model, x)
    model.compile(backend="eager")
    torch.testing.assert_close(empirical_ntk(model, x), expected)


class Noise(nn.Module):
    """Random in a way that is given, after a linear layer."""

    def __init__(self, way, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.way, self.own = layer, way, torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x).flatten(1)


def linear(way) -> Noise:
    return Noise(lambda m, x: way(m.layer(x)), nn.Linear(4, 4))


RANDOM = {
    "nn.Dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.Dropout(0.1)),
    "F.dropout": lambda: linear(lambda z: F.dropout(z, 0.1)),
    "attention": lambda: Noise(lambda m, x: m.layer(x, x, x)[0], nn.MultiheadAttention(4, 2, 0.1, batch_first=True)),
    "encoder": lambda: encoder(),
    "LSTM": lambda: Noise(lambda m, x: m.layer(x)[0], nn.LSTM(4, 3, 2, dropout=0.1, batch_first=True)),
    "SDPA": lambda: linear(lambda z: F.scaled_dot_product_attention(z, z, z, dropout_p=0.1)),
    "RReLU": lambda: linear(nn.RReLU()),
    "bernoulli": lambda: linear(lambda z: z * torch.bernoulli(torch.full_like(z, 0.999))),
    "normal": lambda: linear(lambda z: z + 1e-9 * torch.randn_like(z)),
    "own generator": lambda: Noise(lambda m, x: m.layer(x) * torch.rand(1, generator=m.own), nn.Linear(4, 4)),
    "numpy": lambda: linear(lambda z: z * float(np.random.rand() < 0.999)),  # noqa: NPY002
    "random": lambda: linear(lambda z: z * float(random.random() < 0.999)),
}


@BOTH
@pytest.mark.parametrize("build", RANDOM.values(), ids=RANDOM)
def test_randomness_of_any_kind_is_refused(build, method):
    model, state = build().double().train(), torch.get_rng_state()
    said = r"random|two passes give different outputs.*eval\(\)"
    with pytest.raises(ValueError, match=said if method == "jacobian" else f"{said}|use empirical_ntk"):
        empirical_ntk(model, normal(2, 3, 4), method=method)
    assert torch.equal(state, torch.get_rng_state())


def test_the_module_that_draws_is_named():
    model = encoder().double().train()
    with pytest.raises(ValueError, match=r"module '0.layers.0.self_attn' \(MultiheadAttention\) is active"):
        empirical_ntk(model, normal(2, 3, 4), method="jacobian")


def test_hook_on_a_parameter_s_gradient_changes_no_kernel():
    model, x = mlp(5, 2, 4, 1).double(), normal(3, 5)
    expected = empirical_ntk(model, x)
    model[1].weight.register_hook(lambda gradient: 0 * gradient)
    torch.testing.assert_close(empirical_ntk(model, x, method="jacobian"), expected)
    torch.testing.assert_close(empirical_ntk(model, x), expected)


OUTPUTS = {
    "tuple": (lambda m, x: (m.a(x), x), r"output is of type tuple; expected a tensor of shape \(4, C\)"),
    "dict": (lambda m, x: {"logits": m.a(x)}, r"output is of type dict; expected a tensor of shape \(4, C\)"),
    "whole numbers": (lambda m, x: m.a(x).argmax(1), r"dtype of the model's output=torch.int64"),
    "mean": (lambda m, x: m.a(x).mean(0), r"output has shape \(2,\)"),
    "detached": (lambda m, x: m.a(x).detach(), "carries no gradient"),
    "no_grad": (torch.no_grad()(lambda m, x: m.a(x)), "carries no gradient"),
}


@BOTH
@pytest.mark.parametrize(("function", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_that_is_no_matrix_of_numbers_is_a_value_error(function, message, method):
    with pytest.raises(ValueError, match=message):
        empirical_ntk(forward(function, nn.Linear(5, 2)), normal(4, 5), method=method)


def test_chunks_are_refused_where_samples_share_statistics():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    x = normal(6, 5)
    with pytest.raises(ValueError, match="kernel would depend on the chunk"):
        empirical_ntk(model, x, method="jacobian", chunk=2)
    with pytest.raises(ValueError, match=r"'1' \(BatchNorm1d\) uses the statistics of the batch"):
        empirical_ntk(model, x)
    chunked = empirical_ntk(model.eval(), x, method="jacobian", chunk=2)
    torch.testing.assert_close(chunked, empirical_ntk(model, x))


@BOTH
def test_chunks_of_one_sample_do_not_hide_the_statistics_of_the_batch(method):
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]
    with pytest.raises(ValueError, match="depend on the chunk"):
        empirical_ntk(nn.Sequential(*body).double(), normal(3, 3, 6, 6), method=method, chunk=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_model_is_refused_by_name():
    with pytest.raises(ValueError, match="is a ScriptModule"):
        empirical_ntk(torch.jit.script(nn.Linear(2, 2)), torch.ones(1, 2))


def test_convolutions_in_float32_agree_between_methods():
    model, x = cnn((1, 8, 8), 3, (4,), (6,), norm="layernorm"), normal(3, 1, 8, 8).float()
    theta = empirical_ntk(model, x)
    torch.testing.assert_close(theta, empirical_ntk(model, x, method="jacobian"), rtol=1e-3, atol=1e-3)
