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
# # Keeping weights orthogonal
#
# **Question.** By which computation is a weight made orthogonal, and kept so while it is trained? And what does an orthogonal
# kernel say about a convolution?
#
# **Why it matters.** Isometric networks ({doc}`isometric_networks`) need weights whose singular values are one. A singular value
# decomposition does it, at a price; iterations of matrix products are cheaper, and differ in what they need to know.
#
# **In short.** From a cold start the schemes that are designed for an interval arrive first ({prf:ref}`polar-express-is-first-from-cold`);
# near isometry all of Björck's maps take a few iterations ({prf:ref}`bjorck-is-enough-near-isometry`); Muon's quintic does not converge at all
# ({prf:ref}`muon-does-not-converge`). A kernel whose matrix is orthogonal is not an isometric convolution
# ({prf:ref}`isometric-kernel-is-no-isometric-operator`).

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

from dyniso.activations import GroupSort, MaxMin
from dyniso.theory.convergence import LABELS, errors_along, extremes, need, steps_to
from dyniso.isometry import as_matrix, conv_operator_singular_values, gram_deviation, singular_values
from dyniso.initialisation import delta_orthogonal_
from dyniso.nets import orthogonal
from dyniso.polar import MUON, SCHEMES, minimax_polynomial, orthogonalise, polar_factor, scale_below_one
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
# > Weights of the isometric networks are kept orthogonal; Newton-Schulz iterations are the means {cite:p}`rosseau2026`.
#
# Its source for them is {cite:t}`grishina2025`. Which of the ways below the paper took is not known to us.
#
# ## Schemes of odd polynomials
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
a, b, c = MUON
ceiling = np.sqrt(np.roots([c, b, a - 1]).max())
claim(
    "muon-does-not-converge",
    f"Muon's quintic does not converge: after {count} iterations from the cold start it is {curves['cold', 'muon'][-1]:.2f} away. Beyond {ceiling:.3f}, its "
    f"largest fixed point, it diverges, as from the near start: after 3 iterations the error is {curves['near', 'muon'][3]:.0e}.",
    0.15 < curves["cold", "muon"][-1] < 0.5 and 1 < ceiling < 1.3 and curves["near", "muon"][3] > 100,
)
near, cold = ({s: steps_to(curves[at, s]) for s in SCHEMES} for at in ("near", "cold"))
claim(
    "bjorck-is-enough-near-isometry",
    f"Near isometry Björck's maps of degree 3, 5, 7, 9 reach 1e-6 in {', '.join(str(near[s]) for s in SCHEMES[:4])} iterations.",
    max(near[s] for s in SCHEMES[:4]) <= 6,
)

# %% tags=["hide-input"]
first, last = cold["polar_express"], curves["cold", "newton_schulz"]
claim(
    "polar-express-is-first-from-cold",
    f"From a cold start Polar Express reaches 1e-6 in {first} iterations, CANS in {cold['cans']}; Newton-Schulz is {last[cold['cans']]:.2f} away then.",
    first <= cold["cans"] < count and last[cold["cans"]] > 0.05,
)
heights = {n: extremes(minimax_polynomial(0.1, 1, n), 0.1, 1) for n in (2, 3)}
claim(
    "best-polynomials-alternate",
    f"On $[0.1, 1]$ the best cubic misses one by {', '.join(f'{e:+.4f}' for e in heights[2])}, the best quintic by "
    f"{', '.join(f'{e:+.4f}' for e in heights[3])}: they alternate.",
    all(
        len(heights[n]) == n + 1 and np.allclose(heights[n], -heights[n][0] * (-1.0) ** np.arange(1, n + 2), atol=1e-5)
        for n in (2, 3)
    ),
)

# %% [markdown]
# As library calls on one matrix, beside an exact method and torch's parametrizations; an error is the largest $|\sigma - 1|$.
# Here CANS and Polar Express are not told the interval but assume $\sigma_{\min} = 10^{-3}$. A step of a polynomial with $d$
# coefficients costs $d$ matrix products. Torch's parametrizations map a free parameter to some orthogonal matrix, which is an
# easier task than to find the nearest to a given one. Times are ratios to the SVD in this very run, on one core (Muon's: for 20
# iterations), and no claim rests on them: other sizes and hardware differ.

# %%
M = normal(128, 128)
needs = {s: need(s, singular_values(scale_below_one(M)), lower=1e-3) for s in SCHEMES}
calls = {"SVD": lambda: polar_factor(M)}
calls |= {LABELS[s]: lambda s=s: orthogonalise(M, s, needs[s].steps if needs[s] else count) for s in SCHEMES}
for method in ("householder", "cayley", "matrix_exp"):
    layer = orthogonal(nn.Linear(128, 128, bias=False).double(), method)
    calls[f"torch, {method}"] = lambda layer=layer: layer.weight
after_15 = {s: float((singular_values(orthogonalise(M, s, 15)) - 1).abs().max()) for s in SCHEMES}

# %% tags=["hide-input"]
outcome = {}
for name, build in calls.items():
    clock = []
    for _ in range(5):
        begin = time.perf_counter()
        Q = build()
        clock.append(time.perf_counter() - begin)
    outcome[name] = float((singular_values(Q.detach()) - 1).abs().max()), min(clock)

# %% tags=["hide-input"]
by_label, table = {LABELS[s]: s for s in SCHEMES}, []
for name, (e, t) in outcome.items():
    s = by_label.get(name)
    table.append(
        {
            "128 x 128 Gaussian": name,
            "error after 15": f"{after_15[s]:.0e}" if s else "",
            "iterations to 1e-6": (needs[s].steps if needs[s] else "never") if s else "",
            "products": needs[s].products if s and needs[s] else "",
            "error then": f"{e:.0e}",
            "time over SVD": f"{t / outcome['SVD'][1]:.2f}",
        }
    )
show_table(table)

# %% tags=["hide-input"]
exact = ["SVD", *(n for n in calls if n.startswith("torch"))]
claim(
    "parametrizations-are-exact",
    f"SVD and torch's parametrizations are orthogonal to {max(outcome[n][0] for n in exact):.0e}; 15 Newton-Schulz steps from a "
    f"Gaussian are not ({after_15['newton_schulz']:.2f}).",
    max(outcome[n][0] for n in exact) < 1e-10 and after_15["newton_schulz"] > 1e-3,
)
products = {s: needs[s].products for s in SCHEMES if needs[s]}
fewest = min(products, key=products.get)
claim(
    "higher-degree-alone-does-not-help",
    f"Counted in products to 1e-6, {LABELS[fewest]} is cheapest ({products[fewest]}), Newton-Schulz takes {products['newton_schulz']}; a higher degree "
    f"alone does not help (Björck 4: {products['bjorck-4']}).",
    fewest in ("cans", "polar_express") and products["bjorck-4"] > products[fewest],
)
safe = float(singular_values(scale_below_one(M)).max())
claim(
    "safe-scaling-stays-below-one",
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
target, ways = make_target(generator), {}
for constraint in ("parametrised", "projected", "clipped"):
    begin = time.perf_counter()
    found = fit(target, "relu" if constraint == "clipped" else "maxmin", steps=steps, constraint=constraint, seed=seed)
    off = max(float((singular_values(W) - 1).abs().max()) for W in found.weights())
    ways[constraint] = found.error, off, time.perf_counter() - begin

# %% tags=["hide-input"]
claim(
    "both-ways-take-the-same-part",
    f"At an isometry both ways take the same part of a gradient, to {float((through - rotating).abs().max()):.0e} (derivative of the iteration) and "
    f"{float((projected - rotating).abs().max()):.0e} (projection of a step of {small:.0e}).",
    float((through - rotating).abs().max()) < 1e-9 and float((projected - rotating).abs().max()) < 1e-3,
)
hard, soft, clipped = ways.values()
claim(
    "both-ways-keep-weights-and-fit",
    f"Both keep every weight orthogonal, to {hard[1]:.0e} by construction and {soft[1]:.0e} by projection, and fit the target to "
    f"{hard[0]:.2f} and {soft[0]:.2f}; ReLU with clipped singular values to {clipped[0]:.2f}. (In this run the first took "
    f"{hard[2] / soft[2]:.1f} times as long.)",
    max(hard[1], soft[1]) < 1e-4 and max(hard[0], soft[0]) < clipped[0],
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
SHAPES = [(16, 16, 3), (4, 8, 3), (8, 4, 3), (64, 2, 3), (16, 16, 1)]  # outputs, inputs, window
kernel = lambda o, i, k: polar_factor(normal(o, i * k * k)).reshape(o, i, k, k)  # noqa: E731
kernels = {shape: kernel(*shape) for shape in SHAPES}
operators = {shape: conv_operator_singular_values(weight, 8) for shape, weight in kernels.items()}
centre_tap = delta_orthogonal_(torch.empty(16, 16, 3, 3), generator=generator).double()
delta = conv_operator_singular_values(centre_tap, 8)

copies = kernel(64, 2, 4)  # stride 2, window 4, circular padding: 2 channels of 8 x 8 pixels to 64 of 4 x 4
padded = lambda x: nn.functional.pad(x.reshape(1, 2, 8, 8), (1, 1, 1, 1), mode="circular")  # noqa: E731
strided = lambda x: nn.functional.conv2d(padded(x), copies, stride=2).flatten()  # noqa: E731
uniform = singular_values(torch.func.jacrev(strided)(normal(128)))

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
    "isometric-kernel-is-no-isometric-operator",
    f"A kernel whose matrix has all singular values one is an operator with values from {float(operators[square].min()):.3f} to "
    f"{float(operators[square].max()):.2f} (16 → 16 channels), root mean square {rms[square]:.3f}; 8 → 4: {float(operators[narrow].min()):.2f} to "
    f"{float(operators[narrow].max()):.2f}, {rms[narrow]:.3f}; the bound is $k = 3$.",
    max(abs(rms[square] - 1), abs(rms[narrow] - 1)) < 1e-9
    and all(
        1.3 < float(operators[shape].max()) <= 3 and float(operators[shape].min()) < 0.5 for shape in (square, narrow)
    ),
)
claim(
    "expanding-kernels-stretch",
    f"Expanding, 4 → 8: {float(operators[wider].min()):.2f} to {float(operators[wider].max()):.2f} with root mean square {rms[wider]:.4f}, "
    "the root of 2.",
    abs(rms[wider] - 2**0.5) < 1e-9,
)

# %% tags=["hide-input"]
claim(
    "many-outputs-make-it-uniform",
    f"With at least $C_{{in}}k^2$ outputs the operator is uniform: all values {float(operators[64, 2, 3].mean()):.3f} $= k$ at stride 1, and "
    f"{float(uniform.mean()):.3f} $= k$/stride for $k = 4$ at stride 2, to {float((uniform - 2).abs().max()):.0e}.",
    float((operators[64, 2, 3] - 3).abs().max()) < 1e-9 and float((uniform - 2).abs().max()) < 1e-9,
)
penalty = float(gram_deviation(as_matrix(centre_tap)))
others = max(float(gram_deviation(as_matrix(weight))) for weight in kernels.values())
claim(
    "centre-taps-are-isometric",
    f"Exactly isometric at stride 1: 1 x 1 kernels, to {float((operators[16, 16, 1] - 1).abs().max()):.0e}, and delta-orthogonal ones, to "
    f"{float((delta - 1).abs().max()):.0e}. Eq. 16 is zero there, to {penalty:.0e}; but so it is for all kernels of the table ({others:.0e}).",
    float((operators[16, 16, 1] - 1).abs().max()) < 1e-9
    and float((delta - 1).abs().max()) < 1e-6
    and max(penalty, others) < 1e-10,
)

# %% [markdown]
# ## What the library refuses

# %%
ATTEMPTS = {
    "odd width": lambda: MaxMin()(torch.zeros(7)),
    "group that does not divide": lambda: GroupSort(4)(torch.zeros(6)),
    "not finite": lambda: singular_values(torch.full((2, 2), torch.nan)),
    "empty": lambda: singular_values(torch.zeros(0, 3)),
    "no convergence": lambda: polar_factor(torch.ones(4, 4), method="polar_express"),
    "unknown scheme": lambda: orthogonalise(torch.eye(4), "polar-express", 8),
}
messages = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
    except (ValueError, RuntimeError) as error:
        messages[name] = str(error)

# %% tags=["hide-input"]
show_table([{"input": name, "error": text} for name, text in messages.items()])
claim(
    "refusals-name-the-value",
    "Each is an error that names the value.",
    messages.keys() == ATTEMPTS.keys()
    and "7" in messages["odd width"]
    and "polar_express" in messages["unknown scheme"],
)

# %% [markdown]
# ## What to conclude, and what not
#
# - Near isometry, as inside training, Newton-Schulz is as good as anything; for a cold projection use Polar Express or CANS, and
#   never Muon's quintic.
# - By construction or by projection: at an isometry both take the same part of a gradient, and here both fit. Adam sees
#   different gradients, so on other problems they may differ.
# - Isometry of a kernel's matrix is not isometry of the convolution.
# - Products are counted, times are of one machine; no claim rests on them.
#
# ## Try changing
#
# - `-p seed 1`: do the counts of iterations change?
# - Another interval in `minimax_polynomial`: how much does it cost to assume too small a value?
#
# ## Exercise
#
# Let $\sigma = 1 - e$ with a small $e$. What does one step of Newton-Schulz make of $e$? How many steps lead from 0.3 to below $10^{-6}$?
#
# ```{dropdown} Solution
# $\tfrac32(1-e) - \tfrac12(1-e)^3 = 1 - \tfrac32e^2 + \tfrac12e^3$: the error is squared, times 3/2. From 0.3 it goes to 0.12, 0.021,
# $6.8\cdot10^{-4}$ and $6.9\cdot10^{-7}$: four steps.
# ```
#
# **What is next.** {doc}`the_regulariser`: a weight that is only pulled towards orthogonality.

# %% tags=["hide-input"]
stamp(
    notebook="keeping_weights_orthogonal",
    parameters={"seed": seed, "steps": steps},
    wall_s=time.perf_counter() - started,
)
