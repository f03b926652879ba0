"""Methods that add a penalty to the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checks import require_range
from ..isometry import effective_rank
from .attached import Attached
from .base import Baseline, require_positive
from .layers import is_frozen, times


@dataclass(frozen=True)
class L2(Baseline, name="l2"):
    """strength/2 * |theta|^2 over weights and biases, in the loss.

    Args:
        strength: lambda >= 0; 1e-5 to 1e-2 in the sweeps of Kumar et al. 2023.
        biases: whether biases are penalised. head: whether the head is.
    Source: Kumar, Marklund & Van Roy 2023 (arXiv 2308.11958).
    """

    strength: float = 1e-3
    biases: bool = True
    head: bool = True

    def check(self) -> None:
        require_positive(self, "strength")

    @property
    def acts_on(self) -> str:
        return "all" if self.head else "hidden"

    def penalised(self, net: Attached) -> Iterator[Tensor]:
        """The parameters that it pulls."""
        return net.parameters(net.layers if self.head else net.hidden, self.biases)

    def penalty(self, net: Attached) -> Tensor:
        return self.strength / 2 * sum((net.sum_squares(p) for p in self.penalised(net)), net.zero())


@dataclass(frozen=True)
class L2Init(L2, name="l2_init"):
    """strength/2 * |theta - theta_0|^2 over weights and biases, theta_0 the values before the first step.

    Args:
        strength: lambda >= 0; 1e-2 was best on four of five problems of the source.
        biases, head: as in `L2`. The AdamO authors' RL baseline leaves out both and has no factor 1/2: their .001 is
            strength .002 here.
    Source: Kumar, Marklund & Van Roy 2023 (arXiv 2308.11958). Variants that average over the entries of a tensor, or
        anchor after the first step, are other methods.
    """

    strength: float = 1e-2

    def penalty(self, net: Attached) -> Tensor:
        distances = (net.sum_squares(p - net.initial[id(p)]) for p in self.penalised(net))
        return self.strength / 2 * sum(distances, net.zero())


@dataclass(frozen=True)
class SpectralPenalty(Baseline, name="spectral_penalty"):
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

    def check(self) -> None:
        require_positive(self, "strength")
        require_range("SpectralPenalty.iterations", self.iterations, 1)
        require_range("SpectralPenalty.power", self.power, 1)

    @property
    def acts_on(self) -> str:
        return "all" if self.head else "hidden"

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
            W, u = layer.weight.flatten(net.batch_dims + 1), net.state["left"][index][..., None]
            v = unit_vector(times(W.mT, u[..., 0])[..., None], torch.zeros_like(W[..., :1, :].mT))
            net.state["left"][index] = unit_vector(times(W, v[..., 0])[..., None], u)[
                ..., 0
            ]  # where W is zero, v waits
            right.append(v)
        return right

    def sigmas(self, net: Attached) -> dict[str, Tensor]:
        """The largest singular value of each layer by its name, (*runs,); the vectors are brought up to date."""
        for _ in range(self.iterations):
            right = self.iterate(net)
        left = net.state["left"]
        weights = [layer.weight.flatten(net.batch_dims + 1) for layer in net.layers]
        found = [(u * times(W, v[..., 0])).sum(-1) for u, W, v in zip(left, weights, right, strict=True)]
        return dict(zip([layer.name for layer in net.layers], found, strict=True))

    def penalty(self, net: Attached) -> Tensor:
        sigmas, total = self.sigmas(net), net.zero()
        for layer in net.layers if self.head else net.hidden:
            if not is_frozen(layer.weight):
                total = total + (sigmas[layer.name] ** self.power - 1).square()
            if self.biases and layer.bias is not None and not is_frozen(layer.bias):
                total = total + net.sum_squares(layer.bias) ** self.power
        return self.strength * total


@dataclass(frozen=True)
class Parseval(Baseline, name="parseval"):
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

    def check(self) -> None:
        require_positive(self, "strength", "target")

    def penalty(self, net: Attached) -> Tensor:
        total = net.zero()
        for layer in [hidden for hidden in net.hidden if not is_frozen(hidden.weight)]:
            W = layer.weight.flatten(net.batch_dims + 1)
            eye = torch.eye(W.shape[-2], dtype=W.dtype, device=W.device)
            total = total + net.sum_squares(W @ W.mT - self.target * eye)
        return self.strength * total


@dataclass(frozen=True)
class FeatureRank(Baseline, name="feature_rank"):
    """L2-ER: strength/2 |theta|^2 - rank_strength * log(effective rank of the last hidden features), in the loss.

    The two ingredients are the source's; this form and its constants are ours.

    Args:
        strength: of the L2 part. rank_strength: of the rank part, on each minibatch.
    Source: He et al. 2025 (arXiv 2509.22335), by its abstract.
    """

    strength: float = 1e-4
    rank_strength: float = 1e-2

    def check(self) -> None:
        require_positive(self, "strength", "rank_strength")

    @property
    def reads_features(self) -> bool:
        return True

    def penalty(self, net: Attached) -> Tensor:
        if not net.activations:
            raise ValueError("FeatureRank saw no features yet; call the model that it is attached to first")
        features = net.activations[-1]
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        gram = features @ features.mT if features.shape[-2] <= features.shape[-1] else features.mT @ features
        jitter = 1e-6 * gram.diagonal(dim1=-2, dim2=-1).mean(-1).detach()[..., None, None] + 1e-12
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        finite = torch.isfinite(gram).flatten(net.batch_dims).all(-1)[..., None, None]
        sigma = torch.linalg.eigvalsh(torch.where(finite, gram + jitter * eye, eye)).clamp_min(1e-12).sqrt()
        silent = (features == 0).flatten(net.batch_dims).all(-1)  # no rank, and nothing that could raise it
        rank = effective_rank(sigma).log().masked_fill(silent, 0)
        return L2(self.strength).penalty(net) - self.rank_strength * rank


@dataclass(frozen=True)
class FeatureLogDet(Baseline, name="feature_logdet"):
    """-alpha/n * log det(K / mean(diag K) + ridge I), K = H H' of the last hidden features H, in the loss.

    H has shape (..., n, units), e.g. (8, 64, 512): n samples of a minibatch, each run by itself. So K is (..., n, n)
    and the penalty (...,), unitless. It does not see the scale of H. Features of mutually orthogonal samples of one
    length have the largest log-determinant, n log(1 + ridge); silent ones have n log(ridge) and no gradient.

    Args:
        alpha: above 0 raises the rank of the features, below 0 lowers it; 0 does nothing. From -1e6 to 1e6.
        ridge: added to the eigenvalues, whose mean is 1; 1e-6 to 1e6. Small: the weakest directions count more.
    Source: ours; after the log-determinant diversity penalties.
    """

    alpha: float = 0.1
    ridge: float = 0.01

    def check(self) -> None:
        require_range("FeatureLogDet.alpha", self.alpha, -1e6, 1e6, kind=float)
        require_range("FeatureLogDet.ridge", self.ridge, 1e-6, 1e6, kind=float)

    @property
    def reads_features(self) -> bool:
        return True

    def penalty(self, net: Attached) -> Tensor:
        if not net.activations:
            raise ValueError("FeatureLogDet saw no features yet; call the model that it is attached to first")
        features = net.activations[-1]
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        gram = features @ features.mT
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        finite = torch.isfinite(gram).flatten(net.batch_dims).all(-1)[..., None, None]
        gram = torch.where(finite, gram, eye)  # a run that has diverged harms no other
        size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        is_silent = size <= torch.finfo(gram.dtype).tiny
        scaled = gram / torch.where(is_silent, 1.0, size)
        return -self.alpha / len(eye) * torch.linalg.slogdet(scaled + self.ridge * eye).logabsdet


@dataclass(frozen=True)
class Churn(Baseline, name="churn"):
    """strength * mean |f(x_ref) - f_before(x_ref)|^2: outputs on inputs outside the minibatch should not move.

    x_ref is the minibatch before the last; f_before is the net one step ago. Both are taken in evaluation mode, so that
    dropout is no churn and the statistics of norms stay as they are.

    Args:
        strength: lambda >= 0.
    Source: C-CHAIN, Tang et al. 2025, continual churn reduction; the choice of reference inputs is ours.
    """

    strength: float = 1e-2

    def check(self) -> None:
        require_positive(self, "strength")

    @property
    def acts_on(self) -> str:
        return "outputs"

    def start(self, net: Attached) -> None:
        if net.forward is None:
            raise ValueError("Churn runs the net on earlier inputs; attach it with the net's forward map")

    def penalty(self, net: Attached) -> Tensor:
        if net.inputs is None:
            raise ValueError("Churn saw no inputs yet; call the model that it is attached to with one tensor before")
        gap = net.zero()
        if "reference" in net.state:
            inputs, before = net.state["reference"]
            gap = (net.rerun(inputs) - before).square().flatten(net.batch_dims).mean(-1)
        if "last" in net.state:  # outputs of the present weights, for the next step
            with torch.no_grad():
                net.state["reference"] = net.state["last"], net.rerun(net.state["last"])
        net.state["last"] = net.inputs.detach().clone()  # the caller may fill the same tensor with the next batch
        return self.strength * gap

    def new_task(self, net: Attached) -> None:
        net.state.clear()


def unit_vector(x: Tensor, otherwise: Tensor) -> Tensor:
    """A column (..., n, 1) at unit length; another one in place of zero, which has no direction.

    >>> unit_vector(torch.zeros(2, 1), torch.ones(2, 1)).flatten()
    tensor([1., 1.])
    """
    return torch.where(x.norm(dim=-2, keepdim=True) > 0, nn.functional.normalize(x, dim=-2), otherwise)
