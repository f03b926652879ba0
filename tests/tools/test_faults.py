"""Contracts of tools/faults.py: it notices what is wrong, and its committed counts say that nothing was."""

import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import faults

from dyniso.study import files


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTS_SCRATCH", str(tmp_path))


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("after", [False, True])
def test_file_of_a_process_that_dies_at_any_operation_is_the_old_or_the_new_one(tmp_path, count, after):
    path = tmp_path / "x"

    def write(text):
        files.write_whole(path, lambda temporary: temporary.write_text(text + files.SEAL))

    write("old")
    pid = faults.start(lambda: faults.dying(count, after, lambda: write("new")))
    assert faults.ended(pid) in (0, -signal.SIGKILL)
    assert files.is_whole(path.read_bytes())
    assert path.read_text()[:3] in ("old", "new")


def test_damage_that_is_read_as_a_result_is_wrong_and_a_refusal_that_names_the_file_is_not():
    def refuse(text):
        raise files.UnusableError(text)

    path = Path("a.parquet")
    assert faults.verdict(lambda: 1, 1, path) == "right"
    assert faults.verdict(lambda: 2, 1, path) == "wrong"
    assert faults.verdict(lambda: refuse("a.parquet is damaged"), 1, path) == "refused"
    assert faults.verdict(lambda: refuse("something"), 1, path) == "wrong"
    assert faults.verdict(lambda: 1 // 0, 1, path) == "wrong"


@pytest.mark.parametrize("fault", [faults.killed_at_random, faults.killed_at_each_operation])
def test_process_that_ends_with_an_error_is_wrong_though_the_rows_are_right_in_the_end(tmp_path, fault):
    class Failing:
        experiment, scratch, seconds = faults.STREAM, tmp_path, 0.5

        def train(self, folder):
            raise ValueError("refused")

        def judge(self, folder):
            return Counter({"right": 1})

    found = fault(Failing(), random.Random(0))
    assert found["wrong"] == found["tried"] > 0 and not found["right"]


def test_damage_changes_one_bit_or_cuts_the_end():
    draw, whole = random.Random(0), os.urandom(100)
    for _ in range(50):
        found = faults.damage(whole, draw, b"")
        bits = sum((a ^ b).bit_count() for a, b in zip(whole, found, strict=False))
        assert (len(found), bits) == (100, 1) or (len(found) < 100 and whole.startswith(found))


def test_committed_counts_are_of_at_least_200_kills_and_nothing_was_wrong_or_left_over():
    rows = json.loads(faults.TARGET.read_text(encoding="utf-8"))["rows"]
    assert sum(row["tried"] for name, row in rows.items() if "killed" in name) >= 200
    assert len(rows) == len(faults.PLAN)
    assert {name: (row["wrong"], row["left over"]) for name, row in rows.items()} == dict.fromkeys(rows, (0, 0))
