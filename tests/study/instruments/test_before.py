"""Contracts of dyniso.study.instruments.before, against values that can be counted, and against each run alone."""

import math

import pytest
import torch
from conftest import with_spectrum
from torch import nn

from dyniso.dormancy import dormant_fraction
from dyniso.entk import empirical_ntk
from dyniso.isometry import effective_rank, singular_values
from dyniso.kernels import plasticity, without_constant_output
from dyniso.nets import mlp
from dyniso.study.instruments.before import before_task, jacobian_squares, kernel_max
from dyniso.study.instruments.stacked_kernels import mlp_layers, walk
from dyniso.study.stack import Stack

CPU = torch.device("cpu")


def draws(runs: int, samples: int, features: int, outputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(runs, samples, features, generator=generator)
    return x, torch.randint(outputs, (runs, samples), generator=generator)


def random_stack(runs: int = 3, features: int = 7, width: int = 6, depth: int = 2, **options) -> Stack:
    """Nets away from their orthogonal initialisation."""
    nets = [mlp(features, 3, width, depth, seed=seed, **options) for seed in range(runs)]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for net in nets:
            for p in net.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return Stack(nets, CPU)


def one_layer(weight: list, bias: list, activation: nn.Module, head: list) -> Stack:
    net = nn.Sequential(nn.Linear(len(weight[0]), len(weight)), activation, nn.Linear(len(head[0]), len(head)))
    with torch.no_grad():
        net[0].weight.copy_(torch.as_tensor(weight)), net[0].bias.copy_(torch.as_tensor(bias))
        net[2].weight.copy_(torch.as_tensor(head)), net[2].bias.zero_()
    return Stack([net], CPU)


@pytest.mark.parametrize("shape", [(4, 9), (4, 4), (9, 4)])
def test_spectral_measures_are_those_of_chosen_singular_values(shape):
    sigma = torch.tensor([3.0, 2.0, 1.0, 0.5]).double()
    stack = one_layer(
        with_spectrum(sigma, *shape).float().tolist(), [0.0] * shape[0], nn.ReLU(), [[1.0] * shape[0]] * 3
    )
    found = before_task(stack, *draws(1, 40, shape[1]))
    s2 = sigma.square()
    expected = {
        "isometry_defect": (s2 - 1).square().mean(),
        "scale_free_defect": (s2 / s2.mean() - 1).square().mean(),
        "condition_number": 6.0,
        "top_over_rms": 3 / s2.mean().sqrt(),
        "mean_square": s2.mean(),
    }
    for name, value in expected.items():
        assert found["0.weight", f"before_{name}"].item() == pytest.approx(float(value), rel=1e-5), name


def test_condition_number_of_a_singular_weight_stops_and_of_a_zero_one_is_nan():
    x, y = draws(1, 40, 2)
    for weight, condition, defect in (([[1.0, 0.0], [0.0, 0.0]], 1e12, 0.5), ([[0.0, 0.0], [0.0, 0.0]], math.nan, 1.0)):
        found = before_task(one_layer(weight, [1.0, 1.0], nn.ReLU(), [[1.0, 1.0]] * 3), x, y)
        assert found["0.weight", "before_condition_number"].item() == pytest.approx(condition, nan_ok=True)
        assert found["0.weight", "before_isometry_defect"].item() == defect


def test_dead_dormant_firing_and_shift_are_counted_on_a_net_made_by_hand():
    weight, bias = [[1.0], [1.0], [-1.0], [0.0]], [0.0, -2.0, 0.0, 0.01]
    found = before_task(one_layer(weight, bias, nn.ReLU(), [[1.0] * 4] * 2), *by_hand())
    # pre-activations of the four units at x = -1, 1, 3: x, x - 2, -x, .01
    expected = {
        "dead": 0.0,
        "dormant": 1 / 4,  # the fourth: .01 beside means 4/3, 1/3, 1/3
        "firing": (2 / 3 + 1 / 3 + 1 / 3 + 1) / 4,
        "shift": (1 + 1 + 1 + 0.01) / (3 * math.sqrt(8 / 3)),
    }
    for name, value in expected.items():
        assert found["hidden1", f"before_{name}"].item() == pytest.approx(value), name


def by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[[-1.0], [1.0], [3.0]]]), torch.tensor([[0, 1, 0]])


def test_unit_that_never_fires_is_dead_for_a_relu_and_for_nothing_else():
    weight, bias, head = [[1.0], [1.0]], [0.0, -3.0], [[1.0, 1.0]] * 2  # the second is 0 at most
    found = before_task(one_layer(weight, bias, nn.ReLU(), head), *by_hand())
    assert found["hidden1", "before_dead"].item() == 0.5
    found = before_task(one_layer(weight, bias, nn.LeakyReLU(), head), *by_hand())
    assert ("hidden1", "before_dead") not in found
    assert found["hidden1", "before_firing"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("mean", "expected"), [([1.0, 0.0], 4 / 2.5), ([0.0, 1.0], 1 / 2.5), ([1.0, 1.0], 1.0)])
def test_alignment_says_whether_the_mean_input_lies_in_strong_directions(mean, expected):
    x = torch.tensor(mean) + torch.tensor([[[1.0, -2.0], [-1.0, 2.0]]])
    stack = one_layer([[2.0, 0.0], [0.0, 1.0]], [5.0, -5.0], nn.ReLU(), [[1.0, 1.0]] * 2)
    found = before_task(stack, x, torch.tensor([[0, 1]]))
    assert found["hidden1", "before_alignment"].item() == pytest.approx(math.log10(expected), abs=1e-9)


@pytest.mark.parametrize("widths", [(7, 6), (5, 8), (4, 12)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "maxmin", "crelu", "groupsort-2", "identity"])
def test_singular_values_of_DW_are_those_of_the_jacobian_of_the_block_at_each_sample(activation, widths):
    features, width = widths
    stack, x = random_stack(features=features, width=width, activation=activation), draws(3, 5, features)[0].double()
    layers = [part._replace(params={k: p.double() for k, p in part.params.items()}) for part in mlp_layers(stack)]
    steps = walk(layers, x)
    for start in (1, 3):
        found = jacobian_squares(steps[start : start + 2]).sqrt()
        for run in range(3):
            block = stack.single(run)[start : start + 2]
            for sample, sigma in zip(steps[start].h[run].detach(), found[run], strict=True):
                J = torch.func.jacrev(lambda h, block=block: block(h[None])[0])(sample)
                expected = torch.linalg.svdvals(J.detach()).flip(-1)
                torch.testing.assert_close(sigma, expected, rtol=1e-7, atol=1e-7)


def test_DW_of_maxmin_is_as_isometric_as_W():
    stack = random_stack(activation="maxmin")
    found = before_task(stack, *draws(3, 40, 7))
    for number, name in enumerate(("1.weight", "3.weight"), 1):
        defect = found[name, "before_isometry_defect"]
        torch.testing.assert_close(found[f"hidden{number}", "before_DW_defect"], defect)
        sigma = singular_values(stack.params[name])
        share = ((sigma >= 0.5) & (sigma <= 2)).double().mean(-1)
        torch.testing.assert_close(found[f"hidden{number}", "before_DW_share"], share)


def test_DW_of_an_orthogonal_relu_layer_is_isometric_on_the_share_of_open_gates():
    stack, (x, y) = Stack([mlp(7, 3, 6, 2, seed=1)], CPU), draws(1, 32, 7)
    found = before_task(stack, x, y)
    share, defect = found["hidden1", "before_DW_share"].item(), found["hidden1", "before_DW_defect"].item()
    assert share == pytest.approx(found["hidden1", "before_firing"].item()) and 0 < share < 1
    assert defect == pytest.approx(1 - share, abs=1e-6)


def test_kernel_measures_are_those_of_the_first_32_samples_of_each_run():
    stack, (x, y) = random_stack(), draws(3, 40, 7)
    found = before_task(stack, x, y)
    for run in range(3):
        theta = without_constant_output(empirical_ntk(stack.single(run), x[run, :32].double()), 3)
        P = plasticity(theta, torch.tensor([10, 100]))
        assert found["", "before_P_10"][run].item() == pytest.approx(float(P[0]), rel=1e-8)
        assert found["", "before_P_100"][run].item() == pytest.approx(float(P[1]), rel=1e-8)
        largest = float(torch.linalg.eigvalsh(theta)[-1])
        assert found["", "before_kernel_max"][run].item() == pytest.approx(largest, rel=1e-8)


def test_largest_eigenvalue_alone_is_that_of_all_measures():
    stack, (x, y) = random_stack(), draws(3, 40, 7)
    stack.give_up([1])
    alone = kernel_max(stack, x)
    assert torch.equal(alone[[0, 2]], before_task(stack, x, y)["", "before_kernel_max"][[0, 2]])
    assert alone[1].isnan()


def test_adam_measures_are_those_of_the_kernel_of_normalised_gradients():
    stack, (x, y) = random_stack(runs=1), draws(1, 150, 7)
    found, net, x = before_task(stack, x, y), stack.single(0), x[0].double()
    squares = []
    for rows in (slice(0, 64), slice(64, 128)):
        loss = nn.functional.cross_entropy(net(x[rows]), y[0, rows])
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        squares.append(torch.cat([g.flatten() for g in gradients]).square())
    r = torch.stack(squares).mean(0).sqrt() + 1e-8
    params = dict(net.named_parameters())
    J = torch.func.jacrev(lambda p: torch.func.functional_call(net, p, (x[:32],)))(params)
    J = torch.cat([j.flatten(2).flatten(0, 1) for j in J.values()], 1)
    P = plasticity(without_constant_output(((J / r) @ J.T).detach(), 3), torch.tensor([10, 100])).tolist()
    assert [found["", f"before_adam_P_{k}"].item() for k in (10, 100)] == pytest.approx(P, rel=1e-8)


def test_rank_dormancy_and_norms_are_those_of_each_run():
    stack, (x, y) = random_stack(), draws(3, 40, 7)
    found = before_task(stack, x, y)
    for run in range(3):
        net = stack.single(run)
        h = net[:5](x[run].double()).detach()
        rank = float(effective_rank(singular_values(h)))
        assert found["", "before_feature_rank"][run].item() == pytest.approx(rank, rel=1e-6)
        assert found["hidden2", "before_dormant"][run].item() == pytest.approx(float(dormant_fraction(h, 0.025)))
        assert found["", "before_head_norm"][run].item() == pytest.approx(float(net[5].weight.detach().norm()))
        biases = float(torch.cat([net[1].bias, net[3].bias]).detach().norm())
        assert found["", "before_bias_norm"][run].item() == pytest.approx(biases)


def test_gates_of_a_net_with_layer_norm_are_read_after_it_and_DW_is_left_out():
    stack, (x, y) = random_stack(norm="layernorm"), draws(3, 40, 7)
    found = before_task(stack, x, y)
    z = stack.single(1)[:3](x[1].double()).detach()
    assert found["hidden1", "before_firing"][1].item() == pytest.approx(float((z > 0).double().mean()))
    assert not [metric for _, metric in found if "DW" in metric]
    assert all(torch.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_run_that_is_not_finite_is_nan_and_harms_no_other(broken):
    stack, (x, y) = random_stack(), draws(3, 40, 7)
    clean = before_task(stack, x, y)
    with torch.no_grad():
        stack.params["3.weight"][1, 0, 0] = broken
    found = before_task(stack, x, y)
    assert found.keys() == clean.keys()
    for key, value in found.items():
        assert value[1].isnan()
        assert torch.equal(value[[0, 2]], clean[key][[0, 2]])


def test_run_whose_kernel_overflows_harms_no_other():
    stack, (x, y) = random_stack(depth=4), draws(3, 40, 7)
    clean = before_task(stack, x, y)
    with torch.no_grad():
        for p in stack.params.values():
            p[1] = 1e38
    x[1] = 1e38
    found = before_task(stack, x, y)
    assert found["", "before_P_10"][1].isnan()
    assert all(torch.equal(value[[0, 2]], clean[key][[0, 2]]) for key, value in found.items())


@pytest.mark.parametrize("samples", [33, 70, 256])
@pytest.mark.parametrize("width", [6, 20])
@pytest.mark.parametrize("options", [{}, {"activation": "maxmin"}, {"activation": "crelu"}, {"norm": "layernorm"}])
def test_values_of_a_run_do_not_depend_on_the_runs_beside_it(options, width, samples, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stack, (x, y) = random_stack(5, 23, width, **options), draws(5, samples, 23)
    together = before_task(stack, x, y)
    for company in ([4], [2, 0]):
        part = Stack([stack.single(run).float() for run in company], CPU)
        for key, value in before_task(part, x[company], y[company]).items():
            assert torch.equal(value, together[key][company]), key
    monkeypatch.setattr("dyniso.study.instruments.before.ENTRIES", 1)  # one run at a time
    alone = before_task(stack, x, y)
    torch.set_num_threads(threads)
    assert all(torch.equal(value, alone[key]) for key, value in together.items())


def test_stack_stays_as_it_was():
    stack, (x, y) = random_stack(), draws(3, 40, 7)
    before = {name: p.detach().clone() for name, p in stack.params.items()}
    before_task(stack, x, y)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in stack.params.items())


def test_bad_input_is_refused_in_words():
    stack, (x, y) = random_stack(), draws(3, 40, 7)
    cnn = Stack([nn.Sequential(nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))], CPU)
    for arguments, message in (
        ((cnn, x, y), "expected an MLP"),
        ((Stack([mlp(7, 3, 6, 0)], CPU), x[:1], y[:1]), "hidden layer"),
        ((stack, x[:2], y[:2]), r"x has shape \(2, 40, 7\)"),
        ((stack, x, y[:, :3]), "y has shape"),
        ((stack, x, y.float()), "whole numbers"),
        ((Stack([mlp(7, 1, 6, 1)], CPU), x[:1], y[:1]), "outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            before_task(*arguments)
