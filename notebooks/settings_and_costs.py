# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Settings and costs
#
# **Question.** With which settings was everything in this book trained, who chose them, and what did it take?
#
# **Why it matters.** A comparison of methods is a comparison of their settings. Two methods of one name can be different
# algorithms, and a method that was tuned less than its rival looks worse than it is.
#
# The lists and tables of this page are made from the declarations that the training reads, the docstrings of the methods,
# and the stored tables. Lists are folded; a click opens them.

# %% tags=["parameters", "hide-input"]
tier = "check"  # smoke | check | paper: the tier whose stacks are listed one by one under costs

# %% tags=["hide-input"]
import time
from dataclasses import fields
from pkgutil import resolve_name

import numpy as np
import torch

from dyniso import baselines, nets
from dyniso.report import appendix, tuning
from dyniso.study import specs
from dyniso.report.notebook import claim, show_markdown, show_table, stamp, table
from dyniso.study.specs.reinforcement import PPO, Games, PolicyNet
from dyniso.study.optimizers import OPTIMIZERS, make_optimizer
from dyniso.study.specs.supervised import BUDGET, TUNING_SEEDS
from dyniso.study.stack import Run, Stack

# reads: dyniso/baselines/*.py dyniso/activations.py dyniso/nets.py dyniso/optim.py
started = time.perf_counter()
read = appendix.cached()
sweeps = [name for name in specs.REGISTRY if name.startswith(tuning.SWEEP)]
suite = [name for name in specs.SUPERVISED if name not in sweeps]
others = [name for name in specs.REGISTRY if name not in {*specs.THEORY, *specs.SUPERVISED}]
halves = {"streams": specs.REGISTRY, "games": specs.REINFORCEMENT}
trained_on = {
    half: [m for by_tier in found.values() for m in by_tier["check"].methods] for half, found in halves.items()
}
trained = [method for methods in trained_on.values() for method in methods]


def blocks(names):
    """Show experiments, each folded."""
    show_markdown("\n\n".join(appendix.experiment_block(specs.everything()[name]) for name in names) or "None.")


# %% [markdown]
# ## The experiments
#
# Each is declared once, at three tiers that differ in scale only: *smoke* takes seconds, *check* minutes to hours on two
# cores, *paper* is meant for a GPU. Each says where its values come from; "ours" is what the paper does not state or we
# could not read.
#
# ### Of the theory chapters

# %% tags=["hide-input"]
blocks(specs.THEORY)

# %% [markdown]
# ### The supervised suite

# %% tags=["hide-input"]
blocks(suite)

# %% [markdown]
# ### The sweeps that tune it

# %% tags=["hide-input"]
blocks(sweeps)

# %% [markdown]
# ### Others

# %% tags=["hide-input"]
blocks(others)

# %% [markdown]
# ### Games
#
# Continual reinforcement learning: a sequence of games in place of a stream, and the settings of PPO
# ({doc}`continual_minatar`, {doc}`continual_octax`).

# %% tags=["hide-input"]
blocks(specs.REINFORCEMENT)

# %% tags=["hide-input"]
every = [experiment for by_tier in specs.everything().values() for experiment in by_tier.values()]
parts = {"stream": specs.Stream, "net": specs.Net}, {"games": Games, "net": PolicyNet, "ppo": PPO}
named = ("name", "title", "tier", "methods", "sources")
expected = {
    kind: sum(len(fields(part)) for part in (kind, *of.values())) - len(named) - len(of)
    for kind, of in zip((specs.Experiment, specs.GameExperiment), parts, strict=True)
}
claim(
    "every-field-of-every-experiment-is-shown",
    f"{len(specs.everything())} experiments at {len(specs.TIERS)} tiers: on streams each has all {expected[specs.Experiment]} "
    f"fields of its stream, its net and its own, on games all {expected[specs.GameExperiment]} of games, net, PPO and its own.",
    all(len(appendix.settings_of(one)) == expected[type(one)] for one in every)
    and len(every) == len(specs.everything()) * len(specs.TIERS),
)
claim(
    "every-experiment-names-its-sources",
    "Each says where its stream or games, its net and, on games, its PPO come from.",
    all(set(parts[isinstance(one, specs.GameExperiment)]) <= dict(one.sources).keys() for one in every),
)

# %% [markdown]
# ## The methods
#
# A method is an optimizer and a learning rate, and what it adds: other layers, or a class of {py:mod}`dyniso.baselines` beside
# the optimizer. What it does not set is at the default of that class, which is shown too.

# %% tags=["hide-input"]
arms, fixed, played = (
    appendix.arm_rows([specs.find(name, "check") for name in names], baselines.CLASSES)
    for names in ([*specs.THEORY, *others], suite, specs.REINFORCEMENT)
)
show_markdown(
    "\n\n".join(
        [
            appendix.folded(f"{len(arms)} arms of the theory chapters and others", table(arms)),
            appendix.folded(f"{len(fixed)} arms of the supervised suite", table(fixed)),
            appendix.folded(f"{len(played)} arms on games", table(played)),
        ]
    )
)

# %% [markdown]
# The optimizers, as a stack of runs builds them where a method sets no more than the learning rate:


# %% tags=["hide-input"]
def optimizer_of(name, lr=1e-3):
    """What a run of a method gets that sets a learning rate and no more."""
    method = specs.Method("probe", "probe", optimizer=name, lr=lr, isometry_strength=0.1 if name == "adamo" else 0.0)
    stack = Stack([nets.mlp(3, 2, width=4, depth=2)], torch.device("cpu"))
    return make_optimizer([Run(method, 0)], stack.params, stack.regularised)


show_table([appendix.optimizer_row(name, optimizer_of(name), 1e-3) for name in OPTIMIZERS])

# %% [markdown]
# ### Which method it is, and from where

# %% tags=["hide-input"]
described = [appendix.described(one) for one in baselines.CLASSES.values()]
used = appendix.used_parts(trained)
show_markdown(
    "\n\n".join(
        [
            appendix.folded(f"{len(described)} methods beside an optimizer", appendix.bullets(described)),
            appendix.folded(
                "Optimizers and layers",
                appendix.bullets(appendix.part_line(*part, resolve_name(appendix.PARTS[part])) for part in used),
            ),
        ]
    )
)

# %% [markdown]
# Several names stand for more than one algorithm in the literature. Those that we know of:

# %% tags=["hide-input"]
show_markdown(
    "\n\n".join(appendix.namesake_block(name, trained, baselines.SHRINK_PERTURB) for name in appendix.NAMESAKES)
)

# %% tags=["hide-input"]
variants = {half: appendix.variants(methods, baselines.SHRINK_PERTURB) for half, methods in trained_on.items()}
claim(
    "one-method-a-name",
    f"Of {sum(map(len, appendix.NAMESAKES.values()))} methods under {len(appendix.NAMESAKES)} names, one each is used on "
    "streams, and at most one each on games: "
    + "; ".join(
        f"{name.replace('_', ' ')} of {appendix.NAMESAKES[name][key].partition(':')[0]}"
        + ("" if key in variants["games"][name] & variants["streams"][name] else f" ({half} only)")
        for name in appendix.NAMESAKES
        for half, of in variants.items()
        for key in of[name] - (variants["streams"][name] if half == "games" else set())
    )
    + ".",
    all(len(found) == 1 for found in variants["streams"].values())
    and all(len(found) <= 1 for found in variants["games"].values()),
)
silent = [text.partition(".**")[0].strip("*") for text in described if "none is stated" in text]
claim(
    "classes-that-state-their-source",
    f"Of {len(described)} classes beside an optimizer, {len(described) - len(silent)} state their source; "
    f"the other: {', '.join(silent) or 'none'}.",
    len(silent) <= 1,
)

# %% [markdown]
# ## How the suite was tuned
#
# On each stream every method has the same number of candidates, trained on seeds that nothing else uses and on fewer
# tasks. It enters the comparison with the candidate of the best score on the last third of the sweep's tasks: online
# accuracy, or for regression the smallest online loss. One run that diverges makes its candidate the worst; of equal ones
# the first is taken. The budget is small, and the candidates are ours: a method whose best setting is not among them is
# undersold. A method with a strength or the like has two of these and two learning rates, where others have four rates, and
# nearly always takes the larger ({doc}`supervised_benchmarks` counts). The sweep is shorter than the stream that is judged, so a setting that collapses only later can win it. And
# AdamO's candidates were set after its strengths had been studied on one of these streams ({doc}`adamo`), with the seeds
# that are judged here; the other methods' candidates come from their sources.

# %% tags=["hide-input"]
rows = appendix.candidate_rows(specs.CANDIDATES)
show_markdown(appendix.folded(f"The candidates of {len(rows)} methods", table(rows)))

# %% tags=["hide-input"]
other_seeds = {seed for experiment in every if experiment.name not in sweeps for seed in experiment.seeds}
claim(
    "equal-numbers-of-different-candidates",
    f"Each of {len(specs.CANDIDATES)} methods has {BUDGET} candidates, no two alike.",
    all(len({specs.digest(every[0], m) for m in some}) == BUDGET for some in specs.CANDIDATES.values()),
)
claim(
    "seeds-of-sweeps-judge-nothing",
    f"The sweeps' seeds, {appendix.shown(TUNING_SEEDS)}, are in no experiment that compares methods.",
    not other_seeds & set(TUNING_SEEDS) and all(specs.get(name, "check").seeds == TUNING_SEEDS for name in sweeps),
)

# %% [markdown]
# What the sweeps found, and what each method takes:

# %% tags=["hide-input"]
results = [appendix.sweep_of(stream, read) for stream in tuning.swept_streams()]
show_markdown(
    "\n\n".join(
        f"`{result.stream}`: **not run** ({result.missing})" if result.missing else appendix.sweep_block(result)
        for result in results
    )
)

# %% tags=["hide-input"]
for result in results:
    if result.missing:
        print(f"{result.stream}: not run; its methods take the candidates {sorted(set(result.taken.values()))}.")
        continue
    claim(
        f"best-candidates-{result.stream.replace('_', '-')}",
        f"{result.stream}: each of {len(result.best)} methods takes the best candidate of the stored sweep.",
        result.wrong == [] and result.best.keys() == specs.CANDIDATES.keys(),
    )

# %% [markdown]
# Where the best of four learning rates is the largest or the smallest, a better one may lie outside:

# %% tags=["hide-input"]
edges = {result.stream: appendix.at_the_edge(result) for result in results if not result.missing}
show_markdown(
    appendix.bullets(f"`{stream}`: {edge} of {count} methods" for stream, (edge, count) in edges.items())
    or "No sweep has been run yet."
)

# %% [markdown]
# ## What it took
#
# Runs that differ only in seed and isometry strength are trained as one stack, and each stores the seconds of the whole
# stack. So a run counts with its share, and the shares add up to the time spent. *Steps* are those of one run: of training
# on streams, of the environment on games. Seconds are by the clock, beside whatever else the machine was doing: compare
# rows of one machine, and these with care.

# %% tags=["hide-input"]
found = appendix.measured_costs(read=read)
show_markdown("\n\n".join(appendix.cost_blocks(found)) or "Nothing is stored yet.")

# %% [markdown]
# On games, environment steps of all runs of a stack in a second of its process, with the updates and everything that is
# measured in between:

# %% tags=["hide-input"]
speeds = appendix.speed_rows(found)
show_markdown(table(speeds) if speeds else "Not run.")

# %% tags=["hide-input"]
show_markdown(appendix.bullets(appendix.not_run(found)))

# %% tags=["hide-input"]
runs = int(found.stored["runs"].sum())
declared = {(e.name, e.tier): len(e.methods) * len(e.seeds) for e in every}
counted = found.stored.groupby(["experiment", "tier"])["runs"].sum()
claim(
    "what-is-stored-and-what-it-took",
    f"{len(counted)} of {len(every)} experiments and tiers are stored, all of tier check and no other: {runs:,} runs, "
    f"{appendix.duration(found.stored['wall_s'].sum())} in all.",
    {(name, "check"): declared[name, "check"] for name in specs.everything()} == counted.to_dict(),
)
pieces = [appendix.run_costs(read(specs.find(name, stored_tier))) for name, stored_tier in counted.index]
stacks = [group for one in pieces for _, group in one.groupby(["hardware", "stacked_runs", "wall_s"])]
whole = [group for group in stacks if len(group) % group["stacked_runs"].iloc[0] == 0]
once = sum(group["wall_s"].iloc[0] * (len(group) // group["stacked_runs"].iloc[0]) for group in whole)
claim(
    "no-stack-is-counted-twice",
    f"No stack is counted twice: of {len(stacks)} stacks {len(whole)} are stored whole, and their seconds, each "
    f"taken once, are the sum of their runs' shares, {appendix.duration(once)}.",
    bool(np.isclose(once, sum(group["share_s"].sum() for group in whole))),
)

# %% [markdown]
# Stack by stack, the cheapest first. A larger stack is cheaper for each of its runs, so small differences between methods
# say nothing.

# %% tags=["hide-input"]
stacks = {name: appendix.stack_rows(specs.find(name, tier), read) for name in specs.everything() if name not in sweeps}
show_markdown(
    "\n\n".join(
        appendix.folded(f"{name.replace('_', ' ')}, {tier}", table(rows)) for name, rows in stacks.items() if rows
    )
    or f"Not run: no experiment at tier {tier}."
)

# %% [markdown]
# ## What to conclude, and what not
#
# - Every setting of a stored result is on this page, with who chose it. Settings that are "ours" are most of them: the
#   comparison is ours, not a repetition of the paper's.
# - Equal budgets are fair in one sense only. Four candidates tell little about a method with five settings, and nothing
#   about what longer tuning would change.
# - The costs are of small networks on a few cores or one GPU. They say what a rerun takes, not which method is fast.
#
# ## Try changing
#
# - `-p tier smoke` after `dyniso run random_labels --compact`: the stacks of that tier.
# - A candidate in `dyniso.study.specs.CANDIDATES`: its sweep is "not run" here until `dyniso run tune_labels_mnist --tier check
#   --compact` has made it again; `tools/tuned.py` then writes what each method takes.
#
# ## Exercise
#
# Which settings does no candidate of any method vary?
#
# ```{dropdown} Solution
# Adam's $\beta_1$, $\beta_2$ and $\varepsilon$, for one: the table of optimizers has one value each, and no list of candidates
# names them. The same holds for batch size and steps, which belong to the stream.
# ```

# %% tags=["hide-input"]
stamp(
    notebook="settings_and_costs",
    parameters={"tier": tier},
    hardware="; ".join(sorted(found.stored["hardware"].unique())),
    wall_s=time.perf_counter() - started,
)
