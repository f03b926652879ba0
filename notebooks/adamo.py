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
# # AdamO, the optimizer
#
# **Question.** What does it change to take the regulariser's pull out of Adam's gradient, and what is lost if the penalty is
# simply added to the loss?
#
# **Why it matters.** Decoupling is what makes AdamO a method of its own; the penalty was known before.
#
# **Finding.** Decoupled, the strength does not depend on the scale of the task's gradient
# ({prf:ref}`decoupled-ignores-gradient-scale`, {prf:ref}`coupled-depends-on-gradient-scale`). Each at its best strength, the
# two do not differ in accuracy ({prf:ref}`decoupled-no-better-than-coupled`).

# %% tags=["parameters", "hide-input"]
width = 64  # 32..512: size n of the square matrices in the experiments on this page
seed = 0  # 0..1000000: of every random draw on this page

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso.study import specs
from dyniso.study.trials.one_matrix import OneMatrix
from dyniso.report import figures
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.report.results import Results
from dyniso.report.figures.strength import strength_figure
from dyniso.isometry import gram_deviation_grad
from dyniso.polar import polar_factor
from dyniso.optim import AdamO, isometry_step
from dyniso.stats import with_interval

started = time.perf_counter()
figures.use_style()
colours, dashes = figures.palette(8), figures.DASHES

one = OneMatrix(width, seed)
normal = one.normal  # draws of this page's seed

# %% [markdown]
# ## What the paper says
#
# > The regulariser of a weight matrix $W$ ($d_l \times d_{l-1}$) is $\lVert W^\top W - I\rVert_F^2$ if
# > $d_l \ge d_{l-1}$, and $\lVert W W^\top - I\rVert_F^2$ otherwise (eq. 16). Adam's moments see the task gradient only
# > (eq. 19); the gradient of the regulariser is subtracted beside Adam's step, with strength $\lambda = 10^{-3}$ (eq. 20).
#
# That is the content of the paper's equations {cite:p}`rosseau2026`; the notation is ours. Written out, with $g_t$ the
# gradient of the task,
#
# $$
# m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2,
# $$ (eq-moments)
#
# $$
# \theta_{t+1} = \theta_t - \eta\,\frac{\hat m_t}{\sqrt{\hat v_t}+\epsilon}
#               - \eta_{\mathrm{iso}}\,\lambda\,\nabla_\theta \sum_l R(W_l)\Big|_{\theta_t}.
# $$ (eq-adamo)
#
# It stands to Adam {cite:p}`kingma2015` as decoupled weight decay does {cite:p}`loshchilov2019`. Another optimizer called
# AdamO, arXiv 2602.05136, has nothing to do with this one.

# %% [markdown]
# ## Decoupled against coupled
#
# The obvious alternative adds $\lambda R$ to the loss and lets Adam handle it, as Parseval regularisation does
# {cite:p}`chung2024`. With plain gradient descent the two are one. With Adam they differ, because Adam divides each
# coordinate by the root of its recent squared gradient:
#
# * the size of the pull then depends on the task's gradients, weight by weight;
# * the pull is no longer diagonal in W's singular vectors.
#
# Measure both. The task gradient here is white noise of a chosen scale: Adam's own step does not depend on that scale, so
# any difference is the penalty's.


# %% tags=["hide-input"]
arms = [
    ("decoupled, 0.1", 0.1, False),
    ("decoupled, 1", 1.0, False),
    ("coupled, 0.001", 1e-3, True),
    ("coupled, 0.01", 1e-2, True),
]
scales = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
defects = pd.DataFrame(
    [
        {"arm": name, "gradient_scale": s, "defect": one.after_noise(lam, joined, s)}
        for name, lam, joined in arms
        for s in scales
    ]
)
fig, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
for i, (name, rows) in enumerate(defects.groupby("arm", sort=False)):
    ax.plot(rows["gradient_scale"], rows["defect"], color=colours[i], linestyle=dashes[i], marker="o", label=name)
ax.set(xscale="log", yscale="log", xlabel="scale of the task gradient", ylabel=r"mean $(\sigma^2-1)^2$ after 600 steps")
ax.legend()
show(
    fig,
    defects,
    name="fig-coupled-decoupled",
    caption="A matrix with all singular values at 1.5 under a white-noise task gradient of different scales, 600 steps at "
    "learning rate $10^{-3}$. One draw of the noise, the same for all arms.",
    alt="The two decoupled arms are flat lines; the coupled arms rise by orders of magnitude as the task gradient grows.",
)

# %% tags=["hide-input"]
spread = {name: rows["defect"].max() / rows["defect"].min() for name, rows in defects.groupby("arm")}
claim(
    "decoupled-ignores-gradient-scale",
    f"Over four orders of magnitude of gradient scale the decoupled result changes by {spread['decoupled, 0.1'] - 1:.1%}.",
    spread["decoupled, 0.1"] < 1.05 and spread["decoupled, 1"] < 1.05,
)
claim(
    "coupled-depends-on-gradient-scale",
    f"The coupled result changes {spread['coupled, 0.001']:.0f}-fold: its strength is relative to the task's gradients.",
    spread["coupled, 0.001"] > 10,
)


# %%
decoupled, coupled = one.off_diagonal_share(False), one.off_diagonal_share(True)
claim(
    "coupled-turns-singular-vectors",
    f"Decoupled, {decoupled:.0%} of the penalty's step turns singular vectors; coupled, {coupled:.0%}.",
    coupled > 0.4 and decoupled < 0.01,
)

# %% [markdown]
# A third difference: coupled, the squared penalty gradient enters $v$. Adam's first moment is linear in the gradient, so the step is
# the sum of a task's part and a penalty's part, both over the same $\sqrt{\hat v}$; whatever raises $v$ lowers the task's part.


# %%
parts = {strength: one.task_part(strength) for strength in (1e-3, 1e-2, 1e-1)}

# %% tags=["hide-input"]
claim(
    "coupled-penalty-slows-the-task",
    f"Coupled at strength {', '.join(f'{s:g}' for s in parts)}, v is {', '.join(f'{v:.2f}' for v, _ in parts.values())} times as large "
    f"and the task's part of the step {', '.join(f'{part:.2f}' for _, part in parts.values())} of the decoupled one.",
    parts[1e-1][0] > 10 and parts[1e-1][1] < 0.5 and parts[1e-3][1] > parts[1e-2][1] > parts[1e-1][1],
)

# %% [markdown]
# None of this says which is *better*. Coupled has its own advantage: where the task's gradient is zero, as for a dead ReLU,
# Adam's normalisation makes even a tiny penalty move the weights at full speed. In the small experiment of
# {doc}`the first chapter <losing_plasticity>` the coupled penalty at $10^{-3}$ does about as well as the decoupled one at
# 0.1.

# %% [markdown]
# When the pull diverges, and why it need not be applied at every step, is derived in {doc}`the_regulariser`; how strong it
# must be in {doc}`strength_of_the_pull`.

# %% [markdown]
# ## What the update leaves alone
#
# Four facts follow from eqs. 19 and 20 and can be checked exactly: at strength 0 AdamO is Adam; Adam's moments do not depend on
# the strength; vectors are not pulled; and with plain gradient descent, which does not rescale coordinates, coupled and
# decoupled are the same step.


# %%
plain, zero, strong = (one.trained(strength) for strength in (None, 0.0, 0.1))

# %% tags=["hide-input"]
claim(
    "strength-zero-is-adam",
    "At strength 0 every bit is Adam's.",
    all(torch.equal(a, b) for a, b in zip(plain, zero, strict=True)),
)
claim(
    "pull-leaves-moments-and-bias-alone",
    "At strength 0.1 the weights differ, Adam's moments and the bias do not, by a single bit.",
    not torch.equal(plain[0], strong[0]) and all(torch.equal(a, b) for a, b in zip(plain[1:], strong[1:], strict=True)),
)
W, g, lr, lam = normal(width, width).double() / width**0.5, normal(width, width, salt=1).double(), 0.01, 0.1
coupled_sgd = W - lr * (g + lam * gram_deviation_grad(W))
decoupled_sgd = (W - lr * g) - isometry_step([W], lr * lam)[0]
gap = float((coupled_sgd - decoupled_sgd).abs().max())
claim(
    "coupled-is-decoupled-without-adam",
    f"With plain gradient descent coupled and decoupled agree to {gap:.0e}.",
    gap < 1e-12,
)

# %% [markdown]
# ### Where the pull is evaluated
#
# Eq. 20 takes it at the weights before Adam's step, the authors' code at those after. Adam's step has size $\eta$, so the pull
# $\eta\lambda\nabla R$ changes by $O(\eta^2\lambda)$.

# %%
rates = [1e-2, 3e-3, 1e-3, 3e-4]
differences = []
for lr in rates:
    start, g = 1.2 * polar_factor(normal(width, width).double()), normal(width, width, salt=1).double()
    before, after = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    before.grad, after.grad = g.clone(), g.clone()
    AdamO([before], lr=lr, isometry_strength=0.1).step()
    torch.optim.Adam([after], lr=lr).step()
    moved = after.detach() - isometry_step([after.detach()], lr * 0.1)[0]
    differences.append(float((before.detach() - moved).norm()))
order = float(np.polyfit(np.log(rates), np.log(differences), 1)[0])

# %% tags=["hide-input"]
claim(
    "evaluation-point-is-second-order",
    f"The two differ by a power {order:.2f} of the learning rate; 2 is expected.",
    1.8 < order < 2.2,
)

# %% [markdown]
# ### The pull's learning rate
#
# In eq. 20 the pull has a step size of its own, $\eta_{\mathrm{iso}}$. By default it is the learning rate, so a schedule scales both.
# Set apart, it enters only through the product $\eta_{\mathrm{iso}}\lambda$: tuning it beside $\lambda$ at a constant learning rate is
# tuning one number twice. What it does change is that the pull no longer follows the schedule.


# %%
follows, apart, renamed = one.pulls(None), one.pulls(1e-2), one.pulls(1e-1, strength=0.01)

# %% tags=["hide-input"]
shrunk = [float(second.norm() / first.norm()) for first, second in (follows, apart)]
claim(
    "pull-follows-the-schedule-or-not",
    f"A schedule that lowers the learning rate to a tenth leaves {shrunk[0]:.2f} of the pull, and {shrunk[1]:.2f} of one with its own "
    "learning rate.",
    abs(shrunk[0] - 0.1) < 1e-9 and abs(shrunk[1] - 1) < 1e-9,
)
gap = max(float((a - b).abs().max()) for a, b in zip(apart, renamed, strict=True))
claim(
    "pull-depends-on-rate-times-strength",
    f"Ten times that learning rate at a tenth of the strength is the same pull, to {gap:.0e}.",
    gap < 1e-15 < float(apart[0].abs().max()),
)

# %% [markdown]
# ### Weight decay
#
# Decoupled weight decay $w$ pulls every singular value down by $\eta w\sigma$. Where it balances the isometry pull,
# $4\lambda\sigma(\sigma^2-1) + w\sigma = 0$, so
#
# $$\sigma_*^2 = 1 - \frac{w}{4\lambda} ,$$
#
# and from $w \ge 4\lambda$ on the only balance is $\sigma = 0$: decay then wins. Gradient clipping acts on `p.grad`, which AdamO
# leaves as it is, so neither form of the penalty is ever clipped.


# %%
balances = {decay: one.balance(decay) for decay in (0.1, 0.3, 0.5)}

# %% tags=["hide-input"]
gaps = [float((balances[w] - (1 - w / 0.4) ** 0.5).abs().max()) for w in (0.1, 0.3)]
claim(
    "decay-and-pull-balance",
    f"With decay 0.1 and 0.3 at strength 0.1, all singular values settle at {float(balances[0.1][0]):.3f} and "
    f"{float(balances[0.3][0]):.3f}, where the balance is ({(1 - 0.25) ** 0.5:.3f}, {(1 - 0.75) ** 0.5:.3f}).",
    max(gaps) < 2e-3,
)
claim(
    "strong-decay-wins",
    f"With decay 0.5, above 4 lambda = 0.4, they vanish: {float(balances[0.5][0]):.0e}.",
    float(balances[0.5][0]) < 1e-3,
)

# %% [markdown]
# ## Each at its best
#
# Which is better, coupled or decoupled, can only be asked of each at its own best strength. A stored study on random labels
# runs both over four strengths each, and varies evaluation point and laziness.

# %% tags=["hide-input"]
study = Results.stored("strengths")
fig, sweep = strength_figure(study, ["decoupled", "coupled"])

# %% tags=["hide-input"]
e = study.experiment
show(
    fig,
    sweep,
    name="fig-strengths",
    caption=f"Accuracy while learning late tasks, by strength: points are seeds, lines means. {e.stream.samples} images with random "
    f"labels, {e.tasks} tasks of {e.steps_per_task} steps, {e.net.depth} ReLU layers of {e.net.width}, learning rate 1e-3, "
    f"{len(e.seeds)} seeds.",
    alt="Both curves rise over the whole range of strengths; the coupled one lies about two orders of magnitude to the left and "
    "both end at nearly the same accuracy.",
)

# %% tags=["hide-input"]
by_strength = sweep.groupby(["arm", "strength"])["accuracy"].mean()
best = {arm: by_strength[arm].idxmax() for arm in ("decoupled", "coupled")}
late = study.means("online_accuracy")
gain = study.gain("online_accuracy", f"decoupled_{best['decoupled']:g}", f"coupled_{best['coupled']:g}")
claim(
    "best-strengths-at-edge-of-grid",
    f"Best on the grid: decoupled {best['decoupled']:g}, coupled {best['coupled']:g}, both at the edge of the grid; more might be "
    "better still.",
    all(strength == by_strength[arm].index.max() for arm, strength in best.items()),
)
claim(
    "decoupled-no-better-than-coupled",
    f"At these, decoupled minus coupled is {with_interval(*gain, '+.3f')} in late accuracy: no difference that matters.",
    abs(gain[0]) < 0.05,
)
claim(
    "printed-strength-works-coupled-only",
    f"At the printed strength 1e-3 coupled gives {late['coupled_0.001']:.2f}, decoupled {late['decoupled_0.001']:.2f}, Adam "
    f"{late['adam']:.2f}.",
    late["coupled_0.001"] > late["decoupled_0.001"] + 0.1,
)
lazier = ("after_0.1", "lazy10_0.1", "lazy50_0.1")
others = [study.gain("online_accuracy", name, "decoupled_0.1") for name in lazier]
pulls = late["decoupled_0.1"] - late["adam"]
claim(
    "when-the-pull-acts-matters-little",
    f"The pull of 0.1 at every step gains {pulls:.2f} over Adam; when it acts is worth less than a fifth of that: "
    + "after Adam {}, every 10th step {}, every 50th {}, surely more.".format(
        *(with_interval(*other, "+.3f") for other in others)
    ),
    all(abs(difference) < pulls / 5 for difference, *_ in others) and others[-1][1] > 0,
)

# %% [markdown]
# ## Beside other tools
#
# The same stream with weight decay, gradient clipping (global norm 0.5), a cosine schedule within each task, and Muon in Adam's
# place.

# %% tags=["hide-input"]
tools = Results.stored("interactions")
t, d, dead = (tools.means(metric) for metric in ("online_accuracy", "isometry_defect", "dead"))
show_table(
    [
        {"method": label, "late accuracy": f"{t[m]:.2f}", "mean (σ²−1)²": f"{d[m]:.3g}", "dead units": f"{dead[m]:.0%}"}
        for m, label in tools.labels.items()
    ]
)

# %% tags=["hide-input"]
claim(
    "advantage-holds-beside-other-tools",
    f"AdamO at 0.1 keeps its advantage over Adam ({t['adamo_0.1']:.2f} against {t['adam']:.2f}) with L2 ({t['adamo_0.1_l2']:.2f}), "
    f"decay ({t['adamo_0.1_adamw']:.2f}; AdamW alone {t['adamw']:.2f}), clipping ({t['adamo_0.1_clip']:.2f}; Adam clipped "
    f"{t['adam_clip']:.2f}) and a schedule ({t['adamo_0.1_cosine']:.2f}; Adam {t['adam_cosine']:.2f}).",
    all(
        t[a] > t[b] + 0.15
        for a, b in (
            ("adamo_0.1", "adam"),
            ("adamo_0.1_l2", "adam"),
            ("adamo_0.1_adamw", "adamw"),
            ("adamo_0.1_clip", "adam_clip"),
            ("adamo_0.1_cosine", "adam_cosine"),
        )
    ),
)
claim(
    "pull-beside-muon-is-best",
    f"Muon alone lets the spectrum spread to a defect of {d['muon']:.0f} and reaches {t['muon']:.2f}; with the decoupled pull beside "
    f"it the defect is {d['muon_isometry']:.1f} and the accuracy {t['muon_isometry']:.2f}, the best of this table.",
    d["muon"] > 100 > 10 > d["muon_isometry"] and t["muon_isometry"] > t["muon"] and t["muon_isometry"] == t.max(),
)

# %% [markdown]
# ## What to conclude, and what not
#
# * Decoupling makes the strength independent of the task's gradient scale. It does not by itself make the method better.
# * At each one's best strength on our grid, coupled and decoupled reach the same accuracy. "Decoupling is better" is not borne
#   out on this stream; what it buys is a strength that can be computed beforehand.
# * How strong the pull must be is measured in {doc}`strength_of_the_pull`; the printed $10^{-3}$ is far below near-isometry.
#   Whether near-isometry is *needed* is another question: see {prf:ref}`maxmin-network-not-isometric` and {prf:ref}`plasticity-without-unit-singular-values` of
#   {doc}`the first chapter <losing_plasticity>`.
#
# **Where we differ from what is public.** The authors' own RL code takes half this gradient (factor 2) and applies the
# step after Adam's, at the updated weights; eq. 20 has it at the old ones, as here. The difference is of second order in the
# step size. Convolution kernels are reshaped to (out, in k k), which fixes only the mean square of the operator's spectrum.
#
# ## Try changing
#
# `width` to 256: which of the numbers above depend on it, and should they? `seed`: how much does the coupled step turn
# singular vectors for other gradients?
#
# ## Exercise
#
# You want decoupled weight decay 0.1 and all singular values at 0.9. Which strength?
#
# ```{dropdown} Solution
# The balance is $\sigma_*^2 = 1 - w/4\lambda = 0.81$, so $\lambda = 0.1/(4\cdot0.19) \approx 0.13$.
# ```
#
# **Next.** {doc}`in_your_own_code`: how to use it.

# %% tags=["hide-input"]
stamp(
    notebook="adamo",
    parameters={"width": width, "seed": seed},
    specs={
        r.experiment.name: specs.digest(r.experiment, r.experiment.method(arm))
        for r, arm in ((tools, "adamo_0.1"), (study, "decoupled_0.1"))
    },
    seeds=study.experiment.seeds,
    hardware=study.hardware,
    wall_s=time.perf_counter() - started,
)
