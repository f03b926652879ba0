"""What a traced pass tells: `dyniso.tracing` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from . import units


class ActivationSite(NamedTuple):
    """One activation of one pass.

    Attributes:
        name: path of the module, or of the module that calls the function, and the function: "block.relu".
        kind: class or function: "ReLU", "relu".
        output: what it put out, a copy, detached.
        axis: where its units lie: 1 for channels of maps (n, C, h, w), 2 for tokens (n, T, D); None if it is one unit.
        layer: the one layer whose output it reads through what keeps units apart, or None.
        readers: the layers that read its output, or a sum in which it is.
        why: "" where unit i is row i of `layer` and nothing else, and reaches the output through `readers` only, whose
            columns hold the units in order, in blocks of one size; otherwise what stands against it.
    """

    name: str
    kind: str
    output: Tensor
    axis: int | None
    layer: str | None
    readers: tuple[str, ...]
    why: str

    def by_unit(self) -> Tensor:
        """The output as (samples, units); positions of maps and tokens count as samples."""
        return by_unit(self.output, self.axis)


class Trace(NamedTuple):
    """What one pass showed.

    Attributes:
        sites: its activations, in order of the calls.
        layers: its layers (Linear, convolutions, recurrent, attention, embeddings), in order of their first calls. A
            matrix that is used without a module of these kinds goes by the name of the parameter.
        heads: the layers from which the output is reached without another layer in between.
        repeated: the layers that are called more than once.
        fed_by: layer -> the layers from which its inputs come without another layer in between.
    """

    sites: tuple[ActivationSite, ...]
    layers: tuple[str, ...]
    heads: tuple[str, ...]
    repeated: tuple[str, ...]
    fed_by: dict[str, tuple[str, ...]]


def by_unit(output: Tensor, axis: int | None) -> Tensor:
    """A tensor as (samples, units), its units along `axis` now (None: one unit); all other axes count as samples.

    >>> by_unit(Tensor(2, 3, 4, 5), 1).shape
    torch.Size([40, 3])
    """
    return output.reshape(-1, 1) if axis is None else output.movedim(axis, -1).reshape(-1, output.shape[axis])


class Origin(NamedTuple):
    """Where a tensor comes from."""

    layer: str  # the one layer that it is the output of, "" if there is none
    parts: tuple[str, ...]  # how an error words it, e.g. ("layer 'fc1'",), or the parts of a sum
    what: str  # "" for one thing, "sum", "product", ...
    sites: frozenset[int]  # activations that are in it
    last: frozenset[str]  # layers from which it is reached without another one in between
    code: Tensor | None  # unit of each entry (`dyniso.units`); None where units got mixed

    def __str__(self) -> str:
        if not self.what:
            return self.parts[0]
        shown = [*self.parts[:3], *(["more"] if len(self.parts) > 3 else [])]
        return f"the {self.what} of {', '.join(shown[:-1])} and {shown[-1]}"


def origin_of(
    text: str, x: Tensor, last: frozenset[str] = frozenset(), layer: str = "", axis: int | None = None
) -> Origin:
    return Origin(layer, (text,), "", frozenset(), last, units.fresh(x, axis if x.ndim else None))


@dataclass
class Site:
    """An activation while the pass goes on."""

    name: str
    kind: str
    output: Tensor
    axis: int | None
    origin: Origin  # of its input
    readers: dict[str, None] = field(default_factory=dict)
    against: dict[str, None] = field(default_factory=dict)  # what stands against a match

    def by_unit(self) -> Tensor:
        return by_unit(self.output, self.axis)

    def units(self) -> int:
        return 1 if self.axis is None else self.output.shape[self.axis]


def why_unmatched(site: Site, taken: dict[str, dict[str, None]], calls: Mapping[str, int], model: nn.Module) -> str:
    """What stands against taking unit i for row i of the layer and nothing else, "" if nothing does.

    Args:
        site: an activation of the pass.
        taken: layer -> what takes its output. calls: layer -> how often it was called.
        model: the one that was traced.

    >>> why_unmatched(Site("act", "ReLU", Tensor(2, 3), 1, origin_of("the input", Tensor(2, 3))), {}, {}, nn.ReLU())
    'it reads the input'
    """
    layer = site.origin.layer
    if not layer:
        return "; ".join([f"it reads {site.origin}", *site.against])
    others = [by for by in taken[layer] if by != f"activation {site.name!r}"]
    ends = [layer, *(reader for reader in site.readers if reader != layer)]
    found = [f"layer {end!r} is called {calls[end]} times" for end in ends if calls[end] > 1]
    found += [
        f"layer {end!r} shares a parameter with {other!r}" for end in ends for other in _sharers(end, calls, model)
    ]
    found += [why for end in ends if (why := _unusual(end, model, is_reader=end != layer))]
    found += [f"layer {layer!r} also feeds {other}" for other in others]
    found += [] if site.readers or site.against else ["no layer reads it"]
    return "; ".join([*found, *site.against])


def _sharers(layer: str, calls: Mapping[str, int], model: nn.Module) -> list[str]:
    """Other layers, and parameters that are used without their module, that are the same tensors."""
    modules = dict(model.named_modules())
    mine = {id(p) for p in modules[layer].parameters()} if layer in modules else set()
    bare = {name: id(p) for name, p in model.named_parameters() if name in calls}
    own = {name: {id(p) for p in m.parameters(recurse=False)} for name, m in modules.items()}
    inside = (layer, f"{layer}.")
    others = [name for name, ids in own.items() if ids & mine and name != layer and not name.startswith(inside[1])]
    return others + [name for name, p in bare.items() if p in mine]


def _unusual(layer: str, model: nn.Module, is_reader: bool) -> str:
    """Why the rows of a layer's weight are not its units, or the columns not what it reads; "" if they are."""
    modules = dict(model.named_modules())
    module = modules.get(layer)
    if module is None:
        return f"{layer!r} is used without a module"
    if isinstance(module, nn.modules.conv._ConvNd):
        in_groups = is_reader and module.groups > 1
        return (
            f"layer {layer!r} is {'in groups' if in_groups else 'transposed'}" if in_groups or module.transposed else ""
        )
    if isinstance(module, nn.Linear):
        return ""
    return f"layer {layer!r} is of kind {type(module).__name__}, whose weight is not one row a unit"
