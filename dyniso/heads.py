"""The heads of a model: the layers whose output is the model's output, found from the way that it computes.

Three sources, from cheap to sure: the order of an nn.Sequential, the graph that `torch.fx` traces without inputs, and
the graph of gradients of one forward pass. In either graph one walks from the outputs against the flow, through
whatever multiplies by no weight; the first products by a weight on the way are the heads. Where one of them also feeds
another, as in a residual stream without a head of its own, there is no telling, and the caller is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

ASK = "pass head='its name', head='include' for none, or example=(a batch of inputs) to find it by one forward pass"
PRODUCTS = ("mm", "convolution", "linear", "matmul", "einsum", "embedding", "rnn")  # parts of what graphs call products


class Product(NamedTuple):
    """A product by a weight: its weights, and the nodes that feed it."""

    weights: Sequence[Any]
    feeds: Sequence[Any]


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
    model = unwrapped(model)
    if example is not None:
        return by_gradients(model, example)
    part = last_of_sequence(model)
    return [part.get_parameter("weight")] if is_layer(part) else by_code(part, model)


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


# ---------------------------------------------------------------------------------------------- the graph of the code


def by_code(part: nn.Module, model: nn.Module) -> list[Tensor]:
    """From the graph that torch.fx traces, without inputs."""
    try:
        graph = torch.fx.Tracer().trace(part)
    except Exception as error:  # whatever a model's code does with values that are not there
        raise not_evident(model, "cannot be traced without inputs") from error
    attributes = dict(part.named_parameters(remove_duplicate=False))

    def product(node: Any) -> Product | None:
        if node.op == "call_module":
            module = part.get_submodule(node.target)
            if not any(p.ndim > 1 for p in module.parameters()):
                return None
            head = getattr(module, "out_proj", module)
            return Product([head.weight] if is_layer(head) else [], node.all_input_nodes)
        used = [attributes[n.target] for n in node.all_input_nodes if n.op == "get_attr" and n.target in attributes]
        called = str(getattr(node.target, "__name__", node.target)).lower()
        weights = [p for p in used if p.ndim > 1]
        weights = weights if is_product(called) else []
        return Product([] if is_lookup(called) else weights, node.all_input_nodes) if weights else None

    outputs = [node for node in graph.nodes if node.op == "output"]
    return walk(model, outputs, product, lambda node: node.all_input_nodes)


# ------------------------------------------------------------------------------------------- the graph of the gradients


def by_gradients(model: nn.Module, example: Any) -> list[Tensor]:
    """From the graph of gradients of one forward pass, on copies: neither parameters, buffers nor generators change."""
    twins = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    owners = {id(twins[name]): (name, p) for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    args, kwargs = ((), example) if isinstance(example, Mapping) else (example, {})
    args = args if isinstance(args, tuple) else (args,)
    devices = {p.device for p in twins.values() if p.is_cuda}
    with torch.enable_grad(), torch.random.fork_rng(list(devices)):
        outputs = [t for t in tensors(functional_call(model, {**twins, **buffers}, args, dict(kwargs))) if t.grad_fn]

    def inputs(node: Any) -> list[Any]:
        return [n for n, _ in node.next_functions if n is not None]

    def weights_of(feed: Any) -> list[Tensor]:
        """One layer's matrices, where a factor depends on nothing but them: directly, or by a parametrization."""
        nodes = list(against_the_flow([feed], inputs))
        found = [owners[id(n.variable)] for n in nodes if hasattr(n, "variable") and id(n.variable) in owners]
        raw = not any(is_product(n.name().lower()) for n in nodes)
        one = len({module_of(name) for name, _ in found}) == 1
        return [p for name, p in found if one and p.ndim > 1 and (raw or ".parametrizations." in name)]

    def product(node: Any) -> Product | None:
        name = node.name().lower()
        weights = [w for f in inputs(node) for w in weights_of(f)] if is_product(name) else []
        return Product([] if is_lookup(name) else weights, inputs(node)) if weights else None

    return walk(model, [t.grad_fn for t in outputs], product, inputs)


def module_of(name: str) -> str:
    """The module that a parameter belongs to; a parametrised one to its layer."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors inside what a model returns: a tensor, or a tuple, list, mapping or dataclass of such."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, str | bytes) or output is None:
        return
    else:
        parts = (
            output.values()
            if isinstance(output, Mapping)
            else output
            if isinstance(output, Iterable)
            else (vars(output).values() if hasattr(output, "__dict__") else ())
        )
        for part in parts:
            yield from tensors(part)


# ------------------------------------------------------------------------------------------------------------- the walk


def walk(
    model: nn.Module, outputs: list[Any], product: Callable[[Any], Product | None], inputs: Callable[[Any], list[Any]]
) -> list[Tensor]:
    """The weights of the first products on the ways from the outputs against the flow."""

    heads: list[Product] = []

    def is_head(node: Any) -> bool:
        here = product(node)
        heads.extend([here] if here else [])
        return here is not None

    for _ in against_the_flow(outputs, inputs, is_head):
        pass
    weights = {id(w): w for head in heads for w in head.weights}
    for node in against_the_flow([feed for head in heads for feed in head.feeds], inputs):
        here = product(node)
        if here and len(weights) > 1 and any(id(w) in weights for w in here.weights):
            raise not_evident(model, "returns a sum to which several of its layers contribute")
    return list(weights.values())


def against_the_flow(
    start: Iterable[Any], inputs: Callable[[Any], list[Any]], stop: Callable[[Any], bool] = lambda node: False
) -> Iterator[Any]:
    """Every node from which `start` can be reached, each once; what feeds a node at which to stop is left out."""
    todo = list(start)
    seen = set(todo)
    while todo:
        node = todo.pop()
        yield node
        for n in [] if stop(node) else inputs(node):
            if n not in seen:
                seen.add(n)
                todo.append(n)


def is_product(name: str) -> bool:
    """Whether an operation of this name multiplies by a matrix."""
    return any(part in name for part in PRODUCTS)


def is_lookup(name: str) -> bool:
    """Whether it is the product that picks rows: an embedding, never a head, though a head may be tied to it."""
    return "embedding" in name


def not_evident(model: nn.Module, why: str) -> ValueError:
    return ValueError(f"which layer is the head of {type(model).__name__} is not evident: it {why}; {ASK}")
