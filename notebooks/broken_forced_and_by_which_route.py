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
# # Broken, forced, and by which route
#
# **Question.** Break isometry and keep the function: is plasticity lost? Force isometry: is it kept? And through what
# do the surgeries of {doc}`is_isometry_the_cause` act?
#
# **Why it matters.** These are the two experiments that would settle the paper's claim by its own terms: isometry
# broken with plasticity kept, or forced with plasticity lost. The answer to the third question says what to watch.

# %% tags=["parameters", "hide-input"]
tier = "check"  # check or smoke: whose stored runs are read

# %% tags=["hide-input"]
import time

from dyniso.report import rivals
from dyniso.report.figures import causal as pictures
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.report.results import Results
from dyniso.study import specs
from dyniso.study.specs import rivals as predicted

started = time.perf_counter()
fresh, collapsed = Results.stored("gauge_fresh", tier), Results.stored("gauge_collapsed", tier)
constructed = Results.stored("constructed", tier)
forced = {name: Results.stored(f"forced_{name}", tier) for name in ("relu", "maxmin")}
ranks, methods = Results.stored("rank_or_kernel", tier), Results.stored("routes", tier)


def level(results, arm):
    return rivals.t_interval(rivals.outcome(results, arm)).mean


def gap(results, arm, other):
    return rivals.t_interval(rivals.outcome(results, arm) - rivals.outcome(results, other))


def seen(results, metric, arm):
    """A number before the outcome tasks, mean over layers and seeds."""
    return results.mean(metric, arm, rivals.outcome_tasks(results))


# %% [markdown]
# ## What the rivals predict
#
# | experiment | isometry | the rival |
# |:--|:--|:--|
# | one function, other weights (gauge) | the further from isometry, the less is learned | *function*: no difference |
# | isometric by construction, units that rarely switch | all alike, as every layer Jacobian is isometric | *gates*: the rarer, the worse |
# | singular values held at 1, higher rates | nothing is lost | *gates*: lost at high rates |
# | rank of features raised or lowered | as long as the weights are isometric, no difference | *rank*: lower rank, less learned |
#
# The thresholds are those of the last chapter.
#
# ## Broken: the same function from other weights
#
# ReLU lets positive scales of single units through, $\phi(Sz) = S\phi(z)$ {cite:p}`dinh2017`: $W_l \to S_l W_l S_{l-1}^{-1}$,
# $b_l \to S_l b_l$ gives the same outputs on every input, from other singular values and another kernel. We draw $\ln S$ from a normal
# law of growing width; on the collapsed trunk we also take the scales that bring the weights *nearest* to isometry. Each
# net then learns one task, with Adam, and with SGD at a rate in proportion to $1/\lambda_{\max}$ of its own kernel. Shirodkar et
# al. {cite:p}`shirodkar2026` build optimizers that do not see such scales.

# %%
widths = {d: f"normal_{d:g}" for d in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)}
lines = [
    (f"{where}, {name}", results, {d: f"{arm}_{optimizer}" for d, arm in widths.items()}, {"color": colour, "linestyle": dash})
    for where, results, dash in (("fresh", fresh, "-"), ("collapsed", collapsed, "--"))
    for name, optimizer, colour in (("Adam", "adam", pictures.BLUE), ("SGD", "sgd", pictures.ORANGE))
]
panels = [("online accuracy", None, lines), ("$P_{100}$ of the kernel", "before_P_100", lines[::2])]
fig, points = pictures.lines_figure(panels, r"standard deviation of $\ln S$")
