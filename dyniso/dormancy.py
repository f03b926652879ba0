"""Dormant and dead units, per layer, and the units that wake between two measurements.

Works on activations (..., samples, units); leading axes index runs. `hidden_activations` gives (samples, units), with
each position of a map or a token as a sample; raw convolution maps go through `units_last` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .activations import ACTIVATION_TYPES
from .checks import require_range, require_shape, require_that, require_type
from .tracer import Tracer, is_whole
from .tracing import eager, readable


@contextmanager
def hidden_activations(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what every activation of `model` puts out while the block runs, in call order.

    An activation is a module or a function (see `dyniso.tracing`, which also says which layer feeds it). It works under
    `torch.func.functional_call` and `vmap`: return the list from the mapped function.

    Args:
        model: any module; call it in the block, not its `forward`. A compiled one runs as it was written.
    Yields:
        A list, filled by each forward pass: copies (samples, units), connected to the graph. A channel of a map is one
        unit, seen at every position; a token is a sample.
    Raises:
        ValueError: a scripted or lazy model, or one of layers alone; at the end of the block, that no activation was
            seen (says what was).

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with hidden_activations(net) as seen:
    ...     _ = net(torch.zeros(5, 2))
    >>> [tuple(h.shape) for h in seen]
    [(5, 3)]
    """
    inner = readable(model)
    if not any(isinstance(m, ACTIVATION_TYPES) or not _is_layer(m) for m in inner.modules()):
        raise ValueError(f"{type(inner).__name__} holds no activation module, so there is no hidden layer to read")
    seen: list[Tensor] = []
    layers: dict[str, None] = {}

    def deliver(tracer: Tracer) -> None:
        seen.extend(site.by_unit() for site in tracer.sites)
        layers.update(dict.fromkeys(tracer.calls))

    tracer = Tracer(inner, keep_graph=True, at_end=deliver)
    with eager(), tracer.watch():
        yield seen
    if not seen:
        what = (
            f"only the layers {list(layers)} were seen" if tracer.passes else "it was not called; call it, not .forward"
        )
        raise ValueError(f"{type(inner).__name__} showed no activation, so there is no hidden layer to read: {what}")


def _is_layer(module: nn.Module) -> bool:
    """One in which no function can act as an activation."""
    return type(module) is nn.Sequential or is_whole(module)


def units_last(activation: Tensor, batch_dims: int = 0) -> Tensor:
    """Activations with the unit as last axis; a channel is one unit, seen at every position.

    Args:
        activation: shape (*runs, samples, channels, h, w) or (*runs, samples, units), e.g. (64, 16, 14, 14).
        batch_dims: number of leading axes that index runs.
    Returns:
        Shape (*runs, samples*h*w, channels), e.g. (12544, 16); (*runs, samples, units) as it is.
    Raises:
        ValueError: three axes, which can be signals (samples, channels, length) or tokens (samples, tokens, units).

    >>> units_last(torch.zeros(2, 3, 4, 5)).shape
    torch.Size([40, 3])
    """
    if activation.ndim == batch_dims + 2:
        return activation
    expected = f"(samples, units) or maps (samples, channels, h, w) after batch_dims={batch_dims} axes; "
    require_shape(activation.ndim > batch_dims + 3, "activation", activation, f"{expected}flatten tokens to samples")
    return activation.movedim(batch_dims + 1, -1).flatten(batch_dims, -2)


def dormancy_score(activation: Tensor) -> Tensor:
    """Mean absolute activation of each unit over its layer's mean: s_i = E|h_i| / mean_k E|h_k|.

    Args:
        activation: shape (..., samples, units).
    Returns:
        Shape (..., units), unitless, mean 1 over the layer; all 0 for a layer that is silent throughout.
    Raises:
        ValueError: fewer than two axes, or an empty one.
    Source: Sokar et al. 2023, eq. 1 (their sentence says the scores sum to one; their code, like this, has mean one).

    >>> dormancy_score(torch.tensor([[1.0, 0.0, 3.0], [1.0, 0.0, 1.0]]))
    tensor([1., 0., 2.])
    """
    _require_activation(activation)
    size = activation.abs().mean(-2)
    return size / size.mean(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)


def dormant_fraction(activation: Tensor, tau: float = 0.025) -> Tensor:
    """Fraction of units whose score is at most tau (0 counts exactly silent units; 0.025 and 0.1 are usual).

    Args:
        activation: shape (..., samples, units).
        tau: threshold, at least 0. The paper's figure B.4 does not state its own.
    Returns:
        Shape (...,), between 0 and 1.
    Raises:
        ValueError: negative tau, or activations as in `dormancy_score`.

    >>> float(dormant_fraction(torch.tensor([[1.0, 0.0], [1.0, 0.01]]), tau=0.025))
    0.5
    """
    require_range("tau", tau, 0, kind=float)
    return (dormancy_score(activation) <= tau).float().mean(-1)


def dead_units(activation: Tensor) -> Tensor:
    """Units that never fire: max over samples at most 0. Meant for ReLU.

    Args:
        activation: shape (..., samples, units).
    Returns:
        Shape (..., units), bool.
    Raises:
        ValueError: as `dormancy_score`.

    >>> dead_units(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    tensor([ True, False])
    """
    _require_activation(activation)
    return activation.amax(-2) <= 0


def _require_activation(activation: Tensor) -> None:
    require_type("activation", activation, Tensor, "a tensor of shape (..., samples, units)")
    fits = activation.ndim >= 2 and 0 not in activation.shape
    require_shape(fits, "activation", activation, "(..., samples, units), none empty")


def reactivated(dead_before: Tensor, dead_after: Tensor) -> Tensor:
    """Units dead at the first measurement and alive at the second.

    Args:
        dead_before, dead_after: of `dead_units`, shape (..., units), bool.
    Returns:
        The same shape, bool.
    Raises:
        ValueError: the two measurements have different shapes.

    >>> reactivated(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    tensor([False,  True, False])
    """
    if dead_before.shape != dead_after.shape:
        raise ValueError(f"measurements of different layers: {tuple(dead_before.shape)} and {tuple(dead_after.shape)}")
    return dead_before & ~dead_after


def row_flow(w: Tensor, S: Tensor, time: Tensor | float) -> Tensor:
    """Where the flow of the Gram penalty carries one row while the other rows stand still, in closed form.

        dw/ds = -4 [ (|w|^2 - 1) I + S ] w,   S = sum of w_j w_j' over the other rows

    In the eigenbasis of S the coordinates are c_k(0) e^{4 (1 - s_k) s}, divided by one common root.

    Args:
        w: the row at s = 0, shape (in,).
        S: shape (in, in), symmetric, positive semi-definite.
        time: s = learning rate * strength * steps, unitless, at least 0, below about 80; any shape.
    Returns:
        Shape (*time.shape, in), float64.
    Raises:
        ValueError: shapes that do not fit, or a time out of range (names it).
    Source: derived from arXiv 2606.09762, eq. 16, in the book's chapter on dormant units.

    >>> alone = row_flow(torch.tensor([2.0, 0.0]), torch.zeros(2, 2), 10.0)  # to norm one
    >>> torch.allclose(alone, torch.tensor([1.0, 0.0]).double())
    True
    """
    if w.ndim != 1 or S.shape != (len(w), len(w)):
        raise ValueError(f"w has shape {tuple(w.shape)}, S {tuple(S.shape)}; expected (in,) and (in, in)")
    s = torch.as_tensor(time, dtype=torch.float64)[..., None]
    require_that(((s >= 0) & (s <= 80)).all(), "time", time, "from 0 to 80")
    eigenvalues, vectors = torch.linalg.eigh(S.double())
    rate, c = 8 * (1 - eigenvalues), vectors.mT @ w.double()
    small = rate.abs() < 1e-12
    safe = torch.where(small, 1.0, rate)
    integral = torch.where(small, s, torch.expm1(safe * s) / safe)
    moved = c * torch.exp(rate * s / 2) / (1 + 8 * (c.square() * integral).sum(-1, keepdim=True)).sqrt()
    return moved @ vectors.mT
