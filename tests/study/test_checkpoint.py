"""Contracts of dyniso.study.checkpoint that need no training: which checkpoints a call goes on with."""

from dyniso.study.checkpoint import Checkpoint, begun


def test_checkpoint_goes_on_only_if_all_its_runs_are_wanted_and_one_is_missing(tmp_path):
    pair = ["a-0.npz", "a-1.npz"]
    Checkpoint(tmp_path, pair).save({})
    assert begun(tmp_path, [*pair, "a-2.npz"], ["a-1.npz"]) == [pair]
    assert begun(tmp_path, ["a-1.npz"], ["a-1.npz"]) == []  # run 0 would be trained for nothing
    assert begun(tmp_path, pair, []) == []


def test_of_two_checkpoints_with_a_run_in_common_the_larger_counts(tmp_path):
    pair, three = ["a-0.npz", "a-1.npz"], ["a-1.npz", "a-2.npz", "a-3.npz"]
    for members in (pair, three):
        Checkpoint(tmp_path, members).save({})
    every = [*pair, *three[1:]]
    assert begun(tmp_path, every, every) == [three]
