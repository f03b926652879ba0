"""Contracts of the claims about games: scores by game and seed from stored rows, and verdicts that follow."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dyniso.report import claims
from dyniso.report.claims import NotRunError, judge
from dyniso.report.claims.games import GAMES, LOSS, OURS, RELU
from dyniso.report.results import RETURN, Results
from dyniso.study import specs, store
from dyniso.study.specs.reinforcement import AUTHORS, SINGLE

NAMES, CYCLES, SEEDS = ("breakout", "space_invaders"), 5, (0, 1, 2, 3)
BY_ID = {claim.id: claim for claim in GAMES}
FRESH = np.array([2.0, 50.0])  # what a fresh agent reaches in each game
SPREAD = 0.02 * np.array([-1.0, 0.0, 0.5, 1.0])  # over seeds


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The registered experiment with fewer cycles, and an empty folder of results."""
    small = specs.REINFORCEMENT["minatar"]["check"]
    small = replace(small, games=replace(small.games, cycles=CYCLES, names=NAMES), seeds=SEEDS)
    monkeypatch.setattr(specs, "REINFORCEMENT", {"minatar": {"check": small}})
    monkeypatch.setattr(store, "results_folder", lambda: tmp_path)
    return small


def game_of(seed: int, task: int) -> int:
    """Seeds play the games in different orders."""
    return (task + seed) % len(NAMES)


def rows_of(experiment, level) -> pd.DataFrame:
    """Rows of all runs; `level(method, cycle)` is the score that a method reaches, and there is a point beside it."""
    rows = []
    for m in experiment.methods:
        for i, seed in enumerate(experiment.seeds):
            rows += [
                (m.name, seed, -1, layer, "isometry_defect", 1.0) for layer in ("actor.1.weight", "critic.1.weight")
            ]
            for task in range(experiment.tasks):
                game, cycle = game_of(seed, task), task // len(NAMES)
                score = level(m.name, cycle) + (SPREAD[i] if m.name != SINGLE else 0.0)
                found = [("", "game", game), ("", "diverged", 0.0), ("", "return", score * FRESH[game])]
                found += [("point1", "return", 1e6), ("actor.hidden1", "dormant_0.025", 0.5)]
                found += [(f"{net}.1.weight", "isometry_defect", 0.01) for net in ("actor", "critic")]
                found += [(f"{net}.3.weight", "isometry_defect", 1e6) for net in ("actor", "critic")]  # the heads
                rows += [(m.name, seed, task, *each) for each in found]
    facts = {"commit": "abc", "torch": "2", "hardware": "a CPU", "wall_s": 1.0, "stacked_runs": "8"}
    return pd.DataFrame(rows, columns=["method", "seed", "task", "layer", "metric", "value"]).assign(**facts)


def stored(experiment, frame: pd.DataFrame) -> None:
    """Write the committed table."""
    digests = {m.name: specs.digest(experiment, m) for m in experiment.methods}
    named = frame.assign(digest=frame["method"].map(digests), experiment=experiment.name, tier=experiment.tier)
    store.write_parquet(named, store.compact_path(experiment))


def judging(experiment, frame: pd.DataFrame):
    """From the id of a claim to its verdict on some rows."""
    runs = Results(experiment, frame)
    return lambda id: judge(BY_ID[id], "check", lambda _: runs)


def falling(loss: float):
    """Adam falls by that much from the first cycle to the last; every other method stays at one."""
    return lambda method, cycle: 1 - loss * cycle / (CYCLES - 1) if method == "adam" else 1.0


# ------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("loss", "lost", "beaten"),
    [
        (0.5, "reproduced", "reproduced"),
        (0.0, "not", "undecided"),
        (-0.5, "not", "not"),
        (LOSS / 2, "not", "reproduced"),
    ],
)
def test_verdict_on_adam_is_what_its_scores_were_made_to_say(registry, loss, lost, beaten):
    of = judging(registry, rows_of(registry, falling(loss)))
    assert {of(f"minatar_{id}").verdict for id in ("adam_loses_plasticity", "adam_below_fresh")} == {lost}
    assert {of(f"minatar_{id}_beats_adam").verdict for id in ("maxmin_adamo", "no_biases_alone")} == {beaten}
    kept = {"reproduced"} if lost == "reproduced" else {"not testable"}
    assert {of(f"minatar_maxmin_adamo_{id}").verdict for id in ("keeps_plasticity", "as_fresh")} == kept


def test_effect_is_the_difference_of_scores_whatever_the_scale_and_order_of_the_games(registry):
    of = judging(registry, rows_of(registry, falling(0.4)))
    found = of("minatar_maxmin_adamo_beats_adam")
    (finding,) = found.findings
    assert (found.effect, finding.low, finding.high) == pytest.approx((0.4, 0.4, 0.4))
    assert (len(finding.values), finding.improved) == (len(NAMES) * len(SEEDS), 1.0)


def test_effect_of_games_is_the_interquartile_mean_and_its_seeds_are_drawn_within_games():
    values = np.array([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 100.0]])
    effect, low, high = claims.verdict.estimate(values)
    assert (effect, low) == (1.0, pytest.approx(1.0, abs=0.5)) and high < 60
    apart = np.array([[0.0] * 4, [2.0] * 4])
    assert claims.verdict.estimate(apart) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("raised", "reproduced"),
    [
        ({"maxmin_adamo", "maxmin_adamo_no_bias", "adamo", "adamo_no_bias"}, "minatar_penalty"),
        ({"maxmin", "maxmin_no_bias", "maxmin_adamo", "maxmin_adamo_no_bias"}, "minatar_sorting"),
        ({"adam_no_bias", "adamo_no_bias", "maxmin_no_bias", "maxmin_adamo_no_bias"}, "minatar_no_biases"),
    ],
)
def test_main_effect_is_found_where_it_was_put_and_nowhere_else(registry, raised, reproduced):
    of = judging(registry, rows_of(registry, lambda method, _: 1.5 if method in raised else 1.0))
    verdicts = {id: of(id) for id in ("minatar_penalty", "minatar_sorting", "minatar_no_biases")}
    assert [id for id, v in verdicts.items() if v.verdict == "reproduced"] == [reproduced]
    assert verdicts[reproduced].effect == pytest.approx(0.5)
    more = of("minatar_penalty_more_than_sorting")
    assert more.effect == pytest.approx({"minatar_penalty": 0.5, "minatar_sorting": -0.5}.get(reproduced, 0.0))


def test_isometry_leaves_out_heads_and_is_measured_from_the_untrained_nets(registry):
    of = judging(registry, rows_of(registry, falling(0.0)))
    assert of("minatar_adamo_stays_isometric").effect == pytest.approx(np.log10(0.05 / 0.01))
    assert of("minatar_adam_leaves_isometry").effect == pytest.approx(-2.0)
    assert of("minatar_adamo_nearer_isometry").effect == pytest.approx(0.0)


def test_scale_names_visits_games_net_and_seeds(registry):
    stored(registry, rows_of(registry, falling(0.0)))
    claim = BY_ID["minatar_adam_loses_plasticity"]
    found = judge(claim)
    assert found.scale == "tier check; minatar: 10 visits to breakout, space_invaders, net 4 x 32, 4 seeds"
    assert "0 of 8 seeds of games above 0.1; 10 visits" in claims.lines(claim, found, verbose=True)[1]
    assert claims.as_record(claim, found)["findings"][0]["games"] == NAMES


# -------------------------------------------------------------------------------------------- what is missing or bad


@pytest.mark.parametrize("claim", GAMES, ids=lambda claim: claim.id)
def test_claim_without_a_table_is_not_run_and_says_which(claim, registry):
    found = judge(claim)
    assert (found.verdict, found.effect, found.findings) == ("not run", None, ())
    assert "no stored results minatar-check.parquet" in found.reason or "there is no experiment octax" in found.reason


DROPS = {
    "a visit": (
        lambda f: (f["method"] == "adam") & (f["seed"] == 2) & (f["task"] == 9),
        "no return of adam, seed 2, task 9",
    ),
    "the return": (lambda f: f["metric"] == "return", "no return of reset_all"),
    "a visit of the fresh agent": (
        lambda f: (f["method"] == SINGLE) & (f["seed"] == 0) & (f["task"] == 3),
        f"no return of {SINGLE}, seed 0, task 3",
    ),
}


@pytest.mark.parametrize(("drop", "reason"), DROPS.values(), ids=DROPS)
def test_missing_visit_is_not_run_and_not_averaged_away(registry, drop, reason):
    frame = rows_of(registry, falling(0.5))
    stored(registry, frame[~drop(frame)])
    found = judge(BY_ID["minatar_adam_loses_plasticity"])
    assert (found.verdict, reason in found.reason) == ("not run", True), found.reason


def diverging(frame: pd.DataFrame, method: str, seed: int) -> pd.DataFrame:
    """The rows with one run NaN and diverged from task 4 on."""
    late = (frame["method"] == method) & (frame["seed"] == seed) & (frame["task"] >= 4)
    value = frame["value"].mask(late & (frame["metric"] != "game"), np.nan)
    return frame.assign(value=value.mask(late & (frame["metric"] == "diverged"), 1.0))


def test_diverged_run_scores_0_and_is_named(registry):
    of = judging(registry, diverging(rows_of(registry, falling(0.0)), OURS, 3))
    found = of("minatar_maxmin_adamo_keeps_plasticity")
    (finding,) = found.findings
    assert finding.values[3] == finding.values[7] == pytest.approx(-1.02)
    assert f"{OURS}, seed 3 of minatar" in found.reason


def test_nothing_is_measured_by_a_fresh_agent_that_diverged_or_gets_nothing(registry):
    of = judging(registry, diverging(rows_of(registry, falling(0.0)), SINGLE, 1))
    assert f"{SINGLE} diverged" in of("minatar_maxmin_adamo_beats_adam").reason
    of = judging(registry, rows_of(registry, lambda method, _: 0.0 if method == SINGLE else 1.0))
    assert "normalises nothing" in of("minatar_maxmin_adamo_beats_adam").reason


def test_arm_that_learns_next_to_nothing_has_nothing_to_keep(registry):
    of = judging(registry, rows_of(registry, lambda method, _: 0.3 if method == RELU else 1.0))
    assert "nothing to keep" in of("minatar_adamo_keeps_plasticity").reason


def test_one_cycle_has_no_first_and_last(registry):
    one = replace(registry, games=replace(registry.games, cycles=1))
    with pytest.raises(NotRunError, match="its first is its last"):
        Results(one, rows_of(one, falling(0.0))).per_seed(claims.SCORE, "adam")


def test_rows_of_seeds_that_a_spec_does_not_have_are_left_out(registry):
    fewer = replace(registry, seeds=SEEDS[:3])
    runs = Results(fewer, rows_of(registry, falling(0.0)))
    assert runs.per_seed(claims.SCORE, "adam", "early").shape == (len(NAMES), 3)


# ---------------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("tier", ["check", "paper"])
@pytest.mark.parametrize("claim", GAMES, ids=lambda claim: claim.id)
def test_every_claim_reads_arms_and_metrics_that_its_experiment_records(claim, tier):
    (name,) = claim.experiments
    experiment = specs.find(name, tier)
    tasks, metrics = range(-1, experiment.tasks), ["diverged", "dormant_0.025", "game", "isometry_defect", RETURN]
    names = [m.name for m in experiment.methods]
    keys = pd.MultiIndex.from_product([names, metrics, experiment.seeds, tasks])
    frame = keys.to_frame(index=False, name=["method", "metric", "seed", "task"]).assign(layer="")
    frame["value"] = np.random.default_rng(0).uniform(0.4, 0.6, len(frame))
    frame.loc[frame["metric"] == "diverged", "value"] = 0.0
    of_game = frame["metric"] == "game"
    frame.loc[of_game, "value"] = frame.loc[of_game, "task"] % len(experiment.games.names)
    rows = Results(experiment, frame.assign(hardware="a CPU", commit="abc"))
    found = judge(claim, tier, lambda _: rows)
    assert found.missing == {} and found.verdict != "not run"


def test_authors_main_arm_is_compared_with_every_other_arm_of_their_scripts_and_every_method_of_others():
    others = {m.name for m in specs.find("minatar", "check").methods if m.baseline or m.norm} - {SINGLE}
    assert {f"minatar_beats_{name}" for name in others} <= BY_ID.keys()
    assert set(AUTHORS) - others == {"adam", OURS, RELU}


def test_effect_of_an_unknown_claim_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'minatar_penalty'"):
        claims.effect("minatar_penaly", None)
