"""Contracts of dyniso.tracing: each activation with the layer that feeds it and those that read it, or why not."""

import re
from collections import UserDict
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyniso.activations import ACTIVATION_TYPES, activation
from dyniso.nets import cnn, mlp
from dyniso.tracing import ActivationSite, trace, trace_activations

FLAT, IMAGE, TOKENS = torch.ones(5, 4), torch.ones(2, 1, 8, 8), torch.ones(3, 5, 8)


class Net(nn.Module):
    """Three layers, and a forward pass that is given."""

    def __init__(self, forward, *layers: nn.Module) -> None:
        super().__init__()
        self.c, self.a, self.b = (layers + tuple(nn.Linear(4, 4) for _ in range(3)))[:3]  # not in order of the calls
        self.act, self.pass_through = nn.ReLU(), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.pass_through(self, x)


def matches(model: nn.Module, x: Tensor) -> list[tuple[str | None, tuple[str, ...]]]:
    sites = trace_activations(model, x)
    assert [site.why for site in sites] == [""] * len(sites)
    return [(site.layer, site.readers) for site in sites]


def only(model: nn.Module, x: Tensor = FLAT, index: int = 0) -> ActivationSite:
    return trace_activations(model, x)[index]


# ------------------------------------------------------------------------------------------- what is matched

RELUS = {
    "F.relu": lambda z: F.relu(z),
    "torch.relu": torch.relu,
    "method": lambda z: z.relu(),
    "in place": lambda z: (z * 1).relu_(),
    "F.relu in place": lambda z: F.relu(z * 1, inplace=True),
    "clamp": lambda z: z.clamp(min=0),
    "clamp_min": lambda z: z.clamp_min(0),
    "maximum": lambda z: torch.maximum(z, torch.zeros(())),
    "max": lambda z: torch.max(z, torch.zeros_like(z)),
    "leaky": lambda z: F.leaky_relu(z, 0.0),
    "hardtanh": lambda z: F.hardtanh(z, 0, 100),
    "through a view": lambda z: z.view(1, -1, 4).relu().flatten(0, 1),
    "after a norm": lambda z: F.layer_norm(z, (4,)).relu(),
    "before dropout": lambda z: F.dropout(z.relu(), 0.5),
    "scaled": lambda z: 2 * (z + 1).relu() / 3,
}


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_functional_activation_is_matched_with_the_layers_around_it(relu):
    model = Net(lambda m, x: m.c(relu(m.b(relu(m.a(x))))))
    assert matches(model, FLAT) == [("a", ("b",)), ("b", ("c",))]
    assert trace(model, FLAT).layers == ("a", "b", "c") and trace(model, FLAT).heads == ("c",)


@pytest.mark.parametrize("kind", ACTIVATION_TYPES, ids=lambda kind: kind.__name__)
def test_every_activation_module_is_seen_between_its_layers(kind):
    options = {"Threshold": (0.1, 0.0), "GroupSort": (2,)}.get(kind.__name__, ())
    width = {"GLU": 4, "CReLU": 16}.get(kind.__name__, 8)
    model = nn.Sequential(nn.Linear(4, 8), kind(*options), nn.Linear(width, 2))
    site = only(model)
    assert (site.kind, site.layer, site.readers) == (kind.__name__, "0", ("2",))
    assert site.why == (
        f"{kind.__name__} mixes units" if width != 8 or kind.__name__ in ("GroupSort", "Householder") else ""
    )


@pytest.mark.parametrize("downsample", ["stride", "unshuffle"])
def test_convolutions_are_matched_through_flattening_and_pixel_unshuffling(downsample):
    model = cnn((1, 8, 8), 3, (4, 6), (5,), norm="layernorm", downsample=downsample)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert matches(model, IMAGE) == [(a, (b,)) for a, b in pairwise(layers)]
    assert [site.by_unit().shape[1] for site in trace_activations(model, IMAGE)] == [4, 6, 5]


def test_encoder_layers_are_matched_though_eval_mode_has_a_fast_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(40, 2))
    with torch.no_grad():
        sites = trace_activations(model.eval(), TOKENS)
    assert [(s.name, s.layer, s.readers, s.why) for s in sites] == [
        (f"0.layers.{i}.relu", f"0.layers.{i}.linear1", (f"0.layers.{i}.linear2",), "") for i in range(2)
    ]
    assert [(site.axis, tuple(site.by_unit().shape)) for site in sites] == [(2, (15, 16))] * 2


def test_patch_embedding_is_followed_from_channels_to_the_last_axis():
    conv = nn.Conv2d(1, 6, 4, 4)
    model = Net(
        lambda m, x: m.b(m.a(x).flatten(2).transpose(1, 2).relu().mean(1)), nn.Identity(), conv, nn.Linear(6, 2)
    )
    assert matches(model, IMAGE) == [("a", ("b",))]
    assert only(model, IMAGE).axis == 2


class Swish(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * z.sigmoid()


def test_module_of_one_s_own_that_bends_its_input_is_one_activation():
    site = only(nn.Sequential(nn.Linear(4, 6), Swish(), nn.Linear(6, 2)))
    assert (site.kind, site.layer, site.readers, site.why) == ("Swish", "0", ("2",), "")


def test_compiled_model_is_traced_as_the_module_that_it_was_made_from():
    inner = mlp(4, 2, 6, 2)
    assert matches(torch.compile(inner), FLAT) == matches(inner, FLAT) == matches(nn.DataParallel(inner), FLAT)
    assert matches(nn.Sequential(torch.compile(inner[:3]), inner[3:]), FLAT)[0] == ("0._orig_mod.1", ("1.3",))


# -------------------------------------------------------------------------------------------- what is not, and why

UNMATCHED = {
    "a sum": (lambda m, x: m.c((m.a(x) + m.b(x)).relu()), 0, None, r"it reads the sum of layer 'a' and layer 'b'"),
    "a skip of the input": (lambda m, x: m.c((m.a(x) + x).relu()), 0, None, r"the sum of layer 'a' and the input"),
    "the input": (lambda m, x: m.a(x.relu()), 0, None, "it reads the input"),
    "output in a sum": (lambda m, x: m.c((h := m.a(x).relu()) + m.b(h)), 0, "a", "enters a sum with layer 'b'"),
    "layer feeds two": (lambda m, x: m.b((z := m.a(x)).relu()) + m.c(z.tanh()), 0, "a", "feeds activation 'tanh'"),
    "layer read past it": (lambda m, x: m.b((z := m.a(x)).relu()) + m.c(z), 0, "a", "also feeds layer 'c'"),
    "layer called twice": (lambda m, x: m.b(m.a(m.a(x)).relu()), 0, "a", "layer 'a' is called 2 times"),
    "reader called twice": (lambda m, x: m.b(m.b(m.a(x).relu())), 0, "a", "layer 'b' is called 2 times"),
    "returned": (lambda m, x: m.a(x).relu(), 0, "a", "the model returns it"),
    "a gate": (lambda m, x: m.c(m.a(x).sigmoid() * m.b(x)), 0, "a", "enters a product with layer 'b'"),
    "unknown function": (lambda m, x: m.b(m.a(x).relu().softmax(-1)), 0, "a", r"passes through softmax\(\)"),
    "reads unknown": (lambda m, x: m.b(m.a(x).cumsum(-1).relu()), 0, None, r"the result of cumsum\(\)"),
    "units permuted": (lambda m, x: m.b(m.a(x).relu().flip(-1)), 0, "a", "layer 'b' does not read its units in order"),
    "rows permuted": (lambda m, x: m.b(m.a(x).roll(1, -1).relu()), 0, "a", "unit i is not row i of 'a'"),
    "joined": (lambda m, x: m.b(torch.cat([m.a(x).relu(), m.c(x)], 1)[:, :4]), 0, "a", "enters a concatenation"),
    "behind the back": (lambda m, x: m.b(F.linear(x, m.a.weight).relu()), 0, "a.weight", "is used without a module"),
    "a bare matrix": (lambda m, x: m.b((x @ m.a.weight.T).relu()), 0, "a.weight", "is used without a module"),
    "tied decoder": (lambda m, x: m.a(x).relu() @ m.a.weight, 0, "a", "layer 'a' shares a parameter with 'a.weight'"),
}


@pytest.mark.parametrize(("forward", "index", "layer", "why"), UNMATCHED.values(), ids=UNMATCHED)
def test_what_cannot_be_matched_says_why(forward, index, layer, why):
    site = only(Net(forward), FLAT, index)
    assert site.layer == layer
    assert re.search(why, site.why)


def test_weight_shared_by_two_layers_is_named():
    model = mlp(4, 4, 4, 1)
    model[3].weight = model[1].weight
    assert "layer '1' shares a parameter with '3'" in only(model).why


def test_channels_last_flattening_is_not_taken_for_channels():
    conv = nn.Conv2d(1, 4, 3)
    model = Net(lambda m, x: m.b(m.a(x).relu().movedim(1, -1).flatten(1)), nn.Identity(), conv, nn.Linear(144, 2))
    assert only(model, IMAGE).why == "layer 'b' does not read its units in order"


def signals(m: Net, x: Tensor) -> Tensor:
    return m.b(m.a(x[:, :, None]).relu())


KINDS = {
    "LSTM": (lambda m, x: m.b(m.a(x)[0].relu()), nn.LSTM(4, 4), nn.Linear(4, 2), "of kind LSTM"),
    "read by a GRU": (lambda m, x: m.b(m.a(x).relu())[0], nn.Linear(4, 4), nn.GRU(4, 2), "of kind GRU"),
    "groups": (signals, nn.Conv1d(4, 4, 1), nn.Conv1d(4, 2, 1, groups=2), "in groups"),
    "transposed": (signals, nn.ConvTranspose1d(4, 4, 1), nn.Conv1d(4, 2, 1), "transposed"),
}


@pytest.mark.parametrize(("forward", "first", "second", "why"), KINDS.values(), ids=KINDS)
def test_layers_whose_rows_or_columns_are_no_units_are_named(forward, first, second, why):
    assert why in only(Net(forward, nn.Identity(), first, second)).why


class Fused(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 2 * self.weight, self.bias).relu()


class Snake(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(6))

    def forward(self, z: Tensor) -> Tensor:
        return z + (self.frequency * z).sin().square()


def test_layer_with_a_forward_of_its_own_and_a_learned_activation_are_seen():
    sites = trace_activations(nn.Sequential(Fused(4, 6), nn.Linear(6, 6), Snake(), nn.Linear(6, 2)), FLAT)
    assert [(s.name, s.layer, s.readers, s.why) for s in sites] == [
        ("0.relu", "0", ("1",), ""),
        ("2", "1", ("3",), ""),
    ]


def test_forward_that_was_replaced_on_one_layer_is_looked_into():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    plain = model[0].forward
    model[0].forward = lambda x: plain(x).relu()
    assert only(model).layer == "0" and only(model).readers == ("1",)


@dataclass
class Output:
    logits: Tensor


def test_outputs_in_dataclasses_and_dictionaries_are_found():
    for wrap in (Output, lambda z: {"logits": z}, lambda z: (None, [z]), lambda z: UserDict(logits=z)):
        assert trace(Net(lambda m, x, wrap=wrap: wrap(m.b(m.a(x).relu()))), FLAT).heads == ("b",)


def test_shared_activation_module_gives_one_site_a_call():
    model = Net(lambda m, x: m.c(m.act(m.b(m.act(m.a(x))))))
    assert [site.name for site in trace_activations(model, FLAT)] == ["act", "act_1"]
    assert matches(model, FLAT) == [("a", ("b",)), ("b", ("c",))]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return torch.from_numpy(2 * z.numpy())

    @staticmethod
    def backward(ctx, g):
        return 2 * g


def test_tensor_out_of_an_unseen_function_is_not_taken_for_a_constant():
    site = only(Net(lambda m, x: m.b((Doubled.apply(m.a(x)) + m.c(x)).relu())))
    assert site.layer is None and "a tensor that no operation seen here made" in site.why


# -------------------------------------------------------------------------------------------------- untouched


def test_pass_leaves_buffers_random_numbers_hooks_and_inputs_alone():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    x, state, seed = torch.randn(5, 4), {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    before = x.clone()
    trace(model, x)
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), seed) and model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_stored_output_is_not_changed_by_a_later_operation_in_place():
    site = only(Net(lambda m, x: m.b(m.a(x).sigmoid().mul_(0))))
    assert float(site.output.min()) > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_lazy_models_are_refused_by_name():
    with pytest.raises(ValueError, match=r"module '0' is a ScriptModule.*eager module"):
        trace(nn.Sequential(torch.jit.script(nn.ReLU())), FLAT)
    with pytest.raises(ValueError, match=r"module '0' \(LazyLinear\) has no weights yet"):
        trace(nn.Sequential(nn.LazyLinear(3)), FLAT)
    with pytest.raises(TypeError, match="model is of type Tensor"):
        trace(FLAT, FLAT)


def test_named_activations_on_maps_keep_channels_as_units():
    for name in ("relu", "maxmin", "crelu", "groupsort-4"):
        model = nn.Sequential(nn.Conv2d(1, 8, 3), activation(name, dim=-3), nn.Flatten(), nn.LazyLinear(2))
        model(IMAGE)
        assert only(model, IMAGE).by_unit().shape == (72, 16 if name == "crelu" else 8)


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (lambda z: z.clamp(0), "relu"),
        (lambda z: z.clamp(min=0), "relu"),
        (lambda z: z.clamp(0, 1), "clamp"),
        (lambda z: z.clamp(min=0, max=1), "clamp"),
        (lambda z: torch.clip(z, 0, 6), "clamp"),
    ],
)
def test_clamp_is_relu_only_where_it_has_no_upper_end(act, kind):
    assert only(Net(lambda net, x: net.b(act(net.a(x))))).kind == kind
