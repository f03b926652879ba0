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
# # Isometry and the tangent kernel
#
# **Question.** Isometry is a property of weights: all singular values equal one. Plasticity is a property of learning: how
# much of a new task's loss does gradient descent remove? What connects the two, and how tightly?
#
# **Why it matters.** If the connection is loose, then pulling singular values towards one is a habit and not a cure. Who
# wants to use the method, or to improve it, has to know which quantity really decides, and what isometry leaves untouched.

# %% tags=["parameters", "hide-input"]
samples = 64  # 8..512: inputs of each kernel; it has 10 rows an input
width = 512  # 16..2048: units of each hidden layer, even
seeds = 3  # 1..32: number of seeds, 0 to seeds - 1
device = "auto"  # auto | cpu | cuda: where to compute

# %% tags=["hide-input"]
import copy
import functools
import itertools
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso.study import data, runner
from dyniso.study.tasks import standardise
from dyniso.report import figures
from dyniso import nets
from dyniso.activations import activation
from dyniso.report.notebook import claim, show, show_markdown, stamp
from dyniso.entk import backward_maps, empirical_ntk, feature_grams, ntk_summary, plasticity, without_constant_output

started = time.perf_counter()
torch.set_default_dtype(torch.float64)  # small eigenvalues are what this chapter is about
torch_device = runner.resolve_device(device)
figures.use_style()
digits = data.load("mnist-small")
pixels = standardise(digits).double()
C = digits.classes


def generator(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## What the paper says
#
# > A network is plastic if, within a fixed budget, gradient descent achieves a large expected fraction of what a new task
# > offers. Where no task is preferred, progress has to be alike in all directions of the output space, and that depends on the
# > condition number of the empirical neural tangent kernel (eNTK), not on its scale. Losing plasticity means that this kernel
# > becomes anisotropic. Dynamical isometry, all singular values of every layer's Jacobian close to one, is a tractable stand-in
# > for an isotropic kernel.
#
# This is the argument of {cite:t}`rosseau2026` in our words. We had its abstract and accounts by its readers, not its full
# text. So the formula for plasticity, the sum over layers, both theorems and every number below are **our
# reconstruction**: the link between isometry and the kernel as far as we can prove it. They may differ from what is printed.

# %% [markdown]
# ## Plasticity as a number
#
# Take $n$ inputs and a network with $C$ outputs, so $N = nC$ numbers $f_\theta$ to fit. With the targets $y$ of a task
# $\tau$, the residual is $r = f_\theta - y$ and the loss $\tfrac12\lVert r\rVert^2$. Plasticity over $K$ steps is
#
# $$
# P_K(\theta) = \mathbb{E}_\tau\Big[\,1 - \frac{L_\tau(\theta_K)}{L_\tau(\theta_0)}\Big] ,
# $$ (eq-plasticity-definition)
#
# the expected fraction of the loss that $K$ steps remove. Two assumptions make it computable.
#
# 1. **The kernel stands still** while these few steps are made {cite:p}`jacot2018`. A step of size $\eta$ changes the
#    parameters by $-\eta J^\top r$, with $J = \partial f/\partial\theta$, and so the outputs by $-\eta\,\Theta r$ with
#    $\Theta = JJ^\top$: $r_{k+1} = (I - \eta\Theta)\, r_k$. Higher orders of $\eta$ are dropped.
# 2. **No task is preferred**: the direction $u$ of $r_0$ is uniform on the sphere, hence $\mathbb{E}\,uu^\top = I/N$.
#
# Then $L_K/L_0 = u^\top (I - \eta\Theta)^{2K} u$, whose expectation is a trace:
#
# $$
# P_K = 1 - \frac1N \sum_{i=1}^{N} (1 - \eta\lambda_i)^{2K} .
# $$ (eq-plasticity)
#
# Steps beyond $2/\lambda_{\max}$ diverge, and networks are trained close to that edge {cite:p}`cohen2021`. So measure in its
# units: $\eta = 1/\lambda_{\max}$. Now only the ratios $p_i = \lambda_i/\lambda_{\max}$ enter. **The scale of the kernel drops
# out because the step adapts to it**; with a step held fixed, scale would matter.
#
# :::{prf:proposition} Bounds on plasticity
# :label: prop-plasticity
#
# With $\eta = 1/\lambda_{\max}$, condition number $\kappa = \lambda_{\max}/\lambda_{\min}$ and
# $\bar p = \tfrac1N\sum_i p_i$,
#
# $$
# 1 - (1 - 1/\kappa)^{2K} \;\le\; P_K \;\le\; 1 - (1 - \bar p)^{2K} ,
# $$
#
# and $P_K = 1$ for all $K$ exactly if $\Theta = cI$.
# :::
#
# :::{prf:proof}
# The map $p \mapsto 1 - (1-p)^{2K}$ increases on $[0, 1]$ and is concave. Each $p_i \ge 1/\kappa$ gives the lower bound,
# Jensen's inequality the upper. $P_1 = 1$ requires $(1-p_i)^2 = 0$ for every $i$, that is $\lambda_i = \lambda_{\max}$.
# :::
#
# The lower bound is approached only if *nearly all* directions are as slow as the slowest. So $\kappa$ is the pessimist's
# summary, $\bar p$ the optimist's, and $P_K$ itself is the one to report. Here are five spectra, four of them with the
# same $\kappa$. The dots are gradient descent, run step by step from random residuals.

# %%
N, kappa = 40, 100.0
i = torch.arange(1.0, N + 1)
spectra = {
    "flat": torch.ones(N),
    "one slow direction": torch.ones(N).index_fill(0, torch.tensor([N - 1]), 1 / kappa),
    "uniform": torch.linspace(1, 1 / kappa, N),
    "power law": i ** (-math.log(kappa) / math.log(N)),
    "one fast direction": torch.full((N,), 1 / kappa).index_fill(0, torch.tensor([0]), 1.0),
}


# %% tags=["hide-input"]
def rotated(lambdas, seed=0):
    """A kernel with these eigenvalues and uniformly random eigenvectors, and the eigenvectors."""
    Q = nets.orthogonal_(torch.empty(N, N), generator=generator(seed))
    return (Q * lambdas) @ Q.T, Q


def unit_residuals(draws=4000, seed=1):
    r = torch.randn(N, draws, generator=generator(seed))
    return r / r.norm(dim=0)


def loss_left(theta, r, step_size, steps):
    """Fraction of the loss left of each residual (a unit column of r) after each of `steps`, by descent."""
    left = []
    for k in range(1, max(steps) + 1):
        r = r - step_size * theta @ r
        if k in steps:
            left.append(r.square().sum(0))
    return torch.stack(left)


def descend(lambdas, steps):
    """Mean fraction of the loss removed after each of `steps` by descent from random residuals, and its standard error."""
    removed = 1 - loss_left(rotated(lambdas)[0], unit_residuals(), 1 / lambdas.max(), steps)
    return removed.mean(1), removed.std(1) / removed.shape[1] ** 0.5


# %% tags=["hide-input"]
checked_steps = [1, 2, 5, 10, 20, 50, 100]
all_steps = torch.arange(1, 101)
rows = []
for name, lambdas in spectra.items():
    exact = plasticity(torch.diag(lambdas), all_steps)
    mean, error = descend(lambdas, checked_steps)
    dots = dict(zip(checked_steps, zip(mean.tolist(), error.tolist(), strict=True), strict=True))
    for K, P in zip(all_steps.tolist(), exact.tolist(), strict=True):
        simulated, standard_error = dots.get(K, (math.nan, math.nan))
        rows.append({"spectrum": name, "steps": K, "P_K": P, "simulated": simulated, "standard_error": standard_error})
curves = pd.DataFrame(rows)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 4.4), layout="constrained")
for (name, p), colour, dash in zip(
    curves.groupby("spectrum", sort=False), figures.palette(5), figures.DASHES, strict=False
):
    ax.plot(p["steps"], p["P_K"], color=colour, linestyle=dash, label=name)
    ax.plot(p["steps"], p["simulated"], "o", color=colour, markersize=5)
ax.set(xscale="log", xlabel="gradient steps K", ylabel="fraction of the loss removed, $P_K$", ylim=(0, 1.04))
ax.grid(True)
fig.legend(loc="outside upper center", ncols=2)
show(
    fig,
    curves,
    name="fig-plasticity-spectra",
    caption="Plasticity $P_K$ over the number of steps for five spectra of size 40, of which four have condition number "
    "100. Lines: {eq}`eq-plasticity`. Dots: mean over 4,000 simulated descents a spectrum (one seed), standard error smaller than a dot.",
    alt="Plasticity rises with the number of steps. Flat is 1 at once; one slow direction stays near 1; uniform and power "
    "law rise in between; one fast direction stays lowest, though four of the five share one condition number.",
)

# %% tags=["hide-input"]
dotted = curves.dropna()
random = dotted[dotted["standard_error"] > 1e-12]
z = ((random["simulated"] - random["P_K"]).abs() / random["standard_error"]).max()
gap = (dotted["simulated"] - dotted["P_K"]).abs().max()
claim(
    "formula-simulation-differ-most",
    f"Formula and simulation differ by at most {gap:.4f}, {z:.1f} standard errors.",
    z < 5,
)

at_10 = {name: float(plasticity(torch.diag(lambdas), 10)) for name, lambdas in spectra.items()}
lowest = 1 - (1 - 1 / kappa) ** 20
claim(
    "one-condition-number",
    f"One condition number, {kappa:.0f}; ten steps remove {at_10['one fast direction']:.2f} to {at_10['one slow direction']:.2f} "
    f"of the loss.",
    at_10["one fast direction"] < 0.25 and at_10["one slow direction"] > 0.95,
)
inside = all(lowest - 1e-12 <= at_10[s] <= 1 - (1 - float(spectra[s].mean())) ** 20 + 1e-12 for s in spectra)
claim("five-lie-between-their", f"All five lie between their bounds; the lower one is {lowest:.2f}.", inside)

after_one = {name: float(plasticity(torch.diag(lambdas), 1)) for name, lambdas in spectra.items()}
uneven = {name: lambdas for name, lambdas in spectra.items() if name != "flat"}
claim(
    "one-step-removes",
    f"One step removes {after_one['flat']:.2f} of the loss for the flat spectrum, at most {max(after_one[name] for name in uneven):.3f} for the others.",
    after_one["flat"] == 1 and all(after_one[name] < 1 for name in uneven),
)

# %% [markdown]
# ### The worst residual, and flow in place of steps
#
# Two other conventions are common. Both follow from the same $r_k = (I - \eta\Theta)^k r_0$.
#
# **The worst residual.** Of a residual along eigenvector $i$ the fraction $(1 - \eta\lambda_i)^{2K}$ of the loss is left; of any other a
# weighted mean of these, so never more than the largest. As $|1 - \eta\lambda|$ is convex in $\lambda$, the largest
# belongs to an end of the spectrum. A longer step makes $\eta\lambda_{\max} - 1$ larger, a shorter one $1 - \eta\lambda_{\min}$, so
# the best constant step has them equal:
#
# $$
# \eta^* = \frac{2}{\lambda_{\max} + \lambda_{\min}} , \qquad
# \max_{r_0} \frac{L_K}{L_0} = \Big(\frac{\kappa - 1}{\kappa + 1}\Big)^{2K} .
# $$ (eq-worst-residual)
#
# This is what $\kappa$ means by itself: a guarantee for the worst task, whatever the rest of the spectrum.
#
# **Gradient flow.** With ever smaller steps $\dot r = -\Theta r$, so $r(t) = e^{-\Theta t} r_0$. The mean over directions is
#
# $$
# P(t) = 1 - \frac1N \sum_{i=1}^{N} e^{-2\lambda_i t} .
# $$ (eq-gradient-flow)
#
# Only products $\lambda_i t$ enter: to double the kernel is to double the time. **Here the scale matters**, as it does for any step
# that is held fixed. That plasticity does not depend on the scale is a statement about steps that adapt. And as $1 - p \le e^{-p}$ for
# $0 \le p \le 1$, $K$ steps of $1/\lambda_{\max}$ remove at least what flow removes in the time $K/\lambda_{\max}$.


# %%
def flow(lambdas, time):
    """Expected fraction of the loss that gradient flow removes."""
    return float(1 - (-2 * lambdas * time).exp().mean())


def worst_left(lambdas, step_size, K=10):
    """Largest fraction of the loss that K steps of descent leave of an eigenvector."""
    theta, eigenvectors = rotated(lambdas)
    return float(loss_left(theta, eigenvectors, step_size, [K]).max())


# %% tags=["hide-input"]
best_step = {name: 2 / float(lambdas.max() + lambdas.min()) for name, lambdas in spectra.items()}
conventions = pd.DataFrame(
    {
        "spectrum": name,
        "$P_{10}$": at_10[name],
        r"flow, $P(10/\lambda_{\max})$": flow(lambdas, 10 / float(lambdas.max())),
        r"worst, $\eta = 1/\lambda_{\max}$": 1 - worst_left(lambdas, 1 / float(lambdas.max())),
        r"worst, $\eta^*$": 1 - worst_left(lambdas, best_step[name]),
    }
    for name, lambdas in spectra.items()
).set_index("spectrum")


# %% tags=["hide-input"]
def markdown(frame, formats, note):
    """Show a table as Markdown, with mathematics in its headings; a missing value is empty."""

    def cell(value, form):
        return "" if math.isnan(value) else form.format(value).replace("inf", "∞")

    head = [frame.index.name, *frame.columns], [":--", *["--:"] * len(frame.columns)]
    body = [[name, *map(cell, values, formats)] for name, *values in frame.itertuples(name=None)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in (*head, *body)) + f"\n\n{note}"
    show_markdown(text)


# %% tags=["hide-input"]
markdown(
    conventions,
    ["{:.2f}"] * 4,
    rf"Fraction of the loss that ten steps remove, or flow in the time $10/\lambda_{{\max}}$: means over all directions, and of the "
    rf"worst residual at two constant steps. All but the flat spectrum have $\kappa = {kappa:.0f}$.",
)

# %% tags=["hide-input"]
guarantee = ((kappa - 1) / (kappa + 1)) ** 20
left = [worst_left(lambdas, best_step[name]) for name, lambdas in uneven.items()]
claim(
    "worst-residual-best-step",
    f"Worst residual, best step: ten steps leave {max(left):.4f}, by formula {guarantee:.4f}, on all {len(left)} uneven spectra.",
    max(abs(value - guarantee) for value in left) < 1e-12,
)
theta, ends = rotated(spectra["uniform"])[0], rotated(spectra["uniform"])[1][:, [0, -1]]
slow, fast = loss_left(theta, ends, best_step["uniform"], [10])[0].tolist()
random_left = loss_left(theta, unit_residuals(), best_step["uniform"], [10])[0]
most = float(random_left.max())
claim(
    "slowest-fastest-direction-left",
    f"Slowest and fastest direction are left alike there; of {len(random_left):,} random residuals at most {most:.2f} is left.",
    abs(slow - fast) < 1e-12 and most <= guarantee,
)
lengths = [k / 100 for k in range(80, 121) if k != 100]
others = [worst_left(spectra["uniform"], length * best_step["uniform"]) for length in lengths]
claim(
    "other-steps-times-long",
    f"Each of {len(others)} other steps, {min(lengths):.2f} to {max(lengths):.2f} times as long, leaves more.",
    min(others) > guarantee,
)

# %% tags=["hide-input"]
lambdas, duration = spectra["power law"], 10.0
theta, counts = torch.diag(lambdas), (10, 100, 1000, 10_000)
off = [float(plasticity(theta, k, step_size=duration / k)) - flow(lambdas, duration) for k in counts]
claim(
    "power-law-steps-time",
    f"Power law: {', '.join(f'{k:,}' for k in counts)} steps in the time of flow remove {', '.join(f'{v:.0e}' for v in off)} more.",
    off[-1] < 1e-4 and all(0 < later < earlier / 5 for earlier, later in itertools.pairwise(off)),
)
walk = counts[2]
walked = float(1 - loss_left(rotated(lambdas)[0], torch.eye(N), duration / walk, [walk]).mean())
claim(
    "flow-removes-steps-descent",
    f"Flow removes {flow(lambdas, duration):.4f}; {walk:,} steps of descent, averaged over an orthonormal basis, {walked:.4f}.",
    abs(walked - flow(lambdas, duration)) < 1e-3,
)
doubled, longer = flow(2 * lambdas, duration), flow(lambdas, 2 * duration)
fixed = [float(plasticity(c * theta, 10, step_size=0.5)) for c in (1, 2)]
adapted = [float(plasticity(c * theta, 10)) for c in (1, 2)]
claim(
    "twice-kernel",
    f"Twice the kernel: flow removes {doubled:.2f}, as in twice the time; ten fixed steps {fixed[0]:.2f}, then {fixed[1]:.2f}; adapted steps {adapted[0]:.2f} both times.",
    abs(doubled - longer) < 1e-12 and fixed[1] > fixed[0] + 0.05 and abs(adapted[0] - adapted[1]) < 1e-12,
)
ahead = conventions["$P_{10}$"] - conventions.iloc[:, 1]
claim(
    "ten-adapted-steps-remove",
    f"Ten adapted steps remove {ahead.min():.3f} to {ahead.max():.3f} more than flow in the same time.",
    ahead.min() >= 0,
)

# %% [markdown]
# For cross-entropy the residual, probabilities minus labels, sums to zero over the outputs of each sample: its components along the
# constant output vanish. So that direction should be left out of the kernel first, which
# `dyniso.entk.without_constant_output` does.
#
# ## The kernel, layer by layer
#
# Write the network as $h_0 = x$, $z_l = W_l h_{l-1} + b_l$, $h_l = \phi(z_l)$ for $l < L$, and $f = z_L$. Let $D_l(x)$ be the
# Jacobian of the nonlinearity: diagonal for ReLU, a permutation for MaxMin. The **backward map** of layer $l$ is
#
# $$
# B_l(x) = \frac{\partial f}{\partial z_l} = W_L D_{L-1} W_{L-1} \cdots W_{l+1} D_l , \qquad B_L = I_C .
# $$ (eq-backward-map)
#
# A weight acts only through $z_l$. By the chain rule $\partial f_c/\partial W_{l,ij} = (B_l)_{ci}\,(h_{l-1})_j$ and
# $\partial f_c/\partial b_{l,i} = (B_l)_{ci}$. Sum the products of these derivatives at $x$ and $x'$ over
# $i$, $j$ and $l$, and the kernel is
#
# $$
# \Theta(x,x') = \sum_{l=1}^{L} \big(\langle h_{l-1}(x), h_{l-1}(x')\rangle + \beta\big)\; B_l(x)\,B_l(x')^\top ,
# $$ (eq-entk-sum)
#
# with $\beta = 1$ if layers have biases and $0$ if not. This is exact, for any width. For $n$ samples, collect the inner products, $\beta$
# included, in the Gram matrix $K_l$ ($n \times n$) and put the backward maps into one block-diagonal matrix
# $\mathbf{B}_l = \mathrm{diag}(B_l(x_1), \dots, B_l(x_n))$:
#
# $$
# \Theta = \sum_{l=1}^{L} \mathbf{B}_l\,(K_l \otimes I_{d_l})\,\mathbf{B}_l^\top .
# $$ (eq-entk-blocks)
#
# So each layer contributes two factors. **The Jacobians of the layers above it make $\mathbf{B}_l$. The features that arrive from below make
# $K_l$**, and $K_1$ is the Gram matrix of the data. It is not true that the eNTK is the Gram matrix of the product of
# layer Jacobians: that is the first factor only.
#
# The library computes the kernel twice, independently: `"jacobian"` forms $J$ and multiplies; `"layerwise"` is {eq}`eq-entk-sum` and
# never forms $J$. Here are both on real images, and the formula spelled out a third time.


# %%
def spelled_out(model, x):
    """The sum over layers, from the backward maps and the Gram matrices."""
    B, K = backward_maps(model, x), feature_grams(model, x)
    theta = sum(torch.einsum("ij,icu,jdu->icjd", K[l], B[l], B[l]) for l in B)
    return theta.flatten(2).flatten(0, 1)


narrow = min(width, 128)  # the Jacobian of a wide net does not fit
few = pixels[:8].to(torch_device)
gaps = {}
for phi in ("relu", "maxmin", "abs", "crelu", "groupsort-4"):
    model = nets.mlp(784, C, narrow, 3, phi, init="default", seed=0).to(torch_device)
    theta = empirical_ntk(model, few, method="jacobian")
    others = empirical_ntk(model, few, method="layerwise"), spelled_out(model, few)
    gaps[phi] = max(float((other - theta).abs().max() / theta.abs().max()) for other in others)

# %% tags=["hide-input"]
claim(
    "mnist-images-activations-three",
    f"{len(few)} MNIST images, {len(gaps)} activations: all three agree to {max(gaps.values()):.0e} of the largest entry.",
    max(gaps.values()) < 1e-12,
)

# %% [markdown]
# ### Convolutions
#
# A convolution uses one weight at many positions $p$: $z_p = W h_p + b$, where $h_p$ is the patch of its input below position $p$. So the
# derivative by the weight is a sum over positions. With $B_p = \partial f/\partial z_p$, the part of the backward map that belongs to $p$,
# and one bias a channel, the per-sample gradient of output $c$ is
# $\partial f_c/\partial W = \sum_p (B_p)_c^\top h_p^\top$. The layer's term of the kernel is the inner product of two of them:
#
# $$
# \Theta_l(x,x') = \sum_{p,\,q} \big(\langle h_p(x), h_q(x')\rangle + \beta\big)\, B_p(x)\,B_q(x')^\top .
# $$ (eq-entk-shared)
#
# The sum over layers stays exact, and a linear layer is the case of one position. What is lost is the factorisation: the double sum is no
# longer one inner product of features times one $B B'^\top$. Positions are coupled, $p$ at one sample with every $q$ at the other.
#
# The library multiplies the per-sample gradients of a convolution. The chapter's version below never forms them and sums over pairs of positions.


# %%
def positions(layer, h):
    """What a layer sees at each position, (n, fan-in, positions). A linear layer has one."""
    if isinstance(layer, nn.Linear):
        return h[..., None]
    return nn.functional.unfold(h, layer.kernel_size, padding=layer.padding, stride=layer.stride)


@torch.no_grad()
def over_positions(model, x):
    """The sum over layers and over pairs of positions."""
    B, h, theta = backward_maps(model, x), x, 0
    for name, layer in model.named_children():
        if name in B:
            seen = positions(layer, h)
            B_l = B[name].unflatten(2, (-1, seen.shape[2]))  # (n, C, channels, positions)
            inner = torch.einsum("ikp,jkq->ipjq", seen, seen) + 1
            theta = theta + torch.einsum("icup,ipjq,jduq->icjd", B_l, inner, B_l)
        h = layer(h)
    return theta.flatten(2).flatten(0, 1)


# %%
pictures = pixels[:6].reshape(-1, 1, 28, 28).to(torch_device)


def small_cnn(phi, downsample, init):
    return nets.cnn((1, 28, 28), C, (8, 16), (32,), phi, downsample=downsample, init=init, seed=0).to(torch_device)


gaps = {}
for phi in ("relu", "maxmin"):  # MaxMin sorts pairs of channels
    model = small_cnn(phi, "stride", "default")
    theta = empirical_ntk(model, pictures, method="jacobian")
    others = empirical_ntk(model, pictures, method="layerwise"), over_positions(model, pictures)
    gaps[phi] = max(float((other - theta).abs().max() / theta.abs().max()) for other in others)

# %% tags=["hide-input"]
claim(
    "mnist-images-strided-cnns",
    f"{len(pictures)} MNIST images, strided CNNs with ReLU and MaxMin: all three agree to {max(gaps.values()):.0e} of the largest entry.",
    max(gaps.values()) < 1e-12,
)

# %% [markdown]
# ## Two bounds
#
# Now isometry can enter. Write $M_m = W_m D_{m-1}$ for the Jacobian of $z_m$ by $z_{m-1}$, so that $B_l = M_L \cdots M_{l+1}$, and
# $a_l = \lVert h_{l-1}\rVert^2 + \beta$.
#
# :::{prf:theorem} One sample
# :label: thm-one-sample
#
# Let $0 \le \alpha_m \le \lVert M_m^\top v\rVert \le \beta_m$ for all unit vectors $v$ and $m = 2, \dots, L$, and $a_L > 0$. Then the first of
#
# $$
# \kappa\big(\Theta(x,x)\big) \;\le\; \frac{\sum_l a_l \prod_{m>l} \beta_m^2}{\sum_l a_l \prod_{m>l} \alpha_m^2}
# \;\le\; \max_l \prod_{m>l} \frac{\beta_m^2}{\alpha_m^2} \;=\; \prod_{m=2}^{L} \frac{\beta_m^2}{\alpha_m^2}
# $$
#
# holds, and if every $\alpha_m > 0$, so does the second. With the tightest $\alpha_m$ and $\beta_m$ the product is $\prod_m \kappa(M_m)^2$.
# :::
#
# :::{prf:proof}
# For a unit vector $v \in \mathbb{R}^C$, {eq}`eq-entk-sum` gives $v^\top\Theta(x,x)\,v = \sum_l a_l \lVert B_l^\top v\rVert^2$, and
# $B_l^\top v = M_{l+1}^\top \cdots M_L^\top v$ has a norm between $\prod_{m>l}\alpha_m$ and $\prod_{m>l}\beta_m$. So every
# eigenvalue lies between the two sums, and the lower sum is at least its last term, $a_L$. A ratio of sums of positive terms is at most
# the largest ratio of terms. As no $\beta_m/\alpha_m$ is below 1, that is the ratio for $l = 1$, the product of all.
# :::
#
# $\alpha_m > 0$ means that $M_m^\top$ loses no vector. It fails for a layer that widens ($W_m^\top$ then has a null space), and for
# ReLU in a square layer as soon as one gate is closed. Then the product is infinite. The ratio of sums stays finite, as features that
# reach the head keep $a_L$ above zero; but its lower sum has lost every term below that layer.
#
# :::{prf:theorem} Many samples
# :label: thm-many-samples
#
# Let $\sigma_{\min}(B)$ and $\sigma_{\max}(B)$ be the extremes of $\lVert B^\top v\rVert$ over unit vectors $v \in \mathbb{R}^C$. Then
#
# $$
# \begin{aligned}
# \kappa(\Theta) &\le \frac{\sum_l \lambda_{\max}(K_l)\,\max_i \sigma_{\max}(B_l(x_i))^2}{\sum_l \lambda_{\min}(K_l)\,\min_i \sigma_{\min}(B_l(x_i))^2} \\[1ex]
# &\le \max_l\; \kappa(K_l)\, \bigg(\frac{\max_i \sigma_{\max}(B_l(x_i))}{\min_i \sigma_{\min}(B_l(x_i))}\bigg)^{2} .
# \end{aligned}
# $$
# :::
#
# :::{prf:proof}
# Let $v = (v_1, \dots, v_n)$ be a unit vector and $w = \mathbf{B}_l^\top v$, with blocks $w_i = B_l(x_i)^\top v_i$. Then
# $v^\top \mathbf{B}_l (K_l \otimes I)\mathbf{B}_l^\top v = w^\top (K_l \otimes I)\, w$ lies between $\lambda_{\min}(K_l)\lVert w\rVert^2$ and
# $\lambda_{\max}(K_l)\lVert w\rVert^2$, and $\lVert w\rVert^2 = \sum_i \lVert B_l(x_i)^\top v_i\rVert^2$ between $\min_i\sigma_{\min}^2$ and
# $\max_i\sigma_{\max}^2$. Sum over $l$; then as before.
# :::
#
# Three consequences, each a line of algebra.
#
# **Isometric networks.** Let $D_l D_l^\top = I$ (MaxMin, GroupSort, Householder, $|z|$), $W_m W_m^\top = I$ for $1 < m < L$, and
# $W_L W_L^\top = s^2 I$. Then $B_l B_l^\top = s^2 I$ for $l < L$, so
# $\Theta(x,x) = \big(a_L + s^2 \sum_{l<L} a_l\big) I$ and $\kappa(\Theta) \le \max_l \kappa(K_l)$: isotropic within every sample, and
# *between samples only the conditioning of the Gram matrices is left*. This needs weights that are used once. In {eq}`eq-entk-shared`
# $B_l B_l^\top = \sum_p B_p B_p^\top$ may be a multiple of $I$ while the terms with $p \ne q$ are not.
#
# **A free head.** Leave $W_L$ arbitrary, with extreme singular values $s_{\min}, s_{\max}$, and let $S = \sum_{l<L} a_l$. Then
# $\Theta(x,x) = a_L I + S\, W_L W_L^\top$, hence
#
# $$
# \kappa\big(\Theta(x,x)\big) = \frac{a_L + s_{\max}^2 S}{a_L + s_{\min}^2 S} \;\le\; \kappa(W_L)^2 .
# $$ (eq-free-head)
#
# **A floor.** Every term of {eq}`eq-entk-blocks` is positive semi-definite, and the last one is $K_L \otimes I_C$. So
# $\lambda_{\min}(\Theta) \ge \lambda_{\min}(K_L)$ whatever the layers below do: features of full rank bound the kernel from below.
#
# ### Do they hold on real networks?
#
# To see, we need networks with chosen spectra. Draw random singular vectors, prescribe the singular values:


# %%
@functools.lru_cache(maxsize=8)
def singular_vectors(rows, columns, seed):
    """Uniformly random singular vectors of a matrix; the same for every spectrum."""
    rank = min(rows, columns)
    U = nets.orthogonal_(torch.empty(rows, rank), generator=generator(2 * seed))
    V = nets.orthogonal_(torch.empty(rank, columns), generator=generator(2 * seed + 1))
    return U, V


def linear_layers(model):
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def constant(value):
    return lambda size: torch.full((size,), value)


def some(count, value):
    """The first few singular values differ from 1."""
    return lambda size: torch.ones(size).index_fill(0, torch.arange(count), value)


def power_law(size):
    return 8 * torch.arange(1.0, size + 1) ** -0.7  # few large, many small


# %% [markdown]
# The networks have inputs of 784 numbers, three hidden layers, ten outputs, and biases (zero at the start). "Orthogonal" is the
# spectrum of ones, "gain" another constant. The head is orthogonal unless a row says otherwise. All networks of one seed
# share their singular vectors, except He's.

# %%
ones, spikes = constant(1.0), some(5, 5.0)
NETS = {  # activation, singular values of the hidden layers, of the head; None: He Gaussian weights
    "MaxMin, orthogonal": ("maxmin", ones, ones),
    "MaxMin, spikes": ("maxmin", spikes, ones),
    "MaxMin, spikes in head": ("maxmin", ones, spikes),
    "MaxMin, power law": ("maxmin", power_law, ones),
    "ReLU, orthogonal, gain 1": ("relu", ones, ones),
    "ReLU, orthogonal, gain √2": ("relu", constant(2**0.5), ones),
    "ReLU, He Gaussian": ("relu", None, None),
    "ReLU, power law": ("relu", power_law, ones),
}


# %%
@functools.lru_cache(maxsize=1)
def build(net, seed):
    """A net with the prescribed singular values, on the device; to be read only."""
    phi, hidden, head = net
    model = nets.mlp(784, C, width, 3, phi, init="kaiming", seed=seed)
    for depth, (layer, law) in enumerate(zip(linear_layers(model), (hidden, hidden, hidden, head), strict=True)):
        if law:
            U, V = singular_vectors(*layer.weight.shape, 10 * seed + depth)
            layer.weight.data.copy_((U * law(U.shape[1])) @ V)
    return model.to(torch_device)


# %% [markdown]
# And inputs. Biases add 1 to every inner product in $K_l$, so the length of the inputs matters: short inputs look alike, long ones drown
# the bias. We take random directions with $\lVert x\rVert^2 = 10$, optionally correlated; the same directions with
# $\lVert x\rVert^2 = 784$; and standardised MNIST images.


# %%
def sphere(norm_squared, correlation=0.0, seed=0, count=samples, size=784):
    """Random directions of equal length, each pair with the given expected cosine."""
    g = generator(1000 + seed)
    x = math.sqrt(1 - correlation) * torch.randn(count, size, generator=g)
    x += math.sqrt(correlation) * torch.randn(1, size, generator=g)
    return x * math.sqrt(norm_squared) / x.norm(dim=1, keepdim=True)


def images(seed):
    """Random MNIST images, and their labels."""
    rows = torch.randperm(len(pixels), generator=generator(seed))[:samples]
    return pixels[rows], torch.from_numpy(digits.y)[rows]


# %% tags=["hide-input"]
def sample_blocks(theta, outputs=C):
    """Theta(x, x) of every sample, shape (samples, C, C)."""
    return theta.unflatten(0, (-1, outputs)).unflatten(2, (-1, outputs)).diagonal(0, 0, 2).permute(2, 0, 1)


def ratio_or_infinite(high, low):
    """high / low, infinite where low is nothing but rounding."""
    return torch.where(low > 1e-12 * high, high / low, math.inf)


def stretch(W, gates):
    """alpha and beta of M = W D. `gates`: which units below are open, a row a sample (ReLU); None: D is orthogonal."""
    sigma = torch.linalg.svdvals(W)
    if gates is None:
        return sigma[-1], sigma[0]
    if len(W) == len(W[0]):  # a closed gate of a square layer loses a direction
        return torch.where(gates.all(1), sigma[-1], 0.0), sigma[0]
    sigma = torch.linalg.svdvals(W * gates[:, None])
    return sigma[:, -1], sigma[:, 0]


@torch.no_grad()
def one_sample_bounds(model, x):
    """Theorem 1 for every sample: the ratio of sums, and the product."""
    a = [K.diagonal() for K in feature_grams(model, x).values()]
    high, low, product, h, later = a[0], a[0], torch.ones_like(a[0]), x, iter(a[1:])
    for below, layer in itertools.pairwise(model):
        h = below(h)
        if isinstance(layer, nn.Linear) and not isinstance(below, nn.Flatten):
            alpha, beta = stretch(layer.weight, h > 0 if isinstance(below, nn.ReLU) else None)
            a_m, product = next(later), product * ratio_or_infinite(beta, alpha) ** 2
            high, low = a_m + beta**2 * high, a_m + alpha**2 * low
    return high / low, product


def many_sample_bounds(B, K):
    """Theorem 2: the ratio of sums, and the largest ratio."""
    k = torch.stack([torch.linalg.eigvalsh(K[l])[[0, -1]] for l in B])
    s = torch.stack([torch.stack(torch.aminmax(torch.linalg.svdvals(B[l]))) for l in B])
    low, high = (k * s**2).unbind(1)
    low = torch.where((k[:, 0] > 1e-12 * k[:, 1]) & (s[:, 0] > 1e-12 * s[:, 1]), low, 0.0)  # the rest is rounding
    return float(high.sum() / low.sum()), float((high / low).max())


def bounds(model, x):
    """Condition numbers, measured and bounded: of every sample's block, and of the whole kernel."""
    theta, B, K = empirical_ntk(model, x), backward_maps(model, x), feature_grams(model, x)
    block = torch.linalg.cond(sample_blocks(theta, theta.shape[0] // len(x)))
    sums, product = one_sample_bounds(model, x)
    spectrum, (kernel_sums, kernel_ratio) = ntk_summary(theta), many_sample_bounds(B, K)
    return {
        "block": float(block.max()),
        "block_sums": float(sums.max()),
        "block_product": float(product.max()),
        "kernel": float(spectrum.condition_number),
        "kernel_sums": kernel_sums,
        "kernel_ratio": kernel_ratio,
        "lambda_min_over_floor": float(spectrum.eigenvalues[0] / torch.linalg.eigvalsh(K[list(K)[-1]])[0]),
        "each_sample_holds": bool((block <= sums * (1 + 1e-9)).all() and (sums <= product * (1 + 1e-9)).all()),
    }


# %% tags=["hide-input"]
x = sphere(10).to(torch_device)
tightness = pd.DataFrame([{"network": name, **bounds(build(net, 0), x)} for name, net in NETS.items()])
open_gates = [(h > 0).sum(1).max() for h in (build(NETS["ReLU, orthogonal, gain 1"], 0)[:k](x) for k in (3, 5, 7))]


# %% tags=["hide-input"]
def draw_bounds(ax, measured, bounds):
    """A row a network: what is measured, the two bounds, and an arrow where a bound is infinite."""
    colours, y = figures.palette(3), np.arange(len(tightness))
    finite = {bound: tightness[bound].where(np.isfinite(tightness[bound])) for bound in bounds}
    ax.plot(tightness[measured], y, "o", color=colours[0], label="measured")
    for (bound, label), marker, colour in zip(bounds.items(), "sD", colours[1:], strict=True):
        ax.plot(finite[bound], y, marker, color=colour, label=label, markerfacecolor="none", markersize=7)
        edge = ax.get_yaxis_transform()
        for row in y[~np.isfinite(tightness[bound])]:
            ax.plot([0.985], [row], ">", color=colour, transform=edge, clip_on=False)
            ax.text(0.965, row, "infinite", transform=edge, ha="right", va="center", color=colour)
    ax.set(xscale="log", yticks=y, yticklabels=tightness["network"])
    ax.invert_yaxis()
    ax.grid(True, axis="x")


# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(5.2, 6.4), sharex=True, layout="constrained")
draw_bounds(axes[0], "block", {"block_sums": "bound, ratio of sums", "block_product": "bound, last expression"})
draw_bounds(axes[1], "kernel", {"kernel_sums": "bound, ratio of sums", "kernel_ratio": "bound, last expression"})
axes[0].set_title("one sample, worst of the batch")
axes[1].set(title="all samples", xlabel="condition number")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
show(
    fig,
    tightness,
    name="fig-bounds",
    caption="Condition numbers measured and bounded: of one sample's block $\\Theta(x,x)$ by the two expressions of {prf:ref}`thm-one-sample`, "
    "and of the whole kernel by those of {prf:ref}`thm-many-samples`. An arrow at the right edge: the bound is infinite. "
    f"{samples} random inputs with $\\lVert x\\rVert^2 = 10$, width {width}, one seed.",
    alt="Two panels of dots on a logarithmic axis, one row a network. Bounds touch the measured value for isometric MaxMin. For one sample the "
    "product is off by orders of magnitude or, for every ReLU network, infinite, marked by arrows at the right edge; for all samples the bounds stay near.",
)

# %% tags=["hide-input"]
t = tightness.set_index("network")
ordered = (t["kernel"] <= t["kernel_sums"]).all() and (t["kernel_sums"] <= t["kernel_ratio"]).all()
claim(
    "both-bounds-hold",
    f"Both bounds hold on all {len(t)} networks, in either expression, and the first on each of {samples} samples.",
    bool(t["each_sample_holds"].all() and ordered),
)
claim(
    "so-floor",
    f"So does the floor: λmin(Θ) is {t['lambda_min_over_floor'].min():.1f} to {t['lambda_min_over_floor'].max():.0f} times λmin(K_L).",
    bool((t["lambda_min_over_floor"] >= 1 - 1e-9).all()),
)
isometric = t.loc["MaxMin, orthogonal"]
claim(
    "isometric-maxmin-kappa-theta",
    f"Isometric MaxMin: κ(Θ(x,x)) - 1 is at most {isometric['block'] - 1:.0e}.",
    isometric["block"] < 1 + 1e-9,
)
off = []
for s in (3.0, 1.0):
    model = build(("maxmin", ones, constant(s)), 0)
    *below, a_L = (K.diagonal() for K in feature_grams(model, x).values())
    multiple = (a_L + s**2 * sum(below))[:, None, None] * torch.eye(C).to(torch_device)
    off.append(float((sample_blocks(empirical_ntk(model, x)) - multiple).abs().max() / multiple.max()))
claim(
    "blocks-l-plus-s",
    f"Its blocks are a_L plus s² times the sum of the other a_l, times I, for heads of s = 1 and 3, to {max(off):.0e} of the largest entry.",
    max(off) < 1e-12,
)
grams = feature_grams(model, x)
worst = max(float(torch.linalg.cond(K)) for K in grams.values())
claim(
    "kappa-theta",
    f"Its κ(Θ) = {isometric['kernel']:.0f} is below the worst Gram matrix, {worst:.0f}.",
    isometric["kernel"] < worst,
)

model = build(NETS["MaxMin, spikes in head"], 0)
a = [float(torch.diagonal(K)[0]) for K in feature_grams(model, x).values()]
formula = (a[-1] + 25 * sum(a[:-1])) / (a[-1] + sum(a[:-1]))
block = float(torch.linalg.cond(sample_blocks(empirical_ntk(model, x[:1]))[0]))
claim(
    "free-head-first-sample",
    f"Free head, first sample: κ(Θ(x,x)) = {block:.4f}, by formula {formula:.4f}.",
    abs(block - formula) < 1e-8 * formula,
)

model = small_cnn("maxmin", "unshuffle", "orthogonal")
backward = max(float(torch.linalg.cond(B).max()) for B in backward_maps(model, pictures).values()) ** 2
shared = torch.linalg.cond(sample_blocks(empirical_ntk(model, pictures)))
claim(
    "isometric-cnn-kappa-b",
    f"Isometric CNN: κ(B_l B_l') - 1 is at most {backward - 1:.0e}, yet κ(Θ(x,x)) is {shared.min():.2f} to {shared.max():.2f}.",
    backward < 1 + 1e-9 and shared.min() > 1.01,
)

# %% tags=["hide-input"]
collapsed, relu = t.loc["MaxMin, power law"], t.filter(like="ReLU", axis=0)
loose = t["kernel_sums"] / t["kernel"]
claim(
    "second-bound",
    f"The second bound is {loose.min():.1f} to {loose.max():.0f} times too large, as a ratio of sums.",
    loose.max() < 100,
)
claim(
    "first-useless-power-law",
    f"The first is useless for the power law, as a product: {collapsed['block_product']:.0e} against {collapsed['block']:.1f}.",
    collapsed["block_product"] > 1e3 * collapsed["block"],
)
claim(
    "infinite-relu",
    f"And infinite for ReLU: at most {int(max(open_gates))} of {width} gates are open.",
    int(max(open_gates)) < width and bool(np.isinf(relu["block_product"]).all()),
)
sharper = relu["block_sums"] / relu["block"]
claim(
    "ratio-sums-finite-there",
    f"The ratio of sums is finite there, {sharper.min():.1f} to {sharper.max():,.0f} times too large; for the power law {collapsed['block_sums']:.0e}.",
    bool(np.isfinite(sharper).all()),
)

# %% [markdown]
# Between the two lies leaky ReLU. Its $D$ has the slope $a$ where a gate is closed, and no gate loses a vector:
# $\sigma_{\max}(DW) \le \sigma_{\max}(D)\,\sigma_{\max}(W)$, and for a square $W$ likewise with $\sigma_{\min}$ and $\ge$, so
# $\kappa(DW) \le \kappa(D)\,\kappa(W) = \kappa(W)/a$.
#
# The other way to a bad $\kappa(\Theta)$ that means nothing is the constant output. Add one vector to all rows of the head: the logits of
# a sample all move by the same number, and softmax does not see it. The kernel does, but not its restriction to outputs that sum to
# zero, as there the head is what it was.

# %%
slope = 0.1
U, V = singular_vectors(128, 128, 99)
share = {"orthogonal": [], "power law": []}
for name, law in zip(share, (ones, power_law), strict=True):
    W = (U * law(128)) @ V
    for draw in range(20):
        z = torch.randn(128, generator=generator(draw))
        D = torch.func.jacrev(lambda z: nn.functional.leaky_relu(z, slope))(z)
        bound = torch.linalg.cond(D) * torch.linalg.cond(W)
        share[name].append(float(torch.linalg.cond(D @ W) / bound))
values = torch.linalg.svdvals(D)


# %%
def with_and_without(model):
    """Condition number of the kernel, and of its restriction to outputs that sum to zero; the probabilities."""
    theta = empirical_ntk(model, x)
    conditions = [ntk_summary(kernel).condition_number for kernel in (theta, without_constant_output(theta, C))]
    return *map(float, conditions), model(x).detach().softmax(1)


cost = [with_and_without(build(net, 0))[:2] for net in NETS.values()]
cost = [whole / restricted for whole, restricted in cost]
model = copy.deepcopy(build(NETS["MaxMin, orthogonal"], 0))
before = with_and_without(model)
linear_layers(model)[-1].weight.data += 3 * torch.randn(1, width, generator=generator(0)).to(torch_device) / width**0.5
after = with_and_without(model)

# %% tags=["hide-input"]
ends = [min(share["power law"]), max(share["power law"])]
claim(
    "leaky-relu-slope",
    f"Leaky ReLU of slope {slope}: D has the singular values {float(values[-1]):.1f} and {float(values[0]):.0f}. κ(DW) is κ(D) κ(W) for orthogonal "
    f"W, and {ends[0]:.2f} to {ends[1]:.2f} of it for a power law.",
    bool(((values - slope).abs() < 1e-12).logical_or((values - 1).abs() < 1e-12).all())
    and max(abs(s - 1) for s in share["orthogonal"]) < 1e-9
    and 0 < ends[0] <= ends[1] < 1 + 1e-9,
)
claim(
    "networks-constant-output-costs",
    f"On the {len(cost)} networks the constant output costs little: κ(Θ) is {min(cost):.2f} to {max(cost):.2f} times what it is without.",
    1 - 1e-9 <= min(cost) <= max(cost) < 1.5,
)
moved = float((after[2] - before[2]).abs().max())
claim(
    "one-vector-length-3",
    f"One vector of length 3 on all rows of a head moves no probability by more than {moved:.0e}. κ(Θ) goes from {before[0]:.0f} to {after[0]:.0f}, "
    f"and without the constant output stays {before[1]:.0f}, to {abs(after[1] / before[1] - 1):.0e}.",
    moved < 1e-12 and after[0] > 2 * before[0] and abs(after[1] / before[1] - 1) < 1e-9,
)

# %% [markdown]
# The product is so loose for a reason. It multiplies the worst stretch of every factor, as if one vector met them all. A kernel
# needs only the $C$ directions that leave the head, and these meet average stretches. The second theorem takes $B_l$ as a whole and comes
# close. What the bounds show is *what can matter*: the backward maps, and the Gram matrices.
#
# ### Which condition number to report
#
# $B_l$ holds the weights above layer $l$; $W_1$ is in none of them. Here are $\kappa(W_l)$ and, for the worst sample,
# $\kappa(B_l B_l^\top) = \kappa(B_l)^2$. For MaxMin the theorem allows the latter up to $\prod_{m>l} \kappa(W_m)^2$, for ReLU anything.

# %%
rows = []
for name, net in NETS.items():
    model = build(net, 0)
    weights = [float(torch.linalg.cond(layer.weight.detach())) for layer in linear_layers(model)]
    maps = [float(torch.linalg.cond(B).max()) ** 2 for B in backward_maps(model, x).values()]
    rows.append(
        {"network": name} | {f"W{l}": v for l, v in enumerate(weights, 1)} | {f"B{l}": v for l, v in enumerate(maps, 1)}
    )
layers = pd.DataFrame(rows).set_index("network").join(t["block"])

# %% tags=["hide-input"]
columns = (
    [rf"$\kappa(W_{l})$" for l in (2, 3, 4)]
    + [rf"$\kappa(B_{l} B_{l}^\top)$" for l in (1, 2, 3)]
    + [r"$\kappa(\Theta(x,x))$"]
)
markdown(
    layers.drop(columns=["W1", "B4"]).set_axis(columns, axis=1),
    ["{:,.0f}"] * 3 + ["{:,.1f}"] * 4,
    rf"One seed, {samples} random inputs with $\lVert x\rVert^2 = 10$, the worst of them; width {width}. $W_4$ is the head.",
)

# %% tags=["hide-input"]
gaussian, decaying = layers.loc["ReLU, He Gaussian"], layers.loc["MaxMin, power law"]
worst = gaussian[["B1", "B2", "B3"]].max()
claim(
    "he-gaussian-kappa-square",
    f"He Gaussian: κ of the square weights is {gaussian['W2']:,.0f} and {gaussian['W3']:,.0f}, κ(B B') at most {worst:.1f}.",
    min(gaussian["W2"], gaussian["W3"]) > 10 * worst,
)
claim(
    "power-law-maxmin",
    f"Power law, MaxMin: κ(B₁B₁') is {decaying['B1']:.0f}, though the theorem allows {(decaying['W2'] * decaying['W3']) ** 2:.0e}.",
    decaying["B1"] < 1e-3 * (decaying["W2"] * decaying["W3"]) ** 2,
)
flat = layers.loc["ReLU, orthogonal, gain 1"]
claim(
    "above-kappa-w",
    f"It is above κ(W₂) = {decaying['W2']:.0f} all the same. And ReLU, orthogonal: κ(W) = {flat['W2']:.0f}, κ(B₁B₁') = {flat['B1']:.1f}.",
    decaying["B1"] > decaying["W2"] and flat["W2"] < 1 + 1e-9 and flat["B1"] > 1.2,
)
claim(
    "nor-one-b-decide",
    f"Nor does one B decide: for the power law κ(Θ(x,x)) is {decaying['block']:.1f}, as the layers near the head have round maps.",
    decaying["block"] < 0.5 * decaying["B1"],
)

# %% [markdown]
# So $\kappa(W_l)$ is no guide, in either direction: the smallest singular values are hardly met, and what is met multiplies from layer to layer.
# **Report $\kappa$ of $B_l B_l^\top$ or of $\Theta(x,x)$, not $\kappa(W_l)$ nor the product of them.**
#
# ### Small networks
#
# With few units the $C$ directions of the head are a large part of all, so worst cases are met more often. Are the bounds tighter there?
# Here are random networks with three hidden layers of 8 units and 3 outputs, He Gaussian weights, and 6 random inputs of 8 numbers:

# %%
SMALL, DRAWS = 8, 100  # units; draws of each activation
rows = []
for phi, seed in itertools.product(("maxmin", "abs", "relu"), range(DRAWS)):
    model = nets.mlp(8, 3, SMALL, 3, phi, init="kaiming", seed=seed)
    rows.append({"activation": phi, **bounds(model, sphere(8, seed=seed, count=6, size=8))})
tiny = pd.DataFrame(rows)
factors = {
    key: tiny[key] / tiny[key.split("_")[0]] for key in ("block_sums", "block_product", "kernel_sums", "kernel_ratio")
}
tiny = tiny.assign(**{f"{key}_factor": factor for key, factor in factors.items()})
middle = tiny.groupby("activation", sort=False).median()

# %% tags=["hide-input"]
columns = ["block", "block_sums_factor", "block_product_factor", "kernel", "kernel_sums_factor", "kernel_ratio_factor"]
headings = [r"$\kappa(\Theta(x,x))$", "sums", "product", r"$\kappa(\Theta)$", "sums", "largest ratio"]
markdown(
    middle[columns].set_axis(headings, axis=1),
    ["{:.1f}", "{:.0f}", "{:.0e}", "{:.0f}", "{:.0f}", "{:.0f}"],
    f"Medians over {DRAWS} random networks {SMALL} units wide: condition numbers, and how many times too large the two expressions of "
    "{prf:ref}`thm-one-sample` and of {prf:ref}`thm-many-samples` are.",
)

# %% tags=["hide-input"]
ordered = (tiny["kernel"] <= tiny["kernel_sums"]) & (tiny["kernel_sums"] <= tiny["kernel_ratio"])
claim(
    "either-expression-either-bound",
    f"Either expression of either bound holds on each of {len(tiny)} small networks.",
    bool((ordered & tiny["each_sample_holds"]).all()),
)
smooth, gated = (tiny[(tiny["activation"] == "relu") == is_relu] for is_relu in (False, True))
least, usual = smooth["block_product_factor"].min(), smooth["kernel_sums_factor"].quantile([0.05, 0.95])
claim(
    "maxmin-z",
    f"MaxMin and |z|: the product is {least:,.0f} times too large or more, the second bound, in nine of ten draws, {usual.iloc[0]:.0f} to {usual.iloc[1]:.0f} times.",
    least > 1e3 and usual.iloc[1] < 100,
)
shares = {key: np.isinf(gated[key]).mean() for key in ("block_product", "kernel_ratio", "kernel_sums")}
claim(
    "relu-product-infinite-draws",
    f"ReLU: the product is infinite in {shares['block_product']:.0%} of the draws, the largest ratio in {shares['kernel_ratio']:.0%}, the second ratio of sums in {shares['kernel_sums']:.0%}.",
    shares["block_product"] > 0.9 and shares["kernel_sums"] < 0.5,
)
narrow_loose, wide_loose = middle.loc["relu", "kernel_sums_factor"], loose["ReLU, He Gaussian"]
claim(
    "he-gaussian-relu-second",
    f"He Gaussian ReLU, the second ratio of sums: {narrow_loose:.0f} times too large {SMALL} units wide, {wide_loose:.1f} times at width {width}.",
    narrow_loose > wide_loose,
)

# %% [markdown]
# No: for the same law of weights they are looser. What carries over is the order: sums before products, and $B_l$ as a whole before its factors.
#
# ## What it costs to leave isometry
#
# Loose bounds settle no magnitudes; measuring does. Kernel, block within a sample, plasticity after ten steps, and the Gram
# matrix of the last hidden layer:


# %%
SHORT, LONG, MNIST, ALIKE = "|x|² = 10", "|x|² = 784", "MNIST", "cosine 0.6"


def inputs(kind, seed):
    drawn = {SHORT: lambda: sphere(10, seed=seed), LONG: lambda: sphere(784, seed=seed)}
    drawn |= {MNIST: lambda: images(seed)[0], ALIKE: lambda: sphere(10, 0.6, seed)}
    return drawn[kind]().to(torch_device)


@functools.cache
def measure(net, kind, seed):
    """The row of the table for one net and one batch."""
    model, x = build(net, seed), inputs(kind, seed)
    theta = empirical_ntk(model, x)
    spectrum, last = ntk_summary(theta), list(feature_grams(model, x).values())[-1]
    p = spectrum.eigenvalues / spectrum.eigenvalues[-1]
    return {
        "κ(Θ)": float(spectrum.condition_number),
        "κ of a block": float(torch.linalg.cond(sample_blocks(theta)).mean()),
        "mean λ / λmax": float(spectrum.mean_over_max),
        "P₁₀": float(1 - ((1 - p) ** 20).mean()),
        "κ(K_L)": float(torch.linalg.cond(last)),
    }


# %% tags=["hide-input"]
kinds = dict.fromkeys(NETS, (SHORT, LONG, MNIST))
for name in ("MaxMin, orthogonal", "ReLU, orthogonal, gain 1"):
    kinds[name] += (ALIKE,)
measured = pd.DataFrame(
    {"network": name, "inputs": kind, "seed": seed, **measure(NETS[name], kind, seed)}
    for seed in range(seeds)
    for name in NETS
    for kind in kinds[name]
)
means = measured.groupby(["inputs", "network"], sort=False).mean(numeric_only=True).drop(columns="seed")

# %% tags=["hide-input"]
columns = [
    r"$\kappa(\Theta)$",
    r"$\kappa$ of a block",
    r"$\bar p$",
    "$P_{10}$",
    r"$\kappa(K_L)$",
    r"$\kappa(\Theta)$, MNIST",
]
table = pd.concat([means.loc[SHORT], means.loc[ALIKE].rename(index="{}; alike".format)])
table = table.assign(mnist=means.loc[MNIST]["κ(Θ)"]).set_axis(columns, axis=1).rename_axis("network")
markdown(
    table,
    ["{:,.0f}", "{:.2f}", "{:.3f}", "{:.2f}", "{:,.0f}", "{:,.0f}"],
    rf"Means over {seeds} seeds; {samples} inputs with $\lVert x\rVert^2 = 10$, MNIST images in the last column; width {width}. "
    r"Spikes: five singular values of 5. Power law: $\sigma_i = 8\,i^{-0.7}$. Alike: inputs of cosine 0.6.",
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
for kind, marker, colour in zip((SHORT, LONG, MNIST), "osD", figures.palette(3), strict=True):
    p = measured[measured["inputs"] == kind]
    y = p["network"].map({name: k for k, name in enumerate(NETS)})
    ax.plot(p["κ(Θ)"], y, marker, color=colour, label=kind, alpha=0.75, markersize=6)
ax.set(xscale="log", xlabel="condition number of the kernel, κ(Θ)", yticks=range(len(NETS)), yticklabels=list(NETS))
ax.invert_yaxis()
ax.grid(True)
fig.legend(loc="outside upper center", ncols=3)
show(
    fig,
    measured[measured["inputs"] != ALIKE],
    name="fig-kernel-inputs",
    caption=f"Condition number of the kernel for each network on three kinds of inputs; a point a seed, {seeds} seeds.",
    alt="One row a network, logarithmic axis. Power-law networks and spikes in the head are far to the right of the others on "
    "all inputs; MNIST images are to the right of random directions for every network.",
)

# %% tags=["hide-input"]
kappas = means["κ(Θ)"].unstack("network")
orthogonal = {"MaxMin": "MaxMin, orthogonal", "ReLU": "ReLU, orthogonal, gain 1"}
collapse = [
    kappas.loc[k, f"{phi}, power law"] / kappas.loc[k, orthogonal[phi]]
    for phi in orthogonal
    for k in (SHORT, LONG, MNIST)
]
claim(
    "power-law-costs-order",
    f"The power law costs an order of magnitude: {min(collapse):.0f} to {max(collapse):.0f} times.",
    min(collapse) > 5,
)

m = kappas["MaxMin, spikes"] / kappas["MaxMin, orthogonal"]
h = kappas["MaxMin, spikes in head"] / kappas["MaxMin, orthogonal"]
claim(
    "five-singular-values-5",
    f"Five singular values of 5 a hidden layer cost {m.min():.1f} to {m.max():.1f} times.",
    m.max() < 3,
)
claim(
    "same-five-head-alone",
    f"The same five in the head alone cost {h.min():.1f} to {h.max():.1f} times.",
    h.min() > 3 * m.max(),
)

alike = kappas.loc[ALIKE, "MaxMin, orthogonal"] / kappas.loc[SHORT, "MaxMin, orthogonal"]
choice = kappas["ReLU, orthogonal, gain 1"] / kappas["MaxMin, orthogonal"]
claim(
    "inputs-cosine-0-6",
    f"Inputs of cosine 0.6 cost {alike:.1f} times, ReLU for MaxMin {choice[SHORT]:.1f} times.",
    alike > 0.5 * choice[SHORT],
)
images_cost = kappas.loc[MNIST, "MaxMin, orthogonal"] / kappas.loc[LONG, "MaxMin, orthogonal"]
claim(
    "mnist-relu-costs",
    f"On MNIST ReLU costs {choice[MNIST]:.1f} times; the images themselves {images_cost:.1f} times.",
    choice[MNIST] < choice[SHORT] and images_cost > 3,
)
gain = kappas["ReLU, orthogonal, gain 1"] / kappas["ReLU, orthogonal, gain √2"]
claim(
    "relu-kappa-theta-gain",
    f"ReLU, κ(Θ) at gain 1 over √2: {gain[SHORT]:.2f} short inputs, {gain[LONG]:.2f} long, {gain[MNIST]:.2f} MNIST.",
    gain[SHORT] > 1.2 and gain[LONG] < 1,
)
block = means["κ of a block"].unstack("network")
one, other = (block.loc[SHORT, name] for name in ("MaxMin, orthogonal", "ReLU, orthogonal, gain 1"))
claim(
    "within-sample",
    f"Within a sample: MaxMin {one:.2f}, ReLU with the same weights {other:.2f}.",
    abs(one - 1) < 1e-6 and other > 1.2,
)
row = means.loc[SHORT]
falls = [row.loc[name, "P₁₀"] for name in ("MaxMin, power law", "ReLU, power law")]
he = row.loc["ReLU, He Gaussian"]
claim(
    "relu-he-gaussian",
    f"ReLU, He Gaussian: κ within a sample {he['κ of a block']:.2f}, P₁₀ {he['P₁₀']:.2f}. Power laws have P₁₀ {falls[0]:.2f} (MaxMin) and {falls[1]:.2f} (ReLU).",
    1.5 < he["κ of a block"] < 2.5 and 0.4 < he["P₁₀"] < 0.6 and max(falls) < 0.6 * he["P₁₀"],
)

# %% [markdown]
# The sizes depend on the inputs. With short ones the bias counts, and gain 1 lets ReLU's signal fade layer by layer until samples
# look alike. With long ones it does not, and gain 1 is even the better choice. On MNIST the whole column moves, because real images
# resemble each other: $K_1$ is fixed by the data, and no regulariser of weights changes it.
#
# ### Which singular values hurt?
#
# The power law has a few large values *and* many small ones. Take them apart, in MaxMin networks whose hidden layers all have
# the same spectrum:

# %% tags=["hide-input"]
SPECTRA = {  # of all hidden layers
    "all 1": ones,
    "five of 0.01": some(5, 0.01),
    "five of 5": spikes,
    "five of 50": some(5, 50.0),
    "half of them 0.1": some(width // 2, 0.1),
    "nine tenths of them 0.1": some(9 * width // 10, 0.1),
}
rows = []
for seed, (name, law), kind in itertools.product(range(seeds), SPECTRA.items(), (SHORT, LONG)):
    found = measure(("maxmin", law, ones), kind, seed)
    ratio = float(law(width).max() / law(width).min())
    rows.append({"spectrum": name, "inputs": kind, "κ(W)": ratio, "κ(Θ)": found["κ(Θ)"], "P₁₀": found["P₁₀"]})
parts = pd.DataFrame(rows).groupby(["spectrum", "inputs"], sort=False).mean().unstack("inputs")

# %% tags=["hide-input"]
kept = [("κ(W)", SHORT), *((quantity, kind) for quantity in ("κ(Θ)", "P₁₀") for kind in (SHORT, LONG))]
columns = [r"$\kappa(W)$", r"$\kappa(\Theta)$, short", r"$\kappa(\Theta)$, long", "$P_{10}$, short", "$P_{10}$, long"]
markdown(
    parts[kept].set_axis(columns, axis=1),
    ["{:,.0f}", "{:,.0f}", "{:,.0f}", "{:.2f}", "{:.2f}"],
    rf"Means over {seeds} seeds; {samples} random inputs, short: $\lVert x\rVert^2 = 10$, long: 784; width {width}.",
)

# %% tags=["hide-input"]
cost = parts["κ(Θ)"] / parts["κ(Θ)"].loc["all 1"]
low = cost.loc["five of 0.01"]
claim(
    "five-values-100-times",
    f"Five values 100 times too small cost nothing: {low.min():.2f} to {low.max():.2f} times.",
    low.max() < 1.1,
)
small, large = cost.loc["five of 5"].max(), cost.loc["five of 50"].min()
claim(
    "five-values-5-cost",
    f"Five values of 5 cost {small:.1f} times at most, five of 50 cost {large:,.0f} or more.",
    small < 2 and large > 100,
)
most = cost.loc["nine tenths of them 0.1"]
claim(
    "nine-tenths-0-1",
    f"Nine tenths of 0.1: {most[SHORT]:.0f} times on short inputs, {most[LONG]:.1f} on long ones.",
    most.min() > 1.5,
)

# %% [markdown]
# So $\kappa(W)$ does not even give the order. A few small values are harmless: the $C$ directions of the head hardly meet them. A
# few large ones are cheap until they dominate every backward map, and then ruinous. Many small ones weaken the signal, which costs
# most where a bias can drown it. The Gram penalty $(\sigma^2 - 1)^2$ leans the same way: it asks 1 for a singular value of 0,
# and about $\sigma^4$ for a large one.
#
# ## What isometry does not control
#
# Within a sample an isometric network is perfect. Between samples everything hangs on $K_l$, and there isometry gives
# no guarantee. On the contrary. Let $\phi$ preserve norms and be 1-Lipschitz, as MaxMin, GroupSort, CReLU and $|z|$ are. Then
#
# $$
# \begin{aligned}
# \langle\phi(u),\phi(v)\rangle &= \tfrac12\big(\lVert u\rVert^2 + \lVert v\rVert^2 - \lVert\phi(u)-\phi(v)\rVert^2\big) \\
# &\ge \tfrac12\big(\lVert u\rVert^2 + \lVert v\rVert^2 - \lVert u-v\rVert^2\big) = \langle u,v\rangle .
# \end{aligned}
# $$ (eq-never-decrease)
#
# Square orthogonal layers without bias keep inner products as they are. So **inner products never decrease with depth**, while
# norms stay. The trace of $K_l$ is fixed and $\lambda_{\max}(K_l) \ge \tfrac1n \mathbf{1}^\top K_l \mathbf{1}$ can only be pushed up.
#
# How fast? Let $(u, v)$ be Gaussian pre-activations with correlation $c$. With $s = a + b$ and $d = a - b$ MaxMin gives
# $\max = (s + |d|)/2$ and $\min = (s - |d|)/2$, so a pair adds $\tfrac12(ss' + |d||d'|)$ to the inner product. ReLU is
# $z_+ = (z + |z|)/2$, and $z$ is uncorrelated with $|z'|$. CReLU is two ReLUs. In each case the outcome, divided by the
# norms, is the mean of $c$ and the map of $|z|$:
#
# $$
# \begin{aligned}
# c &\mapsto \tfrac12\big(c + \rho(c)\big) , \\
# \rho(c) &= \mathbb{E}\,|g g'| = \tfrac2\pi\big(\sqrt{1-c^2} + c\arcsin c\big) ,
# \end{aligned}
# $$ (eq-correlation-map)
#
# where $\rho$, the map of $|z|$ itself, follows from $\rho(0) = 2/\pi$ and
# $\rho'(c) = \mathbb{E}\,\mathrm{sign}(g)\,\mathrm{sign}(g') = \tfrac2\pi\arcsin c$. **MaxMin, ReLU and CReLU correlate samples
# equally fast.** At a random start MaxMin's advantage is on the way back only.


# %%
u, w = torch.randn(2, 2**18, generator=generator(0))


def correlation_map(phi, c):
    """Cosine of phi(u) and phi(v) for Gaussian u, v of correlation c, by Monte Carlo."""
    act = activation(phi)
    return float(torch.cosine_similarity(act(u), act(c * u + math.sqrt(1 - c * c) * w), dim=0))


def absolute(c):
    return 2 / math.pi * (math.sqrt(1 - c * c) + c * math.asin(c))


def half_way(c):
    return (c + absolute(c)) / 2


# %% tags=["hide-input"]
MAPS = {"maxmin": half_way, "relu": half_way, "crelu": half_way, "abs": absolute}
SORTS = ("groupsort-4", "groupsort-8", "groupsort-64", "groupsort-512")
grid = [round(c, 2) for c in np.linspace(0, 1, 11)]
rows = [
    {
        "activation": phi,
        "c": c,
        "simulated": correlation_map(phi, c),
        "formula": MAPS[phi](c) if phi in MAPS else math.nan,
    }
    for phi in (*MAPS, *SORTS)
    for c in grid
]
maps = pd.DataFrame(rows)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 5.4), layout="constrained")
fine, colours = np.linspace(0, 1, 101), figures.palette(8)
ax.plot(fine, fine, color=figures.INK, linewidth=1)
ax.plot(fine, [half_way(c) for c in fine], color=colours[0], label="formula: MaxMin, ReLU, CReLU")
ax.plot(fine, [absolute(c) for c in fine], color=colours[1], linestyle="--", label="formula: |z|")
for (phi, p), marker, colour in zip(maps.groupby("activation", sort=False), "osD^vP*X", colours, strict=True):
    line = ":" if phi in SORTS else ""
    ax.plot(
        p["c"], p["simulated"], marker, linestyle=line, color=colour, label=phi, markersize=6, markerfacecolor="none"
    )
ax.set(
    xlabel="correlation before the nonlinearity, c", ylabel="correlation after", xlim=(-0.01, 1.01), ylim=(-0.02, 1.02)
)
ax.grid(True)
fig.legend(loc="outside upper center", ncols=2)
show(
    fig,
    maps,
    name="fig-correlation-maps",
    caption="How one nonlinearity changes the correlation of two Gaussian inputs. Markers: Monte Carlo with $2^{18}$ draws, one seed; lines: "
    "{eq}`eq-correlation-map` (dotted: through the markers). Grey: unchanged.",
    alt="All curves lie above the diagonal. MaxMin, ReLU and CReLU coincide; the absolute value and GroupSort of larger "
    "groups lie higher, GroupSort 512 near one throughout.",
)

# %% tags=["hide-input"]
off = (maps["simulated"] - maps["formula"]).abs().max()
claim("formula-monte-carlo-differ", f"Formula and Monte Carlo differ by at most {off:.4f}.", off < 0.01)
start = maps[maps["c"] == 0].set_index("activation")["simulated"]
claim(
    "uncorrelated-inputs-leave",
    f"Uncorrelated inputs leave with {start['maxmin']:.2f} (MaxMin), {start['groupsort-4']:.2f} (group 4), "
    f"{start['groupsort-8']:.2f} (8), {start['groupsort-64']:.2f} (64).",
    start["maxmin"] < start["groupsort-4"] < start["groupsort-8"] < start["groupsort-64"],
)
steps = []
for phi in ("maxmin", "abs", "groupsort-8"):
    grams = list(
        feature_grams(nets.mlp(256, C, 256, 6, phi, bias=False), torch.randn(32, 256, generator=generator(0))).values()
    )
    steps += [float((after - before).min()) for before, after in itertools.pairwise(grams)]
claim(
    "no-inner-product-decreases",
    f"No inner product decreases in six orthogonal layers: smallest change {min(steps):.0e}.",
    min(steps) > -1e-9,
)

# %% [markdown]
# So use groups of two and no larger. And the theory leans on an assumption about data: that inputs point in many
# different directions.
#
# ## A causal handle
#
# Networks that differ in isometry mostly compute different functions as well. Can we change the one and not the other? For ReLU and a positive diagonal matrix $S$, $\phi(Sz) = S\phi(z)$. So
#
# $$
# W_l \to S W_l, \quad b_l \to S b_l, \quad W_{l+1} \to W_{l+1} S^{-1}
# $$ (eq-gauge)
#
# leaves the function untouched on every input, and changes singular values and kernel. Draw $\log S_{ii}$ from a normal law with a
# standard deviation that we turn up.


# %%
@torch.no_grad()
def rescale_(model, deviation, seed):
    """Rescale hidden ReLU units by exp(deviation * normal): the same function, other weights."""
    g = generator(100 + seed)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    for below, above in itertools.pairwise(linear):
        scale = (deviation * torch.randn(below.out_features, generator=g)).exp()
        below.weight.mul_(scale[:, None])
        below.bias.mul_(scale)
        above.weight.div_(scale)
    return model


# %% [markdown]
# And we do what the formula only predicts: train. The residual starts as random signs, as a tenth of them, or as the centred one-hot
# codes of the images' true labels. Full-batch gradient descent then runs at $\eta = 1/\lambda_{\max}$ on the real network, whose
# kernel moves. Adam runs from the random signs.


# %%
def removed(model, x, residual, steps, optimizer, **options):
    """Fraction of the loss removed after each number of steps, by a copy of the model that starts at this residual."""
    twin, y = copy.deepcopy(model), model(x).detach() - residual
    method, losses = optimizer(twin.parameters(), **options), []
    for _ in range(max(steps) + 1):
        loss = (twin(x) - y).square().sum() / 2
        losses.append(loss.item())
        method.zero_grad()
        loss.backward()
        method.step()
    return [1 - losses[k] / losses[0] for k in steps]


# %% tags=["hide-input"]
BUDGETS, DEVIATIONS = (1, 10, 100), (0.0, 0.5, 1.0, 1.5)
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)  # of Adam


def observe(base, x, residuals, deviation, seed):
    """What the rescaled net is, how fast descent and Adam train it, and what the kernel predicts."""
    model = rescale_(copy.deepcopy(base), deviation, seed)
    theta = empirical_ntk(model, x)
    spectrum, P = ntk_summary(theta), plasticity(theta, torch.tensor(BUDGETS)).tolist()
    net = {
        "kappa_W2": float(torch.linalg.cond(model[3].weight.detach())),
        "kappa_theta": float(spectrum.condition_number),
        "P_10": P[1],
        "change_of_f": float((model(x) - base(x)).detach().abs().max()),
    }
    for lr in RATES:
        (net[f"Adam {lr:g}"],) = removed(model, x, residuals["random signs"], (10,), torch.optim.Adam, lr=lr)
    runs = []
    for target, residual in residuals.items():
        got = removed(model, x, residual, BUDGETS, torch.optim.SGD, lr=float(1 / spectrum.eigenvalues[-1]))
        runs += [
            {"target": target, "steps": K, "predicted": p, "removed": r}
            for K, p, r in zip(BUDGETS, P, got, strict=True)
        ]
    return net, runs


# %% tags=["hide-input"]
net_rows, run_rows = [], []
for seed in range(seeds):
    x, labels = (t.to(torch_device) for t in images(seed))
    signs = torch.randn(samples, C, generator=generator(200 + seed)).sign().to(torch_device)
    truth = nn.functional.one_hot(labels, C) - 1.0 / C
    residuals = {"random signs": signs, "a tenth of them": signs / 10, "true labels": truth}
    base = nets.mlp(784, C, narrow, 3, "relu", gain=2**0.5, head_gain=1.0, seed=seed).to(torch_device)
    for deviation in DEVIATIONS:
        net, runs = observe(base, x, residuals, deviation, seed)
        setting = {"deviation": deviation, "seed": seed}
        net_rows.append(setting | net)
        run_rows += [setting | run for run in runs]
gauge, progress = pd.DataFrame(net_rows), pd.DataFrame(run_rows)
rates = gauge.groupby("deviation")[[f"Adam {lr:g}" for lr in RATES]].mean()
ten = (
    progress[(progress["steps"] == 10) & (progress["target"] == "random signs")].groupby("deviation")["removed"].mean()
)
gauge = gauge.assign(descent=gauge["deviation"].map(ten), adam_best=gauge["deviation"].map(rates.max(axis=1)))
by_deviation = gauge.groupby("deviation").mean()

# %% tags=["hide-input"]
fig, (top, bottom) = plt.subplots(2, 1, figsize=(5.2, 7), sharex=True, layout="constrained")
colours = figures.palette(6)
for key, label, k in (("kappa_W2", "κ of $W_2$", 0), ("kappa_theta", "κ(Θ)", 1)):
    top.plot(
        by_deviation.index,
        np.exp(np.log(gauge.set_index("deviation")[key]).groupby(level=0).mean()),
        figures.DASHES[k],
        color=colours[k],
        label=label,
    )
    top.plot(gauge["deviation"], gauge[key], "o", color=colours[k], markersize=4)
lines = {
    "predicted, $P_{10}$": "P_10",
    "gradient descent": "descent",
    "Adam, best of 5 rates": "adam_best",
    "Adam, rate 1e-4": "Adam 0.0001",
}
for (label, key), marker, k in zip(lines.items(), "osD^", range(2, 6), strict=True):
    bottom.plot(
        by_deviation.index, by_deviation[key], marker, linestyle=figures.DASHES[k], color=colours[k], label=label
    )
top.set(yscale="log", ylabel="condition number")
bottom.set(xlabel="standard deviation of log S", ylabel="loss removed in 10 steps", ylim=(0, 1))
for ax in (top, bottom):
    ax.grid(True)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
show(
    fig,
    gauge,
    name="fig-gauge",
    caption="ReLU networks that compute the same function, rescaled more and more by {eq}`eq-gauge`. Top: points a seed, lines geometric "
    f"means. Bottom: means over {seeds} seeds, from a residual of random signs. {samples} MNIST images, three hidden layers of {narrow} units.",
    alt="Top: both condition numbers grow by orders of magnitude with the rescaling. Bottom: predicted and measured progress of gradient "
    "descent fall together towards zero; Adam at its best rate falls only a little, and at a fixed small rate it rises.",
)

# %% tags=["hide-input"]
first, final = by_deviation.iloc[0], by_deviation.iloc[-1]
claim(
    "function-moves-most",
    f"The function moves by at most {gauge['change_of_f'].max():.0e}; κ(W₂) goes from {first['kappa_W2']:.0f} to {final['kappa_W2']:.0e}.",
    gauge["change_of_f"].max() < 1e-10 and final["kappa_W2"] > 1e3,
)
claim(
    "predicted-plasticity-p-falls",
    f"Predicted plasticity P₁₀ falls from {first['P_10']:.2f} to {final['P_10']:.2f}.",
    final["P_10"] < 0.5 * first["P_10"],
)
claim(
    "so-what-gradient-descent",
    f"So does what gradient descent removes in ten steps: {first['descent']:.2f} to {final['descent']:.2f}.",
    final["descent"] < 0.5 * first["descent"],
)
a, b = first["adam_best"], final["adam_best"]
claim(
    "adam-best-rate-hardly",
    f"Adam at its best rate hardly minds: {a:.2f} to {b:.2f}.",
    b > 0.75 * a and b > 3 * final["descent"],
)
a, b = first["Adam 0.0001"], final["Adam 0.0001"]
claim("fixed-rate-1e-4", f"At the fixed rate 1e-4 Adam even gains from the rescaling: {a:.2f} to {b:.2f}.", b > a)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.2, 5), layout="constrained")
for (target, p), marker, colour in zip(progress.groupby("target", sort=False), "osD", figures.palette(3), strict=True):
    ax.plot(
        p["predicted"],
        p["removed"],
        marker,
        color=colour,
        label=target,
        alpha=0.7,
        markersize=6,
        markerfacecolor="none",
    )
ax.axline((0, 0), slope=1, color=figures.INK, linewidth=1)
ax.set(
    xlabel="predicted by the kernel at the start, $P_K$", ylabel="removed by gradient descent", xlim=(0, 1), ylim=(0, 1)
)
ax.grid(True)
fig.legend(loc="outside upper center", ncols=3)
show(
    fig,
    progress,
    name="fig-measured-progress",
    caption="Fraction of the loss that gradient descent removes on real networks against {eq}`eq-plasticity`, for "
    f"{', '.join(map(str, BUDGETS[:-1]))} and {BUDGETS[-1]} steps, the rescalings of {{numref}}`fig-gauge` and {seeds} seeds. Grey: equality.",
    alt="Points of random targets follow the diagonal closely over the whole range; those of true labels lie above it.",
)

# %% tags=["hide-input"]
progress["excess"] = progress["removed"] - progress["predicted"]
error = progress["excess"].abs().groupby(progress["target"]).agg(["mean", "max"])
full, tenth = error.loc["random signs"], error.loc["a tenth of them"]
claim(
    "random-signs-descent-off",
    f"Random signs: descent is {full['mean']:.3f} off the prediction on average, {full['max']:.2f} at most.",
    full["max"] < 0.15,
)
claim(
    "tenth-residual-which-moves",
    f"A tenth of the residual, which moves the kernel less: {tenth['mean']:.3f} on average.",
    tenth["mean"] < full["mean"],
)
true = progress[(progress["target"] == "true labels") & (progress["steps"] == 10)]
ratio = float((true["removed"] / true["predicted"]).mean())
claim(
    "true-labels-times-progress",
    f"True labels: {ratio:.2f} times the progress predicted without a preferred task.",
    ratio > 1.05,
)

# %% [markdown]
# Why is Adam different? With $W' = SW$ the gradient by $W'$ is $S^{-1}$ times that by $W$. Seen from $W$, a step of gradient descent
# is therefore $S^{-2}$ times what it was. Adam's steps hardly depend on the size of a gradient: seen from $W$ they change by
# $S^{-1}$ only. What sets Adam's speed is not this $\Theta$ but a kernel with Adam's own scaling between $J$ and $J^\top$.
#
# ## What to conclude, and what not
#
# - **A worse kernel does mean slower gradient descent**, causally: same function, same data, other weights. The formula predicts
#   by how much, if residuals have no preferred direction ({prf:ref}`function-moves-most`, {prf:ref}`predicted-plasticity-p-falls`, {prf:ref}`so-what-gradient-descent`, {prf:ref}`random-signs-descent-off`).
# - **$\kappa(\Theta)$ is a guarantee for the worst task** ({prf:ref}`worst-residual-best-step`, {prf:ref}`slowest-fastest-direction-left`), not what to expect of a task ({prf:ref}`one-condition-number`). And the scale of the
#   kernel may be left out only where the step adapts to it ({prf:ref}`twice-kernel`).
# - **Isometry controls one of two factors.** It makes the backward maps, and so the kernel within a sample, perfect ({prf:ref}`isometric-maxmin-kappa-theta`, {prf:ref}`within-sample`). The
#   Gram matrices stay with the data and the nonlinearity ({prf:ref}`inputs-cosine-0-6`, {prf:ref}`mnist-relu-costs`, {prf:ref}`no-inner-product-decreases`), where MaxMin gains nothing over ReLU ({prf:ref}`formula-monte-carlo-differ`).
# - **In a CNN the factors do not separate.** The sum over layers stays exact ({prf:ref}`mnist-images-strided-cnns`), but perfect backward maps no longer make a perfect
#   kernel within a sample ({prf:ref}`isometric-cnn-kappa-b`).
# - **Isometry is sufficient for good backward maps, and far from necessary.** A few small singular values cost nothing. A decaying
#   spectrum, or a few very large values, cost one to three orders of magnitude ({prf:ref}`power-law-costs-order`, {prf:ref}`five-values-100-times` to {prf:ref}`nine-tenths-0-1`).
# - **A free head is where anisotropy can come back.** Log its condition number ({prf:ref}`free-head-first-sample`, {prf:ref}`same-five-head-alone`).
#
# Not shown here:
#
# - that the $\kappa(W_l)$, or their product, say anything about $\kappa(\Theta)$. They do not ({prf:ref}`first-useless-power-law`, {prf:ref}`infinite-relu`, {prf:ref}`he-gaussian-kappa-square` to {prf:ref}`above-kappa-w`), and in small
#   networks no more than in wide ones ({prf:ref}`maxmin-z`, {prf:ref}`relu-product-infinite-draws`);
# - that $\kappa(\Theta)$ decides the speed of Adam. A rescaling that all but stops gradient descent nearly leaves Adam alone
#   ({prf:ref}`adam-best-rate-hardly`, {prf:ref}`fixed-rate-1e-4`). The case for AdamO is about Adam and cannot rest on this kernel alone; the other chapters test it by training;
# - that real tasks are isotropic. True labels favour the fast directions ({prf:ref}`true-labels-times-progress`), so a bad $\kappa$ may cost less than $P_K$ says;
# - that training keeps a kernel where it was. These are networks at their start, with weights made by hand.
#
# ## Try changing
#
# - `samples`: more inputs, worse Gram matrices. What happens to {prf:ref}`inputs-cosine-0-6`?
# - `width`: at 128 the run stops at {prf:ref}`power-law-costs-order`. Why does the same power law do less harm there? What is its smallest value?
# - `NETS`: add `("groupsort-8", ones, ones)`. Where does {prf:ref}`uncorrelated-inputs-leave` put it?
# - In the last experiment: momentum, or a residual ten times as large. When does the prediction break?
#
# ```
# python tools/notebooks.py run notebooks/isometry_and_the_entk.py \
#     -p samples 128 -p seeds 2 -o mine.ipynb
# ```
#
# A line that fails then is a finding, not an accident: it says which observation depends on what you changed.
#
# ## Exercises
#
# **1.** Two kernels of size $N$ have the same $\kappa$. One has a single slow direction, the other a single fast one. Find $P_K$ of both at
# $\eta = 1/\lambda_{\max}$, and their limits for $N \to \infty$. Which of the bounds of {prf:ref}`prop-plasticity` do they approach?
#
# :::{dropdown} Solution
# One slow direction: all $p_i = 1$ but one, $p_N = 1/\kappa$, so $P_K = 1 - \tfrac1N (1 - 1/\kappa)^{2K} \to 1$. With $\bar p \to 1$ that is the
# upper bound. One fast direction: $P_K = 1 - \tfrac{N-1}{N}(1 - 1/\kappa)^{2K}$, which tends to the lower bound $1 - (1-1/\kappa)^{2K}$; as
# $\bar p \to 1/\kappa$, the upper bound tends to the same. So $\kappa$ alone leaves everything open.
# :::
#
# **2.** CReLU preserves norms: its Jacobian is $2d \times d$ with $D^\top D = I$. Let every layer after the first have
# $W W^\top = I$. Is $\Theta(x,x)$ a multiple of the identity, as for MaxMin? First decide, then open the check.
#
# :::{dropdown} Solution
# No. The backward pass needs $M_m M_m^\top = W_m D D^\top W_m^\top = I$, and $D D^\top$ is not $I$ but a projection onto $d$ of the $2d$ coordinates, as
# for ReLU half the gates are closed. CReLU is isometric on the way forward only. MaxMin's $D$ is square, and there $D^\top D = I$ gives
# $D D^\top = I$.
# :::

# %% tags=["hide-input"]
x = sphere(10).to(torch_device)
for phi in ("maxmin", "crelu"):
    model = nets.mlp(784, C, width, 3, phi, seed=0).to(torch_device)
    blocks = torch.linalg.cond(sample_blocks(empirical_ntk(model, x)))
    print(f"{phi}: κ(Θ(x,x)) from {blocks.min():.3f} to {blocks.max():.3f}")

# %% [markdown]
# ## What is next
#
# Whether the kernel predicts what Adam learns on a real stream of tasks is measured in {doc}`what_predicts_learning`.
# Weights do not stay where they start: {doc}`adamo` adds a force that pulls singular values towards one while an adaptive optimizer trains,
# and asks how strong it has to be.

# %% tags=["hide-input"]
stamp(
    notebook="isometry_and_the_entk",
    parameters={"samples": samples, "width": width, "seeds": seeds, "device": device},
    seeds=range(seeds),
    wall_s=time.perf_counter() - started,
)
