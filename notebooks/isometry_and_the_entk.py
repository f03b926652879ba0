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
# **Question.** Isometry is a property of weights: all singular values equal one. The tangent kernel says how fast gradient descent
# learns ({doc}`plasticity_and_the_kernel`). What connects the two, and how tightly?
#
# **Why it matters.** If the connection is loose, then pulling singular values towards one is a habit and not a cure. Who
# wants to use the method, or to improve it, has to know which quantity really decides.
#
# **What comes out.** The kernel is a sum over layers of two factors, backward maps and Gram matrices of features. Isometric weights make
# the first perfect ({prf:ref}`isometric-block-isotropic`). Bounds that keep a backward map whole come close
# ({prf:ref}`second-theorem-near`); bounds by the singular values of single weights do not
# ({prf:ref}`product-bound-useless-for-decay`, {prf:ref}`product-bound-infinite-for-relu`).

# %% tags=["parameters", "hide-input"]
samples = 64  # 8..512: inputs of each kernel; it has 10 rows an input
width = 512  # 16..2048: units of each hidden layer, even
device = "auto"  # auto | cpu | cuda: where to compute

# %% tags=["hide-input"]
import copy
import itertools
import time

import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso import nets
from dyniso.entk import backward_maps, empirical_ntk, feature_grams
from dyniso.theory.kernel_factors import kernel_from_factors, kernel_over_positions, sample_blocks, tightness
from dyniso.kernels import ntk_summary, without_constant_output
from dyniso.report import figures
from dyniso.report.figures import kernels as kernel_figures
from dyniso.report.notebook import claim, show, show_frame, stamp
from dyniso.study.trials import prescribed
from dyniso.study import runner
from dyniso.study.trials.prescribed import NETWORKS, ONES, Recipe, constant, network, sphere

started = time.perf_counter()
torch.set_default_dtype(torch.float64)  # small eigenvalues are what this chapter is about
torch_device = runner.resolve_device(device)
figures.use_style()


def off(theta, other):
    """Largest difference of two kernels, as a fraction of the largest entry."""
    return float((other - theta).abs().max() / theta.abs().max())


# %% [markdown]
# The paper links isometry to the kernel in its argument (see {doc}`plasticity_and_the_kernel`). The sum over layers and both theorems below
# are **our reconstruction** of that link, and may differ from what is printed.
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
narrow = min(width, 128)  # the Jacobian of a wide net does not fit
few = prescribed.images(8)[0].to(torch_device)
gaps = []
for phi in ("relu", "maxmin", "abs", "crelu", "groupsort-4"):
    model = nets.mlp(784, 10, narrow, 3, phi, init="default", seed=0).to(torch_device)
    theta = empirical_ntk(model, few, method="jacobian")
    layerwise = empirical_ntk(model, few, method="layerwise")
    spelled_out = kernel_from_factors(backward_maps(model, few), feature_grams(model, few))
    gaps += [max(off(theta, layerwise), off(theta, spelled_out))]

# %% tags=["hide-input"]
claim(
    "kernel-three-ways",
    f"{len(few)} MNIST images, {len(gaps)} activations: all three agree to {max(gaps):.0e} of the largest entry.",
    max(gaps) < 1e-12,
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
# The library multiplies the per-sample gradients of a convolution. `kernel_over_positions` never forms them and sums over pairs of positions.

# %%
pictures = prescribed.images(6)[0].reshape(-1, 1, 28, 28).to(torch_device)
gaps = []
for phi in ("relu", "maxmin"):  # MaxMin sorts pairs of channels
    model = nets.cnn((1, 28, 28), 10, (8, 16), (32,), phi, init="default", seed=0).to(torch_device)
    theta = empirical_ntk(model, pictures, method="jacobian")
    layerwise = empirical_ntk(model, pictures, method="layerwise")
    gaps += [max(off(theta, layerwise), off(theta, kernel_over_positions(model, pictures)))]

# %% tags=["hide-input"]
claim(
    "cnn-kernel-three-ways",
    f"{len(pictures)} MNIST images, strided CNNs with ReLU and MaxMin: all three agree to {max(gaps):.0e} of the largest entry.",
    max(gaps) < 1e-12,
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
# To see, we need networks with chosen spectra: random singular vectors, prescribed singular values. They have inputs of 784 numbers, three
# hidden layers, ten outputs, and biases (zero at the start). "Orthogonal" is the spectrum of ones, "gain" another constant, "spikes" five
# values of 5 among ones, "power law" $\sigma_i = 8\,i^{-0.7}$. The head is orthogonal unless a name says otherwise. All networks of one seed
# share their singular vectors, except He's.
#
# Biases add 1 to every inner product in $K_l$, so the length of the inputs matters: short inputs look alike, long ones drown
# the bias. Here they are random directions with $\lVert x\rVert^2 = 10$.

# %%
x = sphere(samples, 10.0).to(torch_device)
models = {name: network(recipe, width=width).to(torch_device) for name, recipe in NETWORKS.items()}
table = pd.DataFrame([{"network": name, **tightness(model, x)._asdict()} for name, model in models.items()])

# %% tags=["hide-input"]
show(
    kernel_figures.tightness(table),
    table,
    name="fig-bounds",
    caption="Bounds that keep backward maps whole come near, products over layers do not. Condition numbers measured and bounded: of one sample's block $\\Theta(x,x)$ by the two expressions of {prf:ref}`thm-one-sample`, "
    "and of the whole kernel by those of {prf:ref}`thm-many-samples`. An arrow at the right edge: the bound is infinite. "
    f"{samples} random inputs with $\\lVert x\\rVert^2 = 10$, width {width}, one seed.",
    alt="Two panels of dots on a logarithmic axis, one row a network. Bounds touch the measured value for isometric MaxMin. For one sample the "
    "product is off by orders of magnitude or, for every ReLU network, infinite, marked by arrows at the right edge; for all samples the bounds stay near.",
)

# %% tags=["hide-input"]
t = table.set_index("network")
isometric = t.loc["MaxMin, orthogonal"]
claim(
    "isometric-block-isotropic",
    f"Isometric MaxMin: κ(Θ(x,x)) - 1 is at most {isometric['block'] - 1:.0e}.",
    isometric["block"] < 1 + 1e-9,
)
ordered = (t["kernel"] <= t["kernel_sums"]).all() and (t["kernel_sums"] <= t["kernel_ratio"]).all()
claim(
    "both-theorems-hold",
    f"Both bounds hold on all {len(t)} networks, in either expression, and the first on each of {samples} samples.",
    bool(t["every_sample_holds"].all() and ordered),
)

# %% tags=["hide-input"]
floor = t["smallest_over_floor"]
claim(
    "features-floor-the-kernel",
    f"So does the floor: $\\lambda_{{\\min}}(\\Theta)$ is {floor.min():.1f} to {floor.max():.0f} times $\\lambda_{{\\min}}(K_L)$.",
    bool((floor >= 1 - 1e-9).all()),
)

# %% tags=["hide-input"]
gaps = []
for s in (3.0, 1.0):
    model = network(Recipe("maxmin", ONES, constant(s)), width=width).to(torch_device)
    grams = feature_grams(model, x)
    *below, a_L = (K.diagonal() for K in grams.values())
    multiple = (a_L + s**2 * sum(below))[:, None, None] * torch.eye(10).to(torch_device)
    gaps += [off(multiple, sample_blocks(empirical_ntk(model, x), 10))]
claim(
    "isometric-block-formula",
    f"Its blocks are $a_L$ plus $s^2$ times the sum of the other $a_l$, times $I$, for heads of $s = 1$ and 3, to {max(gaps):.0e} of the largest entry.",
    max(gaps) < 1e-12,
)

# %% tags=["hide-input"]
worst = max(float(torch.linalg.cond(K)) for K in grams.values())
claim(
    "isometric-kernel-below-grams",
    f"Its κ(Θ) = {isometric['kernel']:.0f} is below the worst Gram matrix, {worst:.0f}.",
    isometric["kernel"] < worst,
)

# %% tags=["hide-input"]
model = models["MaxMin, spikes in head"]
*below, a_L = (float(K[0, 0]) for K in feature_grams(model, x).values())
formula = (a_L + 25 * sum(below)) / (a_L + sum(below))
block = float(torch.linalg.cond(empirical_ntk(model, x[:1])))
claim(
    "free-head-formula",
    f"Free head, first sample: κ(Θ(x,x)) = {block:.4f}, by formula {formula:.4f}.",
    abs(block - formula) < 1e-8 * formula,
)

# %% tags=["hide-input"]
model = nets.cnn((1, 28, 28), 10, (8, 16), (32,), "maxmin", downsample="unshuffle", seed=0).to(torch_device)
backward = max(float(torch.linalg.cond(B).max()) for B in backward_maps(model, pictures).values()) ** 2
shared = torch.linalg.cond(sample_blocks(empirical_ntk(model, pictures), 10))
claim(
    "isometric-cnn-block-anisotropic",
    f"Isometric CNN: $\\kappa(B_l B_l^\\top) - 1$ is at most {backward - 1:.0e}, yet κ(Θ(x,x)) is {shared.min():.2f} to {shared.max():.2f}.",
    backward < 1 + 1e-9 and shared.min() > 1.01,
)

# %% tags=["hide-input"]
loose = t["kernel_sums"] / t["kernel"]
claim(
    "second-theorem-near",
    f"The second bound is {loose.min():.1f} to {loose.max():.0f} times too large, as a ratio of sums.",
    loose.min() > 1 and loose.max() < 20,
)
collapsed, relu = t.loc["MaxMin, power law"], t.filter(like="ReLU", axis=0)
claim(
    "product-bound-useless-for-decay",
    f"The first is useless for the power law, as a product: {collapsed['block_product']:.0e} against {collapsed['block']:.1f}.",
    collapsed["block_product"] > 1e3 * collapsed["block"],
)

# %% tags=["hide-input"]
depths = (models["ReLU, orthogonal, gain 1"][:k] for k in (3, 5, 7))  # what each later layer sees
gates = max(int((below(x) > 0).sum(1).max()) for below in depths)
claim(
    "product-bound-infinite-for-relu",
    f"And infinite for ReLU: at most {gates} of {width} gates are open.",
    gates < width and bool(np.isinf(relu["block_product"]).all()),
)
sharper = relu["block_sums"] / relu["block"]
claim(
    "sums-bound-finite-for-relu",
    f"The ratio of sums is finite there, {sharper.min():.1f} to {sharper.max():,.0f} times too large; for the power law {collapsed['block_sums']:.0e}.",
    sharper.min() > 1 and sharper.max() < 1e4 and collapsed["block_sums"] < 1e-2 * collapsed["block_product"],
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
slope, share = 0.1, {"orthogonal": [], "power law": []}
for name, law in zip(share, (ONES, prescribed.DECAY), strict=True):
    W = prescribed.matrix(128, 128, law, seed=99)
    for draw in range(20):
        z = torch.randn(128, generator=torch.Generator().manual_seed(draw))
        D = torch.func.jacrev(lambda z: nn.functional.leaky_relu(z, slope))(z)
        share[name] += [float(torch.linalg.cond(D @ W) / (torch.linalg.cond(D) * torch.linalg.cond(W)))]


# %%
def conditions(model):
    """Condition number of the kernel, and of its restriction to outputs that sum to zero."""
    theta = empirical_ntk(model, x)
    return [float(ntk_summary(k).condition_number) for k in (theta, without_constant_output(theta, 10))]


cost = [whole / restricted for whole, restricted in map(conditions, models.values())]
plain, moved = models["MaxMin, orthogonal"], copy.deepcopy(models["MaxMin, orthogonal"])
vector = torch.randn(1, width, generator=torch.Generator().manual_seed(0)).to(torch_device)
moved[-1].weight.data += 3 * vector / width**0.5
before, after = conditions(plain), conditions(moved)

# %% tags=["hide-input"]
slopes, ends = torch.linalg.svdvals(D), [min(share["power law"]), max(share["power law"])]
claim(
    "leaky-relu-between",
    f"Leaky ReLU of slope {slope}: $D$ has the singular values {float(slopes[-1]):.1f} and {float(slopes[0]):.0f}. κ(DW) is κ(D) κ(W) for orthogonal "
    f"$W$, and {ends[0]:.2f} to {ends[1]:.2f} of it for a power law.",
    bool(((slopes - slope).abs() < 1e-12).logical_or((slopes - 1).abs() < 1e-12).all())
    and max(abs(s - 1) for s in share["orthogonal"]) < 1e-9
    and 0.4 < ends[0] <= ends[1] < 0.9,
)
claim(
    "constant-output-costs-little",
    f"On the {len(cost)} networks the constant output costs little: κ(Θ) is {min(cost):.2f} to {max(cost):.2f} times what it is without.",
    1 - 1e-9 <= min(cost) <= max(cost) < 1.5,
)

# %% tags=["hide-input"]
shift = float((moved(x).softmax(1) - plain(x).softmax(1)).detach().abs().max())
claim(
    "constant-output-unseen-by-softmax",
    f"One vector of length 3 on all rows of a head moves no probability by more than {shift:.0e}. κ(Θ) goes from {before[0]:.0f} to {after[0]:.0f}, "
    f"and without the constant output stays {before[1]:.0f}, to {abs(after[1] / before[1] - 1):.0e}.",
    shift < 1e-12 and after[0] > 2 * before[0] and abs(after[1] / before[1] - 1) < 1e-9,
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
for name, model in models.items():
    weights = [float(torch.linalg.cond(model.get_submodule(layer).weight.detach())) for layer in ("3", "5", "7")]
    maps = [float(torch.linalg.cond(B).max()) ** 2 for B in list(backward_maps(model, x).values())[:-1]]
    numbers = dict(zip(("W2", "W3", "W4", "B1", "B2", "B3"), weights + maps, strict=True))
    rows.append({"network": name} | numbers | {"block": t["block"][name]})
layers = pd.DataFrame(rows).set_index("network")

# %% tags=["hide-input"]
headings = [rf"$\kappa(W_{l})$" for l in (2, 3, 4)] + [rf"$\kappa(B_{l} B_{l}^\top)$" for l in (1, 2, 3)]
show_frame(
    layers.set_axis([*headings, r"$\kappa(\Theta(x,x))$"], axis=1),
    ["{:,.0f}"] * 3 + ["{:,.1f}"] * 4,
    rf"One seed, {samples} random inputs with $\lVert x\rVert^2 = 10$, the worst of them; width {width}. $W_4$ is the head.",
)

# %% tags=["hide-input"]
gaussian, decaying = layers.loc["ReLU, He Gaussian"], layers.loc["MaxMin, power law"]
worst = gaussian[["B1", "B2", "B3"]].max()
claim(
    "weights-worse-than-maps",
    f"He Gaussian: κ of the square weights is {gaussian['W2']:,.0f} and {gaussian['W3']:,.0f}, $\\kappa(B_l B_l^\\top)$ at most {worst:.1f}.",
    min(gaussian["W2"], gaussian["W3"]) > 10 * worst,
)
allowed = (decaying["W2"] * decaying["W3"]) ** 2
claim(
    "maps-far-below-product",
    f"Power law, MaxMin: $\\kappa(B_1 B_1^\\top)$ is {decaying['B1']:.0f}, though the theorem allows {allowed:.0e}.",
    decaying["B1"] < 1e-3 * allowed,
)

# %% tags=["hide-input"]
flat = layers.loc["ReLU, orthogonal, gain 1"]
claim(
    "maps-above-weights",
    f"It is above κ(W₂) = {decaying['W2']:.0f} all the same. And ReLU, orthogonal: κ(W₂) = {flat['W2']:.0f}, $\\kappa(B_1 B_1^\\top)$ = {flat['B1']:.1f}.",
    decaying["B1"] > decaying["W2"] and flat["W2"] < 1 + 1e-9 and flat["B1"] > 1.2,
)
claim(
    "one-map-does-not-decide",
    f"Nor does one $B_l$ decide: for the power law κ(Θ(x,x)) is {decaying['block']:.1f}, as the layers near the head have round maps.",
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
    rows.append({"activation": phi, **tightness(model, sphere(6, 8.0, size=8, seed=seed))._asdict()})
tiny = pd.DataFrame(rows)
for bound in ("block_sums", "block_product", "kernel_sums", "kernel_ratio"):
    tiny[f"{bound}_factor"] = tiny[bound] / tiny[bound.split("_")[0]]
middle = tiny.groupby("activation", sort=False).median()

# %% tags=["hide-input"]
columns = ["block", "block_sums_factor", "block_product_factor", "kernel", "kernel_sums_factor", "kernel_ratio_factor"]
headings = [r"$\kappa(\Theta(x,x))$", "sums", "product", r"$\kappa(\Theta)$", "sums", "largest ratio"]
show_frame(
    middle[columns].set_axis(headings, axis=1),
    ["{:.1f}", "{:.0f}", "{:.0e}", "{:.0f}", "{:.0f}", "{:.0f}"],
    f"Medians over {DRAWS} random networks {SMALL} units wide: condition numbers, and how many times too large the two expressions of "
    "{prf:ref}`thm-one-sample` and of {prf:ref}`thm-many-samples` are.",
)

# %% tags=["hide-input"]
ordered = (tiny["kernel"] <= tiny["kernel_sums"]) & (tiny["kernel_sums"] <= tiny["kernel_ratio"])
claim(
    "theorems-hold-on-small-nets",
    f"Either expression of either bound holds on each of {len(tiny)} small networks.",
    bool((ordered & tiny["every_sample_holds"]).all()),
)
smooth, gated = (tiny[(tiny["activation"] == "relu") == is_relu] for is_relu in (False, True))
least, usual = smooth["block_product_factor"].min(), smooth["kernel_sums_factor"].quantile([0.05, 0.95])
claim(
    "small-nets-product-useless",
    f"MaxMin and $|z|$: the product is {least:,.0f} times too large or more, the second bound, in nine of ten draws, {usual.iloc[0]:.0f} to {usual.iloc[1]:.0f} times.",
    least > 1e3 and usual.iloc[1] < 100,
)

# %% tags=["hide-input"]
infinite = {key: np.isinf(gated[key]).mean() for key in ("block_product", "kernel_ratio", "kernel_sums")}
claim(
    "small-relu-product-infinite",
    f"ReLU: the product is infinite in {infinite['block_product']:.0%} of the draws, the largest ratio in {infinite['kernel_ratio']:.0%}, the second ratio of sums in {infinite['kernel_sums']:.0%}.",
    infinite["block_product"] > 0.9 and infinite["kernel_sums"] < 0.5,
)
narrow_loose, wide_loose = middle.loc["relu", "kernel_sums_factor"], loose["ReLU, He Gaussian"]
claim(
    "small-nets-looser",
    f"He Gaussian ReLU, the second ratio of sums: {narrow_loose:.0f} times too large {SMALL} units wide, {wide_loose:.1f} times at width {width}.",
    narrow_loose > wide_loose,
)

# %% [markdown]
# No: for the same law of weights they are looser. What carries over is the order: sums before products, and $B_l$ as a whole before its factors.
#
# ## What to conclude, and what not
#
# - **Isometry makes the backward maps perfect**, and with them the kernel within a sample ({prf:ref}`isometric-block-isotropic`,
#   {prf:ref}`isometric-block-formula`). The Gram matrices are the other factor ({prf:ref}`isometric-kernel-below-grams`).
# - **In a CNN the factors do not separate.** The sum over layers stays exact ({prf:ref}`cnn-kernel-three-ways`), but perfect backward
#   maps no longer make a perfect kernel within a sample ({prf:ref}`isometric-cnn-block-anisotropic`).
# - **A free head is where anisotropy can come back.** Log its condition number ({prf:ref}`free-head-formula`).
# - **Report $\kappa(B_l B_l^\top)$ or $\kappa(\Theta(x,x))$**, and without the constant output where the loss is cross-entropy
#   ({prf:ref}`constant-output-unseen-by-softmax`).
#
# Not shown here: that the $\kappa(W_l)$, or their product, say anything about $\kappa(\Theta)$. They do not
# ({prf:ref}`product-bound-useless-for-decay`, {prf:ref}`product-bound-infinite-for-relu`, {prf:ref}`weights-worse-than-maps`,
# {prf:ref}`maps-far-below-product`, {prf:ref}`maps-above-weights`), and in small networks no more than in wide ones
# ({prf:ref}`small-nets-product-useless`, {prf:ref}`small-relu-product-infinite`). Nor that the kernel stays like this: these are networks
# at their start, with weights made by hand.
#
# ## Try changing
#
# - `NETWORKS`: add `Recipe("groupsort-8", ONES, ONES)`. Which observations hold for it as they do for MaxMin?
# - `width`: which of the bounds gets tighter?
# - The inputs: `sphere(samples, 784.0)` drowns the bias. What happens to {prf:ref}`features-floor-the-kernel`?
#
# ```
# python tools/notebooks.py run notebooks/isometry_and_the_entk.py \
#     -p samples 128 -p width 256 -o mine.ipynb
# ```
#
# A line that fails then is a finding, not an accident: it says which observation depends on what you changed.
#
# ## Exercise
#
# CReLU preserves norms: its Jacobian is $2d \times d$ with $D^\top D = I$. Let every layer after the first have
# $W W^\top = I$. Is $\Theta(x,x)$ a multiple of the identity, as for MaxMin? First decide, then open the check.
#
# :::{dropdown} Solution
# No. The backward pass needs $M_m M_m^\top = W_m D D^\top W_m^\top = I$, and $D D^\top$ is not $I$ but a projection onto $d$ of the $2d$ coordinates, as
# for ReLU half the gates are closed. CReLU is isometric on the way forward only. MaxMin's $D$ is square, and there $D^\top D = I$ gives
# $D D^\top = I$.
# :::

# %% tags=["hide-input"]
for phi in ("maxmin", "crelu"):
    model = nets.mlp(784, 10, width, 3, phi, seed=0).to(torch_device)
    blocks = torch.linalg.cond(sample_blocks(empirical_ntk(model, x), 10))
    print(f"{phi}: κ(Θ(x,x)) from {blocks.min():.3f} to {blocks.max():.3f}")

# %% [markdown]
# ## What is next
#
# Loose bounds settle no magnitudes. {doc}`what_isometry_controls` measures what it costs to leave isometry, and what isometry leaves
# untouched: the Gram matrices.

# %% tags=["hide-input"]
stamp(
    notebook="isometry_and_the_entk",
    parameters={"samples": samples, "width": width, "device": device},
    seeds=[0],
    wall_s=time.perf_counter() - started,
)
