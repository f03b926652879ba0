"""AdamO: Adam on the task gradient, plus a decoupled pull of every weight matrix towards an isometry.

    m, v   <- Adam's moments of the task gradient alone                                   (eq. 19)
    theta  <- theta - lr mhat/(sqrt(vhat) + eps) - isometry_lr * strength * grad R(theta)  (eq. 20)

with R the Gram penalty of `dyniso.isometry.gram_deviation`, evaluated before the Adam step. `adamo_update` is that
formula; `AdamO` is torch's own Adam with the pull. This is the AdamO of arXiv 2606.09762 (Rosseau, Mueller, Nowe, ICML
2026). Another optimizer of that name, arXiv 2602.05136, is unrelated.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from .checks import require_keys, require_type
from .groups import isometry_groups
from .isometry import half_precision
from .options import (
    ADAM_OPTIONS,
    DEFAULT_STRENGTH,
    OPTIONS,
    PRINTED_STRENGTH,
    check_options,
    is_pulled,
    rate,
    steps_at_all,
)
from .pull import (
    Blocks,
    Bucket,
    IsometryDivergenceError,
    Member,
    as_owner,
    buckets,
    check,
    isometry_step,
    shard_like,
    whole,
)

__all__ = ["PRINTED_STRENGTH", "AdamO", "IsometryDivergenceError", "adamo_update", "isometry_groups", "isometry_step"]

ADAM_STEP = inspect.unwrap(Adam.step)  # without the hooks that torch puts around it; AdamO.step has its own
CALLS, REST = "isometry_calls", "isometry_rest"  # in a weight's state: its calls with gradients, what rounding left


@dataclass
class Pulled:
    """What one call has to hand on to Adam, and to do after it."""

    added: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # weights, with what Adam adds to their gradients
    held: list[tuple[Member, Tensor]] = field(default_factory=list)  # pulls that wait for Adam's weight decay
    rests: dict[Tensor, Tensor] = field(default_factory=dict)  # what half precision could not hold


def outside_graphs(method: Any) -> Any:
    """Keep a method out of what `torch.compile` compiles: its numbers change with a schedule, its work with a turn."""

    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(method)(*arguments)
        return method(*arguments)

    return call


def adamo_update(
    W: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    lr: float = 1e-3,
    strength: float = DEFAULT_STRENGTH,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of AdamO on one weight matrix: the whole method, to read and to copy.

        m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2                         (eq. 19)
        W <- W - lr mhat / (sqrt(vhat) + eps) - lr strength grad R(W),   mhat = m/(1 - beta1^t)  (eq. 20)

    with grad R(W) = 4 W (W'W - I) at the old weights, for tall and wide W alike. `AdamO` does the same faster.

    Args:
        W: weight, shape (..., out, in), e.g. (512, 784).
        grad: gradient of the task's loss, same shape.
        m, v: moments of `grad`, same shape; zeros before the first step.
        step: t, 1 for the first step.
        lr, betas, eps: of Adam. strength: lambda of eq. 20; lr * strength below 1/4.
    Returns:
        New W, m and v. Nothing is modified.
    Source: arXiv 2606.09762, eqs. 19 and 20, with eq. 16's gradient.

    >>> W, zero = 2 * torch.eye(2), torch.zeros(2, 2)
    >>> adamo_update(W, zero, zero, zero, step=1, lr=0.1, strength=0.1)[0]
    tensor([[1.7600, 0.0000],
            [0.0000, 1.7600]])
    """
    m = betas[0] * m + (1 - betas[0]) * grad
    v = betas[1] * v + (1 - betas[1]) * grad.square()
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    pull = 4 * (W @ W.mT @ W - W)
    return W - lr * m_hat / (v_hat.sqrt() + eps) - lr * strength * pull, m, v


class AdamO(Adam):
    """Adam with a decoupled isometry step, equations 19 and 20; drop-in for `torch.optim.Adam`.

    Args:
        params: parameters or groups. Given bare `model.parameters()`, every matrix and every kernel is regularised,
            the output head too; `isometry_groups` leaves out head, embeddings and norms. Vectors get plain Adam.
        lr, adam: the arguments of `torch.optim.Adam`, whose own step does the Adam part (all but `differentiable`).
        isometry_strength: lambda of eq. 20, at least 0; a number, or a tensor of the batch shape. 0 is bitwise
            Adam. The default, 0.1, is what most of the book's runs take; the printed value, PRINTED_STRENGTH = 1e-3,
            does next to nothing there. Rule of thumb: sqrt(n / D) / 20 for a mean (sigma^2 - 1)^2 of D in weights of
            n x n, at any learning rate. It held D = 0.05 in all settings of the chapter on the strength of the pull
            (widths 24 to 96, rates 1e-3 to 9e-3), where 2 to 7 times less would have done.
            Left alone, a singular value comes nearer to 1 by a factor of e in 1 / (8 lr strength) steps.
        isometry_lr: step size of the isometry term; None follows lr and its schedule. At lr = 0 nothing is pulled.
        isometry_every: k applies k times the strength to a weight on every k-th call that has a gradient for it: 1/k of
            the work, the same flow to first order.
        isometry_blocks: rows and columns of blocks of a packed weight, each a map of its own: (3, 1) for q, k and v.
        isometry_side: "both", or "above": only singular values above 1 are pulled, 4 W (W'W - I) with the negative
            eigenvalues of the bracket set to 0. Smaller ones are left to the task. Ours; see the book's chapter on the
            cause. It costs an eigendecomposition of each Gram.
        coupled: add strength * grad R to the gradient that Adam sees instead, for comparison; `p.grad` stays as it is.
        batch_dims: leading axes that index independent runs; then one axis is a vector, two a matrix, more a kernel.
    Raises:
        TypeError: a module in place of its parameters.
        ValueError: an unknown option or one out of range, or c = isometry_lr * strength * every at or above 1/4, where
            sigma = 1 is no longer a stable point of the step.
        IsometryDivergenceError: from `step`, before that step changes anything: sigma_max^2 > 1 + 1/(2c), where the
            explicit step diverges, or c >= 1/4 by a schedule. Looking costs one host synchronisation for each
            application; inside a graph capture it is off (call `check_stability` yourself).
    Source: arXiv 2606.09762, eqs. 16, 19, 20 (gradient factor 4; the authors' RL code uses 2).

    >>> layer = nn.Linear(4, 4)
    >>> optimizer = AdamO(layer.parameters(), lr=1e-3, isometry_strength=1e-2)
    >>> layer(torch.ones(1, 4)).sum().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *adam: Any,
        isometry_strength: float | Tensor = DEFAULT_STRENGTH,
        isometry_lr: float | Tensor | None = None,
        isometry_every: int = 1,
        isometry_blocks: Blocks = (1, 1),
        isometry_side: str = "both",
        coupled: bool = False,
        batch_dims: int = 0,
        **adam_options: Any,
    ):
        if isinstance(params, nn.Module):
            require_type("params", params, (), "parameters or groups, e.g. AdamO(isometry_groups(model))")
        require_keys("AdamO", adam_options, (*OPTIONS, *ADAM_OPTIONS))
        super().__init__(params, lr, *adam, **adam_options)
        self._step_supports_amp_scaling = False  # GradScaler then unscales and skips whole steps, isometry included
        values = (isometry_strength, isometry_lr, isometry_every, isometry_blocks, isometry_side, coupled, batch_dims)
        self.defaults.update(zip(OPTIONS, values, strict=True))
        for group in self.param_groups:
            self._complete(group, {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As `torch.optim.Optimizer.add_param_group`; a group with a bad isometry option is not added."""
        super().add_param_group(param_group)
        if OPTIONS[0] in self.defaults:
            try:
                self._complete(self.param_groups[-1], {})
            except ValueError:
                self.param_groups.pop()
                raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a loaded or unpickled state; an option that it lacks, as a plain Adam's does, keeps its value."""
        present = self.__dict__.get("param_groups", [{}] * len(state["param_groups"]))
        self.defaults = (self.__dict__ | state)["defaults"]
        for group, mine in zip(state["param_groups"], present, strict=True):
            self._complete(group, mine)
        super().__setstate__(state)

    def _complete(self, group: dict[str, Any], present: dict[str, Any]) -> None:
        """Fill in what a group lacks of the isometry options, from `present` values or the defaults, and check them."""
        for name in OPTIONS:
            group.setdefault(name, present.get(name, self.defaults[name]))
        check_options(group)
        if isinstance(group["isometry_strength"], Tensor) and group["params"]:
            group["isometry_strength"] = group["isometry_strength"].to(group["params"][0].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: re-evaluates the model and returns the loss.
        Returns:
            The closure's value, or None.
        Raises:
            IsometryDivergenceError: the isometry step would diverge (see the class); no parameter is changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        pulled = self._pull()
        self._adam(pulled.added)
        self._finish(pulled)
        return loss

    @outside_graphs
    def _pull(self) -> Pulled:
        """Look at every weight whose turn it is, and pull those that Adam's step will not scale by weight decay."""
        if any(p.grad is not None and p.grad.is_sparse for group in self.param_groups for p in group["params"]):
            return Pulled()  # Adam refuses them, and nothing may have changed by then
        turns = [(group, self._turn(group)) for group in self.param_groups]
        due = [(group, self._buckets(group, params)) for group, params in turns]
        check([bucket for group, found in due if not group["coupled"] for bucket in found])
        pulled = Pulled()
        for group, found in due:
            for m, step in (pair for bucket in found for pair in bucket.steps()):
                if group["coupled"]:  # maximize flips the whole gradient; the penalty is always minimised
                    step = -step if group["maximize"] else step
                    pulled.added.append((m.owner, as_owner(m, step, group["batch_dims"], group["isometry_blocks"])))
                elif group["weight_decay"]:
                    pulled.held.append((m, step))
                else:
                    self._subtract(m, step, pulled)
        return pulled

    def _subtract(self, m: Member, step: Tensor, pulled: Pulled) -> None:
        """Take a step off a weight. What half precision cannot hold of it is kept, and comes with the next one."""
        if not m.is_copy:
            m.mats.sub_(step)
            return
        m.held.copy_(whole(m.owner))
        rest = self.state[m.owner].get(REST) if m.owner in self.state else None
        if rest is not None:
            m.held.add_(whole(rest))
        m.mats.sub_(step)
        given(m.held, m.owner)
        if half_precision(m.owner):
            pulled.rests[m.owner] = m.held - whole(m.owner)

    def _adam(self, added: Sequence[tuple[Tensor, Tensor]]) -> None:
        """torch's own Adam step, with something added to some gradients while it runs; `p.grad` itself stays."""
        kept: list[Any] = [p.grad for p, _ in added]
        try:
            for (p, pull), grad in zip(added, kept, strict=True):
                p.grad = grad + pull
            ADAM_STEP(self)
        finally:
            for (p, _), grad in zip(added, kept, strict=True):
                p.grad = grad

    @outside_graphs
    def _finish(self, pulled: Pulled) -> None:
        """The pulls that had to wait for Adam's weight decay, and what is remembered of this call."""
        for m, step in pulled.held:
            self._subtract(m, step, pulled)
        for p, rest in pulled.rests.items():  # not before: Adam takes an empty state for a new parameter
            self.state[p][REST] = shard_like(rest, p).to(p.dtype)
        for group in self.param_groups:
            if group["isometry_every"] > 1 and steps_at_all(group):
                for p in group["params"]:
                    if p.grad is not None and is_pulled(p, group["batch_dims"]):
                        self.state[p][CALLS] = self.state[p].get(CALLS, 0) + 1

    def _turn(self, group: dict[str, Any]) -> list[Tensor]:
        """The weights that are pulled in this call: in every k-th that has a gradient for them and a rate above 0."""
        every, batch_dims = group["isometry_every"], group["batch_dims"]
        params = [p for p in group["params"] if p.grad is not None and is_pulled(p, batch_dims)]
        if not params or not steps_at_all(group):
            return []
        if every > 1 and params[0].is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"isometry_every={every} cannot be captured in a CUDA graph: a replay would repeat "
                "one call's choice; use 1, or keep the step out of the graph"
            )
        return params if every == 1 else [p for p in params if (self._calls(p) + 1) % every == 0]

    def _calls(self, p: Tensor) -> int:
        """In how many calls this weight had a gradient; each weight has its own turn."""
        return int(self.state[p].get(CALLS, 0)) if p in self.state else 0

    def _buckets(self, group: dict[str, Any], params: Sequence[Tensor]) -> list[Bucket]:
        """Some weights of a group with the full scale of one application."""
        scale = group["isometry_strength"] * group["isometry_every"]
        if not group["coupled"]:
            scale = scale * rate(group)
        return buckets(params, scale, group["batch_dims"], group["isometry_blocks"], group["isometry_side"])

    @torch.no_grad()
    def check_stability(self) -> None:
        """Raise IsometryDivergenceError now if the next isometry step would diverge, gradients or not; synchronises."""
        for group in self.param_groups:
            if not group["coupled"] and steps_at_all(group):
                params = [p for p in group["params"] if is_pulled(p, group["batch_dims"])]
                for bucket in self._buckets(group, params):
                    bucket.raise_if_divergent()


def given(held: Tensor, owner: Tensor) -> None:
    """Write a working copy back to its weight, in the weight's dtype and shards."""
    owner.detach().copy_(shard_like(held, owner))
