"""One matrix under AdamO: draws repeat, and each experiment measures what its name says."""

import pytest
import torch

from dyniso.study.trials.one_matrix import OneMatrix

ONE = OneMatrix(16, 3)


def test_draws_are_a_function_of_seed_and_salt():
    assert torch.equal(ONE.normal(4, salt=1), OneMatrix(16, 3).normal(4, salt=1))
    assert not torch.equal(ONE.normal(4, salt=1), ONE.normal(4, salt=2))
    assert not torch.equal(ONE.normal(4), OneMatrix(16, 4).normal(4))


def test_decoupled_pull_does_not_see_the_scale_of_the_gradient_and_the_coupled_one_does():
    decoupled = [ONE.after_noise(1.0, False, scale, count=100) for scale in (1e-3, 1.0)]
    coupled = [ONE.after_noise(1e-2, True, scale, count=100) for scale in (1e-3, 1.0)]
    assert decoupled[0] == pytest.approx(decoupled[1], rel=0.02)
    assert coupled[1] > 2 * coupled[0]


def test_decoupled_step_turns_no_singular_vector():
    assert ONE.off_diagonal_share(False) < 0.01 < 0.4 < ONE.off_diagonal_share(True)


def test_task_part_is_whole_without_a_penalty_and_shrinks_with_it():
    assert ONE.task_part(0.0) == pytest.approx((1, 1))
    v, part = ONE.task_part(0.1)
    assert v > 1 and part < 1


def test_training_at_strength_zero_is_adams_to_the_bit():
    assert all(map(torch.equal, ONE.trained(None), ONE.trained(0.0)))
    assert not torch.equal(ONE.trained(None)[0], ONE.trained(0.1)[0])


def test_pull_follows_the_schedule_unless_it_has_a_rate_of_its_own():
    first, second = (moved.norm() for moved in ONE.pulls(None))
    assert float(second / first) == pytest.approx(0.1)
    first, second = (moved.norm() for moved in ONE.pulls(1e-2))
    assert float(second / first) == pytest.approx(1)


def test_balance_of_decay_and_pull_is_where_eq_puts_it():
    assert ONE.balance(0.1).tolist() == pytest.approx([0.75**0.5] * 16, abs=2e-3)


def test_draws_of_one_seed_are_none_of_those_of_the_next():
    assert not torch.equal(OneMatrix(16, 4).normal(4), ONE.normal(4, salt=1))
