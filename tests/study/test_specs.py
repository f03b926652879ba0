"""Contracts of dyniso.study.specs: wrong values are errors, tiers differ in scale only, a digest names a run."""

from dataclasses import FrozenInstanceError, fields, replace
from itertools import pairwise

import pytest

from dyniso.study import data
from dyniso.study.specs import (
    ADAM,
    ADAMO,
    BITS,
    CANDIDATES,
    CAUSAL,
    REGISTRY,
    REINFORCEMENT,
    SUPERVISED,
    TIERS,
    Experiment,
    Intervention,
    Method,
    Net,
    Stream,
    Trunk,
    digest,
    get,
    only_methods,
    with_seeds,
)

BASE = get("random_labels")
CASES = [(name, tier) for name in REGISTRY for tier in TIERS]
every_case = pytest.mark.parametrize(("name", "tier"), CASES)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Stream(kind="random_label"), ["stream.kind='random_label'", "did you mean 'random_labels'"]),
        (lambda: Stream(samples=0), ["stream.samples=0"]),
        (lambda: Stream(tasks=2.0), ["stream.tasks=2.0", "whole number"]),
        (lambda: Stream(tasks=True), ["stream.tasks=True"]),
        (lambda: Net(width="64"), ["net.width='64'"]),
        (lambda: Net(depth=0), ["net.depth=0"]),
        (lambda: Net(init="ortogonal"), ["net.init='ortogonal'", "did you mean 'orthogonal'"]),
        (lambda: Net(gain=float("nan")), ["net.gain=nan"]),
        (lambda: Net(gain=float("inf")), ["net.gain=inf"]),
        (lambda: Net(bias="no"), ["net.bias='no'"]),
        (lambda: Net(channels=(8, 0)), ["net.channels=0"]),
        (lambda: Stream(pool=1), ["stream.pool=1"]),
        (lambda: Stream(scale="symetric"), ["stream.scale='symetric'", "did you mean 'symmetric'"]),
        (lambda: Stream(transition=1.5), ["stream.transition=1.5"]),
        (lambda: Stream("slow_regression"), ["stream.dataset='mnist-small'", "'bits'"]),
        (lambda: Stream(dataset="bits"), ["stream.dataset='bits'"]),
        (lambda: replace(BASE, threshold=2.0), ["threshold=2.0"]),
        (lambda: Method("x", "x", reset_optimizer="no"), ["x.reset_optimizer='no'"]),
        (lambda: Method("x", "x", optimizer="adamx"), ["x.optimizer='adamx'", "did you mean 'adam"]),
        (lambda: Method("x", "x", baseline="reddo"), ["x.baseline='reddo'", "did you mean 'redo'"]),
        (lambda: Method("x", "x", settings=(("every", 2),)), ["x.settings={'every': 2}", "baseline"]),
        (lambda: Method("x", "x", weight_decay=-1.0), ["x.weight_decay=-1.0"]),
        (lambda: Method("x", "x", decoupled_weight_decay=True), ["x.decoupled_weight_decay", "'adamw'"]),
        (lambda: replace(BASE, measures=("lense",)), ["measures='lense'", "did you mean 'lens'"]),
        (lambda: Method("x", "x", activation="relo"), ["x.activation='relo'", "did you mean 'relu'"]),
        (lambda: Method("x", "x", lr=-1e-3), ["x.lr=-0.001"]),
        (lambda: Method("x", "x", optimizer="adamo", isometry_strength="0.1"), ["x.isometry_strength='0.1'"]),
        (lambda: Method("x", "x", optimizer="adamo", isometry_every=0), ["x.isometry_every=0"]),
        (lambda: Method("x", "x", optimizer="adamo", coupled="false"), ["x.coupled='false'"]),
        (lambda: Method("x", "x", schedule="cosin"), ["x.schedule='cosin'", "did you mean 'cosine'"]),
        (
            lambda: replace(BASE, net=Net(channels=(4,)), methods=(Method("x", "x", optimizer="muon"),)),
            ["x: 'muon'", "net.channels=(4,)"],
        ),
        (lambda: replace(BASE, name="../mine"), ["name='../mine'", "a word that can name a file"]),
        (lambda: replace(BASE, name=""), ["name=''"]),
        (lambda: replace(BASE, methods=(Method("a/b", "x"),)), ["name='a/b'"]),
        (lambda: replace(BASE, tier="papr"), ["tier='papr'", "did you mean 'paper'"]),
        (lambda: replace(BASE, steps_per_task=0), ["steps_per_task=0"]),
        (lambda: replace(BASE, batch=BASE.stream.samples + 1), ["batch=641", "640"]),
        (lambda: replace(BASE, probe=641), ["probe=641", "640"]),
        (lambda: replace(BASE, methods=()), ["methods=[]"]),
        (lambda: replace(BASE, methods=(ADAM, ADAM)), ["'adam', 'adam'", "each once"]),
        (lambda: replace(BASE, seeds=()), ["seeds=()"]),
        (lambda: replace(BASE, seeds=(1, 1)), ["seeds=(1, 1)"]),
        (lambda: replace(BASE, seeds=(0, -1)), ["seed=-1"]),
        (lambda: replace(BASE, seeds=(0.5,)), ["seed=0.5"]),
        (lambda: with_seeds(BASE, 0), ["seeds=0"]),
        (lambda: only_methods(BASE, ["adam", "adamo_O.1"]), ["method='adamo_O.1'", "did you mean 'adamo_0.1'"]),
        (lambda: get("random_label"), ["experiment='random_label'", "did you mean 'random_labels'"]),
        (lambda: get("random_labels", "chek"), ["tier='chek'", "did you mean 'check'"]),
    ],
)
def test_wrong_value_is_an_error_that_names_it_and_the_nearest_allowed_one(make, parts):
    with pytest.raises(ValueError) as raised:
        make()
    assert [p for p in parts if p not in str(raised.value)] == []


@pytest.mark.parametrize("setting", [{"isometry_strength": 0.1}, {"isometry_every": 2}, {"coupled": True}])
def test_isometry_setting_with_plain_adam_is_refused(setting):
    with pytest.raises(ValueError, match="no effect with optimizer='adam'; use 'adamo'"):
        Method("x", "x", optimizer="adam", **setting)


@every_case
def test_registered_experiment_knows_its_own_name_and_tier(name, tier):
    assert (get(name, tier).name, get(name, tier).tier) == (name, tier)


@every_case
def test_registered_experiment_asks_for_no_more_images_than_its_data_set_has(name, tier):
    stream = get(name, tier).stream
    assert stream.dataset == BITS or stream.samples <= data.manifest()[stream.dataset]["splits"]["train"]["count"]


@every_case
def test_tiers_differ_in_scale_only(name, tier):
    scale = {"tier", "stream", "net", "steps_per_task", "batch", "seeds", "trunk"}
    smoke, other = get(name), get(name, tier)
    assert {f.name for f in fields(Experiment) if getattr(smoke, f.name) != getattr(other, f.name)} <= scale
    assert smoke.stream.kind == other.stream.kind
    assert replace(smoke.net, width=other.net.width, channels=other.net.channels) == other.net


@pytest.mark.parametrize("name", REGISTRY)
def test_heavier_tiers_are_no_smaller_in_any_size(name):
    registered = [get(name, tier) for tier in TIERS]
    sizes = [(e.stream.samples, e.stream.tasks, e.net.width, e.steps_per_task, len(e.seeds)) for e in registered]
    for light, heavy in pairwise(sizes):
        assert all(a <= b for a, b in zip(light, heavy, strict=True))


def test_no_two_runs_of_the_registry_share_a_digest():
    digests = [digest(get(n, t), m) for n, t in CASES for m in get(n, t).methods]
    assert len(set(digests)) == len(digests)


SAME_RUN = {
    "seeds": (with_seeds(BASE, 9), ADAMO),
    "company": (only_methods(BASE, ["maxmin", "adamo_0.1"]), ADAMO),
    "title": (replace(BASE, title="other"), ADAMO),
    "sources": (replace(BASE, sources=()), ADAMO),
    "label": (BASE, replace(ADAMO, label="other")),
    "name of the method": (BASE, replace(ADAMO, name="other")),
}


@pytest.mark.parametrize(("experiment", "method"), SAME_RUN.values(), ids=SAME_RUN)
def test_digest_stays_when_the_run_is_the_same(experiment, method):
    assert digest(experiment, method) == digest(BASE, ADAMO)


OTHER = {
    Stream: dict(kind="permuted_pixels", dataset="mnist", samples=320, tasks=11)
    | dict(pool=2, scale="symmetric", transition=0.5, classes=12),
    Net: dict(width=65, depth=5, bias=False, init="kaiming", gain=1.5, channels=(4,)),
    Method: dict(optimizer="adam", activation="tanh", lr=2e-3, isometry_strength=0.2, isometry_every=2, coupled=True)
    | dict(baseline="redo", settings=(("every", 5),), norm="layernorm", weight_decay=0.1, clip_norm=1.0)
    | dict(decoupled_weight_decay=True, schedule="cosine", parametrization="newton_schulz")
    | dict(reset_optimizer=True, bias=False, isometry_side="above")
    | dict(interventions=(Intervention("re_paired", "boundary"),)),
    Experiment: dict(name="other", steps_per_task=301, batch=32, probe=128, measures=("lens",), threshold=0.5)
    | dict(trunk=Trunk(2)),
}
UNTOLD = {Method: {"name", "label"}, Experiment: {"title", "tier", "stream", "net", "methods", "seeds", "sources"}}
UNTOLD[Stream] = {"content", "real"}  # of a user's own arrays, tests/study/test_own_data.py


@pytest.mark.parametrize("kind", OTHER)
def test_table_of_changes_has_every_field_that_decides_a_result(kind):
    assert {f.name for f in fields(kind)} - UNTOLD.get(kind, set()) == set(OTHER[kind])


@pytest.mark.parametrize(("kind", "field"), [(k, f) for k, changes in OTHER.items() for f in changes])
def test_digest_changes_with_every_setting_that_decides_a_result(kind, field):
    change, plain = {field: OTHER[kind][field]}, replace(ADAMO, isometry_strength=0.0)
    changed, method = {
        Stream: lambda: (replace(BASE, stream=replace(BASE.stream, **change)), plain),
        Net: lambda: (replace(BASE, net=replace(BASE.net, **change)), plain),
        Method: lambda: (BASE, replace(plain, **change, **({"baseline": "redo"} if field == "settings" else {}))),
        Experiment: lambda: (replace(BASE, **change), plain),
    }[kind]()
    assert digest(changed, method) != digest(BASE, plain)


@pytest.mark.parametrize("spec", [BASE, BASE.stream, BASE.net, ADAM], ids=lambda s: type(s).__name__)
def test_specs_are_frozen(spec):
    with pytest.raises(FrozenInstanceError):
        setattr(spec, fields(spec)[0].name, "other")


def test_only_methods_keeps_the_order_of_the_call():
    assert [m.name for m in only_methods(BASE, ["maxmin", "adam"]).methods] == ["maxmin", "adam"]


def test_every_experiment_says_where_its_values_come_from():
    assert all(text.strip() for n, t in CASES for source in get(n, t).sources for text in source)
    assert all({"stream", "net"} <= dict(get(n, t).sources).keys() for n, t in CASES)


def test_method_that_says_what_its_net_has_to_say_is_refused_on_a_stream():
    with pytest.raises(ValueError, match=r"adamo_0\.1\.bias=False; it is for games, streams have net\.bias"):
        replace(BASE, methods=(replace(ADAMO, bias=False),))


TUNED = [name for name in SUPERVISED if not name.startswith("tune_")]


def untuned():
    """Every experiment whose arms have settings of their own: all but the tuned suite, games, and interventions."""
    return [e for name, by_tier in REGISTRY.items() if name not in (*TUNED, *CAUSAL) for e in by_tier.values()]


def meanings(experiments, *apart):
    """Name of an arm -> its settings but for the fields `apart`, each once."""
    found = {}
    for e in experiments:
        for m in e.methods:
            found.setdefault(m.name, set()).add(replace(m, label="", **{f: getattr(ADAM, f) for f in apart}))
    return found


def test_arm_name_means_one_set_of_settings_outside_the_tuned_suite_and_the_games():
    assert {name: found for name, found in meanings(untuned()).items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", TUNED)
def test_arm_of_the_tuned_suite_is_one_of_the_candidates_of_that_name(name):
    for e in REGISTRY[name].values():
        for m in e.methods:
            assert replace(m, label="") in [replace(c, name=m.name, label="") for c in CANDIDATES[m.name]]


def test_arm_name_of_games_means_one_arm_up_to_the_rate_and_the_strength_of_the_experiment():
    games = [e for by_tier in REINFORCEMENT.values() for e in by_tier.values()]
    for e in games:
        assert len({m.lr for m in e.methods}) == 1
        assert len({m.isometry_strength for m in e.methods if m.optimizer == "adamo"}) == 1
    alike = meanings(games, "lr", "isometry_strength", "optimizer")
    assert {name: found for name, found in alike.items() if len(found) > 1} == {}


def test_lazy_pull_that_cannot_settle_is_refused_at_the_declaration():
    setting = {"optimizer": "adamo", "lr": 0.1, "isometry_strength": 0.5}
    assert Method("x", "x", **setting, isometry_every=4).isometry_every == 4
    with pytest.raises(ValueError, match=r"isometry_every = 0\.25; it must be below 1/4"):
        Method("x", "x", **setting, isometry_every=5)
