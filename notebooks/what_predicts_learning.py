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
# # What predicts learning
#
# **Question.** Just before a new task, does the tangent kernel tell how well the network will learn it, and does it tell
# more than simpler numbers do?
#
# **Why it matters.** {doc}`plasticity_and_the_kernel` derives plasticity from the kernel under
# assumptions: squared loss, a kernel that stands still, residuals without a preferred direction. None of them holds for
# Adam on cross-entropy. If the kernel still predicts what happens there, the theory has earned its place; if the number
# of dormant units does as well, it has not.

# %% tags=["parameters", "hide-input"]
draws = 400  # 100..5000: bootstrap resamplings of runs
seed = 0  # 0..1000000: of the bootstrap

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from dyniso.report import figures
from dyniso.study import specs, store
from dyniso.report.notebook import claim, show, show_table, stamp

started = time.perf_counter()
figures.use_style()
experiment = specs.get("predictors", "check")
rows = store.read_compact(experiment)
methods = [m.name for m in experiment.methods]
RUN = ["method", "seed"]

# %% [markdown]
# ## What the paper says
#
# > Plasticity is the fraction of what a new task offers that is achieved within a budget. For progress in all directions
# > of the outputs, what matters is the condition number of the empirical NTK and not its scale; loss of plasticity is
# > growing anisotropy of the kernel {cite:p}`rosseau2026`.
#
# The exact definition could not be read; ours is in {doc}`plasticity_and_the_kernel`. No measurement
# that sets the kernel beside the learning that follows, and beside other predictors, is known to us.
#
# ## The experiment
#
# Nine methods learn random labels of the same images, task after task. Before each task we stop and measure, on the same
# 64 images throughout: the kernel without its constant output (condition number, mean over largest eigenvalue, and
# $P_K$ of eq. 1 there for $K = 10$ and $100$ steps), the condition number of a sample's own $10 \times 10$ block, the Gram
# matrix and the effective rank of the last hidden features, the fraction of dormant units, the norm of all parameters; and
# on the new task itself the loss and the sharpness (largest Hessian eigenvalue, by 20 power iterations). Then the
# network trains, and we record what it achieves.

# %% tags=["hide-input"]
whole = rows[(rows["layer"] == "") & (rows["task"] >= 0)]
table = whole.pivot_table(index=[*RUN, "task"], columns="metric", values="value").reset_index()
weights = figures.hidden_layers(rows[rows["metric"] == "isometry_defect"])
defect = weights.groupby([*RUN, "task"])["value"].mean().rename("isometry_defect").reset_index()
table = table.merge(defect.assign(task=defect["task"] + 1), on=[*RUN, "task"])  # as the task before has left it
table["sharpness"] = table["sharpness"].abs()
guessing = np.log(10)
table["removed"] = 1 - table["loss_after_100"] / table["loss_start"]
table["learned"] = 1 - table["loss_after_100"] / guessing
PREDICTORS = {
    "P_100": "$P_{100}$ of the kernel",
    "P_10": "$P_{10}$ of the kernel",
    "kernel_mean_over_max": "mean/max eigenvalue",
    "kernel_condition": r"$\kappa(\Theta)$",
    "block_condition": r"$\kappa$ of one sample's block",
    "gram_condition": r"$\kappa$ of the feature Gram",
    "feature_rank": "rank of features",
    "sharpness": "sharpness",
    "fixed_dormant": "dormant units",
    "weight_norm": "norm of parameters",
    "isometry_defect": r"mean $(\sigma^2-1)^2$",
    "loss_start": "loss before the task",
}
TARGETS = {
    "removed": "fraction of the starting loss removed, 100 steps",
    "learned": "loss below guessing, 100 steps",
    "online_accuracy": "online accuracy of the task",
}


def correlation(frame, predictor, target):
    """Spearman's rank correlation."""
    return frame[[predictor, target]].rank().corr().iloc[0, 1]


def within_runs(frame):
    """Every column replaced by its rank within its run: what is left is change over tasks."""
    return frame.groupby(RUN)[[*PREDICTORS, *TARGETS]].rank()


# %% tags=["hide-input"]
first, late = table[table["task"] == 0], table[table["task"] >= experiment.stream.tasks - 3]
show_table(
    [
        {
            "method": m.label,
            "P_100 before task 0": f"{first[first['method'] == m.name]['P_100'].mean():.2f}",
            "before the last three": f"{late[late['method'] == m.name]['P_100'].mean():.2f}",
            "online accuracy, task 0": f"{first[first['method'] == m.name]['online_accuracy'].mean():.2f}",
            "last three": f"{late[late['method'] == m.name]['online_accuracy'].mean():.2f}",
        }
        for m in experiment.methods
    ]
)

# %% [markdown]
# ## Kernel and learning, side by side

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(5.2, 6.2), sharex=True)
plotted = table.groupby(["method", "task"])[["P_100", "online_accuracy"]].mean().reset_index()
colours = figures.palette(len(methods))
for i, m in enumerate(experiment.methods):
    line = plotted[plotted["method"] == m.name]
    for ax, column in zip(axes, ("P_100", "online_accuracy"), strict=True):
        ax.plot(line["task"], line[column], color=colours[i], ls=figures.DASHES[i % 6], label=m.label)
axes[0].set(ylabel="$P_{100}$ before the task", ylim=(0, 1.02))
axes[1].set(ylabel="online accuracy of the task", xlabel="task", ylim=(0, 1.02))
axes[0].legend(ncols=2, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
size = (
    f"{experiment.stream.samples} images, {experiment.stream.tasks} tasks of {experiment.steps_per_task} steps, "
    f"{experiment.net.depth} hidden layers of {experiment.net.width} units, {len(experiment.seeds)} seeds"
)
show(
    fig,
    plotted,
    name="fig-kernel-and-learning",
    caption=f"$P_{{100}}$ of the kernel before each task (above) and the online accuracy then reached (below). {size}; means.",
    alt="Two panels over tasks that look alike: the kernel's P_100 falls with plain Adam and weak AdamO, and so does the "
    "accuracy; both stay high for MaxMin networks and at a middle level for strong AdamO.",
)

# %% tags=["hide-input"]
generator = np.random.default_rng(seed)
runs = [group for _, group in table.groupby(RUN)]


def interval(predictor, target):
    """95 % interval of the correlation when whole runs are drawn again."""
    picks = generator.integers(len(runs), size=(draws, len(runs)))
    found = [correlation(pd.concat([runs[i] for i in pick]), predictor, target) for pick in picks]
    return np.percentile(found, [2.5, 97.5])


pooled = {(p, t): correlation(table, p, t) for p in PREDICTORS for t in TARGETS}
inside = within_runs(table)
within = {(p, t): correlation(inside, p, t) for p in PREDICTORS for t in TARGETS}
bars = pd.DataFrame(
    [
        {"predictor": p, "over": "all tasks of all runs", "rho": pooled[p, "online_accuracy"]}
        | dict(zip(("low", "high"), interval(p, "online_accuracy"), strict=True))
        for p in PREDICTORS
    ]
    + [{"predictor": p, "over": "tasks of one run", "rho": within[p, "online_accuracy"]} for p in PREDICTORS]
)

# %% [markdown]
# ## How well does each number predict?
#
# Spearman's correlation asks only whether the order agrees. Over all tasks of all runs it mixes differences between
# methods with changes over time; ranked within each run, only changes over time are left.

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 4.8))
order = {p: i for i, p in enumerate(sorted(PREDICTORS, key=lambda p: abs(pooled[p, "online_accuracy"])))}
for offset, (over, part) in enumerate(bars.groupby("over")):
    y = part["predictor"].map(order) + (0.15 if offset == 0 else -0.15)
    ax.plot(part["rho"], y, "os"[offset], color=colours[offset], label=over)
    ax.hlines(y, part["low"].fillna(part["rho"]), part["high"].fillna(part["rho"]), color=colours[offset])
ax.axvline(0, color=figures.INK, lw=0.8)
ax.set(
    yticks=list(order.values()), yticklabels=[PREDICTORS[p] for p in order], xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1)
)
ax.set_xlabel("rank correlation with the task's online accuracy")
ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
show(
    fig,
    bars,
    name="fig-predictors",
    caption=f"Rank correlation of each number, measured before a task, with the online accuracy of that task. {size}, "
    f"{len(methods)} methods; lines: 95 % intervals over runs drawn again.",
    alt="P_100 of the kernel and its condition number correlate most strongly with the accuracy, above 0.85 in size; rank of "
    "features follows; the isometry defect and the norm of the parameters correlate least.",
)

# %% tags=["hide-input"]
size_of = {p: abs(pooled[p, "online_accuracy"]) for p in PREDICTORS}
best = max(size_of, key=size_of.get)
claim(
    "p-100-kernel-orders",
    f"P_100 of the kernel orders the accuracy of the task to come: rank correlation {pooled['P_100', 'online_accuracy']:.2f}, "
    f"as large as any number here (the largest is {size_of[best]:.2f}).",
    size_of["P_100"] > 0.8 and size_of["P_100"] > size_of[best] - 0.02,
)
rivals = ["feature_rank", "fixed_dormant", "weight_norm", "sharpness"]
listed = ", ".join(f"{p.replace('fixed_', '').replace('_', ' ')} {size_of[p]:.2f}" for p in rivals)
claim("rivals-come-after", f"The rivals come after it: {listed}.", max(size_of[p] for p in rivals) < size_of["P_100"])
claim(
    "condition-number-alone-well",
    f"The condition number alone does as well ({size_of['kernel_condition']:.2f}), mean over largest eigenvalue a little "
    f"worse ({size_of['kernel_mean_over_max']:.2f}).",
    size_of["kernel_condition"] > size_of["P_100"] - 0.05 and size_of["kernel_mean_over_max"] > 0.7,
)
claim(
    "how-far-weights-isometry",
    f"How far the weights are from isometry is a weaker predictor: {size_of['isometry_defect']:.2f}.",
    size_of["isometry_defect"] < size_of["P_100"] - 0.1,
)
claim(
    "within-one-run-tasks",
    f"Within one run, over its tasks, all are weaker: P_100 {within['P_100', 'online_accuracy']:.2f}, rank of features "
    f"{within['feature_rank', 'online_accuracy']:.2f}, dormant units {within['fixed_dormant', 'online_accuracy']:.2f}.",
    within["P_100", "online_accuracy"] < pooled["P_100", "online_accuracy"] - 0.1,
)

# %% [markdown]
# ## The definition, taken literally
#
# The fraction of the *starting* loss that is removed is what the definition names. With cross-entropy that number is
# strange: a network that is sure of the old labels starts the new task with a loss far above that of guessing,
# $\ln 10 = 2.30$, and most of it vanishes as soon as it becomes unsure, before anything is learned.

# %% tags=["hide-input"]
start = table[table["task"] > 0]
claim(
    "tasks-after-first-start",
    f"Tasks after the first start at a median loss of {start['loss_start'].median():.2f}, that of guessing is {guessing:.2f}.",
    start["loss_start"].median() > 1.5 * guessing,
)
early_removed = 1 - start["loss_after_20"] / start["loss_start"]
early_learned = 1 - start["loss_after_20"] / guessing
claim(
    "after-20-steps-median",
    f"After 20 steps the median run has removed {early_removed.median():.0%} of the starting loss and is "
    f"{-early_learned.median():.1%} above the loss of guessing: nothing has been learned.",
    early_removed.median() > 0.3 and early_learned.median() < 0.05,
)
literal = start.assign(early=early_removed)
a, b = (correlation(literal, p, "early") for p in ("loss_start", "P_100"))
claim(
    "early-fraction-follows-starting",
    f"That early fraction follows the starting loss ({a:.2f}), not P_100 ({b:.2f}).",
    a > 0.6 and abs(b) < a - 0.2,
)
c, d = pooled["P_100", "removed"], pooled["P_100", "learned"]
claim(
    "after-100-steps-p",
    f"After 100 steps P_100 orders both: starting loss removed {c:.2f}, loss below guessing {d:.2f}.",
    min(c, d) > 0.6,
)

# %% [markdown]
# So we take the loss below guessing, or the accuracy while learning, as what a task offers.
#
# ## Features or backward maps?
#
# {prf:ref}`thm-many-samples` bounds $\kappa(\Theta)$ by a product: conditioning of the feature Grams
# $K_l$, times that of the backward maps $B_l$, and isometry acts on the second only. The sceptical reading is that the
# features do all the work. A least-squares fit on ranks tells how much each factor adds.


# %% tags=["hide-input"]
def explained(frame, predictors, target):
    """R^2 of a linear fit on ranks."""
    ranks = frame[[*predictors, target]].rank()
    X = np.column_stack([ranks[list(predictors)], np.ones(len(ranks))])
    residual = ranks[target] - X @ np.linalg.lstsq(X, ranks[target], rcond=None)[0]
    return float(1 - residual.var() / ranks[target].var())


FACTORS = {
    "features": ["gram_condition"],
    "backward": ["block_condition"],
    "both": ["gram_condition", "block_condition"],
}
GOALS = {"kernel_condition": "κ(Θ)", "P_100": "P_100", "online_accuracy": "online accuracy"}
share = {(name, goal): explained(table, columns, goal) for name, columns in FACTORS.items() for goal in GOALS}

# %% tags=["hide-input"]
show_table(
    [
        {"explained variance of ranks": label} | {name: f"{share[name, goal]:.2f}" for name in FACTORS}
        for goal, label in GOALS.items()
    ]
)

# %% tags=["hide-input"]
gain = share["both", "online_accuracy"] - share["features", "online_accuracy"]
claim(
    "backward-conditioning-not-idle",
    f"Backward conditioning is not idle once the features are known: it adds {gain:.2f} to the explained variance of the "
    f"accuracy ({share['features', 'online_accuracy']:.2f} with features alone).",
    gain > 0.1,
)
rank_and_kernel = [
    explained(table, columns, "online_accuracy") for columns in (["feature_rank"], ["feature_rank", "P_100"])
]
only_kernel = explained(table, ["P_100"], "online_accuracy")
claim(
    "p-100-adds-rank",
    f"P_100 adds {rank_and_kernel[1] - rank_and_kernel[0]:.2f} to the rank of the features ({rank_and_kernel[0]:.2f}), the rank "
    f"adds {rank_and_kernel[1] - only_kernel:.2f} to P_100 ({only_kernel:.2f}): the kernel has most of what the rank knows.",
    rank_and_kernel[1] - rank_and_kernel[0] > rank_and_kernel[1] - only_kernel,
)
nets = late.groupby("method")[["P_100", "online_accuracy", "isometry_defect"]].mean()
x, y = nets.loc["maxmin"], nets.loc["maxmin_adamo_0.1"]
claim(
    "isometry-weights-not-needed",
    f"Isometry of the weights is not needed for a good kernel: MaxMin with Adam has a defect of {x['isometry_defect']:.2f}, with "
    f"AdamO {y['isometry_defect']:.2f}; P_100 is {x['P_100']:.2f} and {y['P_100']:.2f}, accuracy {x['online_accuracy']:.2f} and "
    f"{y['online_accuracy']:.2f}.",
    x["isometry_defect"] > 3 * y["isometry_defect"] and abs(x["online_accuracy"] - y["online_accuracy"]) < 0.05,
)

# %% [markdown]
# ## Three more readings of the same rows
#
# All runs start alike: orthogonal weights, and a kernel that lets descent learn. What training makes of it depends on the method.
# The effective rank of the weights, the exponential of the entropy of $\sigma/\sum\sigma$, is another summary of their spectrum.
# And dormant units are counted twice: on the fixed images before a task, and on all images of the task before, after it.

# %% tags=["hide-input"]
ranks = figures.hidden_layers(rows[rows["metric"] == "effective_rank"])
ranks = ranks.groupby([*RUN, "task"])["value"].mean().rename("weight_rank").reset_index()
own = rows[(rows["metric"] == "dormant_0.025") & rows["layer"].str.startswith("hidden")]
own = own.groupby([*RUN, "task"])["value"].mean().rename("own_dormant").reset_index()
wider = table
for left in (ranks, own):  # as the task before has left it
    wider = wider.merge(left.assign(task=left["task"] + 1), on=[*RUN, "task"], how="left")
before = pd.DataFrame(
    {"first": first.groupby("method")["P_100"].mean(), "late": late.groupby("method")["P_100"].mean()}
)
change = before["late"] - before["first"]

# %% tags=["hide-input"]
claim(
    "adam-training-leaves-region",
    f"With Adam training leaves the region of the start: P_100 is {before['first']['adam']:.2f} before the first task and "
    f"{before['late']['adam']:.2f} before the last three; with MaxMin {before['first']['maxmin']:.2f} and {before['late']['maxmin']:.2f}.",
    change["adam"] < -0.2 and abs(change["maxmin"]) < 0.05,
)
weight_rank = correlation(wider, "weight_rank", "online_accuracy")
with_defect = correlation(wider, "weight_rank", "isometry_defect")
claim(
    "effective-rank-weights-follows",
    f"The effective rank of the weights follows their defect ({with_defect:.2f}) and predicts no better: {weight_rank:.2f}.",
    abs(with_defect) > 0.8 and abs(weight_rank) < size_of["P_100"] - 0.1,
)
twice = wider.dropna(subset=["own_dormant"])
agree, more = correlation(twice, "fixed_dormant", "own_dormant"), twice["fixed_dormant"] - twice["own_dormant"]
claim(
    "dormant-units-fixed-images",
    f"Dormant units on the fixed images and on a task's own agree ({agree:.2f}; {more.mean():+.1%} on average), as all tasks of this "
    "stream have the same images.",
    agree > 0.95 and abs(more.mean()) < 0.05,
)

# %% [markdown]
# ## What to conclude, and what not
#
# - The kernel before a task does tell how well the task will be learned, with Adam and cross-entropy, far outside the
#   assumptions of its derivation. It tells more than feature rank, dormant units, norms or sharpness.
# - What predicts is the kernel, not the isometry of the weights. Near-isometric weights are one way to a good kernel;
#   MaxMin without any penalty is another.
# - Correlation over nine methods on one stream is not causation. {doc}`The gauge experiment <plasticity_and_the_kernel>`
#   changes the kernel and nothing else, and there Adam hardly minds: part of what is seen here must be a common cause.
# - 64 fixed images of one small stream; other streams wait for the larger study.
#
# ## Try changing
#
# - `-p draws 2000` for smoother intervals.
# - `dyniso run predictors --tier check` with other methods in `dyniso.study.specs.PREDICTORS`: does the order hold?
#
# ## Exercise
#
# Sharpness is large exactly where learning is bad here. Edge-of-stability theory says that a *stable step* must shrink as
# sharpness grows. Why does Adam at a fixed learning rate not simply diverge?
#
# ```{dropdown} Solution
# Adam divides by the root mean square of past gradients, so its step in a sharp direction, where gradients are large, is
# small. What is compared with the learning rate is the sharpness of the preconditioned Hessian; that of the plain Hessian,
# measured here, may grow without harm to stability. It still says that few directions dominate, which is what
# mean/max of the kernel says.
# ```
#
# **What is next.** {doc}`AdamO <adamo>`, and {doc}`every earlier method <earlier_methods>` through the same
# instruments.

# %% tags=["hide-input"]
stamp(
    notebook="what_predicts_learning",
    parameters={"draws": draws, "seed": seed},
    specs={m.name: specs.digest(experiment, m) for m in experiment.methods},
    seeds=experiment.seeds,
    hardware=store.hardware_of(rows),
    wall_s=time.perf_counter() - started,
)
