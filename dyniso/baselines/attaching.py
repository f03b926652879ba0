"""Putting a method to work on somebody's model: what is asked for, what is refused, and what is then recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..checks import require, require_type
from ..tracing import readable
from .attached import Attached
from .base import ACTS_ON, Baseline
from .layers import Layer, Units, is_frozen
from .reading import Reading, Site, chain_of, layers_of, other_weights, read_chain, read_pass, unit_axis
from .recording import FeatureSource, Recorder


def attach(
    baseline: Baseline,
    model: nn.Module,
    optimizer: Any = None,
    seed: int = 0,
    *,
    example: Any = None,
    layers: Sequence[str] | None = None,
) -> Attached:
    """Put a method to work on one net.

    It acts on Linear and Conv1d to Conv3d. Of an `nn.Sequential` of layers, norms, activations and what keeps units
    apart the order tells all; of any other model one traced pass of an example does: which layer feeds which
    activation, be it a module or a function, and who reads it. Methods that treat all layers alike need neither.

    Args:
        baseline: e.g. ReDo().
        model: hooks record its activations, where the method reads them.
        optimizer: the one that trains the model; two as one are `Several(muon, adam)`.
        seed: of the method's own draws.
        example: what the model is called with: one batch, a tuple of arguments, or a dict of keyword arguments. The
            model is left as it was.
        layers: names of the layers that it acts on, or whose units it replaces; None: all.
    Returns:
        The method at work; call its `penalty`, `after_step` and `new_task` in the training loop, `detach` at the end.
        Frozen parameters are left alone.
    Raises:
        ValueError: no hidden layer; a layer whose weight is computed from others, or shared; a matrix of another kind,
            which would be left out; an activation that mixes units, or cannot be matched to one layer; a model that
            shows no order and no example; an optimizer that does not train what the method changes. Names the layers.

    >>> from dyniso.baselines import L2
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> method = attach(L2(strength=2.0), model)
    >>> bool(method.penalty() == sum(p.square().sum() for p in model.parameters()))
    True
    """
    require_type("baseline", baseline, Baseline, "a method, e.g. attach(ReDo(), model, optimizer)")
    require_type("model", model, nn.Module, "a module, e.g. attach(ReDo(), model, optimizer)")
    inner = readable(model)
    found = own_layers(baseline, inner, layers)
    reading = read(baseline, inner, example)
    chosen = [found[name] for name in called(baseline, reading, [n for n in found if layers is None or n in layers])]
    require_heads(baseline, reading, chosen)
    sites = sites_of(baseline, reading, found, layers) if baseline.acts_on == "units" else []
    units = [units_of(site, found) for site in sites]
    require_trained(baseline, optimizer, chosen, units)
    net = Attached(baseline, chosen, optimizer, model, [seed], 0, True, units, reading.heads or ())
    net.modules = {layer.name: inner.get_submodule(layer.name) for layer in chosen}
    sources = [feature_source(net)] if baseline.reads_features else [site.source for site in sites]
    if sources and inner is not model:
        raise ValueError(
            f"{type(baseline).__name__} reads activations, which a compiled model hides; train the eager one"
        )
    if sources or baseline.acts_on == "outputs":
        Recorder(net, model, sources)
    return net


def own_layers(baseline: Baseline, model: nn.Module, wanted: Sequence[str] | None) -> dict[str, Layer]:
    """The layers that a method may change, by name; ValueError for what it would miss or spoil."""
    method = type(baseline).__name__
    found, refused = layers_of(model)
    if len(found) + len(refused) < 2:
        raise ValueError(f"{method} needs a hidden layer and a head; got {len(found)} layers (Linear or convolution)")
    for name in wanted or ():
        require("layers", name, [*found, *refused])
    stopped = [f"{name!r}: {why}" for name, why in refused.items() if wanted is None or name in wanted]
    if stopped:
        raise ValueError(f"{method} cannot act on {'; '.join(stopped)}. {REMEDY}")
    missed = other_weights(model) if wanted is None and baseline.acts_on in ("all", "hidden") else []
    if missed:
        raise ValueError(f"{method} acts on Linear and convolutions and would leave out {missed}. {REMEDY}, {[*found]}")
    return found


REMEDY = "Name the layers that it shall act on: attach(..., layers=[...])"


def read(baseline: Baseline, model: nn.Module, example: Any) -> Reading:
    """What the model shows, as far as the method has to know; ValueError where it would need an example."""
    if example is not None:
        args = example if isinstance(example, tuple) else () if isinstance(example, dict) else (example,)
        return read_pass(model, args, example if isinstance(example, dict) else {})
    chain = chain_of(model)
    if chain is not None:
        return read_chain(chain)
    if baseline.acts_on in ("all", "outputs") and not baseline.reads_features:
        return Reading(tuple(layers_of(model)[0]))
    raise ValueError(
        f"{type(baseline).__name__} acts on {ACTS_ON[baseline.acts_on]}; how the layers of {type(model).__name__} are "
        "connected shows in a forward pass only: attach(..., example=x), where x is one batch of inputs"
    )


def called(baseline: Baseline, reading: Reading, wanted: Sequence[str]) -> list[str]:
    """Names of the layers in the order of the forward pass; ValueError if it left out one that might be a head."""
    idle = [name for name in wanted if name not in reading.order]
    if idle and baseline.acts_on in ("hidden", "head"):
        raise ValueError(f"the example does not call {idle}, so {type(baseline).__name__} cannot tell heads. {REMEDY}")
    return [*(name for name in reading.order if name in wanted), *idle]


def require_heads(baseline: Baseline, reading: Reading, chosen: Sequence[Layer]) -> None:
    """Raise ValueError if a method that acts on heads would find none."""
    heads = reading.heads or ()
    if baseline.acts_on == "head" and not {layer.name for layer in chosen} & set(heads):
        raise ValueError(
            f"{type(baseline).__name__} acts on the head; the model's output comes from {[*heads]}, which is none of "
            f"the layers that it can act on here, {[layer.name for layer in chosen]}"
        )


def sites_of(baseline: Baseline, reading: Reading, found: dict[str, Layer], wanted: Sequence[str] | None) -> list[Site]:
    """The units that may be replaced; ValueError for every one that cannot, with the reason."""
    sites = [site for site in reading.sites if wanted is None or site.layer in wanted]
    against = [why for layer, why in reading.against if wanted is None or layer in wanted]
    ends = {end: site for site in sites for end in (site.layer, *site.readers) if end not in found}
    against += [f"layer {end!r}: not a Linear or convolution with weights of its own" for end in ends]
    shown = {site.layer for site in sites} | {layer for layer, _ in reading.against}
    against += [f"layer {name!r}: no activation follows" for name in wanted or () if name not in shown]
    if against or not sites:
        good = [site.layer for site in reading.sites if not {site.layer, *site.readers} - found.keys()]
        raise ValueError(
            f"{type(baseline).__name__} acts on single units; it cannot where activations mix them, or no one layer "
            f"feeds them: {'; '.join(against) or 'no layer feeds an activation that another layer reads'}"
            + (f". It can with layers={good}" if good else "")
        )
    return sites


def units_of(site: Site, found: dict[str, Layer]) -> Units:
    """Layer, readers, and what norms in between keep for each unit, unless it is frozen."""
    scales: list[Tensor] = []
    shifts: list[Tensor] = []
    units = len(found[site.layer].weight)
    for norm in site.norms:
        own = {**norm._parameters, **norm._buffers}
        if not any(p is not None and is_frozen(p) for p in own.values()):
            scales += [p for p in (own.get("weight"), own.get("running_var")) if p is not None and len(p) == units]
            shifts += [p for p in (own.get("bias"), own.get("running_mean")) if p is not None and len(p) == units]
    return Units(found[site.layer], tuple(found[name] for name in site.readers), tuple(scales), tuple(shifts))


def require_trained(baseline: Baseline, optimizer: Any, chosen: Sequence[Layer], units: Sequence[Units]) -> None:
    """Raise ValueError unless the optimizer, if there is one, trains every parameter that the method may change."""
    if optimizer is None or baseline.acts_on == "outputs":
        return
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    layers = [*chosen, *(reader for unit in units for reader in unit.readers)]
    missed = [
        layer.name
        for layer in layers
        if any(p is not None and not is_frozen(p) and id(p) not in trained for p in (layer.weight, layer.bias))
    ]
    if missed:
        raise ValueError(
            f"{type(baseline).__name__}: the optimizer does not train {list(dict.fromkeys(missed))}; give the one that "
            "does (two as one: Several(muon, adam)), freeze these layers, or name others: layers=[...]"
        )


def feature_source(net: Attached) -> FeatureSource:
    """What the head reads; ValueError where several layers are heads."""
    if len(net.heads) != 1:
        names = [layer.name for layer in net.heads]
        raise ValueError(f"{type(net.baseline).__name__} reads what one head reads, not {names}. {REMEDY}, one of them")
    return FeatureSource("input", net.heads[0].name, 0, unit_axis(net.heads[0]))
