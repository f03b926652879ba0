"""Contracts of dyniso.initialisation: singular values of what is drawn, and the laws of He and of torch."""

import math

import pytest
import torch
from torch import nn

from dyniso.initialisation import delta_orthogonal_, initialise, orthogonal_
from dyniso.isometry import as_matrix, conv_operator_singular_values
from dyniso.nets import mlp, orthogonal

FLOAT64 = 1e-12  # float64 products of 16-wide matrices: rounding is near 1e-15
FLOAT32 = 1e-5  # float32 factorisations of up to 128-wide matrices: rounding is near 1e-6


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_identity(gram: torch.Tensor, tolerance: float) -> None:
    assert torch.dist(gram, torch.eye(len(gram), dtype=gram.dtype), p=math.inf) < tolerance


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


def test_head_gain_goes_to_the_head_that_is_registered_first():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(6, 2), nn.Linear(4, 6)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    model = initialise(HeadFirst(), head_gain=0.01)
    assert [round(float(torch.linalg.matrix_norm(m.weight, 2)), 4) for m in (model.head, model.body)] == [0.01, 1.0]


ERRORS = {
    "not a matrix": (lambda: orthogonal_(torch.empty(2, 2, 3, 3)), r"\(2, 2, 3, 3\)"),
    "even kernel": (lambda: delta_orthogonal_(torch.empty(2, 2, 4, 4)), r"\(2, 2, 4, 4\).*odd"),
    "no window": (lambda: delta_orthogonal_(torch.empty(2, 2)), r"\(2, 2\)"),
    "scheme": (lambda: initialise(nn.Linear(2, 2), "ortogonal"), r"scheme='ortogonal'; .* did you mean 'orthogonal'"),
    "parametrized": (lambda: initialise(nn.Sequential(orthogonal(nn.Linear(2, 2)))), r"'0' is parametrized"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_bad_value_is_a_value_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scheme", ["orthogonal", "kaiming", "default"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_model_gets_the_rounded_draws_of_a_single_precision_one(scheme, dtype):
    make = lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))  # noqa: E731
    models = make(), make().to(dtype)
    for model in models:
        initialise(model, scheme, generator=torch.Generator().manual_seed(0))
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert b.dtype == dtype and torch.equal(a.to(dtype), b)


def test_kaiming_counts_the_window_of_a_convolution_in_its_fan_in():
    weight = initialise(nn.Conv2d(8, 400, 5), "kaiming", generator=torch.Generator().manual_seed(0)).weight
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (8 * 25)), rel=0.02)  # 8e4 draws
