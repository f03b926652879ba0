"""The heads of a model: the layers whose output is the model's output, found from the way that it computes.

Three sources, from cheap to sure: the order of an nn.Sequential, the graph that `torch.fx` traces without inputs, and
one traced pass of an example (`dyniso.tracing`). Both say from which layers the output is reached without another
layer in between. Where one of these also feeds another, as in a residual stream without a head of its own, there is no
telling, and the caller is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .copies import apart

ASK = "pass head='its name', head='include' for none, or example=(a batch of inputs) to find it by one forward pass"
PRODUCTS = ("mm", "conv", "linear", "matmul", "einsum", "embedding")  # parts of the names of products by a weight
Fed = Mapping[str, Collection[str]]  # layer -> the layers from which its inputs come


def find_heads(model: nn.Module, example: Any = None) -> list[Tensor]:
    """The weights of the layers whose output is the model's output.

    Args:
        model: any module; a compiled or wrapped one is looked into.
        example: inputs of one forward pass (a tensor, a tuple, or a dict of named ones), or None.
    Returns:
        The weights; none where the outputs come from layers that are no head, such as a recurrent one.
    Raises:
        ValueError: which layers are heads is not evident; says what to pass.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> find_heads(net)[0] is net[2].weight
    True
    """
    model = part = unwrapped(model)
    if example is None:
        part = last_of_sequence(model)
        if is_layer(part):
            return weights_of(part, "")
        heads, fed_by = by_code(part, model)
    else:
        heads, fed_by = by_pass(model, example)
    for head in heads:
        if set(heads) - {head} & upstream(head, fed_by):
            raise not_evident(model, "returns a sum to which several of its layers contribute")
    return [weight for head in heads for weight in weights_of(part, head)]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, from `torch.compile`, DistributedDataParallel or DataParallel."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while hasattr(model, "_orig_mod") or isinstance(model, parallel):
        model = model.module if isinstance(model, parallel) else model._orig_mod  # type: ignore[assignment]
    return model


def is_layer(module: nn.Module) -> bool:
    """Whether a module is one map with one weight."""
    return isinstance(module, nn.Linear | nn.modules.conv._ConvNd)


def last_of_sequence(model: nn.Module) -> nn.Module:
    """What computes the output of nested nn.Sequentials: their last part that holds a matrix."""
    while isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        parts = [part for part in model if any(p.ndim > 1 for p in part.parameters())]
        if not parts:
            break
        model = parts[-1]
    return model


def by_code(part: nn.Module, model: nn.Module) -> tuple[list[str], Fed]:
    """Heads, and what feeds each layer, from the graph that torch.fx traces without inputs."""
    twin = apart(part)  # what the code notes in its modules would be no values
    try:
        if twin is part:
            raise TypeError("modules that cannot be copied")
        graph = torch.fx.Tracer().trace(twin)
    except Exception as error:  # whatever a model's code does with values that are not there
        raise not_evident(model, "cannot be traced without inputs") from error
    last: dict[Any, frozenset[str]] = {}  # node -> the layers from which it is reached without another in between
    fed_by: dict[str, set[str]] = {}
    for node in graph.nodes:
        last[node] = frozenset().union(*(last[n] for n in node.all_input_nodes))
        layer = layer_at(node, part)
        if layer:
            fed_by.setdefault(layer, set()).update(last[node])
            last[node] = frozenset([layer])
    return sorted(last[node]), fed_by  # the last node is the output


def layer_at(node: Any, part: nn.Module) -> str:
    """The layer that a node of a graph calls, or the matrix that it multiplies by, by name; "" if it does neither."""
    if node.op == "call_module":
        module = part.get_submodule(node.target)
        holds_matrix = any(p.ndim > 1 for p in module.parameters())
        return (f"{node.target}.out_proj" if hasattr(module, "out_proj") else node.target) if holds_matrix else ""
    called = str(getattr(node.target, "__name__", node.target))
    parameters = dict(part.named_parameters(remove_duplicate=False)) if any(p in called for p in PRODUCTS) else {}
    given = [n.target for n in node.all_input_nodes if n.op == "get_attr" and n.target in parameters]
    return next((name for name in given if parameters[name].ndim > 1), "")


def by_pass(model: nn.Module, example: Any) -> tuple[list[str], Fed]:
    """Heads, and what feeds each layer, from one pass of an example, which leaves the model as it was."""
    from .tracing import trace

    args, kwargs = ((), example) if isinstance(example, Mapping) else (example, {})
    seen = trace(model, *(args if isinstance(args, tuple) else (args,)), **kwargs)
    return list(seen.heads), seen.fed_by


def upstream(layer: str, fed_by: Fed) -> set[str]:
    """All layers that a layer depends on."""
    found: set[str] = set()
    todo = [layer]
    while todo:
        new = set(fed_by.get(todo.pop(), ())) - found
        found |= new
        todo += new
    return found


def weights_of(model: nn.Module, name: str) -> list[Tensor]:
    """The matrices of a layer, parametrised ones too, or the one of that name; none of what is no head."""
    modules = dict(model.named_modules())
    if name not in modules:
        return [model.get_parameter(name)]
    return [p for p in modules[name].parameters() if p.ndim > 1] if is_layer(modules[name]) else []


def not_evident(model: nn.Module, why: str) -> ValueError:
    return ValueError(f"which layer is the head of {type(model).__name__} is not evident: it {why}; {ASK}")
