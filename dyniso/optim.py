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
            scale = scale.expand(self.W.shape[0]) if scale.ndim == 0 else scale.flatten().repeat(len(weights))
        self.scale = scale

    def displacements(self) -> list[Tensor]:
        """scale * grad R for each weight, in the weight's own shape and dtype."""
        step = gram_deviation_grad(self.W, self.gram)
        step.mul_(self.scale[:, None, None] if isinstance(self.scale, Tensor) else self.scale)
        return [
            s.reshape(w.shape).to(w.dtype) for s, w in zip(step.chunk(len(self.weights)), self.weights, strict=True)
        ]

    def limit(self) -> float | Tensor:
        """Largest sigma^2 from which the explicit step does not grow: 1 + 1/(2 scale), shape () or (b,)."""
        if isinstance(self.scale, Tensor):
            return 1 + 0.5 / self.scale
        return 1 + 0.5 / self.scale if self.scale else float("inf")

    def excess(self) -> Tensor:
        """An upper bound of max sigma^2/limit over the bucket, from the row sums of the Gram; shape ()."""
        return (self.gram.abs().sum(-1).amax(-1) / self.limit()).amax()

    def raise_if_divergent(self) -> None:
        """Raise RuntimeError with numbers if a largest singular value is really beyond the limit. Synchronises."""
        finite = torch.isfinite(self.gram).all(-1).all(-1)
        if not finite.any():
            return  # NaN from the task itself is not this step's doing
        limit = torch.as_tensor(self.limit(), dtype=self.gram.dtype, device=self.gram.device).expand(len(self.gram))
        top = torch.linalg.eigvalsh(self.gram[finite])[:, -1]
        worst = int((top / limit[finite]).argmax())
        sigma2, allowed = float(top[worst]), float(limit[finite][worst])
        if sigma2 > allowed:
            raise RuntimeError(
                f"the isometry step would diverge: a weight of shape {tuple(self.weights[0].shape)} has "
                f"sigma_max^2 = {sigma2:.4g}, above the limit 1 + 1/(2c) = {allowed:.4g} at "
                f"c = isometry_lr * isometry_strength * isometry_every = {0.5 / (allowed - 1):.4g}. No parameter was "
                "changed by this step; lower one of the three factors, or start from smaller weights"
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
            as `torch.optim.Adam`, whose implementation does the Adam part.
        isometry_strength: lambda of eq. 20, at least 0; a number, or a tensor of the batch shape. 0 is bitwise
            Adam. The printed value is 1e-3; useful values grow with lr * width (see the book's chapter on AdamO).
        isometry_lr: step size of the isometry term; None follows lr and its schedule.
        isometry_every: k applies k times the strength on every k-th call: 1/k of the work, the same flow to 1st order.
        coupled: add strength * grad R to the gradient that Adam sees instead, for comparison; `p.grad` stays as it is.
        batch_dims: leading axes that index independent runs; then one axis is a vector, two a matrix, more a kernel.
    Raises:
        ValueError: an option out of range, or c = isometry_lr * strength * every at or above 1/4, where sigma = 1 is
            no longer a stable point of the step.
        RuntimeError: from `step`, before that step changes anything: sigma_max^2 > 1 + 1/(2c), where the explicit step
            diverges. On CUDA the check reads the previous application's numbers, so that nothing waits for the device;
            inside a graph capture it is off (call `check_stability` yourself).
    Source: arXiv 2606.09762, eqs. 16, 19, 20 (gradient factor 4; the authors' RL code uses 2).

    >>> layer = nn.Linear(4, 4)
    >>> optimizer = AdamO(layer.parameters(), lr=1e-3, isometry_strength=1e-2)
    >>> layer(torch.ones(1, 4)).sum().backward(); optimizer.step()
    """

    _watch: tuple[Tensor, torch.cuda.Event] | None = None  # the last application's excess, on its way to the host

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
        """As `torch.optim.Optimizer.add_param_group`; isometry options of the group are checked before it is added."""
        if OPTIONS[0] in self.defaults:
            self._complete(param_group)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._watch = None
        for group in self.param_groups if OPTIONS[0] in self.defaults else ():
            self._complete(group)  # a plain Adam state dict takes this optimizer's isometry options

    def _complete(self, group: dict[str, Any]) -> None:
        for name in OPTIONS:
            group.setdefault(name, self.defaults[name])
        group.setdefault("isometry_calls", 0)
        check_options(group, self.defaults["lr"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: re-evaluates the model and returns the loss.
        Returns:
            The closure's value, or None.
        Raises:
            RuntimeError: the isometry step would diverge (see the class); no parameter is changed then.
        """
        health = "_accelerator_graph_capture_health_check"  # its name since torch 2.12
        getattr(self, health if hasattr(self, health) else "_cuda_graph_capture_health_check")()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        due = [self._due(group) for group in self.param_groups]
        self._check([b for bs, group in zip(due, self.param_groups, strict=True) if not group["coupled"] for b in bs])
        for group, bs in zip(self.param_groups, due, strict=True):
            group["isometry_calls"] += 1
            steps = {id(w): step for b in bs for w, step in zip(b.weights, b.displacements(), strict=True)}
            self._adam(group, steps if group["coupled"] else {})
            if steps and not group["coupled"]:
                pulled = [p for p in group["params"] if id(p) in steps]
                torch._foreach_sub_(pulled, [steps[id(p)] for p in pulled])
        return loss

    def _due(self, group: dict[str, Any]) -> list[Bucket]:
        """The buckets to apply in this call; none where the strength is 0 or the turn has not come."""
        strength, every = group["isometry_strength"], group["isometry_every"]
        if every > 1 and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"isometry_every={every} cannot be captured in a CUDA graph: it would repeat one call's choice"
            )
        off = not isinstance(strength, Tensor) and strength == 0
        if off or (group["isometry_calls"] + 1) % every:
            return []
        lr = group["lr"] if group["isometry_lr"] is None else group["isometry_lr"]
        scale = strength * every if group["coupled"] else strength * every * lr
        matrices = [p for p in group["params"] if p.grad is not None and p.ndim >= group["batch_dims"] + 2]
        return buckets(matrices, scale, group["batch_dims"])

    def _adam(self, group: dict[str, Any], added: dict[int, Tensor]) -> None:
        """torch's own Adam update of one group, with `added[id(p)]` on top of p.grad."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        exp_avgs: list[Tensor] = []
        exp_avg_sqs: list[Tensor] = []
        max_exp_avg_sqs: list[Tensor] = []
        steps: list[Tensor] = []
        complex_ = self._init_group(group, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps)
        sign = (
            -1 if group["maximize"] else 1
        )  # maximize flips the whole gradient; the penalty is minimised all the same
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
        if not due or (due[0].W.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        by_device = defaultdict(list)
        for b in due:
            by_device[b.W.device].append(b.excess())
        worst = torch.stack([torch.stack(x).amax().to(due[0].W.device) for x in by_device.values()]).amax()
        if not worst.is_cuda or self._watch is None:
            suspicious = bool(worst > 1)
        else:
            value, ready = self._watch
            ready.synchronize()
            suspicious = bool(value > 1)
        if suspicious:
            for b in due:
                b.raise_if_divergent()
        if worst.is_cuda:
            ready = torch.cuda.Event()
            value = torch.empty((), dtype=worst.dtype, pin_memory=True).copy_(worst, non_blocking=True)
            ready.record()
            self._watch = (value, ready)

    @torch.no_grad()
    def check_stability(self) -> None:
        """Raise RuntimeError now if the next due isometry step would diverge; synchronises with the device."""
        for group in self.param_groups:
            if not group["coupled"]:
                for bucket in self._due({**group, "isometry_calls": group["isometry_every"] - 1}):
                    bucket.raise_if_divergent()


def check_options(group: dict[str, Any], default_lr: float | Tensor) -> None:
    """Raise ValueError for a group whose isometry options are out of range; names value and what is allowed."""
    strength, every, batch_dims = group["isometry_strength"], group["isometry_every"], group["batch_dims"]
    if not (torch.as_tensor(strength) >= 0).all():
        raise ValueError(f"isometry_strength={strength}; it must be at least 0")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"isometry_every={every!r}; it must be a whole number, at least 1")
    if not isinstance(batch_dims, int) or batch_dims < 0:
        raise ValueError(f"batch_dims={batch_dims!r}; it must be a whole number, at least 0")
    if isinstance(strength, Tensor) and strength.ndim not in (0, batch_dims):
        raise ValueError(f"isometry_strength of shape {tuple(strength.shape)} does not fit batch_dims={batch_dims}")
    own_lr = group["isometry_lr"]
    if own_lr is not None and group["coupled"]:
        raise ValueError(f"isometry_lr={own_lr} has no meaning with coupled=True: the penalty goes through Adam's step")
    if own_lr is not None and not own_lr >= 0:
        raise ValueError(f"isometry_lr={own_lr}; it must be at least 0")
    lr = group.get("lr", default_lr) if own_lr is None else own_lr
    if not group["coupled"]:
        c = float(torch.as_tensor(strength).max()) * every * float(lr)
        if c >= 0.25:
            raise ValueError(
                f"isometry_lr * isometry_strength * isometry_every = {c:.4g}; it must be below 1/4, "
                "or the step overshoots and no singular value settles at 1"
            )


def isometry_groups(model: nn.Module, head: str | Sequence[str] = "exclude", **options: Any) -> list[dict[str, Any]]:
    """Split a model's parameters for AdamO: matrices and kernels with the penalty, all else plain Adam.

    Biases, norm layers, embeddings and parametrised weights (orthogonal by construction) are plain Adam; so is the
    head, which the paper leaves unrestricted in Lipschitz nets and the authors' code leaves out everywhere.

    Args:
        model: any module.
        head: "exclude" (the last Linear or convolution in registration order), "include", or the module names of the
            heads, e.g. ["actor.head", "critic.head"].
        options: put into the regularised group, e.g. isometry_strength=0.01.
    Returns:
        Two groups: regularised, and plain (isometry_strength 0).
    Raises:
        ValueError: an unknown head name, or no matrix to regularise.

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
    plain_kinds = (
        nn.Embedding,
        nn.EmbeddingBag,
        nn.LayerNorm,
        nn.GroupNorm,
        nn.RMSNorm,
        nn.modules.batchnorm._BatchNorm,
    )
    plain_modules = [m for n, m in modules.items() if n in heads or isinstance(m, plain_kinds) or is_parametrized(m)]
    plain_ids = {id(p) for m in plain_modules for p in m.parameters()}
    parameters = list(model.parameters())
    pulled = [p for p in parameters if p.ndim >= 2 and id(p) not in plain_ids]
    if not pulled:
        raise ValueError("the model has no matrix or kernel outside head, embeddings and norms; nothing to regularise")
    pulled_ids = {id(p) for p in pulled}
    rest = [p for p in parameters if id(p) not in pulled_ids]
    return [{"params": pulled, **options}, {"params": rest, "isometry_strength": 0.0}]
