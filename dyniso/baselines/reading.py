"""What a method may touch of somebody's model: its layers, the units between them, its heads; never by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from ..activations import ACTIVATION_TYPES, MIXING_TYPES
from ..copies import apart
from ..tracing import eager, trace
from .layers import Layer
from .recording import FeatureSource, sources_of, watched

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
pooling, padding = nn.modules.pooling, nn.modules.padding
APART = (  # other modules that keep units apart and in order, each in a block of its own
    nn.modules.dropout._DropoutNd, nn.Identity, nn.Flatten, nn.PixelUnshuffle, nn.LocalResponseNorm,
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd,
    padding._ConstantPadNd, padding._ReflectionPadNd, padding._ReplicationPadNd,
)  # fmt: skip


class Site(NamedTuple):
    """The units that an activation shows."""

    layer: str
    readers: tuple[str, ...]
    norms: tuple[nn.Module, ...]  # called on what the layer puts out
    source: FeatureSource  # of the activation, in every pass


class Reading(NamedTuple):
    """What a model shows of itself."""

    order: tuple[str, ...]  # of its layers in the forward pass; by registration where no pass was seen
    heads: tuple[str, ...] | None = None  # None: not known
    sites: tuple[Site, ...] = ()
    against: tuple[tuple[str | None, str], ...] = ()  # activations that cannot be matched: the layer, and a reason


def layers_of(model: nn.Module) -> tuple[dict[str, Layer], dict[str, str]]:
    """Linear layers and convolutions whose weights are parameters of their own; and the others, with the reason.

    >>> linear = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    >>> found, refused = layers_of(nn.Sequential(nn.Linear(3, 2), linear))
    >>> list(found), refused["1"]
    (['0'], 'its weight is computed from other parameters (weight_norm, spectral_norm, orthogonal, pruning)')
    """
    owners: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for p in module._parameters.values():
            owners[id(p)] += [name] if p is not None else []
    found, refused = {}, {}
    for name, module in model.named_modules():
        if not isinstance(module, LAYERS):
            continue
        computed = [key for key in ("weight", "bias") if key not in module._parameters]
        if computed:
            others = "weight_norm, spectral_norm, orthogonal, pruning"
            refused[name] = f"its {computed[0]} is computed from other parameters ({others})"
            continue
        sharers = [o for p in (module.weight, module.bias) if p is not None for o in owners[id(p)] if o != name]
        if sharers:
            refused[name] = f"it shares a parameter with {sharers[0]!r}"
        else:
            found[name] = Layer(name, module.weight, module.bias, getattr(module, "groups", 1))
    return found, refused


def other_weights(model: nn.Module) -> list[str]:
    """Names of the trainable matrices that belong neither to such layers nor to norms.

    >>> other_weights(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)))
    ['0.weight']
    """
    known = {id(p) for m in model.modules() if isinstance(m, LAYERS + NORMS) for p in m.parameters()}
    return [name for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1 and id(p) not in known]


def chain_of(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The modules of a Sequential of plain layers in order, (path, module); None where its order does not tell all.

    >>> [name for name, _ in chain_of(nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 1)))]
    ['0.0', '0.1', '1']
    """
    chain = list(leaves(model)) if isinstance(model, nn.Sequential) else []
    layers = [module for _, module in chain if isinstance(module, LAYERS)]
    plain = all(isinstance(m, LAYERS + NORMS + ACTIVATION_TYPES + APART) for _, m in chain)
    return chain if chain and plain and len({id(m) for m in layers}) == len(layers) else None


def leaves(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What a Sequential calls, one after another, through Sequentials inside; a shared module each time."""
    for key, child in model._modules.items():
        name = f"{path}{key}"
        if type(child) is nn.Sequential:
            yield from leaves(child, f"{name}.")
        elif child is not None:
            yield name, child


def read_chain(chain: Sequence[tuple[str, nn.Module]]) -> Reading:
    """What a chain of modules shows: each layer feeds what follows, up to the next layer; the last one is the head.

    >>> reading = read_chain(chain_of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    >>> reading.heads, reading.sites[0].layer, reading.sites[0].readers
    (('2',), '0', ('2',))
    """
    first = {id(module): name for name, module in reversed(chain)}  # a shared module has one name, and several calls
    starts = [i for i, (_, module) in enumerate(chain) if isinstance(module, LAYERS)]
    order = tuple(chain[i][0] for i in starts)
    sites, against = [], []
    for start, end in pairwise(starts):
        between = chain[start + 1 : end]
        acts = [i for i in range(start + 1, end) if isinstance(chain[i][1], ACTIVATION_TYPES)]
        why = objection(chain[start][1], between, chain[end][1])
        if acts and why:
            against.append((chain[start][0], f"{chain[acts[-1]][0]!r}: {why}"))
        elif acts:
            norms = tuple(module for _, module in chain[start + 1 : acts[-1]] if isinstance(module, NORMS))
            call = sum(module is chain[acts[-1]][1] for _, module in chain[: acts[-1]])
            source = FeatureSource("output", first[id(chain[acts[-1]][1])], call, unit_axis(chain[start][1]))
            sites.append(Site(chain[start][0], (chain[end][0],), norms, source))
    return Reading(order, order[-1:], tuple(sites), tuple(against))


def objection(layer: Any, between: Sequence[tuple[str, nn.Module]], reader: Any) -> str:
    """Why the units of a layer are not blocks of columns of the next layer, in order; "" if they are."""
    modules = [module for _, module in between]
    mixing = [type(module).__name__ for module in modules if isinstance(module, MIXING_TYPES)]
    if mixing:
        return f"{mixing[0]} mixes units"
    flat = any(isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1) for module in modules)
    units, columns = len(layer.weight), reader.weight.shape[1] * getattr(reader, "groups", 1)
    maps, maps_after = layer.weight.ndim > 2, reader.weight.ndim > 2
    in_blocks = columns % units == 0 and (maps_after or flat) if maps else columns == units and not maps_after
    return "" if in_blocks else "how its units are read shows in a pass only; give an example"


def unit_axis(layer: Any) -> int:
    """Where the units of a layer lie in what it reads and puts out: the last axis, or that of channels.

    >>> unit_axis(nn.Linear(4, 8)), unit_axis(nn.Conv2d(4, 8, 3))
    (-1, -3)
    """
    return 1 - layer.weight.ndim if layer.weight.ndim > 2 else -1


def read_pass(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reading:
    """What one forward pass shows, the model and the inputs left as they were."""
    traced, model = trace(model, *args, **kwargs), apart(model)  # a copy has the same parameters, also in its norms
    args, kwargs = tree_map(lambda a: a.clone() if isinstance(a, Tensor) else a, (args, kwargs))
    devices = {p.device for p in model.parameters() if p.is_cuda}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    kinds = {site.kind for site in traced.sites}
    with (
        torch.random.fork_rng(devices),
        torch.enable_grad(),  # as in the trace: without it, a transformer in evaluation mode takes another path
        eager(),
        norms_behind_layers(model) as norms,
        watched(model, kinds) as events,
    ):
        functional_call(model, buffers, args, kwargs)
    matched = [site for site in traced.sites if not site.why and site.layer]
    sites = [
        Site(str(site.layer), site.readers, tuple(norms[str(site.layer)]), source)
        for site, source in zip(matched, sources_of(matched, events), strict=True)
    ]
    against = tuple((site.layer, f"{site.name!r}: {site.why}") for site in traced.sites if site.why)
    return Reading(traced.layers, traced.heads, tuple(sites), against)


@contextmanager
def norms_behind_layers(model: nn.Module) -> Iterator[dict[str, list[nn.Module]]]:
    """Collect, while the block runs, the norms that are called on what a layer puts out, by the name of the layer."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id is not given to another one
    found: dict[str, list[nn.Module]] = defaultdict(list)

    def layer(name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        made[id(output)] = name, output

    def norm(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if args and id(args[0]) in made:
            made[id(output)] = made[id(args[0])][0], output
            found[made[id(output)][0]].append(module)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, LAYERS):
                stack.callback(module.register_forward_hook(partial(layer, name)).remove)
            elif isinstance(module, NORMS):
                stack.callback(module.register_forward_hook(norm).remove)
        yield found
