"""One pass through a net, and what it tells about each layer: its inputs, and the backward map from its output.

For `dyniso.entk`, which turns them into kernels. A model is left as it was found: parameters, gradients, buffers, mode
and hooks. What would make a value per sample meaningless (samples that interact, randomness, a weight used behind
its module's back) is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import require_range, require_shape, require_type
from .steady import call, label, require_same_in_company

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FACTORABLE = (nn.Linear, nn.Conv2d, nn.LayerNorm, *BATCH_NORMS)


class LayerPass(NamedTuple):
    """What one layer contributes: h and B have one leading entry per sample, both detached."""

    module: nn.Module
    h: Tensor  # (n, ...), e.g. (64, 512) or (64, 16, 14, 14)
    B: Tensor  # (n, C, ...), e.g. (64, 10, 512) or (64, 10, 32, 14, 14); empty where no backward pass was asked for


def factorable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules with trainable parameters of their own, all of a kind whose kernel `dyniso.entk` can factor.

    Args:
        model: any module.
    Returns:
        Name -> Linear, Conv2d, LayerNorm, or BatchNorm with fixed statistics, in registration order.
    Raises:
        ValueError: a trainable parameter of another kind, or one that two modules share (names the module).

    >>> list(factorable_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0', '2']
    """
    layers: dict[str, nn.Module] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own = {key: p for key, p in module.named_parameters(recurse=False) if p.requires_grad}
        if not own:
            continue
        if isinstance(module, BATCH_NORMS) and (module.training or module.running_mean is None):
            raise _unsupported(name, module, "uses the statistics of the batch; call model.eval()")
        if type(module) not in FACTORABLE or not own.keys() <= {"weight", "bias"}:
            raise _unsupported(name, module, f"has trainable parameters ({', '.join(own)}) of an unknown kind")
        for p in own.values():
            if id(p) in owner:
                raise _unsupported(name, module, f"shares a parameter with {owner[id(p)]!r}")
            owner[id(p)] = name
        layers[name] = module
    return layers


def capture(
    model: nn.Module, x: Tensor, layers: dict[str, nn.Module], chunk: int | None, backward: bool = True
) -> dict[str, LayerPass]:
    """Inputs and backward maps of the named layers, in order of their calls.

    Args:
        model: maps (n, ...) to (n, C) or (n,).
        x: inputs, shape (n, ...).
        layers: name -> module of the model; those that the pass does not call are left out.
        chunk: samples per pass; None means all.
        backward: False leaves B empty and saves the backward passes.
    Returns:
        Name -> LayerPass.
    Raises:
        ValueError: a layer that is called more than once, interacting samples (also across chunks), chunk < 1, no
            samples, an output that is no tensor.
        TypeError: inputs that are no tensor.

    >>> seen = capture(model := nn.Linear(2, 3), torch.ones(5, 2), {"": model}, None)
    >>> tuple(seen[""].h.shape), tuple(seen[""].B.shape)
    ((5, 2), (5, 3, 3))
    """
    passes = [_capture_once(model, part, layers, backward) for part in _chunks(model, x, chunk)]
    return {
        name: LayerPass(layer.module, torch.cat([p[name].h for p in passes]), torch.cat([p[name].B for p in passes]))
        for name, layer in passes[0].items()
    }


def _capture_once(model: nn.Module, x: Tensor, layers: dict[str, nn.Module], backward: bool) -> dict[str, LayerPass]:
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    with _hooks({name: (module, _recorder(name, seen)) for name, module in layers.items()}):
        f = call(model, x)
    z = [output for _, output in seen.values()]
    if backward and z and f.requires_grad:
        _require_paths(f, seen, layers)
    maps = _backward(f, z) if backward else [x.new_empty(len(x), 0)] * len(z)
    return {name: LayerPass(layers[name], h, B) for (name, (h, _)), B in zip(seen.items(), maps, strict=True)}


def _backward(f: Tensor, z: list[Tensor]) -> list[Tensor]:
    """B_l for each layer output z_l, shape (n, C, ...). A pass serves all samples, as they do not interact."""
    samples, outputs = f.shape
    _require_independent_samples(f, z)
    directions = torch.eye(outputs, dtype=f.dtype, device=f.device)[:, None].expand(-1, samples, -1)
    return [B.transpose(0, 1) for B in _all_gradients(f, z, directions)]


def _all_gradients(f: Tensor, z: list[Tensor], directions: Tensor) -> list[Tensor]:
    """Gradients of <f, direction> with respect to each z, for all directions (k, *f.shape): (k, *z.shape) each."""
    try:
        return _gradients(f, z, directions, is_grads_batched=True)  # all at once
    except RuntimeError:  # an operation that vmap cannot batch, or not enough memory
        columns = [_gradients(f, z, direction) for direction in directions]
        return [torch.stack(column) for column in zip(*columns, strict=True)]


def _recorder(name: str, seen: dict[str, tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """Forward hook that stores (input, output) of the layer under its name."""

    def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
        if name in seen:
            raise _unsupported(name, module, "is called more than once in a forward pass")
        z = output if output.requires_grad else output.detach().requires_grad_()
        seen[name] = (args[0] if args else kwargs["input"]).detach(), z
        return z.clone()  # an in-place activation may overwrite the copy, never z

    return hook


@contextmanager
def _hooks(hooks: dict[str, tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[None]:
    """Forward hooks that come before the model's own, and are gone afterwards."""
    handles = [module.register_forward_hook(hook, prepend=True, with_kwargs=True) for module, hook in hooks.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gradients(f: Tensor, z: list[Tensor], direction: Tensor, is_grads_batched: bool = False) -> list[Tensor]:
    """Gradients of <f, direction> with respect to each z, zero where f does not depend on it; the graph is kept."""
    options = {"retain_graph": True, "allow_unused": True, "is_grads_batched": is_grads_batched}
    grads = torch.autograd.grad(f, z, direction, **options) if z and f.requires_grad else [None] * len(z)
    lead = direction.shape[:1] if is_grads_batched else ()
    return [output.new_zeros(*lead, *output.shape) if g is None else g for g, output in zip(grads, z, strict=True)]


def require_use_by_call_only(model: nn.Module, x: Tensor, layers: dict[str, nn.Module]) -> None:
    """Exact: once every layer's call sees detached parameters, the output depends on none of them.

    Fails for a weight that is also used behind its module's back (a tied decoder); idle layers, such as the heads of
    other tasks, pass.

    Args:
        model, layers: as in `capture`.
        x: one sample is enough, shape (1, ...).
    Raises:
        ValueError: a parameter that is also used without calling its layer (names the layer).

    >>> require_use_by_call_only(model := nn.Linear(2, 3), torch.ones(1, 2), {"": model})
    """

    def detached(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
        twin = copy.copy(module)
        twin._parameters = {key: p if p is None else p.detach() for key, p in module._parameters.items()}  # type: ignore[misc]
        return twin.forward(*args, **kwargs)

    with _hooks({name: (module, detached) for name, module in layers.items()}):
        f = call(model, x)
    owned = [(name, p) for name, m in layers.items() for p in m.parameters(recurse=False) if p.requires_grad]
    grads = torch.autograd.grad(f.sum(), [p for _, p in owned], allow_unused=True) if f.requires_grad else []
    for (name, _), g in zip(owned, grads, strict=False):
        if g is not None:
            raise _unsupported(name, layers[name], "has a parameter that is also used without calling it")


def _require_independent_samples(f: Tensor, z: list[Tensor]) -> None:
    """Exact: in a net that treats samples apart, the first output has gradient zero with respect to other samples."""
    direction = torch.zeros_like(f)
    direction[0, 0] = 1
    for g in _gradients(f, z, direction):
        if g[1:].nan_to_num().any():
            raise ValueError(
                "outputs of one sample depend on other samples (batch statistics?), so backward maps per sample do not "
                'exist; call model.eval(), or use empirical_ntk(..., method="jacobian")'
            )


def _require_paths(f: Tensor, seen: dict[str, tuple[Tensor, Tensor]], layers: dict[str, nn.Module]) -> None:
    """Exact: where f has no gradient with respect to a layer's output, it has none with respect to its parameters."""
    outputs = [z for _, z in seen.values()]
    found = torch.autograd.grad(f.sum(), outputs, retain_graph=True, allow_unused=True)
    for name in (name for name, g in zip(seen, found, strict=True) if g is None):
        own = [p for p in layers[name].parameters() if p.requires_grad]
        grads = torch.autograd.grad(f.sum(), own, retain_graph=True, allow_unused=True) if own else ()
        if any(g is not None for g in grads):
            raise _unsupported(name, layers[name], "acts on the output by a way that its call does not show")


def jacobian(model: nn.Module, x: Tensor, chunk: int | None) -> Tensor:
    """df/dtheta over all trainable parameters.

    Args:
        model, x: as in `capture`; samples may interact.
        chunk: samples per pass; None means all. Samples that interact have to be in one pass.
    Returns:
        Shape (n C, parameters), row i C + c for output c of sample i; columns in registration order.
    Raises:
        ValueError: chunk < 1, no samples, samples that interact across chunks, an output that is no tensor.

    >>> jacobian(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]), None)
    tensor([[3., 4., 1.]])
    """
    trained = {name: p.detach().requires_grad_() for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for part in _chunks(model, x, chunk):
        f = call(model, part, trained)  # with copies, as a hook on a parameter may change its gradient
        directions = torch.eye(f.numel(), dtype=f.dtype, device=f.device).unflatten(1, f.shape)
        rows.append(
            torch.cat([J.reshape(len(J), -1) for J in _all_gradients(f, list(trained.values()), directions)], dim=1)
        )
    return torch.cat(rows)


def _chunks(model: nn.Module, x: Tensor, chunk: int | None) -> tuple[Tensor, ...]:
    """`split`, if the outputs of a sample do not depend on the chunk that it is in."""
    parts = split(x, chunk)
    if len(parts) > 1:
        require_same_in_company(model, x, parts[0])
    return parts


def split(x: Tensor, chunk: int | None) -> tuple[Tensor, ...]:
    """Inputs in chunks of samples, detached.

    >>> [len(part) for part in split(torch.ones(5, 2), 2)]
    [2, 2, 1]
    """
    require_type("inputs", x, Tensor, "a tensor of shape (n, ...)")
    require_shape(x.ndim and len(x), "inputs", x, "(n, ...) with at least 1 sample")
    if chunk is not None:
        require_range("chunk", chunk, 1)
    return x.detach().split(chunk or len(x))


def _unsupported(name: str, module: nn.Module, why: str) -> ValueError:
    return ValueError(f'{label(name, module)} {why}; use empirical_ntk(..., method="jacobian")')
