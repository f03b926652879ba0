"""Contracts of dyniso.report.appendix: every setting shown, a stack's time counted once, what is missing says so."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from pkgutil import resolve_name

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import long_rows
from test_tuning import reader, sweep_rows

from dyniso import baselines, optim
from dyniso.baselines import CLASSES, SHRINK_PERTURB
from dyniso.report import appendix
from dyniso.report.notebook import table
from dyniso.study import specs, store
from dyniso.study.specs import ADAM, Method, Net, Stream

TRAINED = [method for by_tier in specs.REGISTRY.values() for method in by_tier["check"].methods]


CALLS = {
    "its import": "",
    "arms": "appendix.arm_rows([specs.only_methods(specs.get('random_labels'), ['adam'])], {})",
    "a sweep": "appendix.sweep_of('labels_mnist')",
    "costs": "appendix.measured_costs({})",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_torch_is_not_loaded_by(call):
    code = f"import sys; from dyniso.report import appendix, tuning; from dyniso.study import specs; {call or 'pass'}"
    code += "; sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------------------------ experiments


def test_settings_have_every_field_of_stream_net_and_experiment(tiny):
    apart = {"name", "title", "tier", "stream", "net", "methods", "sources"}
    count = len(fields(Stream)) + len(fields(Net)) + len({f.name for f in fields(tiny)} - apart)
    settings = appendix.settings_of(tiny)
    assert len(settings) == count
    assert (settings["stream"], settings["data set"], settings["net width"]) == ("random_labels", "mnist-small", "8")


@pytest.mark.parametrize("name", specs.REGISTRY)
def test_experiment_block_shows_each_tier_s_value_and_every_source(name):
    text = appendix.experiment_block(specs.REGISTRY[name])
    tasks = [appendix.shown(experiment.stream.tasks) for experiment in specs.REGISTRY[name].values()]
    row = f"| tasks | {' | '.join(tasks)} |" if len(set(tasks)) > 1 else f"; tasks {tasks[0]};"
    assert row in text
    assert all(appendix.plain(source) in text for _, source in specs.get(name).sources)


def test_tables_have_four_columns_at_most():
    sweep = appendix.Sweep("labels_mnist", "", {"adam": np.zeros(4)}, {"adam": 0}, dict.fromkeys(specs.CANDIDATES, 0))
    texts = [appendix.experiment_block(by_tier) for by_tier in specs.REGISTRY.values()]
    texts += [table(appendix.arm_rows([specs.get("earlier_methods")], CLASSES))]
    texts += [table(appendix.candidate_rows(specs.CANDIDATES)), appendix.sweep_block(sweep)]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("|")]
    assert max(len(re.findall(r"(?<!\\)\|", line)) - 1 for line in lines) <= 4


# ---------------------------------------------------------------------------------------------------------- methods


def test_settings_text_tells_what_is_set_from_defaults():
    method = Method("x", "x", baseline="spectral_penalty", settings=(("strength", 0.01),), norm="layernorm")
    text = appendix.settings_text(method, CLASSES)
    assert text.startswith("norm layernorm; SpectralPenalty: strength 0.01 (by default power 2, ")
    assert appendix.settings_text(ADAM, CLASSES) == "none"


def test_arms_that_are_alike_are_one_row_and_others_are_not(tiny):
    other = replace(tiny, name="other", methods=(ADAM, replace(ADAM, name="fast", lr=0.1)))
    rows = appendix.arm_rows([tiny, other], CLASSES)
    assert [(row["optimizer, rate"], row["in"]) for row in rows if row["method"] == "Adam"] == [
        ("adam, 0.001", "`random_labels`, `other`"),
        ("adam, 0.1", "`other`"),
    ]


def test_source_is_read_over_several_lines_and_up_to_the_next_section():
    assert appendix.source_of(baselines.L2Init).endswith("anchor after the first step, are other methods.")
    assert appendix.source_of(baselines.FIRE).startswith("FIRE (arXiv 2602.08040) and its code.")
    assert appendix.source_of(baselines.Reset) == ""


def test_every_part_that_an_experiment_uses_is_described():
    lines = [appendix.part_line(*part, resolve_name(appendix.PARTS[part])) for part in appendix.used_parts(TRAINED)]
    assert any("`dyniso.optim.AdamO`. *Source:* arXiv 2606.09762" in line for line in lines)
    with pytest.raises(KeyError, match="tanh"):
        appendix.used_parts([replace(ADAM, activation="tanh")])


@pytest.mark.parametrize("name", baselines.SHRINK_PERTURB)
def test_every_published_shrink_and_perturb_is_recognised_by_its_form(name):
    form = baselines.SHRINK_PERTURB[name]
    settings = dict(draw=form.draw, when=form.when, scaled_by_lr=form.scaled_by_lr, shrink=0.5)
    method = Method("x", "x", baseline="shrink_perturb", settings=tuple(settings.items()))
    assert appendix.variant(method, SHRINK_PERTURB) == name
    assert name in appendix.NAMESAKES["shrink_perturb"]


def test_unpublished_shrink_and_perturb_is_an_error_and_other_names_have_no_variant():
    with pytest.raises(ValueError, match="none of the published forms"):
        appendix.variant(Method("x", "x", baseline="shrink_perturb", settings=(("draw", "noise"),)), SHRINK_PERTURB)
    assert (
        appendix.variant(ADAM, SHRINK_PERTURB)
        == appendix.variant(Method("x", "x", baseline="fire"), SHRINK_PERTURB)
        == ""
    )


def test_every_trained_method_of_a_shared_name_is_one_of_those_listed():
    shared = [m for m in TRAINED if appendix.namesake(m)]
    assert {appendix.namesake(m) for m in shared} == appendix.NAMESAKES.keys()
    assert all(appendix.variant(m, SHRINK_PERTURB) in appendix.NAMESAKES[appendix.namesake(m)] for m in shared)


@pytest.mark.parametrize(
    ("name", "count"), {"shrink_perturb": 6, "redo": 4, "l2_init": 3, "parseval": 2, "upgd": 2}.items()
)
def test_block_of_a_shared_name_marks_the_one_that_is_used(name, count):
    text = appendix.namesake_block(name, TRAINED, SHRINK_PERTURB)
    assert f"{count} methods called" in text
    assert [("(this one is used)" in line) for line in text.splitlines() if line.startswith("- ")].count(True) == 1


def test_optimizer_row_has_what_is_built_with_its_rate_and_its_own_settings():
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    one = torch.optim.Muon(weights[:1], lr=1e-2)
    both = baselines.Several(one, torch.optim.Adam(weights[1:], lr=1e-3))
    row = appendix.optimizer_row("muon", both, lr=1e-3)
    assert row["built"] == "`Muon` and `Adam`"
    assert row["its own settings"].startswith("rate × 10, weight decay 0.1, momentum 0.95")
    alone = appendix.optimizer_row("adamo", optim.AdamO(weights, lr=1e-3), lr=1e-3)
    assert (alone["built"], alone["its own settings"].split(",")[0]) == ("`AdamO`", "betas (0.9")


def test_described_class_has_its_prose_and_says_where_no_source_is_stated():
    assert appendix.described(baselines.FIRE).startswith(
        "**FIRE.** At every task boundary, replaces each hidden weight"
    )
    assert appendix.described(baselines.Reset).endswith("*Source:* none is stated.")


# ------------------------------------------------------------------------------------------------------- the sweeps


def test_candidates_are_told_apart_by_what_varies():
    rows = {row["method"]: row for row in appendix.candidate_rows(specs.CANDIDATES)}
    assert rows["L2"]["varies"] == "learning rate, strength"
    assert rows["continual backprop"]["varies"] == "learning rate, rate"
    assert rows["L2"]["candidates"].startswith("0: 0.001, 0.001 · 1: 0.0003, 0.001 · ")


def test_sweep_that_is_not_stored_says_why_and_names_no_folder():
    result = appendix.sweep_of("labels_mnist", reader({}), {})
    assert result.missing == "tune_labels_mnist"
    error = store.UnusableError(f"{store.results_folder() / 'x.parquet'} is damaged")
    assert appendix.text.reason(error) == "x.parquet is damaged"


def test_sweep_shows_the_best_in_bold_and_who_does_not_take_it():
    sweep = specs.get("tune_labels_mnist", "check")
    scores = {"adam.0": 0.25, "adam.1": 0.75, "adam.2": np.nan}
    read = reader({sweep.name: sweep_rows(sweep, lambda name, *_: scores.get(name, 0.5))})
    wrong, right = (appendix.sweep_of("labels_mnist", read, {"adam": index}) for index in (0, 1))
    assert (wrong.wrong, right.wrong, right.missing) == (["adam"], [], "")
    assert "| Adam | 0.250 · **0.750** · diverged · 0.500 | 1: 0.001 |" in appendix.sweep_block(right)


def test_edge_counts_the_methods_whose_best_rate_is_the_first_or_last():
    best = dict.fromkeys(specs.CANDIDATES, 1) | {"adam": 0, "sgd": 3, "l2": 0}
    alike = [{replace(m, name="", label="", lr=0) for m in arms} for arms in specs.CANDIDATES.values()]
    found = appendix.at_the_edge(appendix.Sweep("labels_mnist", "", {}, best, best))
    assert found == (2, sum(len(kinds) == 1 for kinds in alike))


# ------------------------------------------------------------------------------------------------------------ costs


def stored_rows(experiment, **facts) -> pd.DataFrame:
    return long_rows(experiment).assign(**({"stacked_runs": "4", "wall_s": 10.0} | facts))


def test_stack_of_runs_is_counted_once(tiny):
    runs = appendix.run_costs(stored_rows(tiny))
    assert (len(runs), runs["share_s"].sum()) == (4, 10.0)


def test_two_stacks_of_equal_time_are_counted_twice(tiny):
    assert appendix.run_costs(stored_rows(tiny, stacked_runs="2"))["share_s"].sum() == 20.0


def test_run_without_its_stack_is_an_error_and_not_a_guess(tiny):
    with pytest.raises(store.UnusableError, match="stacked_runs"):
        appendix.run_costs(stored_rows(tiny, stacked_runs=""))


def test_costs_are_by_machine_and_say_what_is_not_run(tiny):
    paper = replace(tiny, tier="paper")
    rows = stored_rows(tiny)
    rows.loc[rows["seed"] == 1, "hardware"] = "a GPU"

    def read(experiment):
        if experiment.tier == "paper":
            raise store.UnusableError("other settings")
        return reader({"random_labels": rows})(experiment)

    registry = {"random_labels": {"smoke": tiny, "paper": paper}, "b": {"smoke": replace(tiny, name="b")}}
    found = appendix.measured_costs(registry, read)
    assert found.stored[["hardware", "runs", "steps", "wall_s"]].to_numpy().tolist() == [
        ["a CPU", 2, 12, 5.0],
        ["a GPU", 2, 12, 5.0],
    ]
    assert [
        block.count("| **total** | **2 × 12** | **5 s** | **2.5 s** |") for block in appendix.cost_blocks(found)
    ] == [1, 1]
    assert appendix.not_run(found, ("smoke", "paper")) == [
        "**smoke**: 1 stored; not run: `b`",
        "**paper**: 0 stored; not run: `random_labels` (other settings)",
    ]


def test_stacks_are_listed_cheapest_first_with_their_methods(tiny):
    slow = stored_rows(tiny)
    slow.loc[slow["method"] == "adam", ["stacked_runs", "wall_s"]] = ["2", 3.0]
    slow.loc[slow["method"] != "adam", ["stacked_runs", "wall_s"]] = ["2", 2.0]
    rows = appendix.stack_rows(tiny, reader({tiny.name: slow}))
    assert [tuple(row.values()) for row in rows] == [("AdamO, 0.1", "2", "1.0 s"), ("Adam", "2", "1.5 s")]
    assert appendix.stack_rows(tiny, reader({})) == []


# ------------------------------------------------------------------------------------------------------------ games


@pytest.mark.parametrize("name", specs.REINFORCEMENT)
def test_games_show_every_field_of_games_net_and_ppo_and_every_source(name):
    experiment = specs.find(name)
    parts = (experiment.games, experiment.net, experiment.ppo, experiment)
    apart = {"name", "title", "tier", "games", "net", "ppo", "methods", "sources"}
    settings = appendix.settings_of(experiment)
    assert len(settings) == sum(len(fields(part)) for part in parts) - len(apart)
    assert (settings["suite"], settings["net width"], settings["ppo envs"]) == (name, "32", str(experiment.ppo.envs))
    text = appendix.experiment_block(specs.REINFORCEMENT[name])
    assert all(appendix.plain(source) in text for _, source in experiment.sources)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert max(len(re.findall(r"(?<!\\)\|", line)) - 1 for line in lines) <= 4


def test_every_arm_on_games_is_told_and_of_a_known_variant():
    methods = [m for by_tier in specs.REINFORCEMENT.values() for m in by_tier["check"].methods]
    rows = appendix.arm_rows([by_tier["check"] for by_tier in specs.REINFORCEMENT.values()], CLASSES)
    assert {row["method"] for row in rows} == {appendix.plain(m.label) for m in methods}
    assert [row["settings"] for row in rows if row["method"] == "Adam, no biases"] == ["reset optimizer yes, bias no"]
    shared = [m for m in methods if appendix.namesake(m)]
    assert all(appendix.variant(m, SHRINK_PERTURB) in appendix.NAMESAKES[appendix.namesake(m)] for m in shared)
    assert appendix.used_parts(methods)


def test_costs_of_games_are_in_environment_steps_with_their_speed(tiny):
    experiment = specs.find("minatar")
    assert appendix.steps_of(experiment) == 2 * 16_384 and appendix.steps_of(tiny) == 12
    rows = stored_rows(experiment, wall_s=100.0, stacked_runs="2")
    registry = {"minatar": {"smoke": experiment}, tiny.name: {"smoke": tiny}}
    found = appendix.measured_costs(registry, reader({"minatar": rows, tiny.name: stored_rows(tiny)}))
    assert [row["runs × steps"] for row in (appendix.costs.cost_row("x", found.stored.iloc[[0]]),)] == ["6 × 32,768"]
    assert appendix.speed_rows(found) == [
        {"experiment": "minatar, smoke", "machine": "a CPU", "environment steps": "6 × 32,768", "a second": "655"}
    ]


def test_costs_are_of_streams_and_games_unless_a_registry_is_given():
    found = appendix.measured_costs(read=reader({}))
    assert {name for name, _ in found.missing} == specs.everything().keys()
