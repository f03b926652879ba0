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
#
# **Finding.** It does: the kernel before a task orders how well the task is learned, better than rank of features, dormant
# units, norms or sharpness do ({prf:ref}`kernel-orders-accuracy`, {prf:ref}`rivals-come-after`). How far the weights are from
# isometry predicts less ({prf:ref}`isometry-of-weights-predicts-less`).

# %% tags=["parameters", "hide-input"]
draws = 400  # 100..5000: bootstrap resamplings of runs
seed = 0  # 0..1000000: of the bootstrap

# %% tags=["hide-input"]
import time

import numpy as np

from dyniso.report.figures import predictors as predictor_figures
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.report.predictors import GUESSING, bars, correlation, explained, table
from dyniso.report.results import Results
from dyniso.study import specs

started = time.perf_counter()
results = Results.stored("predictors")
experiment = results.experiment

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
numbers = table(results)  # a row a run and task

# %% tags=["hide-input"]
show_table(
    [
        {
            "method": label,
            "P_100 before task 0": f"{results.mean('P_100', name, 'first'):.2f}",
            "before late tasks": f"{results.mean('P_100', name):.2f}",
            "online accuracy, task 0": f"{results.mean('online_accuracy', name, 'first'):.2f}",
            "late tasks": f"{results.mean('online_accuracy', name):.2f}",
        }
        for name, label in results.labels.items()
    ]
)

# %% [markdown]
# ## Kernel and learning, side by side

# %%
fig, points = predictor_figures.side_by_side(results, ["P_100", "online_accuracy"])

# %% tags=["hide-input"]
size = (
    f"{experiment.stream.samples} images, {experiment.stream.tasks} tasks of {experiment.steps_per_task} steps, "
    f"{experiment.net.depth} hidden layers of {experiment.net.width} units, {len(experiment.seeds)} seeds"
)
show(
    fig,
    points,
    name="fig-kernel-and-learning",
    caption=f"$P_{{100}}$ of the kernel before each task (above) and the online accuracy then reached (below). {size}; means.",
    alt="Two panels over tasks that look alike: the kernel's P_100 falls with plain Adam and weak AdamO, and so does the "
    "accuracy; both stay high for MaxMin networks and at a middle level for strong AdamO.",
)

# %% [markdown]
# ## How well does each number predict?
#
# Spearman's correlation asks only whether the order agrees. Over all tasks of all runs it mixes differences between
# methods with changes over time; ranked within each run, only changes over time are left.

# %%
found = bars(numbers, list(PREDICTORS), "online_accuracy", np.random.default_rng(seed), draws)
fig, points = predictor_figures.bars_figure(found, PREDICTORS)
fig.axes[0].set_xlabel("rank correlation with the task's online accuracy")

# %% tags=["hide-input"]
show(
    fig,
    points,
    name="fig-predictors",
    caption=f"Rank correlation of each number, measured before a task, with the online accuracy of that task. {size}, "
    f"{len(results.labels)} methods; lines: 95 % intervals over runs drawn again.",
    alt="P_100 of the kernel and its condition number correlate most strongly with the accuracy, above 0.85 in size; rank of "
    "features follows; the isometry defect and the norm of the parameters correlate least.",
)

# %% tags=["hide-input"]
pooled, within = (part.set_index("predictor")["rho"] for _, part in found.groupby("over"))
size_of = pooled.abs()
best = size_of.idxmax()
claim(
    "kernel-orders-accuracy",
    f"P_100 of the kernel orders the accuracy of the task to come: rank correlation {pooled['P_100']:.2f}, "
    f"as large as any number here (the largest is {size_of[best]:.2f}).",
    size_of["P_100"] > 0.8 and size_of["P_100"] > size_of[best] - 0.02,
)
rivals = ["feature_rank", "fixed_dormant", "weight_norm", "sharpness"]
listed = ", ".join(f"{p.replace('fixed_', '').replace('_', ' ')} {size_of[p]:.2f}" for p in rivals)
claim("rivals-come-after", f"The rivals come after it: {listed}.", max(size_of[p] for p in rivals) < size_of["P_100"])
claim(
    "condition-number-does-as-well",
    f"The condition number alone does as well ({size_of['kernel_condition']:.2f}), mean over largest eigenvalue a little "
    f"worse ({size_of['kernel_mean_over_max']:.2f}).",
    size_of["kernel_condition"] > size_of["P_100"] - 0.05 and size_of["kernel_mean_over_max"] > 0.7,
)
claim(
    "isometry-of-weights-predicts-less",
    f"How far the weights are from isometry is a weaker predictor: {size_of['isometry_defect']:.2f}.",
    size_of["isometry_defect"] < size_of["P_100"] - 0.1,
)
claim(
    "within-a-run-all-predict-less",
    f"Within one run, over its tasks, all are weaker: P_100 {within['P_100']:.2f}, rank of features "
    f"{within['feature_rank']:.2f}, dormant units {within['fixed_dormant']:.2f}.",
    within["P_100"] < pooled["P_100"] - 0.1,
)

# %% [markdown]
# ## The definition, taken literally
#
# The fraction of the *starting* loss that is removed is what the definition names. With cross-entropy that number is
# strange: a network that is sure of the old labels starts the new task with a loss far above that of guessing,
# $\ln 10 = 2.30$, and most of it vanishes as soon as it becomes unsure, before anything is learned.

# %% tags=["hide-input"]
start = numbers[numbers["task"] > 0]
claim(
    "later-tasks-start-above-guessing",
    f"Tasks after the first start at a median loss of {start['loss_start'].median():.2f}, that of guessing is {GUESSING:.2f}.",
    start["loss_start"].median() > 1.5 * GUESSING,
)
early_removed = 1 - start["loss_after_20"] / start["loss_start"]
early_learned = 1 - start["loss_after_20"] / GUESSING
claim(
    "loss-removed-before-anything-learned",
    f"After 20 steps the median run has removed {early_removed.median():.0%} of the starting loss and is "
    f"{-early_learned.median():.1%} above the loss of guessing: nothing has been learned.",
    early_removed.median() > 0.3 and early_learned.median() < 0.05,
)
literal = start.assign(early=early_removed)
a, b = (correlation(literal, p, "early") for p in ("loss_start", "P_100"))
claim(
    "early-fraction-follows-the-starting-loss",
    f"That early fraction follows the starting loss ({a:.2f}), not P_100 ({b:.2f}).",
    a > 0.6 and abs(b) < a - 0.2,
)
c, d = (correlation(numbers, "P_100", target) for target in ("removed", "learned"))
claim(
    "kernel-orders-both-after-100-steps",
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
FACTORS = {
    "features": ["gram_condition"],
    "backward": ["block_condition"],
    "both": ["gram_condition", "block_condition"],
}
GOALS = {"kernel_condition": "κ(Θ)", "P_100": "P_100", "online_accuracy": "online accuracy"}
share = {(name, goal): explained(numbers, columns, goal) for name, columns in FACTORS.items() for goal in GOALS}

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
    "backward-conditioning-adds-to-features",
    f"Backward conditioning is not idle once the features are known: it adds {gain:.2f} to the explained variance of the "
    f"accuracy ({share['features', 'online_accuracy']:.2f} with features alone).",
    gain > 0.1,
)
rank_and_kernel = [
    explained(numbers, columns, "online_accuracy") for columns in (["feature_rank"], ["feature_rank", "P_100"])
]
only_kernel = explained(numbers, ["P_100"], "online_accuracy")
claim(
    "kernel-knows-what-the-rank-knows",
    f"P_100 adds {rank_and_kernel[1] - rank_and_kernel[0]:.2f} to the rank of the features ({rank_and_kernel[0]:.2f}), the rank "
    f"adds {rank_and_kernel[1] - only_kernel:.2f} to P_100 ({only_kernel:.2f}): the kernel has most of what the rank knows.",
    rank_and_kernel[1] - rank_and_kernel[0] > rank_and_kernel[1] - only_kernel,
)
late = {metric: results.means(metric) for metric in ("P_100", "online_accuracy", "isometry_defect")}
x, y = ({metric: means[name] for metric, means in late.items()} for name in ("maxmin", "maxmin_adamo_0.1"))
claim(
    "good-kernel-without-isometric-weights",
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
wider = numbers.assign(weight_rank=results.wide([], before=["effective_rank"])["effective_rank"])
later = numbers["task"] > 0  # dormant units on the images of the task before: not before the first
own = results.wide([], tasks=range(1, experiment.tasks), before=["dormant_0.025"])["dormant_0.025"]
twice = numbers[later].assign(own_dormant=own.to_numpy())
first, late = results.means("P_100", "first"), results.means("P_100")

# %% tags=["hide-input"]
claim(
    "adam-leaves-the-region-of-the-start",
    f"With Adam training leaves the region of the start: P_100 is {first['adam']:.2f} before the first task and "
    f"{late['adam']:.2f} before late ones; with MaxMin {first['maxmin']:.2f} and {late['maxmin']:.2f}.",
    late["adam"] < first["adam"] - 0.2 and abs(late["maxmin"] - first["maxmin"]) < 0.05,
)
weight_rank = correlation(wider, "weight_rank", "online_accuracy")
with_defect = correlation(wider, "weight_rank", "isometry_defect")
claim(
    "weight-rank-follows-the-defect",
    f"The effective rank of the weights follows their defect ({with_defect:.2f}) and predicts no better: {weight_rank:.2f}.",
    abs(with_defect) > 0.8 and abs(weight_rank) < size_of["P_100"] - 0.1,
)
agree, more = correlation(twice, "fixed_dormant", "own_dormant"), twice["fixed_dormant"] - twice["own_dormant"]
claim(
    "dormant-on-fixed-and-own-images-agree",
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
    hardware=results.hardware,
    wall_s=time.perf_counter() - started,
)
