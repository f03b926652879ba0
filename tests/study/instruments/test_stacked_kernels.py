"""Contracts of dyniso.study.instruments.stacked_kernels, against explicit Jacobians of each run alone."""

import pytest
import torch
from torch import nn

from dyniso.entk import empirical_ntk
from dyniso.nets import mlp, orthogonal
from dyniso.study.instruments.stacked_kernels import (
    adam_divisors,
    adam_kernel,
    backward_maps,
    mlp_layers,
    stacked_ntk,
    walk,
)
from dyniso.study.stack import Stack

CPU = torch.device("cpu")
NETS = {
    "relu": dict(activation="relu"),
    "maxmin": dict(activation="maxmin"),
    "crelu": dict(activation="crelu"),
    "tanh, no bias": dict(activation="tanh", bias=False),
    "layer norm": dict(norm="layernorm"),
    "fixed layer norm": dict(norm="layernorm_fixed"),
}


def make_stack(runs: int = 3, **options) -> Stack:
    nets = [mlp(7, 3, 6, 2, seed=seed, **options) for seed in range(runs)]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for net in nets:
            for p in net.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return Stack(nets, CPU)


def in_float64(stack: Stack):
    return [layer._replace(params={key: p.double() for key, p in layer.params.items()}) for layer in mlp_layers(stack)]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 10, 7, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randint(3, (3, 10), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_stacked_ntk_is_the_empirical_ntk_of_each_run(options, x):
    stack = make_stack(**options)
    steps = walk(in_float64(stack), x)
    theta = stacked_ntk(steps, backward_maps(steps))
    for r in range(3):
        torch.testing.assert_close(theta[r], empirical_ntk(stack.single(r), x[r]), rtol=1e-8, atol=1e-8)


def test_stacked_ntk_of_a_parametrized_stack_is_that_of_its_plain_weights(x):
    nets = [mlp(7, 3, 6, 2, "tanh", seed=seed) for seed in range(3)]
    for net in nets:
        orthogonal(net[3], "cayley")
    stack = Stack(nets, CPU)
    steps = walk(in_float64(stack), x)
    theta = stacked_ntk(steps, backward_maps(steps))
    torch.testing.assert_close(theta[1], empirical_ntk(stack.single(1), x[1]), rtol=1e-8, atol=1e-8)


def root_mean_squares(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, minibatches: list[slice]):
    """What Adam divides by, from gradients of each minibatch by autograd."""
    squares = []
    for rows in minibatches:
        net.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        squares.append([p.grad.square() for p in net.parameters()])
    return [torch.stack(of_p).mean(0).sqrt() + 1e-8 for of_p in zip(*squares, strict=True)]


@pytest.mark.parametrize(("batch", "minibatches"), [(4, [slice(0, 4), slice(4, 8)]), (64, [slice(0, 10)])])
@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_divisors_are_the_root_mean_square_gradients_over_full_minibatches(options, batch, minibatches, x, y):
    stack = make_stack(**options)
    found = [r for divisors in adam_divisors(walk(in_float64(stack), x), y, batch) for r in divisors.values()]
    for run in range(3):
        expected = root_mean_squares(stack.single(run), x[run], y[run], minibatches)
        torch.testing.assert_close([r[run] for r in found], expected, rtol=1e-10, atol=0)


def test_first_step_of_a_fresh_adam_divides_by_the_divisors_of_one_minibatch(x, y):
    stack = make_stack()
    (r, *_) = adam_divisors(walk(in_float64(stack), x), y)
    net = stack.single(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    before = net[1].weight.detach().clone()
    nn.functional.cross_entropy(net(x[0]), y[0]).backward()
    optimizer.step()
    torch.testing.assert_close(before - net[1].weight, 0.1 * net[1].weight.grad / r["weight"][0])


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_adam_kernel_is_the_jacobian_with_each_parameter_over_its_divisor(options, x, y):
    stack = make_stack(**options)
    steps = walk(in_float64(stack), x)
    divisors = adam_divisors(steps, y, batch=4)
    kernel = adam_kernel(steps, backward_maps(steps), divisors)
    for run in range(3):
        net = stack.single(run)
        params = dict(net.named_parameters())
        J = torch.func.jacrev(lambda p, net=net, run=run: torch.func.functional_call(net, p, (x[run],)))(params)
        r = [of_p[run] for of_layer in divisors for of_p in of_layer.values()]
        J = [j.flatten(2).flatten(0, 1) for j in J.values()]  # (n C, entries) each
        terms = [(j / d.flatten()) @ j.mT for j, d in zip(J, r, strict=True)]
        torch.testing.assert_close(kernel[run], sum(terms), rtol=1e-8, atol=1e-8)


def test_adam_kernel_with_divisors_one_is_the_ntk(x):
    steps = walk(in_float64(make_stack(norm="layernorm")), x)
    ones = [{key: torch.ones_like(p) for key, p in step.params.items()} for step in steps if step.params]
    maps = backward_maps(steps)
    torch.testing.assert_close(adam_kernel(steps, maps, ones), stacked_ntk(steps, maps))


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), "Conv2d"),
        (nn.Sequential(nn.Linear(4, 4), nn.PReLU(), nn.Linear(4, 2)), "PReLU"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)), "Dropout"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "head"),
    ],
)
def test_layers_that_are_no_mlp_are_named(net, named):
    with pytest.raises(ValueError, match=named):
        mlp_layers(Stack([net], CPU))
