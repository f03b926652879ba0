"""One pass through a net, and what it tells about each layer: its inputs, and the backward map from its output.

For `dyniso.entk`, which turns them into kernels. A model is left as it was found: parameters, gradients, buffers, mode
and hooks. What would make a value per sample meaningless (samples that interact, active dropout, a weight used behind
its module's back) is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from .checks import require_range, require_shape, require_type


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
        Name -> Linear, Conv2d or LayerNorm, in registration order.
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
        if type(module) not in (nn.Linear, nn.Conv2d, nn.LayerNorm) or not own.keys() <= {"weight", "bias"}:
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
        ValueError: a layer that is called more than once, interacting samples, active dropout, chunk < 1, no samples.
        TypeError: inputs or outputs that are no tensor.

    >>> seen = capture(model := nn.Linear(2, 3), torch.ones(5, 2), {"": model}, None)
    >>> tuple(seen[""].h.shape), tuple(seen[""].B.shape)
    ((5, 2), (5, 3, 3))
    """
    passes = [_capture_once(model, part, layers, backward) for part in _split(x, chunk)]
    return {
        name: LayerPass(layer.module, torch.cat([p[name].h for p in passes]), torch.cat([p[name].B for p in passes]))
        for name, layer in passes[0].items()
    }


def _capture_once(model: nn.Module, x: Tensor, layers: dict[str, nn.Module], backward: bool) -> dict[str, LayerPass]:
    _require_no_dropout(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    with _hooks({name: (module, _recorder(name, seen)) for name, module in layers.items()}):
        f = _outputs(functional_call(model, _copied_buffers(model), (x.clone(),)), len(x))
    z = [output for _, output in seen.values()]
    maps = _backward(f, z) if backward else [x.new_empty(len(x), 0)] * len(z)
    return {name: LayerPass(layers[name], h, B) for (name, (h, _)), B in zip(seen.items(), maps, strict=True)}


def _backward(f: Tensor, z: list[Tensor]) -> list[Tensor]:
    """B_l for each layer output z_l, shape (n, C, ...). A pass serves all samples, as they do not interact."""
    samples, outputs = f.shape
    _require_independent_samples(f, z)
    directions = torch.eye(outputs, dtype=f.dtype, device=f.device)[:, None].expand(-1, samples, -1)
    try:
        maps = _gradients(f, z, directions, is_grads_batched=True)  # all outputs at once
    except RuntimeError:  # an operation that vmap cannot batch, or not enough memory
        columns = [_gradients(f, z, direction) for direction in directions]
        maps = [torch.stack(column) for column in zip(*columns, strict=True)]
    return [B.transpose(0, 1) for B in maps]


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
        f = functional_call(model, _copied_buffers(model), (x.clone(),))
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


def jacobian(model: nn.Module, x: Tensor, chunk: int | None) -> Tensor:
    """df/dtheta over all trainable parameters.

    Args:
        model, x, chunk: as in `capture`; samples may interact within a chunk.
    Returns:
        Shape (n C, parameters), row i C + c for output c of sample i; columns in registration order.
    Raises:
        ValueError: active dropout, chunk < 1, no samples.

    >>> jacobian(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]), None)
    tensor([[3., 4., 1.]])
    """
    _require_no_dropout(model)
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for part in _split(x, chunk):

        def outputs(params: dict[str, Tensor], part: Tensor = part) -> Tensor:
            return _outputs(functional_call(model, {**_copied_buffers(model), **params}, (part.clone(),)), len(part))

        J = jacrev(outputs)(trained)  # name -> (n, C, *shape)
        rows.append(torch.cat([J[name].reshape(-1, p.numel()) for name, p in trained.items()], dim=1))
    return torch.cat(rows)


def _copied_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Running statistics that a forward pass may write to."""
    return {name: b.clone() for name, b in model.named_buffers()}


def _outputs(f: Tensor, samples: int) -> Tensor:
    require_type("the model's output", f, Tensor, f"a tensor of shape ({samples}, C)")
    require_shape(f.ndim and len(f) == samples, "the model's output", f, f"({samples}, C) for {samples} samples")
    return f.flatten(1) if f.ndim > 1 else f[:, None]


def _split(x: Tensor, chunk: int | None) -> tuple[Tensor, ...]:
    require_type("inputs", x, Tensor, "a tensor of shape (n, ...)")
    require_shape(x.ndim and len(x), "inputs", x, "(n, ...) with at least 1 sample")
    if chunk is not None:
        require_range("chunk", chunk, 1)
    return x.detach().split(chunk or len(x))


def _require_no_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise ValueError(f"{label(name, module)} is active, so the kernel would be random; call model.eval()")


def label(name: str, module: nn.Module) -> str:
    """How an error names a module.

    >>> label("2", nn.ReLU())
    "module '2' (ReLU)"
    """
    return f"module {name!r} ({type(module).__name__})"


def _unsupported(name: str, module: nn.Module, why: str) -> ValueError:
    return ValueError(f'{label(name, module)} {why}; use empirical_ntk(..., method="jacobian")')
