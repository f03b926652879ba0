"""`isometry_groups` on other people's models: what is pulled, as which maps, and what is left out and why."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dyniso.isometry import gram_deviation
from dyniso.nets import mlp
from dyniso.optim import AdamO, IsometryDivergenceError, isometry_groups


class Language(nn.Module):
    """Tied embedding and language head, and a value head that is registered last."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.lm_head = nn.Linear(6, 11, bias=False)
        self.lm_head.weight = self.embedding.weight
        self.value = nn.Linear(6, 1)

    def forward(self, tokens):
        h = F.relu(self.body(self.embedding(tokens)))
        return self.lm_head(h), self.value(h)


class HeadFirst(nn.Module):
    """Its head is registered first."""

    def __init__(self):
        super().__init__()
        self.head, self.first, self.second = nn.Linear(6, 2), nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x):
        h = F.relu(self.first(x))
        return self.head(F.relu(self.second(h)) + h)


class Residual(nn.Module):
    """A residual stream, with or without a head of its own."""

    def __init__(self, headed):
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 2) if headed else nn.Identity()

    def forward(self, x):
        h = self.stem(x)
        h = h + self.a(F.relu(h))
        return self.out(h + self.b(F.relu(h)))


class Loops(nn.Module):
    """Code that depends on values, which torch.fx cannot follow."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(6, 2), nn.Linear(6, 6)

    def forward(self, x):
        while float(x.square().mean()) < 1:
            x = x * 2
        return {"logits": self.head(F.relu(self.body(x))), "note": "a text"}


class Conv1D(nn.Module):
    """A linear layer with its weight as (in, out), as GPT-2 has them."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.nf = outputs
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / 2), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


def names(groups):
    return sorted(groups.pulled)


@pytest.mark.parametrize("example", [None, torch.tensor([[1, 2, 3]])], ids=["by code", "by a pass"])
def test_tied_embedding_is_plain_whatever_is_registered_after_it(example):
    groups = isometry_groups(Language(), example=example)
    assert names(groups) == ["body.weight"]
    assert groups.left_out == {"embedding.weight": "embedding", "value.weight": "head"}


def test_tied_embedding_survives_a_strong_lazy_pull():
    net = Language()
    optimizer = AdamO(isometry_groups(net), lr=1e-3, isometry_strength=1.0, isometry_every=10)
    for _ in range(30):
        optimizer.zero_grad()
        logits, value = net(torch.arange(8)[None])
        (logits.square().mean() + value.mean()).backward()
        optimizer.step()
    assert torch.isfinite(net.embedding.weight).all()


@pytest.mark.parametrize("example", [None, torch.randn(3, 4)], ids=["by code", "by a pass"])
def test_head_that_is_registered_first_is_left_out_and_the_first_layer_is_not(example):
    assert names(isometry_groups(HeadFirst(), example=example)) == ["first.weight", "second.weight"]


@pytest.mark.parametrize("example", [None, torch.randn(3, 4)], ids=["by code", "by a pass"])
def test_residual_stream_without_a_head_of_its_own_is_asked_about(example):
    assert names(isometry_groups(Residual(True), example=example)) == ["a.weight", "b.weight", "stem.weight"]
    with pytest.raises(ValueError, match=r"head of Residual is not evident: it returns a sum .* pass head='its name'"):
        isometry_groups(Residual(False), example=example)


def test_model_that_cannot_be_traced_asks_for_an_example_and_takes_it():
    with pytest.raises(ValueError, match=r"head of Loops is not evident: it cannot be traced without inputs; pass"):
        isometry_groups(Loops())
    for example in (torch.randn(3, 6), (torch.randn(3, 6),), {"x": torch.randn(3, 6)}):
        assert names(isometry_groups(Loops(), example=example)) == ["body.weight"]


def test_example_pass_changes_neither_buffers_nor_generators_nor_gradients():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    isometry_groups(net, example=torch.randn(8, 4, generator=torch.Generator()))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in net.parameters())


class Notes(nn.Module):
    """Counts its passes and keeps what it saw last."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.passes, self.last = nn.Linear(4, 6), nn.Linear(6, 2), 0, None

    def forward(self, x):
        self.passes, self.last = self.passes + 1, self.body(x)
        return self.head(F.relu(self.last))


@pytest.mark.parametrize("example", [None, torch.randn(3, 4)], ids=["by code", "by a pass"])
def test_what_a_forward_pass_notes_stays_out_of_the_model(example):
    net = Notes()
    assert names(isometry_groups(net, example=example)) == ["body.weight"]
    assert (net.passes, net.last) == (0, None)


def test_model_that_cannot_be_copied_is_not_run_on_values_that_are_not_there():
    net = Notes()
    net.file = open(__file__)  # noqa: SIM115 - nothing that holds an open file can be copied
    with net.file, pytest.raises(ValueError, match="head of Notes is not evident: it cannot be traced"):
        isometry_groups(net)
    assert (net.passes, net.last) == (0, None)


def test_frozen_and_complex_weights_are_not_printed_as_pulled():
    net = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].requires_grad_(False)
    groups = isometry_groups(net)
    assert groups.left_out["0.weight"] == "no real numbers" and "frozen" in groups.pulled["1.weight"]
    assert groups.pulled["2.weight"] == "4 x 4"


def test_independent_heads_are_all_left_out():
    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor, self.body, self.critic = nn.Linear(6, 3), nn.Linear(4, 6), nn.Linear(6, 1)

        def forward(self, x):
            h = torch.tanh(self.body(x))
            return torch.cat([self.actor(h), self.critic(h)], dim=-1)

    for example in (None, torch.randn(2, 4)):
        assert names(isometry_groups(ActorCritic(), example=example)) == ["body.weight"]


def test_frozen_or_parametrised_head_does_not_make_the_layer_before_it_the_head():
    for change in (lambda m: m.requires_grad_(False), nn.utils.parametrizations.weight_norm):
        net = HeadFirst()
        net.head = change(net.head)
        assert names(isometry_groups(net, example=torch.randn(3, 4)))[:2] == ["first.weight", "second.weight"]


def test_transformer_is_read_from_a_pass_with_attention_as_three_maps():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.Linear(5, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 3))
    groups = isometry_groups(net, example=torch.randn(2, 4, 5), isometry_strength=0.1)
    assert names(groups) == names(isometry_groups(net))
    assert groups.pulled["1.layers.0.self_attn.in_proj_weight"] == "3 maps of 8 x 8"
    assert groups.left_out == {"2.weight": "head"}
    assert [g.get("isometry_blocks") for g in groups] == [None, (3, 1), None]


@pytest.mark.parametrize(
    ("layer", "gates"),
    [(nn.LSTM(5, 6, 2), 4), (nn.GRU(5, 6, bidirectional=True), 3), (nn.RNN(5, 6), 1), (nn.LSTMCell(5, 6), 4)],
    ids=["LSTM", "GRU", "RNN", "cell"],
)
def test_recurrent_gates_are_maps_of_their_own(layer, gates):
    groups = isometry_groups(layer, head="include")
    assert len(groups.pulled) == sum(p.ndim == 2 for p in layer.parameters()) and not groups.left_out
    assert groups.pulled[next(iter(groups.pulled))] == ("6 x 5" if gates == 1 else f"{gates} maps of 6 x 5")


def test_transposed_layers_of_gpt2_are_pulled_and_their_projection_split_by_columns():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_attn, self.c_proj, self.lm_head = Conv1D(12, 4), Conv1D(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            q, k, v = self.c_attn(x).chunk(3, dim=-1)
            return self.lm_head(self.c_proj(F.scaled_dot_product_attention(q, k, v)))

    for example in (None, torch.randn(1, 5, 4)):
        groups = isometry_groups(Block(), example=example)
        assert groups.pulled == {"c_attn.weight": "3 maps of 4 x 4", "c_proj.weight": "4 x 4"}
        assert [g.get("isometry_blocks") for g in groups] == [None, (1, 3), None]


@pytest.mark.parametrize("blocks", [(3, 1), (1, 3)], ids=["below", "beside"])
def test_packed_maps_are_pulled_like_separate_weights(blocks):
    parts = [nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(i)) / 3) for i in range(3)]
    axis = 0 if blocks[0] == 3 else 1
    whole = nn.Parameter(torch.cat(parts, dim=axis).detach())
    optimizers = AdamO([whole], isometry_strength=1.0, isometry_blocks=blocks), AdamO(parts, isometry_strength=1.0)
    for p in (whole, *parts):
        p.grad = torch.zeros_like(p)
    for _ in range(5):
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(whole.detach(), torch.cat(parts, dim=axis).detach())


def test_split_names_packed_layers_that_their_names_do_not_show():
    net = nn.ModuleDict({"to_kv": nn.Linear(4, 8), "qkv": nn.Linear(4, 12), "out": nn.Linear(4, 2)})
    pulled = isometry_groups(net, head="out", split={"*_kv": 2, "qkv": 1}).pulled
    assert pulled == {"to_kv.weight": "2 maps of 4 x 4", "qkv.weight": "12 x 4"}
    with pytest.raises(ValueError, match=r"split='to_vk'; allowed are .* did you mean 'to_kv'"):
        isometry_groups(net, head="out", split={"to_vk": 2})
    with pytest.raises(ValueError, match=r"weight has shape \(8, 4\); expected sides that hold 3 x 1 equal blocks"):
        isometry_groups(net, head="out", split={"to_kv": 3})


def test_groups_print_what_is_pulled_how_and_what_is_left_out_and_why():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2)
    )
    net.register_parameter("scale", nn.Parameter(torch.ones(2, 2)))
    text = repr(isometry_groups(net))
    for part in ("0.weight  4 x 18", "in 2 groups", "transposed", "4.weight  head", "parameter of Sequential"):
        assert part in text, text


def test_compiled_and_wrapped_models_are_looked_into():
    net = HeadFirst()
    for wrapped in (torch.compile(net, backend="eager"), nn.DataParallel(net)):
        pulled = {id(p) for p in isometry_groups(wrapped)[0]["params"]}
        assert pulled == {id(net.first.weight), id(net.second.weight)}


def test_lazy_layer_without_a_shape_is_refused():
    with pytest.raises(ValueError, match=r"'0.weight' has no shape yet; run one batch"):
        isometry_groups(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)))


def test_pulled_attention_comes_nearer_to_an_isometry_than_plain_adams():
    found = []
    for strength in (0.0, 0.5):
        torch.manual_seed(0)
        net = nn.MultiheadAttention(8, 2, batch_first=True)
        optimizer = AdamO(isometry_groups(net, head="include", isometry_strength=strength), lr=1e-2)
        x = torch.randn(4, 5, 8)
        for _ in range(200):
            optimizer.zero_grad()
            (net(x, x, x)[0] - 1).square().mean().backward()
            optimizer.step()
        found.append(float(gram_deviation(net.in_proj_weight.detach().view(3, 8, 8)).mean()))
    assert found[1] < found[0] / 3


def test_nets_of_this_package_keep_their_groups():
    net = mlp(4, 2, width=6, depth=2)
    assert names(isometry_groups(net)) == ["1.weight", "3.weight"] and len(isometry_groups(net)) == 2


def test_tied_embedding_is_plain_where_its_head_is_registered_first():
    net = nn.ModuleDict({"lm_head": nn.Linear(6, 11, bias=False), "body": nn.Linear(6, 6)})
    net["embedding"] = nn.Embedding(11, 6)
    net["embedding"].weight = net["lm_head"].weight
    assert names(isometry_groups(net, head="include")) == ["body.weight"]


def test_layer_that_is_called_like_a_packed_one_is_one_map_if_its_shape_says_so():
    net = nn.ModuleDict({"qkv": nn.Linear(4, 8), "out": nn.Linear(8, 2)})  # grouped queries: 4 + 2 + 2
    assert isometry_groups(net, head="out").pulled == {"qkv.weight": "8 x 4"}


def test_divergence_of_a_packed_map_is_that_of_its_run():
    W = torch.eye(4).repeat(3, 3, 1)  # three runs, each of q, k and v
    W[1, 4:8] *= 100
    p = nn.Parameter(W)
    p.grad = torch.zeros_like(p)
    optimizer = AdamO([p], lr=1e-2, isometry_strength=0.1, isometry_blocks=(3, 1), batch_dims=1)
    with pytest.raises(IsometryDivergenceError, match="map 1 of 3, run 1") as error:
        optimizer.step()
    assert error.value.runs == [1]
