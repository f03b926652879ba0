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
# # Plasticity and the tangent kernel
#
# **Question.** How much of a new task's loss does gradient descent remove within a few steps? Which property of a network
# decides it, and can it be read off before training?
#
# **Why it matters.** "Losing plasticity" is a phrase until it is a number. With a number that follows from the network alone one can
# ask what changes it; and only an intervention shows that it is the cause of slow learning, not its companion.
#
# **What comes out.** The spectrum of the tangent kernel decides, and one condition number says little about it
# ({prf:ref}`condition-number-leaves-plasticity-open`). Networks that compute the same function with a worse kernel are slower to train by gradient
# descent, by as much as the formula says ({prf:ref}`gauge-slows-descent`, {prf:ref}`kernel-predicts-descent`); Adam hardly minds
# ({prf:ref}`adam-hardly-minds-gauge`).

# %% tags=["parameters", "hide-input"]
samples = 64  # 8..512: images of each kernel; it has 10 rows an image
width = 128  # 16..512: units of each hidden layer
seeds = 3  # 1..32: number of seeds, 0 to seeds - 1
device = "auto"  # auto | cpu | cuda: where to compute

# %% tags=["hide-input"]
import itertools
import math
import time

import pandas as pd
import torch

from dyniso import nets
from dyniso.kernels import best_step_size, flow_plasticity, kernel_of_spectrum, loss_left
from dyniso.kernels import plasticity, plasticity_bounds, worst_loss_left
from dyniso.report import figures
from dyniso.report.figures import kernels as kernel_figures
from dyniso.report.notebook import claim, show, show_frame, stamp
from dyniso.study.trials import gauge
from dyniso.study import runner

started = time.perf_counter()
torch.set_default_dtype(torch.float64)  # small eigenvalues are what this chapter is about
torch_device = runner.resolve_device(device)
figures.use_style()


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
# text. So the formula for plasticity here, the sum over layers and both theorems in {doc}`isometry_and_the_entk`, and every number are
# **our reconstruction**: the link between isometry and the kernel as far as we can prove it. They may differ from what is printed.

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
kernels = {name: kernel_of_spectrum(lambdas, generator(0)) for name, lambdas in spectra.items()}  # and eigenvectors
residuals = torch.randn(N, 4000, generator=generator(1))

# %%
CHECKED, STEPS = (1, 2, 5, 10, 20, 50, 100), torch.arange(1, 101)
curves = []
for name, (theta, _) in kernels.items():
    removed = 1 - loss_left(theta, residuals, CHECKED, 1 / spectra[name].max())
    error = removed.std(1) / len(residuals.T) ** 0.5
    dots = pd.DataFrame({"steps": CHECKED, "simulated": removed.mean(1), "standard_error": error})
    line = pd.DataFrame({"spectrum": name, "steps": STEPS, "P_K": plasticity(torch.diag(spectra[name]), STEPS)})
    curves.append(line.merge(dots, how="left"))
curves = pd.concat(curves, ignore_index=True)

# %% tags=["hide-input"]
show(
    kernel_figures.spectra(curves),
    curves,
    name="fig-plasticity-spectra",
    caption="One condition number fits nearly any plasticity. $P_K$ over the number of steps for five spectra of size 40, of which four have condition number "
    "100. Lines: {eq}`eq-plasticity`. Dots: mean over 4,000 simulated descents a spectrum (one seed), standard error smaller than a dot.",
    alt="Plasticity rises with the number of steps. Flat is 1 at once; one slow direction stays near 1; uniform and power "
    "law rise in between; one fast direction stays lowest, though four of the five share one condition number.",
)

# %% tags=["hide-input"]
diagonal = {name: torch.diag(lambdas) for name, lambdas in spectra.items()}
at_10 = {name: float(plasticity(theta, 10)) for name, theta in diagonal.items()}
claim(
    "condition-number-leaves-plasticity-open",
    f"One condition number, {kappa:.0f}; ten steps remove {at_10['one fast direction']:.2f} to {at_10['one slow direction']:.2f} "
    f"of the loss.",
    at_10["one fast direction"] < 0.25 and at_10["one slow direction"] > 0.95,
)
between = {name: plasticity_bounds(theta, 10) for name, theta in diagonal.items()}
claim(
    "plasticity-within-bounds",
    f"All five lie between their bounds; the lower one is {float(between['uniform'][0]):.2f}.",
    all(low - 1e-12 <= at_10[name] <= high + 1e-12 for name, (low, high) in between.items()),
)

# %% tags=["hide-input"]
dotted = curves.dropna()
random = dotted[dotted["standard_error"] > 1e-12]
z = ((random["simulated"] - random["P_K"]).abs() / random["standard_error"]).max()
gap = (dotted["simulated"] - dotted["P_K"]).abs().max()
claim(
    "plasticity-formula-holds",
    f"Formula and simulation differ by at most {gap:.4f}, {z:.1f} standard errors.",
    z < 5,
)

# %% tags=["hide-input"]
after_one = {name: float(plasticity(theta, 1)) for name, theta in diagonal.items()}
uneven = [name for name in spectra if name != "flat"]
claim(
    "flat-kernel-one-step",
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
#
# Below, the worst residual is found by descent from every eigenvector, not by {eq}`eq-worst-residual`.


# %%
def worst_removed(name, step_size):
    """Least fraction of the loss that ten steps of descent remove of an eigenvector."""
    return 1 - float(loss_left(*kernels[name], [10], step_size).max())


best_step = {name: float(best_step_size(theta)) for name, theta in diagonal.items()}
conventions = pd.DataFrame(
    {
        "spectrum": name,
        "$P_{10}$": at_10[name],
        r"flow, $P(10/\lambda_{\max})$": float(flow_plasticity(theta, 10 / float(theta.max()))),
        r"worst, $\eta = 1/\lambda_{\max}$": worst_removed(name, 1 / float(theta.max())),
        r"worst, $\eta^*$": worst_removed(name, best_step[name]),
    }
    for name, theta in diagonal.items()
).set_index("spectrum")

# %% tags=["hide-input"]
show_frame(
    conventions,
    ["{:.2f}"] * 4,
    rf"Fraction of the loss that ten steps remove, or flow in the time $10/\lambda_{{\max}}$: means over all directions, and of the "
    rf"worst residual at two constant steps. All but the flat spectrum have $\kappa = {kappa:.0f}$.",
)

# %% tags=["hide-input"]
guarantee = float(worst_loss_left(diagonal["uniform"], 10))
left = [1 - worst_removed(name, best_step[name]) for name in uneven]
claim(
    "worst-residual-formula",
    f"Worst residual, best step: ten steps leave {max(left):.4f}, by formula {guarantee:.4f}, on all {len(left)} uneven spectra.",
    abs(guarantee - ((kappa - 1) / (kappa + 1)) ** 20) < 1e-12
    and max(abs(value - guarantee) for value in left) < 1e-12,
)
theta, Q = kernels["uniform"]
fast, *_, slow = loss_left(theta, Q, [10], best_step["uniform"])[0].tolist()
most = float(loss_left(theta, residuals, [10], best_step["uniform"]).max())
claim(
    "both-ends-left-alike",
    f"Slowest and fastest direction are left alike there; of {len(residuals.T):,} random residuals at most {most:.2f} is left.",
    abs(slow - fast) < 1e-12 and most <= guarantee,
)

# %% tags=["hide-input"]
lengths = [k / 100 for k in range(80, 121) if k != 100]
others = [1 - worst_removed("uniform", length * best_step["uniform"]) for length in lengths]
claim(
    "other-steps-leave-more",
    f"Each of {len(others)} other steps, {min(lengths):.2f} to {max(lengths):.2f} times as long, leaves more.",
    min(others) > guarantee,
)

# %% tags=["hide-input"]
power, duration, counts = diagonal["power law"], 10.0, (10, 100, 1000, 10_000)
flow = float(flow_plasticity(power, duration))
off = [float(plasticity(power, k, step_size=duration / k)) - flow for k in counts]
claim(
    "steps-approach-flow",
    f"Power law: {', '.join(f'{k:,}' for k in counts)} steps in the time of flow remove {', '.join(f'{v:.0e}' for v in off)} more.",
    off[-1] < 1e-4 and all(0 < later < earlier / 5 for earlier, later in itertools.pairwise(off)),
)

# %% tags=["hide-input"]
walk = counts[2]
walked = float(1 - loss_left(kernels["power law"][0], torch.eye(N), [walk], duration / walk).mean())
claim(
    "flow-formula-holds",
    f"Flow removes {flow:.4f}; {walk:,} steps of descent, averaged over an orthonormal basis, {walked:.4f}.",
    abs(walked - flow) < 1e-3,
)

# %% tags=["hide-input"]
doubled, longer = (float(flow_plasticity(*pair)) for pair in ((2 * power, duration), (power, 2 * duration)))
fixed = [float(plasticity(c * power, 10, step_size=0.5)) for c in (1, 2)]
adapted = [float(plasticity(c * power, 10)) for c in (1, 2)]
claim(
    "scale-matters-at-fixed-steps",
    f"Twice the kernel: flow removes {doubled:.2f}, as in twice the time; ten fixed steps {fixed[0]:.2f}, then {fixed[1]:.2f}; adapted steps {adapted[0]:.2f} both times.",
    abs(doubled - longer) < 1e-12 and fixed[1] > fixed[0] + 0.05 and abs(adapted[0] - adapted[1]) < 1e-12,
)
ahead = conventions["$P_{10}$"] - conventions.iloc[:, 1]
claim(
    "adapted-steps-beat-flow",
    f"Ten adapted steps remove {ahead.min():.3f} to {ahead.max():.3f} more than flow in the same time.",
    ahead.min() >= 0,
)

# %% [markdown]
# For cross-entropy the residual, probabilities minus labels, sums to zero over the outputs of each sample: its components along the
# constant output vanish. So that direction should be left out of the kernel first, which
# `dyniso.kernels.without_constant_output` does.
#
# ## A causal handle
#
# Everything so far is about kernels that stand still. Does a worse kernel make a real network learn more slowly? Networks with other
# kernels mostly compute other functions as well. Can we change the one and not the other? For ReLU and a positive diagonal matrix $S$,
# $\phi(Sz) = S\phi(z)$. So
#
# $$
# W_l \to S W_l, \quad b_l \to S b_l, \quad W_{l+1} \to W_{l+1} S^{-1}
# $$ (eq-gauge)
#
# leaves the function untouched on every input, and changes singular values and kernel. Draw $\log S_{ii}$ from a normal law with a
# standard deviation that we turn up (`dyniso.study.trials.gauge.rescale_`).
#
# And we do what the formula only predicts: train. The residual starts as random signs, as a tenth of them, or as the centred one-hot
# codes of the images' true labels. Full-batch gradient descent then runs at $\eta = 1/\lambda_{\max}$ on the real network, whose
# kernel moves. Adam runs from the random signs.
# {eq}`eq-gauge` is applied to all three hidden layers; the weights start orthogonal, with gain $\sqrt2$.

# %%
DEVIATIONS = (0.0, 0.5, 1.0, 1.5)
of_nets, of_runs = [], []
for seed in range(seeds):
    base = nets.mlp(784, 10, width, 3, "relu", gain=2**0.5, head_gain=1.0, seed=seed).to(torch_device)
    found, trained = gauge.experiment(base, samples, DEVIATIONS, seed)
    of_nets += found
    of_runs += trained
rescaled, progress = pd.DataFrame(of_nets), pd.DataFrame(of_runs)

# %% tags=["hide-input"]
signs = progress[(progress["target"] == "random signs") & (progress["steps"] == 10)]
descent = signs.groupby("deviation")["removed"].mean()
rates = rescaled.groupby("deviation")[[f"Adam {lr:g}" for lr in gauge.RATES]].mean()
rescaled["descent"] = rescaled["deviation"].map(descent)
rescaled["adam_best"] = rescaled["deviation"].map(rates.max(axis=1))
by_deviation = rescaled.groupby("deviation").mean()
LINES = {
    "predicted, $P_{10}$": "P_10",
    "gradient descent": "descent",
    "Adam, best of 5 rates": "adam_best",
    "Adam, rate 1e-4": "Adam 0.0001",
}

# %% tags=["hide-input"]
show(
    kernel_figures.gauge(rescaled, LINES),
    rescaled,
    name="fig-gauge",
    caption="A worse kernel slows gradient descent, and hardly Adam, at one function: ReLU networks rescaled more and more by {eq}`eq-gauge`. Top: points a seed, lines geometric "
    f"means. Bottom: means over {seeds} seeds, from a residual of random signs. {samples} MNIST images, three hidden layers of {width} units.",
    alt="Top: both condition numbers grow by orders of magnitude with the rescaling. Bottom: predicted and measured progress of gradient "
    "descent fall together towards zero; Adam at its best rate falls only a little, and at a fixed small rate it rises.",
)

# %% tags=["hide-input"]
first, final = by_deviation.iloc[0], by_deviation.iloc[-1]
claim(
    "gauge-slows-descent",
    f"What gradient descent removes in ten steps falls from {first['descent']:.2f} to {final['descent']:.2f}.",
    final["descent"] < 0.5 * first["descent"],
)
claim(
    "gauge-lowers-plasticity",
    f"So does predicted plasticity $P_{{10}}$: {first['P_10']:.2f} to {final['P_10']:.2f}.",
    final["P_10"] < 0.5 * first["P_10"],
)
claim(
    "gauge-keeps-function",
    f"The function moves by at most {rescaled['change_of_f'].max():.0e}; κ(W₂) goes from {first['kappa_W2']:.0f} to {final['kappa_W2']:.0e}.",
    rescaled["change_of_f"].max() < 1e-10 and final["kappa_W2"] > 1e3,
)

# %% tags=["hide-input"]
best, worst = first["adam_best"], final["adam_best"]
claim(
    "adam-hardly-minds-gauge",
    f"Adam at its best rate hardly minds: {best:.2f} to {worst:.2f}.",
    worst > 0.75 * best and worst > 3 * final["descent"],
)
before, after = first["Adam 0.0001"], final["Adam 0.0001"]
claim(
    "adam-gains-at-small-rate",
    f"At the fixed rate 1e-4 Adam even gains from the rescaling: {before:.2f} to {after:.2f}.",
    after > before,
)

# %% tags=["hide-input"]
show(
    kernel_figures.predictions(progress),
    progress,
    name="fig-measured-progress",
    caption="The kernel at the start predicts what gradient descent removes for random targets: fraction of the loss on real networks against {eq}`eq-plasticity`, for "
    f"{', '.join(map(str, gauge.BUDGETS[:-1]))} and {gauge.BUDGETS[-1]} steps, the rescalings of {{numref}}`fig-gauge` and {seeds} seeds. "
    "Grey: equality.",
    alt="Points of random targets follow the diagonal closely over the whole range; those of true labels lie above it.",
)

# %% tags=["hide-input"]
off = (progress["removed"] - progress["predicted"]).abs().groupby(progress["target"]).agg(["mean", "max"])
full, tenth = off.loc["random signs"], off.loc["a tenth of them"]
claim(
    "kernel-predicts-descent",
    f"Random signs: descent is {full['mean']:.3f} off the prediction on average, {full['max']:.2f} at most.",
    full["max"] < 0.15,
)
claim(
    "smaller-residual-better-predicted",
    f"A tenth of the residual, which moves the kernel less: {tenth['mean']:.3f} on average.",
    tenth["mean"] < full["mean"],
)

# %% tags=["hide-input"]
true = progress[(progress["target"] == "true labels") & (progress["steps"] == 10)]
ratio = float((true["removed"] / true["predicted"]).mean())
claim(
    "true-labels-learn-faster",
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
#   by how much, if residuals have no preferred direction ({prf:ref}`gauge-keeps-function`, {prf:ref}`gauge-lowers-plasticity`,
#   {prf:ref}`gauge-slows-descent`, {prf:ref}`kernel-predicts-descent`).
# - **$\kappa(\Theta)$ is a guarantee for the worst task** ({prf:ref}`worst-residual-formula`, {prf:ref}`both-ends-left-alike`), not what to
#   expect of a task ({prf:ref}`condition-number-leaves-plasticity-open`). And the scale of the kernel may be left out only where the step
#   adapts to it ({prf:ref}`scale-matters-at-fixed-steps`).
#
# Not shown here:
#
# - that $\kappa(\Theta)$ decides the speed of Adam. A rescaling that all but stops gradient descent nearly leaves Adam alone
#   ({prf:ref}`adam-hardly-minds-gauge`, {prf:ref}`adam-gains-at-small-rate`). The case for AdamO is about Adam and cannot rest on this
#   kernel alone; the other chapters test it by training;
# - that real tasks are isotropic. True labels favour the fast directions ({prf:ref}`true-labels-learn-faster`), so a bad $\kappa$ may cost
#   less than $P_K$ says;
# - that training keeps a kernel where it was. These are networks at their start, with weights made by hand.
#
# ## Try changing
#
# - `spectra`: add one with two eigenvalues, half of each. Where does its curve bend, and why there?
# - `width`: does the prediction get better or worse in narrow networks?
# - In the last experiment: momentum, or a residual ten times as large. When does the prediction break?
#
# ```
# python tools/notebooks.py run notebooks/plasticity_and_the_kernel.py \
#     -p samples 128 -p seeds 2 -o mine.ipynb
# ```
#
# A line that fails then is a finding, not an accident: it says which observation depends on what you changed.
#
# ## Exercise
#
# Two kernels of size $N$ have the same $\kappa$. One has a single slow direction, the other a single fast one. Find $P_K$ of both at
# $\eta = 1/\lambda_{\max}$, and their limits for $N \to \infty$. Which of the bounds of {prf:ref}`prop-plasticity` do they approach?
#
# :::{dropdown} Solution
# One slow direction: all $p_i = 1$ but one, $p_N = 1/\kappa$, so $P_K = 1 - \tfrac1N (1 - 1/\kappa)^{2K} \to 1$. With $\bar p \to 1$ that is the
# upper bound. One fast direction: $P_K = 1 - \tfrac{N-1}{N}(1 - 1/\kappa)^{2K}$, which tends to the lower bound $1 - (1-1/\kappa)^{2K}$; as
# $\bar p \to 1/\kappa$, the upper bound tends to the same. So $\kappa$ alone leaves everything open.
# :::
#
# ## What is next
#
# The kernel decides. What decides the kernel? {doc}`isometry_and_the_entk` takes it apart, layer by layer, and bounds it by singular values.

# %% tags=["hide-input"]
stamp(
    notebook="plasticity_and_the_kernel",
    parameters={"samples": samples, "width": width, "seeds": seeds, "device": device},
    seeds=range(seeds),
    wall_s=time.perf_counter() - started,
)
