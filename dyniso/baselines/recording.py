"""What is recorded in every forward pass for a method that reads activations, and how it is found in an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checks import require_that
from ..trace_result import by_unit
from ..tracing import ActivationSite
from .attached import Attached

RELU = frozenset({"clamp", "clip", "clampmin", "maximum", "max"})  # other ways to write it


class FeatureSource(NamedTuple):
    """One tensor of each forward pass: what a module gets or puts out, or what a function call gives."""

    what: str  # "input" or "output" of a module, or "function"
    name: str  # of the module or the function, without underscores
    call: int  # which call of it in the pass, from 0
    axis: int | None  # where its units lie; None: it is one unit


class Calls(TorchFunctionMode):
    """While active, tells of every call of functions with some names: name, result."""

    def __init__(self, names: Iterable[str], tell: Callable[[str, Tensor], None]):
        super().__init__()
        self.names, self.tell = frozenset(names), tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").replace("_", "")
        if name in self.names and isinstance(out, Tensor):
            self.tell(name, out)
        return out


class Recorder:
    """Hooks that hand some tensors of each forward pass, by unit, to a method at work."""

    def __init__(self, net: Attached, model: nn.Module, sources: Sequence[FeatureSource]):
        self.net, self.sources = net, list(sources)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.found: dict[FeatureSource, Tensor] = {}
        self.modes: list[Calls] = []
        modules = dict(model.named_modules())
        net.handles.append(model.register_forward_pre_hook(self.begin, with_kwargs=True))
        for what, name in {(source.what, source.name) for source in sources}:
            if what == "input":
                net.handles.append(modules[name].register_forward_pre_hook(partial(self.given, name)))
            elif what == "output":
                net.handles.append(modules[name].register_forward_hook(partial(self.put_out, name)))
        net.handles.append(model.register_forward_hook(self.end, always_call=True))

    def begin(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.net.inputs = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) else None
        self.net.activations, self.found = [], {}
        self.counts.clear()
        functions = {source.name for source in self.sources if source.what == "function"}
        if functions:
            self.modes.append(Calls(functions, partial(self.keep, "function")))
            self.modes[-1].__enter__()

    def given(self, name: str, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.keep("input", name, args[0])

    def put_out(self, name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.keep("output", name, output)

    def keep(self, what: str, name: str, x: Tensor) -> None:
        """Note one tensor; activations as a copy, for a later layer may work in place."""
        call = self.counts[what, name]
        self.counts[what, name] += 1
        for source in self.sources:
            if source[:3] == (what, name, call):
                self.found[source] = by_unit(x if what == "input" else x.detach().clone(), source.axis)

    def end(self, _model: nn.Module, _args: Any, _output: Any) -> None:
        if self.modes:
            self.modes.pop().__exit__(None, None, None)
        self.net.activations = [self.found[source] for source in self.sources if source in self.found]
        self.found = {}


class Event(NamedTuple):
    """A result in an example pass that may be an activation."""

    source: FeatureSource
    kind: str
    output: Tensor


@contextmanager
def watched(model: nn.Module, kinds: Iterable[str]) -> Iterator[list[Event]]:
    """Collect what modules and functions of these kinds put out while the block runs, in order of the calls."""
    events: list[Event] = []
    counts: Counter[tuple[str, str]] = Counter()
    names = {kind.replace("_", "").lower() for kind in kinds}

    def note(what: str, name: str, kind: str, output: Tensor) -> None:
        events.append(Event(FeatureSource(what, name, counts[what, name], None), kind, output.detach().clone()))
        counts[what, name] += 1

    def hook(name: str, module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            note("output", name, type(module).__name__, output)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if type(module).__name__ in kinds:
                stack.callback(module.register_forward_hook(partial(hook, name)).remove)
        functions = names | (RELU if names & {"relu", "clamp"} else set())
        stack.enter_context(Calls(functions, lambda name, out: note("function", name, name, out)))
        yield events


def sources_of(sites: Sequence[ActivationSite], events: Sequence[Event]) -> list[FeatureSource]:
    """Where each activation of an example pass is found in every pass, by its values; both in order of the calls.

    Raises:
        ValueError: an activation that the second pass does not show: the model does not do the same twice.
    """
    found: list[FeatureSource] = []
    position = 0
    for site in sites:
        kinds = {site.kind} | (RELU if site.kind in ("relu", "clamp") else set())
        fitting = [i for i, e in enumerate(events) if i >= position and e.kind in kinds and same(e.output, site.output)]
        require_that(fitting, "activation", site.name, "the same when the model is called again with the example")
        found.append(events[fitting[0]].source._replace(axis=site.axis))
        position = fitting[0] + 1
    return found


def same(x: Tensor, y: Tensor) -> bool:
    """Equal but for rounding, which differs between two passes on a GPU."""
    return x.shape == y.shape and torch.allclose(x, y.to(x), rtol=1e-4, atol=1e-6, equal_nan=True)
