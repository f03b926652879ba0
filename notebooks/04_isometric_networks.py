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

# %% tags=["parameters", "remove-cell"]
seed = 0  # 0..1000000: of weights, inputs and targets
steps = 600  # 200..3000: training steps of each fitted network

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from dyniso import figures
from dyniso.book import claim, show, show_table, stamp
from dyniso.isometry import (
    cans,
    conv_operator_singular_values,
    newton_schulz,
    polar_factor,
    scale_below_one,
    singular_values,
)
from dyniso.nets import GroupSort, MaxMin, activation, delta_orthogonal_, mlp, orthogonal, orthogonal_

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
# > unrestricted {cite:p}`rosseau2026`.
#
# Its sources are OPLU {cite:p}`chernodub2016`, GroupSort with orthonormal weights {cite:p}`anil2019`, and
# Newton-Schulz iterations {cite:p}`grishina2025`.
#
# ## Activations that only permute or reflect
#
# MaxMin sorts pairs, GroupSort-$k$ groups of $k$, $|x|$ flips signs, Householder reflects a pair: at almost every point each is a
# *linear map with an orthogonal matrix* that depends on the region. CReLU, $z \mapsto (z_+, (-z)_+)$, doubles the width with
# $J^\top J = I$. So with square orthogonal weights the Jacobian of the whole network, $\prod_l D_l W_l$, is orthogonal wherever no
# comparison ties; ties lie in finitely many pieces of hyperplanes, a set of measure zero. The network is piecewise an
# isometry, hence 1-Lipschitz. ReLU has $D$ with entries 0 and 1, and the product decays.

# %%
NAMES = ("maxmin", "groupsort-4", "householder", "abs", "relu", "tanh")
spectra = {}
for name in NAMES:
    for depth in (4, 64, 512):
        net = mlp(16, 16, 16, depth, name, seed=seed).double()
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.weight.data = polar_factor(layer.weight.data)  # orthogonal in float64, not only in float32
        J = torch.func.jacrev(lambda x, net=net: net(x[None])[0])(normal(16))
        spectra[name, depth] = singular_values(J.detach())

# %% tags=["remove-input"]
show_table(
    [
        {"activation": name}
        | {f"depth {d}": f"{spectra[name, d].min():.3g} to {spectra[name, d].max():.3g}" for d in (4, 64, 512)}
        for name in NAMES
    ]
)

# %% tags=["remove-input"]
worst = max(float((spectra[n, d] - 1).abs().max()) for n in NAMES[:4] for d in (4, 64, 512))
claim(
    f"1. Four activations keep every singular value of the whole Jacobian at one up to depth 512, to {worst:.0e}.",
    worst < 1e-10,
)
claim(
    f"2. With ReLU the largest is {float(spectra['relu', 64].max()):.0e} at depth 64, with tanh {float(spectra['tanh', 64].max()):.0e}.",
    float(spectra["relu", 64].max()) < 0.01 and float(spectra["tanh", 64].max()) < 0.8,
)
x, c = normal(1000, 16), nn.Sequential(activation("crelu"))
J = torch.func.vmap(torch.func.jacrev(lambda row: c(row[None])[0]))(x)
gap = float((J.mT @ J - torch.eye(16)).abs().max())
claim(f"3. CReLU's Jacobian has J'J = I at 1,000 points, to {gap:.0e}; JJ' is not I: the width doubles.", gap < 1e-12)
pooled = torch.func.jacrev(lambda z: nn.functional.avg_pool1d(z[None, None], 2)[0, 0])(normal(16))
claim(
    f"4. Pooling breaks it: mean pooling of pairs has singular values {float(singular_values(pooled).max()):.3f}.",
    float(singular_values(pooled).max()) < 0.75,
)

# %% [markdown]
# ## Which side of a rectangular layer
#
# A wide $W$ with $WW^\top = I$ keeps the norm of back-propagated vectors and projects features; a tall one with $W^\top W = I$
# keeps the norm of features and annihilates $d_{out} - d_{in}$ directions of the gradient. The backward map $B_l$ starts behind
# layer $l$, so the first layer is never in it: for narrowing networks the backward chain is exact.

# %%
tall, wide = (orthogonal_(torch.empty(*shape), generator=generator).double() for shape in ((8, 3), (3, 8)))
h, g = normal(3), normal(8)
forward = float((tall @ h).norm() / h.norm()), float((wide @ g).norm() / g.norm())
backward = float((tall.mT @ g).norm() / g.norm()), float((wide.mT @ h).norm() / h.norm())

# %% tags=["remove-input"]
claim(
    f"5. Tall: features keep their norm ({forward[0]:.3f}), gradients do not ({backward[0]:.3f}). Wide: the other way round "
    f"({forward[1]:.3f} and {backward[1]:.3f}).",
    abs(forward[0] - 1) < 1e-6 and abs(backward[1] - 1) < 1e-6 and max(backward[0], forward[1]) < 0.999,
)

# %% [markdown]
# ## Why not ReLU with the same constraint
#
# Let all weights have norm at most one and let a network of *monotone elementwise* 1-Lipschitz activations keep the norm of its
# gradient almost everywhere. Gradient norm 1 needs every gate that is met to act isometrically on the back-propagated vector.
# A monotone 1-Lipschitz scalar function does that only where its slope is one, where it is a shift. So the network is
# affine: theorem 1 of {cite:t}`anil2019`. Sorting escapes, because it is not elementwise.
#
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

# %% tags=["remove-input"]
claim(
    f"6. |x| exactly, with infinity norms {inf_norms[0]:g} and {inf_norms[1]:g}: error {float((lattice - grid.abs()).abs().max()):.0e}.",
    torch.equal(lattice, grid.abs()) and inf_norms == [1, 1],
)
slope = float((halved / grid.abs().clamp_min(1e-9))[0])
claim(
    f"7. That first weight has spectral norm {float(singular_values(first)[0]):.3f}; made orthonormal, the same net gives {slope:.3f} |x|.",
    abs(slope - 0.5**0.5) < 1e-6,
)
f, g = normal(50), normal(50)
pair = MaxMin()(torch.stack([f, g], 1))
claim(
    "8. Stacking two functions and sorting closes the family under max and min, with rows of absolute sum one.",
    torch.equal(pair[:, 0], torch.maximum(f, g)) and torch.equal(pair[:, 1], torch.minimum(f, g)),
)

# %% [markdown]
# For 2-norm orthonormal weights universality is, to our knowledge, open. So we ask the practical question: do such networks fit?
#
# ## Fitting a known 1-Lipschitz function
#
# The target on the square $[-1,1]^2$ is the distance to the nearest of five points, minus its mean. MaxMin networks have every weight
# projected on its polar factor after each Adam step; ReLU networks get the mildest constraint that keeps them 1-Lipschitz,
# singular values clipped at one.


# %% tags=["remove-cell"]
points = 2 * torch.rand(5, 2, generator=generator) - 1
train_x, test_x = (2 * torch.rand(n, 2, generator=generator) - 1 for n in (2048, 2048))


def target(x):
    """Distance to the nearest point, centred."""
    return torch.cdist(x, points).amin(1) - torch.cdist(train_x, points).amin(1).mean()


@torch.no_grad()
def project(W, isometric):
    """Polar factor, or singular values clipped at one."""
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    W.copy_((U if isometric else U * s.clamp_max(1)) @ Vh)


def fit(name, width, depth, scale=1.0, target_scale=1.0):
    """Root mean square test error of one trained network, in units of the target's standard deviation."""
    net = mlp(2, 1, width, depth, name, seed=seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = [m.weight for m in net if isinstance(m, nn.Linear)]
    y = target_scale * target(train_x)
    for step in range(steps):
        batch = torch.arange(256 * step, 256 * (step + 1)) % len(train_x)
        optimizer.zero_grad()
        (scale * net(train_x[batch])[:, 0] - y[batch]).square().mean().backward()
        optimizer.step()
        schedule.step()
        for W in weights:
            project(W, name == "maxmin")
    truth = target_scale * target(test_x)
    return float((scale * net(test_x)[:, 0].detach() - truth).square().mean().sqrt() / truth.std())


SIZES = [(width, 3) for width in (8, 16, 32, 64)] + [(32, depth) for depth in (1, 2, 5)]
errors = pd.DataFrame(
    [
        {"activation": name, "width": w, "depth": d, "error": fit(name, w, d)}
        for name in ("maxmin", "relu")
        for w, d in SIZES
    ]
)

# %% tags=["remove-input"]
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.2), sharey=True, layout="constrained")
for i, (name, part) in enumerate(errors.groupby("activation")):
    style = dict(color=colours[i], linestyle=dashes[i], marker="os"[i], label=name)
    by_width, by_depth = part[part["depth"] == 3], part[part["width"] == 32].sort_values("depth")
    axes[0].plot(by_width["width"], by_width["error"], **style)
    axes[1].plot(by_depth["depth"], by_depth["error"], **style)
axes[0].set(xlabel="width (3 hidden layers)", ylabel="test error / sd of target", xscale="log", ylim=(0, None))
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

# %% tags=["remove-input"]
error = errors.set_index(["activation", "width", "depth"])["error"]
claim(
    f"9. The MaxMin net of width 64 fits to {error['maxmin', 64, 3]:.2f} of the target's standard deviation, the ReLU net to "
    f"{error['relu', 64, 3]:.2f}.",
    error["maxmin", 64, 3] < 0.35 and error["relu", 64, 3] > 1.5 * error["maxmin", 64, 3],
)
claim(
    f"10. MaxMin wins at every size with more than one hidden layer; more width helps it: "
    f"{error['maxmin', 8, 3]:.2f} at 8, {error['maxmin', 64, 3]:.2f} at 64.",
    all(error["maxmin", w, d] < error["relu", w, d] for w, d in SIZES if d > 1)
    and error["maxmin", 64, 3] < error["maxmin", 8, 3],
)
steep, scaled = fit("maxmin", 32, 3, target_scale=3.0), fit("maxmin", 32, 3, scale=3.0, target_scale=3.0)
claim(
    f"11. A target three times as steep is out of reach (error {steep:.2f}) until the output is scaled by L = 3 ({scaled:.2f}): the head "
    "carries the Lipschitz constant.",
    steep > 0.4 and scaled < 0.6 * steep,
)

# %% [markdown]
# Group size is a trade: larger groups represent more and make features of different inputs more alike. The correlation maps are in
# {doc}`02_isometry_and_the_entk`; in short:

# %%
z, w = normal(200_000, 512)[:, :8], normal(200_000, 8)
start = {k: float((GroupSort(k)(z) * GroupSort(k)(w)).sum() / z.norm() / w.norm()) for k in (2, 4, 8)}

# %% tags=["remove-input"]
claim(
    f"12. Uncorrelated inputs have correlation {start[2]:.2f} after one layer with groups of 2, {start[4]:.2f} with 4, {start[8]:.2f} with 8.",
    abs(start[2] - 1 / np.pi) < 0.01 and start[2] < start[4] < start[8],
)

# %% [markdown]
# ## Keeping a weight orthogonal
#
# An odd polynomial $p$ applied to $W$ through products, $p(W) = a W + b\,W W^\top W + \dots$, acts on singular values alone. The
# classical choice has $p(1) = 1$ with as many vanishing derivatives as its degree allows (Björck, Newton-Schulz). The best cubic on a known
# interval is that of CANS, which shrinks the interval as it goes. Muon's quintic rises fast and never settles. We follow singular values,
# once from a Gaussian matrix over its Frobenius norm, once from a matrix near isometry.


# %% tags=["remove-cell"]
def odd(*coefficients):
    """sigma -> a sigma + b sigma^3 + c sigma^5 ..."""
    return lambda s: sum(a * s ** (2 * k + 1) for k, a in enumerate(coefficients))


def cubic_on_interval(s, lower, count):
    """Errors of CANS of degree 3 from an interval [lower, max]."""
    a, b, found = lower, float(s.max()), [float((s - 1).abs().max())]
    for _ in range(count):
        e = ((a * a + a * b + b * b) / 3) ** 0.5
        top, bottom = 2 * e**3, a * b * (a + b)
        s = 2 / (top + bottom) * (3 * e * e * s - s**3)
        a, b = 1 - (top - bottom) / (top + bottom), 1 + (top - bottom) / (top + bottom)
        found.append(float((s - 1).abs().max()))
    return found


MAPS = {
    "Björck 1 = Newton-Schulz 3": odd(1.5, -0.5),
    "Björck 2 = Newton-Schulz 5": odd(15 / 8, -10 / 8, 3 / 8),
    "Björck 3": odd(35 / 16, -35 / 16, 21 / 16, -5 / 16),
    "Muon's quintic": odd(3.4445, -4.7750, 2.0315),
}
count = 20
gaussian = singular_values(normal(64, 64))
STARTS = {"cold": gaussian / gaussian.norm(), "near": torch.linspace(0.7, 1.3, 64).double()}
curves = {}
for at, s0 in STARTS.items():
    for name, p in MAPS.items():
        s, found = s0, [float((s0 - 1).abs().max())]
        for _ in range(count):
            s = p(s)
            found.append(float((s - 1).abs().max()))
        curves[at, name] = found
    curves[at, "CANS 3, interval known"] = cubic_on_interval(s0, float(s0.min()), count)

# %% tags=["remove-input"]
fig, axes = plt.subplots(2, 1, figsize=(5.2, 6.0), sharex=True, layout="constrained")
for ax, at in zip(axes, STARTS, strict=True):
    for i, name in enumerate([*MAPS, "CANS 3, interval known"]):
        ax.plot(np.maximum(curves[at, name], 1e-16), color=colours[i], linestyle=dashes[i], label=name)
    ax.set(yscale="log", ylabel=f"largest |σ − 1|, {at} start")
axes[1].set_xlabel("iterations")
axes[0].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
table = pd.DataFrame(curves).T.rename_axis(["start", "map"]).reset_index()
show(
    fig,
    table,
    name="fig-orthogonalisation",
    caption=f"Largest distance of a singular value from one. Cold: a Gaussian matrix of size 64 over its Frobenius norm (smallest value "
    f"{float(STARTS['cold'].min()):.0e}, seed {seed}); near: values from 0.7 to 1.3.",
    alt="Cold: CANS reaches rounding error within about twelve iterations, the classical iterations have not begun to converge; near: "
    "all but Muon's quintic converge within a few iterations. Muon's quintic stays at about a third from both starts.",
)

# %% tags=["remove-input"]
end = {key: found[-1] for key, found in curves.items()}
muon = max(end["cold", "Muon's quintic"], end["near", "Muon's quintic"])
claim(f"13. Muon's quintic does not converge: after {count} iterations it is {muon:.2f} away.", muon > 0.15)
near = {name: next(k for k, e in enumerate(curves["near", name]) if e < 1e-6) for name in MAPS if "Muon" not in name}
claim(
    f"14. Near isometry the classical maps of degree 3, 5, 7 reach 1e-6 in {', '.join(map(str, near.values()))} iterations.",
    max(near.values()) <= 6,
)
ten = curves["cold", "CANS 3, interval known"][14], curves["cold", "Björck 1 = Newton-Schulz 3"][14]
claim(
    f"15. From a cold start, 14 iterations: CANS is within {max(ten[0], 1e-15):.0e} of one, Newton-Schulz {ten[1]:.2f} away.",
    ten[0] < 1e-3 and ten[1] > 0.05,
)

# %% [markdown]
# As library calls on a matrix, beside an exact method and torch's parametrizations; times are ratios to the SVD in this very run, and no
# claim rests on them.


# %% tags=["remove-cell"]
def measured(build):
    """Largest |sigma - 1| and the least time of five calls."""
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        Q = build()
        best = min(best, time.perf_counter() - begin)
    return float((singular_values(Q.detach()) - 1).abs().max()), best


M = normal(128, 128).float()


def through_torch(method):
    layer = nn.Linear(128, 128, bias=False)
    orthogonal(layer, method)
    return lambda: layer.weight


CALLS = {
    "SVD": lambda: polar_factor(M),
    "Newton-Schulz, 15 steps": lambda: newton_schulz(M, 15),
    "Newton-Schulz, 30 steps": lambda: newton_schulz(M, 30),
    "CANS, 16 steps": lambda: cans(M, 16),
    **{f"torch, {name}": through_torch(name) for name in ("householder", "cayley", "matrix_exp")},
}
outcome = {name: measured(build) for name, build in CALLS.items()}

# %% tags=["remove-input"]
show_table(
    [
        {
            "method, 128 x 128 Gaussian": name,
            "largest |σ − 1|": f"{e:.0e}",
            "time over SVD": f"{t / outcome['SVD'][1]:.2f}",
        }
        for name, (e, t) in outcome.items()
    ]
)

# %% tags=["remove-input"]
exact = ["SVD", *(n for n in CALLS if n.startswith("torch"))]
claim(
    f"16. SVD and torch's parametrizations are orthogonal to {max(outcome[n][0] for n in exact):.0e}; 15 Newton-Schulz steps from a "
    f"Gaussian are not ({outcome['Newton-Schulz, 15 steps'][0]:.2f}).",
    max(outcome[n][0] for n in exact) < 1e-4 and outcome["Newton-Schulz, 15 steps"][0] > 1e-3,
)
safe = float(singular_values(scale_below_one(M)).max())
claim(
    f"17. The safe scaling before an iteration leaves a largest singular value of {safe:.2f}, never above one.",
    safe <= 1 + 1e-6,
)

# %% [markdown]
# ## Convolutions: the kernel's matrix is not the operator
#
# Eq. 16 on a kernel reshaped to (out, in $k^2$) makes that matrix semi-orthogonal. The convolution as a map of images has one
# block for each frequency, and only their mean square is fixed by it. A delta-orthogonal kernel (centre tap only) is exactly
# isometric at stride 1 {cite:p}`xiao2018`.

# %%
kernel = orthogonal_(torch.empty(16, 16 * 9), generator=generator).double().reshape(16, 16, 3, 3)
operator = conv_operator_singular_values(kernel, 8)
delta = conv_operator_singular_values(delta_orthogonal_(torch.empty(16, 16, 3, 3), generator=generator).double(), 8)
expanding = orthogonal_(torch.empty(64, 2 * 9), generator=generator).double().reshape(64, 2, 3, 3)
uniform = conv_operator_singular_values(expanding, 8)

# %% tags=["remove-input"]
rms = float(operator.square().mean().sqrt())
claim(
    f"18. A kernel whose matrix has all singular values one is an operator with values from {float(operator.min()):.2f} to "
    f"{float(operator.max()):.2f}, root mean square {rms:.3f}.",
    abs(rms - 1) < 1e-6 and float(operator.max()) > 1.4 and float(operator.min()) < 0.5,
)
claim(f"19. Delta-orthogonal: all one, to {float((delta - 1).abs().max()):.0e}.", float((delta - 1).abs().max()) < 1e-6)
claim(
    f"20. With at least in k^2 outputs (K'K = I) the operator is uniform: all values {float(uniform.mean()):.3f} = k.",
    float((uniform - 3).abs().max()) < 1e-5,
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
    "no convergence": refusal(lambda: polar_factor(torch.ones(4, 4), method="newton_schulz")),
}

# %% tags=["remove-input"]
show_table([{"input": name, "error": text} for name, text in messages.items()])
claim(
    "21. Each is an error that names the value.",
    all(messages.values()) and "7" in messages["odd width"] and "6" in messages["group that does not divide"],
)

# %% [markdown]
# ## What to conclude, and what not
#
# - Networks that are isometric almost everywhere, at any depth, exist and are simple: orthogonal weights and sorting.
# - They fit 1-Lipschitz functions that norm-constrained ReLU networks do not. The theorem that is usually quoted for this has other
#   constraints (infinity norms, scalar output); for orthonormal weights we have experiments, not a proof.
# - Isometry of a kernel's matrix is not isometry of the convolution.
# - Isometric is not well-conditioned in every sense: features of different inputs still grow alike.
#
# ## Try changing
#
# - `-p steps 3000`: how much of the remaining error is optimisation?
# - Another target: one that is steepest nowhere, such as a smooth bump. Does ReLU catch up?
#
# ## Exercise
#
# Write $|x|$ with orthonormal weights and MaxMin, allowing more units and a second input that is always zero.
#
# ```{dropdown} Solution
# Embed $x$ as $(x, 0)$ and rotate by 45 degrees: $(x, -x)/\sqrt2$ after a suitable choice of signs. MaxMin gives $(|x|, -|x|)/\sqrt2$.
# Rotate back: $(1, -1)/\sqrt2$ as a unit row gives $|x|/2 + |x|/2 = |x|$. The row that *combines* both outputs has 2-norm one; it is the
# row that *selects* one of them that loses the factor.
# ```
#
# **What is next.** {doc}`06_dormant_units`.

# %% tags=["remove-input"]
stamp(
    notebook="04_isometric_networks",
    parameters={"seed": seed, "steps": steps},
    wall_s=time.perf_counter() - started,
)
