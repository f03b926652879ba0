"""The linear maps inside a module's parameters: kernels as matrices, attention's q, k and v, and gates one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

GATES = {  # class -> names of the maps that are stacked in one weight
    nn.LSTM: "ifgo",
    nn.LSTMCell: "ifgo",
    nn.GRU: "rzn",
    nn.GRUCell: "rzn",
}
TABLES = (nn.Embedding, nn.EmbeddingBag)


class Matrix(NamedTuple):
    """One linear map.

    Attributes:
        name: of the weight, with the part in brackets: "self_attn.in_proj_weight[q]".
        layer: path of the module that owns it, or the parameter's own where that is no layer.
        weight: (out, in), or (groups, out, in); detached.
        is_called: whether the pass used it.
        is_whole: whether it is all of the layer's map, so that its rows are the layer's units.
    """

    name: str
    layer: str
    weight: Tensor
    is_called: bool = True
    is_whole: bool = True


def matrices(model: nn.Module, called: Collection[str]) -> tuple[list[Matrix], list[str]]:
    """Every linear map of a model, and what else of two axes or more it holds, with the reason why that is none.

    Args:
        model: any module.
        called: names of the layers of a pass, `dyniso.tracing.Trace.layers`.
    Returns:
        The matrices, in order of the calls, and one line for each parameter that is left out.

    >>> found, left_out = matrices(nn.MultiheadAttention(4, 2), ["out_proj"])
    >>> [(matrix.name, tuple(matrix.weight.shape)) for matrix in found][:2], left_out
    ([('in_proj_weight[q]', (4, 4)), ('in_proj_weight[k]', (4, 4))], [])
    """
    found: list[Matrix] = []
    left_out: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue  # what it makes is read from the layer that it belongs to
        own = list(_of_module(path, module))
        is_called = path in called or _join(path, "out_proj") in called
        found += [matrix._replace(is_called=is_called) for matrix in own]
        if not own:
            for matrix in _bare(path, module):
                reason = _reason(matrix, module, called)
                left_out += [f"{matrix.name}: {reason}"] if reason else []
                found += [] if reason else [matrix]
    order = {name: i for i, name in enumerate(called)}
    found.sort(key=lambda m: min(order.get(m.layer, len(order)), order.get(_join(m.layer, "out_proj"), len(order))))
    return found, left_out


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _of_module(path: str, module: nn.Module) -> Iterator[Matrix]:
    """The maps of a module of a known kind."""
    if isinstance(module, nn.Linear):
        yield Matrix(_join(path, "weight"), path, _weight(module))
    elif isinstance(module, nn.modules.conv._ConvNd):
        yield Matrix(_join(path, "weight"), path, _kernel(module))
    elif isinstance(module, nn.MultiheadAttention):
        if module.in_proj_weight is None:
            parts = [(f"{part}_proj_weight", getattr(module, f"{part}_proj_weight")) for part in "qkv"]
        else:
            thirds = module.in_proj_weight.chunk(3)
            parts = [(f"in_proj_weight[{part}]", W) for part, W in zip("qkv", thirds, strict=True)]
        yield from (Matrix(_join(path, name), path, W.detach(), is_whole=False) for name, W in parts)
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        yield from _recurrent(path, module)


def _weight(module: nn.Module) -> Tensor:
    """As the layer uses it; a parametrization runs on copies of its buffers, as spectral_norm turns its vectors."""
    if not parametrize.is_parametrized(module, "weight"):
        return module.weight.detach()  # type: ignore[operator]
    made = module.get_submodule("parametrizations.weight")
    return functional_call(made, {name: b.clone() for name, b in made.named_buffers()}, ()).detach()


def _kernel(module: nn.modules.conv._ConvNd) -> Tensor:
    """(out, in k k), or one such matrix for each group."""
    W = _weight(module).unflatten(0, (module.groups, -1))  # (groups, out, in, k, ...)
    if module.transposed:
        W = W.transpose(1, 2)
    return W.flatten(2) if module.groups > 1 else W.flatten(2)[0]


def _recurrent(path: str, module: nn.Module) -> Iterator[Matrix]:
    gates = GATES.get(type(module), "")
    for name, W in module.named_parameters(recurse=False):
        if W.ndim != 2:
            continue
        split = gates and not name.startswith("weight_hr")  # the projection of an LSTM is one map
        parts = zip(gates, W.detach().chunk(len(gates)), strict=True) if split else [("", W.detach())]
        for gate, part in parts:
            yield Matrix(_join(path, f"{name}[{gate}]" if gate else name), path, part, is_whole=False)


def _bare(path: str, module: nn.Module) -> Iterator[Matrix]:
    """Parameters of two axes or more of a module of an unknown kind."""
    for name, W in module.named_parameters(recurse=False):
        if W.ndim > 1:
            yield Matrix(_join(path, name), _join(path, name), W.detach())


def _reason(matrix: Matrix, module: nn.Module, called: Collection[str]) -> str:
    """Why a parameter of an unknown kind is no linear map, "" if it is one."""
    if isinstance(module, TABLES):
        return "a table of vectors, no linear map"
    if matrix.weight.ndim > 2:
        return f"shape {tuple(matrix.weight.shape)} of a {type(module).__name__}, not known as a matrix"
    return "" if matrix.name in called else "not used as a matrix in this pass"
