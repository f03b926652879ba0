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
# # Losing plasticity, and keeping it
#
# **Question.** A network learns a task, then another, then another, all equally hard. Does it stay as good at learning as
# it was on the first? And if not, does keeping its layers close to isometries help?
#
# **Why it matters.** A system that learns for a long time meets data that keep changing. If gradient descent itself wears
# out, more data do not help: the only cure is to throw the network away.

# %% tags=["parameters", "remove-cell"]
tier = "smoke"  # smoke | check | paper: seconds, minutes on 2 cores, a GPU
seeds = 2  # 1..64: number of seeds, 0 to seeds - 1
device = "auto"  # auto | cpu | cuda

# %% tags=["remove-cell"]
import time

import pandas as pd

from dyniso import figures, specs, store, train
from dyniso.book import claim, show, stamp

started = time.perf_counter()
experiment = specs.with_seeds(specs.get("random_labels", tier), seeds)
stream, net = experiment.stream, experiment.net

# %% [markdown]
# ## What the paper says
#
# > Networks trained on a stream of tasks progressively lose the ability to learn. Keeping the singular values of every
# > layer's Jacobian close to one prevents it; a regulariser, and an optimizer that applies it apart from the task's
# > gradient (AdamO), do so.
#
# This is the argument of {cite:t}`rosseau2026` in our words. Loss of plasticity itself is well established
# {cite:p}`lyle2022,dohare2024,kumar2023`.

# %% [markdown]
# ## A task that cannot be solved by what was learned before
#
# Take a fixed set of real images and give each one a label drawn at random, uniformly and independently. There is nothing
# to generalise: the network can only memorise, as in {cite:t}`zhang2017`. When it has trained for a while, draw all labels
# afresh and go on. Every task is as hard as the first, by construction. So a network that does worse on task ten than on
# task one has not met a harder task; it has become a worse learner.
#
# Our measure is the **online accuracy**: predict each minibatch before learning from it, and average over the task,
#
# $$
# a_k = \frac{1}{T}\sum_{t=1}^{T} \frac{1}{B}\sum_{i=1}^{B} \mathbf{1}\big[\arg\max f_{\theta_{k,t}}(x_{i}) = y_{k,i}\big] .
# $$ (eq-online-accuracy)
#
# Guessing gives 0.1 here. Learning the task at once would give almost 1. Everything between is speed of learning.
#
# All methods start from the same orthogonal weights and see the same batches, seed by seed.

# %% tags=["remove-input"]
rows = [
    {
        "method": m.label,
        "activation": m.activation,
        "learning rate": f"{m.lr:g}",
        "isometry strength": f"{m.isometry_strength:g}" if m.isometry_strength else "none",
        "penalty": ("in the loss" if m.coupled else "decoupled") if m.isometry_strength else "",
    }
    for m in experiment.methods
]
pd.DataFrame(rows).style.hide(axis="index")

# %% [markdown]
# One library call trains whatever is not stored yet and returns one row a number.

# %%
frame = train.run(experiment, device=device)
f"{len(frame):,} numbers from {len(experiment.methods)} methods x {len(experiment.seeds)} seeds"

# %% tags=["remove-input"]
fig, table = figures.tasks_figure(frame, experiment, ["online_accuracy", "end_accuracy", "dormant_0.025", "sigma_max"])
show(
    fig,
    table,
    name="fig-losing-plasticity",
    caption=f"Random labels on {stream.samples:,} MNIST images, {stream.tasks} tasks of {experiment.steps_per_task} steps, "
    f"MLP of {net.depth} layers of {net.width} units. Mean over {len(experiment.seeds)} seeds; shaded: 95 % bootstrap "
    "interval of the mean (with so few seeds it is too narrow). Dormant units and singular values are averages over the "
    "hidden layers. Computed when this page was built.",
    alt="Four panels over tasks. Adam's online and final accuracy fall task by task while its dormant units and largest "
    "singular values grow; AdamO at strength 0.1 and both MaxMin networks hold their accuracy.",
)


# %% tags=["remove-cell"]
def value(metric, method, task):
    """Mean over seeds and hidden layers."""
    points = figures.over_tasks(frame, metric)
    return float(points[(points["method"] == method) & (points["task"] == task)]["mean"].iloc[0])


last = stream.tasks - 1
first_and_last = {m.name: (value("online_accuracy", m.name, 0), value("online_accuracy", m.name, last)) for m in experiment.methods}
dormant = {m.name: value("dormant_0.025", m.name, last) for m in experiment.methods}

# %% [markdown]
# ## What we see
#
# Each line below is checked when this page is built; a line that were untrue would stop the build.

# %% tags=["remove-input"]
a, b = first_and_last["adam"]
claim(f"1. Adam loses plasticity: online accuracy {a:.2f} on the first task, {b:.2f} on task {stream.tasks}.", b < 0.8 * a)

c, d = first_and_last["adamo"]
claim(f"2. AdamO at the printed strength 1e-3 hardly helps at this length: {c:.2f} to {d:.2f}.", d < 0.8 * c)

e, f = first_and_last["adamo_0.1"]
claim(f"3. AdamO at strength 0.1 keeps most of it: {e:.2f} to {f:.2f}.", f > 0.75 * e and f > b + 0.1)

g, h = first_and_last["adamo_coupled"]
claim(f"4. The same penalty in the loss needs a hundred times less strength: at 1e-3, {g:.2f} to {h:.2f}.", h > b + 0.1)

i, j = first_and_last["maxmin"]
claim(f"5. MaxMin with plain Adam, and no penalty at all, loses nothing: {i:.2f} to {j:.2f}.", j > 0.95 * i)

claim(
    f"6. Dormant ReLUs follow the loss: {dormant['adam']:.0%} with Adam at the end, {dormant['adamo_0.1']:.0%} with AdamO 0.1.",
    dormant["adam"] > 2 * dormant["adamo_0.1"],
)
s = value("sigma_max", "maxmin", last)
claim(f"7. That MaxMin network is not isometric: the largest singular values average {s:.2f}.", s > 1.4)

# %% [markdown]
# ## Where do the singular values go?

# %% tags=["remove-input"]
fig, table = figures.tasks_figure(frame, experiment, ["sigma_min", "sigma_mean", "isometry_defect", "effective_rank"])
show(
    fig,
    table,
    name="fig-spectra-over-tasks",
    caption="Singular values of the hidden weight matrices over the same tasks: smallest, mean, mean $(\\sigma^2-1)^2$ "
    f"and effective rank; averages over layers and {len(experiment.seeds)} seeds. Task 0 is the orthogonal initialisation.",
    alt="Four panels over tasks. Without a strong penalty the mean singular value and the isometry defect grow steadily; "
    "with strength 0.1 or the coupled penalty both level off early.",
)

# %% tags=["remove-input"]
defect = {m.name: value("isometry_defect", m.name, last) for m in experiment.methods}
claim(
    f"8. The defect mean (sigma^2 - 1)^2 ends at {defect['adam']:.2f} with Adam, {defect['adamo']:.2f} with AdamO 1e-3, "
    f"{defect['adamo_0.1']:.2f} with AdamO 0.1.",
    defect["adamo_0.1"] < 0.5 * defect["adam"] and defect["adamo_0.1"] < 0.5 * defect["adamo"],
)

# %% [markdown]
# ## The same at larger scales
#
# The page above is a small run. The same experiment, declared once and scaled up, was run before and its rows are stored
# with the project. Each figure names its machine and seeds below it.

# %% tags=["remove-input"]
stored = {t: specs.get("random_labels", t) for t in ("check", "paper") if store.compact_path(specs.get("random_labels", t)).exists()}
large = {t: store.read_compact(e) for t, e in stored.items()}


def scale(e, rows):
    """One caption for a stored figure."""
    return (
        f"Tier {e.tier}: {e.stream.samples:,} images, {e.stream.tasks} tasks of {e.steps_per_task} steps, batch {e.batch}, "
        f"{e.net.depth} layers of {e.net.width} units, {len(e.seeds)} seeds, 95 % bootstrap intervals. "
        f"Run on {store.hardware_of(rows)}, commit {', '.join(sorted(rows['commit'].unique()))}."
    )


fig, table = figures.tasks_figure(large["check"], stored["check"], ["online_accuracy", "dormant_0.025", "sigma_max", "sigma_min"])
show(
    fig,
    table,
    name="fig-plasticity-check",
    caption=scale(stored["check"], large["check"]),
    alt="The same comparison over 25 tasks with wider layers; see the numbered observations below for the finding.",
)

# %% tags=["remove-input"]
fig, table = figures.tasks_figure(large["paper"], stored["paper"], ["online_accuracy", "dormant_0.025", "sigma_max", "sigma_min"])
show(
    fig,
    table,
    name="fig-plasticity-paper",
    caption=scale(stored["paper"], large["paper"]),
    alt="The same comparison with the paper's network over 50 tasks; see the numbered observations below for the finding.",
)

# %% [markdown]
# PLACEHOLDER
