"""Contracts of dyniso.report_model: the library's own numbers on any model, and a reason for each that is missing."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dyniso import dormant_fraction, gram_deviation, report_model, spectrum_summary
from dyniso.entk import backward_maps, empirical_ntk
from dyniso.kernels import ntk_summary, plasticity
from dyniso.matrices import matrices
from dyniso.nets import cnn, mlp

TOKENS = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0))
FLAT = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))


class Classifier(nn.Module):
    """An encoder of two layers with a head on the mean of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x + self.position).mean(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.enter, self.block = nn.Linear(6, 2), nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        return self.head((h + self.block(h.relu())).relu())


def named(model: nn.Module, x: Tensor) -> dict[str, dict]:
    return {row["name"]: row for row in report_model(model, x).rows()}


def test_numbers_are_those_of_the_library():
    model, x = mlp(4, 3, 8, 2, init="kaiming").double(), FLAT.double()
    report = report_model(model, x)
    row, W, h = report.layers[1], model[3].weight.detach(), model[:5](x).detach()
    assert (row.name, row.shape, row.activation) == ("3.weight", (8, 8), "4 (ReLU)")
    expected = spectrum_summary(W)
    assert (row.sigma_min, row.sigma_max) == pytest.approx((float(expected.min), float(expected.max)))
    assert row.isometry_defect == pytest.approx(float(expected.isometry_defect))
    assert row.gram_deviation == pytest.approx(float(gram_deviation(W)))
    assert row.dormant == float(dormant_fraction(h)) and row.dead == float((h.amax(0) <= 0).double().mean())
    sigma = torch.linalg.svdvals(backward_maps(model, x)["3"])
    assert row.backward_condition == pytest.approx(float((sigma[:, 0] / sigma[:, -1]).square().median()))
    theta = empirical_ntk(model, x)
    assert report.kernel_condition == pytest.approx(float(ntk_summary(theta).condition_number), rel=1e-6)
    assert report.plasticity_100 == pytest.approx(float(plasticity(theta, 100))) and report.kernel_samples == 20


def test_scale_free_defect_of_a_multiple_of_an_isometry_is_zero():
    model = mlp(4, 2, 8, 1, gain=3.0)
    row = named(model, FLAT)["1.weight"]
    assert row["scale_free_defect"] < 1e-6 < 1 < row["isometry_defect"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_encoder_shows_q_k_and_v_apart_and_its_kernel(dtype):
    report = report_model(Classifier().eval().to(dtype), TOKENS.to(dtype))
    names = [layer.name for layer in report.layers]
    first = [f"body.layers.0.self_attn.in_proj_weight[{part}]" for part in "qkv"]
    assert names[:4] == [*first, "body.layers.0.self_attn.out_proj.weight"] and names[-1] == "head.weight"
    assert [layer.shape for layer in report.layers[:3]] == [(8, 8)] * 3
    assert report.layers[4].activation == "body.layers.0.relu (relu)" and report.layers[4].dormant >= 0
    assert 0 < report.plasticity_100 < 1 and report.outputs == 3
    assert report.not_read == ("position: shape (1, 5, 8) of a Classifier, not known as a matrix",)


def test_residual_activation_has_a_row_and_a_reason():
    row = named(Residual(), FLAT)["relu_1"]
    assert row["shape"] == () and row["feature_rank"] > 1
    assert row["note"] == "it reads the sum of layer 'enter' and layer 'block'"


def test_convolutions_with_batch_norm_in_eval_have_a_kernel():
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 3)
    )
    report = report_model(model.eval(), IMAGES)
    assert [layer.shape for layer in report.layers] == [(4, 9), (4, 1, 9), (3, 64)]
    assert report.not_read == () and report.plasticity_100 > 0


def test_dropout_leaves_no_kernel_and_says_so():
    report = report_model(Classifier().train(), TOKENS)
    assert math.isnan(report.plasticity_100) and math.isnan(report.layers[4].backward_condition)
    assert [line.split(":")[0] for line in report.not_read] == ["position", "backward maps", "kernel"]
    assert "draws random numbers; call model.eval()" in report.not_read[-1] and report.not_read[-1] in str(report)


def test_backward_map_that_loses_a_direction_has_an_infinite_condition_not_a_large_one():
    row = named(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 3)), FLAT)["2.weight"]
    assert row["backward_condition"] == math.inf


def test_shared_layer_has_no_backward_map_and_the_others_keep_theirs():
    shared = nn.Linear(4, 4)
    rows = named(nn.Sequential(shared, nn.ReLU(), shared, nn.Tanh(), nn.Linear(4, 2)), FLAT)
    assert "no one backward map: it is called more than once" in rows["0.weight"]["note"]
    assert rows["4.weight"]["backward_condition"] == 1


def test_output_that_is_a_tuple_is_a_reason():
    model = nn.LSTM(4, 3)
    report = report_model(model, FLAT[None])
    assert [layer.name for layer in report.layers][:2] == ["weight_ih_l0[i]", "weight_ih_l0[f]"]
    assert "output is of type tuple" in report.not_read[0]


@pytest.mark.parametrize("mode", [True, False])
def test_model_and_random_numbers_are_untouched(mode):
    spectral = parametrizations.spectral_norm(nn.Linear(4, 6))
    model = nn.Sequential(spectral, nn.BatchNorm1d(6), nn.Dropout(), nn.ReLU(), nn.Linear(6, 2)).train(mode)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    report_model(model, FLAT)
    assert torch.equal(torch.get_rng_state(), state) and model.training is mode
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_report_reads_as_a_table_in_a_terminal_and_in_a_notebook():
    report = report_model(cnn((1, 8, 8), 3, (4,), (6,)), IMAGES)
    lines = repr(report).splitlines()
    assert lines[0] == "Sequential on 4 samples, 3 outputs" and lines[2].split()[:3] == ["weight", "shape", "σ"]
    assert [line.split()[0] for line in lines[3:6]] == ["0.weight", "3.weight", "5.weight"]
    assert report._repr_html_().count("<tr>") == 4 and "κ(BB&#x27;)" in report._repr_html_()


def test_compiled_model_is_reported_as_the_module_that_it_was_made_from():
    model = mlp(4, 3, 8, 2)
    assert report_model(torch.compile(model), FLAT) == report_model(model, FLAT)


MATRICES = {
    "GRU": (lambda: nn.GRU(4, 3), [(3, 4)] * 3 + [(3, 3)] * 3),
    "LSTM with projection": (lambda: nn.LSTM(4, 3, proj_size=2), [(3, 4)] * 4 + [(3, 2)] * 4 + [(2, 3)]),
    "attention of other widths": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        [(4, 4), (4, 3), (4, 5), (4, 4)],
    ),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), [(6, 36)]),
    "transposed in groups": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), [(2, 3, 18)]),
    "parametrized": (lambda: parametrizations.weight_norm(nn.Linear(4, 3)), [(3, 4)]),
    "embedding": (lambda: nn.Embedding(5, 3), []),
}


@pytest.mark.parametrize(("build", "shapes"), MATRICES.values(), ids=MATRICES)
def test_every_map_of_a_module_is_a_matrix_of_its_own(build, shapes):
    found, left_out = matrices(build(), [])
    assert [tuple(matrix.weight.shape) for matrix in found] == shapes
    assert left_out == ([] if shapes else ["weight: a table of vectors, no linear map"])


def test_wrong_arguments_say_what_to_write():
    with pytest.raises(TypeError, match=r"batch is of type tuple; expected .*report_model\(model, batch\)"):
        report_model(mlp(4, 2), (FLAT, FLAT))
    with pytest.raises(ValueError, match="kernel_samples=0"):
        report_model(mlp(4, 2), FLAT, kernel_samples=0)


def test_scale_free_defect_is_the_isometry_defect_once_the_mean_square_is_one():
    layer = nn.Linear(5, 4, bias=False).double()
    (row,) = report_model(layer, FLAT.new_ones(3, 5).double()).layers
    with torch.no_grad():
        layer.weight /= torch.linalg.svdvals(layer.weight).square().mean().sqrt()
    (scaled,) = report_model(layer, FLAT.new_ones(3, 5).double()).layers
    assert row.scale_free_defect == pytest.approx(scaled.isometry_defect)
    assert row.scale_free_defect == pytest.approx(scaled.scale_free_defect) and row.scale_free_defect > 0.1
