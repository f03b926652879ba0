"""AdamO: Adam on the task gradient, plus a decoupled pull of every weight matrix towards an isometry.

    m, v   <- Adam's moments of the task gradient alone                                   (eq. 19)
    theta  <- theta - lr mhat/(sqrt(vhat) + eps) - isometry_lr * strength * grad R(theta)  (eq. 20)

with R the Gram penalty of `dyniso.isometry.gram_deviation`, evaluated before the Adam step. `adamo_update` is that
formula; `AdamO` is torch's own Adam with the pull. This is the AdamO of arXiv 2606.09762 (Rosseau, Mueller, Nowe, ICML
2026). Another optimizer of that name, arXiv 2602.05136, is unrelated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import Adam

from .checks import require, require_keys, require_range, require_shape, require_type
from .pull import Bucket, IsometryDivergenceError, buckets, isometry_step

__all__ = ["AdamO", "IsometryDivergenceError", "adamo_update", "isometry_groups", "isometry_step"]

OPTIONS = ("isometry_strength", "isometry_lr", "isometry_every", "coupled", "batch_dims")
ADAM_OPTIONS = tuple(name for name in inspect.signature(Adam).parameters if name not in ("params", "differentiable"))
ADAM_STEP = inspect.unwrap(Adam.step)  # without the hooks that torch puts around it; AdamO.step has its own
Pulls = list[tuple[Tensor, Tensor]]  # weights, each with a tensor of its shape


def adamo_update(
    W: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    lr: float = 1e-3,
    strength: float = 1e-3,
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
            Adam. The printed value is 1e-3; most of our runs took far more (chapter on the strength of the pull).
        isometry_lr: step size of the isometry term; None follows lr and its schedule.
        isometry_every: k applies k times the strength on every k-th call: 1/k of the work, the same flow to 1st order.
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
        isometry_strength: float | Tensor = 1e-3,
        isometry_lr: float | Tensor | None = None,
        isometry_every: int = 1,
        coupled: bool = False,
        batch_dims: int = 0,
        **adam_options: Any,
    ):
        if isinstance(params, nn.Module):
            require_type("params", params, (), "parameters or groups, e.g. AdamO(isometry_groups(model))")
        require_keys("AdamO", adam_options, (*OPTIONS, *ADAM_OPTIONS))
        super().__init__(params, lr, *adam, **adam_options)
        self._step_supports_amp_scaling = False  # GradScaler then unscales and skips whole steps, isometry included
        values = (isometry_strength, isometry_lr, isometry_every, coupled, batch_dims)
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
        for name, default in (*((name, self.defaults[name]) for name in OPTIONS), ("isometry_calls", 0)):
            group.setdefault(name, present.get(name, default))
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
        decoupled, coupled = self._pulls()
        self._adam(coupled)
        for p, pull in decoupled:
            p.sub_(pull)
        for group in self.param_groups:
            group["isometry_calls"] += any(p.grad is not None for p in group["params"])
        return loss

    def _pulls(self) -> tuple[Pulls, Pulls]:
        """What to subtract from weights after Adam's step, and what to add to gradients before it; checked."""
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):  # Grams in full precision
            due = [(group, self._due(group)) for group in self.param_groups]
            self._check([bucket for group, found in due if not group["coupled"] for bucket in found])
            decoupled: Pulls = []
            coupled: Pulls = []
            for group, found in due:
                for p, pull in (pair for bucket in found for pair in bucket.displacements()):
                    if not group["coupled"]:
                        decoupled.append((p, pull))
                    else:  # maximize flips the whole gradient; the penalty is always minimised
                        coupled.append((p, -pull if group["maximize"] else pull))
        return decoupled, coupled

    def _adam(self, added: Pulls) -> None:
        """torch's own Adam step, with something added to some gradients while it runs; `p.grad` itself stays."""
        kept: list[Any] = [p.grad for p, _ in added]
        try:
            for (p, pull), grad in zip(added, kept, strict=True):
                p.grad = grad + pull
            ADAM_STEP(self)
        finally:
            for (p, _), grad in zip(added, kept, strict=True):
                p.grad = grad

    def _due(self, group: dict[str, Any]) -> list[Bucket]:
        """The buckets to apply in this call; none where the turn has not come."""
        if group["isometry_every"] > 1 and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"isometry_every={group['isometry_every']} cannot be captured in a CUDA graph: a replay would repeat "
                "one call's choice; use 1, or keep the step out of the graph"
            )
        if (group["isometry_calls"] + 1) % group["isometry_every"]:
            return []
        return self._buckets(group, [p for p in group["params"] if p.grad is not None])

    def _buckets(self, group: dict[str, Any], params: Sequence[Tensor]) -> list[Bucket]:
        """The regularised ones of `params` with the full scale of one application; none where the strength is 0."""
        strength, batch_dims = group["isometry_strength"], group["batch_dims"]
        if not isinstance(strength, Tensor) and strength == 0:
            return []
        scale = strength * group["isometry_every"]
        if not group["coupled"]:
            lr = group["lr"] if group["isometry_lr"] is None else group["isometry_lr"]
            scale = scale * (lr.reshape(()) if isinstance(lr, Tensor) else lr)
        real = [p for p in params if p.ndim >= batch_dims + 2 and p.is_floating_point() and p.numel()]
        return buckets(real, scale, batch_dims)

    def _check(self, due: list[Bucket]) -> None:
        """Look at upper bounds (one host synchronisation), and closely only where one of them passes its limit."""
        if not due or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
            return
        flags = [bucket.suspicious().any().to(due[0].W.device) for bucket in due]
        if torch.stack(flags).any():
            for bucket in due:
                bucket.raise_if_divergent()

    @torch.no_grad()
    def check_stability(self) -> None:
        """Raise IsometryDivergenceError now if the next isometry step would diverge, gradients or not; synchronises."""
        for group in self.param_groups:
            if not group["coupled"]:
                for bucket in self._buckets(group, group["params"]):
                    bucket.raise_if_divergent()


def check_options(group: dict[str, Any]) -> None:
    """Refuse a parameter group whose isometry options are out of range.

    Args:
        group: with all of OPTIONS, "params" and "lr".
    Raises:
        ValueError: names the option, its value and what is allowed.
    """
    strength, own_lr, batch_dims = group["isometry_strength"], group["isometry_lr"], group["batch_dims"]
    require_keys("a parameter group", (key for key in group if key.startswith("iso")), (*OPTIONS, "isometry_calls"))
    require_number("isometry_strength", strength)
    require_range("isometry_every", group["isometry_every"], 1)
    require_range("batch_dims", batch_dims, 0)
    if isinstance(strength, Tensor) and strength.ndim:
        wrong = [p for p in group["params"] if p.ndim >= batch_dims + 2 and p.shape[:batch_dims] != strength.shape]
        if wrong or strength.ndim != batch_dims:
            found = f" and weights of shape {tuple(wrong[0].shape)}" if wrong else ""
            raise ValueError(
                f"isometry_strength of shape {tuple(strength.shape)} does not fit batch_dims={batch_dims}{found}"
            )
    if own_lr is not None:
        if group["coupled"]:
            raise ValueError(f"isometry_lr={own_lr} has no meaning with coupled=True: the penalty goes through Adam")
        require_shape(not isinstance(own_lr, Tensor) or own_lr.numel() == 1, "isometry_lr", own_lr, "one number")
        require_number("isometry_lr", own_lr)
    if not group["coupled"]:
        lr = float(group["lr"] if own_lr is None else own_lr)
        c = float(torch.as_tensor(strength).max()) * group["isometry_every"] * lr
        if c >= 0.25:
            raise ValueError(
                f"isometry_lr * isometry_strength * isometry_every = {c:.4g}; it must be below 1/4, "
                "or the step overshoots and no singular value settles at 1"
            )


def require_number(name: str, value: Any) -> None:
    """Raise ValueError unless a number, or every entry of a tensor, is finite and at least 0.

    >>> require_number("isometry_strength", torch.tensor([0.1, -1.0]))
    Traceback (most recent call last):
    ValueError: isometry_strength=-1.0; it must be a number from 0 to inf
    """
    for number in value.flatten().tolist() if isinstance(value, Tensor) else [value]:
        require_range(name, number, 0, kind=float)


def isometry_groups(model: nn.Module, head: str | Sequence[str] = "exclude", **options: Any) -> list[dict[str, Any]]:
    """Split a model's parameters for AdamO: matrices and kernels with the penalty, all else plain Adam.

    Regularised are the weights of Linear layers and ordinary convolutions. All else is plain Adam: biases, norms,
    embeddings, bare parameters such as position codes, parametrised weights (orthogonal by construction), grouped and
    transposed convolutions (their reshaped kernel is not the map's matrix), and the head, which the paper leaves
    unrestricted in Lipschitz nets and the authors' code leaves out everywhere.

    Args:
        model: any module.
        head: "exclude" (the last Linear or convolution in registration order), "include", or the module names of the
            heads, e.g. ["actor.head", "critic.head"].
        options: put into the regularised group, e.g. isometry_strength=0.01.
    Returns:
        Two groups: regularised, and plain (isometry_strength 0).
    Raises:
        TypeError: parameters in place of a module.
        ValueError: an unknown head name or option, or no matrix to regularise.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [sum(p.numel() for p in g["params"]) for g in isometry_groups(net)]
    [32, 26]
    """
    require_type("model", model, nn.Module, "a module, not its parameters: isometry_groups(model)")
    require_keys("isometry_groups", options, (*OPTIONS, *ADAM_OPTIONS))
    modules = dict(model.named_modules())
    layers = [n for n, m in modules.items() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    require_type("head", head, (str, Sequence), "'exclude', 'include', or names of modules")
    if isinstance(head, str) and head in ("exclude", "include"):
        heads = set(layers[-1:]) if head == "exclude" else set()
    else:
        heads = {head} if isinstance(head, str) else set(head)
    for name in sorted(heads):
        if name not in modules:
            require("head", name, ("exclude", "include", *layers))
    pulled_ids = {id(m.weight) for n, m in modules.items() if n not in heads and is_regularised(m)}
    pulled = [p for p in model.parameters() if id(p) in pulled_ids]
    if not pulled:
        raise ValueError("the model has no Linear or convolution weight outside its head; nothing to regularise")
    rest = [p for p in model.parameters() if id(p) not in pulled_ids]
    return [{"params": pulled, **options}, {"params": rest, "isometry_strength": 0.0}]


def is_regularised(module: nn.Module) -> bool:
    """Whether a module's weight, reshaped to (out, in*k*...), is the matrix that acts on its (patches of) inputs.

    >>> is_regularised(nn.Linear(2, 3)), is_regularised(nn.ConvTranspose2d(2, 3, 3)), is_regularised(nn.Embedding(2, 3))
    (True, False, False)
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return not module.transposed and module.groups == 1 and not is_parametrized(module)
    return isinstance(module, nn.Linear) and not is_parametrized(module)
