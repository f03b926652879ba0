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
# # Waking dormant ReLUs
#
# **Question.** How can a penalty on weights bring back a unit that gets no gradient, when can it not, and is that why the
# method works?
#
# **Why it matters.** A ReLU that fires on no input receives no gradient: the task can never wake it. Networks that lose
# plasticity are full of such units. The paper presents waking them as a mechanism of its own.
#
# **In short.** The penalty turns and lengthens a dead row where the task cannot see it ({prf:ref}`dead-row-feels-only-the-penalty`), unless
# the bias forbids it ({prf:ref}`bias-decides-who-fires-again`). On a stream it does wake units, and waking alone keeps little plasticity
# ({prf:ref}`waking-alone-keeps-little`).

# %% tags=["parameters", "hide-input"]
seed = 0  # 0..1000000: of the layer and of its inputs
width = 128  # 64..256: units of the layer

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso.dormancy import dead_units, dormancy_score, row_flow
from dyniso.theory.flow import descended, matrix_flow
from dyniso.isometry import gram_deviation, gram_deviation_grad
from dyniso.polar import polar_factor
from dyniso.report import figures
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.report.results import Results
from dyniso.theory.revival import half_uncovered, scene, shrunk_and_perturbed, spectral_limit, steps_until, time_to
from dyniso.study import specs

started = time.perf_counter()
figures.use_style()
colours, dashes = figures.palette(8), figures.DASHES
generator = torch.Generator().manual_seed(seed)


def normal(*shape):
    """Standard normal draws of this page's seed, float64."""
    return torch.randn(*shape, generator=generator).double()


# %% [markdown]
# ## What the paper says
#
# > The regulariser reactivates dormant ReLUs; isometry-preserving methods reduce or reverse the growth of dormant units that
# > the baselines show {cite:p}`rosseau2026`.
#
# The equations of that section could not be read. The derivation below is ours.
#
# ## No gradient from the task
#
# A unit computes $\max(0, \langle w, h\rangle + b)$. Call it **dead** if $\langle w, h\rangle + b \le 0$ for every input $h$ of
# the layer, and **$\tau$-dormant** if its mean activation is at most $\tau$ times the layer's mean
# {cite:p}`sokar2023`. For a dead unit the derivative of the gate is zero on all inputs, so $\partial L/\partial w = 0$
# and $\partial L/\partial b = 0$ exactly. The penalty is a function of $W$ alone: it moves $w$, and never $b$.

# %%
layer, head = nn.Linear(8, 4).double(), nn.Linear(4, 2).double()
with torch.no_grad():
    layer.bias[1] = -100.0
h = normal(64, 8)
head(torch.relu(layer(h))).square().sum().backward()
task = float(layer.weight.grad[1].abs().max()), float(layer.bias.grad[1].abs())
pull = gram_deviation_grad(layer.weight.detach())[1]

# %% tags=["hide-input"]
alive = float(layer.weight.grad[0].abs().max())
claim(
    "dead-row-feels-only-the-penalty",
    f"The task's gradient of the dead unit is {task[0]:g} for w and {task[1]:g} for b; the penalty's for the same row has norm {float(pull.norm()):.2f}.",
    task == (0, 0) and alive > 0 and float(pull.norm()) > 0.1,
)
score, doubled = dormancy_score(h.abs()), dormancy_score(h.abs().repeat(1, 2))
gap = float((doubled[:8] - score).abs().max())
claim(
    "dormancy-does-not-depend-on-width",
    f"Activations over the layer's mean average {float(score.mean()):.3f} and sum to {float(score.sum()):.2f} for 8 units; twice as "
    f"many of the same leave each score as it is, to {gap:.0e}. So $\\tau$ does not depend on the width.",
    abs(float(score.mean()) - 1) < 1e-9 and gap < 1e-9,
)

# %% [markdown]
# ## How a row moves
#
# The gradient of eq. 16 is $4(WW^\top - I)W$. Its row for unit $i$, with $S = \sum_{j\ne i} w_j w_j^\top$ over the other
# rows and $s$ = learning rate $\times$ strength $\times$ steps, gives the flow
#
# $$\frac{dw}{ds} = -4\,\big[(\lVert w\rVert^2 - 1)\,I + S\big]\,w .$$
#
# The first term sets the norm to one; the second removes the overlap with every other row. While the others stand still,
# coordinates $c_k$ in the eigenbasis of $S$ (eigenvalues $s_k$) obey $\dot c_k = 4(1 - s_k - \lVert w\rVert^2)\,c_k$. Put
# $c_k = c_k(0)\,e^{4(1-s_k)s}/\sqrt{v(s)}$ with one common $v$: it solves the equation if $\dot v = 8\,v\lVert w\rVert^2 = 8\sum_j
# c_j(0)^2 e^{8(1-s_j)s}$, so
#
# $$c_k(s) = \frac{c_k(0)\,e^{4(1-s_k)s}}{\sqrt{1 + 8\sum_j c_j(0)^2\int_0^s e^{8(1-s_j)u}\,du}} .$$
#
# Relative weights change as $e^{-4 s_k s}$: directions that other units cover die out, uncovered ones survive.

# %%
W = normal(12, 16) / 3
w, S = W[0], W[1:].mT @ W[1:]
autograd_row = torch.func.grad(gram_deviation)(W)[0]
formula = 4 * ((w @ w - 1) * w + S @ w)
euler, step = w.clone(), 1e-5
for _ in range(50_000):
    euler -= 4 * step * ((euler @ euler - 1) * euler + S @ euler)
closed = row_flow(w, S, 0.5)

# %% tags=["hide-input"]
gap, miss = float((autograd_row - formula).abs().max()), float((closed - euler).abs().max())
claim(
    "row-follows-its-closed-form",
    f"The row of autograd's gradient is that of the formula, to {gap:.0e}; the closed form follows 50,000 Euler steps to $s = 0.5$, to {miss:.0e}.",
    gap < 1e-10 and miss < 1e-4,
)

# %% [markdown]
# ### Three limits
#
# - *Some direction is uncovered* ($S$ singular: a wide or square layer, or other rows of low rank). The row goes to its own
#   projection on the null space of the others, at unit norm.
# - *Every direction is covered, one by less than one* ($0 < s_{\min} < 1$): it ends at $\sqrt{1 - s_{\min}}$ along that one.
# - *The others are a tight frame already* ($S = I$: a tall layer). Then $\dot w = -4\lVert w\rVert^2 w$: the row decays to zero as
#   $\lVert w\rVert = \lVert w_0\rVert/\sqrt{1 + 8\lVert w_0\rVert^2 s}$. It is not revived but shrunk away.

# %%
w = nn.functional.normalize(normal(16), dim=0)
V, Q = normal(6, 16), torch.linalg.qr(normal(16, 16)).Q
null = w - torch.linalg.lstsq(V.mT, w[:, None]).solution[:, 0] @ V
free = row_flow(w, V.mT @ V, 40.0)
under = row_flow(w, Q @ torch.diag(torch.linspace(0.3, 1.5, 16).double()) @ Q.mT, 40.0)
tight = row_flow(w, torch.eye(16), torch.tensor([1.0, 10.0, 20.0])).norm(dim=-1)

# %% tags=["hide-input"]
gap, overlap = float((free - null / null.norm()).abs().max()), float((under @ Q[:, 0]).abs() / under.norm())
formula = (1 + 8 * torch.tensor([1.0, 10.0, 20.0]).double()) ** -0.5
claim(
    "row-ends-in-one-of-three-limits",
    f"Uncovered direction: the limit is the normalised projection on the null space, to {gap:.0e}. Under-covered: norm {float(under.norm()):.4f}, "
    f"expected $\\sqrt{{1 - 0.3}} = {0.7**0.5:.4f}$; cosine with that direction {overlap:.4f}. Tight frame: norms "
    f"{', '.join(f'{float(n):.3f}' for n in tight)} at $s = 1, 10, 20$, by the formula {', '.join(f'{float(n):.3f}' for n in formula)}.",
    gap < 1e-5
    and abs(float(under.norm()) - 0.7**0.5) < 1e-3
    and overlap > 0.999
    and float((tight - formula).abs().max()) < 1e-9,
)

# %% tags=["hide-input"]
twins = descended(torch.cat([w[None], w[None], V]), 0.01, 20_000)
same, eps = float((twins[0] - twins[1]).abs().max()), twins.clone()
eps[0] += 1e-6 * normal(16)
eps = descended(eps, 0.01, 2000)
claim(
    "duplicates-and-zero-rows-stay",
    f"Exact duplicates stay duplicates (difference {same:.0e}); a disturbance of 1e-6 drives them apart, to a cosine of "
    f"{float(eps[0] @ eps[1] / eps[0].norm() / eps[1].norm()):.2f}. A row that is exactly zero stays zero.",
    same < 1e-3 and abs(float(eps[0] @ eps[1])) < 0.5 and float(row_flow(torch.zeros(16), V.mT @ V, 40.0).norm()) == 0,
)

# %% [markdown]
# ### Rows inside the span, and random rows
#
# - *A row in the span of orthonormal others* has no uncovered part. It is not stationary: on that span $S$ acts as $I$, so the row
#   shrinks as over a tight frame. In floating point it keeps a part outside the span, of the size of rounding, that grows as $e^{4s}$
#   and takes over in the end.
# - *A random row of a square layer of width $n$.* The $n-1$ orthonormal others leave one direction free. The ratio of the squared
#   uncovered part to the covered one grows as $e^{8s}$, from about $1/n$: half of the row is uncovered at $s\approx\frac18\ln n$, plus a
#   constant, as the squared part of a Gaussian row has a median below its mean.

# %%
later = torch.Generator().manual_seed(seed + 1)  # apart, so that nothing here changes the draws below
draw = lambda *shape: torch.randn(*shape, generator=later).double()  # noqa: E731
live = torch.linalg.qr(draw(16, 6)).Q.mT
spanned = row_flow(nn.functional.normalize(draw(6) @ live, dim=0), live.mT @ live, torch.tensor([1.0, 2.0, 20.0]))
turning = {n: half_uncovered(n, later) for n in (16, 64, 256)}

# %% tags=["hide-input"]
norms, expected = spanned.norm(dim=-1), [(1 + 8 * s) ** -0.5 for s in (1, 2)]
claim(
    "row-in-the-span-shrinks-first",
    f"In the span of six orthonormal rows: norms {norms[0]:.3f} and {norms[1]:.3f} at $s = 1$ and 2, by the formula {expected[0]:.3f} and "
    f"{expected[1]:.3f}. By $s = 20$ rounding has led it out, to norm {norms[2]:.3f}.",
    float((norms[:2] - torch.tensor(expected)).abs().max()) < 1e-6 and abs(float(norms[2]) - 1) < 1e-3,
)
slope = float(np.polyfit(np.log(list(turning)), list(turning.values()), 1)[0])
claim(
    "uncovering-takes-the-logarithm-of-the-width",
    f"A random row is half uncovered at $s$ = {', '.join(f'{s:.2f}' for s in turning.values())} for $n$ = "
    f"{', '.join(map(str, turning))} (medians of 1,000): {slope:.3f} for each unit of $\\ln n$, where 1/8 is expected.",
    abs(slope - 1 / 8) < 0.02,
)

# %% [markdown]
# ## When it fires again
#
# After the rotation $\lVert w\rVert = 1$, and the unit is alive if some input has $\langle w, h\rangle > -b$. The bias stays where
# it was when the unit died. If $-b > \max\lVert h\rVert$ no unit vector can do it: a hard floor. Networks without biases never
# meet it.
#
# A square layer with orthonormal rows, a third of which has been pushed along the negative mean of the (non-negative)
# inputs until it fires on none, under four frozen biases. All rows move; the flow of the whole layer is exact, because it
# only changes singular values.

# %%
play, BIASES = scene(width, generator), (0.0, -0.1, -0.3, -0.6)
inputs, start, dying = play
layers = {bias: play.killed(bias) for bias in BIASES}
remaining = lambda bias, s: play.dead(matrix_flow(layers[bias], s), bias)  # noqa: E731
times = [0.0, *np.geomspace(0.01, 4, 25)]
counts = pd.DataFrame([{"bias": b, "s": s, "dead": remaining(b, s)} for b in BIASES for s in times])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 3.4))
for i, (bias, part) in enumerate(counts.groupby("bias", sort=False)):
    ax.plot(part["s"].clip(lower=5e-3), part["dead"], color=colours[i], ls=dashes[i], label=f"bias {bias:g}")
ax.set(xscale="log", xlabel="s = learning rate × strength × steps", ylabel="dead units", ylim=(-1, dying + 3))
ax.legend(fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
show(
    fig,
    counts,
    name="fig-revival",
    caption=f"Dead units of a square layer of {width} under the flow of the Gram penalty, {dying} dead at the start, by the bias "
    f"they died with. 4,000 non-negative inputs of mean norm 1; one draw (seed {seed}).",
    alt="With bias 0 and -0.1 all dead units fire again early; with more negative biases some or all stay dead for ever.",
)

# %%
grid = torch.from_numpy(np.geomspace(0.005, 4, 400))
half = {bias: time_to(0.5, lambda s, b=bias: remaining(b, s), dying, grid) for bias in (0.0, -0.1)}
limit, floor = polar_factor(layers[0.0]), -1.001 * float(inputs.norm(dim=1).max())

# %% tags=["hide-input"]
claim(
    "bias-decides-who-fires-again",
    f"With bias 0, half of the {dying} dead units fire again at $s = {half[0.0]:.2f}$, with bias -0.1 at $s = {half[-0.1]:.2f}$; at "
    f"$s = 4$ there are {remaining(0.0, 4)} and {remaining(-0.1, 4)} left. With bias -0.6, {remaining(-0.6, 4)} of {dying} are dead for ever.",
    half[0.0] <= half[-0.1] < 1
    and remaining(0.0, 4) == 0
    and remaining(-0.1, 4) <= dying / 4
    and remaining(-0.6, 4) >= 0.9 * dying,
)
gap = float((matrix_flow(layers[0.0], 6.0) - limit).abs().max())
claim(
    "no-unit-row-passes-the-floor",
    f"With all rows moving, the limit is the polar factor of the layer, to {gap:.0e}. Below $-\\max\\lVert h\\rVert = {floor / 1.001:.2f}$ no weight "
    f"of norm one can fire: all {dying} stay dead at that limit.",
    gap < 1e-4 and play.dead(limit, floor) == dying,
)

# %% [markdown]
# There is a second way to fire again, without any rotation. A row that has collapsed along a good direction, orthogonal to the
# others, moves by the first term alone: $\lVert w\rVert^2 = 1/(1 + (a^{-2}-1)e^{-8s})$ from norm $a$, at first with rate 4. With a bias
# $b<0$ it fires once $\lVert w\rVert$ passes $\rho = -b/\max\langle w/\lVert w\rVert, h\rangle$, at
# $s = \frac18\ln\big((a^{-2}-1)/(\rho^{-2}-1)\big)$.

# %%
best = int((inputs @ start.mT).amax(0).argmax())  # the row of the healthy layer that fires most
rho, small, c = 0.1 / float((inputs @ start[best]).max()), 0.01, 2e-3
collapsed, norms = start.clone(), [small]
collapsed[best] *= small
while float((inputs @ collapsed[best]).max()) <= 0.1 and len(norms) < 5000:
    collapsed = descended(collapsed, c, 1)
    norms.append(float(collapsed[best].norm()))
by_formula = np.log((small**-2 - 1) / (rho**-2 - 1)) / 8 / c
growth = np.log(norms[10] / norms[0]) / (10 * c)

# %% tags=["hide-input"]
claim(
    "short-row-fires-when-it-is-long-enough",
    f"A row shrunk to {small}, bias -0.1: its norm grows at rate {growth:.2f} at first, and it fires after {len(norms) - 1} steps, "
    f"by the formula {by_formula:.0f}.",
    abs(growth / 4 - 1) < 0.02 and abs((len(norms) - 1) / by_formula - 1) < 0.03,
)

# %% [markdown]
# ## Which penalties revive, and which cannot
#
# The same layer under other methods, each to its own limit. Weight decay and norm projections multiply a row by a positive
# number, so the sign of $\langle w, h\rangle$ stays. The spectral penalty acts along the first singular pair only. L2-Init
# returns weights and biases to their start. ReDo draws anew. Muon's update of a row without gradient is zero.

# %%
fresh = nn.functional.normalize(normal(width, width), dim=1)
OUTCOMES = {  # the layer and its bias -> how many are dead
    "Gram penalty (limit)": lambda W, b: play.dead(polar_factor(W), b),
    "weight decay, to a tenth": lambda W, b: play.dead(0.1 * W, b),
    "norm of row or matrix kept": lambda W, b: play.dead(W * (width**0.5 / W.norm()), b),
    "spectral penalty": lambda W, b: play.dead(spectral_limit(W), b),
    "L2-Init (limit)": lambda W, b: play.dead(start, 0.0),
    "ReDo (fresh rows, bias 0)": lambda W, b: play.dead(fresh, 0.0),
    "none, or Muon without gradient": lambda W, b: play.dead(W, b),
}
outcome = {name: {b: f(W, b) for b, W in layers.items()} for name, f in OUTCOMES.items()}

# %% tags=["hide-input"]
show_table(
    [
        {f"dead of {dying}, by bias": name} | {f"{b:g}": str(n) for b, n in found.items()}
        for name, found in outcome.items()
    ]
)

# %% tags=["hide-input"]
rescaling = ("weight decay, to a tenth", "norm of row or matrix kept", "none, or Muon without gradient")
claim(
    "rescaling-wakes-none",
    f"Rescaling wakes none of the {dying}, whatever the bias.",
    all(n == dying for name in rescaling for n in outcome[name].values()),
)

# %% tags=["hide-input"]
spectral, gram = outcome["spectral penalty"], outcome["Gram penalty (limit)"]
claim(
    "spectral-penalty-wakes-a-shared-direction",
    f"The spectral penalty wakes some where death is a shared direction: {dying - spectral[0.0]} of {dying} at bias 0, none at bias "
    f"-0.6. In between it turns within a small range of biases: at -0.1 the Gram flow wakes {dying - gram[-0.1]} and the spectral penalty "
    f"{dying - spectral[-0.1]}, at -0.3 they wake {dying - gram[-0.3]} and {dying - spectral[-0.3]}.",
    spectral[0.0] < dying
    and spectral[-0.6] == dying
    and min(dying - gram[-0.1], dying - spectral[-0.1]) > 0.5 * dying
    and max(dying - gram[-0.3], dying - spectral[-0.3]) < 0.5 * dying,
)
claim(
    "l2-init-and-redo-wake-all",
    "L2-Init and ReDo wake all of them by going to weights and biases that fire, not by geometry.",
    all(n == 0 for name in ("L2-Init (limit)", "ReDo (fresh rows, bias 0)") for n in outcome[name].values()),
)

# %% [markdown]
# Three cases beside the table. *Shrink and perturb*, $w \leftarrow 0.999\,w + 0.01\,z$ after each step as in {doc}`earlier_methods`,
# moves dead rows too. A noise of many directions hardly has a part along the mean input. So it wakes a unit not by a push but when $0.999^k$
# has shrunk the old row and its bias below the noise.
#
# *A positive bias*: $\langle w, h\rangle + b$ is negative only as long as $w$ is large, so decay of $w$ wakes
# the unit if $b$ is kept, or decays more slowly; if both decay alike the sign stays.
#
# *LayerNorm before the gate* subtracts from each pre-activation the mean over the units. A shift that all units share is
# gone; most units that are pushed one by one stay dead. But a dead unit is not cut off there: mean and variance carry the
# gradient of the live units to its row. Only the norm's own offset gets none.

# %%
woken_by_noise = {}
for bias, W in layers.items():
    shaken = [shrunk_and_perturbed(W, steps, later) for steps in (500, 5000)]
    woken_by_noise[bias] = [dying - play.dead(noisy, left * bias) for noisy, left in shaken]

# %%
positive = play.killed(0.1)
decayed = {
    "kept": play.dead(0.1 * positive, 0.1),
    "decayed at half the rate": play.dead(0.1 * positive, 0.1 * 0.1**0.5),
}
decayed["decayed alike"] = play.dead(0.1 * positive, 0.1 * 0.1)

silent = lambda z: int(dead_units(z).sum())  # noqa: E731
norm = nn.LayerNorm(width).double()
pushed, alone = inputs @ (start + nn.functional.normalize(-inputs.mean(0), dim=0)).mT, inputs @ layers[0.0].mT
norm_4 = nn.LayerNorm(4).double()
with torch.no_grad():
    layer.bias[1], norm_4.bias[1] = 0.0, -100.0
layer.zero_grad()
head(torch.relu(norm_4(layer(h)))).square().sum().backward()

# %% tags=["hide-input"]
claim(
    "shrink-and-perturb-wakes-late",
    f"Shrink and perturb wakes {', '.join(str(n) for n, _ in woken_by_noise.values())} of {dying} in 500 steps and "
    f"{', '.join(str(n) for _, n in woken_by_noise.values())} in 5,000, at biases {', '.join(f'{b:g}' for b in BIASES)}.",
    all(few < dying / 4 and many > 0.9 * dying for few, many in woken_by_noise.values()),
)
claim(
    "decay-under-a-positive-bias-wakes",
    f"Bias 0.1, weights decayed to a tenth: of {dying} units {decayed['kept']} stay dead if the bias is kept, "
    f"{decayed['decayed at half the rate']} if it decays at half the rate, {decayed['decayed alike']} if it decays alike.",
    max(decayed["kept"], decayed["decayed at half the rate"]) < dying / 4 and decayed["decayed alike"] == dying,
)

# %% tags=["hide-input"]
claim(
    "layernorm-undoes-a-shared-shift",
    f"All rows pushed by the negative mean: {silent(pushed)} of {width} units are dead, {silent(norm(pushed))} with LayerNorm before the "
    f"gate. Of the {dying} pushed one by one, {silent(norm(alone))} stay dead behind it.",
    silent(pushed) > width / 2 and silent(norm(pushed)) == 0 and silent(norm(alone)) > dying / 4,
)
reached = float(layer.weight.grad[1].norm())
claim(
    "layernorm-leaves-dead-units-a-gradient",
    f"A unit that is dead behind LayerNorm gets a gradient: its row's has norm {reached:.1f}, the offset's is "
    f"{float(norm_4.bias.grad[1]):g}.",
    reached > 0.1 and float(norm_4.bias.grad[1]) == 0,
)

# %% [markdown]
# ## Coupled revives faster
#
# The flow's time is learning rate $\times$ strength $\times$ steps. Decoupled, that is what a dead row gets. Coupled, the penalty
# is the only gradient of a dead row, so Adam divides it by its own size: the row moves by about the learning rate each step,
# whatever the strength. Here the task is silent for the whole layer.

# %%
half_awake = lambda W: play.dead(W, 0.0) <= dying / 2  # noqa: E731
measured = steps_until(half_awake, layers[0.0], every=10, lr=1e-3, isometry_strength=2e-2)
predicted = half[0.0] / (1e-3 * 2e-2)
SETTINGS = {"paper, MLP": (1e-4, 1e-3), "ten times the rate": (1e-3, 1e-3), "strong": (1e-3, 1e-1)}
coupled = {
    name: steps_until(half_awake, layers[0.0], lr=lr, isometry_strength=strength, coupled=True)
    for name, (lr, strength) in SETTINGS.items()
}

# %% tags=["hide-input"]
show_table(
    [
        {
            "setting": name,
            "learning rate": f"{lr:g}",
            "strength": f"{strength:g}",
            "decoupled, from the flow": f"{half[0.0] / (lr * strength):,.0f} steps",
            "coupled, measured": f"{coupled[name]:,} steps",
        }
        for name, (lr, strength) in SETTINGS.items()
    ]
)

# %% tags=["hide-input"]
printed = [half[bias] / (1e-4 * 1e-3) for bias in (0.0, -0.1)]
claim(
    "decoupled-waking-takes-the-flows-time",
    f"The conversion from flow time holds: {measured:,} steps measured, {predicted:,.0f} predicted. At the printed setting, decoupled, half of "
    f"them fire after {printed[0]:,.0f} steps (bias 0) or {printed[1]:,.0f} (bias -0.1).",
    abs(measured / predicted - 1) < 0.15 and printed[0] > 5e4 and printed[1] > 1e5,
)
ratio = {name: half[0.0] / (lr * s) / coupled[name] for name, (lr, s) in SETTINGS.items()}
claim(
    "coupled-wakes-sooner",
    f"Coupled wakes half of them {min(ratio.values()):,.0f} to {max(ratio.values()):,.0f} times sooner, and a hundredfold strength changes its speed "
    f"little: {coupled['ten times the rate']} and {coupled['strong']} steps.",
    min(ratio.values()) > 2
    and max(ratio.values()) > 100
    and 0.3 < coupled["strong"] / coupled["ten times the rate"] < 3,
)

# %% [markdown]
# There Adam's second moment $v$ was zero at the start. A unit that was active before has a $v_0$ of the task's gradients, and
# $v \approx \beta_2^k v_0$ after $k$ silent steps. Adam takes full steps again when this has fallen below the squared gradient $p^2$ of
# the penalty, so the wait is
#
# $$k \approx \frac{2}{1-\beta_2}\,\ln\frac{\sqrt{v_0}}{p} ,$$
#
# a multiple of $1/(1-\beta_2)$ that grows with how much larger the task's gradients were.

# %%
waits = {}
for beta2 in (0.98, 0.99):
    options = dict(every=10, lr=1e-3, betas=(0.9, beta2), isometry_strength=0.1, coupled=True)
    waits[beta2] = [steps_until(half_awake, layers[0.0], past=past, **options) for past in (0.01, 10, 1000)]

# %% tags=["hide-input"]
slopes = {beta2: (counts[2] - counts[1]) / (2 * np.log(10)) * (1 - beta2) for beta2, counts in waits.items()}
claim(
    "coupled-waits-for-adam-to-forget",
    f"With past gradients of 0.01, 10 and 1000 it takes {', '.join(map(str, waits[0.98]))} steps at $\\beta_2 = 0.98$, "
    f"{', '.join(map(str, waits[0.99]))} at 0.99: from 10 on {slopes[0.98]:.2f} and {slopes[0.99]:.2f} times $1/(1 - \\beta_2)$ for each "
    "factor $e$, where 2 is expected.",
    all(abs(slope / 2 - 1) < 0.15 for slope in slopes.values()),
)

# %% [markdown]
# ## On a real stream
#
# Random labels, task after task, with ReLU networks. To see what revival is worth we clamp it: the pull of strength 0.1 acts
# on all rows, on live rows only, or on dead rows only (dead: silent for the last 50 steps).

# %%
results = Results.stored("dormancy")
experiment = results.experiment

# %% tags=["hide-input"]
fig, table = figures.tasks_figure(results.frame, experiment, ["dead", "reactivated", "dormant_0.1", "online_accuracy"])
show(
    fig,
    table,
    name="fig-dormant-over-tasks",
    caption=f"Dead, reactivated and dormant units (means over hidden layers) and accuracy over tasks of random labels: "
    f"{experiment.stream.samples} images, {experiment.stream.tasks} tasks of {experiment.steps_per_task} steps, "
    f"{experiment.net.depth} layers of {experiment.net.width}, {len(experiment.seeds)} seeds, 95 % bootstrap intervals. Measured "
    "after each task on its own images.",
    alt="Four panels over tasks. Half of the units die with Adam and almost none with AdamO at 0.1 or the coupled penalty; the "
    "pull on live rows only keeps more units and more accuracy than the pull on dead rows only.",
)

# %% tags=["hide-input"]
hidden = [f"hidden{k}" for k in range(1, experiment.net.depth + 1)]
show_table(
    [
        {"dead units after the last task": label}
        | {layer: f"{results.mean('dead', name, 'last', layer):.0%}" for layer in hidden}
        | {f"accuracy, last {results.fifth}": f"{results.mean('online_accuracy', name):.2f}"}
        for name, label in results.labels.items()
    ]
)

# %% tags=["hide-input"]
dead_end, accuracy = results.means("dead"), results.means("online_accuracy")
woken = results.means("reactivated", results.measured("reactivated"))
claim(
    "adamo-keeps-units-alive",
    f"The paper's finding is there: {dead_end['adam']:.0%} of the units are dead with Adam, {dead_end['adamo_0.1']:.0%} with AdamO "
    f"0.1 and {dead_end['adamo_coupled']:.0%} with the coupled penalty.",
    max(dead_end["adamo_0.1"], dead_end["adamo_coupled"]) < 0.2 * dead_end["adam"],
)
claim(
    "pull-on-dead-rows-wakes-them",
    f"Dead rows do wake: with the pull on dead rows only {dead_end['dead_rows_0.1']:.0%} are dead, and "
    f"{woken['dead_rows_0.1']:.1%} of all units reactivate from one task to the next (Adam {woken['adam']:.1%}).",
    dead_end["dead_rows_0.1"] < 0.75 * dead_end["adam"],
)

# %% tags=["hide-input"]
claim(
    "waking-alone-keeps-little",
    f"Waking alone keeps little plasticity: accuracy {accuracy['dead_rows_0.1']:.2f} with the pull on dead rows only (Adam "
    f"{accuracy['adam']:.2f}); on live rows only {accuracy['live_rows_0.1']:.2f}, on all {accuracy['adamo_0.1']:.2f}.",
    accuracy["adam"] + 0.03 < accuracy["dead_rows_0.1"] < accuracy["live_rows_0.1"] - 0.05
    and accuracy["live_rows_0.1"] < accuracy["adamo_0.1"] - 0.05,
)
claim(
    "few-dead-units-are-not-enough",
    f"Few dead units are not enough either: ReDo has {dead_end['redo']:.1%} dead and accuracy {accuracy['redo']:.2f}, AdamO 0.1 "
    f"{dead_end['adamo_0.1']:.1%} and {accuracy['adamo_0.1']:.2f}.",
    dead_end["redo"] < dead_end["adamo_0.1"] and accuracy["redo"] < accuracy["adamo_0.1"] - 0.1,
)

# %% tags=["hide-input"]
dead_on = results.means("dead", range(results.tasks("last")[0]))
most = {name: results.by_task("dead", name).max() for name in ("adam", "layernorm")}
awake = woken / dead_on
claim(
    "layernorm-prevents-and-revives",
    f"LayerNorm prevents, and revives as well: at most {most['layernorm']:.1%} are dead after any task, and of the dead "
    f"{awake['layernorm']:.0%} fire one task later; with Adam {awake['adam']:.0%}, with AdamO 0.1 {awake['adamo_0.1']:.0%}.",
    most["layernorm"] < 0.1 * most["adam"] and awake["layernorm"] > 2 * awake["adam"],
)

# %% [markdown]
# ## What to conclude, and what not
#
# - The mechanism is real and its mathematics simple: each row is pushed to unit norm and away from the others, whether or
#   not the task can see it.
# - It has limits: frozen negative biases, and tall layers whose other rows are a tight frame already. "Every dead unit is
#   revived" would be false.
# - In the paper's setting (learning rate 1e-4, strength 1e-3, decoupled) it is slow: the table above gives hundreds of times more
#   steps than in the loss.
# - On this stream the pull on *live* rows alone, which keeps units from dying and spectra from spreading, is worth more than
#   the pull on dead rows alone; but without waking the first hidden layer empties, and only both together hold the accuracy.
# - The penalty is not the only thing that wakes a unit without a jump: decay under a positive bias does, and LayerNorm leaves a
#   dead unit within reach of the task.
# - Not settled: which threshold the paper's figure uses; whether the order is the same at its scale.
#
# ## Try changing
#
# - `-p width 256`: more null space. Does the half-time change?
# - In the clamped experiment (`dyniso.study.specs.DORMANCY`), a longer window before a row counts as dead.
#
# ## Exercise
#
# A layer has more rows than columns, and its live rows satisfy $\sum_j w_j w_j^\top = I$. A dead row has norm 0.1. After which
# $s$ has the penalty halved it?
#
# ```{dropdown} Solution
# $\lVert w\rVert = 0.1/\sqrt{1 + 0.08\,s}$ is half of 0.1 when $0.08\,s = 3$, so $s = 37.5$. At learning rate 1e-3 and strength 0.1
# that is 375,000 steps: shrinking away is slow, but waking is impossible.
# ```
#
# **What is next.** {doc}`adamo`.

# %% tags=["hide-input"]
stamp(
    notebook="dormant_units",
    parameters={"seed": seed, "width": width},
    specs={m.name: specs.digest(experiment, m) for m in experiment.methods},
    seeds=experiment.seeds,
    hardware=results.hardware,
    wall_s=time.perf_counter() - started,
)
