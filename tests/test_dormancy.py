"""dyniso.dormancy: scores by hand, runs as a leading axis, waking units."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from dyniso.dormancy import (
    dead_units,
    dormancy_score,
    dormant_fraction,
    hidden_activations,
    reactivated,
    row_flow,
    units_last,
)
from dyniso.nets import cnn, mlp


class Bare(nn.Linear):
    """A layer whose forward could do anything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def recorded(call, x: torch.Tensor, model: nn.Module | None = None) -> list[torch.Tensor]:
    """What the activations of a model put out in one call."""
    with hidden_activations(call if model is None else model) as seen:
        call(x)
    return seen


def test_scores_average_to_one_so_they_sum_to_the_width():
    h = torch.rand(20, 7, generator=torch.Generator().manual_seed(0))
    assert float(dormancy_score(h).sum()) == pytest.approx(7, rel=1e-5)


def test_a_layer_that_is_silent_throughout_is_wholly_dormant():
    assert float(dormant_fraction(torch.zeros(4, 3), tau=0.0)) == 1.0


def test_threshold_is_inclusive_and_relative_to_the_layer_mean():
    h = torch.tensor([[0.1, 1.9]])  # scores .1 and 1.9
    assert [float(dormant_fraction(h, tau)) for tau in (0.05, 0.1001, 1.9)] == [0.0, 0.5, 1.0]


def test_runs_on_the_leading_axis_equal_one_run_at_a_time():
    h = torch.rand(3, 20, 7, generator=torch.Generator().manual_seed(0)) - 0.9
    torch.testing.assert_close(dormant_fraction(h, 0.1), torch.stack([dormant_fraction(x, 0.1) for x in h]))
    assert torch.equal(dead_units(h), torch.stack([dead_units(x) for x in h]))


def test_negative_units_are_dead_for_relu_but_not_dormant():
    h = torch.tensor([[-1.0, 1.0], [-2.0, 1.0]])
    assert dead_units(h).tolist() == [True, False] and float(dormant_fraction(h)) == 0.0


def test_a_unit_woken_by_its_bias_is_counted_as_reactivated():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    nn.init.zeros_(net[0].weight)
    net[0].bias.data = torch.tensor([-1.0, -1.0, 1.0])
    before, after = [], []
    for store in (before, after):
        with hidden_activations(net) as seen:
            net(torch.randn(5, 2))
        store.append(dead_units(seen[0]))
        net[0].bias.data[0] = 1.0
    assert reactivated(before[0], after[0]).tolist() == [True, False, False]


def test_hooks_leave_no_trace_and_see_stacked_runs():
    nets = [mlp(4, 2, width=6, depth=2, seed=s) for s in range(3)]
    params, buffers = stack_module_state(nets)
    x = torch.randn(5, 4)

    def activations(p, b):
        with hidden_activations(nets[0]) as seen:
            functional_call(nets[0], (p, b), (x,))
        return seen

    stacked = vmap(activations)(params, buffers)
    for r, net in enumerate(nets):
        with hidden_activations(net) as seen:
            net(x)
        for layer, h in zip(stacked, seen, strict=True):
            torch.testing.assert_close(layer[r], h)
    assert all(not m._forward_hooks for net in nets for m in net.modules())


def test_convolution_channels_are_units_seen_at_every_position():
    net, x = cnn((1, 8, 8), 3, channels=(4, 6)), torch.randn(5, 1, 8, 8)
    assert torch.equal(recorded(net, x)[0], units_last(net[:2](x)))
    assert [h.shape for h in recorded(net, x)] == [(5 * 16, 4), (5 * 4, 6), (5, 128)]


def test_every_activation_of_torch_is_read_not_a_hand_kept_few():
    kinds = [nn.Mish, nn.ReLU6, nn.PReLU, nn.Hardswish, nn.SELU, nn.Softsign]
    net = nn.Sequential(*[m for kind in kinds for m in (nn.Linear(4, 4), kind())])
    x = torch.randn(5, 4)
    assert len(recorded(net, x)) == 6
    torch.testing.assert_close(recorded(net, x)[2], net[:6](x))


def test_functional_activations_of_stacked_runs_are_read_under_vmap():
    layers = [nn.Linear(4, 6) for _ in range(3)]
    params, _ = stack_module_state(layers)

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x):
            return self.layer(x).relu()

    net, x = Around(), torch.randn(5, 4)

    def activations(p):
        with hidden_activations(net) as seen:
            functional_call(net, {f"layer.{name}": value for name, value in p.items()}, (x,))
        return seen

    stacked = vmap(activations)(params)[0]
    torch.testing.assert_close(stacked, torch.stack([layer(x).relu() for layer in layers]))


def test_what_is_stored_does_not_change_with_a_later_operation_in_place():
    net = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Threshold(2.0, -1.0, inplace=True), nn.Linear(6, 2))
    assert float(recorded(net, torch.ones(3, 4))[0].detach().min()) > 0


def test_tokens_are_samples_and_the_last_axis_holds_the_units():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad():
        (h,) = recorded(layer, torch.randn(3, 5, 8))
    assert h.shape == (15, 16) and dormancy_score(h).shape == (16,)


def test_signals_have_channels_as_units():
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU())
    assert recorded(net, torch.randn(5, 2, 9))[0].shape == (5 * 7, 4)


def test_compiled_and_shared_modules_are_read_at_every_call():
    act, x = nn.ReLU(), torch.randn(5, 4)
    net = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)
    expected = recorded(net, x)
    assert len(expected) == 2
    torch.testing.assert_close(recorded(torch.compile(net), x), expected)


def test_gradients_flow_through_what_is_stored():
    net = mlp(4, 2, 6, 1)
    recorded(net, torch.randn(5, 4))[0].sum().backward()
    assert net[1].weight.grad is not None


def test_a_loss_in_the_block_is_no_activation_of_the_model():
    net, x = mlp(4, 2, 6, 1), torch.randn(5, 4)
    with hidden_activations(net) as seen:
        nn.functional.softplus(net(x)).sum()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dormancy_score(torch.ones(3)), r"\(3,\)"),
        (lambda: dormant_fraction(torch.ones(2, 2), tau=-0.1), "tau=-0.1"),
        (lambda: reactivated(torch.ones(2).bool(), torch.ones(3).bool()), r"\(2,\) and \(3,\)"),
        (lambda: dead_units(torch.ones(3)), r"\(3,\)"),
        (lambda: units_last(torch.ones(2, 3, 4)), r"\(2, 3, 4\).*flatten tokens to samples"),
        (lambda: hidden_activations(nn.Linear(2, 2)).__enter__(), "Linear holds no activation module"),
        (lambda: recorded(Bare(2, 2), torch.ones(1, 2)), r"Bare showed no activation.*only the layers \[''\]"),
        (lambda: recorded(mlp(2, 2).forward, torch.ones(1, 2), mlp(2, 2)), r"was not called; call it, not \.forward"),
        (lambda: recorded(torch.jit.script(nn.ReLU()), torch.ones(2)), "is a ScriptModule"),
    ],
)
def test_bad_input_is_named_in_the_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def other_rows(count: int, width: int, scale: float = 0.5) -> torch.Tensor:
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("count", [2, 6, 12])
def test_row_flow_follows_small_euler_steps(count):
    others, step = other_rows(count, 6), 1e-4
    S, w = others.mT @ others, torch.ones(6).double() / 2
    expected = [row_flow(w, S, s) for s in (0.1, 0.5)]
    for i in range(5000):
        w = w - 4 * step * ((w @ w - 1) * w + S @ w)
        if i == 999:
            torch.testing.assert_close(w, expected[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(w, expected[1], atol=1e-3, rtol=0)


def test_row_flow_ends_at_unit_norm_in_the_null_space_of_the_others():
    others = other_rows(4, 6)
    w = row_flow(torch.ones(6), others.mT @ others, 60.0)
    assert float(w.norm()) == pytest.approx(1, abs=1e-6)
    assert float((others @ w).abs().max()) < 1e-6


def test_row_flow_shrinks_a_row_that_a_tight_frame_covers_and_keeps_a_zero_row_zero():
    times = torch.tensor([1.0, 10.0, 20.0])
    norms = row_flow(torch.tensor([1.0, 0.0, 0.0]), torch.eye(3), times).norm(dim=-1)
    torch.testing.assert_close(norms, 1 / (1 + 8 * times.double()).sqrt())
    assert float(row_flow(torch.zeros(3), torch.eye(3) / 2, 5.0).norm()) == 0


@pytest.mark.parametrize(("S", "time", "part"), [(torch.eye(2), 1.0, "(2, 2)"), (torch.eye(3), -1.0, "-1.0")])
def test_row_flow_refuses_what_does_not_fit(S, time, part):
    with pytest.raises(ValueError) as raised:
        row_flow(torch.ones(3), S, time)
    assert part in str(raised.value)


def test_a_unit_that_dies_is_not_reactivated():
    alive, dead = torch.tensor([False, True]), torch.tensor([True, True])
    assert reactivated(alive, dead).tolist() == [False, False]
    assert reactivated(dead, alive).tolist() == [True, False]
