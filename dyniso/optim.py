"""AdamO: Adam on the task gradient, plus a decoupled pull of every weight matrix towards an isometry.

    m, v   <- Adam's moments of the task gradient alone                                   (eq. 19)
    theta  <- theta - lr mhat/(sqrt(vhat) + eps) - isometry_lr * strength * grad R(theta)  (eq. 20)

with R the Gram penalty of `dyniso.isometry.gram_deviation`, evaluated before the Adam step. This is the AdamO of
arXiv 2606.09762 (Rosseau, Mueller, Nowe, ICML 2026). Another optimizer of that name, arXiv 2602.05136, is unrelated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.adam import Adam, adam

from .checks import nearest
from .isometry import as_matrix, gram_deviation_grad, smaller_gram

OPTIONS = ("isometry_strength", "isometry_lr", "isometry_every", "coupled", "batch_dims")
ADAM_OPTIONS = (
    "amsgrad",
    "lr",
    "weight_decay",
    "eps",
    "maximize",
    "foreach",
    "capturable",
    "differentiable",
    "fused",
    "decoupled_weight_decay",
)
GROUP_OPTIONS = (*OPTIONS, *ADAM_OPTIONS, "betas")


class IsometryDivergenceError(RuntimeError):
    """The explicit isometry step would diverge. `runs`: positions of the runs concerned, flat over the batch axes."""

    def __init__(self, message: str, runs: list[int]):
        super().__init__(message)
        self.runs = runs


class Bucket:
    """All matrices of one shape, dtype and device as one batch (b, out, in), with their Grams.

    `scale` is a number, or one value a matrix of shape (b,).
    """

    def __init__(self, weights: Sequence[Tensor], scale: float | Tensor, batch_dims: int):
        self.weights = weights
        mats = [as_matrix(w.detach(), batch_dims) for w in weights]
        self.W = torch.stack(mats).flatten(0, batch_dims) if len(mats) > 1 or batch_dims != 1 else mats[0]
        if self.W.dtype in (torch.float16, torch.bfloat16):  # a half-precision Gram would be noise of size 1e-3
            self.W = self.W.float()
        self.gram = smaller_gram(self.W)
        if isinstance(scale, Tensor):
            scale = scale.to(self.W)
            scale = scale.flatten().repeat(len(weights)) if scale.ndim else scale.expand(len(self.W))
        self.scale = scale

    def displacements(self) -> list[Tensor]:
        """scale * grad R for each weight, in the weight's own shape and dtype."""
        step = gram_deviation_grad(self.W, self.gram)
        if isinstance(self.scale, Tensor):
            step.mul_(self.scale[:, None, None]).masked_fill_((self.scale == 0)[:, None, None], 0)  # not 0 * inf
        else:
            step.mul_(self.scale)
        parts = step.chunk(len(self.weights))
        return [part.reshape(w.shape).to(w.dtype) for part, w in zip(parts, self.weights, strict=True)]

    def limit(self) -> Tensor:
        """Largest sigma^2 that the step does not throw further out: 1 + 1/(2 scale), 0 from 1/4 on. Shape (b,)."""
        scale = torch.as_tensor(self.scale, dtype=self.gram.dtype, device=self.gram.device).expand(len(self.W))
        return torch.where(scale < 0.25, 1 + 0.5 / scale, 0.0)

    def suspicious(self) -> Tensor:
        """Where an upper bound of sigma_max^2, by row sums or norm of the Gram, is not within the limit; (b,), bool."""
        bound = torch.minimum(self.gram.abs().sum(-1).amax(-1), torch.linalg.matrix_norm(self.gram))
        return ~(bound <= self.limit())

    def raise_if_divergent(self) -> None:
        """Raise IsometryDivergenceError, with numbers, if a sigma_max^2 really passes its limit. Synchronises."""
        finite = torch.isfinite(self.W).flatten(1).all(1)  # NaN from the task itself is not this step's doing
        if not (self.suspicious() & finite).any():
            return
        whole = torch.isfinite(self.gram).flatten(1).all(1)  # the Gram of finite weights may overflow
        top = torch.linalg.eigvalsh(torch.where(whole[:, None, None], self.gram, 0.0))[:, -1]
        top, limit = torch.where(whole, top, torch.inf), self.limit()
        over = finite & (top > limit)
        if not over.any():
            return
        indices = over.nonzero().flatten().tolist()
        worst = max(indices, key=lambda i: float(top[i] / limit[i]))
        per_weight = len(self.W) // len(self.weights)
        c = float(torch.as_tensor(self.scale).expand(len(self.W))[worst])
        where = f"a weight of shape {tuple(self.weights[worst // per_weight].shape)}"
        where += f", run {worst % per_weight}," if per_weight > 1 else ""
        reason = "c must be below 1/4, or no singular value settles at 1"
        if c < 0.25:
            reason = f"the limit is sigma_max^2 = 1 + 1/(2c) = {float(limit[worst]):.4g}"
        raise IsometryDivergenceError(
            f"the isometry step would diverge: {where} has sigma_max^2 = {float(top[worst]):.4g} at "
            f"c = isometry_lr * isometry_strength * isometry_every = {c:.4g}; {reason}. No parameter was changed by "
            "this step; lower one of the three factors, or start from smaller weights",
            sorted({i % per_weight for i in indices}),
        )


def buckets(weights: Iterable[Tensor], scale: float | Tensor, batch_dims: int = 0) -> list[Bucket]:
    """Group weights that can share one batched call (same shape, dtype, device)."""
    by_kind: dict[Any, list[Tensor]] = defaultdict(list)
    for w in weights:
        by_kind[w.shape, w.dtype, w.device].append(w)
    return [Bucket(same, scale, batch_dims) for same in by_kind.values()]


def isometry_step(weights: Sequence[Tensor], scale: float | Tensor, batch_dims: int = 0) -> list[Tensor]:
    """The decoupled displacement scale * grad R(W) for each weight; nothing is modified.

    Args:
        weights: matrices (*batch, out, in) or kernels (*batch, out, in, k, ...), e.g. [(512, 784), (512, 512)].
        scale: isometry_lr * strength * every: a number, or a tensor of the batch shape (one value a run).
        batch_dims: leading axes that index independent runs.
    Returns:
        One tensor a weight, in order, same shapes and dtypes. One batched product pair for each distinct shape.
    Raises:
        ValueError: a weight with fewer than batch_dims + 2 axes.
    Source: arXiv 2606.09762, second term of eq. 20.

    >>> isometry_step([2 * torch.eye(2)], 0.1)[0]
    tensor([[2.4000, 0.0000],
            [0.0000, 2.4000]])
    """
    found = {}
    for bucket in buckets(weights, scale, batch_dims):
        for w, step in zip(bucket.weights, bucket.displacements(), strict=True):
            found[id(w)] = step
    return [found[id(w)] for w in weights]


class AdamO(Adam):
    """Adam with a decoupled isometry step (eqs. 19 and 20); drop-in for `torch.optim.Adam`.

    Args:
        params: parameters or groups. Given bare `model.parameters()`, every matrix and every kernel is regularised,
            the output head too; `isometry_groups` leaves out head, embeddings and norms. Vectors get plain Adam.
        lr, betas, eps, weight_decay, amsgrad, foreach, maximize, capturable, fused, decoupled_weight_decay:
            as `torch.optim.Adam`, whose implementation does the Adam part (its `differentiable` is not offered).
        isometry_strength: lambda of eq. 20, at least 0; a number, or a tensor of the batch shape. 0 is bitwise
            Adam. The printed value is 1e-3; useful values grow with lr * width (see the book's chapter on AdamO).
        isometry_lr: step size of the isometry term; None follows lr and its schedule.
        isometry_every: k applies k times the strength on every k-th call: 1/k of the work, the same flow to 1st order.
        coupled: add strength * grad R to the gradient that Adam sees instead, for comparison; `p.grad` stays as it is.
        batch_dims: leading axes that index independent runs; then one axis is a vector, two a matrix, more a kernel.
    Raises:
        ValueError: an option out of range, or c = isometry_lr * strength * every at or above 1/4, where sigma = 1 is
            no longer a stable point of the step.
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
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        isometry_strength: float | Tensor = 1e-3,
        isometry_lr: float | Tensor | None = None,
        isometry_every: int = 1,
        coupled: bool = False,
        batch_dims: int = 0,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        self._step_supports_amp_scaling = False  # GradScaler then unscales and skips whole steps, isometry included
        values = (isometry_strength, isometry_lr, isometry_every, coupled, batch_dims)
        self.defaults.update(zip(OPTIONS, values, strict=True))
        for group in self.param_groups:
            self._complete(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As `torch.optim.Optimizer.add_param_group`; a group with a bad isometry option is not added."""
        super().add_param_group(param_group)
        if OPTIONS[0] in self.defaults:
            try:
                self._complete(self.param_groups[-1])
            except ValueError:
                self.param_groups.pop()
                raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `torch.optim.Optimizer.load_state_dict`; what a plain Adam's state lacks keeps its present value."""
        groups = state_dict["param_groups"]
        if len(groups) == len(self.param_groups):
            own = [{name: group[name] for name in (*OPTIONS, "isometry_calls")} for group in self.param_groups]
            groups = [{**mine, **saved} for mine, saved in zip(own, groups, strict=True)]
            for mine, saved in zip(self.param_groups, groups, strict=True):
                check_options({**saved, "params": mine["params"]})
        super().load_state_dict({**state_dict, "param_groups": groups})

    def _complete(self, group: dict[str, Any]) -> None:
        """Fill in a group's isometry options and check them."""
        for name in OPTIONS:
            group.setdefault(name, self.defaults[name])
        group.setdefault("isometry_calls", 0)
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
        health = "_accelerator_graph_capture_health_check"  # earlier torch has the name in the second line only
        getattr(self, health if hasattr(self, health) else "_cuda_graph_capture_health_check")()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):  # Grams in full precision
            due = [self._due(group) for group in self.param_groups]
            pairs = list(zip(self.param_groups, due, strict=True))
            self._check([bucket for group, found in pairs if not group["coupled"] for bucket in found])
            for group, found in pairs:
                group["isometry_calls"] += any(p.grad is not None for p in group["params"])
                steps = {id(w): d for b in found for w, d in zip(b.weights, b.displacements(), strict=True)}
                self._adam(group, steps if group["coupled"] else {})
                if steps and not group["coupled"]:
                    pulled = [p for p in group["params"] if id(p) in steps]
                    torch._foreach_sub_(pulled, [steps[id(p)] for p in pulled])
        return loss

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

    def _adam(self, group: dict[str, Any], added: dict[int, Tensor]) -> None:
        """torch's own Adam update of one group, with `added[id(p)]` on top of p.grad."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        exp_avgs: list[Tensor] = []
        exp_avg_sqs: list[Tensor] = []
        max_exp_avg_sqs: list[Tensor] = []
        steps: list[Tensor] = []
        complex_ = self._init_group(group, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps)
        sign = -1 if group["maximize"] else 1  # maximize flips the whole gradient; the penalty is always minimised
        grads = [g + sign * added[id(p)] if id(p) in added else g for p, g in zip(params, grads, strict=True)]
        adam(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            max_exp_avg_sqs,
            steps,
            has_complex=complex_,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            **{name: group[name] for name in ADAM_OPTIONS},
        )

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
    """Raise ValueError for a group whose isometry options are out of range; names value and what is allowed."""
    strength, every, batch_dims = group["isometry_strength"], group["isometry_every"], group["batch_dims"]
    for key in group:
        if key.startswith("iso") and key not in (*OPTIONS, "isometry_calls"):
            raise ValueError(f"unknown option {key!r} of a parameter group; {nearest(key, OPTIONS)}")
    if not (torch.as_tensor(strength) >= 0).all():
        raise ValueError(f"isometry_strength={strength}; it must be at least 0")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"isometry_every={every!r}; it must be a whole number, at least 1")
    if not isinstance(batch_dims, int) or batch_dims < 0:
        raise ValueError(f"batch_dims={batch_dims!r}; it must be a whole number, at least 0")
    if isinstance(strength, Tensor) and strength.ndim:
        wrong = [p for p in group["params"] if p.ndim >= batch_dims + 2 and p.shape[:batch_dims] != strength.shape]
        if wrong or strength.ndim != batch_dims:
            found = f" and weights of shape {tuple(wrong[0].shape)}" if wrong else ""
            raise ValueError(
                f"isometry_strength of shape {tuple(strength.shape)} does not fit batch_dims={batch_dims}{found}"
            )
    own_lr = group["isometry_lr"]
    if own_lr is not None and group["coupled"]:
        raise ValueError(f"isometry_lr={own_lr} has no meaning with coupled=True: the penalty goes through Adam's step")
    if isinstance(own_lr, Tensor) and own_lr.numel() != 1:
        raise ValueError(f"isometry_lr of shape {tuple(own_lr.shape)}; it must be one number")
    if own_lr is not None and not own_lr >= 0:
        raise ValueError(f"isometry_lr={own_lr}; it must be at least 0")
    if not group["coupled"]:
        c = float(torch.as_tensor(strength).max()) * every * float(group["lr"] if own_lr is None else own_lr)
        if c >= 0.25:
            raise ValueError(
                f"isometry_lr * isometry_strength * isometry_every = {c:.4g}; it must be below 1/4, "
                "or the step overshoots and no singular value settles at 1"
            )


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
        ValueError: an unknown head name or option, or no matrix to regularise.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [sum(p.numel() for p in g["params"]) for g in isometry_groups(net)]
    [32, 26]
    """
    modules = dict(model.named_modules())
    layers = [n for n, m in modules.items() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    if isinstance(head, str) and head in ("exclude", "include"):
        heads = set(layers[-1:]) if head == "exclude" else set()
    else:
        heads = {head} if isinstance(head, str) else set(head)
    unknown = heads - modules.keys()
    if unknown:
        raise ValueError(
            f"head={sorted(unknown)} is not a module of this model; allowed are 'exclude', 'include', {layers}"
        )
    pulled_ids = {id(m.weight) for n, m in modules.items() if n not in heads and is_regularised(m)}
    pulled = [p for p in model.parameters() if id(p) in pulled_ids]
    if not pulled:
        raise ValueError("the model has no Linear or convolution weight outside its head; nothing to regularise")
    for name in options:
        if name not in GROUP_OPTIONS:
            raise ValueError(f"unknown option {name!r}; {nearest(name, GROUP_OPTIONS)}")
    rest = [p for p in model.parameters() if id(p) not in pulled_ids]
    return [{"params": pulled, **options}, {"params": rest, "isometry_strength": 0.0}]


def is_regularised(module: nn.Module) -> bool:
    """Whether a module's weight, reshaped to (out, in*k*...), is the matrix that acts on its (patches of) inputs."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return not module.transposed and module.groups == 1 and not is_parametrized(module)
    return isinstance(module, nn.Linear) and not is_parametrized(module)
