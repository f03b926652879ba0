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
# # How dyniso is built
#
# **Question.** What happens between the line that declares an experiment and the curve in a figure, and where does
# something new go in?
#
# **Why it matters.** A number is worth as much as the way it was made. If you can follow one run from its settings to
# its plotted point, you can trust the other curves of this book, or find the step where they go wrong. The paper
# links no code {cite:p}`rosseau2026`, so nothing on this page is its authors'; the design is ours.

# %% tags=["parameters", "hide-input"]
runs = 3  # 1..16: runs stacked in the check that a stack changes nothing
steps = 4  # 1..32: training steps a task in the tiny experiment

# %% tags=["hide-input"]
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import shorten
from unittest import mock

import networkx as nx
import numpy as np
import pandas as pd
import torch

from dyniso import cli
from dyniso.report import figures
from dyniso.report.figures import house
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.study import data, runner, sources, specs, store, streams, train
from dyniso.study.training_code import TRAINERS, digest_of_code
from dyniso.study.sources import import_graph
from dyniso.study.stack import Run, Stack
from dyniso.study.tasks import load_source

# reads: dyniso/**/*.py tools/*.py CONTRIBUTING.md Makefile tests/study/test_optimizers.py tests/study/test_streams.py
started = time.perf_counter()
root = store.PACKAGE.parent


def table(rows, *columns):
    """Show rows of values below their headings."""
    show_table([dict(zip(columns, row, strict=True)) for row in rows])


# %% [markdown]
# ## Three storeys, and imports run down
#
# | storey | what it does | what it needs |
# |:--|:--|:--|
# | core, `dyniso` | AdamO, the penalty, isometric nets, the kernel, dormancy, other methods | torch and numpy |
# | study, `dyniso.study` | declares experiments, trains them, stores their rows | the extra `study`; games also `rl` |
# | report, `dyniso.report` | reads stored rows: figures, verdicts, the ledger, these pages | the extra `report`; never torch |
#
# A user of AdamO installs the core alone. A reader redraws every figure on a laptop without torch. The picture is read
# from the sources; a package of several modules is one box. Orange rounded boxes load torch, blue squares do not.

# %%
graph = import_graph()
fig, imports = house.house_figure(graph)
show(
    fig,
    imports,
    name="fig-house",
    caption="No import runs up, from the core to the study or from the study to the report. An arrow points from a box to another that it imports; arrows that a "
    "chain of others implies are left out. Imports between storeys are counted in the titles.",
    alt=f"Three storeys of boxes, {len(house.rooms(graph))} in all, with arrows that all point downwards: the report above, the study, and the core below.",
)

# %% tags=["hide-input"]
rooms = house.rooms(graph)
claim(
    "no-import-runs-up",
    f"{len(graph)} modules in {len(rooms)} rooms of three storeys: no cycle, and no import runs up.",
    nx.is_directed_acyclic_graph(rooms) and house.upwards(rooms) == [],
)

# %% [markdown]
# The picture is a reading of source text, so a fresh interpreter checks it: it imports all blue modules and looks
# whether torch is in memory; then it makes every import of torch fail and tries the others.

# %%
check = """
import importlib, sys
blue, orange = (names.split() for names in sys.argv[1:])
for name in blue:
    importlib.import_module(name)
print("torch" in sys.modules)
sys.modules["torch"] = None  # from here on, importing torch is an ImportError
for name in orange:
    try:
        importlib.import_module(name)
        print(name, "loaded")
    except ImportError:
        pass
"""
with_torch = house.needs_torch(graph)
free = sorted(set(graph) - with_torch - {"dyniso.__main__"})
call = [sys.executable, "-c", check, " ".join(free), " ".join(sorted(with_torch))]
said = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()

# %% tags=["hide-input"]
claim("modules-import-without-torch", f"{len(free)} modules import without loading torch.", said[0] == "False")
claim(
    "torch-side-needs-torch",
    f"None of the other {len(with_torch)} can be imported where torch is missing.",
    said[1:] == [],
)
claim(
    "report-is-free-of-torch",
    "All of the report is among the first: it reads stored rows and never loads torch.",
    not [m for m in with_torch if m.startswith("dyniso.report")],
)
lines = {m: len(sources.code(path.read_text(encoding="utf-8")).splitlines()) for m, path in sources.modules().items()}
longest, median = max(lines, key=lines.get), np.median(list(lines.values()))
claim(
    "modules-are-short",
    f"All modules together have {sum(lines.values()):,} lines of code, without docstrings, comments and empty lines, a statement a line; "
    f"the median is {median:.0f}, the longest, `{longest}`, has {lines[longest]}: each can be read in one sitting.",
    lines[longest] < 300 and median < 100,
)

# %% [markdown]
# ## The life of one run
#
# We follow the smallest experiment worth the name through every station, in the order in which `dyniso.study.runner.run`
# visits them. It trains in a fraction of a second, and its numbers mean nothing.
#
# ### Spec
#
# An experiment is a frozen value of `dyniso.study.specs`. A variant is a `replace` of a registered one, so it says only
# what differs.

# %%
registered = specs.get("random_labels")
experiment = replace(
    registered,
    stream=specs.Stream("random_labels", "mnist-small", samples=32, tasks=2),
    net=specs.Net(width=8, depth=2),
    methods=(registered.method("adam"), registered.method("adamo_0.1")),
    steps_per_task=steps,
    batch=8,
    probe=16,
    seeds=(0, 1),
)
adam, adamo = experiment.methods

# %% [markdown]
# ### Digest
#
# `dyniso.study.specs.digest` hashes the settings that decide what one run computes. It names the run from here on.

# %%
arms = [Run(m, s) for m in experiment.methods for s in experiment.seeds]
rows = [(m.name, s, specs.digest(experiment, m)) for m, s in arms]
table(rows, "method", "seed", "digest")

# %% tags=["hide-input"]
digest = specs.digest(experiment, adam)
same = [specs.with_seeds(experiment, 7), replace(experiment, title="another"), specs.only_methods(experiment, ["adam"])]
other = [replace(experiment, batch=4), replace(experiment, net=replace(experiment.net, width=16))]
claim(
    "digest-ignores-company",
    "More seeds, another title or fewer methods beside it leave a run's digest alone; another batch size, width or "
    "learning rate does not.",
    all(specs.digest(e, adam) == digest for e in same)
    and digest not in [*(specs.digest(e, adam) for e in other), specs.digest(experiment, replace(adam, lr=2e-3))],
)

# %% [markdown]
# ### Task and batches
#
# A task is drawn from (stream, seed, number of the task) and nothing else, by `dyniso.study.streams.make_task`; the order
# of its minibatches by `dyniso.study.streams.batch_order`. No draw knows the method: all methods of a seed see the same
# tasks and batches, so that comparisons are paired.

# %%
stream = experiment.stream
images = data.load(stream.dataset)
pixels = images.x[0].size
drawn = [streams.make_task(stream, 0, k, images.y, pixels) for k in (0, 1)]
order = streams.batch_order(stream, 0, 1, steps, experiment.batch)
columns = [drawn[0].rows, images.y[drawn[0].rows], *(t.labels for t in drawn)]
table(np.transpose(columns)[:5], "image", "true label", "task 0", "task 1")

# %% tags=["hide-input"]
backwards = [streams.make_task(stream, 0, k, images.y, pixels) for k in (1, 0)]
pairs = list(zip(drawn, backwards[::-1], strict=True))
equal = all(np.array_equal(a.rows, b.rows) and np.array_equal(a.labels, b.labels) for a, b in pairs)
claim("tasks-in-any-order", "Task 1 drawn before task 0 is the same task 1.", equal)
longer = streams.batch_order(stream, 0, 1, 3 * steps, experiment.batch)
claim(
    "longer-training-same-first-batches",
    f"{steps} steps see the first {steps} batches of a longer training, {order.shape[1]} images each.",
    np.array_equal(order, longer[:steps]),
)

# %% [markdown]
# ### Stacked nets
#
# Runs that differ only in seed and isometry strength are trained as one: `dyniso.study.runner.grouped` finds them,
# `dyniso.study.stack.Stack` holds their parameters with the runs on the first axis. What changes them, optimizer, method and
# schedule, is a `dyniso.study.learner.Learner`, the same for streams and for games.

# %%
(group,) = runner.grouped(arms)
source = load_source(stream, torch.device("cpu"))
nets = [train.make_net(experiment, m, s, source) for m, s in group]
stack = Stack(nets, torch.device("cpu"))
pulled = stack.regularised()
rows = [(n, str(tuple(p.shape)), n in pulled) for n, p in stack.params.items()]
table(rows, "parameter", "shape", "pulled by AdamO")

# %% tags=["hide-input"]
start = {(run.method.name, run.seed): stack.params["1.weight"][i] for i, run in enumerate(group)}
paired = all(torch.equal(start["adam", s], start["adamo_0.1", s]) for s in experiment.seeds)
claim(
    "runs-make-one-stack",
    f"{len(group)} runs make one stack; both methods of a seed start from the same weights, two seeds do not.",
    paired and not torch.equal(start["adam", 0], start["adam", 1]),
)

# %% [markdown]
# ### Rows
#
# `dyniso.study.train.train_group` trains a stack through all tasks and measures after each. What it returns is as plain as
# can be: one row a number. Task −1 is the initialisation.

# %%
results = train.train_group(experiment, group, source)
some = results[0].groupby("task").tail(2)
some = some.assign(value=some["value"].map("{:.6g}".format))
table(some.to_numpy(), *some.columns)

# %% tags=["hide-input"]
keys = [frame[["task", "layer", "metric"]] for frame in results]
claim(
    "every-run-same-rows",
    f"Each of the {len(results)} runs gives the same {len(results[0])} rows, each (task, layer, metric) once.",
    all(k.equals(keys[0]) for k in keys) and not keys[0].duplicated().any(),
)

# %% [markdown]
# Does company change a run? Train some runs in one stack, then each by itself, and compare every number of every run. On a
# CPU with one thread they are equal bit for bit, in games too: each run's slice of a stacked tensor is rounded as if it were
# alone; the benchmarks have the price. With more threads, on a GPU, and in batches of one sample they are equal to
# rounding only; a run's file names the runs that it was trained beside.

# %%
several = [Run(m, s) for s in range(runs) for m in experiment.methods]
members = several[:runs]
together = train.train_group(experiment, members, source)
alone = [train.train_group(experiment, [r], source)[0] for r in members]
values = [np.stack([f["value"] for f in side]) for side in (together, alone)]
difference = np.abs(values[0] - values[1]).max()

# %% tags=["hide-input"]
claim(
    "stacked-runs-equal-the-same-alone",
    f"{runs} stacked runs equal the same runs alone: the largest of {values[0].size:,} differences is "
    f"{difference:.1g}.",
    difference == 0 if torch.get_num_threads() == 1 else np.allclose(*values, rtol=1e-4, atol=1e-5),
)

# %% [markdown]
# ### Files
#
# `dyniso.study.runner.run` does all of the above, and stores each run as one parquet file. A file appears whole or not at
# all, and its name ends in the digest.

# %%
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
frame = runner.run(experiment, "cpu", folder, progress=False)
files = sorted(folder.rglob("*.*"))
print(*(path.name for path in files), sep="\n")

# %% [markdown]
# What produced a run is inside its file:

# %%
facts = store.read_metadata(files[0])
rows = [(key, f"`{shorten(value, 60)}`") for key, value in facts.items()]
table(rows, "key", "value")

# %% [markdown]
# ### The second call
#
# Call it again, with a training function that refuses to train:

# %%
refusal = AssertionError("it trained")
with mock.patch.object(train, "train_group", side_effect=refusal):
    again = runner.run(experiment, "cpu", folder, progress=False)

# %% tags=["hide-input"]
claim("second-call-trains-nothing", "The second call trains nothing and returns the same rows.", again.equals(frame))

# %% [markdown]
# Then change one setting of one method. The other method's runs are found; only the changed ones are new.

# %%
changed = replace(experiment, methods=(replace(adam, lr=2e-3), adamo))
before = {path: path.stat().st_mtime_ns for path in files}
runner.run(changed, "cpu", folder, progress=False)
new = sorted(set(folder.rglob("*.*")) - set(files))
print(*(path.name for path in new), sep="\n")

# %% tags=["hide-input"]
claim(
    "another-rate-another-digest",
    f"Another learning rate is another digest, and {len(new)} more files; the {len(files)} old ones are untouched.",
    len(new) == len(experiment.seeds) and all(path.stat().st_mtime_ns == t for path, t in before.items()),
)

# %% [markdown]
# ### Figure and CSV
#
# `dyniso.report.figures.tasks_figure` takes rows and a spec, never a net, and returns the figure with the plotted points.
# `dyniso.report.notebook.show` writes those points to the CSV that the caption links to.

# %% tags=["hide-input"]
caption = (
    f"The tiny experiment: {experiment.stream.samples} images, {steps} steps a task, {experiment.net.depth} "
    f"layers of {experiment.net.width} units, {len(experiment.seeds)} seeds; shaded: 95 % bootstrap interval. It shows "
    "the way from spec to figure and says nothing about the methods."
)
alt = (
    "Two panels with two or three points a curve: online accuracy of Adam and of AdamO is near chance, and the "
    "largest singular value hardly leaves one."
)

# %%
metrics = ["online_accuracy", "sigma_max"]
fig, points = figures.tasks_figure(frame, experiment, metrics)
show(fig, points, name="fig-tiny-run", caption=caption, alt=alt)

# %% tags=["hide-input"]
csv = pd.read_csv(Path(os.environ.get("DYNISO_FIGURES") or "figures", "fig-tiny-run.csv"))
last = "metric == 'online_accuracy' and method == 'adam' and task == 1"
mean, plotted = frame.query(last)["value"].mean(), csv.query(last)["mean"].item()
claim(
    "csv-has-the-plotted-points",
    f"The CSV has the {len(csv)} plotted points; Adam's accuracy on the last task there is {plotted:.3f}, the mean "
    "of its rows.",
    np.isclose(mean, plotted),
)

# %% [markdown]
# ### Results that stay
#
# Single runs are working files. What the book shows of larger tiers is one compact table an experiment and tier,
# committed with the project: `dyniso run random_labels --tier check --compact` writes
# `data/results/random_labels-check.parquet`. Here with the results folder redirected:

# %%
with mock.patch.object(store, "results_folder", return_value=folder / "results"):
    store.compact(folder, experiment)
    kept = store.read_compact(experiment)
    try:
        refused = store.read_compact(changed)
    except store.UnusableError as error:
        refused = str(error)
print(refused)

# %% tags=["hide-input"]
claim(
    "compact-table-keeps-all-numbers",
    f"The compact table keeps all {len(kept):,} numbers.",
    sorted(kept["value"]) == sorted(frame["value"]),
)
claim(
    "table-of-other-settings-is-an-error",
    "A table of other settings is an error, never a figure.",
    isinstance(refused, str) and "adam" in refused,
)

# %% [markdown]
# ### What makes a run stale
#
# A run made by other training code is not reused. "Code" is what training really reaches by its imports, without comments
# and docstrings; of `dyniso.baselines` the classes of the run's own method alone. So we copy the package, change one file,
# and ask for the digests again:

# %%
METHODS = {"Adam": None, "ReDo": "redo", "continual backprop": "continual_backprop"}
CHANGES = {
    "a comment in the file of ReDo": ("baselines/units.py", "class ReDo(", "# a remark\nclass ReDo("),
    "ReDo itself": ("baselines/units.py", "<= self.threshold", "< self.threshold"),
    "the optimizer AdamO": ("optim.py", "import torch\n", "import torch\n\nCHANGED = True\n"),
    "a figure of the report": ("report/figures/__init__.py", 'INK = "', 'INK = "#000000" or "'),
}
rows, digests = [], {}
for what, (file, old, new) in {"nothing": ("optim.py", "", ""), **CHANGES}.items():
    package = Path(shutil.copytree(store.PACKAGE, folder / str(len(rows)) / "dyniso"))
    source_text = (package / file).read_text(encoding="utf-8")
    (package / file).write_text(source_text.replace(old, new, 1), encoding="utf-8")
    digests[what] = [digest_of_code(TRAINERS[False], name, False, package) for name in METHODS.values()]
    stale = [name for name, a, b in zip(METHODS, digests[what], digests["nothing"], strict=True) if a != b]
    rows.append((what, ", ".join(stale) or "none"))
table(rows[1:], "what changes", "runs that are trained again")

# %% tags=["hide-input"]
trained_again = dict(rows)
claim(
    "comments-retrain-nothing",
    "A comment retrains nothing, nor does a change of the report; a change of ReDo retrains ReDo alone, one of the "
    "optimizer all.",
    list(trained_again.values()) == ["none", "none", "ReDo", ", ".join(METHODS), "none"],
)

# %% [markdown]
# ## Where to add something
#
# Every name below is looked up when this page is built; one that does not exist would stop the build. How many files an
# addition takes is counted in `CONTRIBUTING.md` from commits.
#
# ### A method
#
# An arm made of known parts is one line: a `dyniso.study.specs.Method`. The command line, the figures and the tables of this
# book are generated from there. What acts beside an optimizer (a penalty in the loss, something after each step or at a
# task's boundary) is a frozen dataclass that inherits from `dyniso.baselines.Baseline` and says its name in its first line,
# `class ReDo(Baseline, name="redo")`:
#
# 1. Override `dyniso.baselines.Baseline.penalty`, `dyniso.baselines.Baseline.after_step` or
#    `dyniso.baselines.Baseline.new_task`. Whatever touches a weight acts on its last two axes, so that a stack's first
#    axis passes through; draws come from `dyniso.baselines.Attached.normal`, one generator a run. The table
#    `dyniso.baselines.CLASSES` fills itself, and specs read the names from the sources.
# 2. Export it in `dyniso/baselines/__init__.py`.
# 3. Test its published edge in `tests/test_baselines.py`; there each name is also held equal, stacked, to the run alone.
#
# A new optimizer is a `torch.optim.Optimizer` (or one that knows single nets only, in `dyniso.baselines.PerRun`) and a row
# in `dyniso.study.optimizers.OPTIMIZERS`; its settings are fields of `dyniso.study.specs.Method`, and `BUILT` in
# `tests/study/test_optimizers.py` holds it equal, stacked, to the same runs alone. A new field whose default is
# None or () leaves stored runs valid; with any other default all digests change, and stored tables have to be made again. A
# new activation is a class, a row of `dyniso.activations.ACTIVATIONS`, and of `dyniso.activations.ACTIVATION_TYPES`, where its
# units are measured.

# %% tags=["hide-input"]
try:
    refused = specs.Method("new", "New", optimizer="adamx")
except ValueError as error:
    refused = str(error)
claim(
    "unknown-optimizer-is-refused",
    f"A spec with an unknown optimizer is refused: {refused}",
    isinstance(refused, str) and "'adam'" in refused,
)


@dataclass(frozen=True)
class WithUnused(specs.Method):
    momentum: float | None = None  # not used


@dataclass(frozen=True)
class WithDefault(specs.Method):
    momentum: float = 0.0


longer, other = (kind(**asdict(adam)) for kind in (WithUnused, WithDefault))
claim(
    "unused-field-keeps-digests",
    "One more field of Method keeps the digest while it is None.",
    specs.digest(experiment, longer) == digest,
)
claim(
    "default-with-a-value-changes-digests",
    "With any other default it changes the digest.",
    specs.digest(experiment, other) != digest,
)

# %% [markdown]
# ### A stream
#
# 1. Write it as a function in `dyniso/study/streams.py`, and give it a row of `dyniso.study.streams.KINDS`. It returns a
#    `dyniso.study.streams.Task` of indices and labels, from `dyniso.study.streams.generator` with a purpose of its own, so that
#    no two draws share random numbers. The specs read the names of that table; there is no second list. Unless a net on it
#    has one output a class, its outputs go into `dyniso.study.streams.OUTPUTS`.
# 2. Put the digest of its bytes into `GOLDEN` in `tests/study/test_streams.py`. The tests there take every kind: any order
#    gives the same bytes, seeds and tasks differ, no global generator is touched.
# 3. Declare an experiment on it in `dyniso.study.specs.REGISTRY`, with the source of every value in
#    `dyniso.study.specs.Experiment.sources`.

# %% tags=["hide-input"]
for kind in specs.STREAM_KINDS:
    one = replace(experiment.stream, kind=kind, dataset=specs.BITS if kind == "slow_regression" else stream.dataset)
    a, b, c = (streams.make_task(one, seed, 1, images.y, pixels) for seed in (0, 0, 1))
    claim(
        f"same-seed-same-task-{kind.replace('_', '-')}",
        f"{kind}: same seed, same task; another seed, another task.",
        all(np.array_equal(x, y) for x, y in zip(a, b, strict=True) if x is not None)
        and not (np.array_equal(a.rows, c.rows) and np.array_equal(a.labels, c.labels)),
    )

# %% [markdown]
# ### Games
#
# Streams and games learn by one `dyniso.study.learner.Learner`; `dyniso.study.runner.make_engine` gives streams to
# `dyniso.study.train.StreamEngine` and sequences of games to `dyniso.study.rl.train.GameEngine`. Groups, checkpoints, shards and
# files are the same for both. What comes when is a function of (games, seed, visit), `dyniso.study.rl.sequence.visit`. JAX is
# imported when a game is first made, and comes with the extra `rl`.
#
# 1. A game of a suite that is there: its name goes into `dyniso.study.specs.reinforcement.SUITES`, and what makes it into
#    `dyniso.study.rl.games.minatar` or `dyniso.study.rl.games.octax`.
# 2. An arm is a line of `dyniso.study.specs.reinforcement.arms`; methods beside an optimizer are those of `dyniso.baselines`.
# 3. An experiment is a `dyniso.study.specs.GameExperiment` in `dyniso.study.specs.REINFORCEMENT`. Settings of PPO are fields of
#    `dyniso.study.specs.reinforcement.PPO`, for all arms alike.
# 4. Rows become numbers by `dyniso.report.results.Results`, curves by `dyniso.report.figures.cycles_figure`, verdicts by
#    `dyniso.report.claims`.
# 5. `tests/study/rl/test_envs.py` holds the games to the original engines, `tests/study/rl/test_train_games.py` a stacked run
#    to the run alone.
#
# ### An experiment, or a heavier tier of one
#
# 1. In `dyniso.study.specs.REGISTRY`, call `dyniso.study.specs.tiers` with the smallest spec and, for each of the heavier
#    `dyniso.study.specs.TIERS`, what it changes. `tests/study/test_specs.py` holds tiers to differ in scale only.
# 2. Train and store it: `dyniso run permuted_pixels --tier check --compact`. An interrupted run goes on where it stopped, and
#    rows of the table that still fit are kept: a new arm costs its own runs.
# 3. Commit the table with the code that made it, and look: `dyniso figure permuted_pixels --tier check`.
#
# ### A chapter
#
# 1. Write `notebooks/title.py`, in cells that begin with `# %%`. The cell tagged `parameters` has one `name = value  # ALLOWED:
#    help` a line.
# 2. Read stored rows with `dyniso.report.results.Results`, state facts with `dyniso.report.notebook.claim`, show figures with
#    `dyniso.report.notebook.show` (one a cell, with caption and text alternative), end with `dyniso.report.notebook.stamp`. An
#    observation has a name, which prose and `book/statements.toml` refer to. A helper of more than five lines belongs in the
#    library, with a test.
# 3. Put it in its place in `book/_toc.yml`. Nothing else lists the chapters.
# 4. Execute it with `tools/notebooks.py`, then `make book` and look at the page, at the width of a phone as well.
#    `make test` executes every cell again and checks every page.

# %% tags=["hide-input"]
claim(
    "every-experiment-has-every-tier",
    "Every registered experiment has every tier.",
    all(tuple(tiers) == specs.TIERS for tiers in specs.everything().values()),
)
call = [sys.executable, "tools/notebooks.py", "run", "notebooks/how_dyniso_is_built.py", "-p", "rums", "3"]
done = subprocess.run(call, cwd=root, capture_output=True, text=True)
claim(
    "misspelt-parameter-stops-at-once",
    f"A misspelt parameter stops before anything runs: {done.stderr.strip()}",
    done.returncode == 2 and "runs" in done.stderr,
)

# %% [markdown]
# Now the names themselves, of this page and of `CONTRIBUTING.md`: whatever stands in code type and is a name of the
# library, a file, a `make` target or a `dyniso` command is looked up.

# %% tags=["hide-input"]
pages = [root / "notebooks" / "how_dyniso_is_built.py", root / "CONTRIBUTING.md"]
text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
names = set(re.findall(r"`(dyniso(?:\.\w+)+)`", text))
files = set(re.findall(r"`((?:dyniso|tests|tools|book|data|benchmarks|notebooks)/\w[\w./]*)`", text))
made = {name for name in files if name.startswith("data/results/") or name == "notebooks/title.py"}  # patterns
commands = [shlex.split(c) for c in re.findall(r"`dyniso ((?:list|run|figure|doctor)[^`]*)`", text)]
tables = re.findall(r"`([A-Z]{4,})`\s(?:#\s)?in\s(?:#\s)?`(tests/[\w/]+\.py)`", text)
unknown = [name for name, file in tables if f"\n{name} =" not in (root / file).read_text(encoding="utf-8")]
unknown += [name for name in files - made if not (root / name).exists()]
targets = (root / "Makefile").read_text(encoding="utf-8")
unknown += [target for target in re.findall(r"`make (\w+)", text) if f"\n{target}:" not in targets]
found = [pkgutil.resolve_name(name) for name in names]
options = [cli.parse(command) for command in commands]

# %% tags=["hide-input"]
claim(
    "names-on-this-page-exist",
    f"{len(found)} names of the library and {len(files - made)} files exist; {len(options)} commands parse.",
    unknown == [] and tables != [] and all(cli.chosen(o) for o in options if o.name in ("run", "figure")),
)

# %% [markdown]
# ## What to conclude, and what not
#
# A plotted point is the mean of stored rows, and a row comes from one training function whose settings name its file.
# What comparisons rest on was executed above: paired draws, stacking that changes nothing, results
# that never meet other settings. So the curves are what the code computes. That the code computes what the paper
# means is another question; for that, read {doc}`AdamO <adamo>` and the tests against independent implementations.
#
# ## Try changing
#
# - `-p runs 16`: a larger stack. Does {prf:ref}`stacked-runs-equal-the-same-alone` still hold?
# - `-p steps 32`: longer training would amplify a rounding. Does it?
#
# ## Exercise
#
# Add an arm to the tiny experiment: AdamO at strength 0.1 that pulls at every fourth step only, and run it into the
# same folder. How many runs are trained, and do they share a stack with the others?
#
# :::{admonition} Solution
# :class: dropdown
#
# `isometry_every` is a setting, so the arm has a digest of its own and one new file a seed; the other runs are found.
# It also is in the key of `dyniso.study.runner.grouped`: the pull of a stack happens at one step for all, so the new arm
# gets its own stack. The cell below is the solution, executed.
# :::

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Solution, executed"}
lazy = replace(adamo, name="adamo_0.1_every_4", label="AdamO 0.1, every 4", isometry_every=4)
extended = replace(experiment, methods=(*experiment.methods, lazy))
with mock.patch.object(train, "train_group", wraps=train.train_group) as trained:
    runner.run(extended, "cpu", folder, progress=False)
trained_runs = [run for call in trained.call_args_list for run in call.args[1]]
claim(
    "only-the-new-arm-is-trained",
    "Only the new arm is trained, once a seed.",
    [run.method for run in trained_runs] == [lazy] * len(experiment.seeds),
)
everything = [Run(m, s) for m in extended.methods for s in extended.seeds]
claim(
    "new-arm-has-its-own-stack",
    "It does not share a stack with the others.",
    [len(g) for g in runner.grouped(everything)] == [len(group), len(experiment.seeds)],
)

# %% [markdown]
# ## What is next
#
# Change something. `CONTRIBUTING.md` has the set-up and the rules in short; `make test` says whether all of this
# still holds.

# %% tags=["hide-input"]
scratch.cleanup()
stamp(
    notebook="how_dyniso_is_built",
    parameters={"runs": runs, "steps": steps},
    specs={experiment.name: digest},
    seeds=experiment.seeds,
    wall_s=time.perf_counter() - started,
)
