"""Contracts of dyniso.report.claims: a verdict follows from rows by one rule, and what is missing never passes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dyniso.cli import main
from dyniso.report import claims
from dyniso.report.claims import CLAIMS, Claim, NotRunError, effects, judge
from dyniso.report.claims.benchmarks import is_of_the_paper
from dyniso.report.claims.names import LOSS, SUITE
from dyniso.report.results import Results
from dyniso.study import specs, store

TASKS, SEEDS = 10, (0, 1, 2, 3)
BY_ID = {claim.id: claim for claim in CLAIMS}
ON_STREAMS = [claim for claim in CLAIMS if not set(claim.experiments) & specs.REINFORCEMENT.keys()]
GAIN = Claim(
    "gain",
    "We ask whether AdamO beats Adam.",
    "question",
    "",
    ("one", "two"),
    "score on the last tasks",
    "score",
    effects.gained("adamo_0.1", "adam"),
)


@pytest.fixture
def registry(tiny, tmp_path, monkeypatch):
    """Experiments "one" and "two" (Adam and AdamO 0.1, 10 tasks, 4 seeds), and an empty folder of results."""
    base = replace(tiny, stream=replace(tiny.stream, tasks=TASKS), seeds=SEEDS, tier="check")
    registered = {name: {"check": replace(base, name=name)} for name in ("one", "two")}
    monkeypatch.setattr(specs, "REGISTRY", registered)
    monkeypatch.setattr(store, "results_folder", lambda: tmp_path)
    return registered


def rows_of(values: dict[str, float | list[float] | np.ndarray], metric: str = "online_accuracy", layer: str = ""):
    """Rows of one metric: by method a number, or an array that broadcasts to (seeds, tasks)."""
    return pd.DataFrame(
        [
            (method, seed, task, layer, metric, table[i, task])
            for method, given in values.items()
            for table in [np.broadcast_to(np.asarray(given, float), (len(SEEDS), TASKS))]
            for i, seed in enumerate(SEEDS)
            for task in range(TASKS)
        ],
        columns=["method", "seed", "task", "layer", "metric", "value"],
    )


def stored(name: str, *frames: pd.DataFrame, drop=None) -> pd.DataFrame:
    """Write a committed table of made-up rows; none of its runs has diverged unless the rows say so."""
    experiment = specs.REGISTRY[name]["check"]
    frame = pd.concat(frames, ignore_index=True)
    if "diverged" not in set(frame["metric"]):
        quiet = rows_of(dict.fromkeys([m.name for m in experiment.methods], 0.0), "diverged")
        frame = pd.concat([frame, quiet], ignore_index=True)
    frame = frame if drop is None else frame[~drop(frame)]
    digests = {m.name: specs.digest(experiment, m) for m in experiment.methods}
    facts = {"commit": "abc", "torch": "2", "hardware": "a CPU", "wall_s": 1.0, "stacked_runs": "8"}
    frame = frame.assign(digest=frame["method"].map(digests), experiment=name, tier="check", **facts)
    store.write_parquet(frame, store.compact_path(experiment))
    return frame


def noisy(level: float) -> np.ndarray:
    """A level with a spread of .01 over seeds, shape (seeds, 1)."""
    return level + 0.01 * np.array([[-1.0], [0.0], [0.5], [1.0]])


HIGH, LOW = {"adam": noisy(0.4), "adamo_0.1": 0.8}, {"adam": noisy(0.8), "adamo_0.1": 0.4}
EQUAL = {"adam": noisy(0.5), "adamo_0.1": 0.5}

# ---------------------------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (HIGH, HIGH, "reproduced"),
        (LOW, LOW, "not"),
        (HIGH, LOW, "partly"),
        (HIGH, EQUAL, "partly"),
        (LOW, EQUAL, "not"),
        (EQUAL, EQUAL, "undecided"),
    ],
)
def test_verdict_is_partly_only_where_an_experiment_speaks_for_the_claim_and_undecided_where_none_speaks(
    registry, one, two, verdict
):
    stored("one", rows_of(one))
    stored("two", rows_of(two))
    assert judge(GAIN).verdict == verdict


def test_threshold_moves_the_verdict(registry):
    stored("one", rows_of(HIGH))
    stored("two", rows_of(HIGH))
    for threshold, verdict in ((0.3, "reproduced"), (0.4, "undecided"), (0.5, "not")):
        assert judge(replace(GAIN, threshold=threshold)).verdict == verdict


def test_interval_of_four_seeds_may_clear_a_threshold_that_one_of_them_misses(registry):
    stored("one", rows_of({"adam": 0.5, "adamo_0.1": [[0.519], [0.519], [0.511], [0.494]]}))
    (finding,) = judge(replace(GAIN, experiments=("one",))).findings
    assert (finding.side, finding.improved) == ("for", 0.75)


def test_interval_that_ends_at_the_threshold_does_not_pass(registry):
    stored("one", rows_of({"adam": 0.5, "adamo_0.1": 0.5}))
    assert judge(replace(GAIN, experiments=("one",))).verdict == "undecided"


def test_effect_shown_is_that_of_the_experiment_that_speaks_least_for_the_claim(registry):
    stored("one", rows_of(HIGH))
    stored("two", rows_of(LOW))
    found = judge(GAIN)
    assert (found.where, found.unit) == ("two", "score")
    assert (found.effect, found.low, found.high) == pytest.approx((-0.40125, -0.408, -0.394), abs=2e-3)
    assert [f.side for f in found.findings] == ["for", "against"]
    assert found.reason == "the interval lies above 0 in one and lies below 0 in two"


def test_verdict_says_at_which_scale_and_what_made_the_rows(registry):
    stored("one", rows_of(HIGH))
    found = judge(replace(GAIN, experiments=("one",)))
    assert found.scale == "tier check; one: 10 tasks, net 2 x 8, 4 seeds"
    (finding,) = found.findings
    assert (finding.tier, finding.hardware, finding.commit) == ("check", "a CPU", "abc")


def test_judging_twice_gives_the_same_numbers(registry):
    stored("one", rows_of({"adam": noisy(0.5), "adamo_0.1": noisy(0.51)[::-1]}))
    claim = replace(GAIN, experiments=("one",))
    assert judge(claim) == judge(claim)


def test_unknown_tier_is_an_error_with_the_nearest_name(registry):
    with pytest.raises(ValueError, match=r"tier='chek'.*did you mean 'check'"):
        judge(GAIN, "chek")


KEEPS = replace(GAIN, id="keeps", effect=effects.kept("adamo_0.1"), threshold=-LOSS, control=effects.kept("adam"))
FALLS = 0.9 - 0.5 * np.linspace(0, 1, TASKS)


@pytest.mark.parametrize(
    ("adam", "adamo", "verdict"),
    [
        (FALLS, 0.9, "reproduced"),
        (FALLS, FALLS, "not"),
        (0.9, 0.9, "not testable"),
        (0.9, FALLS, "not"),
        (noisy(0) * 5 + 0.5 - 0.02 * (np.arange(TASKS) >= 5) * [[0], [1], [2], [1]], 0.9, "reproduced"),
    ],
)
def test_arm_that_keeps_what_its_control_surely_keeps_as_well_is_not_tested(registry, adam, adamo, verdict):
    stored("one", rows_of({"adam": adam, "adamo_0.1": adamo}))
    assert judge(replace(KEEPS, experiments=("one",))).verdict == verdict


def test_experiment_where_nothing_could_be_lost_does_not_count_beside_one_that_tells(registry):
    stored("one", rows_of({"adam": 0.9, "adamo_0.1": 0.9}))
    for adamo, verdict in ((0.9, "reproduced"), (FALLS, "not")):
        stored("two", rows_of({"adam": FALLS, "adamo_0.1": adamo}))
        found = judge(KEEPS)
        assert found.verdict == verdict
        assert "says nothing where the control stays above -0.02 as well, in one" in found.reason


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ((), "none"),
        (("for", "missing"), "not run"),
        (("not testable", "undecided"), "undecided"),
        (("not testable", "against", "undecided"), "not"),
        (("for", "for", "not testable"), "reproduced"),
        (("for", "against"), "partly"),
    ],
)
def test_word_of_several_experiments(sides, said):
    assert claims.word(sides) == said


def test_verdicts_on_the_paper_s_benchmark_and_on_ours_stand_beside_each_other(registry):
    base = registry["two"]["check"]
    registry["two"]["check"] = replace(base, stream=replace(base.stream, dataset="cifar10"))
    stored("one", rows_of(LOW))
    stored("two", rows_of(HIGH))
    found = judge(GAIN)
    assert (found.verdict, found.on_paper, found.on_ours) == ("partly", "reproduced", "not")
    alone = judge(replace(GAIN, experiments=("one",)))
    assert (alone.on_paper, alone.on_ours) == ("none", "not")


def test_what_is_missing_on_our_benchmark_leaves_the_verdict_on_the_paper_s(registry):
    base = registry["two"]["check"]
    registry["two"]["check"] = replace(base, stream=replace(base.stream, dataset="cifar10"))
    stored("two", rows_of(HIGH))
    found = judge(GAIN)
    assert (found.verdict, found.on_paper, found.on_ours) == ("not run", "reproduced", "not run")


@pytest.mark.parametrize(
    ("name", "of_the_paper"),
    {
        "labels_cifar10": True,
        "pixels_mnist": True,
        "pixels_cifar10": True,
        "classes_cifar100": True,
        "cnn_labels_cifar10": True,
        "minatar": True,
        "octax": True,
        "labels_mnist": False,
        "labels_mnist_gradual_50": False,
        "pairs_cifar100": False,
        "slow_regression": False,
    }.items(),
)
def test_benchmarks_of_the_paper_are_those_that_its_readers_list(name, of_the_paper):
    assert {is_of_the_paper(e) for e in specs.everything()[name].values()} == {of_the_paper}


# ---------------------------------------------------------------------------------------------------- what is missing

MISSING = {
    "a table": (None, "1 of 2 experiments missing: no stored results two-check.parquet; `dyniso run two --tier check"),
    "a method": (lambda f: f["method"] == "adamo_0.1", "lacks 4 runs, the first of adamo_0.1, seed 0"),
    "a seed": (lambda f: (f["method"] == "adam") & (f["seed"] == 2), "lacks 1 runs, the first of adam, seed 2"),
    "a metric": (lambda f: f["metric"] == "online_accuracy", "no online_accuracy of adamo_0.1, seed 0, task 0"),
    "a task": (lambda f: (f["seed"] == 1) & (f["task"] == 9), "no online_accuracy of adamo_0.1, seed 1, task 9"),
}


@pytest.mark.parametrize(("drop", "reason"), MISSING.values(), ids=MISSING)
def test_claim_is_not_run_where_something_is_missing_however_well_the_rest_supports_it(registry, drop, reason):
    stored("one", rows_of(HIGH))
    if drop is not None:
        stored("two", rows_of(HIGH), drop=drop)
    found = judge(GAIN)
    assert (found.verdict, found.where, found.effect, found.low, found.high) == ("not run", *[None] * 4)
    assert reason in found.reason
    assert [f.experiment for f in found.findings] == ["one"]


def test_claim_is_not_run_on_a_table_of_other_settings(registry):
    for name in ("one", "two"):
        stored(name, rows_of(HIGH))
    registry["two"]["check"] = replace(registry["two"]["check"], steps_per_task=7)
    found = judge(GAIN)
    assert found.verdict == "not run" and "runs of other settings for ['adam', 'adamo_0.1']" in found.reason


def test_claim_is_not_run_on_a_damaged_table(registry):
    stored("one", rows_of(HIGH))
    store.compact_path(registry["two"]["check"]).write_bytes(b"PAR1")
    assert judge(GAIN).verdict == "not run"


def test_claim_is_not_run_on_an_experiment_or_method_that_is_not_registered(registry):
    stored("one", rows_of(HIGH))
    for claim, reason in (
        (replace(GAIN, experiments=("one", "three")), "there is no experiment three at tier check"),
        (replace(GAIN, experiments=("one",), effect=effects.kept("adamW")), "no online_accuracy of adamW"),
        (replace(GAIN, experiments=("one",), effect=effects.decades_below("dead", "adam", ("x",))), "none of the"),
    ):
        found = judge(claim)
        assert found.verdict == "not run" and reason in found.reason


def test_one_or_two_seeds_are_not_enough_for_a_verdict(registry):
    for name in ("one", "two"):
        stored(name, rows_of(HIGH))
        registry[name]["check"] = specs.with_seeds(registry[name]["check"], 2)
    found = judge(GAIN)
    assert found.verdict == "not run" and "one has only 2 of the 3 seeds that an interval needs" in found.reason


# ---------------------------------------------------------------------------------------------------- many experiments


@pytest.fixture
def seven(registry):
    """Seven experiments, six of them stored; the seventh is "seven"."""
    names = ("one", "two", "three", "four", "five", "six", "seven")
    for name in names:
        registry[name] = {"check": replace(registry["one"]["check"], name=name)}
    for name in names[:-1]:
        stored(name, rows_of(LOW if name == "three" else HIGH))
    return replace(GAIN, experiments=names)


def test_claim_over_seven_experiments_says_which_one_is_missing(seven):
    found = judge(seven)
    assert (found.verdict, len(found.findings), found.pooled) == ("not run", 6, None)
    assert list(found.missing) == ["seven"] and "`dyniso run seven --tier check" in found.missing["seven"]
    assert found.reason.startswith("1 of 7 experiments missing: no stored results seven-check.parquet")
    assert "likewise" not in found.reason


def test_several_missing_experiments_are_all_named(registry):
    found = judge(replace(GAIN, experiments=("two", "one", "nowhere")))
    assert found.reason.startswith("3 of 3 experiments missing: no stored results two-check.parquet")
    assert found.reason.endswith("; likewise missing: one, nowhere")
    assert found.missing["nowhere"] == "there is no experiment nowhere at tier check"


def test_verbose_lines_have_one_line_an_experiment_with_its_side_or_what_is_missing(seven):
    line, *below = claims.lines(seven, judge(seven), verbose=True)
    assert [line] == claims.lines(seven, judge(seven))
    assert [text.split()[:2] for text in below] == [
        *([side, f"{name}:"] for side, name in zip(["for", "for", "against"], seven.experiments, strict=False)),
        *(["for", f"{name}:"] for name in ("four", "five", "six")),
        ["missing", "seven:"],
    ]
    assert "0 of 4 seeds above 0; 10 tasks, net 2 x 8; a CPU, commit abc" in below[2]
    assert "no stored results seven-check.parquet" in below[-1]


def test_command_shows_the_lines_and_only_with_verbose_those_below(seven, monkeypatch, capsys):
    monkeypatch.setattr(claims, "CLAIMS", (seven,))
    shown = []
    for options in ([], ["--verbose"]):
        assert main(["claims", *options]) == 0
        shown.append(capsys.readouterr().out.splitlines())
    assert shown == [[claims.HEAD, *claims.lines(seven, judge(seven), verbose)] for verbose in (False, True)]


def test_json_holds_the_finding_of_every_experiment_and_what_is_missing(seven):
    record = json.loads(json.dumps(claims.as_record(seven, judge(seven)), allow_nan=False))
    assert [f["side"] for f in record["findings"]] == ["for", "for", "against", "for", "for", "for"]
    assert len(record["findings"][0]["values"]) == 4 and list(record["missing"]) == ["seven"]


def test_rows_of_a_table_have_the_least_and_the_pooled_effect_or_the_reason(seven):
    cases = [seven, replace(seven, experiments=seven.experiments[:-1]), replace(seven, experiments=("one",))]
    missing, several, single = claims.as_rows([(c, judge(c)) for c in cases])
    assert missing["claim"] == seven.statement and missing["verdict and effect"].startswith("**not run**, 1 of 7")
    found = judge(cases[1])
    effect = f"{found.effect:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    assert several["verdict and effect"] == f"**partly**, {effect} in three; over all {found.pooled.effect:+.2f}"
    assert single["verdict and effect"].startswith("**reproduced**, +")
    assert " in " not in single["verdict and effect"]


def test_table_has_verdicts_on_the_paper_s_benchmarks_and_on_ours_where_there_are_both(seven, registry):
    base = registry["two"]["check"]
    registry["two"]["check"] = replace(base, stream=replace(base.stream, dataset="cifar10"))
    stored("two", rows_of(LOW))
    one, two = (replace(GAIN, experiments=(name,)) for name in ("one", "two"))
    (alone,) = claims.as_rows([(one, judge(one))])
    assert alone.keys() == {"claim", "verdict and effect"}
    ours, paper = claims.as_rows([(c, judge(c)) for c in (one, two)])
    assert [(row["the paper's"], row["ours"]) for row in (ours, paper)] == [("none", "reproduced"), ("not", "none")]


def test_pooled_effect_is_the_mean_over_experiments_and_no_verdict(seven):
    found = judge(replace(seven, experiments=seven.experiments[:-1]))
    assert found.verdict == "partly" and found.pooled is not None
    assert found.pooled.effect == pytest.approx(np.mean([f.effect for f in found.findings]))
    assert found.pooled.low > 0 and found.pooled.improved == pytest.approx(5 / 6)
    line = claims.lines(seven, found)[0]
    assert f"in three, mean of 6 experiments {found.pooled.effect:+.3f} [" in line


def test_one_experiment_or_unequal_numbers_of_seeds_are_not_pooled(seven, registry):
    assert judge(replace(seven, experiments=("one",))).pooled is None
    registry["two"]["check"] = specs.with_seeds(registry["two"]["check"], 3)
    assert judge(replace(seven, experiments=("one", "two"))).pooled is None


def test_scale_names_experiments_of_one_size_together(seven, registry):
    cnn = replace(registry["two"]["check"], net=specs.Net(width=8, depth=1, channels=(2, 4)))
    registry["two"]["check"] = cnn
    stored("two", rows_of(HIGH))
    found = judge(replace(seven, experiments=("one", "two", "three")))
    small = "one, three: 10 tasks, net 2 x 8, 4 seeds"
    assert found.scale == f"tier check; {small}; two: 10 tasks, net 2 + 4 + 1 x 8, 4 seeds"


# ---------------------------------------------------------------------------------------------------- diverged runs


def diverging(method: str, seed: int, task: int) -> list[pd.DataFrame]:
    """HIGH, with one run diverged from a task on: its numbers NaN, as training stores them."""
    flags = rows_of(dict.fromkeys(HIGH, 0.0), "diverged")
    accuracy = rows_of(HIGH)
    for frame, value in ((flags, 1.0), (accuracy, np.nan)):
        gone = (frame["method"] == method) & (frame["seed"] == seed) & (frame["task"] >= task)
        frame.loc[gone, "value"] = value
    return [flags, accuracy]


def test_diverged_run_counts_as_the_worst_and_is_named(registry):
    stored("one", *diverging("adamo_0.1", 2, 3))
    found = judge(replace(GAIN, experiments=("one",)))
    gains = 0.8 - (0.4 + 0.01 * np.array([-1, 0, 0.5, 1]))
    gains[2] = 0 - 0.405
    assert found.effect == pytest.approx(gains.mean(), abs=1e-6)
    assert found.verdict == "undecided"
    assert found.reason.endswith("; diverged and counted as the worst: adamo_0.1, seed 2 of one")


def test_diverged_run_of_a_method_that_a_claim_does_not_read_is_not_named(registry):
    stored("one", *diverging("adamo_0.1", 2, 3))
    assert "diverged" not in judge(replace(BY_ID["adam_loses_plasticity"], experiments=("one",))).reason


def test_number_that_is_nan_without_divergence_is_missing_not_worst_and_not_skipped(registry):
    accuracy = rows_of(HIGH)
    accuracy.loc[(accuracy["method"] == "adam") & (accuracy["task"] == 9), "value"] = np.nan
    stored("one", accuracy)
    found = judge(replace(GAIN, experiments=("one",)))
    assert found.verdict == "not run" and "no online_accuracy of adam, seed 0, task 9" in found.reason


def test_one_layer_without_a_number_is_missing_not_averaged_away(registry):
    layers = [rows_of(dict.fromkeys(HIGH, 0.5), "dormant_0.025", layer) for layer in ("hidden1", "hidden2")]
    layers[0].loc[0, "value"] = np.nan
    stored("one", *layers)
    found = judge(replace(BY_ID["adamo_fewer_dormant"], experiments=("one",)))
    assert found.verdict == "not run" and "seed 0, task 0" in found.reason


# ---------------------------------------------------------------------------------------------------- losses


@pytest.fixture
def regression(registry):
    """Experiment "one" as a regression, whose rows have a loss and no accuracy."""
    base = registry["one"]["check"]
    stream = specs.Stream("slow_regression", specs.BITS, samples=base.stream.samples, tasks=TASKS)
    registry["one"]["check"] = replace(base, stream=stream)
    return registry


FALLING = {"adam": [[2.0, 2.0, *[4.0] * 6, 6.0, 6.0]], "adamo_0.1": [[2.0, 2.0, *[1.0] * 6, 0.5, 0.5]]}
SCALES = np.array([[1.0], [2.0], [5.0], [100.0]])  # of the targets of the four seeds


def test_score_of_a_regression_is_half_at_adams_first_loss_and_higher_for_a_lower_loss(regression):
    runs = runs_of(regression, rows_of({m: SCALES * losses for m, losses in FALLING.items()}, "online_loss"))
    assert runs.per_seed("score", "adam", "early") == pytest.approx([0.5] * 4)
    assert runs.per_seed("score", "adam", "late") == pytest.approx([2 / (2 + 6)] * 4)
    assert effects.lost("adam")(runs) == pytest.approx([0.25] * 4)
    assert effects.kept("adamo_0.1")(runs) == pytest.approx([0.3] * 4)
    assert effects.gained("adamo_0.1", "adam")(runs) == pytest.approx([0.55] * 4)


def test_verdicts_on_a_lower_is_better_metric_have_the_signs_of_those_on_accuracy(regression):
    stored("one", rows_of(FALLING, "online_loss"))
    for claim in ("adam_loses_plasticity", "adamo_keeps_plasticity"):
        assert judge(replace(BY_ID[claim], experiments=("one",))).verdict == "reproduced"
    assert judge(replace(GAIN, experiments=("one",))).verdict == "reproduced"
    stored("one", rows_of(dict(zip(FALLING, reversed(FALLING.values()), strict=True)), "online_loss"))
    assert judge(replace(BY_ID["adam_loses_plasticity"], experiments=("one",))).verdict == "not"
    assert judge(replace(GAIN, experiments=("one",))).verdict == "not"


def test_diverged_regression_scores_0_and_is_named(regression):
    losses, flags = rows_of(FALLING, "online_loss"), rows_of(dict.fromkeys(FALLING, 0.0), "diverged")
    for frame, value in ((losses, np.nan), (flags, 1.0)):
        gone = (frame["method"] == "adamo_0.1") & (frame["seed"] == 1) & (frame["task"] >= 5)
        frame.loc[gone, "value"] = value
    runs = runs_of(regression, losses, flags)
    assert runs.per_seed("score", "adamo_0.1", "late") == pytest.approx([0.8, 0, 0.8, 0.8])
    assert "adamo_0.1, seed 1 of one" in judge(replace(GAIN, experiments=("one",))).reason


def test_regression_without_adams_first_tasks_has_no_score(regression):
    flags = rows_of({"adam": [[1.0], [0.0], [0.0], [0.0]], "adamo_0.1": 0.0}, "diverged")
    runs = runs_of(regression, rows_of(FALLING, "online_loss"), flags)
    with pytest.raises(NotRunError, match="one has nothing to measure losses by: adam diverged"):
        runs.per_seed("score", "adamo_0.1", "late")


# ---------------------------------------------------------------------------------------------------- effects


def runs_of(registry, *frames: pd.DataFrame) -> Results:
    stored("one", *frames)
    experiment = registry["one"]["check"]
    return Results(experiment, store.read_compact(experiment))


def test_score_kept_is_the_last_fifth_of_the_tasks_minus_the_first(registry):
    runs = runs_of(registry, rows_of({"adam": [[0.9, 0.7, 0, 0, 0, 0, 0, 0, 0.3, 0.1]]}))
    assert effects.kept("adam")(runs) == pytest.approx([-0.6] * 4)
    assert effects.lost("adam")(runs) == pytest.approx([0.6] * 4)


def test_method_that_learns_next_to_nothing_has_nothing_to_keep(registry):
    runs = runs_of(registry, rows_of({"adam": 0.9, "adamo_0.1": 0.45}))
    with pytest.raises(NotRunError, match=r"in one adamo_0\.1 learns next to nothing, so has nothing to keep"):
        effects.kept("adamo_0.1")(runs)


@pytest.mark.parametrize(
    ("kind", "dataset", "chance"), [("class_pairs", "cifar100", 0.5), ("shuffled_classes", "cifar100", 0.01)]
)
def test_learning_is_measured_from_chance_where_there_are_two_classes_and_where_there_are_100(
    registry, kind, dataset, chance
):
    base = registry["one"]["check"]
    registry["one"]["check"] = replace(base, stream=specs.Stream(kind, dataset, samples=64, tasks=TASKS))
    runs = runs_of(registry, rows_of({"adam": chance + 0.4, "adamo_0.1": chance + 0.19}))
    assert runs.chance == pytest.approx(chance)
    with pytest.raises(NotRunError, match="learns next to nothing"):
        effects.kept("adamo_0.1")(runs)
    runs = runs_of(registry, rows_of({"adam": chance + 0.4, "adamo_0.1": chance + 0.21}))
    assert effects.kept("adamo_0.1")(runs) == pytest.approx([0] * 4)


def test_regression_has_no_chance_to_take_off(regression):
    assert runs_of(regression, rows_of(FALLING, "online_loss")).chance == 0


@pytest.mark.parametrize(
    ("change", "claim", "verdict"),
    [
        (-0.2, "adam_loses_plasticity", "reproduced"),
        (-LOSS / 2, "adam_loses_plasticity", "not"),
        (0.1, "adam_loses_plasticity", "not"),
        (-0.2, "adamo_keeps_plasticity", "not"),
        (-LOSS / 2, "adamo_keeps_plasticity", "not testable"),
        (0.1, "adamo_keeps_plasticity", "not testable"),
    ],
)
def test_one_size_of_loss_separates_losing_from_keeping(registry, change, claim, verdict):
    accuracy = 0.5 + change * (np.arange(TASKS) >= 5)
    stored("one", rows_of({"adam": accuracy, "adamo_0.1": accuracy}))
    assert judge(replace(BY_ID[claim], experiments=("one",))).verdict == verdict


def test_first_of_several_names_that_an_experiment_has_is_the_arm(registry):
    runs = runs_of(registry, rows_of({"adam": 0.2, "adamo_0.1": 0.7}))
    assert runs.method(("adamo", "adamo_0.1", "adam")) == "adamo_0.1"
    assert effects.gained(("adamo", "adamo_0.1"), "adam")(runs) == pytest.approx([0.5] * 4)
    with pytest.raises(NotRunError, match="no online_accuracy of adamo, seed 0"):
        effects.kept(("adamo", "adamw"))(runs)


def test_first_task_is_one_task_and_the_first_tasks_are_a_fifth(registry):
    curve = [[0.1, 0.9, *[0.5] * 8]]
    runs = runs_of(registry, rows_of({"adam": 0.5, "adamo_0.1": curve}))
    assert effects.gained_on_first_task("adamo_0.1", "adam")(runs) == pytest.approx([-0.4] * 4)
    assert runs.per_seed("score", "adamo_0.1", "early") == pytest.approx([0.5] * 4)


def test_first_tasks_of_a_gradual_stream_leave_out_the_one_into_which_nothing_fades(registry):
    base = registry["one"]["check"]
    registry["one"]["check"] = replace(base, stream=replace(base.stream, transition=0.5))
    runs = runs_of(registry, rows_of({"adam": [[0.1, 0.6, 0.8, *[0.5] * 7]]}))
    assert runs.per_seed("score", "adam", "early") == pytest.approx([0.7] * 4)


def test_decades_leave_out_the_head_and_take_the_lowest_rival(registry):
    frames = [
        rows_of({"adam": 10.0 * k, "adamo_0.1": 0.1 * k}, "isometry_defect", layer)
        for layer, k in (("1.weight", 0.5), ("3.weight", 1.5), ("5.weight", 1e6))
    ]
    runs = runs_of(registry, *frames)
    below = effects.decades_below("isometry_defect", "adamo_0.1", ("adam",))(runs)
    assert below == pytest.approx([2.0] * 4)
    both = effects.decades_below("isometry_defect", "adam", ("adam", "adamo_0.1", "not_in_this_experiment"))(runs)
    assert both == pytest.approx([-2.0] * 4)
    assert effects.decades_within("isometry_defect", "adam", 0.1)(runs) == pytest.approx([-2.0] * 4)


def test_reactivation_rate_pools_the_events_over_the_units_that_were_dead_a_task_before(registry):
    dead = [[0.5, 0.25, 0.25, *[0.0] * 7]]
    events = [[np.nan, 0.25, 0.0, 0.25, *[0.0] * 6]]
    frames = rows_of({"adam": dead}, "dead", "hidden1"), rows_of({"adam": events}, "reactivated", "hidden1")
    runs = runs_of(registry, *frames)
    assert effects.reactivation_rate(runs, "adam") == pytest.approx([0.5] * 4)


def test_seed_without_a_dead_unit_says_nothing_of_reactivation(registry):
    dead, events = [[0.0], [0.5], [0.5], [0.5]], [[0.0], [0.1], [0.1], [0.1]]
    frames = (
        rows_of({"adam": 0.5, "adamo_0.1": dead}, "dead"),
        rows_of({"adam": 0.0, "adamo_0.1": events}, "reactivated"),
    )
    runs = runs_of(registry, *frames)
    assert np.isnan(effects.reactivation_rate(runs, "adamo_0.1")[0])
    assert effects.reactivated_more("adamo_0.1", "adam")(runs) == pytest.approx([0, 0.2, 0.2, 0.2])


def test_kernel_is_read_before_the_first_and_the_last_task_alone(registry):
    ends = np.full(TASKS, np.nan)
    ends[[0, -1]] = 1.0
    conditions = {"adam": ends * [[10, *[1] * 8, 1000]], "adamo_0.1": ends * [[10, *[1] * 8, 100]]}
    plasticities = {"adam": ends * 0.2, "adamo_0.1": ends * 0.6}
    rows = pd.concat([rows_of(conditions, "kernel_condition"), rows_of(plasticities, "P_100")]).dropna()
    runs = runs_of(registry, rows)
    assert effects.kernel_worsened("adam")(runs) == pytest.approx([2.0] * 4)
    assert effects.better_conditioned("adamo_0.1", "adam")(runs) == pytest.approx([1.0] * 4)
    assert effects.better_kernel("adamo_0.1", "adam")(runs) == pytest.approx([0.4] * 4)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1e9], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, -9], -1.0),
        ([1, 2, 3], [1, 3, 2], 0.5),  # 1 - 6 * 2 / (3 * 8)
        ([1, 1, 2, 2], [1, 1, 2, 2], 1.0),
        ([1, 2, 3], [5, 5, 5], 0.0),
    ],
)
def test_rank_correlation_of_small_cases(x, y, expected):
    assert effects.rank_correlation(np.array(x, float), np.array(y, float)) == pytest.approx(expected)


def test_kernel_correlations_tell_order_over_methods_from_order_within_a_run(registry):
    falling = np.linspace(0.2, 0, TASKS)
    accuracy = rows_of({"adam": 0.1 + falling, "adamo_0.1": 0.7 + falling})
    kernel = rows_of({"adam": 0.1 - falling / 4, "adamo_0.1": 0.7 - falling / 4}, "P_100")
    runs = runs_of(registry, accuracy, kernel)
    assert (effects.kernel_orders_score(runs) > 0.4).all()
    assert effects.kernel_follows_score(runs) == pytest.approx([-1.0] * 4)


def test_isometry_is_paired_with_the_kernel_of_the_next_task(registry):
    defect = rows_of(
        {"adam": np.arange(TASKS) + 1.0, "adamo_0.1": np.arange(TASKS) + 1.5}, "isometry_defect", "1.weight"
    )
    before = defect[defect["task"] == 0].assign(task=-1, value=lambda f: f["value"] - 1)
    head = pd.concat([defect, before]).assign(layer="3.weight")
    kernel = rows_of({"adam": 1 - np.arange(TASKS) / 20, "adamo_0.1": 0.975 - np.arange(TASKS) / 20}, "P_100")
    runs = runs_of(registry, defect, before, head, kernel)
    assert effects.isometry_orders_kernel(runs) == pytest.approx([1.0] * 4)


def test_metric_that_is_zero_is_as_small_as_float32_can_tell_and_not_infinitely_small():
    assert effects.decades(np.array([0.0, 1.0])).tolist() == pytest.approx([np.log10(np.finfo(np.float32).eps), 0])


PREDICTED = {  # claim: metric, what Adam and AdamO reach where it is true
    "adamo_beats_adam": ("online_accuracy", 0.4, 0.8),
    "adamo_costs_no_first_task": ("online_accuracy", 0.4, 0.8),
    "adamo_fewer_dormant": ("dormant_0.025", 0.6, 0.2),
    "adamo_nearer_isometry": ("isometry_defect", 3.0, 0.3),
    "adamo_near_isometric": ("isometry_defect", 3.0, 0.01),
}


@pytest.mark.parametrize("id", PREDICTED)
def test_claim_is_reproduced_where_its_statement_is_true_and_not_where_it_is_turned_round(registry, id):
    metric, adam, adamo = PREDICTED[id]
    for values, verdict in (((adam, adamo), "reproduced"), ((adamo, adam), "not")):
        stored("one", rows_of(dict(zip(("adam", "adamo_0.1"), values, strict=True)), metric))
        assert judge(replace(BY_ID[id], experiments=("one",))).verdict == verdict


# ---------------------------------------------------------------------------------------------------- the registry


def test_registered_claims_have_distinct_ids_and_one_sentence_each():
    assert len(BY_ID) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.statement[0].isupper() and claim.statement.endswith(".") and "\n" not in claim.statement
        assert claim.metric and claim.unit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "papers"}, r"kind='papers'.*did you mean 'paper'"),
        ({"kind": "paper"}, "gain: source=''; a claim of kind 'paper' needs one"),
        ({"experiments": ()}, r"gain: experiments=\(\)"),
        ({"experiments": ("one", "one")}, "each once"),
    ],
)
def test_claim_that_cannot_be_judged_is_an_error_naming_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(GAIN, **changes)


def test_every_claim_names_experiments_of_the_registry_at_every_tier():
    assert {(c.id, name) for c in CLAIMS for name in c.experiments if name not in specs.everything()} == set()


EVERY = {"isometry_defect", "activation_rank", "dormant_0.025", "dead", "reactivated", "online_loss", "diverged"}
KERNEL = {"P_100", "kernel_condition"}


def recorded(experiment: specs.Experiment) -> Results:
    """Numbers for all that training records of an experiment, and for nothing else."""
    tasks = range(-1, experiment.stream.tasks)
    metrics = EVERY if experiment.stream.is_regression else EVERY | {"online_accuracy"}
    metrics = metrics | (KERNEL if {"kernel", "kernel_ends"} & set(experiment.measures) else set())
    seeds = experiment.seeds
    keys = pd.MultiIndex.from_product([[m.name for m in experiment.methods], sorted(metrics), seeds, tasks])
    frame = keys.to_frame(index=False, name=["method", "metric", "seed", "task"]).assign(layer="")
    frame["value"] = np.random.default_rng(0).random(len(frame))
    method, metric, task = (frame[column] for column in ("method", "metric", "task"))
    frame.loc[metric == "diverged", "value"] = 0.0
    frame.loc[metric == "online_accuracy", "value"] = 0.5 + frame["value"] / 2  # no worse than chance on any stream
    no_relu = {m.name for m in experiment.methods if m.activation != "relu"}
    absent = (metric != "isometry_defect") & (task == -1) | (metric == "reactivated") & (task == 0)
    absent |= metric.isin(["dead", "reactivated"]) & method.isin(no_relu)
    if "kernel_ends" in experiment.measures:
        absent |= metric.isin(KERNEL) & task.between(1, experiment.tasks - 2)
    return Results(experiment, frame[~absent].assign(hardware="a CPU", commit="abc"))


@pytest.mark.parametrize("tier", ["check", "paper"])
@pytest.mark.parametrize("claim", ON_STREAMS, ids=lambda claim: claim.id)
def test_every_claim_reads_methods_and_metrics_that_its_experiments_record(claim, tier):
    found = judge(claim, tier, recorded)
    assert found.missing == {} and found.verdict != "not run"


@pytest.mark.parametrize("name", ["labels_mnist", "slow_regression"])
def test_metrics_that_claims_read_are_those_that_training_records(name):
    import torch

    from dyniso.study import train
    from dyniso.study.stack import Run
    from dyniso.study.tasks import load_source

    experiment = replace(specs.only_methods(specs.get(name), ["adam"]), seeds=(0,), steps_per_task=2)
    (frame,) = train.train_group(
        experiment, [Run(experiment.methods[0], 0)], load_source(experiment.stream, torch.device("cpu"))
    )
    real = frame[frame["metric"].isin([*EVERY, *KERNEL, "online_accuracy"])].groupby("metric")["task"].unique()
    made = recorded(experiment).frame.groupby("metric")["task"].unique()
    assert {m: set(tasks) for m, tasks in real.items()} == {m: set(tasks) for m, tasks in made.items()}


def test_worst_value_of_every_metric_that_training_records_is_known():
    assert (EVERY | KERNEL | {"online_accuracy"}) - {"diverged"} <= set(claims.WORST)


def test_adamo_is_compared_with_every_baseline_of_the_suite_on_every_stream():
    suite = specs.get("labels_mnist", "check").methods
    baselines = [m.name for m in suite if not m.isometry_strength and m.activation != "maxmin"]
    assert {f"adamo_beats_{name}" for name in baselines} <= BY_ID.keys()
    assert all(set(SUITE) <= set(BY_ID[f"adamo_beats_{name}"].experiments) for name in baselines)
    assert set(SUITE) == specs.supervised.SUITE.keys()


@pytest.mark.parametrize("claim", [c for c in CLAIMS if len(set(c.experiments) & set(SUITE)) > 3], ids=lambda c: c.id)
def test_claim_on_the_suite_leaves_out_only_streams_that_cannot_have_it(claim):
    for name in set(SUITE) - set(claim.experiments):
        stream = specs.get(name, "check")
        units = "reactivat" in claim.metric and stream.stream.kind not in ("random_labels", "shuffled_classes")
        kernel = "kernel" in claim.metric and "kernel_ends" not in stream.measures
        assert units or kernel or stream.stream.is_regression, f"{claim.id} is not judged on {name}"


def test_claims_about_an_experiment_are_those_that_it_has_a_say_in_and_an_unknown_one_is_refused():
    judged = claims.judge_about(["dormancy", "interactions"])
    assert [claim.id for claim, _ in judged] == ["muon_with_pull_beats_muon", "pull_on_dead_rows_helps"]
    with pytest.raises(ValueError, match=r"experiment='dormanc'.*did you mean 'dormancy'"):
        claims.judge_about(["dormanc"])


@pytest.fixture(scope="module")
def committed() -> list[tuple[Claim, claims.Verdict]]:
    return claims.judge_all("check")


def test_every_claim_has_a_verdict_where_the_tables_of_its_experiments_are_committed(committed):
    for claim, found in committed:
        have = all(store.compact_path(specs.find(name, "check")).exists() for name in claim.experiments)
        assert (found.verdict != "not run") == have, found.reason  # so methods and metrics exist
        assert found.verdict in claims.VERDICTS


def test_committed_verdicts_follow_from_their_findings(committed):
    for claim, found in committed:
        sides = [f.side for f in found.findings if f.side != "not testable"]
        assert (found.verdict == "reproduced") == (set(sides) == {"for"}), claim.id
        assert (found.verdict == "not") == ("against" in sides and "for" not in sides), claim.id
        assert (found.verdict == "not testable") == (sides == []), claim.id


def test_verdicts_on_the_paper_s_benchmarks_and_on_ours_are_of_different_experiments(committed):
    for claim, found in committed:
        paper = [f.side for f in found.findings if f.of_the_paper]
        ours = [f.side for f in found.findings if not f.of_the_paper]
        assert (found.on_paper, found.on_ours) == (claims.word(paper), claims.word(ours)), claim.id
        assert len(paper) + len(ours) == len(claim.experiments)


def test_committed_effect_is_the_one_computed_another_way():
    experiment = specs.get("permuted_pixels", "check")
    frame = store.query(store.compact_path(experiment), "*", "read_parquet")
    rows = frame[(frame["metric"] == "online_accuracy") & (frame["method"] == "adam")]
    lost = rows[rows["task"] < 8]["value"].mean() - rows[rows["task"] >= 32]["value"].mean()
    found = judge(replace(BY_ID["adam_loses_plasticity"], experiments=("permuted_pixels",)))
    assert found.effect == pytest.approx(lost, abs=1e-6)


def test_verdict_as_a_record_is_plain_json_with_none_for_what_was_not_run(registry):
    stored("one", rows_of(HIGH))
    for claim in (GAIN, replace(GAIN, experiments=("one",))):
        record = claims.as_record(claim, judge(claim))
        assert json.loads(json.dumps(record, allow_nan=False))["effect"] == record["effect"]
        assert {
            "id",
            "statement",
            "kind",
            "source",
            "metric",
            "threshold",
            "verdict",
            "reason",
            "scale",
        } <= record.keys()
    assert claims.as_record(GAIN, judge(GAIN))["effect"] is None
