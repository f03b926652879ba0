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
# # The regulariser
#
# **Question.** The method pulls every weight matrix towards an isometry. What exactly does this pull do to a matrix, where do its
# steps break, and what does it cost?
#
# **Why it matters.** The regulariser is one line of code with one number to choose. What it does can be computed beforehand, and so
# can the strength at which it diverges. How strong it has to be while a task pushes is another matter: {doc}`strength_of_the_pull`.
#
# **In short.** It moves singular values and nothing else ({prf:ref}`adamo-follows-the-flow`), ends at the nearest isometry
# ({prf:ref}`polar-factor-is-nearest`), breaks at lines that can be drawn ({prf:ref}`three-lines-decide`), and costs two matrix products
# ({prf:ref}`cost-ratio-is-2m-over-3b`).

# %% tags=["parameters", "hide-input"]
width = 64  # 32..256: size n of the square matrices
seed = 0  # 0..1000000: of every random draw on this page

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch import nn

from dyniso.theory.conventions import CONVENTIONS, measure
from dyniso.theory.costs import allocated, flops, gram_deviation_grad_in_blocks, step_over_passes
from dyniso.theory.flow import FATES, divergence_limit, fate, flow, half_life, predicted_fate, pulled, stepped
from dyniso.isometry import gram_deviation_grad, singular_values
from dyniso.optim import AdamO, isometry_groups, isometry_step
from dyniso.polar import newton_schulz, polar_factor, scale_below_one
from dyniso.report import figures
from dyniso.report.notebook import claim, show, show_table, stamp

started = time.perf_counter()
figures.use_style()
colours, dashes = figures.palette(8), figures.DASHES


def normal(*shape, salt=0):
    """Standard normal draws of this page's seed, in float64."""
    generator = torch.Generator().manual_seed(1000 * seed + salt)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# %% [markdown]
# ## What the paper says
#
# > The regulariser of a weight matrix $W_l$ ($d_l \times d_{l-1}$) is $R(W_l) = \lVert W_l^\top W_l - I\rVert_F^2$ if
# > $d_l \ge d_{l-1}$, and $\lVert W_l W_l^\top - I\rVert_F^2$ otherwise (eq. 16). The penalties of all weight matrices are
# > added; biases and other vectors have none. The printed strength is $\lambda = 10^{-3}$. The method is called efficient, and its aim
# > is near-isometry.
#
# This is the content of {cite:t}`rosseau2026` in our notation. In the accounts of it that we had, near-isometry has no
# tolerance, and no rule for $\lambda$ is given. Everything below is our own derivation and measurement.
#
# ## One penalty, two forms
#
# Write $W = U\,\mathrm{diag}(\sigma)\,V^\top$ with $m = \min(d_l, d_{l-1})$ singular values. $W^\top W$ has the
# eigenvalues $\sigma_i^2$, and $d_{l-1}-m$ zeros besides; $WW^\top$ has the same and $d_l-m$ zeros. So
#
# $$
# \lVert W^\top W - I\rVert_F^2 = \sum_{i=1}^m (\sigma_i^2-1)^2 + (d_{l-1}-m), \qquad
# \lVert WW^\top - I\rVert_F^2 = \sum_{i=1}^m (\sigma_i^2-1)^2 + (d_l-m) .
# $$ (eq-two-forms)
#
# The two differ by the constant $d_{l-1}-d_l$, hence have one gradient. From
# $\mathrm{d}\lVert W^\top W - I\rVert_F^2 = 4\,\langle W(W^\top W - I), \mathrm{d}W\rangle$ it is
#
# $$
# \nabla R(W) = 4\,W(W^\top W - I) = 4\,(WW^\top - I)\,W = U\,\mathrm{diag}\big(4\sigma(\sigma^2-1)\big)\,V^\top .
# $$ (eq-grad)
#
# So the case split of eq. 16 decides which Gram matrix is smaller to compute, and nothing else.

# %%
worst = dict.fromkeys(("forms", "constant", "autograd", "turning", "diagonal"), 0.0)
for rows, columns in [(width, width), (width + 16, width), (width, width + 16), (3 * width, 8)]:
    W = (normal(rows, columns) / rows**0.5).requires_grad_()
    tall = (W.T @ W - torch.eye(columns)).square().sum()
    wide = (W @ W.T - torch.eye(rows)).square().sum()
    grads = [torch.autograd.grad(form, W)[0] for form in (tall, wide)]
    closed, (U, sigma, Vh) = gram_deviation_grad(W.detach()), torch.linalg.svd(W.detach(), full_matrices=False)
    core = U.T @ closed @ Vh.T
    found = {"forms": grads[0] - grads[1], "autograd": closed - grads[0], "constant": tall - wide - (columns - rows)}
    found |= {"turning": core - core.diag().diag(), "diagonal": core.diag() - 4 * sigma * (sigma**2 - 1)}
    worst = {key: max(worst[key], float(found[key].detach().abs().max())) for key in worst}

# %% tags=["hide-input"]
claim(
    "two-forms-one-gradient",
    f"Tall, wide and square: the two forms have the same gradient, to {worst['forms']:.0e}; their values differ by "
    f"$d_{{l-1}} - d_l$, to {worst['constant']:.0e}.",
    worst["forms"] < 1e-9 and worst["constant"] < 1e-8,
)
claim(
    "gradient-is-diagonal",
    f"The closed form is autograd's, to {worst['autograd']:.0e}; in the singular vectors of $W$ it is "
    f"$\\mathrm{{diag}}(4\\sigma(\\sigma^2-1))$, to {max(worst['turning'], worst['diagonal']):.0e}.",
    worst["autograd"] < 1e-9 and max(worst["turning"], worst["diagonal"]) < 1e-9,
)

# %% [markdown]
# ## What other conventions would do
#
# The authors' public code, written before and after the paper, does not follow eq. 16 to the letter. Each variant has the
# form
#
# $$
# \text{gradient} = \frac{\gamma}{\mu}\, W\,(W^\top W - t\,I) ,
# $$ (eq-conventions)
#
# with a factor $\gamma$, a target $t$ for the squared singular values and a divisor $\mu$. On a singular value it acts by
# $\gamma\,\sigma(\sigma^2-t)/\mu$, which rests at $\sqrt t$. There its slope is $2\gamma t/\mu$: with $c=\eta\lambda$, small
# deviations shrink by the fraction $2\gamma t c/\mu$ a step, and steps are stable below $c = \mu/(\gamma t)$. Run each on a

# %%
found = {name: measure(convention, normal(96, 32) / 96**0.5) for name, convention in CONVENTIONS.items()}

# %% tags=["hide-input"]
show_table(
    [
        {
            "convention": name,
            "rests at sigma": f"{found[name].resting_value:.3f}",
            "relaxation a step / c": f"{found[name].relaxation:.3f}",
            "stable below c": f"{convention.limit:.3g}",
            "strength for eq. 16's pull": f"{8 / found[name].relaxation:.3g} times",
        }
        for name, convention in CONVENTIONS.items()
    ]
)

# %% tags=["hide-input"]
slack = max(
    max(abs(found[k].resting_value - v.resting_value), abs(found[k].relaxation / v.relaxation - 1))
    for k, v in CONVENTIONS.items()
)
claim(
    "conventions-rest-as-computed",
    f"Resting value and relaxation are as computed, to {slack:.1%}; 5 % below the limit every variant settles, 5 % above none does.",
    slack < 0.01 and all(values.settles and values.leaves for values in found.values()),
)
W = normal(width, 40)
half = 0.1 * 2 * W @ (W.T @ W - torch.eye(40)) - isometry_step([W], 0.05)[0]
claim(
    "factor-two-is-half-the-strength",
    f"Factor 2 at strength 0.1 is eq. 16 at 0.05: steps differ by {half.abs().max():.0e}.",
    half.abs().max() < 1e-9,
)

# %% [markdown]
# The factor and the divisor only rename the strength, though the divisor does it anew for every width. The targets change the
# limit. What they are for shows in the length of the signal:

# %%
x = normal(512, 32)
rms = lambda h: float(h.square().mean().sqrt())  # noqa: E731
Q = polar_factor(normal(96, 32, salt=1))
expanding = {t: rms(x @ (t**0.5 * Q).T) / rms(x) for t in (1, 3)}
stretch = {t: float(((x @ (t**0.5 * Q).T).norm(dim=1) / x.norm(dim=1)).mean()) for t in (1, 3)}

kept = {}
for t in (1, 2):
    h = normal(512, width, salt=2)
    for layer in range(4):
        h = torch.relu(h @ (t**0.5 * polar_factor(normal(width, width, salt=10 + layer))).T)
    kept[t] = float(h.square().sum() / normal(512, width, salt=2).square().sum())

# %% tags=["hide-input"]
claim(
    "target-one-keeps-lengths",
    f"A layer 32 to 96: target 1 keeps every length ({stretch[1]:.3f}) and shrinks the mean size of a coordinate to "
    f"{expanding[1]:.3f}; target $d_{{out}}/d_{{in}}$ keeps the coordinates ({expanding[3]:.3f}) and stretches every vector by {stretch[3]:.3f}.",
    abs(stretch[1] - 1) < 1e-9 and abs(expanding[3] - 1) < 1e-9 and abs(stretch[3] - 3**0.5) < 1e-9,
)
claim(
    "target-two-keeps-relu-scale",
    f"Four square ReLU layers keep {kept[1]:.3f} of the mean square of the signal with target 1, {kept[2]:.2f} with target 2: "
    "between the two lies a factor 2 a layer.",
    kept[1] < 0.2 and 0.5 < kept[2] < 3 and abs(kept[2] / kept[1] / 16 - 1) < 1e-6,
)

# %% [markdown]
# So target 2 keeps the scale of a ReLU network, at the price that no linear layer is an isometry, and target $d_{out}/d_{in}$
# keeps the scale of coordinates and gives up the scale of vectors. Neither changes a condition number: multiplying $W$ by
# a number changes no ratio of its singular values. A ReLU network that is initialised with gain $\sqrt2$ and then pulled to 1, as in
# the authors' RL code, starts with $R = m$, is pulled at once, and loses the scale it was given.
#
# **What is left out.** Biases are vectors and have no penalty; in the authors' RL code the arms with the regulariser have no
# biases at all, and convolution kernels are not regularised there. The output layer is left out by its name. With two heads
# that is a trap; `isometry_groups` finds both from the way that the model computes:


# %%
class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.actor(h), self.critic(h)


actor_critic, free = ActorCritic(), {}
for label, head in {"found": "exclude", "actor only": "actor", "both named": ["actor", "critic"]}.items():
    pulled_ids = {id(p) for p in isometry_groups(actor_critic, head=head)[0]["params"]}
    free[label] = [n for n, p in actor_critic.named_parameters() if id(p) not in pulled_ids and p.ndim == 2]

value_head = pulled(3 * nn.functional.normalize(normal(1, 16), dim=1), 400, lr=1e-2, isometry_strength=1.0)
vector = pulled(normal(16), 400, lr=1e-2, isometry_strength=1.0)

# %% tags=["hide-input"]
claim(
    "two-heads-are-a-trap",
    f"`isometry_groups` frees `{'`, `'.join(free['found'])}` by itself. With the actor "
    f"alone freed the critic is pulled: a value head then ends at norm {value_head.norm():.4f}, so values cannot exceed the norm of the features.",
    free["both named"] == ["actor.weight", "critic.weight"]
    and free["actor only"] == ["actor.weight"]
    and free["found"] == ["actor.weight", "critic.weight"]
    and abs(float(value_head.norm()) - 1) < 1e-3,
)
claim("vectors-are-not-touched", "A vector is not touched at strength 1, bit for bit.", torch.equal(vector, normal(16)))

# %% [markdown]
# ## The penalty moves singular values and nothing else
#
# By {eq}`eq-grad` each singular value moves alone. Take $s = \eta\lambda \cdot \text{steps}$ as time: $\sigma' = -4\sigma(\sigma^2-1)$.
# For $w = \sigma^{-2}$ this is linear, $w' = 8(1-w)$, so
#
# $$
# \sigma(s)^2 = \frac{1}{1 + (\sigma_0^{-2}-1)\,e^{-8s}} .
# $$ (eq-flow)
#
# Read off:
#
# * every non-zero $\sigma$ goes to 1, and $W$ to its **polar factor** $UV^\top$, since $U$ and $V$ stay;
# * small deviations decay as $e^{-8s}$: they halve in $\ln 2/(8\eta\lambda) = 0.087/(\eta\lambda)$ steps;
# * a small $\sigma$ grows only as $e^{4s}$, and an exact zero stays zero;
# * a large one meets a wall, $\sigma' \approx -4\sigma^3$: from *any* start, $\sigma(s)^2 < 1/(1-e^{-8s})$.
#
# Let {py:class}`AdamO <dyniso.AdamO>` do it, with no task, from singular values prescribed between 0 and 4.

# %%
start_values = torch.tensor([0.0, 1e-3, 1e-2, 0.1, 0.5, 0.9, 1.5, 4.0], dtype=torch.float64)
U0, V0 = polar_factor(normal(12, 8)), polar_factor(normal(8, 10, salt=1))
path = [(U0 * start_values) @ V0]
for _ in range(40):
    path.append(pulled(path[-1], 200, lr=1e-3, isometry_strength=0.3))
cores = U0.T @ torch.stack(path) @ V0.T
values, times = cores.diagonal(dim1=-2, dim2=-1), 3e-4 * 200 * torch.arange(41)
expected, wall = flow(start_values, times[:, None]), flow(torch.inf, times[1:])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 4), layout="constrained")
for i, value in enumerate(start_values):
    ax.plot(times, expected[:, i], color=colours[i], linestyle=dashes[i % 6], label=f"from {value:g}")
    ax.plot(times[::4], values[::4, i], "o", color=colours[i], markersize=4)
ax.plot(times[1:], wall, color=figures.INK, linewidth=0.9, label="wall")
ax.set(xlabel=r"time $s=\eta\lambda\cdot$steps", ylabel="singular value", ylim=(-0.05, 2.2))
ax.grid(True)
fig.legend(loc="outside upper center", ncols=3)
table = pd.concat(
    [
        pd.DataFrame({"start": float(s0), "s": times, "flow": expected[:, i], "adamo": values[:, i]})
        for i, s0 in enumerate(start_values)
    ]
    + [pd.DataFrame({"start": torch.inf, "s": times[1:], "flow": wall})]
)
show(
    fig,
    table,
    name="fig-penalty-flow",
    caption="Singular values of a 12 × 10 matrix of rank 7 under the penalty alone. Lines: {eq}`eq-flow`. Dots: `AdamO` with zero task "
    "gradient, $c=3\\cdot10^{-4}$ a step. Grey: the wall, the curve that starts at infinity. No draw enters but the singular vectors.",
    alt="All curves but the one from zero run to one: large values fall below two within a short time, small ones first wait for a "
    "time that grows with the logarithm of how small they are. The dots lie on the lines.",
)

# %% tags=["hide-input"]
gap = float((values - expected).abs().max())
turned = float((cores - torch.diag_embed(values)).abs().max())
turned = max(turned, float((torch.stack(path) - U0 @ cores @ V0).abs().max()))
claim(
    "adamo-follows-the-flow",
    f"Over 8,000 steps AdamO follows the closed form to {gap:.1e} and turns no singular vector, to {turned:.0e}.",
    gap < 2e-2 and turned < 1e-10,
)
zero = pulled(torch.diag(torch.tensor([0.0, 0.5])).double(), 1000, lr=0.1, isometry_strength=0.1)
claim(
    "exact-zero-stays-zero",
    f"An exact zero, on a diagonal, stays zero while 0.5 becomes {zero[1, 1]:.4f}. The zero of the figure was rounding, and "
    f"is now {abs(values[-1, 0]):.0e}: it grows like any small value.",
    float(zero[0, 0]) == 0 and abs(float(zero[1, 1]) - 1) < 1e-6 and abs(float(values[-1, 0])) < 1e-6,
)
claim(
    "no-start-passes-the-wall",
    f"Every curve stays below the wall; the one from {start_values[-1]:g} comes within {1 - values[-1, -1] / wall[-1]:.0e} of it.",
    bool((values[1:] < wall[:, None] * (1 + 1e-9)).all()),
)

# %% [markdown]
# Three more numbers: the half-life, the rate of small values, and the strength of the wall.

# %%
c = 1e-4
deviations = torch.tensor([-0.01, 0.01])
left = (stepped(1 + deviations, c, round(half_life(c))) - 1) / deviations
growth = float((stepped(1e-4, c, 1000) / 1e-4).log()) / (4 * c * 1000)
fall = (float(stepped(50.0, 1e-8, 1)) - 50) / (-4e-8 * 50**3)

# %% tags=["hide-input"]
claim(
    "half-life-growth-and-fall",
    f"After $0.0866/c$ steps {left[0]:.3f} and {left[1]:.3f} of deviations of one per cent are left; a value of 0.0001 grows at {growth:.3f} "
    f"times the rate $4c$; at $\\sigma = 50$ one step takes away {fall:.4f} times $4c\\sigma^3$.",
    float((left - 0.5).abs().max()) < 0.01 and abs(growth - 1) < 0.01 and abs(fall - 1) < 0.01,
)

# %% [markdown]
# The limit is also the *nearest* isometry. For $Q$ with orthonormal columns or rows,
# $\lVert W-Q\rVert_F^2 = \lVert W\rVert_F^2 + m - 2\langle W,Q\rangle$, and by von Neumann's trace inequality
# $\langle W,Q\rangle \le \sum_i\sigma_i$, with equality for $Q = UV^\top$. So the distance is
# $\big(\sum_i(\sigma_i-1)^2\big)^{1/2}$. Random isometries are an easy opponent, as they are all far away; so let small rotations of
# the polar factor try too.

# %%
W = normal(width, width // 2) / width**0.5
Q, limit = polar_factor(W), pulled(W, 400, lr=0.1, isometry_strength=1.0)
nearest = float((W - Q).norm())
others, turned_by = [], []
for k in range(100):
    others.append(float((W - polar_factor(normal(*W.shape, salt=100 + k))).norm()))
    A = normal(width, width, salt=300 + k)
    turned_by.append(float((W - torch.linalg.matrix_exp(0.01 * (A - A.T) / width**0.5) @ Q).norm()))

# %% tags=["hide-input"]
limit_gap = float((limit - Q).abs().max())
claim(
    "limit-is-the-polar-factor", f"The penalty alone takes W to its polar factor, to {limit_gap:.0e}.", limit_gap < 1e-6
)
claim(
    "polar-factor-is-nearest",
    f"Its distance is that of the formula, {nearest:.4f}. The best of 100 random isometries is {min(others):.2f} away, the best "
    f"of 100 small rotations {min(turned_by) - nearest:.1e} farther.",
    abs(nearest - float((singular_values(W) - 1).norm())) < 1e-9 and min(others) > nearest and min(turned_by) > nearest,
)

# %% [markdown]
# ## Steps are not a flow: where they break
#
# One step with $c = \eta\lambda$ is the map
#
# $$
# \sigma \;\mapsto\; f(\sigma) = \sigma\,\big(1 - 4c\,(\sigma^2-1)\big),
# $$ (eq-map)
#
# which is one step of the classical iteration $X \leftarrow X + b\,X(I - X^\top X)$ of {cite:t}`bjorck1971` with
# $b = 4c$. Three lines divide its plane:
#
# * $f'(1) = 1-8c$, so 1 attracts only for $c < 1/4$;
# * $f(\sigma) = -\sigma$ where $4c(\sigma^2-1) = 2$. Beyond this every step leads farther out:
#
# $$
# \sigma^2 > 1 + \frac{1}{2c} ;
# $$ (eq-blow-up)
#
# * the largest value of $f$ between 0 and this limit is $\tfrac23(1+4c)\sqrt{(1+4c)/12c}$. It stays within the limit if
#   $(1+4c)^3 \le 13.5\,(1+2c)$, that is for $c \le 1/2$. So from $1/4$ to $1/2$ values neither settle nor leave.
#
# Follow {eq}`eq-map` with the library's step from 6,000 places of this plane.

# %%
sigmas, steps_of = torch.logspace(-1.3, 1.7, 100).double(), torch.logspace(-2.7, 0, 60).double()
grid_c, grid_s = (t.flatten() for t in torch.meshgrid(steps_of, sigmas, indexing="ij"))
state = fate(grid_s, grid_c, steps=2000)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.4, 4.2), layout="constrained")
shades = [colours[i] for i in (2, 0, 1, 3)]
ax.pcolormesh(sigmas, steps_of, state.view(60, 100), cmap=ListedColormap(shades), vmin=-0.5, vmax=3.5)
ax.plot(divergence_limit(steps_of), steps_of, color="black", linewidth=1.5)
ax.axhline(0.25, color="black", linewidth=1.5, linestyle="--")
ax.axhline(0.5, color="black", linewidth=1.5, linestyle=":")
ax.set(xscale="log", yscale="log", xlabel="singular value at the start", ylabel=r"$c = \eta\lambda$")
handles = [Patch(color=shade, label=name) for shade, name in zip(shades, FATES, strict=True)]
fig.legend(handles=handles, loc="outside upper center", ncols=2)
show(
    fig,
    pd.DataFrame({"c": grid_c, "sigma": grid_s, "state": [FATES[int(i)] for i in state]}),
    name="fig-step-phase",
    caption="What 2,000 isometry steps make of one singular value. Solid: the limit {eq}`eq-blow-up`. Dashed: $c=1/4$. Dotted: $c=1/2$. "
    "Computed with `isometry_step`; nothing is drawn at random.",
    alt="Left of the solid line and below one quarter everything settles, close to the line in stripes of both signs; between one quarter "
    "and one half values stay bounded; right of the line or above one half they diverge.",
)

# %% tags=["hide-input"]
nearer = (grid_s**2 - 1) * 2 * grid_c
on_line = ((nearer - 1).abs() < 0.01) | ((grid_c / 0.25).log().abs() < 0.05) | ((grid_c / 0.5).log().abs() < 0.05)
merged, flipped = torch.where(state == 1, 0, state), state == 1
wrong = int(((merged != predicted_fate(grid_s, grid_c)) & ~on_line).sum())
claim(
    "three-lines-decide",
    f"Of {int((~on_line).sum()):,} points off the lines, {wrong} end otherwise than the three lines say.",
    wrong == 0,
)

# %% tags=["hide-input"]
claim(
    "signs-lost-near-the-limit",
    f"{int(flipped.sum())} points lose their sign, all at $\\sigma^2 > 1 + 1/4c$: they settle at an isometry that is not the nearest.",
    bool(flipped.any()) and bool((grid_s[flipped] ** 2 > 1 + 1 / (4 * grid_c[flipped])).all()),
)
X = normal(width, width) / (3 * width**0.5)
bjorck = [X + 4 * c * X @ (torch.eye(width) - X.T @ X) - (X - isometry_step([X], c)[0]) for c in (0.01, 0.125)]
scaled = scale_below_one(X)  # what newton_schulz does first
newton = newton_schulz(X, 1) - (scaled - isometry_step([scaled], 0.125)[0])
gap = max(float(d.abs().max()) for d in (*bjorck, newton))
claim(
    "one-step-is-bjorck",
    f"One step is Björck's with $b = 4c$, and at $c = 1/8$ the Newton-Schulz step, to {gap:.0e}.",
    gap < 1e-12,
)

# %% [markdown]
# `AdamO` looks at both limits: at $c < 1/4$ when it is built, at {eq}`eq-blow-up` before each step. Settings found in the authors'
# public language-model code, in our factor (theirs is half of ours):

# %%
accepted = {}
for strength in (10, 100, 1000):
    try:
        AdamO([nn.Parameter(torch.eye(4))], lr=0.02, isometry_strength=strength / 2)
        accepted[strength] = True
    except ValueError:
        accepted[strength] = False

# %% tags=["hide-input"]
claim(
    "adamo-refuses-unstable-strengths",
    f"Beside a learning rate of 0.02, strength 10 ($c = {0.01 * 10:.1f}$) is accepted, 100 and 1,000 ($c = {0.01 * 100:.0f}$, "
    f"${0.01 * 1000:.0f}$) are refused. A log entry of that code names 1,000 as diverging.",
    accepted == {10: True, 100: False, 1000: False},
)

# %% [markdown]
# ## What it costs
#
# A Gram matrix of size $m$ takes $2m^2n$ floating-point operations, with $n = \max(d_l, d_{l-1})$, and its product with $W$ another $2m^2n$.
# Forward and backward passes of a batch of $B$ take $6Bmn$. So the ratio is $4m^2n/6Bmn = 2m/3B$. In a convolution each position
# of the image counts as a sample. From $m = 512$ on a CPU our step multiplies 10 of the 16 blocks of the Gram matrix and mirrors
# the others: 13 of 16 parts of this. No timing here: torch counts the operations.


# %%
step_flops = flops(lambda: gram_deviation_grad(torch.zeros(100, 40)))
ratios = {
    "linear, 384 x 384, batch 256": step_over_passes(nn.Linear(384, 384), torch.zeros(256, 384)),
    "linear, 64 x 64, batch 2,048": step_over_passes(nn.Linear(64, 64), torch.zeros(2048, 64)),
    "conv, 32 to 64": step_over_passes(nn.Conv2d(32, 64, 3, padding=1, bias=False), torch.zeros(16, 32, 16, 16)),
}

# %% tags=["hide-input"]
claim(
    "step-costs-two-products",
    f"A 100 x 40 matrix: {step_flops:,} operations, $4m^2n$ exactly.",
    step_flops == 4 * 40**2 * 100,
)
wide_linear, small_linear, conv = ratios.values()
mirrored = step_over_passes(nn.Linear(512, 512), torch.zeros(256, 512)) / (2 * 512 / (3 * 256))
claim(
    "cost-ratio-is-2m-over-3b",
    f"Ratio to forward and backward: {wide_linear:.2f} for 384 x 384 at batch 256, {small_linear:.3f} for 64 x 64 at batch "
    f"2,048, {conv:.4f} for a 3 x 3 convolution, 32 to 64 channels, on 16 images of 16 x 16. All are $2m/3B$.",
    abs(wide_linear - 2 * 384 / 768) < 1e-9
    and abs(small_linear - 2 * 64 / (3 * 2048)) < 1e-9
    and abs(conv - 2 * 64 / (3 * 16 * 256)) < 1e-9,
)
claim(
    "large-grams-are-mirrored",
    f"For 512 x 512 it is {mirrored:.4f} of $2m/3B$, 13 of 16 parts.",
    abs(mirrored - 13 / 16) < 1e-9,
)

# %% [markdown]
# So it is far from free for wide layers and small batches, and negligible for convolutions. "Efficient" can be read as: two products,
# no singular value decomposition, no power iteration.
#
# The Gram matrix is symmetric. One triangle with its diagonal has $m(m+1)/2$ entries of $2n$ operations each, about half of $2m^2n$. Its
# product with $W$ is a full matrix, every entry of which sums over all $m$, so symmetry saves nothing there: $3m^2n$ are left of
# $4m^2n$, and not $2m^2n$. Torch has no product that stops at a triangle; blocks of columns come near it. The memory is that of the Gram
# matrix, $m^2$ numbers, and of the step itself, $mn$, as for any gradient.

# %%
W = normal(100, 40)
held = allocated(gram_deviation_grad, W)
saved = {k: flops(lambda k=k: gram_deviation_grad_in_blocks(W, k)) / step_flops for k in (1, 2, 20)}
same = max(float((gram_deviation_grad_in_blocks(W, k) - gram_deviation_grad(W)).abs().max()) for k in saved)

# %% tags=["hide-input"]
claim(
    "symmetry-saves-a-quarter",
    f"With one triangle of the Gram matrix in {', '.join(map(str, saved))} blocks the gradient is the same, to {same:.0e}, and takes "
    f"{', '.join(f'{share:.3f}' for share in saved.values())} of the operations: symmetry saves a quarter, not half.",
    same < 1e-10 and all(abs(share - (2 + (k + 1) / k) / 4) < 1e-9 for k, share in saved.items()),
)
claim(
    "step-allocates-two-tensors",
    f"The closed form allocates two tensors, {' and '.join(f'{a} x {b}' for a, b in held)}: the smaller Gram matrix and the step itself.",
    held == [(40, 40), (100, 40)],
)

# %% [markdown]
# ### Lazy application
#
# Nothing forces the pull at every step. `isometry_every=k` applies $k$ times the strength every $k$-th call: the same flow to
# first order in $kc$, at $1/k$ of the cost. The limits above then hold for $kc$.

# %%
W, finals, operations = normal(width, width) / width**0.5, {}, {}
for every in (1, 10, 50):
    finals[every] = singular_values(pulled(W, 1000, lr=1e-3, isometry_strength=0.1, isometry_every=every))
    operations[every] = flops(lambda k=every: pulled(W, 100, lr=1e-3, isometry_strength=0.1, isometry_every=k))

# %% tags=["hide-input"]
moved = float((finals[1] - singular_values(W)).abs().max())
gaps = {k: float((finals[k] - finals[1]).abs().max()) for k in (10, 50)}
claim(
    "every-tenth-step-is-enough",
    f"After 1,000 steps that moved singular values by up to {moved:.2f}, every 10th step differs from every step by "
    f"{gaps[10]:.4f}, every 50th by {gaps[50]:.4f}: {gaps[50] / gaps[10]:.1f} times as much, 49/9 if the error is of first order. The work falls to "
    f"{operations[10] / operations[1]:.2f} and {operations[50] / operations[1]:.2f}.",
    gaps[10] < 0.01 * moved
    and gaps[50] < 0.05 * moved
    and abs(gaps[50] / gaps[10] * 9 / 49 - 1) < 0.2
    and operations[1] == 10 * operations[10] == 50 * operations[50],
)

# %% [markdown]
# ## What to conclude, and what not
#
# - What the penalty does to a matrix is exact: singular values move, singular vectors do not, the polar factor is the limit, and two
#   lines bound the stable steps.
# - Public variants differ in where singular values rest. A factor or a divisor is another strength; a target is another method.
# - The pull costs two products a step. It is far from free for wide layers and small batches, and can be applied lazily.
# - Nothing on this page has a task. What training does against the pull, and how strong it must be then, is the next page.
#
# ## Try changing
#
# - `-p width 128`, and another seed: nothing here should depend on them.
# - In {numref}`fig-step-phase`: follow one value with `stepped` from a stripe of lost signs.
#
# ## Exercise
#
# For which $c$ does one step of the penalty converge quadratically near $\sigma = 1$, and which classical iteration is that?
#
# ```{dropdown} Solution
# The step is $\sigma \mapsto \sigma - 4c\,\sigma(\sigma^2-1)$ with slope $1 - 8c$ at one, zero at $c = 1/8$. It is then
# $\sigma\mapsto\tfrac32\sigma-\tfrac12\sigma^3$, one step of the Newton-Schulz (Björck) iteration for the polar factor.
# ```
#
# **What is next.** {doc}`strength_of_the_pull`: how near is near enough, and how strong the pull must be while a task pushes.

# %% tags=["hide-input"]
stamp(
    notebook="the_regulariser",
    parameters={"width": width, "seed": seed},
    wall_s=time.perf_counter() - started,
)
