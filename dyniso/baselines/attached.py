"""A method at work on one net or on stacked runs: what it sees of the net, and how it changes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import require_that
from .adapters import clear
from .base import Baseline
from .layers import Layer, Units, copied, is_frozen, on_columns, on_rows


class Attached:
    """A method at work on a net: its layers, its optimizer, its random draws, and its state.

    Args:
        baseline: the method.
        layers: in order of the forward pass.
        optimizer: whose moments are cleared where units are replaced, and whose learning rate some methods follow.
        forward: inputs -> outputs (*runs, samples, C).
        seeds: one a run.
        batch_dims: leading axes that index runs: 0 for one net, 1 for stacked runs.
        elementwise: whether each hidden activation belongs to one unit, as methods that replace units need.
        units: in the order in which their activations are recorded; None: each layer feeds the next.
        heads: names of the layers that are heads; None: the last one.
    Raises:
        ValueError: no hidden layer, or what the method refuses.
    """

    def __init__(
        self,
        baseline: Baseline,
        layers: Sequence[Layer],
        optimizer: Any = None,
        forward: Callable[[Tensor], Any] | None = None,
        seeds: Sequence[int] = (0,),
        batch_dims: int = 0,
        elementwise: bool = True,
        units: Sequence[Units] | None = None,
        heads: Collection[str] | None = None,
    ):
        self.baseline, self.layers, self.optimizer, self.forward = baseline, list(layers), optimizer, forward
        self.batch_dims, self.elementwise = batch_dims, elementwise
        self.units = [Units(layer, (reader,)) for layer, reader in pairwise(layers)] if units is None else list(units)
        heads = {layers[-1].name} if heads is None else set(heads)
        self.heads = [layer for layer in layers if layer.name in heads]
        self.hidden = [layer for layer in layers if layer.name not in heads]
        if not self.layers or (baseline.acts_on == "hidden" and not self.hidden):
            raise ValueError(f"{type(baseline).__name__} needs a hidden layer and a head; got {len(layers)} layers")
        device = layers[0].weight.device
        self.generators = [torch.Generator(device).manual_seed(0xBA5E + seed) for seed in seeds]
        self.initial = {id(p): p.detach().clone() for p in self.owned()}
        self.steps = 0
        self.inputs: Tensor | None = None  # of the last forward pass
        self.activations: list[Tensor] = []  # (*runs, samples, units) of each of `units` in the last forward pass
        self.state: dict[str, Any] = {}
        self.modules: dict[str, nn.Module] = {}  # that the layers belong to, where `attach` knows them
        self.handles: list[Any] = []
        baseline.start(self)

    # ------------------------------------------------------------------------------------------ what it is at work on

    def owned(self) -> Iterator[Tensor]:
        """Weights and biases of all layers, and of the readers of their units."""
        every = {layer.name: layer for layer in self.layers}
        every |= {layer.name: layer for unit in self.units for layer in (unit.layer, *unit.readers)}
        for layer in every.values():
            yield from (p for p in (layer.weight, layer.bias) if p is not None)

    def parameters(self, layers: Sequence[Layer] | None = None, biases: bool = True) -> Iterator[Tensor]:
        """Weights and biases of layers, by default all, that are not frozen; scales and shifts of norms are not among
        them."""
        for layer in self.layers if layers is None else layers:
            given = (layer.weight, layer.bias if biases else None)
            yield from (p for p in given if p is not None and not is_frozen(p))

    def runs_shape(self) -> torch.Size:
        return self.layers[0].weight.shape[: self.batch_dims]

    def sum_squares(self, x: Tensor) -> Tensor:
        """Sum of squares of each run, shape (*runs,)."""
        return x.square().flatten(self.batch_dims).sum(-1)

    def zero(self) -> Tensor:
        return self.layers[0].weight.new_zeros(self.runs_shape())

    def per_unit(self, *more: int, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Zeros of shape (*runs, units, *more) for each of `units`; float32 at least, for they count and accumulate."""
        weights = [unit.layer.weight for unit in self.units]
        dtype = dtype or torch.promote_types(weights[0].dtype if weights else torch.float32, torch.float32)
        return [W.new_zeros((*W.shape[: self.batch_dims + 1], *more), dtype=dtype) for W in weights]

    def seen(self) -> Iterator[tuple[int, Tensor]]:
        """Index and activations (*runs, samples, units), detached, of each of `units` in the last forward pass.

        Raises:
            ValueError: the last forward pass did not show them.
        """
        if len(self.activations) != len(self.units):
            raise ValueError(
                f"{type(self.baseline).__name__} saw {len(self.activations)} of {len(self.units)} activations; call "
                "the model that it is attached to before each step"
            )
        yield from ((index, h.detach()) for index, h in enumerate(self.activations))

    def replaceable(self) -> Iterator[tuple[int, Tensor]]:
        """Of what was `seen`, the units that have no frozen weight before or behind them."""
        for index, h in self.seen():
            unit = self.units[index]
            if not any(is_frozen(layer.weight) for layer in (unit.layer, *unit.readers)):
                yield index, h

    def rerun(self, inputs: Tensor) -> Tensor:
        """Outputs for earlier inputs, in evaluation mode: norms, draws and what was recorded stay as they are."""
        assert self.forward is not None
        before = self.inputs, self.activations
        modes = {m: m.training for m in self.forward.modules()} if isinstance(self.forward, nn.Module) else {}
        for module in modes:
            module.training = False
        try:
            outputs = self.forward(inputs)
        finally:
            for module, mode in modes.items():
                module.training = mode
            self.inputs, self.activations = before
        require_that(isinstance(outputs, Tensor), "the model's output", type(outputs).__name__, "one tensor")
        return outputs

    def learning_rate(self) -> float:
        if self.optimizer is None:
            raise ValueError(f"{type(self.baseline).__name__} follows the learning rate; attach it with an optimizer")
        return float(self.optimizer.param_groups[0]["lr"])

    # ------------------------------------------------------------------------------------------------------ draws

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal draws of the shape of `like`, each run from its own generator."""
        if not self.batch_dims:
            return torch.randn(like.shape, generator=self.generators[0], device=like.device, dtype=like.dtype)
        draws = [
            torch.randn(like.shape[1:], generator=g, device=like.device, dtype=like.dtype) for g in self.generators
        ]
        return torch.stack(draws)

    def fresh(self, p: Tensor) -> Tensor:
        """New draws with the RMS that this parameter had at the start (zero for biases that started at zero)."""
        rms = self.initial[id(p)].square().flatten(self.batch_dims).mean(-1).sqrt()
        return self.normal(p) * rms.reshape(rms.shape + (1,) * (p.ndim - self.batch_dims))

    # ---------------------------------------------------------------------------------------------------- changes

    @torch.no_grad()
    def rewrite(self, p: Tensor, values: Tensor) -> None:
        """Give a parameter new values, unless it is frozen. Methods change a net through this and `replace` alone."""
        if not is_frozen(p):
            p.copy_(values)

    @torch.no_grad()
    def replace(self, p: Tensor, values: Tensor | float, mask: Tensor | bool = True) -> None:
        """Give entries of a parameter new values and the optimizer no memory of the old ones, unless it is frozen."""
        if not is_frozen(p):
            mask = torch.as_tensor(mask, device=p.device)
            p.copy_(torch.where(mask, values, p))
            clear(self.optimizer, p, mask)

    @torch.no_grad()
    def reset_units(self, masks: dict[int, Tensor]) -> None:
        """Give units new incoming weights, zero bias, and zero outgoing weights; the optimizer forgets the old ones.

        First all incoming weights are drawn, then all outgoing ones become zero, also those between two new units.
        Norms in between start anew for these units.

        Args:
            masks: index in `units` -> which of them, shape (*runs, units), bool.
        """
        for index, mask in masks.items():
            unit = self.units[index]
            self.replace(unit.layer.weight, self.fresh(unit.layer.weight), on_rows(unit.layer.weight, mask))
            if unit.layer.bias is not None:
                self.replace(unit.layer.bias, 0.0, mask)
            for values, start in ((unit.scales, 1.0), (unit.shifts, 0.0)):
                for p in values:
                    self.replace(p, start, on_rows(p, mask))
        for index, mask in masks.items():
            for reader in self.units[index].readers:
                self.replace(reader.weight, 0.0, on_columns(reader, mask, self.batch_dims))

    # ------------------------------------------------------------------------------------------- in the training loop

    def penalty(self) -> Tensor:
        """What the method adds to the loss, one value a run: shape (), or (runs,) of which the sum is added."""
        self.require_same_weights()
        return self.baseline.penalty(self)

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after every optimizer step."""
        self.require_same_weights()
        self.steps += 1
        self.baseline.after_step(self)

    @torch.no_grad()
    def new_task(self) -> None:
        """To be called at every change of the task but before the first task."""
        self.require_same_weights()
        self.baseline.new_task(self)

    def require_same_weights(self) -> None:
        """Raise ValueError if a layer of the model has another weight now: a method would work on what nobody uses."""
        for layer in self.layers:
            module = self.modules.get(layer.name)
            if module is not None and module._parameters.get("weight") is not layer.weight:
                raise ValueError(
                    f"layer {layer.name!r} has another weight than when {type(self.baseline).__name__} was attached "
                    "(replaced, parametrised or pruned since); detach() it and attach it anew"
                )

    def detach(self) -> None:
        """Remove the hooks that `attach` has put on the model."""
        for handle in self.handles:
            handle.remove()

    # ------------------------------------------------------------------------------------------------------ state

    def __getstate__(self) -> dict[str, Any]:
        last_pass: dict[str, Any] = {"inputs": None, "activations": []}  # a graph cannot be copied
        return {**self.__dict__, **last_pass, "initial": list(self.initial.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.initial = {id(p): value for p, value in zip(self.owned(), state["initial"], strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """What a later `load_state_dict` needs to go on as if nothing had happened, with the values of the start."""
        return {
            "method": self.baseline.name,
            "steps": self.steps,
            "state": self.state,
            "initial": list(self.initial.values()),
            "generators": [g.get_state() for g in self.generators],
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state, as a copy, on this net's device.

        Raises:
            ValueError: the state of another method, of another number of runs, of a net of other shapes, or of a net on
            another kind of device, whose random draws cannot go on here.
        """
        saved, shapes = state_dict["method"], [tuple(p.shape) for p in state_dict["initial"]]
        require_that(saved == self.baseline.name, "saved method", saved, repr(self.baseline.name))
        own = [tuple(p.shape) for p in self.initial.values()]
        require_that(shapes == own, "saved shapes", shapes, f"those of this net, {own}")
        runs = len(state_dict["generators"])
        require_that(runs == len(self.generators), "saved runs", runs, str(len(self.generators)))
        sizes = {len(g) for g in state_dict["generators"]} - {len(g.get_state()) for g in self.generators}
        require_that(not sizes, "saved random states", f"{sizes} bytes", "those of a generator on this kind of device")
        self.steps, self.state = state_dict["steps"], copied(state_dict["state"], self.layers[0].weight.device)
        for kept, value in zip(self.initial.values(), state_dict["initial"], strict=True):
            kept.copy_(value)
        for g, value in zip(self.generators, state_dict["generators"], strict=True):
            g.set_state(value.cpu())
