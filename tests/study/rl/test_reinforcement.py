"""Contracts of the declared experiments on games: values that are refused, tiers, digests."""

import copy
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from tiny_games import CONVOLUTIONAL, TINY, arm

from dyniso.study.specs import REINFORCEMENT, TIERS, GameExperiment, Method, digest
from dyniso.study.specs.reinforcement import PPO, PULL, SINGLE, Games, PolicyNet

CASES = [(name, tier) for name in REINFORCEMENT for tier in TIERS]
every_case = pytest.mark.parametrize(("name", "tier"), CASES)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: replace(TINY, games=replace(TINY.games, steps_per_game=300)), ["=300", "= 128", "256 and 384"]),
        (lambda: replace(TINY, games=replace(TINY.games, steps_per_game=100)), ["=100", "nearest are 128 and 128"]),
        (lambda: Games(names=("breakuot",)), ["games.names='breakuot'", "did you mean 'breakout'"]),
        (lambda: Games(names=("brix",)), ["games.names='brix'", "'asterix'"]),
        (lambda: Games(names=()), ["games.names=()", "at least one"]),
        (lambda: Games(names=("breakout", "breakout")), ["each once"]),
        (lambda: Games(suite="atari"), ["games.suite='atari'", "'minatar', 'octax'"]),
        (lambda: Games(order="random"), ["games.order='random'", "'shuffled', 'fixed'"]),
        (lambda: Games(sticky=1.5), ["games.sticky=1.5", "from 0 to 1"]),
        (lambda: Games(max_episode_steps=0), ["games.max_episode_steps=0"]),
        (lambda: Games("octax", ("brix",)), ["games.permute_channels=True", "octax"]),
        (lambda: PPO(envs=8, steps=8, minibatches=5), ["ppo.minibatches=5", "envs * steps = 64", "8 does"]),
        (lambda: PPO(gamma=1.01), ["ppo.gamma=1.01", "from 0 to 1"]),
        (lambda: PPO(clip_by="size"), ["ppo.clip_by='size'", "'norm', 'value'"]),
        (lambda: PPO(time_limit="ignore"), ["ppo.time_limit='ignore'", "'bootstrap', 'terminate'"]),
        (lambda: PolicyNet(backbone=(8, 8)), ["net.backbone=(8, 8)", "three"]),
        (lambda: replace(TINY, net=CONVOLUTIONAL.net), ["net.backbone=(4, 4, 4)", "'minatar'", "octax"]),
        (lambda: replace(CONVOLUTIONAL, net=TINY.net), ["net.backbone=()", "'octax'"]),
        (lambda: replace(TINY, probe=32), ["probe=32", "from 64 to 128"]),
        (lambda: replace(TINY, probe=129), ["probe=129", "from 64 to 128"]),
        (lambda: replace(TINY, curve=3), ["curve=3", "from 1 to 2"]),
        (lambda: replace(TINY, evaluate="some"), ["evaluate='some'", "'current', 'all'"]),
        (lambda: replace(TINY, methods=(Method("s", "s", "sgd"),)), ["s: ", "'adam' or 'adamo'"]),
        (lambda: replace(TINY, methods=(Method("c", "c", schedule="cosine"),)), ["c: ", "schedule"]),
        (lambda: replace(TINY, seeds=(1, 1)), ["seeds=(1, 1)"]),
    ],
)
def test_wrong_value_is_an_error_that_names_it_and_what_is_allowed(make, parts):
    with pytest.raises(ValueError) as raised:
        make()
    assert [p for p in parts if p not in str(raised.value)] == []


@every_case
def test_every_registered_experiment_has_a_fresh_agent_to_normalise_by_and_says_where_its_values_come_from(name, tier):
    registered = REINFORCEMENT[name][tier]
    assert registered.method(SINGLE).settings == (("layers", "all"),)
    assert {"games", "net", "ppo", "methods"} <= dict(registered.sources).keys()
    assert all(text.strip() for source in registered.sources for text in source)


@pytest.mark.parametrize("name", REINFORCEMENT)
def test_heavier_tiers_are_no_smaller_in_any_size(name):
    def sizes(e):
        return (e.tasks, e.games.steps_per_game, e.net.width, e.ppo.batch, len(e.seeds), len(e.methods), e.curve)

    for light, heavy in pairwise(REINFORCEMENT[name][tier] for tier in TIERS):
        assert all(a <= b for a, b in zip(sizes(light), sizes(heavy), strict=True))
        assert {m.name for m in light.methods} <= {m.name for m in heavy.methods}


def test_no_two_runs_of_the_registry_share_a_digest():
    everything = [(REINFORCEMENT[n][t], m) for n, t in CASES for m in REINFORCEMENT[n][t].methods]
    assert len({digest(e, m) for e, m in everything}) == len(everything)


OTHER = {
    Games: dict(suite="octax", names=("breakout",), cycles=3, steps_per_game=512, order="fixed")
    | dict(permute_channels=False, invalid_action="noop", sticky=0.25, noop_starts=30, max_episode_steps=None),
    PolicyNet: dict(width=10, depth=3, gain=1.0, backbone=(4, 4, 4), frames_as_rows=False),
    PPO: dict(envs=16, steps=8, epochs=3, minibatches=4, gamma=0.9, gae_lambda=0.9, clip=0.1, clip_value=False)
    | dict(entropy=0.0, value_weight=1.0, clip_gradient=1.0, clip_by="value", normalise_advantages=False)
    | dict(anneal=True, eps=1e-8, time_limit="terminate"),
    GameExperiment: dict(name="other", curve=1, evaluation_envs=4, evaluate="all", probe=65),
}
UNTOLD = {GameExperiment: {"title", "tier", "games", "net", "ppo", "methods", "seeds", "sources"}}


@pytest.mark.parametrize("kind", OTHER)
def test_table_of_changes_has_every_field_that_decides_a_result(kind):
    assert {f.name for f in fields(kind)} - UNTOLD.get(kind, set()) == set(OTHER[kind])


@pytest.mark.parametrize(("kind", "field"), [(k, f) for k, changes in OTHER.items() for f in changes])
def test_digest_changes_with_every_setting_that_decides_a_result(kind, field):
    changed = copy.deepcopy(TINY)
    part = {Games: changed.games, PolicyNet: changed.net, PPO: changed.ppo, GameExperiment: changed}[kind]
    assert getattr(part, field) != OTHER[kind][field]
    object.__setattr__(part, field, OTHER[kind][field])  # one field alone need not be valid
    assert digest(changed, TINY.methods[0]) != digest(TINY, TINY.methods[0])


def test_digest_stays_with_seeds_company_and_labels():
    adam = TINY.methods[0]
    same = replace(TINY, seeds=(9,), methods=(replace(adam, label="other"), arm("fire")), title="other")
    assert digest(same, same.methods[0]) == digest(TINY, adam)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("suite", REINFORCEMENT)
def test_adamo_pulls_as_far_in_a_visit_as_in_the_authors_scripts(suite, tier):
    experiment = REINFORCEMENT[suite][tier]
    updates = experiment.iterations * experiment.ppo.epochs * experiment.ppo.minibatches
    pulled = [m for m in experiment.methods if m.isometry_strength]
    assert pulled
    for method in pulled:
        assert method.lr * method.isometry_strength * updates == pytest.approx(PULL[suite], rel=0.01)
