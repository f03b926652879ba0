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
# # Isometric networks are expressive
#
# **Question.** If every layer's Jacobian has all singular values at one, what can such a network still represent?
#
# **Why it matters.** A stack of rotations is a rotation. The paper's case needs networks that are isometric almost everywhere
# and yet far from linear.
#
# **In short.** Orthogonal weights and sorting activations keep every singular value of the whole Jacobian at one, at any depth
# ({prf:ref}`sorting-keeps-the-jacobian-isometric`). Such networks bend where an isometric ReLU network cannot
# ({prf:ref}`isometric-relu-is-affine`), and fit 1-Lipschitz functions that norm-constrained ReLU networks do not
# ({prf:ref}`maxmin-fits-better-than-relu`). They still make different inputs alike ({prf:ref}`larger-groups-make-a-worse-gram`).

# %% tags=["parameters", "hide-input"]
seed = 0  # 0..1000000: of weights, inputs and targets
steps = 600  # 200..3000: training steps of each fitted network

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso.activations import MaxMin, activation
from dyniso.theory.isometric import (
    all_gates_open,
    input_gradients,
    isometric_net,
    jacobians,
    likeness_over_depth,
    lower_thresholds,
    not_affine,
)
from dyniso.isometry import singular_values
from dyniso.kernels import correlation_map
from dyniso.initialisation import orthogonal_
from dyniso.polar import polar_factor
from dyniso.report import figures
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.study.trials.lipschitz_fit import fit, make_target

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
# > A class of networks that is isometric almost everywhere is revisited, and remains a universal approximator of Lipschitz
# > functions; so near-isometry does not exclude expressive representations. For Lipschitz-1 networks the output layer is left
# > unrestricted, or regularised more softly, so that the network reaches L-Lipschitz functions {cite:p}`rosseau2026`.
#
# Its sources are OPLU {cite:p}`chernodub2016`, GroupSort with orthonormal weights {cite:p}`anil2019`, and
# Newton-Schulz iterations {cite:p}`grishina2025`.
#
# ## Activations that only permute or reflect
#
# MaxMin sorts pairs, GroupSort-$k$ groups of $k$, $|x|$ flips signs, Householder reflects a pair: at almost every point each is
# a *linear map with an orthogonal matrix* that depends on the region, so $\lVert\phi(z)\rVert = \lVert z\rVert$. CReLU, $z
# \mapsto (z_+, (-z)_+)$, doubles the width with $J^\top J = I$. So with square orthogonal weights the Jacobian of the whole
# network, $\prod_l D_l W_l$, is orthogonal wherever no comparison ties; ties lie in finitely many pieces of hyperplanes, a set
# of measure zero. The network is piecewise an isometry, hence 1-Lipschitz. ReLU has $D$ with entries 0 and 1, and the product
# decays.

# %%
NAMES = ("maxmin", "groupsort-4", "householder", "abs", "relu", "tanh")
spectra = {}
for name in NAMES:
    for depth in (4, 64, 512):
        J = jacobians(isometric_net(name, [16] * (depth + 2), generator), normal(1, 16))
        spectra[name, depth] = singular_values(J)[0]

# %% tags=["hide-input"]
show_table(
    [
        {"activation": name}
        | {f"depth {d}": f"{spectra[name, d].min():.3g} to {spectra[name, d].max():.3g}" for d in (4, 64, 512)}
        for name in NAMES
    ]
)

# %% tags=["hide-input"]
worst = max(float((spectra[n, d] - 1).abs().max()) for n in NAMES[:4] for d in (4, 64, 512))
claim(
    "sorting-keeps-the-jacobian-isometric",
    f"Four activations keep every singular value of the whole Jacobian at one up to depth 512, to {worst:.0e}.",
    worst < 1e-10,
)
claim(
    "relu-and-tanh-decay",
    f"With ReLU the largest is {float(spectra['relu', 64].max()):.0e} at depth 64, with tanh {float(spectra['tanh', 64].max()):.0e}.",
    float(spectra["relu", 64].max()) < 0.01 and float(spectra["tanh", 64].max()) < 0.8,
)
x = normal(1000, 16)
J = jacobians(nn.Sequential(activation("crelu")), x)
gap = float((J.mT @ J - torch.eye(16)).abs().max())
claim(
    "crelu-has-orthonormal-columns",
    f"CReLU's Jacobian has $J^\\top J = I$ at 1,000 points, to {gap:.0e}; $JJ^\\top$ is not $I$: the width doubles.",
    gap < 1e-12,
)

# %% tags=["hide-input"]
kept = {n: activation(n).double()(x).detach().norm(dim=1) / x.norm(dim=1) for n in (*NAMES[:5], "crelu")}
gap = max(float((kept[n] - 1).abs().max()) for n in kept if n != "relu")
claim(
    "isometric-activations-keep-norms",
    f"MaxMin, GroupSort, Householder, $|x|$ and CReLU keep the norm of all 1,000 inputs, to {gap:.0e}; ReLU leaves {float(kept['relu'].mean()):.2f} of it on average.",
    gap < 1e-12 and float(kept["relu"].mean()) < 0.8,
)
pooled = torch.func.jacrev(lambda z: nn.functional.avg_pool1d(z[None, None], 2)[0, 0])(normal(16))
claim(
    "pooling-breaks-isometry",
    f"Pooling breaks it: mean pooling of pairs has singular values {float(singular_values(pooled).max()):.3f}.",
    float(singular_values(pooled).max()) < 0.75,
)

# %% [markdown]
# ## Which side of a rectangular layer
#
# A wide $W$ with $WW^\top = I$ keeps the norm of back-propagated vectors and projects features; a tall one with $W^\top W = I$
# keeps the norm of features and annihilates $d_{out} - d_{in}$ directions of the gradient. The backward map $B_l$ starts behind
# layer $l$, so the first layer is never in it: for narrowing networks the backward chain is exact. There $J = \prod_l D_l W_l$ has
# $JJ^\top = I$: write it out, and each $W_l W_l^\top$ and $D_l D_l^\top$ in the middle is an identity.
#
# The same product says what a free head does. With $JJ^\top = I$ up to the last hidden layer and an output layer $W_L$ without
# constraint, the whole Jacobian has $JJ^\top = W_L W_L^\top$. So at almost every point its singular values are those of $W_L$, and
# the Lipschitz constant is at most $\lVert W_L\rVert_2$. The head sets the scale, and alone decides how even it is.

# %%
tall, wide = (orthogonal_(torch.empty(*shape), generator=generator).double() for shape in ((8, 3), (3, 8)))
h, g = normal(3), normal(8)
forward = float((tall @ h).norm() / h.norm()), float((wide @ g).norm() / g.norm())
backward = float((tall.mT @ g).norm() / g.norm()), float((wide.mT @ h).norm() / h.norm())

W_L = normal(4, 12)
narrowing = isometric_net("maxmin", [32, 24, 16, 8], generator)
headed = isometric_net("maxmin", [32, 24, 12, 4], generator, head=W_L)
x = normal(100, 32)
J, JL = jacobians(narrowing, x), jacobians(headed, x)
stretch = float((torch.pdist(headed(x).detach()) / torch.pdist(x)).max())

# %% tags=["hide-input"]
claim(
    "tall-keeps-features-wide-keeps-gradients",
    f"Tall: features keep their norm ({forward[0]:.3f}), gradients do not ({backward[0]:.3f}). Wide: the other way round "
    f"({forward[1]:.3f} and {backward[1]:.3f}).",
    abs(forward[0] - 1) < 1e-6 and abs(backward[1] - 1) < 1e-6 and max(backward[0], forward[1]) < 0.999,
)
gap = float((J @ J.mT - torch.eye(8)).abs().max())
left = float((J @ x[..., None]).norm() / x.norm())
claim(
    "narrowing-keeps-gradients-exactly",
    f"A network of widths 32, 24, 16, 8 has $JJ^\\top = I$ at 100 points, to {gap:.0e}: exact for gradients. Of the norm of an input it keeps {left:.2f}.",
    gap < 1e-12 and left < 0.9,
)
gap = float((singular_values(JL) - singular_values(W_L)).abs().max())
claim(
    "free-head-sets-the-scale",
    f"Free head: at 100 points the network's singular values are those of its head, to {gap:.0e}, so its Lipschitz constant is at most "
    f"the head's norm {float(singular_values(W_L)[0]):.2f}; the most that two of the inputs are stretched is {stretch:.2f}.",
    gap < 1e-12 and stretch <= float(singular_values(W_L)[0]),
)

# %% [markdown]
# ## Why not ReLU with the same constraint
#
# Let all weights have norm at most one and let a network of *monotone elementwise* 1-Lipschitz activations keep the norm of its
# gradient almost everywhere. Gradient norm 1 needs every gate that is met to act isometrically on the back-propagated vector.
# A monotone 1-Lipschitz scalar function does that only where its slope is one, where it is a shift. So the network is
# affine: theorem 1 of {cite:t}`anil2019`. Sorting escapes, because it is not elementwise.
#
# The step of the argument can be watched. With orthonormal weights every closed gate takes away its share of the back-propagated
# vector, so the gradient has norm one where no gate is closed, and only there; on that set all gates are the identity and the
# network is one affine function. We take networks with 3 hidden layers, move the threshold of all gates from 0 down to $-b$, and
# compare two shares: of inputs with gradient norm one, and of the output's variance that no affine function explains.

# %%
x, THRESHOLDS = normal(2000, 16), (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
rows, agree = [], True
for name in ("relu", "maxmin"):
    for draw in range(5):
        net = isometric_net(name, [16, 16, 16, 16, 1], generator)
        for b in THRESHOLDS:
            lower_thresholds(net, b)
            unit = input_gradients(net, x).norm(dim=1) > 1 - 1e-9
            agree &= name == "maxmin" or torch.equal(unit, all_gates_open(net, x))
            found = {"unit": float(unit.double().mean()), "bent": not_affine(x, net(x).detach())}
            rows.append({"activation": name, "draw": draw, "b": b} | found)
trade = pd.DataFrame(rows)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
for i, (name, part) in enumerate(trade.groupby("activation")):
    ax.plot(part["unit"], part["bent"], "os"[i], color=colours[i], label=name, alpha=0.8)
ax.set(xlabel="share of inputs with gradient norm 1", ylabel="share of variance not affine", ylim=(-0.01, None))
ax.legend()
show(
    fig,
    trade,
    name="fig-gradient-norm-or-bend",
    caption=f"Random networks with orthonormal weights, 16 inputs, 3 hidden layers of 16, one output; 5 draws and {len(THRESHOLDS)} thresholds for each "
    f"activation (seed {seed}). A ReLU network is bent or keeps the norm of its gradient.",
    alt="ReLU networks lie on a falling curve: where every input has gradient norm one the network is affine. MaxMin networks all lie at "
    "gradient norm one and are not affine.",
)

# %% tags=["hide-input"]
relu, maxmin = (trade[trade["activation"] == name] for name in ("relu", "maxmin"))
claim(
    "relu-keeps-gradients-where-gates-are-open",
    f"A ReLU network's gradient has norm one at exactly the inputs with all gates open, in all {len(relu)} networks; from "
    f"{relu['unit'].min():.0%} of the inputs to {relu['unit'].max():.0%}.",
    agree and relu["unit"].max() == 1,
)
whole = relu[relu["unit"] == 1]
claim(
    "isometric-relu-is-affine",
    f"Where that is every input ({len(whole)} networks) the share that is not affine is at most {whole['bent'].max():.0e}. MaxMin has gradient "
    f"norm one at every input, and {maxmin['bent'].min():.2f} to {maxmin['bent'].max():.2f} that is not affine.",
    len(whole) > 0 and whole["bent"].max() < 1e-20 and maxmin["unit"].min() == 1 and maxmin["bent"].min() > 0.01,
)

# %% [markdown]
# This is an illustration on one family of networks; the theorem is about all of them.
#
# **Why orthonormal weights.** A second statement there: if all weights have norm at most one and the gradient has norm one
# almost everywhere, then each weight can be replaced by one with *all singular values one*, and the function stays the same.
# Singular values below one may sit only where no gradient passes. An example: the head reads the first pair of a MaxMin layer,
# and the rows of the second pair are short.

# %%
Q = polar_factor(normal(4, 4))
short, reads_first = torch.diag(torch.tensor([1.0, 1.0, 0.3, 0.3]).double()) @ Q, polar_factor(normal(1, 2))
x = normal(1000, 4)
before, after = (MaxMin()(x @ W.mT)[:, :2] @ reads_first.mT for W in (short, polar_factor(short)))

# %% tags=["hide-input"]
claim(
    "idle-singular-values-become-one",
    f"Singular values {', '.join(f'{v:.1f}' for v in singular_values(short))} become one in the polar factor, and the function stays "
    f"the same to {float((before - after).abs().max()):.0e}.",
    float((before - after).abs().max()) < 1e-12 and float(singular_values(short)[-1]) < 0.5,
)

# %% [markdown]
# **Universality, with its conditions.** Theorem 3 there: MaxMin networks with $\lVert W_1\rVert_{2\to\infty} = 1$ and
# $\lVert W_l\rVert_\infty = 1$ afterwards are dense in the *scalar* 1-Lipschitz functions (2-norm) on compact sets, with
# unbounded width and depth. The route is a lattice argument: a family of 1-Lipschitz functions that contains with $f$ and $g$
# also $\max(f, g)$ and $\min(f, g)$, and can take any two admissible values at two points, is dense. MaxMin gives the lattice:
# put $f$ and $g$ beside each other, sort, and select, with rows of absolute sum one.
#
# These are *not* orthonormal weights. The simplest example shows the difference: $|x| = \max(x, -x)$.

# %%
first, second = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
grid = torch.linspace(-1, 1, 401).double()[:, None]
lattice = MaxMin()(grid @ first.mT) @ second.mT
inf_norms = [float(W.abs().sum(1).max()) for W in (first, second)]
halved = MaxMin()(grid @ polar_factor(first).mT) @ second.mT

# %% tags=["hide-input"]
claim(
    "absolute-value-needs-infinity-norms",
    f"$|x|$ exactly, with infinity norms {inf_norms[0]:g} and {inf_norms[1]:g}: error {float((lattice - grid.abs()).abs().max()):.0e}.",
    torch.equal(lattice, grid.abs()) and inf_norms == [1, 1],
)
slope = float((halved / grid.abs().clamp_min(1e-9))[0])
claim(
    "orthonormal-weights-miss-the-absolute-value",
    f"That first weight has spectral norm {float(singular_values(first)[0]):.3f}; made orthonormal, the same net gives {slope:.3f} $|x|$.",
    abs(slope - 0.5**0.5) < 1e-6,
)
f, g = normal(50), normal(50)
pair = MaxMin()(torch.stack([f, g], 1))
claim(
    "sorting-gives-max-and-min",
    "Stacking two functions and sorting closes the family under max and min, with rows of absolute sum one.",
    torch.equal(pair[:, 0], torch.maximum(f, g)) and torch.equal(pair[:, 1], torch.minimum(f, g)),
)

# %% [markdown]
# For 2-norm orthonormal weights universality is, to our knowledge, open; later results have other constraints too, or other
# architectures such as residual networks {cite:p}`murari2025`. So we ask the practical question: do such networks fit?
#
# ## Fitting a known 1-Lipschitz function
#
# The target on the square $[-1,1]^2$ is the distance to the nearest of five points, minus its mean. MaxMin networks have every
# weight projected on its polar factor after each Adam step; ReLU networks get the mildest constraint that keeps them
# 1-Lipschitz, singular values clipped at one.

# %%
target = make_target(generator)
SIZES = [(width, 3) for width in (8, 16, 32, 64)] + [(32, depth) for depth in (1, 2, 5)]


def fitted(name, width=32, depth=3, **options):
    """A ReLU net with clipped singular values, any other with orthogonal weights."""
    constraint = "clipped" if name == "relu" else "projected"
    return fit(target, name, width, depth, steps=steps, constraint=constraint, seed=seed, **options)


fits = {(name, *size): fitted(name, *size) for name in ("maxmin", "relu") for size in SIZES}
error = {key: found.error for key, found in fits.items()}
errors = pd.DataFrame(
    [dict(zip(("activation", "width", "depth", "error"), (*k, e), strict=True)) for k, e in error.items()]
)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.2), sharey=True, layout="constrained")
for i, (name, part) in enumerate(errors.groupby("activation")):
    style = dict(color=colours[i], linestyle=dashes[i], marker="os"[i], label=name)
    by_width, by_depth = part[part["depth"] == 3], part[part["width"] == 32].sort_values("depth")
    axes[0].plot(by_width["width"], by_width["error"], **style)
    axes[1].plot(by_depth["depth"], by_depth["error"], **style)
axes[0].set(xlabel="width (3 hidden layers)", ylabel="test error / sd of target", ylim=(0, None))
axes[0].set_xscale("log", base=2)
axes[0].set_xticks([8, 16, 32, 64], ["8", "16", "32", "64"])
axes[1].set(xlabel="hidden layers (width 32)")
axes[0].legend()
show(
    fig,
    errors,
    name="fig-lipschitz-fit",
    caption=f"Test error for the distance to five points under 1-Lipschitz constraints, {steps} Adam steps, one network each (seed {seed}). "
    "1 is the error of a constant.",
    alt="MaxMin networks with orthonormal weights have small errors that fall with width and depth; norm-constrained ReLU networks "
    "stay at several times that error at every size.",
)

# %% tags=["hide-input"]
claim(
    "maxmin-fits-better-than-relu",
    f"The MaxMin net of width 64 fits to {error['maxmin', 64, 3]:.2f} of the target's standard deviation, the ReLU net to "
    f"{error['relu', 64, 3]:.2f}.",
    error["maxmin", 64, 3] < 0.35 and error["relu", 64, 3] > 1.5 * error["maxmin", 64, 3],
)
claim(
    "maxmin-wins-at-every-depth-above-one",
    f"MaxMin wins at every size with more than one hidden layer; more width helps it: "
    f"{error['maxmin', 8, 3]:.2f} at 8, {error['maxmin', 64, 3]:.2f} at 64.",
    all(error["maxmin", w, d] < error["relu", w, d] for w, d in SIZES if d > 1)
    and error["maxmin", 64, 3] < error["maxmin", 8, 3],
)

# %% tags=["hide-input"]
steep, scaled = (fitted("maxmin", scale=scale, steepness=3.0).error for scale in (1.0, 3.0))
claim(
    "output-scale-carries-the-lipschitz-constant",
    f"A target three times as steep is out of reach (error {steep:.2f}) until the output is scaled by $L = 3$ ({scaled:.2f}): the head "
    "carries the Lipschitz constant.",
    steep > 0.4 and scaled < 0.6 * steep,
)
norms = {k: float(input_gradients(fits[k, 32, 3].net, target.test_x).norm(dim=1).mean()) for k in ("maxmin", "relu")}
claim(
    "fitted-gradients-stay-below-one",
    f"The target's gradient has norm one almost everywhere; the fitted networks of width 32 have {norms['maxmin']:.2f} (MaxMin) and "
    f"{norms['relu']:.2f} (ReLU) on average. Not one: the first layer is tall, and loses what {{prf:ref}}`tall-keeps-features-wide-keeps-gradients` says.",
    norms["relu"] < norms["maxmin"] < 1,
)

# %% [markdown]
# ## Group size: what sorting more costs
#
# Larger groups are allowed by all that was said so far: sorting $k$ entries is a permutation. Forward, they differ. A sort moves
# the largest entry of every group to the same place, so the features of different inputs grow alike; the larger the group, the
# more of the order statistics is common to all inputs. $K_l$, the Gram matrix of the features, bounds the kernel's condition
# number in {doc}`isometry_and_the_entk`; in {doc}`what_isometry_controls` the correlation map of MaxMin is derived as well: inputs of correlation $c$
# leave with
#
# $$
# \tfrac c2 + \tfrac1\pi\big(\sqrt{1-c^2} + c\arcsin c\big) .
# $$
#
# We follow 64 uncorrelated inputs of unit norm through 8 orthonormal layers of width 128.

# %%
GROUPS, width = (2, 4, 8, 32, 128), 128
found = {k: pd.DataFrame(likeness_over_depth(k, generator, width)) for k in GROUPS}
alike = pd.concat([table.assign(group=k) for k, table in found.items()], ignore_index=True)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.2), layout="constrained")
for i, (k, part) in enumerate(alike.groupby("group")):
    style = dict(color=colours[i], linestyle=dashes[i], marker="os^vD"[i], ms=4, label="all" if k == width else k)
    axes[0].plot(part["layers"], part["cosine"], **style)
    axes[1].plot(part["layers"], part["condition"], **style)
axes[0].set(xlabel="layers", ylabel="mean cosine of two inputs", ylim=(-0.02, 1.02), xticks=range(0, 9, 2))
axes[1].set(xlabel="layers", ylabel="condition number of the Gram", yscale="log", xticks=range(0, 9, 2))
axes[1].legend(title="group", fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
show(
    fig,
    alike,
    name="fig-group-size",
    caption=f"Features of 64 uncorrelated inputs behind layers of orthonormal weights (width {width}) and GroupSort. Mean cosine of two inputs, and "
    f"condition number of the Gram matrix; 4 draws of inputs and weights (seed {seed}): mean and median.",
    alt="Both the cosine and the condition number rise with depth for every group size, and at every depth the larger group has the larger value: "
    "with all units in one group the inputs are all but identical after one layer.",
)

# %% tags=["hide-input"]
cosine, condition = (
    alike.pivot(index="layers", columns="group", values=column).loc[1:] for column in ("cosine", "condition")
)
claim(
    "larger-groups-align-inputs",
    f"Uncorrelated inputs have correlation {cosine[2][1]:.2f} after one layer with groups of 2, {cosine[4][1]:.2f} with 4, {cosine[8][1]:.2f} with 8, "
    f"{cosine[32][1]:.2f} with 32, {cosine[128][1]:.2f} with one group.",
    abs(cosine[2][1] - 1 / np.pi) < 0.02 and bool((cosine.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)),
)
claim(
    "larger-groups-make-a-worse-gram",
    f"At every depth from 1 to 8 a larger group has the worse Gram: condition number {condition[2][1]:.0f} with groups of 2, {condition[8][1]:.1e} with 8, "
    f"{condition[128][1]:.1e} with one group after 1 layer; {condition[2][8]:.1e}, {condition[8][8]:.1e} and {condition[128][8]:.1e} after 8.",
    bool((condition.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)),
)

# %% tags=["hide-input"]
first = condition.loc[1] / alike[alike["layers"] == 0].set_index("group")["condition"]
later = condition.loc[8] / condition.loc[1]
claim(
    "first-layer-makes-the-difference",
    f"The first layer makes the difference: it multiplies the condition number by {first[2]:.0f} with groups of 2, {first[8]:.0f} with 8, {first[128]:.1e} with one "
    f"group; the seven layers after it by {later.min():.0f} to {later.max():.0f}, whatever the group.",
    first.is_monotonic_increasing and first[128] > 100 * first[2] and later.max() < 40,
)
late = next(layer for layer in cosine.index if cosine[2][layer] > cosine[8][1])
claim(
    "pairs-need-several-layers",
    f"Groups of 2 need {late} layers to make inputs as alike as groups of 8 do in one.",
    late > 3,
)
c, predicted = torch.tensor(0.0), []
for _ in cosine.index:
    c = correlation_map("maxmin", c)
    predicted.append(float(c))
gap = float(np.abs(cosine[2] - predicted).max())
claim("pairs-follow-the-map", f"With groups of 2 the cosine follows the map at every depth, to {gap:.3f}.", gap < 0.02)

# %% tags=["hide-input"]
by_group = {2: error["maxmin", 32, 3]} | {k: fitted(f"groupsort-{k}").error for k in (4, 8)}
best = min(by_group, key=by_group.get)
claim(
    "larger-groups-fit-little-better",
    f"The other side of the trade, on this target at width 32: groups of 2, 4, 8 fit to {by_group[2]:.2f}, {by_group[4]:.2f}, {by_group[8]:.2f}, the best "
    f"with groups of {best}; all better than ReLU ({error['relu', 32, 3]:.2f}). What larger groups gain here is small.",
    max(by_group.values()) < error["relu", 32, 3] and by_group[2] < 1.5 * by_group[best],
)

# %% [markdown]
# So groups of 2 are the only size that we use by default: the approximation theorem needs no more, and the Gram pays for every
# larger one at once. On targets with many pieces larger groups may earn their price; one small target does not decide that.

# %% [markdown]
# ## What to conclude, and what not
#
# - Networks that are isometric almost everywhere, at any depth, exist and are simple: orthogonal weights and sorting.
# - They fit 1-Lipschitz functions that norm-constrained ReLU networks do not. The theorem that is usually quoted for this has other
#   constraints (infinity norms, scalar output); for orthonormal weights we have experiments, not a proof.
# - Isometric is not well-conditioned in every sense: features of different inputs still grow alike, faster for larger groups.
# - One small target and one network a point: the sizes of the errors are of this target.
#
# ## Try changing
#
# - `-p steps 3000`: how much of the remaining error is optimisation?
# - A larger group in {numref}`fig-lipschitz-fit`: is there a target where it pays?
# - Another target: one that is steepest nowhere, such as a smooth bump. Does ReLU catch up?
#
# ## Exercise
#
# Write $|x|$ with orthonormal weights and MaxMin, allowing more units and a second input that is always zero.
#
# ```{dropdown} Solution
# Embed $x$ as $(x, 0)$ and rotate by 45 degrees: $(x, -x)/\sqrt2$ after a suitable choice of signs. MaxMin gives $(|x|,
# -|x|)/\sqrt2$. Rotate back: $(1, -1)/\sqrt2$ as a unit row gives $|x|/2 + |x|/2 = |x|$. The row that *combines* both outputs
# has 2-norm one; it is the row that *selects* one of them that loses the factor.
# ```
#
# **What is next.** {doc}`keeping_weights_orthogonal`: how a weight is kept orthogonal, and what that means for a convolution.

# %% tags=["hide-input"]
stamp(
    notebook="isometric_networks",
    parameters={"seed": seed, "steps": steps},
    wall_s=time.perf_counter() - started,
)
