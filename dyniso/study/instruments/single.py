"""Instruments for one net: its kernel before a task, its curvature, and what is isometric in it and what is not.

Each returns {(layer, metric): value}, the keys of a stored row; nets are plain `nn.Sequential`s in float64.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from ...dormancy import dormancy_score
from ...entk import backward_maps, empirical_ntk, feature_grams
from ...isometry import effective_rank, singular_values
from ...kernels import ntk_summary, plasticity, without_constant_output

Values = dict[tuple[str, str], float]
FLOOR = 1e-12  # relative to the largest eigenvalue: below it a float64 eigenvalue of a kernel is rounding


def condition(gram: Tensor) -> Tensor:
    """Condition number of symmetric positive semi-definite matrices (..., N, N); at most 1/FLOOR."""
    lambdas = torch.linalg.eigvalsh(gram)
    return lambdas[..., -1] / lambdas[..., 0].clamp_min(FLOOR * lambdas[..., -1].clamp_min(1e-300))


def kernel(net: nn.Sequential, x: Tensor) -> Values:
    """The empirical NTK on fixed inputs without the constant output, and its rivals as predictors of plasticity.

    Args:
        net: float64, outputs (n, C). x: inputs (n, features), e.g. (64, 784).
    Returns:
        kernel_condition, kernel_mean_over_max, P_10 and P_100 (`kernels.plasticity`), kernel_max, block_condition
        (median over samples), gram_condition and feature_rank of the last hidden layer, fixed_dormant (tau = .025,
        mean over layers), weight_norm (Euclidean, all parameters).
    """
    x = x.double()
    theta = empirical_ntk(net, x)
    outputs = len(theta) // len(x)
    theta = without_constant_output(theta, outputs)
    summary = ntk_summary(theta)
    blocks = theta.unflatten(0, (len(x), -1)).unflatten(2, (len(x), -1)).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    gram = list(feature_grams(net, x).values())[-1]
    features = hidden_features(net, x)
    dormant = [float((dormancy_score(h) <= 0.025).double().mean()) for h in features]
    P = plasticity(theta, torch.tensor([10, 100]))
    values = {
        "kernel_condition": condition(theta),
        "kernel_mean_over_max": summary.mean_over_max,
        "kernel_max": summary.eigenvalues.amax(),
        "P_10": P[0],
        "P_100": P[1],
        "block_condition": condition(blocks).median(),
        "gram_condition": condition(gram),
        "feature_rank": effective_rank(singular_values(features[-1])),
        "fixed_dormant": sum(dormant) / len(dormant),
        "weight_norm": torch.stack([p.detach().norm() for p in net.parameters()]).norm(),
    }
    return {("", name): float(value) for name, value in values.items()}


def hidden_features(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What each Linear layer but the first receives, (n, features) each."""
    seen, h = [], x
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                seen.append(h)
            h = layer(h)
    return seen[1:]


def curvature(net: nn.Sequential, x: Tensor, y: Tensor) -> Values:
    """Sharpness: the largest Hessian eigenvalue in size of the mean cross-entropy on (x, y)."""
    x = x.double()
    return {("", "sharpness"): sharpness(net, lambda: nn.functional.cross_entropy(net(x), y))}


def sharpness(net: nn.Module, loss: object, iterations: int = 20, seed: int = 0) -> float:
    """Largest eigenvalue in size of the Hessian of a loss, by power iteration on Hessian-vector products.

    Args:
        net: its parameters are the variables.
        loss: function of nothing that returns the scalar loss.
        iterations: each one costs about a gradient and a half more than a gradient.
        seed: of the starting vector.
    Returns:
        v'Hv of the last unit vector v: a lower estimate in size.

    >>> line = nn.Linear(1, 1, bias=False).double()
    >>> round(sharpness(line, lambda: 1.5 * line.weight.square().sum()), 6)
    3.0
    """
    params = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), params, create_graph=True)  # type: ignore[operator]
    flat = torch.cat([g.flatten() for g in gradients])
    generator = torch.Generator().manual_seed(seed)
    v = nn.functional.normalize(torch.randn(len(flat), generator=generator).to(flat), dim=0)
    value = 0.0
    for _ in range(iterations):
        products = torch.autograd.grad(flat @ v, params, retain_graph=True)
        Hv = torch.cat([g.flatten() for g in products]).detach()
        value = float(v @ Hv)
        v = nn.functional.normalize(Hv, dim=0)
    return value


def activation_jacobians(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Singular values of the Jacobian D of everything between one Linear layer and the next, at each input.

    Args:
        net: Linear layers with activations and norms between them. x: inputs (n, features).
    Returns:
        One tensor a hidden layer, shape (n, min(units in, units out)), descending.
    """
    linear = [i for i, layer in enumerate(net) if isinstance(layer, nn.Linear)]
    found = []
    for start, stop in pairwise(linear):
        block = net[start + 1 : stop]
        with torch.no_grad():
            z = net[: start + 1](x)
        D = vmap(jacrev(lambda row, block=block: block(row[None])[0]))(z)
        found.append(torch.linalg.svdvals(D.detach()))
    return found


def lens(net: nn.Sequential, x: Tensor) -> Values:
    """What is isometric in a net: moments of sigma^2, activation Jacobians, backward maps, features, layer by layer.

    Args:
        net: float64. x: inputs (n, features), e.g. (16, 784).
    Returns:
        For weights ("1.weight", ...): mu_1 = mean sigma^2, mu_2 = mean sigma^4. For hidden layers ("hidden1", ...):
        D_mean2, D_min, D_max (mean over inputs of mean sigma^2, and extremes), feature_rank, gram_condition (with the
        bias), block_condition (median over inputs of kappa(B B') without the constant output; 0 if B is zero, where no
        gradient comes through).
    """
    x = x.double()
    found: Values = {}
    linear = [(name, layer) for name, layer in net.named_children() if isinstance(layer, nn.Linear)]
    for name, layer in linear:
        squares = singular_values(layer.weight).square()
        found[f"{name}.weight", "mu_1"] = float(squares.mean())
        found[f"{name}.weight", "mu_2"] = float(squares.square().mean())
    maps = list(backward_maps(net, x).values())
    for index, (D, h, B) in enumerate(zip(activation_jacobians(net, x), hidden_features(net, x), maps, strict=False)):
        name = f"hidden{index + 1}"
        found[name, "D_mean2"] = float(D.square().mean())
        found[name, "D_min"], found[name, "D_max"] = float(D.amin(-1).mean()), float(D.amax(-1).mean())
        found[name, "feature_rank"] = float(effective_rank(singular_values(h)))
        found[name, "gram_condition"] = float(condition(h @ h.mT + 1))
        centred = B - B.mean(1, keepdim=True)
        lambdas = torch.linalg.eigvalsh(centred @ centred.mT)[:, 1:]  # the constant output is left out
        ratio = lambdas[:, -1] / lambdas[:, 0].clamp_min(FLOOR * lambdas[:, -1].clamp_min(1e-300))
        found[name, "block_condition"] = float(ratio.median())
    return found
