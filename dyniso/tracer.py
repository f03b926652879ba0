"""The machinery of `dyniso.tracing`: hooks and a function mode that follow every tensor of a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from . import units
from .activations import ACTIVATION_TYPES, MIXING_TYPES
from .trace_result import ActivationSite, Origin, Site, Trace, origin_of, why_unmatched
from .trace_rules import (
    ALIKE,
    BENDS,
    FUNCTIONS,
    JOINS,
    LAYERS,
    PRODUCTS,
    RESHAPED,
    UNLIKE,
    Call,
    is_pool,
    name_of,
    unit_axis,
)


class _Frame(NamedTuple):
    """A module that is being called, and what was known before."""

    name: str
    module: nn.Module
    given: list[Tensor]
    seen: set[str]  # operations inside
    sites: list[Site]
    taken: dict[str, dict[str, None]]


class Tracer(TorchFunctionMode):
    """Hooks and a function mode that together see a pass; `watch` puts them to work.

    Args:
        model: as `readable` gives it.
        keep_graph: whether what is stored stays connected to the autograd graph.
        at_end: called at the end of each pass, after which it is forgotten; None keeps the last pass for `result`.
    """

    def __init__(
        self, model: nn.Module, keep_graph: bool = False, at_end: Callable[[Tracer], None] | None = None
    ) -> None:
        super().__init__()
        self.model, self.keep_graph, self.at_end = model, keep_graph, at_end
        self.passes = 0
        self.names = {id(module): name for name, module in model.named_modules()}
        self.owned: dict[int, tuple[str, Tensor]] = {id(p): (name, p) for name, p in model.named_parameters()}
        self.start()

    def start(self) -> None:
        """Forget the last pass."""
        self.sites: list[Site] = []
        self.taken: dict[str, dict[str, None]] = {}  # layer -> what takes its output
        self.calls: Counter[str] = Counter()
        self.fed: dict[str, dict[str, None]] = {}  # layer -> the layers from which its inputs come
        self.known: dict[int, tuple[Tensor, Origin | None]] = {}  # None: made of constants and parameters alone
        self.frames: list[_Frame] = []
        self.inside = 0  # layers and activation modules that are being called: their inner operations are their own

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Hooks before and after every module, gone afterwards."""
        with ExitStack() as stack:
            for module in self.model.modules():
                before = module.register_forward_pre_hook(self._before, with_kwargs=True)
                after = module.register_forward_hook(self._after, with_kwargs=True, prepend=True)
                stack.callback(before.remove)
                stack.callback(after.remove)
            with self:
                yield

    # ------------------------------------------------------------------------------------------ what is seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.frames and not self.inside:
            name = name_of(func)
            results = [args[0]] if name == "setitem" else _tensors(out)
            if results:
                self._note(Call(name, func, args, kwargs or {}), results)
        return out

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = _tensors((args, kwargs))
        if not self.frames or module is self.model:
            self.start()
            for x in given:
                self._set(x, origin_of("the input", x))
        name = self.names[id(module)]
        sites, taken = [*self.sites], {k: {**v} for k, v in self.taken.items()}
        self.frames.append(_Frame(name, module, given, set(), sites, taken))
        if is_whole(module) and isinstance(module, LAYERS) and not self.inside:
            self._read(name, [o for x in given if (o := self._origin(x))], unit_axis(module))
        self.inside += is_whole(module)

    def _after(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self._end_call(self.frames.pop(), module, out)
        if not self.frames:
            self.passes += 1
            if self.at_end:
                self.at_end(self)
                self.start()

    def _end_call(self, frame: _Frame, module: nn.Module, out: Any) -> None:
        kind = type(module).__name__
        self.inside -= is_whole(module)
        if self.inside:
            return
        if isinstance(module, LAYERS):
            if not is_whole(module):
                return  # its own forward: seen operation by operation
            name = f"{frame.name}.out_proj".lstrip(".") if isinstance(module, nn.MultiheadAttention) else frame.name
            self._put_out(name, _tensors(out), unit_axis(module))
        elif isinstance(module, ACTIVATION_TYPES) and frame.given:
            self._activation(frame.name, kind, frame.given[0], out, isinstance(module, MIXING_TYPES))
        elif _is_activation(frame, out):
            self.sites, self.taken = frame.sites, frame.taken  # what was seen inside is part of it
            self._activation(frame.name, kind, frame.given[0], out, not frame.seen <= ALIKE | FUNCTIONS - {"glu"})
        elif self.frames:
            self.frames[-1].seen.update(frame.seen)

    def _note(self, call: Call, results: list[Tensor]) -> None:
        name, tensors = call.name, _tensors((call.args, call.kwargs))
        weights = [self.owned[id(x)][0] for x in tensors if id(x) in self.owned and x.ndim > 1]
        found = [(x, o) for x in tensors if (o := self._origin(x))]
        origins = list({id(x): o for x, o in found}.values())
        if not origins or call.makes_constant():
            self._constant(name, [self.owned[id(x)][0] for x in tensors if id(x) in self.owned], results)
            return
        self.frames[-1].seen.add(name)
        if len(origins) == 1 and (kind := call.activation()):
            self._activation(f"{self.frames[-1].name}.{kind}".lstrip("."), kind, found[0][0], results[0], kind == "glu")
        elif name in PRODUCTS and (weights or isinstance(self.frames[-1].module, LAYERS)):
            layer = self.frames[-1].name if isinstance(self.frames[-1].module, LAYERS) else weights[0]
            axis = -int(name[-2]) - 1 if name.startswith("conv") else -1
            self._read(layer, origins, axis)
            self._put_out(layer, results, axis)
        elif name in units.MOVES or (len(origins) == 1 and call.keeps_units_apart()):
            self._pass_on(call, *found[0], results)
        elif name in ALIKE | JOINS:
            self._combine(name, [o for _, o in found], results)
        else:
            self._lose(name, origins, results)

    # --------------------------------------------------------------------------------------- what follows from it

    def _origin(self, x: Tensor) -> Origin | None:
        """Where a tensor comes from; None for parameters, buffers and what is made of them alone."""
        if id(x) in self.known:
            return self.known[id(x)][1]
        if x.grad_fn is None or id(x) in self.owned:
            return None
        return origin_of("a tensor that no operation seen here made", x)

    def _set(self, x: Tensor, origin: Origin | None) -> None:
        self.known[id(x)] = x, origin  # the tensor is kept, so that its id is not given to another one

    def _constant(self, name: str, owners: list[str], results: list[Tensor]) -> None:
        for out in results:
            self._set(out, None)
            if owners and name in RESHAPED:
                self.owned[id(out)] = owners[0], out

    def _read(self, reader: str, origins: list[Origin], axis: int) -> None:
        """A layer reads these tensors."""
        for origin in origins:
            self.fed.setdefault(reader, {}).update(dict.fromkeys(origin.last))
            self._take(origin, f"layer {reader!r}")
            for i in origin.sites:
                self.sites[i].readers[reader] = None
                if not origin.what and not units.is_in_blocks(origin.code, axis, self.sites[i].units()):
                    self._object([i], f"layer {reader!r} does not read its units in order")

    def _put_out(self, layer: str, results: list[Tensor], axis: int) -> None:
        self.calls[layer] += 1
        for out in results:
            self._set(out, origin_of(f"layer {layer!r}", out, frozenset([layer]), layer, axis))

    def _pass_on(self, call: Call, x: Tensor, origin: Origin, results: list[Tensor]) -> None:
        code = None if origin.code is None else units.moved(*call, x, origin.code, results[0])
        codes = [code] * len(results) if code is None or isinstance(code, Tensor) else list(code)
        for out, each in zip(results, codes, strict=True):
            self._set(out, origin._replace(code=each))

    def _combine(self, name: str, origins: list[Origin], results: list[Tensor]) -> None:
        first, out = origins[0], results[0]
        codes = [o.code for o in origins if o.code is not None and o.code.shape == out.shape]
        code = codes[0] if codes else units.fresh(out)
        same = all((o.layer, o.parts, o.sites) == (first.layer, first.parts, first.sites) for o in origins)
        if same and name not in JOINS and (first.layer or first.sites):
            self._set(out, first._replace(code=code))
            return
        what = "concatenation" if name in JOINS else "product" if name in ("mul", "div") else "sum"
        for o in origins:
            others = [str(other) for other in origins if other is not o]
            self._take(o, f"a {what}")
            self._object(o.sites, f"its output enters a {what} with {others[0] if others else 'itself'}")
        parts = tuple(dict.fromkeys(p for o in origins for p in (o.parts if o.what in ("", what) else (str(o),))))
        merged = Origin(
            "", parts, what if len(parts) > 1 else "", _union(o.sites for o in origins), _last(origins), code
        )
        for out in results:
            self._set(out, merged)

    def _lose(self, name: str, origins: list[Origin], results: list[Tensor]) -> None:
        """An operation that no rule knows: what it makes has no one layer."""
        for o in origins:
            self._take(o, f"{name}()")
            self._object(o.sites, f"its output passes through {name}()")
        for out in results:
            self._set(out, origin_of(f"the result of {name}()", out, _last(origins)))

    def _activation(self, name: str, kind: str, x: Tensor, out: Any, is_mixing: bool) -> None:
        if not isinstance(out, Tensor) or not out.ndim:
            return
        origin = self._origin(x) or origin_of("a tensor that no layer made", x)
        i, name = len(self.sites), self._unique(name)
        self._take(origin, f"activation {name!r}")
        self._object(origin.sites, f"its output passes through activation {name!r}")
        axis = _axis_after(origin.code, x, out)
        kept = out.clone() if self.keep_graph else out.detach().clone()  # a later operation may work in place
        self.sites.append(Site(name, kind, kept, axis, origin))
        if is_mixing or out.shape != x.shape:
            self._object([i], f"{kind} mixes units")
        elif origin.layer and not _is_row_by_row(origin.code, axis):
            self._object([i], f"unit i is not row i of {origin.layer!r}")
        code = units.fresh(out, axis) if axis is not None else torch.zeros_like(out, dtype=torch.int32)
        self._set(out, Origin("", (f"activation {name!r}",), "", frozenset([i]), origin.last, code))

    def _unique(self, name: str) -> str:
        taken = {site.name for site in self.sites}
        names = (f"{name}_{n}" if n else name for n in range(len(taken) + 1))
        return next(n for n in names if n not in taken)

    def _take(self, origin: Origin, by: str) -> None:
        if origin.layer:
            self.taken.setdefault(origin.layer, {})[by] = None

    def _object(self, sites: Iterable[int], why: str) -> None:
        for i in sites:
            self.sites[i].against[why] = None

    # ------------------------------------------------------------------------------------------------ the result

    def result(self, output: Any) -> Trace:
        """What the pass showed, from all that was seen and what the model returned."""
        returned = [o for x in _tensors(output) if (o := self._origin(x))]
        for o in returned:
            self._take(o, "the model's output")
            self._object(o.sites, "the model returns it")
        sites = [
            ActivationSite(s.name, s.kind, s.output, s.axis, s.origin.layer or None, tuple(s.readers), why)
            for s in self.sites
            for why in [why_unmatched(s, self.taken, self.calls, self.model)]
        ]
        heads = _last(returned)
        repeated = tuple(layer for layer, count in self.calls.items() if count > 1)
        ordered = tuple(layer for layer in self.calls if layer in heads)
        return Trace(tuple(sites), tuple(self.calls), ordered, repeated, {k: tuple(v) for k, v in self.fed.items()})


def _tensors(tree: Any) -> list[Tensor]:
    """All tensors in containers, mappings and dataclasses of any kind."""
    found: list[Tensor] = []
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, Mapping):
            found += _tensors(list(leaf.values()))
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += _tensors(list(vars(leaf).values()))
    return found


def is_whole(module: nn.Module) -> bool:
    """A layer of torch's with torch's own forward, or an activation: what happens inside is its own affair.

    >>> is_whole(nn.Linear(2, 2)), is_whole(nn.Tanh()), is_whole(nn.Sequential())
    (True, True, False)
    """
    is_layer = isinstance(module, LAYERS) and module.forward.__module__.startswith("torch.nn")
    return is_layer or isinstance(module, ACTIVATION_TYPES)


def _union(sets: Iterable[frozenset[Any]]) -> frozenset[Any]:
    return frozenset().union(*sets)


def _last(origins: Iterable[Origin]) -> frozenset[str]:
    return _union(o.last for o in origins)


def _axis_after(code: Tensor | None, x: Tensor, out: Tensor) -> int | None:
    """Where an activation's units lie; a guess where they could not be followed, `units.fresh`'s."""
    if code is not None and x.ndim == out.ndim:
        axis = units.axis_of(code)
        if axis is not None or not code.numel() or not code.any():
            return axis
    return units.axis_of(units.fresh(out))


def _is_row_by_row(code: Tensor | None, axis: int | None) -> bool:
    return code is not None and (axis is None or units.is_in_blocks(code, axis, code.shape[axis]))


def _is_activation(frame: _Frame, out: Any) -> bool:
    """A module without parts or matrices that bends its one input, and is none of torch's: an activation."""
    module = frame.module
    is_bare = not [*module.children(), *module.buffers(), *(p for p in module.parameters() if p.ndim > 1)]
    is_own = not type(module).__module__.startswith("torch.nn")
    bends = bool(frame.seen & BENDS) and not (frame.seen & UNLIKE or any(map(is_pool, frame.seen)))
    return is_bare and is_own and bends and len(frame.given) == 1 and isinstance(out, Tensor)
