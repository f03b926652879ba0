"""Contracts of continual PPO on games: rows, random numbers, and runs that are stopped."""

import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_games import CPU, RESUMED, SEEDS, TINY, arm, only
from tqdm import tqdm

from dyniso.study import runner
from dyniso.study.checkpoint import Checkpoint, OutOfTime
from dyniso.study.rl import player as player_module
from dyniso.study.rl import train
from dyniso.study.rl.agent import Agent
from dyniso.study.rl.envs import EVALUATE, PROBE, TRAIN
from dyniso.study.rl.player import Player
from dyniso.study.rl.ppo import Losses, Rollout
from dyniso.study.rl.sequence import visit
from dyniso.study.rl.train import Log, last_met, train_group
from dyniso.study.specs import GameExperiment, Method
from dyniso.study.specs.reinforcement import Games
from dyniso.study.stack import Run

STACKED = 5e-3  # float32: a batched product rounds otherwise than a single one, over 16 steps of Adam at 1e-2


def rows_of(experiment: GameExperiment, tmp_path, seeds=SEEDS) -> list[pd.DataFrame]:
    """Rows of all methods x seeds in one stack."""
    runs = [Run(m, s) for m in experiment.methods for s in seeds]
    return train_group(experiment, runs, CPU, tqdm(disable=True), Checkpoint(tmp_path, ["adam-0.parquet"], 1e9))


def value(rows: pd.DataFrame, metric: str, task: int, layer: str = "") -> float:
    (found,) = rows[(rows["metric"] == metric) & (rows["task"] == task) & (rows["layer"] == layer)]["value"]
    return found


def test_setting_that_a_baseline_refuses_is_an_error_before_any_game_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(player_module, "Envs", None)
    monkeypatch.setattr(train, "train_group", None)
    wrong = Method("redo", "ReDo", baseline="redo", settings=(("thresold", 0.1),))
    with pytest.raises(ValueError, match=r"thresold.*did you mean 'threshold'"):
        runner.run(replace(TINY, methods=(wrong,)), "cpu", tmp_path)
    assert list(tmp_path.rglob("*.*")) == []


def test_other_game_is_evaluated_with_the_channels_it_was_last_met_with():
    games = Games(cycles=3)
    seen = [visit(games, 4, i) for i in range(games.visits)]
    for index in range(games.visits):
        for name in games.names:
            found = last_met(games, 4, index, name)
            past = [v for v in seen[: index + 1] if v.game == name]
            assert found == (past[-1] if past else next(v for v in seen if v.game == name))


# ------------------------------------------------------------------------------------------------------- the log


def test_point_without_a_finished_episode_is_nan_and_leaves_the_others():
    log = Log(2, 2, CPU)
    first, second = log.point(0), log.point(1)
    second["returns"] += torch.tensor([6.0, 0.0])
    second["finished"] += torch.tensor([3.0, 0.0])
    first["rewards"] += 5
    log.steps += 100
    found = log.measures()
    assert found["point1", "return"].isnan().all()
    assert found["point1", "reward_rate"].tolist() == [50, 50]
    assert found["", "return"][0] == found["point2", "return"][0] == 2
    assert found["", "return"][1].isnan()
    assert found["", "episodes"].tolist() == [3, 0]


@pytest.mark.parametrize(("iterations", "points"), [(7, 3), (8, 4), (5, 5), (9, 2)])
def test_every_point_of_the_curve_has_its_share_of_updates(iterations, points):
    found = np.bincount([i * points // iterations for i in range(iterations)], minlength=points)
    assert len(found) == points
    assert found.max() - found.min() <= 1


def test_return_of_a_visit_is_the_mean_over_its_episodes_and_not_over_its_points():
    log = Log(1, 2, CPU)
    for point, (returns, finished) in enumerate([(10.0, 1.0), (6.0, 3.0)]):
        log.point(point)["returns"] += returns
        log.point(point)["finished"] += finished
    log.steps += 1
    assert log.measures()["", "return"].tolist() == [(10 + 6) / (1 + 3)]


class Idle:
    """Stands for a player: every update is the same, and nothing is learned."""

    def play(self, episodes):
        episodes["finished"] += 1
        return Rollout(
            *(torch.zeros(16, 1, 8) for _ in range(5)), *torch.zeros(2, 16, 1, 8).bool(), torch.zeros(16, 1, 8)
        )

    def learn(self, rollout, done):
        return Losses(*torch.zeros(6, 1))


@pytest.mark.parametrize(("iterations", "points"), [(7, 3), (8, 4), (5, 5), (9, 2)])
def test_updates_of_a_visit_are_spread_evenly_over_the_points_of_its_curve(iterations, points):
    experiment = replace(TINY, games=replace(TINY.games, steps_per_game=128 * iterations), curve=points)
    log = Log(1, points, CPU)
    for iteration in range(iterations):
        train.advance(experiment, Idle(), log, iteration)
    updates = log.sums["finished"][:, 0]
    assert updates.sum() == iterations and updates.max() - updates.min() <= 1
    assert torch.equal(log.steps, 128 * updates.double())


# ----------------------------------------------------------------------------------------------------- real games


@pytest.fixture
def games():
    pytest.importorskip("jax")
    pytest.importorskip("gymnax")


def test_same_seeds_give_the_same_rows_and_other_seeds_others(games, tmp_path):
    first, second = rows_of(TINY, tmp_path), rows_of(TINY, tmp_path)
    for a, b in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert value(first[0], "weight_norm", 1) != value(first[1], "weight_norm", 1)


def test_rows_cover_every_visit_and_are_finite_where_episodes_end(games, tmp_path):
    (rows,) = rows_of(replace(TINY, evaluate="all"), tmp_path, seeds=(0,))
    assert sorted(rows["task"].unique()) == [-1, 0, 1]
    assert rows["value"].notna().all()
    for task in (0, 1):
        assert value(rows, "diverged", task) == 0
        name = visit(TINY.games, 0, task).game
        assert value(rows, "game", task) == TINY.games.names.index(name)
        here = value(rows, "evaluation_return", task)
        assert here == value(rows, "evaluation_return", task, name)
        assert value(rows, "episodes", task) >= 8 * (32 // 15)  # cut at 15 steps, if they do not end before
        assert 0 < value(rows, "entropy", task) <= math.log(6)
        parts = [value(rows, "reward_rate", task, f"point{p}") for p in (1, 2)]
        assert value(rows, "reward_rate", task) == pytest.approx(np.mean(parts))
    assert {"actor.1.weight", "critic.5.weight", "actor.hidden2"} <= set(rows["layer"])


def test_stacked_runs_of_two_strengths_in_two_games_equal_each_alone(games, tmp_path):
    experiment = only("adam", "adamo")
    runs = [Run(m, s) for m, s in zip(experiment.methods, SEEDS, strict=True)]
    assert visit(TINY.games, SEEDS[0], 0).game != visit(TINY.games, SEEDS[1], 0).game
    bar, checkpoint = tqdm(disable=True), Checkpoint(tmp_path, ["adam-0.parquet"], 1e9)
    together = train_group(experiment, runs, CPU, bar, checkpoint)
    for run, rows in zip(runs, together, strict=True):
        (alone,) = train_group(experiment, [run], CPU, bar, checkpoint)
        pd.testing.assert_frame_equal(rows[["task", "layer", "metric"]], alone[["task", "layer", "metric"]])
        pair = (frame["value"].clip(upper=1e3) for frame in (rows, alone))  # condition numbers
        np.testing.assert_allclose(*pair, rtol=STACKED, atol=STACKED)


def test_methods_of_a_seed_see_the_same_probe_and_start(games, tmp_path):
    start = [rows_of(only(name), tmp_path)[0].query("task == -1") for name in ("adam", "adamo", "fire")]
    for other in start[1:]:
        pd.testing.assert_frame_equal(other, start[0], check_exact=True)
    probes = []
    for name in ("adam", "maxmin_adamo_no_bias"):
        player = Player(only(name), [Run(arm(name), s) for s in SEEDS], CPU)
        probes.append(player.probe(player.visits(0)))
    assert torch.equal(*probes)
    assert probes[0].shape == (2, 64, 1000)
    assert not torch.equal(probes[0][0], probes[0][1])


def test_evaluation_probing_and_measuring_leave_training_as_it_was(games):
    players = [Player(TINY, [Run(TINY.methods[0], s) for s in SEEDS], CPU) for _ in range(2)]
    logs = [Log(2, 1, CPU) for _ in players]
    for player, log, looks in zip(players, logs, (False, True), strict=True):
        player.enter(0)
        for _ in range(2):
            player.learn(player.play(log.point(0)), 0.0)
            if looks:
                again = [player.evaluate(player.visits(0)) for _ in range(2)]
                assert torch.equal(*again)
                player.agent.measures(player.probe(player.visits(0)), None)
                torch.rand(3)
    for a, b in zip(*(p.agent.params.values() for p in players), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(logs[0].sums[k], logs[1].sums[k]) for k in logs[0].sums)


def test_seen_observations_stay_as_they_were_when_games_go_on(games):
    player = Player(TINY, [Run(TINY.methods[0], 0)], CPU)
    player.enter(0)
    rollout = player.play(Log(1, 1, CPU).point(0))
    kept = [x.clone() for x in rollout]
    player.play(Log(1, 1, CPU).point(0))
    assert all(torch.equal(a, b) for a, b in zip(rollout, kept, strict=True))
    assert rollout.truncated.any()
    assert (rollout.obs[1:] != rollout.obs[:-1]).any()


def test_every_visit_starts_new_episodes_in_its_own_game(games):
    player = Player(TINY, [Run(TINY.methods[0], 0)], CPU)
    player.enter(0)
    player.play(Log(1, 1, CPU).point(0))
    player.returns += 1
    player.enter(1)
    assert not player.returns.any()
    assert [player.visits(i)[0].game for i in (0, 1)] in (
        ["breakout", "space_invaders"],
        ["space_invaders", "breakout"],
    )
    assert torch.equal(player.envs.obs, player_module.Envs(TINY.games, player.visits(1), [0], 8, CPU).obs)


def test_training_evaluation_and_probes_draw_from_streams_of_their_own(games, monkeypatch):
    made, original = [], player_module.Envs
    monkeypatch.setattr(player_module, "Envs", lambda *a: (made.append((a[5], original(*a))), made[-1][1])[1])
    player = Player(TINY, [Run(TINY.methods[0], 0)], CPU)
    player.enter(0)
    player.evaluate(player.visits(0))
    player.probe(player.visits(0))
    assert [stream for stream, _ in made] == [TRAIN, EVALUATE, PROBE]


def test_agents_meet_a_change_of_game_once_between_two_visits_however_often_they_are_stopped(
    games, tmp_path, monkeypatch
):
    calls, original = [], Agent.new_task
    monkeypatch.setattr(Agent, "new_task", lambda a, n: (calls.append(len(a.optimizer.state)), original(a, n))[1])
    _, stops = in_parts(only("adam"), tmp_path)
    assert stops == 3
    assert calls == [12]  # tensors of actor and critic, three layers each, with the moments of the first visit


@pytest.mark.parametrize("name", ["adam", "nap", "maxmin_adamo_no_bias"])
def test_agents_that_see_a_games_own_channels_answer_and_learn_as_on_whole_observations(games, name):
    player = Player(only(name), [Run(arm(name), s) for s in SEEDS], CPU)  # of 4 channels and of 6
    player.enter(0)
    for _ in range(5):
        player.envs.step(torch.randint(6, (2, 8), generator=torch.Generator().manual_seed(0)))
    answers, grads = [], []
    for seen in ((player.envs.obs, player.envs.columns), (player.envs.whole(),)):
        answers.append(player.agent(*seen))
        player.agent.optimizer.zero_grad()
        sum(x.square().sum() for x in answers[-1]).backward()
        grads.append([p.grad.clone() for p in player.agent.params.values()])
    for a, b in zip((*answers[0], *grads[0]), (*answers[1], *grads[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_explained_variance_is_that_of_the_returns_that_were_learned(games, monkeypatch):
    limits, original = [], train.advantages
    for module in (player_module, train):
        monkeypatch.setattr(module, "advantages", lambda *a: (limits.append(a[3]), original(*a))[1])
    experiment = replace(TINY, ppo=replace(TINY.ppo, time_limit="terminate"))
    player, log = Player(experiment, [Run(TINY.methods[0], 0)], CPU), Log(1, 2, CPU)
    player.enter(0)
    train.advance(experiment, player, log, 0)
    assert limits == ["terminate", "terminate"]  # once to learn, once to report
    assert (log.losses["explained_variance"][0] < 1).all()


def test_diverged_run_is_recorded_as_nan_and_harms_no_other(games, tmp_path, monkeypatch):
    calm = rows_of(TINY, tmp_path)
    original = train.advance

    def broken(experiment, player, log, iteration):
        if (player.index, iteration) == (0, 1):
            player.agent.give_up([0])
        original(experiment, player, log, iteration)

    monkeypatch.setattr(train, "advance", broken)
    rows = rows_of(TINY, tmp_path)
    pd.testing.assert_frame_equal(rows[1], calm[1], check_exact=True)
    assert [value(rows[0], "diverged", task) for task in (0, 1)] == [1, 1]
    assert sorted(value(rows[0], "game", task) for task in (0, 1)) == [0, 1]
    learned = rows[0]["metric"].isin(
        calm[0].query("task == 0 and layer.str.startswith('point')", engine="python")["metric"]
    )
    assert learned.any()
    assert rows[0][learned & (rows[0]["task"] >= 0)]["value"].isna().all()
    known = rows[0]["metric"].isin(["diverged", "game"])
    assert rows[0][(rows[0]["task"] == 1) & ~known]["value"].isna().all()


# --------------------------------------------------------------------------------------------- stopped and resumed

KEYS = ["method", "seed", "task", "layer", "metric", "value"]


class Killed(Exception):
    """Stands for a process that is gone."""


def in_parts(experiment, folder) -> tuple[pd.DataFrame, int]:
    """Rows of a run that is stopped after every update, and how often it was."""
    for stops in range(100):
        try:
            return runner.run(experiment, "cpu", folder, progress=False, time_budget_s=0), stops
        except OutOfTime:
            continue
    raise AssertionError("it never ends")


@pytest.mark.parametrize("name", RESUMED)
def test_run_stopped_after_every_update_equals_the_uninterrupted_one_bit_for_bit(games, tmp_path, name):
    experiment = only(name)
    whole = runner.run(experiment, "cpu", tmp_path / "whole", progress=False)
    parts, stops = in_parts(experiment, tmp_path / "parts")
    assert stops == 3  # of four updates; the second stop is at the end of a visit
    pd.testing.assert_frame_equal(parts[KEYS], whole[KEYS], check_exact=True)
    assert list(tmp_path.rglob("*.checkpoint")) == []


def killed(monkeypatch, function: str, visit_index: int, iteration: int | None = None):
    """Let a function of the loop fail in a visit (at an update)."""
    original = getattr(train, function)

    def failing(experiment, player, *rest):
        if player.index == visit_index and (iteration is None or rest[1] == iteration):
            raise Killed
        return original(experiment, player, *rest)

    monkeypatch.setattr(train, function, failing)


@pytest.mark.parametrize(
    "where",
    [("advance", 0, 1), ("leave", 0), ("advance", 1, 0), ("advance", 1, 1)],
    ids=["in the first visit", "before the end of a visit is measured", "before the next begins", "in the last visit"],
)
def test_run_killed_anywhere_equals_the_uninterrupted_one(games, tmp_path, where):
    experiment = only("adam_kept", ppo=replace(TINY.ppo, anneal=True))
    whole = runner.run(experiment, "cpu", tmp_path / "whole", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, *where)
        with pytest.raises(Killed):
            runner.run(experiment, "cpu", tmp_path / "parts", progress=False, checkpoint_every_s=0)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    resumed = runner.run(experiment, "cpu", tmp_path / "parts", progress=False)
    pd.testing.assert_frame_equal(resumed[KEYS], whole[KEYS], check_exact=True)


def test_player_that_takes_up_a_state_goes_on_as_the_other_does(games):
    players = [Player(TINY, [Run(TINY.methods[0], s) for s in SEEDS], CPU) for _ in range(2)]
    first, second = players
    first.enter(1)
    first.learn(first.play(Log(2, 1, CPU).point(0)), 0.0)
    first.returns += torch.arange(8.0)  # as if something had been won in the episodes under way
    second.load_state_dict(copy.deepcopy(first.state_dict()), 1)
    logs = [Log(2, 1, CPU) for _ in players]
    for player, log in zip(players, logs, strict=True):
        player.learn(player.play(log.point(0)), 0.5)
    assert all(torch.equal(logs[0].sums[k], logs[1].sums[k]) for k in logs[0].sums)
    assert logs[0].sums["returns"].sum() > logs[0].sums["rewards"].sum()
    for a, b in zip(*(p.agent.params.values() for p in players), strict=True):
        assert torch.equal(a, b)


def test_resumed_run_makes_only_the_updates_that_are_left(games, tmp_path, monkeypatch):
    with pytest.raises(OutOfTime):
        runner.run(TINY, "cpu", tmp_path, progress=False, time_budget_s=0)
    made, original = [], train.advance
    monkeypatch.setattr(train, "advance", lambda *a: (made.append((a[1].index, a[3])), original(*a))[1])
    runner.run(TINY, "cpu", tmp_path, progress=False)
    assert made == [(0, 1), (1, 0), (1, 1)]
