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
# **Question.** If every layer's Jacobian has all singular values at one, what can such a network still represent, and how is a
# weight kept there?
#
# **Why it matters.** A stack of rotations is a rotation. The paper's case needs networks that are isometric almost everywhere
# and yet far from linear.

# %% tags=["parameters", "hide-input"]
seed = 0  # 0..1000000: of weights, inputs and targets
steps = 600  # 200..3000: training steps of each fitted network

# %% tags=["hide-input"]
import time
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso.report import figures
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.isometry import as_matrix, conv_operator_singular_values, gram_deviation, singular_values
from dyniso.polar import (
    SCHEMES,
    apply_polynomials,
    minimax_polynomial,
    orthogonalise,
    polar_factor,
    scale_below_one,
    step_polynomials,
)
from dyniso.nets import delta_orthogonal_, mlp, orthogonal, orthogonal_
from dyniso.activations import GroupSort, MaxMin, activation

started = time.perf_counter()
figures.use_style()
colours, dashes = figures.palette(8), figures.DASHES
generator = torch.Generator().manual_seed(seed)


def normal(*shape):
    """Standard normal draws of this page's seed, float64."""
    return torch.randn(*shape, generator=generator).double()


def isometric(name, *widths, head=None):
    """Layers of these widths in float64 with weights orthogonal to rounding, biases 0; `head` replaces the last weight."""
    net = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        layer = nn.Linear(inputs, outputs).double()
        layer.weight.data, layer.bias.data = polar_factor(normal(outputs, inputs)), torch.zeros(outputs).double()
        net.extend([layer, activation(name).double()])
    if head is not None:
        net[-2].weight.data = head
    return net[:-1]


def jacobians(net, x):
    """One Jacobian for each row of x."""
    return torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(x).detach()


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
        J = jacobians(isometric(name, *[16] * (depth + 2)), normal(1, 16))
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
    "four-activations-keep-every",
    f"Four activations keep every singular value of the whole Jacobian at one up to depth 512, to {worst:.0e}.",
    worst < 1e-10,
)
claim(
    "relu-largest",
    f"With ReLU the largest is {float(spectra['relu', 64].max()):.0e} at depth 64, with tanh {float(spectra['tanh', 64].max()):.0e}.",
    float(spectra["relu", 64].max()) < 0.01 and float(spectra["tanh", 64].max()) < 0.8,
)
x = normal(1000, 16)
J = jacobians(nn.Sequential(activation("crelu")), x)
gap = float((J.mT @ J - torch.eye(16)).abs().max())
claim(
    "crelu-s-jacobian-j",
    f"CReLU's Jacobian has J'J = I at 1,000 points, to {gap:.0e}; JJ' is not I: the width doubles.",
    gap < 1e-12,
)
kept = {n: activation(n).double()(x).detach().norm(dim=1) / x.norm(dim=1) for n in (*NAMES[:5], "crelu")}
gap = max(float((kept[n] - 1).abs().max()) for n in kept if n != "relu")
claim(
    "maxmin-groupsort-householder-x",
    f"MaxMin, GroupSort, Householder, |x| and CReLU keep the norm of all 1,000 inputs, to {gap:.0e}; ReLU leaves {float(kept['relu'].mean()):.2f} of it on average.",
    gap < 1e-12 and float(kept["relu"].mean()) < 0.8,
)
pooled = torch.func.jacrev(lambda z: nn.functional.avg_pool1d(z[None, None], 2)[0, 0])(normal(16))
claim(
    "pooling-breaks",
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
narrowing, headed = isometric("maxmin", 32, 24, 16, 8), isometric("maxmin", 32, 24, 12, 4, head=W_L)
x = normal(100, 32)
J, JL = jacobians(narrowing, x), jacobians(headed, x)
stretch = float((torch.pdist(headed(x).detach()) / torch.pdist(x)).max())

# %% tags=["hide-input"]
claim(
    "tall-features-keep-their",
    f"Tall: features keep their norm ({forward[0]:.3f}), gradients do not ({backward[0]:.3f}). Wide: the other way round "
    f"({forward[1]:.3f} and {backward[1]:.3f}).",
    abs(forward[0] - 1) < 1e-6 and abs(backward[1] - 1) < 1e-6 and max(backward[0], forward[1]) < 0.999,
)
gap = float((J @ J.mT - torch.eye(8)).abs().max())
left = float((J @ x[..., None]).norm() / x.norm())
claim(
    "network-widths-32-24",
    f"A network of widths 32, 24, 16, 8 has JJ' = I at 100 points, to {gap:.0e}: exact for gradients. Of the norm of an input it keeps {left:.2f}.",
    gap < 1e-12 and left < 0.9,
)
gap = float((singular_values(JL) - singular_values(W_L)).abs().max())
claim(
    "free-head-100-points",
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


# %% tags=["hide-input"]
def gradients(net, x):
    """Gradient of a scalar network at each row of x."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).sum(), x)[0]


def bent(x, f):
    """Share of the variance of f (n, 1) that the best affine function of x leaves unexplained."""
    A = torch.cat([x, torch.ones_like(f)], 1)
    return float((f - A @ torch.linalg.lstsq(A, f).solution).var() / f.var())


x, THRESHOLDS = normal(2000, 16), (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
rows, agree = [], True
for name in ("relu", "maxmin"):
    for draw in range(5):
        net = isometric(name, 16, 16, 16, 16, 1)
        for b in THRESHOLDS:
            for layer in net[:-1:2]:  # add b before a gate and take it off behind
                layer.bias.data = b * (1 - layer.weight.data.sum(1) * (layer is not net[0]))
            unit = gradients(net, x).norm(dim=1) > 1 - 1e-9
            gates = torch.cat([net[:depth](x) for depth in (1, 3, 5)], 1)
            agree &= name == "maxmin" or torch.equal(unit, (gates > 0).all(1))
            kept = float(unit.double().mean())
            rows.append({"activation": name, "draw": draw, "b": b, "unit": kept, "bent": bent(x, net(x).detach())})
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
    "relu-network-s-gradient",
    f"A ReLU network's gradient has norm one at exactly the inputs with all gates open, in all {len(relu)} networks; from "
    f"{relu['unit'].min():.0%} of the inputs to {relu['unit'].max():.0%}.",
    agree and relu["unit"].max() == 1,
)
whole = relu[relu["unit"] == 1]
claim(
    "where-every-input",
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
    "singular-values-become-one",
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
    "x-exactly-infinity-norms",
    f"|x| exactly, with infinity norms {inf_norms[0]:g} and {inf_norms[1]:g}: error {float((lattice - grid.abs()).abs().max()):.0e}.",
    torch.equal(lattice, grid.abs()) and inf_norms == [1, 1],
)
slope = float((halved / grid.abs().clamp_min(1e-9))[0])
claim(
    "first-weight-spectral-norm",
    f"That first weight has spectral norm {float(singular_values(first)[0]):.3f}; made orthonormal, the same net gives {slope:.3f} |x|.",
    abs(slope - 0.5**0.5) < 1e-6,
)
f, g = normal(50), normal(50)
pair = MaxMin()(torch.stack([f, g], 1))
claim(
    "stacking-two-functions-sorting",
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


# %% tags=["hide-input"]
points = 2 * torch.rand(5, 2, generator=generator) - 1
train_x, test_x = (2 * torch.rand(n, 2, generator=generator) - 1 for n in (2048, 2048))


def target(x):
    """Distance to the nearest point, centred."""
    return torch.cdist(x, points).amin(1) - torch.cdist(train_x, points).amin(1).mean()


@torch.no_grad()
def project(W, isometric):
    """Polar factor, or singular values clipped at one."""
    U, sigma, Vh = torch.linalg.svd(W, full_matrices=False)
    W.copy_((U if isometric else U * sigma.clamp_max(1)) @ Vh)


def fit(name, width, depth, scale=1.0, target_scale=1.0, hard=False):
    """A trained network and its root mean square test error, in units of the target's standard deviation."""
    net = mlp(2, 1, width, depth, name, seed=seed)
    layers = [m for m in net if isinstance(m, nn.Linear)]
    for layer in layers if hard else []:
        orthogonal(layer, "newton_schulz")
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    y = target_scale * target(train_x)
    for step in range(steps):
        batch = torch.arange(256 * step, 256 * (step + 1)) % len(train_x)
        optimizer.zero_grad()
        (scale * net(train_x[batch])[:, 0] - y[batch]).square().mean().backward()
        optimizer.step()
        schedule.step()
        for layer in [] if hard else layers:
            project(layer.weight, name != "relu")
    truth = target_scale * target(test_x)
    return net, float((scale * net(test_x)[:, 0].detach() - truth).square().mean().sqrt() / truth.std())


SIZES = [(width, 3) for width in (8, 16, 32, 64)] + [(32, depth) for depth in (1, 2, 5)]
errors = pd.DataFrame(
    [
        {"activation": name, "width": w, "depth": d, "error": fit(name, w, d)[1]}
        for name in ("maxmin", "relu")
        for w, d in SIZES
    ]
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
error = errors.set_index(["activation", "width", "depth"])["error"]
claim(
    "maxmin-net-width-64",
    f"The MaxMin net of width 64 fits to {error['maxmin', 64, 3]:.2f} of the target's standard deviation, the ReLU net to "
    f"{error['relu', 64, 3]:.2f}.",
    error["maxmin", 64, 3] < 0.35 and error["relu", 64, 3] > 1.5 * error["maxmin", 64, 3],
)
claim(
    "maxmin-wins-every-size",
    f"MaxMin wins at every size with more than one hidden layer; more width helps it: "
    f"{error['maxmin', 8, 3]:.2f} at 8, {error['maxmin', 64, 3]:.2f} at 64.",
    all(error["maxmin", w, d] < error["relu", w, d] for w, d in SIZES if d > 1)
    and error["maxmin", 64, 3] < error["maxmin", 8, 3],
)
steep, scaled = (fit("maxmin", 32, 3, scale=scale, target_scale=3.0)[1] for scale in (1.0, 3.0))
claim(
    "target-three-times-steep",
    f"A target three times as steep is out of reach (error {steep:.2f}) until the output is scaled by L = 3 ({scaled:.2f}): the head "
    "carries the Lipschitz constant.",
    steep > 0.4 and scaled < 0.6 * steep,
)
norms = {name: float(gradients(fit(name, 32, 3)[0], test_x).norm(dim=1).mean()) for name in ("maxmin", "relu")}
claim(
    "target-s-gradient-norm",
    f"The target's gradient has norm one almost everywhere; the fitted networks of width 32 have {norms['maxmin']:.2f} (MaxMin) and "
    f"{norms['relu']:.2f} (ReLU) on average. Not one: the first layer is tall, and loses what {{prf:ref}}`tall-features-keep-their` says.",
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
GROUPS, width, samples, draws = (2, 4, 8, 32, 128), 128, 64, 4
rows = []
for k in GROUPS:
    h = nn.functional.normalize(normal(draws, samples, width), dim=-1)
    for layer in range(9):
        K = h @ h.mT
        cosine = float((K.sum((-2, -1)) - samples).mean()) / (samples * (samples - 1))
        sigma = singular_values(K)
        condition = float((sigma[:, 0] / sigma[:, -1]).median())
        rows.append({"group": k, "layers": layer, "cosine": cosine, "condition": condition})
        h = GroupSort(k)(h @ polar_factor(normal(draws, width, width)).mT)
alike = pd.DataFrame(rows)

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
    caption=f"Features of {samples} uncorrelated inputs behind layers of orthonormal weights (width {width}) and GroupSort. Mean cosine of two inputs, and "
    f"condition number of the Gram matrix; {draws} draws of inputs and weights (seed {seed}): mean and median.",
    alt="Both the cosine and the condition number rise with depth for every group size, and at every depth the larger group has the larger value: "
    "with all units in one group the inputs are all but identical after one layer.",
)

# %% tags=["hide-input"]
cosine, condition = (
    alike.pivot(index="layers", columns="group", values=column).loc[1:] for column in ("cosine", "condition")
)
claim(
    "uncorrelated-inputs-correlation",
    f"Uncorrelated inputs have correlation {cosine[2][1]:.2f} after one layer with groups of 2, {cosine[4][1]:.2f} with 4, {cosine[8][1]:.2f} with 8, "
    f"{cosine[32][1]:.2f} with 32, {cosine[128][1]:.2f} with one group.",
    abs(cosine[2][1] - 1 / np.pi) < 0.02 and bool((cosine.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)),
)
claim(
    "every-depth-1-8",
    f"At every depth from 1 to 8 a larger group has the worse Gram: condition number {condition[2][1]:.0f} with groups of 2, {condition[8][1]:.1e} with 8, "
    f"{condition[128][1]:.1e} with one group after 1 layer; {condition[2][8]:.1e}, {condition[8][8]:.1e} and {condition[128][8]:.1e} after 8.",
    bool((condition.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)),
)
first = condition.loc[1] / alike[alike["layers"] == 0].set_index("group")["condition"]
later = condition.loc[8] / condition.loc[1]
claim(
    "first-layer-makes-difference",
    f"The first layer makes the difference: it multiplies the condition number by {first[2]:.0f} with groups of 2, {first[8]:.0f} with 8, {first[128]:.1e} with one "
    f"group; the seven layers after it by {later.min():.0f} to {later.max():.0f}, whatever the group.",
    first.is_monotonic_increasing and first[128] > 100 * first[2] and later.max() < 40,
)
late = next(layer for layer in cosine.index if cosine[2][layer] > cosine[8][1])
claim("groups-2-need", f"Groups of 2 need {late} layers to make inputs as alike as groups of 8 do in one.", late > 3)
c, predicted = 0.0, []
for _ in cosine.index:
    c = c / 2 + (np.sqrt(1 - c * c) + c * np.arcsin(c)) / np.pi
    predicted.append(c)
gap = float(np.abs(cosine[2] - predicted).max())
claim(
    "groups-2-cosine-follows", f"With groups of 2 the cosine follows the map at every depth, to {gap:.3f}.", gap < 0.02
)
by_group = {2: error["maxmin", 32, 3]} | {k: fit(f"groupsort-{k}", 32, 3)[1] for k in (4, 8)}
best = min(by_group, key=by_group.get)
claim(
    "other-side-trade-this",
    f"The other side of the trade, on this target at width 32: groups of 2, 4, 8 fit to {by_group[2]:.2f}, {by_group[4]:.2f}, {by_group[8]:.2f}, the best "
    f"with groups of {best}; all better than ReLU ({error['relu', 32, 3]:.2f}). What larger groups gain here is small.",
    max(by_group.values()) < error["relu", 32, 3] and by_group[2] < 1.5 * by_group[best],
)

# %% [markdown]
# So groups of 2 are the only size that we use by default: the approximation theorem needs no more, and the Gram pays for every
# larger one at once. On targets with many pieces larger groups may earn their price; one small target does not decide that.
#
# ## Keeping a weight orthogonal
#
# An odd polynomial $p$ applied to $W$ through products, $p(W) = a W + b\,W W^\top W + \dots$, acts on singular values alone. A
# scheme is a sequence of such polynomials. Three ideas:
#
# * *Flat at one.* Björck's family {cite:p}`bjorck1971` has $p(1) = 1$ with as many vanishing derivatives as its degree allows:
#   the series of $\sigma\,(1 - t)^{-1/2}$ in $t = 1 - \sigma^2$, cut. Degree 3 is Newton-Schulz.
# * *Best on an interval.* Where the singular values are known to lie in $[a, b]$, take the polynomial with the smallest largest
#   error there; its image is a shorter interval around one, and so on. By Chebyshev the error of the best one takes its extremes
#   with alternating signs, once more often than it has coefficients. Cubics are CANS {cite:p}`grishina2025`, quintics Polar
#   Express {cite:p}`amsel2025`. For a short interval both become Björck's.
# * *Steep at zero.* Muon's quintic {cite:p}`jordan2024` rises fast and never settles. It is made for updates, not for weights.
#
# We follow singular values, once from a Gaussian matrix over its Frobenius norm, once from a matrix near isometry.

# %% tags=["hide-input"]
LABELS = dict(
    zip(SCHEMES, ["Newton-Schulz", *(f"Björck {k}" for k in (2, 3, 4)), "CANS", "Polar Express", "Muon"], strict=True)
)


def errors_along(scheme, sigma, count, lower=None):
    """Largest |sigma - 1| at the start and after each step; without `lower`, interval schemes are told the interval."""
    known, found = float(sigma.min() / sigma.max()), [float((sigma - 1).abs().max())]
    if scheme in ("cans", "polar_express") and lower is None:
        sigma = sigma / sigma.max()
    for p in step_polynomials(scheme, count, lower or known):
        sigma = apply_polynomials(sigma[:, None, None], (p,)).flatten()
        found.append(float((sigma - 1).abs().max()))
    return found


def steps_to(errors, tolerance=1e-6):
    """The first step at which the error is below the tolerance, or None."""
    return next((k for k, e in enumerate(errors) if e < tolerance), None)


# %%
count = 20
gaussian = singular_values(normal(64, 64))
STARTS = {"cold": gaussian / gaussian.norm(), "near": torch.linspace(0.7, 1.3, 64).double()}
curves = {(at, scheme): errors_along(scheme, sigma, count) for at, sigma in STARTS.items() for scheme in SCHEMES}

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(5.6, 6.0), sharex=True, layout="constrained")
for ax, at in zip(axes, STARTS, strict=True):
    for i, scheme in enumerate(SCHEMES):
        found = np.maximum(curves[at, scheme], 1e-16)
        ax.plot(found, color=colours[i], linestyle=dashes[i % len(dashes)], label=LABELS[scheme])
    ax.set(yscale="log", ylabel=f"largest |σ − 1|, {at} start", ylim=(1e-17, 30), xticks=range(0, count + 1, 4))
axes[1].set_xlabel("iterations")
axes[0].legend(fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
show(
    fig,
    pd.DataFrame(curves).T.rename_axis(["start", "scheme"]).reset_index(),
    name="fig-orthogonalisation",
    caption=f"Largest distance of a singular value from one. Cold: a Gaussian matrix of size 64 over its Frobenius norm (smallest value "
    f"{float(STARTS['cold'].min()):.0e}, seed {seed}); near: values from 0.7 to 1.3. CANS and Polar Express know the interval.",
    alt="Cold: Polar Express is the first to reach rounding error and Newton-Schulz the last, with CANS and the other maps of Björck between; near: all "
    "but Muon's quintic converge within a few iterations. Muon's quintic stays at about a third from the cold start and leaves the picture from the near one.",
)

# %% tags=["hide-input"]
ceiling = np.sqrt(np.roots([2.0315, -4.7750, 3.4445 - 1]).max())
claim(
    "muon-s-quintic-not",
    f"Muon's quintic does not converge: after {count} iterations from the cold start it is {curves['cold', 'muon'][-1]:.2f} away. Beyond {ceiling:.3f}, its "
    f"largest fixed point, it diverges, as from the near start: after 3 iterations the error is {curves['near', 'muon'][3]:.0e}.",
    0.15 < curves["cold", "muon"][-1] < 0.5 and 1 < ceiling < 1.3 and curves["near", "muon"][3] > 100,
)
near, cold = ({s: steps_to(curves[at, s]) for s in SCHEMES} for at in ("near", "cold"))
claim(
    "near-isometry-bj-rck",
    f"Near isometry Björck's maps of degree 3, 5, 7, 9 reach 1e-6 in {', '.join(str(near[s]) for s in SCHEMES[:4])} iterations.",
    max(near[s] for s in SCHEMES[:4]) <= 6,
)
first, last = cold["polar_express"], curves["cold", "newton_schulz"]
claim(
    "cold-start-polar-express",
    f"From a cold start Polar Express reaches 1e-6 in {first} iterations, CANS in {cold['cans']}; Newton-Schulz is {last[cold['cans']]:.2f} away then.",
    first <= cold["cans"] < count and last[cold["cans"]] > 0.05,
)
grid = torch.linspace(0.1, 1, 2001).double()
waves = {n: apply_polynomials(grid[:, None, None], (minimax_polynomial(0.1, 1, n),)).flatten() - 1 for n in (2, 3)}
turns = {
    n: [0, *(i for i in range(1, 2000) if (w[i] - w[i - 1]) * (w[i + 1] - w[i]) < 0), 2000] for n, w in waves.items()
}
heights = {n: [float(waves[n][i]) for i in turns[n]] for n in waves}
claim(
    "0-1-1-best",
    f"On [0.1, 1] the best cubic misses one by {', '.join(f'{e:+.4f}' for e in heights[2])}, the best quintic by "
    f"{', '.join(f'{e:+.4f}' for e in heights[3])}: they alternate.",
    all(
        len(heights[n]) == n + 1 and np.allclose(heights[n], -heights[n][0] * (-1.0) ** np.arange(1, n + 2), atol=1e-5)
        for n in (2, 3)
    ),
)

# %% [markdown]
# As library calls on one matrix, beside an exact method and torch's parametrizations. Here CANS and Polar Express are not told
# the interval but assume $\sigma_{\min} = 10^{-3}$. A step of a polynomial with $d$ coefficients costs $d$ matrix products.
# Torch's parametrizations map a free parameter to some orthogonal matrix, which is an easier task than to find the nearest to a
# given one. Times are ratios to the SVD in this very run, on one core (Muon's: for 20 iterations), and no claim rests on them:
# other sizes and hardware differ.


# %% tags=["hide-input"]
def measured(build):
    """Largest |sigma - 1| and the least time of five calls."""
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        Q = build()
        best = min(best, time.perf_counter() - begin)
    return float((singular_values(Q.detach()) - 1).abs().max()), best


def through_torch(method):
    layer = nn.Linear(128, 128, bias=False).double()
    orthogonal(layer, method)
    return lambda: layer.weight


M = normal(128, 128)
needed = {s: steps_to(errors_along(s, singular_values(scale_below_one(M)), 60, lower=1e-3)) for s in SCHEMES}
calls = {"SVD": lambda: polar_factor(M)}
calls |= {LABELS[s]: lambda s=s: orthogonalise(M, s, needed[s] or count) for s in SCHEMES}
calls |= {f"torch, {name}": through_torch(name) for name in ("householder", "cayley", "matrix_exp")}
outcome = {name: measured(build) for name, build in calls.items()}
after_15 = {s: measured(lambda s=s: orthogonalise(M, s, 15))[0] for s in SCHEMES}

# %% tags=["hide-input"]
by_label = {LABELS[s]: s for s in SCHEMES}
show_table(
    [
        {
            "128 x 128 Gaussian": name,
            "|σ − 1| after 15": f"{after_15[s]:.0e}" if s else "",
            "iterations to 1e-6": (needed[s] or "never") if s else "",
            "products": needed[s] * len(step_polynomials(s, 1)[0]) if s and needed[s] else "",
            "|σ − 1| then": f"{e:.0e}",
            "time over SVD": f"{t / outcome['SVD'][1]:.2f}",
        }
        for name, (e, t) in outcome.items()
        for s in [by_label.get(name)]
    ]
)

# %% tags=["hide-input"]
exact = ["SVD", *(n for n in calls if n.startswith("torch"))]
claim(
    "svd-torch-s-parametrizations",
    f"SVD and torch's parametrizations are orthogonal to {max(outcome[n][0] for n in exact):.0e}; 15 Newton-Schulz steps from a "
    f"Gaussian are not ({after_15['newton_schulz']:.2f}).",
    max(outcome[n][0] for n in exact) < 1e-10 and after_15["newton_schulz"] > 1e-3,
)
products = {s: needed[s] * len(step_polynomials(s, 1)[0]) for s in SCHEMES if needed[s]}
fewest = min(products, key=products.get)
claim(
    "counted-products-1e-6",
    f"Counted in products to 1e-6, {LABELS[fewest]} is cheapest ({products[fewest]}), Newton-Schulz takes {products['newton_schulz']}; a higher degree "
    f"alone does not help (Björck 4: {products['bjorck-4']}).",
    fewest in ("cans", "polar_express") and products["bjorck-4"] > products[fewest],
)
safe = float(singular_values(scale_below_one(M)).max())
claim(
    "safe-scaling-before-iteration",
    f"The safe scaling before an iteration leaves a largest singular value of {safe:.2f}, never above one.",
    safe <= 1 + 1e-6,
)

# %% [markdown]
# ## By construction, or by projection
#
# A weight can be kept orthogonal in two ways. *Hard parametrization*: keep a free matrix $V$, use $W = p_T(\dots p_1(V))$ in the
# forward pass, and differentiate through the iteration. *Projection*: step as if $W$ were free, then replace it by its polar
# factor. Which of the two the paper used is not known to us; the GroupSort authors' code has both.
#
# For a plain gradient step they are the same to first order: at an isometry $Q$ the derivative of the polar factor takes from a
# gradient $G$ what would change singular values, $G \mapsto G - Q\,\tfrac12(Q^\top G + G^\top Q)$, and so does projecting a
# small step. With Adam they differ: projection hands Adam the whole gradient, the parametrization only this part of it.

# %%
Q, G, small = polar_factor(normal(6, 6)), normal(6, 6), 1e-6
rotating = G - Q @ (Q.mT @ G + G.mT @ Q) / 2
through = torch.func.jvp(lambda V: orthogonalise(V, "newton_schulz", 30), (Q,), (G,))[1]
projected = (polar_factor(Q + small * G) - Q) / small

# %%
ways = {}
for hard in (True, False):
    begin = time.perf_counter()
    net, miss = fit("maxmin", 32, 3, hard=hard)
    weights = [m.weight.detach() for m in net if isinstance(m, nn.Linear)]
    off = max(float((singular_values(W) - 1).abs().max()) for W in weights)
    ways[hard] = miss, off, time.perf_counter() - begin

# %% tags=["hide-input"]
claim(
    "isometry-both-ways-take",
    f"At an isometry both ways take the same part of a gradient, to {float((through - rotating).abs().max()):.0e} (derivative of the iteration) and "
    f"{float((projected - rotating).abs().max()):.0e} (projection of a step of {small:.0e}).",
    float((through - rotating).abs().max()) < 1e-9 and float((projected - rotating).abs().max()) < 1e-3,
)
claim(
    "both-keep-every-weight",
    f"Both keep every weight orthogonal, to {ways[True][1]:.0e} by construction and {ways[False][1]:.0e} by projection, and fit the target to "
    f"{ways[True][0]:.2f} and {ways[False][0]:.2f}; ReLU with clipped singular values to {error['relu', 32, 3]:.2f}. (In this run the first took "
    f"{ways[True][2] / ways[False][2]:.1f} times as long.)",
    max(ways[True][1], ways[False][1]) < 1e-4 and max(ways[True][0], ways[False][0]) < error["relu", 32, 3],
)

# %% [markdown]
# ## Convolutions: the kernel's matrix is not the operator
#
# Eq. 16 on a kernel reshaped to (out, in $k^2$) makes that matrix semi-orthogonal. The convolution as a map of images has one
# block for each frequency. At stride 1 each entry of the kernel is met once at every pixel, so the sum of all squares is fixed,
# $hw \min(C_{out}, C_{in} k^2)$ for $hw \min(C_{out}, C_{in})$ singular values, and nothing else is: the root mean square is 1
# for $C_{out} \le C_{in}$, and above one for more outputs.
#
# Two cases are exact. With $C_{out} \ge C_{in} k^2$ the columns are orthonormal, $K^\top K = I$: the convolution is the map that
# copies each pixel into all windows that hold it, $(k/\text{stride})^2$ of them, followed by an isometry. So all singular values
# are $k/\text{stride}$. And a kernel with a centre tap only (delta-orthogonal) is isometric at stride 1 {cite:p}`xiao2018`; so
# is every 1 x 1 kernel.


# %%
def isometric_kernel(outputs, inputs, k):
    """A random kernel whose matrix is semi-orthogonal."""
    return polar_factor(normal(outputs, inputs * k * k)).reshape(outputs, inputs, k, k)


SHAPES = [(16, 16, 3), (4, 8, 3), (8, 4, 3), (64, 2, 3), (16, 16, 1)]
kernels = {shape: isometric_kernel(*shape) for shape in SHAPES}
operators = {shape: conv_operator_singular_values(kernel, 8) for shape, kernel in kernels.items()}
centre_tap = delta_orthogonal_(torch.empty(16, 16, 3, 3), generator=generator).double()
delta = conv_operator_singular_values(centre_tap, 8)


copies = isometric_kernel(64, 2, 4)


def strided(x):
    """Stride 2, window 4, circular padding: 2 channels of 8 x 8 pixels to 64 of 4 x 4."""
    return nn.functional.conv2d(
        nn.functional.pad(x.reshape(1, 2, 8, 8), (1, 1, 1, 1), mode="circular"), copies, stride=2
    )


uniform = singular_values(torch.func.jacrev(lambda x: strided(x).flatten())(normal(128)))

# %% tags=["hide-input"]
show_table(
    [
        {
            "channels": f"{inputs} → {outputs}",
            "window": f"{k} x {k}",
            "smallest": f"{v.min():.3f}",
            "median": f"{v.median():.3f}",
            "largest": f"{v.max():.3f}",
            "root mean square": f"{v.square().mean().sqrt():.3f}",
        }
        for (outputs, inputs, k), v in operators.items()
    ]
)

# %% tags=["hide-input"]
rms = {shape: float(v.square().mean().sqrt()) for shape, v in operators.items()}
square, narrow, wider = SHAPES[:3]
claim(
    "kernel-whose-matrix-singular",
    f"A kernel whose matrix has all singular values one is an operator with values from {float(operators[square].min()):.3f} to "
    f"{float(operators[square].max()):.2f} (16 → 16 channels), root mean square {rms[square]:.3f}; 8 → 4: {float(operators[narrow].min()):.2f} to "
    f"{float(operators[narrow].max()):.2f}, {rms[narrow]:.3f}; the bound is k = 3.",
    max(abs(rms[square] - 1), abs(rms[narrow] - 1)) < 1e-9
    and all(
        1.3 < float(operators[shape].max()) <= 3 and float(operators[shape].min()) < 0.5 for shape in (square, narrow)
    ),
)
claim(
    "expanding-4-8",
    f"Expanding, 4 → 8: {float(operators[wider].min()):.2f} to {float(operators[wider].max()):.2f} with root mean square {rms[wider]:.4f}, "
    "the root of 2.",
    abs(rms[wider] - 2**0.5) < 1e-9,
)
claim(
    "least-k-2-outputs",
    f"With at least in k^2 outputs the operator is uniform: all values {float(operators[64, 2, 3].mean()):.3f} = k at stride 1, and "
    f"{float(uniform.mean()):.3f} = k/stride for k = 4 at stride 2, to {float((uniform - 2).abs().max()):.0e}.",
    float((operators[64, 2, 3] - 3).abs().max()) < 1e-9 and float((uniform - 2).abs().max()) < 1e-9,
)
penalty = float(gram_deviation(as_matrix(centre_tap)))
others = max(float(gram_deviation(as_matrix(kernel))) for kernel in kernels.values())
claim(
    "exactly-isometric-stride-1",
    f"Exactly isometric at stride 1: 1 x 1 kernels, to {float((operators[16, 16, 1] - 1).abs().max()):.0e}, and delta-orthogonal ones, to "
    f"{float((delta - 1).abs().max()):.0e}. Eq. 16 is zero there, to {penalty:.0e}; but so it is for all kernels of the table ({others:.0e}).",
    float((operators[16, 16, 1] - 1).abs().max()) < 1e-9
    and float((delta - 1).abs().max()) < 1e-6
    and max(penalty, others) < 1e-10,
)

# %% [markdown]
# ## What the library refuses


# %%
def refusal(call):
    """The message of the error that a call raises."""
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


messages = {
    "odd width": refusal(lambda: MaxMin()(torch.zeros(7))),
    "group that does not divide": refusal(lambda: GroupSort(4)(torch.zeros(6))),
    "not finite": refusal(lambda: singular_values(torch.full((2, 2), torch.nan))),
    "empty": refusal(lambda: singular_values(torch.zeros(0, 3))),
    "no convergence": refusal(lambda: polar_factor(torch.ones(4, 4), method="polar_express")),
    "unknown scheme": refusal(lambda: orthogonalise(torch.eye(4), "polar-express", 8)),
}

# %% tags=["hide-input"]
show_table([{"input": name, "error": text} for name, text in messages.items()])
claim(
    "error-names-value",
    "Each is an error that names the value.",
    all(messages.values()) and "7" in messages["odd width"] and "'polar_express'" in messages["unknown scheme"],
)

# %% [markdown]
# ## What to conclude, and what not
#
# - Networks that are isometric almost everywhere, at any depth, exist and are simple: orthogonal weights and sorting.
# - They fit 1-Lipschitz functions that norm-constrained ReLU networks do not. The theorem that is usually quoted for this has other
#   constraints (infinity norms, scalar output); for orthonormal weights we have experiments, not a proof.
# - Near isometry, as inside training, Newton-Schulz is as good as anything; for a cold projection use Polar Express or CANS, and
#   never Muon's quintic.
# - Isometry of a kernel's matrix is not isometry of the convolution.
# - Isometric is not well-conditioned in every sense: features of different inputs still grow alike, faster for larger groups.
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
# **What is next.** {doc}`dormant_units`.

# %% tags=["hide-input"]
stamp(
    notebook="isometric_networks",
    parameters={"seed": seed, "steps": steps},
    wall_s=time.perf_counter() - started,
)
