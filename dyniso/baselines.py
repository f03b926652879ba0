"""The other plasticity methods, each as one small declarative class, for one net or for stacked runs.

    method = attach(ReDo(threshold=0.1, every=100), model, optimizer)
    loss = cross_entropy(model(x), y) + method.penalty()
    loss.backward(); optimizer.step(); method.after_step()
    method.new_task()                                            # at a task boundary, where one is known

A class states its settings as fields and overrides what it needs of `start`, `penalty`, `after_step`, `new_task`. All
of them work on the last axes, (..., out, in) for weights and (..., samples, units) for activations, so that the same
lines serve one net and stacked runs. Names of methods are used for several algorithms in the literature: each class
says which one it is. Adam, AdamW, SGD and Muon are torch's; LayerNorm, CReLU and GroupSort are in `dyniso.nets`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .dormancy import ACTIVATION_TYPES, dormancy_score, units_last
from .isometry import effective_rank, newton_schulz
from .nets import CReLU, GroupSort, Householder
from .optim import isometry_step
from .specs import nearest, require, require_range


class Layer(NamedTuple):
    """One linear map or convolution: weight (*runs, out, in, ...) and bias (*runs, out) or None."""

    name: str
    weight: Tensor
    bias: Tensor | None


class Attached:
    """A method at work on a net: its layers, its optimizer, its random draws, and its state.

    Args:
        baseline: the method.
        layers: in order of the forward pass; the last is the head.
        optimizer: whose moments are cleared where units are replaced, and whose learning rate some methods follow.
        forward: inputs -> outputs (*runs, samples, C).
        seeds: one a run.
        batch_dims: leading axes that index runs: 0 for one net, 1 for stacked runs.
        elementwise: whether each hidden activation belongs to one unit, as methods that replace units need.
    """

    def __init__(
        self,
        baseline: Baseline,
        layers: Sequence[Layer],
        optimizer: Any = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        seeds: Sequence[int] = (0,),
        batch_dims: int = 0,
        elementwise: bool = True,
    ):
        if len(layers) < 2:
            raise ValueError(f"{type(baseline).__name__} needs a hidden layer and a head; got {len(layers)} layers")
        self.baseline, self.layers, self.optimizer, self.forward = baseline, list(layers), optimizer, forward
        self.batch_dims, self.elementwise = batch_dims, elementwise
        device = layers[0].weight.device
        self.generators = [torch.Generator(device).manual_seed(0xBA5E + seed) for seed in seeds]
        self.initial = {id(p): p.detach().clone() for p in self.parameters()}
        self.steps = 0
        self.inputs: Tensor | None = None  # of the last forward pass
        self.activations: list[Tensor] = []  # (*runs, samples, units) of each hidden layer in the last forward pass
        self.state: dict[str, Any] = {}
        self.handles: list[Any] = []
        baseline.start(self)

    @property
    def hidden(self) -> list[Layer]:
        return self.layers[:-1]

    def parameters(self) -> Iterator[Tensor]:
        """Weights and biases of all layers; scales and shifts of norms are not among them."""
        for layer in self.layers:
            yield from (p for p in (layer.weight, layer.bias) if p is not None)

    def runs_shape(self) -> torch.Size:
        return self.layers[0].weight.shape[: self.batch_dims]

    def sum_squares(self, x: Tensor) -> Tensor:
        """Sum of squares of each run, shape (*runs,)."""
        return x.square().flatten(self.batch_dims).sum(-1)

    def zero(self) -> Tensor:
        return self.layers[0].weight.new_zeros(self.runs_shape())

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal draws of the shape of `like`, each run from its own generator."""
        if not self.batch_dims:
            return torch.randn(like.shape, generator=self.generators[0], device=like.device, dtype=like.dtype)
        draws = [
            torch.randn(like.shape[1:], generator=g, device=like.device, dtype=like.dtype) for g in self.generators
        ]
        return torch.stack(draws)

    def fresh(self, p: Tensor) -> Tensor:
        """New draws with the RMS that this parameter had at the start (zero for biases that started at zero)."""
        start = self.initial[id(p)]
        rms = start.square().flatten(self.batch_dims).mean(-1).sqrt()
        return self.normal(p) * rms.reshape(rms.shape + (1,) * (p.ndim - self.batch_dims))

    def learning_rate(self) -> float:
        if self.optimizer is None:
            raise ValueError(f"{type(self.baseline).__name__} follows the learning rate; attach it with an optimizer")
        return float(self.optimizer.param_groups[0]["lr"])

    def moments(self, p: Tensor) -> list[Tensor]:
        """The optimizer's running averages of one parameter (Adam's two, Muon's one); step counts are left out."""
        kept = {} if self.optimizer is None else self.optimizer.state.get(p, {})
        return [value for value in kept.values() if isinstance(value, Tensor) and value.shape == p.shape]

    def outgoing(self, p: Tensor, units: int) -> Tensor:
        """A view of the next layer's weight as (*runs, out, units, rest): rest > 1 for kernels and after flattening."""
        return p.flatten(self.batch_dims + 1).unflatten(-1, (units, -1))

    @torch.no_grad()
    def reset_units(self, index: int, mask: Tensor, incoming: Tensor | None = None) -> None:
        """Give units of hidden layer `index` new incoming weights, zero bias, zero outgoing weights, zero moments.

        Args:
            mask: which, shape (*runs, units), bool.
            incoming: weights to take the rows from; None draws fresh ones.
        """
        layer, following = self.layers[index], self.layers[index + 1]
        source = self.fresh(layer.weight) if incoming is None else incoming
        rows = mask.reshape(mask.shape + (1,) * (layer.weight.ndim - mask.ndim))
        layer.weight.copy_(torch.where(rows, source, layer.weight))
        for value in self.moments(layer.weight):
            value.masked_fill_(rows, 0)
        if layer.bias is not None:
            for value in (layer.bias, *self.moments(layer.bias)):
                value.masked_fill_(mask, 0)
        for value in (following.weight, *self.moments(following.weight)):
            self.outgoing(value, mask.shape[-1]).masked_fill_(mask[..., None, :, None], 0)

    def penalty(self) -> Tensor:
        """What the method adds to the loss, one value a run: shape (), or (runs,) of which the sum is added."""
        return self.baseline.penalty(self)

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after every optimizer step."""
        self.steps += 1
        self.baseline.after_step(self)

    @torch.no_grad()
    def new_task(self) -> None:
        """To be called at every change of the task but before the first task."""
        self.baseline.new_task(self)

    def detach(self) -> None:
        """Remove the hooks that `attach` has put on the model."""
        for handle in self.handles:
            handle.remove()


@dataclass(frozen=True)
class Baseline:
    """What every method is: settings, and up to four things that it does. This one does nothing."""

    def start(self, net: Attached) -> None:
        """Prepare the state; parameters are at their initial values."""

    def penalty(self, net: Attached) -> Tensor:
        """Added to the loss of each run."""
        return net.zero()

    def after_step(self, net: Attached) -> None:
        """After every optimizer step, without gradients."""

    def new_task(self, net: Attached) -> None:
        """At every task boundary, without gradients."""


def attach(baseline: Baseline, model: nn.Sequential, optimizer: Any = None, seed: int = 0) -> Attached:
    """Put a method to work on one net.

    Args:
        baseline: e.g. ReDo().
        model: an `nn.Sequential` of Linear or Conv2d layers, activations and norms; hooks record its activations.
        optimizer: the one that trains the model.
        seed: of the method's own draws.
    Returns:
        The method at work; call its `penalty`, `after_step` and `new_task` in the training loop, `detach` at the end.
    Raises:
        ValueError: no hidden layer, or a method that replaces units on an activation that mixes them.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> method = attach(L2(strength=2.0), model)
    >>> bool(method.penalty() == sum(p.square().sum() for p in model.parameters()))
    True
    """
    named = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    layers = [Layer(name, m.weight, m.bias) for name, m in named]
    method = Attached(baseline, layers, optimizer, model, [seed], elementwise=is_elementwise(model))

    def begin(_model: nn.Module, args: tuple[Tensor, ...]) -> None:
        method.inputs, method.activations = args[0], []

    def record(_module: nn.Module, _args: Any, output: Tensor) -> None:
        method.activations.append(units_last(output))

    method.handles.append(model.register_forward_pre_hook(begin))
    for module in model.modules():
        if isinstance(module, ACTIVATION_TYPES):
            method.handles.append(module.register_forward_hook(record))
    return method


def is_elementwise(model: nn.Module) -> bool:
    """Whether every activation of the model acts on each unit alone."""
    return not any(isinstance(m, GroupSort | Householder | CReLU) for m in model.modules())


def require_elementwise(net: Attached) -> None:
    if not net.elementwise:
        raise ValueError(
            f"{type(net.baseline).__name__} replaces single units; MaxMin, GroupSort, Householder and CReLU mix them. "
            "Use an activation that acts on each unit alone, e.g. 'relu'"
        )


def require_positive(baseline: Baseline, *names: str) -> None:
    for name in names:
        require_range(f"{type(baseline).__name__}.{name}", getattr(baseline, name), 0, kind=float)


# ----------------------------------------------------------------------------------------- penalties in the loss


@dataclass(frozen=True)
class L2(Baseline):
    """strength/2 * |theta|^2 over weights and biases, in the loss.

    Args:
        strength: lambda >= 0; 1e-5 to 1e-2 in the sweeps of Kumar et al. 2023.
    Source: Kumar, Marklund & Van Roy 2023 (arXiv 2308.11958).
    """

    strength: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(self, "strength")

    def penalty(self, net: Attached) -> Tensor:
        return self.strength / 2 * sum((net.sum_squares(p) for p in net.parameters()), net.zero())


@dataclass(frozen=True)
class L2Init(L2):
    """strength/2 * |theta - theta_0|^2 over weights and biases, theta_0 the values before the first step.

    Args:
        strength: lambda >= 0; 1e-2 was best on four of five problems of the source.
    Source: Kumar, Marklund & Van Roy 2023 (arXiv 2308.11958). Variants that average over the entries of a tensor, or
        anchor after the first step, are other methods.
    """

    strength: float = 1e-2

    def penalty(self, net: Attached) -> Tensor:
        distances = (net.sum_squares(p - net.initial[id(p)]) for p in net.parameters())
        return self.strength / 2 * sum(distances, net.zero())


@dataclass(frozen=True)
class SpectralPenalty(Baseline):
    """strength * sum_l (sigma_1(W_l)^k - 1)^2, and strength * |b|^(2k) for biases, in the loss.

    sigma_1 comes from power iteration with a vector that persists over steps, so it keeps up with slow weights; from a
    vector drawn anew each step one iteration would underestimate it.

    Args:
        strength: lambda >= 0. power: k. iterations: of the power method, each step.
        biases: whether biases are pulled to zero. head: whether the head is regularised.
    Source: Lewandowski et al. 2024 (arXiv 2406.06811); the AdamO authors' RL baseline uses k = 2, 1e-3, no head.
    """

    strength: float = 1e-3
    power: int = 2
    iterations: int = 1
    biases: bool = True
    head: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "strength")
        require_range("SpectralPenalty.iterations", self.iterations, 1)

    def start(self, net: Attached) -> None:
        net.state["left"] = [
            net.normal(layer.weight.detach().flatten(net.batch_dims + 1)[..., 0]) for layer in net.layers
        ]
        for _ in range(10):
            self.iterate(net)

    @torch.no_grad()
    def iterate(self, net: Attached) -> list[Tensor]:
        """One power iteration a layer; the right vectors."""
        right = []
        for index, layer in enumerate(net.layers):
            W = layer.weight.flatten(net.batch_dims + 1)
            v = nn.functional.normalize(W.mT @ net.state["left"][index][..., None], dim=-2)
            net.state["left"][index] = nn.functional.normalize(W @ v, dim=-2)[..., 0]
            right.append(v)
        return right

    def penalty(self, net: Attached) -> Tensor:
        for _ in range(self.iterations):
            right = self.iterate(net)
        total = net.zero()
        for index, layer in enumerate(net.layers):
            if layer is net.layers[-1] and not self.head:
                continue
            W = layer.weight.flatten(net.batch_dims + 1)
            sigma = (net.state["left"][index][..., None, :] @ W @ right[index])[..., 0, 0]
            total = total + (sigma**self.power - 1).square()
            if self.biases and layer.bias is not None:
                total = total + net.sum_squares(layer.bias) ** self.power
        return self.strength * total


@dataclass(frozen=True)
class Parseval(Baseline):
    """strength * sum_l |W_l W_l' - target I|_F^2 over hidden layers, in the loss.

    The Gram is always out x out: in an expanding layer it cannot reach the target, and the penalty differs from eq. 16
    by a constant. AdamO with coupled=True is the same force.

    Args:
        strength: lambda >= 0; 1e-3 in the source (times (64/width)^2, which is left to the caller).
        target: s, the squared gain of the initialisation.
    Source: Chung et al. 2024 (arXiv 2412.07224).
    """

    strength: float = 1e-3
    target: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "strength", "target")

    def penalty(self, net: Attached) -> Tensor:
        total = net.zero()
        for layer in net.hidden:
            W = layer.weight.flatten(net.batch_dims + 1)
            eye = torch.eye(W.shape[-2], dtype=W.dtype, device=W.device)
            total = total + net.sum_squares(W @ W.mT - self.target * eye)
        return self.strength * total


@dataclass(frozen=True)
class FeatureRank(Baseline):
    """L2-ER: strength/2 |theta|^2 - rank_strength * log(effective rank of the last hidden features), in the loss.

    The two ingredients are the source's; this form and its constants are ours.

    Args:
        strength: of the L2 part. rank_strength: of the rank part, on each minibatch.
    Source: He et al. 2025 (arXiv 2509.22335), by its abstract.
    """

    strength: float = 1e-4
    rank_strength: float = 1e-2

    def __post_init__(self) -> None:
        require_positive(self, "strength", "rank_strength")

    def penalty(self, net: Attached) -> Tensor:
        features = net.activations[-1]
        gram = features @ features.mT if features.shape[-2] <= features.shape[-1] else features.mT @ features
        jitter = 1e-6 * gram.diagonal(dim1=-2, dim2=-1).mean(-1).detach()[..., None, None] + 1e-12
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        finite = torch.isfinite(gram).flatten(net.batch_dims).all(-1)[..., None, None]
        sigma = torch.linalg.eigvalsh(torch.where(finite, gram + jitter * eye, eye)).clamp_min(1e-12).sqrt()
        return L2(self.strength).penalty(net) - self.rank_strength * effective_rank(sigma).log()


@dataclass(frozen=True)
class Churn(Baseline):
    """strength * mean |f(x_ref) - f_before(x_ref)|^2: outputs on inputs outside the minibatch should not move.

    x_ref is the minibatch before the last; f_before is the net one step ago.

    Args:
        strength: lambda >= 0.
    Source: C-CHAIN, Tang et al. 2025, continual churn reduction; the choice of reference inputs is ours.
    """

    strength: float = 1e-2

    def __post_init__(self) -> None:
        require_positive(self, "strength")

    def start(self, net: Attached) -> None:
        if net.forward is None:
            raise ValueError("Churn runs the net on earlier inputs; attach it with the net's forward map")

    def penalty(self, net: Attached) -> Tensor:
        assert net.forward is not None and net.inputs is not None
        here, activations, gap = net.inputs.detach(), net.activations, net.zero()
        if "reference" in net.state:
            inputs, before = net.state["reference"]
            gap = (net.forward(inputs) - before).square().flatten(net.batch_dims).mean(-1)
        if "last" in net.state:  # outputs of the present weights, for the next step
            with torch.no_grad():
                net.state["reference"] = net.state["last"], net.forward(net.state["last"])
        net.state["last"] = here
        net.inputs, net.activations = here, activations  # hooks have recorded the extra passes
        return self.strength * gap

    def new_task(self, net: Attached) -> None:
        net.state.clear()


# ------------------------------------------------------------------------------------------------ unit replacement


@dataclass(frozen=True)
class ReDo(Baseline):
    """Every `every` steps, units with dormancy score <= threshold get fresh incoming and zero outgoing weights.

    The score is the mean activation over the layer's mean, on the inputs of the last forward pass. Adam's moments of
    both slices become zero; its step count stays.

    Args:
        threshold: tau >= 0; .025 and .1 are usual, 0 takes units that never fired.
        every: steps between recycling; 1,000 is usual.
    Source: Sokar et al. 2023 (arXiv 2302.12902) and its code.
    """

    threshold: float = 0.025
    every: int = 1000

    def __post_init__(self) -> None:
        require_positive(self, "threshold")
        require_range("ReDo.every", self.every, 1)

    def start(self, net: Attached) -> None:
        require_elementwise(net)

    def after_step(self, net: Attached) -> None:
        if net.steps % self.every:
            return
        masks = [dormancy_score(h.detach()) <= self.threshold for h in net.activations]
        for index, mask in enumerate(masks):
            net.reset_units(index, mask)


@dataclass(frozen=True)
class ContinualBackprop(Baseline):
    """After every step, replaces a small fraction of the mature units with the least utility.

    Units older than `maturity` steps are eligible; rate * eligible units a step accumulate until a whole one is due.
    A replaced unit hands its mean contribution to the next bias, so the outputs keep their mean.

    Args:
        rate: rho, units replaced per eligible unit and step; 1e-6 to 1e-3 in the literature.
        maturity: steps during which a new unit is safe; 100 to 10,000.
        decay: of the running averages, below 1.
        utility: "contribution": mean |h| * mean |w_out|; "adaptable_contribution": mean |h - mean h| * mean |w_out| /
            mean |w_in|.
    Source: Dohare et al. 2024 (Nature 632) and its code; torch keeps one step count a tensor, so the step count of
        replaced entries is not reset.
    """

    rate: float = 1e-4
    maturity: int = 100
    decay: float = 0.99
    utility: str = "contribution"

    def __post_init__(self) -> None:
        require_range("ContinualBackprop.rate", self.rate, 0, 1, kind=float)
        require_range("ContinualBackprop.maturity", self.maturity, 0)
        require_range("ContinualBackprop.decay", self.decay, 0, 0.999999, kind=float)
        require("ContinualBackprop.utility", self.utility, ("contribution", "adaptable_contribution"))

    def start(self, net: Attached) -> None:
        require_elementwise(net)
        shapes = [layer.weight.shape[: net.batch_dims + 1] for layer in net.hidden]
        for name in ("age", "utility", "mean"):
            net.state[name] = [net.layers[0].weight.new_zeros(shape) for shape in shapes]
        net.state["due"] = [net.zero() for _ in shapes]

    def after_step(self, net: Attached) -> None:
        for index, h in enumerate(net.activations):
            mask = self.replaced(net, index, h.detach())
            self.hand_over(net, index, mask)
            net.reset_units(index, mask)
            for name in ("age", "utility", "mean"):
                net.state[name][index].masked_fill_(mask, 0)

    def replaced(self, net: Attached, index: int, h: Tensor) -> Tensor:
        """Which units of a layer are replaced now, (*runs, units); ages and averages are brought up to date."""
        age, utility, mean, due = (net.state[name][index] for name in ("age", "utility", "mean", "due"))
        age += 1
        mean.lerp_(h.mean(-2), 1 - self.decay)
        utility.lerp_(self.instant(net, index, h, self.corrected(mean, age)), 1 - self.decay)
        eligible = age > self.maturity
        due += self.rate * eligible.sum(-1)
        score = self.corrected(utility, age).masked_fill(~eligible, torch.inf)
        mask = eligible & (score.argsort(-1).argsort(-1) < due.floor()[..., None])
        due -= mask.sum(-1)
        return mask

    def corrected(self, average: Tensor, age: Tensor) -> Tensor:
        return average / (1 - self.decay**age).clamp_min(1e-12)

    def instant(self, net: Attached, index: int, h: Tensor, mean: Tensor) -> Tensor:
        """The utility that this minibatch gives each unit."""
        out = net.outgoing(net.layers[index + 1].weight, h.shape[-1]).abs().mean((-3, -1))
        if self.utility == "contribution":
            return h.abs().mean(-2) * out
        into = net.layers[index].weight.abs().flatten(net.batch_dims + 1).mean(-1)
        return (h - mean[..., None, :]).abs().mean(-2) * out / into.clamp_min(1e-12)

    def hand_over(self, net: Attached, index: int, mask: Tensor) -> None:
        """Add the mean contribution of the replaced units to the next layer's bias."""
        following = net.layers[index + 1]
        if following.bias is not None:
            mean = self.corrected(net.state["mean"][index], net.state["age"][index]) * mask
            following.bias.add_((net.outgoing(following.weight, mask.shape[-1]).sum(-1) @ mean[..., None])[..., 0])


@dataclass(frozen=True)
class Reset(Baseline):
    """At every task boundary, draws the head or all layers anew and clears the optimizer's moments of what it drew.

    Args:
        layers: "head" or "all".
    """

    layers: str = "head"

    def __post_init__(self) -> None:
        require("Reset.layers", self.layers, ("head", "all"))

    def new_task(self, net: Attached) -> None:
        for layer in net.layers if self.layers == "all" else net.layers[-1:]:
            for p in (layer.weight, layer.bias):
                if p is not None:
                    p.copy_(net.fresh(p))
                    for value in net.moments(p):
                        value.zero_()


@dataclass(frozen=True)
class ShrinkPerturb(Baseline):
    """theta <- shrink * theta + perturb * draw, on weights and biases, at task boundaries or after every step.

    Six methods of this name are in use; `SHRINK_PERTURB` holds their settings.

    Args:
        shrink: factor, 0 to 1. perturb: factor of the draw.
        draw: "fresh" (the initial law), "initial" (the stored initial values) or "noise" (standard normal).
        when: "task" or "step".
        scaled_by_lr: multiplies 1 - shrink and perturb by the learning rate.
        clear_moments: whether the optimizer's moments become zero (only sensible with when="task").
    Source: Ash & Adams 2020 (arXiv 1910.08475) for the name and the boundary form.
    """

    shrink: float = 0.4
    perturb: float = 0.1
    draw: str = "fresh"
    when: str = "task"
    scaled_by_lr: bool = False
    clear_moments: bool = True

    def __post_init__(self) -> None:
        require_range("ShrinkPerturb.shrink", self.shrink, 0, 1, kind=float)
        require_positive(self, "perturb")
        require("ShrinkPerturb.draw", self.draw, ("fresh", "initial", "noise"))
        require("ShrinkPerturb.when", self.when, ("task", "step"))

    def start(self, net: Attached) -> None:
        if self.scaled_by_lr:
            net.learning_rate()  # asks for an optimizer now, not after the first step

    def new_task(self, net: Attached) -> None:
        if self.when == "task":
            self.apply(net)

    def after_step(self, net: Attached) -> None:
        if self.when == "step":
            self.apply(net)

    def apply(self, net: Attached) -> None:
        rate = net.learning_rate() if self.scaled_by_lr else 1.0
        for p in net.parameters():
            draw = {"fresh": net.fresh, "initial": lambda q: net.initial[id(q)], "noise": net.normal}[self.draw](p)
            p.mul_(1 - rate * (1 - self.shrink)).add_(draw, alpha=rate * self.perturb)
            for value in net.moments(p) if self.clear_moments and self.when == "task" else []:
                value.zero_()


SHRINK_PERTURB = {
    "ash": ShrinkPerturb(),  # warm start, new optimizer
    "dohare": ShrinkPerturb(1.0, 1e-5, "noise", "step"),  # with L2 beside it; sigma 1e-6 to 1e-4
    "kumar": ShrinkPerturb(1 - 1e-3, 1e-2, "fresh", "step"),  # 1 - p and sigma from their tuning
    "elsayed": ShrinkPerturb(1 - 1e-2, 0.1, "noise", "step", scaled_by_lr=True),
    "fire": ShrinkPerturb(0.2, 0.8, "initial", "task"),
}


# ------------------------------------------------------------------------------------------- projections of weights


@dataclass(frozen=True)
class FIRE(Baseline):
    """At every task boundary, replaces each hidden weight by its (scaled) polar factor.

    Args:
        steps: Newton-Schulz steps; the 10 of the source leave the smallest singular values of square layers far below
            one, 30 bring them up.
        fan_scaled: multiplies by sqrt(out/in), as the source does; False leaves all singular values at one.
    Source: FIRE (arXiv 2602.08040) and its code. Convolutions are handled tap by tap and divided by the window's size.
    """

    steps: int = 10
    fan_scaled: bool = True

    def __post_init__(self) -> None:
        require_range("FIRE.steps", self.steps, 1)

    def new_task(self, net: Attached) -> None:
        for layer in net.hidden:
            taps = layer.weight.detach().flatten(net.batch_dims + 2) if layer.weight.ndim > net.batch_dims + 2 else None
            W = layer.weight if taps is None else taps.movedim(-1, net.batch_dims)
            scale = math.sqrt(W.shape[-2] / W.shape[-1]) if self.fan_scaled else 1.0
            Q = newton_schulz(W, self.steps) * scale / (1 if taps is None else taps.shape[-1])
            layer.weight.copy_(Q if taps is None else Q.movedim(net.batch_dims, -1).reshape(layer.weight.shape))


@dataclass(frozen=True)
class NormProjection(Baseline):
    """The projection of Normalise-and-Project: after every step each hidden weight gets its initial Frobenius norm.

    The normalisation is the net's: norm="layernorm_fixed" before every activation, no biases.
    Source: Lyle et al. 2024 (arXiv 2407.01800), as in the AdamO authors' RL baseline.
    """

    def after_step(self, net: Attached) -> None:
        for layer in net.hidden:
            rescale(layer.weight, net.initial[id(layer.weight)], net.batch_dims)


@dataclass(frozen=True)
class RowNorm(Baseline):
    """Weight normalisation with fixed gain, as a projection: after every step each row gets its initial norm.

    `torch.nn.utils.parametrizations.weight_norm` is the same constraint as a parametrisation, with a learned gain.
    Source: Salimans & Kingma 2016 (arXiv 1602.07868).
    """

    def after_step(self, net: Attached) -> None:
        for layer in net.hidden:
            rescale(layer.weight, net.initial[id(layer.weight)], net.batch_dims + 1)


@dataclass(frozen=True)
class SpectralNorm(Baseline):
    """Spectral normalisation as a projection: after every step each hidden weight is divided by its estimated sigma_1.

    `torch.nn.utils.parametrizations.spectral_norm` is the same constraint as a parametrisation.

    Args:
        iterations: of the power method, each step, with a vector that persists.
    Source: Miyato et al. 2018 (arXiv 1802.05957).
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        require_range("SpectralNorm.iterations", self.iterations, 1)

    def start(self, net: Attached) -> None:
        SpectralPenalty().start(net)

    def after_step(self, net: Attached) -> None:
        for _ in range(self.iterations):
            right = SpectralPenalty().iterate(net)
        for index, layer in enumerate(net.hidden):
            W = layer.weight.flatten(net.batch_dims + 1)
            sigma = (net.state["left"][index][..., None, :] @ W @ right[index])[..., 0, 0]
            layer.weight.div_(sigma.reshape(sigma.shape + (1,) * (layer.weight.ndim - net.batch_dims)))


@dataclass(frozen=True)
class WeightClipping(Baseline):
    """After every step, clamps weights and biases to +-kappa/sqrt(fan_in) of their layer.

    Args:
        kappa: 1 to 5 in the source. head: whether the head is clipped.
    Source: Elsayed et al. 2024 (arXiv 2407.01704).
    """

    kappa: float = 2.0
    head: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "kappa")

    def after_step(self, net: Attached) -> None:
        for layer in net.layers if self.head else net.hidden:
            bound = self.kappa / math.sqrt(layer.weight.flatten(net.batch_dims + 1).shape[-1])
            for p in (layer.weight, layer.bias):
                if p is not None:
                    p.clamp_(-bound, bound)


@dataclass(frozen=True)
class Isometry(Baseline):
    """The decoupled pull of eq. 20 after any optimizer's step, on all rows or only on live or dead ones.

    With rows="all" this is AdamO's pull evaluated at the new weights, as in the authors' code. The other two clamp the
    mechanism: a unit counts as dead if it fired on no input of the last `window` steps.

    Args:
        strength: lambda >= 0 of eq. 20. lr: step size; None follows the optimizer's first group.
        rows: "all", "live" or "dead".
        window: steps.
    Raises:
        ValueError: lr * strength at or above 1/4 (in `start`).
    Source: arXiv 2606.09762, eq. 20; the clamps are ours.
    """

    strength: float = 1e-3
    lr: float | None = None
    rows: str = "all"
    window: int = 50

    def __post_init__(self) -> None:
        require_positive(self, "strength")
        require("Isometry.rows", self.rows, ("all", "live", "dead"))
        require_range("Isometry.window", self.window, 1)

    def start(self, net: Attached) -> None:
        if self.rate(net) >= 0.25:
            raise ValueError(f"Isometry: lr * strength = {self.rate(net):.4g}; it must be below 1/4")
        if self.rows != "all":
            require_elementwise(net)
            shapes = [layer.weight.shape[: net.batch_dims + 1] for layer in net.hidden]
            net.state["silent"] = [net.layers[0].weight.new_zeros(shape) for shape in shapes]

    def rate(self, net: Attached) -> float:
        return self.strength * (net.learning_rate() if self.lr is None else self.lr)

    def after_step(self, net: Attached) -> None:
        weights = [layer.weight for layer in net.hidden]
        for index, step in enumerate(isometry_step(weights, self.rate(net), net.batch_dims)):
            if self.rows != "all":
                silent = net.state["silent"][index]
                silent.add_(1).masked_fill_(net.activations[index].detach().amax(-2) > 0, 0)
                chosen = (silent >= self.window) == (self.rows == "dead")
                step = step * chosen.reshape(chosen.shape + (1,) * (step.ndim - chosen.ndim))
            weights[index].sub_(step)


def rescale(W: Tensor, reference: Tensor, axes: int) -> None:
    """Give W the norm of the reference over all but the first `axes` axes, in place."""
    norm = W.flatten(axes).norm(dim=-1)
    factor = reference.flatten(axes).norm(dim=-1) / norm.clamp_min(1e-30)
    W.mul_(factor.reshape(factor.shape + (1,) * (W.ndim - axes)))


# ------------------------------------------------------------------------------------------------------ optimizers


class UPGD(torch.optim.Optimizer):
    """Utility-based perturbed gradient descent: useful weights move less, the others move with noise.

        u <- beta u + (1 - beta)(-g theta),   s = sigmoid(uhat / max uhat),
        theta <- (1 - lr wd) theta - lr (g + noise xi)(1 - s)

    with the largest bias-corrected utility taken over all parameters of a run (the global form). Where no utility is
    positive, the scale is that of the largest magnitude, so the gate stays monotone.

    Args:
        lr, beta, noise, weight_decay: eta, beta, sigma and lambda of the source; .01, .9999, .1, .01 were best on
            input-permuted MNIST.
        generators: one a run; None draws from torch's global generator.
        batch_dims: leading axes that index runs.
    Raises:
        ValueError: a setting out of range.
    Source: Elsayed & Mahmood 2024 (arXiv 2404.00781), first-order global form, step lr as in its experiment code.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        beta: float = 0.9999,
        noise: float = 0.1,
        weight_decay: float = 0.01,
        generators: Sequence[torch.Generator] | None = None,
        batch_dims: int = 0,
    ):
        for name, value in (("lr", lr), ("noise", noise), ("weight_decay", weight_decay)):
            require_range(f"UPGD.{name}", value, 0, kind=float)
        require_range("UPGD.beta", beta, 0, 0.9999999, kind=float)
        super().__init__(params, dict(lr=lr, beta=beta, noise=noise, weight_decay=weight_decay))
        self.generators, self.batch_dims, self.count = generators, batch_dims, 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.count += 1
        pairs = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        utilities = []
        for group, p in pairs:
            kept = self.state[p].setdefault("utility", torch.zeros_like(p))
            kept.lerp_(-p.grad * p, 1 - group["beta"])
            utilities.append(kept / (1 - group["beta"] ** self.count))
        largest = self.over_run(utilities)
        for (group, p), utility in zip(pairs, utilities, strict=True):
            gate = torch.sigmoid(utility / largest.reshape(largest.shape + (1,) * (p.ndim - largest.ndim)))
            move = (p.grad + group["noise"] * self.normal(p)) * (1 - gate)
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-group["lr"])
        return loss

    def over_run(self, utilities: Sequence[Tensor]) -> Tensor:
        """The positive scale of each run's utilities, shape (*runs,)."""
        top = torch.stack([u.flatten(self.batch_dims).amax(-1) for u in utilities]).amax(0)
        size = torch.stack([u.abs().flatten(self.batch_dims).amax(-1) for u in utilities]).amax(0)
        return torch.where(top > 0, top, size).clamp_min(1e-30)

    def normal(self, p: Tensor) -> Tensor:
        if self.generators is None:
            return torch.randn_like(p)
        shape = p.shape[self.batch_dims :]
        draws = [torch.randn(shape, generator=g, device=p.device, dtype=p.dtype) for g in self.generators]
        return torch.stack(draws).reshape(p.shape)


class Several:
    """Optimizers that each train a part of the parameters, as one."""

    def __init__(self, *parts: Any):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        return {p: kept for part in self.parts for p, kept in part.state.items()}

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


class PerRun:
    """A torch optimizer that knows no leading run axis, at work on each run's slice of stacked parameters.

    The slices share storage with the stack; the optimizer is `make(slices)`, once for every run.

    Args:
        params: stacked, (runs, ...).
        make: list of parameters -> optimizer, e.g. lambda ps: torch.optim.Muon(ps, lr=1e-3).
    """

    def __init__(self, params: Sequence[Tensor], make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]):
        self.params = list(params)
        self.slices = [[nn.Parameter(p.detach()[r]) for p in self.params] for r in range(len(self.params[0]))]
        self.each = [make(slices) for slices in self.slices]
        self.state: dict[Tensor, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.each for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        for r, (optimizer, slices) in enumerate(zip(self.each, self.slices, strict=True)):
            for mine, p in zip(slices, self.params, strict=True):
                mine.grad = None if p.grad is None else p.grad[r]
            optimizer.step()


CLASSES: dict[str, type[Baseline]] = {
    "l2": L2,
    "l2_init": L2Init,
    "spectral_penalty": SpectralPenalty,
    "parseval": Parseval,
    "feature_rank": FeatureRank,
    "churn": Churn,
    "redo": ReDo,
    "continual_backprop": ContinualBackprop,
    "shrink_perturb": ShrinkPerturb,
    "reset": Reset,
    "fire": FIRE,
    "norm_projection": NormProjection,
    "row_norm": RowNorm,
    "spectral_norm": SpectralNorm,
    "weight_clipping": WeightClipping,
    "isometry": Isometry,
}


def make(name: str, **settings: Any) -> Baseline:
    """The method of a name, e.g. make("redo", threshold=0.1).

    Raises:
        ValueError: an unknown name or setting (suggests the nearest), or a value out of range.

    >>> make("redo", threshold=0.1)
    ReDo(threshold=0.1, every=1000)
    """
    require("baseline", name, CLASSES)
    known = [f.name for f in fields(CLASSES[name])]
    for key in settings:
        if key not in known:
            raise ValueError(f"{name} has no setting {key!r}; {nearest(key, known)}")
    return CLASSES[name](**settings)
