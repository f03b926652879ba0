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

# %% tags=["parameters", "remove-cell"]
samples = 64  # 8..512: inputs of each kernel; it has 10 rows an input
width = 512  # 16..2048: units of each hidden layer, even
seeds = 3  # 1..32: number of seeds, 0 to seeds - 1
device = "auto"  # auto | cpu | cuda: where to compute

# %% tags=["remove-cell"]
import copy
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso import data, figures, isometry, nets, streams, train
from dyniso.book import claim, show, stamp
from dyniso.entk import backward_maps, empirical_ntk, feature_grams, ntk_summary, plasticity

started = time.perf_counter()
torch.set_default_dtype(torch.float64)  # small eigenvalues are what this chapter is about
torch_device = train.resolve_device(device)
figures.use_style()
digits = data.load("mnist-small")
pixels = streams.standardise(digits).double()
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
# The lower bound is reached only if *all* directions but one are as slow as the slowest. So $\kappa$ is the pessimist's
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
def descend(lambdas, steps, draws=4000, seed=0):
    """Mean fraction of the loss removed after each of `steps` by descent from random residuals, and its standard error."""
    Q = nets.orthogonal_(torch.empty(N, N), generator=generator(seed))
    theta = (Q * lambdas) @ Q.T
    r = torch.randn(N, draws, generator=generator(seed + 1))
    r, removed = r / r.norm(dim=0), []
    for k in range(1, max(steps) + 1):
        r = r - theta @ r / lambdas.max()
        if k in steps:
            removed.append(1 - r.square().sum(0))
    removed = torch.stack(removed)
    return removed.mean(1), removed.std(1) / draws**0.5


# %% tags=["remove-cell"]
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

# %% tags=["remove-input"]
fig, ax = plt.subplots(figsize=(6, 4.6), layout="constrained")
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

# %% tags=["remove-input"]
dotted = curves.dropna()
random = dotted[dotted["standard_error"] > 1e-12]
z = ((random["simulated"] - random["P_K"]).abs() / random["standard_error"]).max()
gap = (dotted["simulated"] - dotted["P_K"]).abs().max()
claim(f"1. Formula and simulation differ by at most {gap:.4f}, {z:.1f} standard errors.", z < 5)

at_10 = {name: float(plasticity(torch.diag(lambdas), 10)) for name, lambdas in spectra.items()}
lowest = 1 - (1 - 1 / kappa) ** 20
claim(
    f"2. One condition number, {kappa:.0f}; ten steps remove {at_10['one fast direction']:.2f} to {at_10['one slow direction']:.2f} "
    f"of the loss.",
    at_10["one fast direction"] < 0.25 and at_10["one slow direction"] > 0.95,
)
inside = all(lowest - 1e-12 <= at_10[s] <= 1 - (1 - float(spectra[s].mean())) ** 20 + 1e-12 for s in spectra)
claim(f"3. All five lie between the bounds; the lower one, {lowest:.2f}, is nearly met by one fast direction.", inside)

# %% [markdown]
# For cross-entropy the residual is probabilities minus labels and sums to zero over the outputs of each sample. That
# direction should then be left out of the kernel first: `dyniso.entk.without_constant_output`.
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
# $\partial f_c/\partial b_{l,i} = (B_l)_{ci}$. Sum the products of these derivatives at $x$ and $x'$ over all $i$, $j$ and $l$:
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
few = pixels[:16].to(torch_device)
gaps = {}
for phi in ("relu", "maxmin", "abs", "crelu", "groupsort-4"):
    model = nets.mlp(784, C, narrow, 3, phi, init="default", seed=0).to(torch_device)
    theta = empirical_ntk(model, few, method="jacobian")
    others = empirical_ntk(model, few, method="layerwise"), spelled_out(model, few)
    gaps[phi] = max(float((other - theta).abs().max() / theta.abs().max()) for other in others)

# %% tags=["remove-input"]
claim(
    f"4. On {len(few)} MNIST images and {len(gaps)} activations the three kernels differ by at most {max(gaps.values()):.0e} of the largest entry.",
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
# Let $0 < \alpha_m \le \lVert M_m^\top v\rVert \le \beta_m$ for all unit vectors $v$ and $m = 2, \dots, L$. Then
#
# $$
# \kappa\big(\Theta(x,x)\big) \;\le\; \frac{\sum_l a_l \prod_{m>l} \beta_m^2}{\sum_l a_l \prod_{m>l} \alpha_m^2}
# \;\le\; \prod_{m=2}^{L} \kappa(M_m)^2 .
# $$
# :::
#
# :::{prf:proof}
# For a unit vector $v \in \mathbb{R}^C$, {eq}`eq-entk-sum` gives $v^\top\Theta(x,x)\,v = \sum_l a_l \lVert B_l^\top v\rVert^2$, and
# $B_l^\top v = M_{l+1}^\top \cdots M_L^\top v$ has a norm between $\prod_{m>l}\alpha_m$ and $\prod_{m>l}\beta_m$. So every
# eigenvalue lies between the two sums. A ratio of sums of positive terms is at most the largest ratio of terms; each is a
# product of some $(\beta_m/\alpha_m)^2 \ge 1$, so the product of all of them is an upper bound.
# :::
#
# The premise is that $M_m^\top$ loses no vector. It fails for a layer that widens ($W_m^\top$ then has a null space), and for
# ReLU in a square layer as soon as one gate is closed. Then the theorem says nothing.
#
# :::{prf:theorem} Many samples
# :label: thm-many-samples
#
# Let $\sigma_{\min}(B)$ and $\sigma_{\max}(B)$ be the extremes of $\lVert B^\top v\rVert$ over unit vectors $v \in \mathbb{R}^C$. Then
#
# $$
# \kappa(\Theta) \;\le\; \frac{\sum_l \lambda_{\max}(K_l)\,\max_i \sigma_{\max}(B_l(x_i))^2}{\sum_l \lambda_{\min}(K_l)\,\min_i \sigma_{\min}(B_l(x_i))^2}
# \;\le\; \max_l\; \kappa(K_l)\, \bigg(\frac{\max_i \sigma_{\max}(B_l(x_i))}{\min_i \sigma_{\min}(B_l(x_i))}\bigg)^{2} .
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
# *between samples only the conditioning of the Gram matrices is left*.
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
def set_spectrum_(weight, sigma, seed):
    """Fill a weight with singular values sigma and uniformly random singular vectors."""
    rows, columns = weight.shape
    U = nets.orthogonal_(torch.empty(rows, rows), generator=generator(2 * seed))
    V = nets.orthogonal_(torch.empty(rows, columns), generator=generator(2 * seed + 1))
    weight.data.copy_((U * sigma) @ V)


def spikes(size):
    return torch.ones(size).index_fill(0, torch.arange(5), 5.0)  # five singular values of 5, the others 1


def power_law(size):
    return 8 * torch.arange(1.0, size + 1) ** -0.7  # few large, many small


# %% [markdown]
# The networks have inputs of 784 numbers, three hidden layers, ten outputs, and biases (zero at the start). The head is orthogonal unless a row
# says otherwise. "Gain" multiplies the hidden weights.

# %%
NETS = {  # activation, scheme, gain of hidden layers, spectrum of hidden layers, spectrum of the head
    "MaxMin, orthogonal": ("maxmin", "orthogonal", 1.0, None, None),
    "MaxMin, five spikes a layer": ("maxmin", "orthogonal", 1.0, spikes, None),
    "MaxMin, five spikes in the head": ("maxmin", "orthogonal", 1.0, None, spikes),
    "MaxMin, power law": ("maxmin", "orthogonal", 1.0, power_law, None),
    "ReLU, orthogonal, gain 1": ("relu", "orthogonal", 1.0, None, None),
    "ReLU, orthogonal, gain √2": ("relu", "orthogonal", 2**0.5, None, None),
    "ReLU, He Gaussian": ("relu", "kaiming", 1.0, None, None),
    "ReLU, power law": ("relu", "orthogonal", 1.0, power_law, None),
}


def build(name, seed):
    """The named net, on the device."""
    phi, scheme, gain, hidden, head = NETS[name]
    model = nets.mlp(784, C, width, 3, phi, init=scheme, gain=gain, head_gain=1.0, seed=seed)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    for depth, layer in enumerate(linear):
        law = head if layer is linear[-1] else hidden
        if law:
            set_spectrum_(layer.weight, law(len(layer.weight)), 10 * seed + depth)
    return model.to(torch_device)


# %% [markdown]
# And inputs. Biases add 1 to every inner product in $K_l$, so the length of the inputs matters: short inputs look alike, long ones drown
# the bias. We take random directions with $\lVert x\rVert^2 = 10$, optionally correlated; the same directions with
# $\lVert x\rVert^2 = 784$; and standardised MNIST images.


# %%
def sphere(norm_squared, correlation=0.0, seed=0):
    """Random directions of equal length, each pair with the given expected cosine."""
    g = generator(1000 + seed)
    x = math.sqrt(1 - correlation) * torch.randn(samples, 784, generator=g)
    x += math.sqrt(correlation) * torch.randn(1, 784, generator=g)
    return x * math.sqrt(norm_squared) / x.norm(dim=1, keepdim=True)


def images(seed):
    """Random MNIST images, and their labels."""
    rows = torch.randperm(len(pixels), generator=generator(seed))[:samples]
    return pixels[rows], torch.from_numpy(digits.y)[rows]


# %% tags=["hide-input"]
def sample_blocks(theta):
    """Theta(x, x) of every sample, shape (samples, C, C)."""
    return theta.unflatten(0, (-1, C)).unflatten(2, (-1, C)).diagonal(0, 0, 2).permute(2, 0, 1)


def bounds(model, x):
    """Measured and bounded condition numbers: of the worst sample's block, and of the whole kernel."""
    theta, B, K = empirical_ntk(model, x), backward_maps(model, x), feature_grams(model, x)
    ends = [(torch.linalg.eigvalsh(K[l])[[0, -1]], torch.linalg.svdvals(B[l])) for l in B]
    high = sum(k[1] * s.max() ** 2 for k, s in ends)
    low = sum(k[0] * s.min() ** 2 for k, s in ends)
    floor = float(ntk_summary(theta).eigenvalues[0] / ends[-1][0][0])
    block = float(torch.linalg.cond(sample_blocks(theta)).max())
    return block, float(ntk_summary(theta).condition_number), float(high / low), floor


def layer_product(model):
    """The product of kappa(M_m)^2 where D is orthogonal, so that M_m and W_m have the same singular values."""
    weights = [layer.weight.detach() for layer in model if isinstance(layer, nn.Linear)][1:]
    closed = any(isinstance(layer, nn.ReLU) for layer in model)  # square layers with closed gates: no bound
    return math.inf if closed else math.prod(float(torch.linalg.cond(W)) ** 2 for W in weights)


# %% tags=["remove-cell"]
x = sphere(10).to(torch_device)
rows = []
for name in NETS:
    model = build(name, 0)
    block, whole, theorem_2, floor = bounds(model, x)
    row = {"network": name, "block": block, "theorem_1": layer_product(model), "kernel": whole, "theorem_2": theorem_2}
    rows.append(row | {"lambda_min_over_floor": floor})
tightness = pd.DataFrame(rows)
open_gates = [(h > 0).sum(1).max() for h in (build("ReLU, orthogonal, gain 1", 0)[:k](x) for k in (3, 5, 7))]

# %% tags=["remove-input"]
fig, axes = plt.subplots(2, 1, figsize=(6, 6.4), sharex=True, layout="constrained")
y = np.arange(len(tightness))
panels = (("block", "theorem_1", "one sample, worst of the batch"), ("kernel", "theorem_2", "all samples"))
for ax, (measured, bound, title) in zip(axes, panels, strict=True):
    shown = tightness[bound].where(np.isfinite(tightness[bound]))
    ax.hlines(y, tightness[measured], shown.fillna(tightness[measured]), color=figures.INK, alpha=0.5)
    ax.plot(tightness[measured], y, "o", color=figures.palette(2)[0], label="measured")
    ax.plot(shown, y, "s", color=figures.palette(2)[1], label="bound")
    ax.set(xscale="log", yticks=y, yticklabels=tightness["network"], title=title)
    ax.invert_yaxis()
    ax.grid(True, axis="x")
axes[1].set_xlabel("condition number")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
show(
    fig,
    tightness,
    name="fig-bounds",
    caption="Condition numbers measured and bounded: of one sample's block $\\Theta(x,x)$ by the product of {prf:ref}`thm-one-sample`, "
    "and of the whole kernel by the first bound of {prf:ref}`thm-many-samples`. Where a square is missing the bound is infinite. "
    f"{samples} random inputs with $\\lVert x\\rVert^2 = 10$, width {width}, one seed.",
    alt="Two panels of dots on a logarithmic axis, one row a network. Bounds touch the measured value for isometric "
    "MaxMin, and exceed it by orders of magnitude for most other networks; four ReLU networks have no finite bound for a sample.",
)

# %% tags=["remove-input"]
t = tightness.set_index("network")
valid = (t["block"] <= t["theorem_1"] * (1 + 1e-9)).all() and (t["kernel"] <= t["theorem_2"]).all()
claim(f"5. Both bounds hold on all {len(t)} networks.", bool(valid))
claim(
    f"6. So does the floor: λmin(Θ) is {t['lambda_min_over_floor'].min():.1f} to {t['lambda_min_over_floor'].max():.0f} times λmin(K_L).",
    bool((t["lambda_min_over_floor"] >= 1 - 1e-9).all()),
)
isometric = t.loc["MaxMin, orthogonal"]
claim(
    f"7. Isometric MaxMin: κ(Θ(x,x)) - 1 is at most {isometric['block'] - 1:.0e} on every sample.",
    isometric["block"] < 1 + 1e-9,
)
grams = feature_grams(build("MaxMin, orthogonal", 0), x)
worst = max(float(torch.linalg.cond(K)) for K in grams.values())
claim(
    f"8. Its κ(Θ) = {isometric['kernel']:.0f} is below the worst Gram matrix, {worst:.0f}.", isometric["kernel"] < worst
)

model = build("MaxMin, five spikes in the head", 0)
a = [float(torch.diagonal(K)[0]) for K in feature_grams(model, x).values()]
formula = (a[-1] + 25 * sum(a[:-1])) / (a[-1] + sum(a[:-1]))
block = float(torch.linalg.cond(sample_blocks(empirical_ntk(model, x[:1]))[0]))
claim(
    f"9. Free head, first sample: κ(Θ(x,x)) = {block:.4f}, by formula {formula:.4f}.",
    abs(block - formula) < 1e-8 * formula,
)

collapsed = t.loc["MaxMin, power law"]
claim(
    f"10. The bounds are loose: for the power law {collapsed['theorem_1']:.0e} against {collapsed['block']:.1f} in one sample.",
    collapsed["theorem_1"] > 1e3 * collapsed["block"],
)
claim(
    f"11. For ReLU the first is infinite: at most {int(max(open_gates))} of {width} gates are open, so M_m has not full rank.",
    int(max(open_gates)) < width,
)

# %% [markdown]
# They are loose for a reason. The theorems multiply the worst stretch of every factor, as if one vector met them all. A kernel needs only
# the $C$ directions that leave the head, and these meet average stretches. So **report $\kappa$ of $B_l B_l^\top$ or of $\Theta(x,x)$, not the
# product of $\kappa(W_l)$**. What the bounds do show is *what can matter*: the backward maps, and the Gram matrices.
#
# ## What it costs to leave isometry
#
# Loose bounds settle no magnitudes; measuring does. Kernel, block within a sample, plasticity after ten steps, and the Gram
# matrix of the last hidden layer:


# %%
def measure(model, x):
    """The row of the table for one net and one batch."""
    x = x.to(torch_device)
    theta = empirical_ntk(model, x)
    spectrum, last = ntk_summary(theta), list(feature_grams(model, x).values())[-1]
    return {
        "κ(Θ)": float(spectrum.condition_number),
        "κ of a block": float(torch.linalg.cond(sample_blocks(theta)).mean()),
        "mean λ / λmax": float(spectrum.mean_over_max),
        "P₁₀": float(plasticity(theta, 10)),
        "κ(K_L)": float(torch.linalg.cond(last)),
    }


# %% tags=["hide-input"]
SHORT, LONG, MNIST, ALIKE = "|x|² = 10", "|x|² = 784", "MNIST", "cosine 0.6"
rows = []
for seed in range(seeds):
    for name in NETS:
        model = build(name, seed)
        batches = {SHORT: sphere(10, seed=seed), LONG: sphere(784, seed=seed), MNIST: images(seed)[0]}
        if name in ("MaxMin, orthogonal", "ReLU, orthogonal, gain 1"):
            batches[ALIKE] = sphere(10, 0.6, seed)
        rows += [{"network": name, "inputs": kind, "seed": seed, **measure(model, x)} for kind, x in batches.items()]
measured = pd.DataFrame(rows)
means = measured.groupby(["inputs", "network"], sort=False).mean(numeric_only=True).drop(columns="seed")

# %% tags=["remove-input"]
table = pd.concat([means.loc[SHORT], means.loc[ALIKE].rename(index="{}, inputs of cosine 0.6".format)])
table["κ(Θ) on MNIST"] = means.loc[MNIST]["κ(Θ)"]
digits_shown = {"κ of a block": "{:.2f}", "mean λ / λmax": "{:.3f}", "P₁₀": "{:.2f}"}
style = (
    table.style.format("{:,.0f}", na_rep="")
    .format(digits_shown)
    .set_uuid("isometry")
    .set_caption(f"Means over {seeds} seeds; {samples} inputs, |x|² = 10 except in the last column; width {width}.")
)
style.format_index(lambda name: name).set_table_styles(
    [{"selector": "caption", "props": "caption-side: bottom; text-align: left"}]
)

# %% tags=["remove-input"]
fig, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
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

# %% tags=["remove-input"]
kappas = means["κ(Θ)"].unstack("network")
orthogonal = {"MaxMin": "MaxMin, orthogonal", "ReLU": "ReLU, orthogonal, gain 1"}
collapse = [
    kappas.loc[k, f"{phi}, power law"] / kappas.loc[k, orthogonal[phi]]
    for phi in orthogonal
    for k in (SHORT, LONG, MNIST)
]
claim(
    f"12. Spectrum collapse costs 10 times or more in κ(Θ): {min(collapse):.0f} to {max(collapse):.0f}.",
    min(collapse) >= 10,
)

m = kappas["MaxMin, five spikes a layer"] / kappas["MaxMin, orthogonal"]
h = kappas["MaxMin, five spikes in the head"] / kappas["MaxMin, orthogonal"]
claim(f"13. Spikes in hidden layers cost little: {m.min():.1f} to {m.max():.1f} times.", m.max() < 2)
claim(f"14. The same spikes in the head alone cost {h.min():.0f} to {h.max():.0f} times.", h.min() > 3 * m.max())

short = kappas.loc[SHORT]
alike, choice = (
    kappas.loc[ALIKE, "MaxMin, orthogonal"] / short["MaxMin, orthogonal"],
    short["ReLU, orthogonal, gain 1"] / short["MaxMin, orthogonal"],
)
claim(f"15. Correlated inputs cost {alike:.1f} times, ReLU in place of MaxMin {choice:.1f} times.", alike >= choice)

gain = kappas["ReLU, orthogonal, gain 1"] / kappas["ReLU, orthogonal, gain √2"]
claim(
    f"16. ReLU with gain 1 is worse than with gain √2 on short inputs, {gain[SHORT]:.2f} times; on long ones it is {gain[LONG]:.2f} times.",
    gain[SHORT] > 1.2 and gain[LONG] < gain[SHORT],
)
block = means["κ of a block"].unstack("network")
claim(
    f"17. Within a sample MaxMin has κ = {block.loc[SHORT, 'MaxMin, orthogonal']:.2f}, ReLU with the same weights "
    f"{block.loc[SHORT, 'ReLU, orthogonal, gain 1']:.2f}.",
    abs(block["MaxMin, orthogonal"] - 1).max() < 1e-6 and block.loc[SHORT, "ReLU, orthogonal, gain 1"] > 1.2,
)

# %% [markdown]
# On MNIST the whole column moves: real images resemble each other, and $K_1$ is badly conditioned before any weight is met.
# That is the part of the kernel that no regulariser of weights can mend.
#
# ## What isometry does not control
#
# Within a sample an isometric network is perfect. Between samples everything hangs on $K_l$, and there isometry gives
# no guarantee. On the contrary. Let $\phi$ preserve norms and be 1-Lipschitz, as MaxMin, GroupSort, CReLU and $|z|$ are. Then
#
# $$
# \langle\phi(u),\phi(v)\rangle = \tfrac12\big(\lVert u\rVert^2 + \lVert v\rVert^2 - \lVert\phi(u)-\phi(v)\rVert^2\big)
# \ge \tfrac12\big(\lVert u\rVert^2 + \lVert v\rVert^2 - \lVert u-v\rVert^2\big) = \langle u,v\rangle .
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
# c \;\mapsto\; \tfrac12\big(c + \rho(c)\big), \qquad
# \rho(c) = \mathbb{E}\,|g g'| = \tfrac2\pi\big(\sqrt{1-c^2} + c\arcsin c\big) ,
# $$ (eq-correlation-map)
#
# where $\rho$, the map of $|z|$ itself, follows from $\rho(0) = 2/\pi$ and
# $\rho'(c) = \mathbb{E}\,\mathrm{sign}(g)\,\mathrm{sign}(g') = \tfrac2\pi\arcsin c$. **MaxMin, ReLU and CReLU correlate samples
# equally fast.** At a random start MaxMin's advantage is on the way back only.


# %%
def correlation_map(phi, c, size=2**18, seed=0):
    """Cosine of phi(u) and phi(v) for Gaussian u, v of correlation c, by Monte Carlo."""
    u, w = torch.randn(2, size, generator=generator(seed))
    act = nets.activation(phi)
    return float(torch.cosine_similarity(act(u), act(c * u + math.sqrt(1 - c * c) * w), dim=0))


def absolute(c):
    return 2 / math.pi * (math.sqrt(1 - c * c) + c * math.asin(c))


def half_way(c):
    return (c + absolute(c)) / 2


# %% tags=["remove-cell"]
MAPS = {"maxmin": half_way, "relu": half_way, "crelu": half_way, "abs": absolute}
SORTS = ("groupsort-4", "groupsort-8", "groupsort-64", "groupsort-512")
grid = [round(c, 2) for c in np.linspace(0, 1, 11)]
rows = [
    {"activation": phi, "c": c, "simulated": correlation_map(phi, c), "formula": MAPS[phi](c) if phi in MAPS else math.nan}
    for phi in (*MAPS, *SORTS)
    for c in grid
]
maps = pd.DataFrame(rows)

# %% tags=["remove-input"]
fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
fine, colours = np.linspace(0, 1, 101), figures.palette(8)
ax.plot(fine, fine, color=figures.INK, linewidth=1)
ax.plot(fine, [half_way(c) for c in fine], color=colours[0], label="formula: MaxMin, ReLU, CReLU")
ax.plot(fine, [absolute(c) for c in fine], color=colours[1], linestyle="--", label="formula: |z|")
for (phi, p), marker, colour in zip(maps.groupby("activation", sort=False), "osD^vP*X", colours, strict=True):
    line = ":" if phi in SORTS else ""
    ax.plot(p["c"], p["simulated"], marker, linestyle=line, color=colour, label=phi, markersize=6, markerfacecolor="none")
ax.set(xlabel="correlation before the nonlinearity, c", ylabel="correlation after", xlim=(-0.01, 1.01), ylim=(-0.02, 1.02))
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

# %% tags=["remove-input"]
off = (maps["simulated"] - maps["formula"]).abs().max()
claim(f"18. Formula and Monte Carlo differ by at most {off:.4f}.", off < 0.01)
start = maps[maps["c"] == 0].set_index("activation")["simulated"]
claim(
    f"19. Uncorrelated inputs leave with {start['maxmin']:.2f} (MaxMin), {start['groupsort-4']:.2f} (groups of 4), "
    f"{start['groupsort-8']:.2f} (8), {start['groupsort-64']:.2f} (64).",
    start["maxmin"] < start["groupsort-4"] < start["groupsort-8"] < start["groupsort-64"],
)
steps = []
for phi in ("maxmin", "abs", "groupsort-8"):
    grams = list(feature_grams(nets.mlp(256, C, 256, 6, phi, bias=False), torch.randn(32, 256, generator=generator(0))).values())
    steps += [float((after - before).min()) for before, after in zip(grams, grams[1:], strict=False)]
claim(f"20. No inner product of 32 random inputs decreases in six orthogonal layers: smallest change {min(steps):.0e}.", min(steps) > -1e-9)

# %% [markdown]
# So use groups of two and no larger. And hidden in the theory is an assumption about data: that inputs point in many different directions.
#
# ## A causal handle
#
# Networks that differ in isometry mostly differ in what they compute as well. Here is a pair of hands that turns the one and
# not the other. For ReLU and a positive diagonal matrix $S$, $\phi(Sz) = S\phi(z)$. So
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
    for below, above in zip(linear, linear[1:], strict=False):
        scale = (deviation * torch.randn(below.out_features, generator=g)).exp()
        below.weight.mul_(scale[:, None])
        below.bias.mul_(scale)
        above.weight.div_(scale)
    return model


# %% [markdown]
# We also do what the formula only predicts: train. The residual starts as random signs, or as the centred one-hot codes of the images' true
# labels; full-batch gradient descent then runs at $\eta = 1/\lambda_{\max}$, on the real network, whose kernel moves.


# %%
def train_loss(model, x, residual, steps, optimizer):
    """Losses before and after each step, from f(x) - y = residual."""
    y, losses = model(x).detach() - residual, []
    for _ in range(steps + 1):
        loss = (model(x) - y).square().sum() / 2
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def removed(model, x, residual, steps, make):
    """Fraction of the loss removed after each number of steps, by a copy of the model."""
    twin = copy.deepcopy(model)
    losses = train_loss(twin, x, residual, max(steps), make(twin.parameters()))
    return [1 - losses[k] / losses[0] for k in steps]


# %% tags=["hide-input"]
BUDGETS, DEVIATIONS = (1, 10, 100), (0.0, 0.5, 1.0, 1.5)
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)  # Adam's; the best one counts
rows, progress = [], []
for seed in range(seeds):
    x, labels = (t.to(torch_device) for t in images(seed))
    signs = torch.randn(samples, C, generator=generator(200 + seed)).sign().to(torch_device)
    truth = nn.functional.one_hot(labels, C) - 1.0 / C
    base = nets.mlp(784, C, narrow, 3, "relu", gain=2**0.5, head_gain=1.0, seed=seed).to(torch_device)
    for deviation in DEVIATIONS:
        model = rescale_(copy.deepcopy(base), deviation, seed)
        theta = empirical_ntk(model, x)
        spectrum, P = ntk_summary(theta), plasticity(theta, torch.tensor(BUDGETS)).tolist()
        eta, setting = float(1 / spectrum.eigenvalues[-1]), {"seed": seed, "deviation": deviation}
        change = float((model(x) - base(x)).detach().abs().max())
        adam = [removed(model, x, signs, (10,), lambda p, lr=lr: torch.optim.Adam(p, lr=lr))[0] for lr in RATES]
        rows.append(setting | {"kappa_W2": float(torch.linalg.cond(model[3].weight.detach())),
            "kappa_theta": float(spectrum.condition_number), "P_10": P[1], "change_of_f": change,
            **{f"adam_{lr:g}": a for lr, a in zip(RATES, adam, strict=True)}})  # fmt: skip
        for target, residual in (("random signs", signs), ("true labels", truth)):
            got = removed(model, x, residual, BUDGETS, lambda p, eta=eta: torch.optim.SGD(p, lr=eta))
            progress += [setting | {"target": target, "steps": K, "predicted": p, "removed": r} for K, p, r in zip(BUDGETS, P, got, strict=True)]
gauge, progress = pd.DataFrame(rows), pd.DataFrame(progress)
print(gauge.groupby("deviation").mean()); print(progress.groupby(["target","steps","deviation"]).mean())
