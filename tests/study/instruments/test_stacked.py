"""Contracts of dyniso.study.instruments.stacked, against values that can be counted."""

import pytest
import torch

from dyniso.nets import mlp
from dyniso.study.instruments.stacked import activation_measures, each_run, evaluate, loss_and_hits, run_norm, steps_to
from dyniso.study.stack import Stack
from dyniso.study.tasks import load_source, load_task

CPU = torch.device("cpu")


def test_squared_error_takes_the_single_output_and_counts_no_hits():
    loss, hits = loss_and_hits(torch.tensor([[[2.0], [0.0]]]), torch.tensor([[1.0, 3.0]]))
    assert loss.tolist() == [[1, 9]]
    assert hits.isnan().all()


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [([1.0] * 50, 20), ([0.0] * 50, 50), ([0.0] * 30 + [1.0] * 20, 40), ([1.0, 0.0] * 30, 20), ([1.0] * 5, 5)],
)
def test_steps_to_a_threshold_of_one_half(accuracies, expected):
    assert steps_to(0.5, torch.tensor(accuracies)[:, None]).tolist() == [expected]


def test_evaluation_does_not_depend_on_the_chunk(tiny):
    source, seeds = load_source(tiny.stream, CPU), [0, 1, 2]
    stack = Stack([mlp(784, 10, width=8, depth=2, seed=seed) for seed in seeds], CPU)
    task = load_task(tiny, seeds, 0, source)
    (few, few_loss), (whole, loss) = (evaluate(stack, task, chunk=c) for c in (10, 1000))
    assert torch.equal(few, whole)
    torch.testing.assert_close(few_loss, loss)


def test_norm_of_a_run_is_that_of_all_its_parameters_alone():
    params = [torch.randn(2, 3, 4), torch.randn(2, 5)]
    expected = [torch.nn.utils.parameters_to_vector(p[r] for p in params).norm() for r in (0, 1)]
    torch.testing.assert_close(run_norm(params), torch.stack(expected))


def test_instrument_looks_at_finite_runs_only_and_others_are_nan():
    stack = Stack([mlp(4, 2, width=3, depth=1, seed=seed) for seed in (0, 1)], CPU)
    stack.give_up([0])
    found = each_run(stack, lambda net, x: {("", "sum"): float(net(x).sum())}, torch.ones(2, 5, 4).double())
    assert found["", "sum"].isnan().tolist() == [True, False]
    assert found["", "sum"][1].item() == pytest.approx(stack(torch.ones(2, 5, 4))[1].sum().item(), rel=1e-5)


def test_unit_that_fires_again_after_it_was_dead_is_reactivated():
    stack = Stack([mlp(2, 2, width=4, depth=1)], CPU)
    with torch.no_grad():
        stack.params["1.weight"].zero_()
    x = torch.ones(1, 6, 2)
    bias = stack.params["1.bias"]
    with torch.no_grad():
        bias.copy_(torch.tensor([[-1.0, -1.0, 1.0, 1.0]]))
    found, dead = activation_measures(stack, x, None)
    assert found["hidden1", "dead"].item() == 0.5
    assert ("hidden1", "reactivated") not in found
    with torch.no_grad():
        bias[0, 0] = 1.0
    found, _ = activation_measures(stack, x, dead)
    assert (found["hidden1", "dead"].item(), found["hidden1", "reactivated"].item()) == (
        0.25,
        0.25,
    )  # of all four units


def test_each_dormant_fraction_has_the_threshold_of_its_name():
    stack = Stack([mlp(1, 2, width=4, depth=1)], CPU)
    with torch.no_grad():
        stack.params["1.weight"].fill_(0.0)
        stack.params["1.bias"].copy_(torch.tensor([[0.0, 0.05, 1.0, 1.0]]))  # scores 0, .1 and above
    found, _ = activation_measures(stack, torch.ones(1, 3, 1), None)
    assert [found["hidden1", f"dormant_{tau}"].item() for tau in (0.025, 0.1)] == [0.25, 0.5]
