"""One traced forward pass: which layer feeds which activation, who reads it, and what cannot be matched.

Nothing is read from the order of modules or calls. Every tensor of the pass carries where it comes from, through
whatever keeps units apart (norms, dropout, reshapes, pooling, arithmetic with constants). A function counts as an
activation like a module does: `F.relu(x)`, `x.relu_()`, `x.clamp(min=0)`, `torch.maximum(x, zeros)`. One that is made
of arithmetic (`x * x.sigmoid()`) counts as one if it is a module of its own.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

from .checks import require_type
from .copies import apart
from .trace_result import ActivationSite, Trace
from .tracer import Tracer

__all__ = ["ActivationSite", "Trace", "eager", "readable", "trace", "trace_activations"]


def trace_activations(model: nn.Module, *inputs: Any, **kwargs: Any) -> list[ActivationSite]:
    """The activations of one forward pass; see `ActivationSite` for what is known of each, and `trace`.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [(site.name, site.layer, site.readers, site.why) for site in trace_activations(net, torch.ones(5, 2))]
    [('1', '0', ('2',), '')]
    """
    return list(trace(model, *inputs, **kwargs).sites)


@torch.inference_mode(False)
@torch.enable_grad()
def trace(model: nn.Module, *inputs: Any, **kwargs: Any) -> Trace:
    """Call the model once, and see which layers and activations feed which.

    Args:
        model: any module; a compiled one runs as the module that it was made from. Left untouched: parameters,
            gradients, buffers, mode, hooks, torch's random numbers, and what its forward pass notes in its modules
            (unless they hold something that cannot be copied).
        inputs, kwargs: what the model is called with, e.g. a batch (64, 784).
    Returns:
        Trace.
    Raises:
        TypeError: model is no module.
        ValueError: a scripted model, whose inside cannot be seen, or a lazy one that has no weights yet.

    >>> trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.ones(5, 2)).heads
    ('2',)
    """
    model = readable(model)
    args, keywords = tree_map(lambda a: a.clone() if isinstance(a, Tensor) else a, (inputs, kwargs))
    devices = {p.device for p in model.parameters() if p.is_cuda}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    model = apart(model)
    tracer = Tracer(model)
    with torch.random.fork_rng(devices), eager(), tracer.watch():
        output = functional_call(model, buffers, args, keywords)
    return tracer.result(output)


def readable(model: nn.Module) -> nn.Module:
    """The module whose parts can be seen: what a compiled or data-parallel one was made from.

    Raises:
        TypeError: model is no module.
        ValueError: a scripted or lazy module inside (names it).

    >>> readable(model := nn.Linear(2, 2)) is model
    True
    """
    require_type("model", model, nn.Module, "a module, called with a batch of inputs")
    inner = getattr(model, "_orig_mod", model)
    inner = inner.module if isinstance(inner, nn.DataParallel) else inner
    for name, module in inner.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"module {name!r} is a ScriptModule, whose inside cannot be seen; give the eager module")
        if any(is_lazy(p) for p in module.parameters(recurse=False)):
            raise ValueError(f"module {name!r} ({type(module).__name__}) has no weights yet; call the model once first")
    return inner


def eager() -> Any:
    """A block in which compiled modules and functions run as they were written, so that hooks see them."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
