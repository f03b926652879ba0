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
# # What isometry controls
#
# **Question.** The kernel has two factors, backward maps and Gram matrices ({doc}`isometry_and_the_entk`). What does it cost to leave
# isometry, which singular values do the harm, and what stays as it is however isometric the weights are?
#
# **Why it matters.** A force that pulls all singular values towards one treats every departure alike. If only some departures hurt, a
# method may be gentler; if the harm comes from elsewhere, no such force helps.
#
# **What comes out.** A decaying spectrum costs an order of magnitude ({prf:ref}`decaying-spectrum-costs-order`), a few small values nothing
# ({prf:ref}`few-small-values-cost-nothing`), a few huge ones three orders ({prf:ref}`few-huge-values-ruin`). Inputs that resemble each other cost
# more than ReLU in place of MaxMin ({prf:ref}`alike-inputs-cost-as-relu`), and depth only makes them more alike
# ({prf:ref}`inner-products-never-decrease`).

# %% tags=["parameters", "hide-input"]
samples = 64  # 8..512: inputs of each kernel; it has 10 rows an input
width = 512  # 16..2048: units of each hidden layer, even
seeds = 3  # 1..32: number of seeds, 0 to seeds - 1
device = "auto"  # auto | cpu | cuda: where to compute

# %% tags=["hide-input"]
import functools
import itertools
import math
import time

import numpy as np
import pandas as pd
import torch

from dyniso import nets
from dyniso.activations import activation
from dyniso.entk import feature_grams
from dyniso.kernels import CORRELATION_MAPS, correlation_map
from dyniso.report import figures
from dyniso.report.figures import kernels as kernel_figures
from dyniso.report.notebook import claim, show, show_frame, stamp
from dyniso.study.trials import prescribed
from dyniso.study import runner
from dyniso.study.trials.prescribed import NETWORKS, ONES, Recipe, share, some, survey

started = time.perf_counter()
torch.set_default_dtype(torch.float64)  # small eigenvalues are what this chapter is about
torch_device = runner.resolve_device(device)
figures.use_style()


# %% [markdown]
# ## What it costs to leave isometry
#
# Loose bounds settle no magnitudes; measuring does. Take the networks with chosen singular values of {doc}`isometry_and_the_entk`: three hidden
# layers, random singular vectors, "spikes" five values of 5 among ones, "power law" $\sigma_i = 8\,i^{-0.7}$. Measure the kernel, its block
# within a sample, plasticity after ten steps, and the Gram matrix of the last hidden layer. The inputs are random directions with
# $\lVert x\rVert^2 = 10$, optionally correlated; the same directions with $\lVert x\rVert^2 = 784$; and standardised MNIST images. Short inputs
# look alike to a kernel, as biases add 1 to every inner product; long ones drown the bias.

# %%
SHORT, LONG, MNIST, ALIKE = "$|x|^2 = 10$", "$|x|^2 = 784$", "MNIST", "cosine 0.6"
INPUTS = {
    SHORT: lambda seed: prescribed.sphere(samples, 10.0, seed=seed),
    LONG: lambda seed: prescribed.sphere(samples, 784.0, seed=seed),
    MNIST: lambda seed: prescribed.images(samples, seed)[0],
}
look = functools.partial(survey, seeds=seeds, width=width, device=torch_device)
measured = pd.DataFrame(look(NETWORKS, INPUTS))
plain = {name: NETWORKS[name] for name in ("MaxMin, orthogonal", "ReLU, orthogonal, gain 1")}
alike = look(plain, {ALIKE: lambda seed: prescribed.sphere(samples, 10.0, 0.6, seed=seed)})
means = pd.concat([measured, pd.DataFrame(alike)]).groupby(["inputs", "network"], sort=False).mean(numeric_only=True)

# %% tags=["hide-input"]
columns = {
    "kernel": r"$\kappa(\Theta)$",
    "block": r"$\kappa$ of a block",
    "mean_over_max": r"$\bar p$",
    "P_10": "$P_{10}$",
    "last_gram": r"$\kappa(K_L)$",
}
table = pd.concat([means.loc[SHORT], means.loc[ALIKE].rename(index="{}; alike".format)])[list(columns)]
table[r"$\kappa(\Theta)$, MNIST"] = means.loc[MNIST]["kernel"]
show_frame(
    table.rename(columns=columns).rename_axis("network"),
    ["{:,.0f}", "{:.2f}", "{:.3f}", "{:.2f}", "{:,.0f}", "{:,.0f}"],
    rf"Means over {seeds} seeds; {samples} inputs with $\lVert x\rVert^2 = 10$, MNIST images in the last column; width {width}. "
    r"Spikes: five singular values of 5. Power law: $\sigma_i = 8\,i^{-0.7}$. Alike: inputs of cosine 0.6.",
)

# %% tags=["hide-input"]
show(
    kernel_figures.by_inputs(measured),
    measured,
    name="fig-kernel-inputs",
    caption=f"Decaying spectra, and spikes in the head, are far from the rest on all inputs. Condition number of the kernel for each network on three kinds of inputs; a point a seed, {seeds} seeds.",
    alt="One row a network, logarithmic axis. Power-law networks and spikes in the head are far to the right of the others on "
    "all inputs; MNIST images are to the right of random directions for every network but the ReLU power law.",
)

# %% tags=["hide-input"]
kappas = means["kernel"].unstack("network")
orthogonal = {"MaxMin": "MaxMin, orthogonal", "ReLU": "ReLU, orthogonal, gain 1"}
decay = [
    kappas.loc[kind, f"{phi}, power law"] / kappas.loc[kind, net] for phi, net in orthogonal.items() for kind in INPUTS
]
claim(
    "decaying-spectrum-costs-order",
    f"The power law costs an order of magnitude: {min(decay):.0f} to {max(decay):.0f} times.",
    min(decay) > 5,
)

# %% tags=["hide-input"]
hidden, head = (kappas[name] / kappas["MaxMin, orthogonal"] for name in ("MaxMin, spikes", "MaxMin, spikes in head"))
claim(
    "few-large-values-cost-little",
    f"Five singular values of 5 a hidden layer cost {hidden.min():.1f} to {hidden.max():.1f} times.",
    hidden.max() < 3,
)
claim(
    "large-values-in-head-cost-much",
    f"The same five in the head alone cost {head.min():.1f} to {head.max():.1f} times.",
    head.min() > 3 * hidden.max(),
)

# %% tags=["hide-input"]
maxmin, relu = kappas["MaxMin, orthogonal"], kappas["ReLU, orthogonal, gain 1"]
resemblance, choice = maxmin[ALIKE] / maxmin[SHORT], relu / maxmin
claim(
    "alike-inputs-cost-as-relu",
    f"Inputs of cosine 0.6 cost {resemblance:.1f} times, ReLU for MaxMin {choice[SHORT]:.1f} times.",
    resemblance > 0.5 * choice[SHORT],
)
pictures = maxmin[MNIST] / maxmin[LONG]
claim(
    "images-cost-more-than-relu",
    f"On MNIST ReLU costs {choice[MNIST]:.1f} times; the images themselves {pictures:.1f} times.",
    choice[MNIST] < choice[SHORT] and pictures > 3,
)

# %% tags=["hide-input"]
gain = relu / kappas["ReLU, orthogonal, gain √2"]
claim(
    "best-gain-depends-on-inputs",
    f"ReLU, κ(Θ) at gain 1 over √2: {gain[SHORT]:.2f} short inputs, {gain[LONG]:.2f} long, {gain[MNIST]:.2f} MNIST.",
    gain[SHORT] > 1.2 and gain[LONG] < 1,
)

# %% tags=["hide-input"]
row = means.loc[SHORT]
one, other = (row.loc[name, "block"] for name in plain)
claim(
    "maxmin-isotropic-within-sample",
    f"Within a sample: MaxMin {one:.2f}, ReLU with the same weights {other:.2f}.",
    abs(one - 1) < 1e-6 and other > 1.2,
)

# %% tags=["hide-input"]
falls = [row.loc[name, "P_10"] for name in ("MaxMin, power law", "ReLU, power law")]
he = row.loc["ReLU, He Gaussian"]
claim(
    "decay-learns-slower-than-he",
    f"ReLU, He Gaussian: κ within a sample {he['block']:.2f}, $P_{{10}}$ {he['P_10']:.2f}. Power laws have $P_{{10}}$ {falls[0]:.2f} (MaxMin) and {falls[1]:.2f} (ReLU).",
    1.5 < he["block"] < 2.5 and 0.4 < he["P_10"] < 0.6 and max(falls) < 0.6 * he["P_10"],
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

# %%
SPECTRA = {  # singular values of all hidden layers; the head is orthogonal
    "all 1": ONES,
    "five of 0.01": some(5, 0.01),
    "five of 5": some(5, 5.0),
    "five of 50": some(5, 50.0),
    "half of them 0.1": share(0.5, 0.1),
    "nine tenths of them 0.1": share(0.9, 0.1),
}
recipes = {name: Recipe("maxmin", law, ONES) for name, law in SPECTRA.items()}
found = pd.DataFrame(look(recipes, {kind: INPUTS[kind] for kind in (SHORT, LONG)}))
parts = found.groupby(["network", "inputs"], sort=False)[["kernel", "P_10"]].mean().unstack("inputs")

# %% tags=["hide-input"]
ratios = [float(law(width).max() / law(width).min()) for law in SPECTRA.values()]
headings = [rf"{number}, {inputs}" for number in (r"$\kappa(\Theta)$", "$P_{10}$") for inputs in ("short", "long")]
show_frame(
    parts.set_axis(headings, axis=1)
    .assign(**{r"$\kappa(W)$": ratios})[[r"$\kappa(W)$", *headings]]
    .rename_axis("spectrum"),
    ["{:,.0f}", "{:,.0f}", "{:,.0f}", "{:.2f}", "{:.2f}"],
    rf"Means over {seeds} seeds; {samples} random inputs, short: $\lVert x\rVert^2 = 10$, long: 784; width {width}.",
)

# %% tags=["hide-input"]
cost = parts["kernel"] / parts["kernel"].loc["all 1"]
low = cost.loc["five of 0.01"]
claim(
    "few-small-values-cost-nothing",
    f"Five values 100 times too small cost nothing: {low.min():.2f} to {low.max():.2f} times.",
    low.max() < 1.1,
)
small, large = cost.loc["five of 5"].max(), cost.loc["five of 50"].min()
claim(
    "few-huge-values-ruin",
    f"Five values of 5 cost {small:.1f} times at most, five of 50 cost {large:,.0f} or more.",
    small < 2 and large > 100,
)
most = cost.loc["nine tenths of them 0.1"]
claim(
    "many-small-values-cost",
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
u, w = torch.randn(2, 2**18, generator=torch.Generator().manual_seed(0))


def simulated(phi, c):
    """Cosine of phi(u) and phi(v) for Gaussian u, v of correlation c, by Monte Carlo."""
    act = activation(phi)
    return float(torch.cosine_similarity(act(u), act(c * u + math.sqrt(1 - c * c) * w), dim=0))


SORTS = ("groupsort-4", "groupsort-8", "groupsort-64", "groupsort-512")
grid, rows = [round(c, 2) for c in np.linspace(0, 1, 11)], []
for phi, c in itertools.product((*CORRELATION_MAPS, *SORTS), grid):
    formula = float(correlation_map(phi, c)) if phi in CORRELATION_MAPS else math.nan
    rows.append({"activation": phi, "c": c, "simulated": simulated(phi, c), "formula": formula})
maps = pd.DataFrame(rows)

# %% tags=["hide-input"]
fine = np.linspace(0, 1, 101)
LINES = {"formula: |z|": "abs", "formula: MaxMin, ReLU, CReLU": "maxmin"}
formulas = pd.DataFrame({label: correlation_map(phi, fine) for label, phi in LINES.items()}, index=fine)
show(
    kernel_figures.correlations(maps, formulas),
    maps,
    name="fig-correlation-maps",
    caption="Each of these nonlinearities makes inputs more alike; MaxMin, ReLU and CReLU do so equally. Correlation of two Gaussian inputs before and after. Markers: Monte Carlo with $2^{18}$ draws, one seed; lines: "
    "{eq}`eq-correlation-map` (dotted: through the markers). Grey: unchanged.",
    alt="All curves lie above the diagonal. MaxMin, ReLU and CReLU coincide; the absolute value and GroupSort of larger "
    "groups lie higher, GroupSort 512 near one throughout.",
)

# %%
changes = []
for phi in ("maxmin", "abs", "groupsort-8"):
    model = nets.mlp(256, 10, 256, 6, phi, bias=False)
    grams = feature_grams(model, torch.randn(32, 256, generator=torch.Generator().manual_seed(0))).values()
    changes += [float((after - before).min()) for before, after in itertools.pairwise(grams)]

# %% tags=["hide-input"]
claim(
    "inner-products-never-decrease",
    f"No inner product decreases in six orthogonal layers: smallest change {min(changes):.0e}.",
    min(changes) > -1e-9,
)
gap = (maps["simulated"] - maps["formula"]).abs().max()
claim("correlation-formula-holds", f"Formula and Monte Carlo differ by at most {gap:.4f}.", gap < 0.01)
start = maps[maps["c"] == 0].set_index("activation")["simulated"]
claim(
    "larger-groups-correlate-more",
    f"Uncorrelated inputs leave with {start['maxmin']:.2f} (MaxMin), {start['groupsort-4']:.2f} (group 4), "
    f"{start['groupsort-8']:.2f} (8), {start['groupsort-64']:.2f} (64).",
    start["maxmin"] < start["groupsort-4"] < start["groupsort-8"] < start["groupsort-64"],
)

# %% [markdown]
# So use groups of two and no larger. And the theory leans on an assumption about data: that inputs point in many
# different directions.
#
# ## What to conclude, and what not
#
# - **Isometry controls one of two factors.** It makes the backward maps, and so the kernel within a sample, perfect
#   ({prf:ref}`isometric-block-isotropic`, {prf:ref}`maxmin-isotropic-within-sample`). The Gram matrices stay with the data and the
#   nonlinearity ({prf:ref}`alike-inputs-cost-as-relu`, {prf:ref}`images-cost-more-than-relu`, {prf:ref}`inner-products-never-decrease`),
#   where MaxMin gains nothing over ReLU ({prf:ref}`correlation-formula-holds`).
# - **Isometry is sufficient for good backward maps, and far from necessary.** A few small singular values cost nothing. A decaying
#   spectrum, or a few very large values, cost one to three orders of magnitude ({prf:ref}`decaying-spectrum-costs-order`,
#   {prf:ref}`few-small-values-cost-nothing`, {prf:ref}`few-huge-values-ruin`, {prf:ref}`many-small-values-cost`).
# - **A free head is where anisotropy can come back** ({prf:ref}`large-values-in-head-cost-much`, {prf:ref}`free-head-formula`).
#
# Not shown here:
#
# - that training brings spectra like these about: the weights are made by hand. {doc}`what_predicts_learning` measures trained ones;
# - that a worse kernel slows Adam. It slows gradient descent ({prf:ref}`gauge-slows-descent`, {prf:ref}`adam-hardly-minds-gauge`).
#
# ## Try changing
#
# - `samples`: more inputs, worse Gram matrices. What happens to {prf:ref}`alike-inputs-cost-as-relu`?
# - `width`: at 128 the run stops at {prf:ref}`decaying-spectrum-costs-order`. Why does the same power law do less harm there? What is its smallest value?
# - `NETWORKS`: add `Recipe("groupsort-8", ONES, ONES)`. Where does {prf:ref}`larger-groups-correlate-more` put it?
#
# ```
# python tools/notebooks.py run notebooks/what_isometry_controls.py \
#     -p samples 128 -p seeds 2 -o mine.ipynb
# ```
#
# A line that fails then is a finding, not an accident: it says which observation depends on what you changed.
#
# ## Exercise
#
# A deep MaxMin network with orthogonal layers applies {eq}`eq-correlation-map` over and over. Near $c = 1$, how fast does $\delta = 1 - c$ fall with
# depth $l$: exponentially, or like a power of $l$? Write $c = \cos\theta$ and expand, then open the check.
#
# :::{dropdown} Solution
# $\rho(\cos\theta) = \cos\theta + \tfrac2\pi(\sin\theta - \theta\cos\theta) \approx \cos\theta + \tfrac{2}{3\pi}\theta^3$, and $\theta \approx \sqrt{2\delta}$.
# So a layer takes $\tfrac{1}{3\pi}(2\delta)^{3/2}$ from $\delta$. As a differential equation, $\delta^{-1/2}$ grows by $\sqrt2/(3\pi)$ a layer:
# $\delta \approx \tfrac{9\pi^2}{2}\, l^{-2}$. A power: samples grow alike slowly, and no finite depth makes them equal.
# :::

# %% tags=["hide-input"]
c, depths = torch.tensor(0.0), (10, 100, 1000, 10_000)
for layer in range(1, depths[-1] + 1):
    c = correlation_map("maxmin", c)
    if layer in depths:
        print(f"{layer:6,} layers: 1 - c = {1 - c:.2e}, over the formula {(1 - c) * layer**2 / (4.5 * math.pi**2):.3f}")

# %% [markdown]
# ## What is next
#
# Whether the kernel predicts what Adam learns on a real stream of tasks is measured in {doc}`what_predicts_learning`.
# Weights do not stay where they start: {doc}`adamo` adds a force that pulls singular values towards one while an adaptive optimizer trains,
# and asks how strong it has to be.

# %% tags=["hide-input"]
stamp(
    notebook="what_isometry_controls",
    parameters={"samples": samples, "width": width, "seeds": seeds, "device": device},
    seeds=range(seeds),
    wall_s=time.perf_counter() - started,
)
