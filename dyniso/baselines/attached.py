"""A method at work on one net or on stacked runs: what it sees of the net, and the base class of all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..activations import CReLU, GroupSort, Householder
from ..checks import require_range, require_type
from ..dormancy import ACTIVATION_TYPES, units_last


class Layer(NamedTuple):
    """One linear map or convolution: weight (*runs, out, in, ...) and bias (*runs, out) or None."""

    name: str
    weight: Tensor
    bias: Tensor | None


class Attached:
    """A method at work on a net: its layers, its optimizer, its random draws, and its state.

    Args:
        baseline: the method.
        layers: in order of the forward pass; the last is the head.
        optimizer: whose moments are cleared where units are replaced, and whose learning rate some methods follow.
        forward: inputs -> outputs (*runs, samples, C).
        seeds: one a run.
        batch_dims: leading axes that index runs: 0 for one net, 1 for stacked runs.
        elementwise: whether each hidden activation belongs to one unit, as methods that replace units need.
    """

    def __init__(
        self,
        baseline: Baseline,
        layers: Sequence[Layer],
        optimizer: Any = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        seeds: Sequence[int] = (0,),
        batch_dims: int = 0,
        elementwise: bool = True,
    ):
        if len(layers) < 2:
            raise ValueError(f"{type(baseline).__name__} needs a hidden layer and a head; got {len(layers)} layers")
        self.baseline, self.layers, self.optimizer, self.forward = baseline, list(layers), optimizer, forward
        self.batch_dims, self.elementwise = batch_dims, elementwise
        device = layers[0].weight.device
        self.generators = [torch.Generator(device).manual_seed(0xBA5E + seed) for seed in seeds]
        self.initial = {id(p): p.detach().clone() for p in self.parameters()}
        self.steps = 0
        self.inputs: Tensor | None = None  # of the last forward pass
        self.activations: list[Tensor] = []  # (*runs, samples, units) of each hidden layer in the last forward pass
        self.state: dict[str, Any] = {}
        self.handles: list[Any] = []
        baseline.start(self)

    @property
    def hidden(self) -> list[Layer]:
        return self.layers[:-1]

    def parameters(self) -> Iterator[Tensor]:
        """Weights and biases of all layers; scales and shifts of norms are not among them."""
        for layer in self.layers:
            yield from (p for p in (layer.weight, layer.bias) if p is not None)

    def runs_shape(self) -> torch.Size:
        return self.layers[0].weight.shape[: self.batch_dims]

    def sum_squares(self, x: Tensor) -> Tensor:
        """Sum of squares of each run, shape (*runs,)."""
        return x.square().flatten(self.batch_dims).sum(-1)

    def zero(self) -> Tensor:
        return self.layers[0].weight.new_zeros(self.runs_shape())

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
        start = self.initial[id(p)]
        rms = start.square().flatten(self.batch_dims).mean(-1).sqrt()
        return self.normal(p) * rms.reshape(rms.shape + (1,) * (p.ndim - self.batch_dims))

    def learning_rate(self) -> float:
        if self.optimizer is None:
            raise ValueError(f"{type(self.baseline).__name__} follows the learning rate; attach it with an optimizer")
        return float(self.optimizer.param_groups[0]["lr"])

    def moments(self, p: Tensor) -> list[Tensor]:
        """The optimizer's running averages of one parameter (Adam's two, Muon's one); step counts are left out."""
        kept = {} if self.optimizer is None else self.optimizer.state.get(p, {})
        return [value for value in kept.values() if isinstance(value, Tensor) and value.shape == p.shape]

    def outgoing(self, p: Tensor, units: int) -> Tensor:
        """A view of the next layer's weight as (*runs, out, units, rest): rest > 1 for kernels and after flattening."""
        return p.flatten(self.batch_dims + 1).unflatten(-1, (units, -1))

    @torch.no_grad()
    def reset_units(self, index: int, mask: Tensor, incoming: Tensor | None = None) -> None:
        """Give units of hidden layer `index` new incoming weights, zero bias, zero outgoing weights, zero moments.

        Args:
            mask: which, shape (*runs, units), bool.
            incoming: weights to take the rows from; None draws fresh ones.
        """
        layer, following = self.layers[index], self.layers[index + 1]
        source = self.fresh(layer.weight) if incoming is None else incoming
        rows = mask.reshape(mask.shape + (1,) * (layer.weight.ndim - mask.ndim))
        layer.weight.copy_(torch.where(rows, source, layer.weight))
        for value in self.moments(layer.weight):
            value.masked_fill_(rows, 0)
        if layer.bias is not None:
            for value in (layer.bias, *self.moments(layer.bias)):
                value.masked_fill_(mask, 0)
        for value in (following.weight, *self.moments(following.weight)):
            self.outgoing(value, mask.shape[-1]).masked_fill_(mask[..., None, :, None], 0)

    def penalty(self) -> Tensor:
        """What the method adds to the loss, one value a run: shape (), or (runs,) of which the sum is added."""
        return self.baseline.penalty(self)

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after every optimizer step."""
        self.steps += 1
        self.baseline.after_step(self)

    @torch.no_grad()
    def new_task(self) -> None:
        """To be called at every change of the task but before the first task."""
        self.baseline.new_task(self)

    def state_dict(self) -> dict[str, Any]:
        """What a later `load_state_dict` needs to go on as if nothing had happened."""
        return {"steps": self.steps, "state": self.state, "generators": [g.get_state() for g in self.generators]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state; the initial values are those of the net that this method was attached to."""
        self.steps, self.state = state_dict["steps"], state_dict["state"]
        for g, kept in zip(self.generators, state_dict["generators"], strict=True):
            g.set_state(kept.cpu())

    def detach(self) -> None:
        """Remove the hooks that `attach` has put on the model."""
        for handle in self.handles:
            handle.remove()


CLASSES: dict[str, type[Baseline]] = {}  # name -> method; filled by the classes themselves


@dataclass(frozen=True)
class Baseline:
    """What every method is: a name, settings, and up to four things that it does. This one does nothing.

    A subclass gives its name in the class statement and is found by it from then on (`dyniso.baselines.make`).

    Raises:
        TypeError: a subclass without a name.
        ValueError: a name that another class has already.

    >>> class Nothing(Baseline, name="nothing"): ...
    >>> CLASSES.pop("nothing").name
    'nothing'
    """

    name: ClassVar[str] = "none"

    def __init_subclass__(cls, *, name: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        other = CLASSES.get(name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{cls.__name__}: name={name!r} is taken by {other.__module__}.{other.__qualname__}")
        cls.name = name
        CLASSES[name] = cls

    @property
    def renews(self) -> bool:
        """Whether a task boundary keeps nothing of the net: who can draw a net by its own law may do so instead."""
        return False

    def start(self, net: Attached) -> None:
        """Prepare the state; parameters are at their initial values."""

    def penalty(self, net: Attached) -> Tensor:
        """Added to the loss of each run."""
        return net.zero()

    def after_step(self, net: Attached) -> None:
        """After every optimizer step, without gradients."""

    def new_task(self, net: Attached) -> None:
        """At every task boundary, without gradients."""


def attach(baseline: Baseline, model: nn.Sequential, optimizer: Any = None, seed: int = 0) -> Attached:
    """Put a method to work on one net.

    Args:
        baseline: e.g. ReDo().
        model: an `nn.Sequential` of Linear or Conv2d layers, activations and norms; hooks record its activations.
        optimizer: the one that trains the model.
        seed: of the method's own draws.
    Returns:
        The method at work; call its `penalty`, `after_step` and `new_task` in the training loop, `detach` at the end.
    Raises:
        ValueError: no hidden layer, or a method that replaces units on an activation that mixes them.

    >>> from dyniso.baselines import L2
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> method = attach(L2(strength=2.0), model)
    >>> bool(method.penalty() == sum(p.square().sum() for p in model.parameters()))
    True
    """
    require_type("baseline", baseline, Baseline, "a method, e.g. attach(ReDo(), model, optimizer)")
    require_type("model", model, nn.Module, "a module, e.g. attach(ReDo(), model, optimizer)")
    named = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    layers = [Layer(name, m.weight, m.bias) for name, m in named]
    method = Attached(baseline, layers, optimizer, model, [seed], elementwise=is_elementwise(model))

    def begin(_model: nn.Module, args: tuple[Tensor, ...]) -> None:
        method.inputs, method.activations = args[0], []

    def record(_module: nn.Module, _args: Any, output: Tensor) -> None:
        method.activations.append(units_last(output))

    method.handles.append(model.register_forward_pre_hook(begin))
    for module in model.modules():
        if isinstance(module, ACTIVATION_TYPES):
            method.handles.append(module.register_forward_hook(record))
    return method


def is_elementwise(model: nn.Module) -> bool:
    """Whether every activation of the model acts on each unit alone.

    >>> is_elementwise(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), is_elementwise(GroupSort(2))
    (True, False)
    """
    return not any(isinstance(m, GroupSort | Householder | CReLU) for m in model.modules())


def require_elementwise(net: Attached) -> None:
    """Raise ValueError where an activation mixes units, for methods that replace single ones."""
    if not net.elementwise:
        raise ValueError(
            f"{type(net.baseline).__name__} replaces single units; MaxMin, GroupSort, Householder and CReLU mix them. "
            "Use an activation that acts on each unit alone, e.g. 'relu'"
        )


def require_positive(baseline: Baseline, *names: str) -> None:
    """Raise ValueError, naming field and value, unless these fields are numbers of at least 0."""
    for name in names:
        require_range(f"{type(baseline).__name__}.{name}", getattr(baseline, name), 0, kind=float)


def times(W: Tensor, v: Tensor) -> Tensor:
    """W v, (..., out) of (..., out, in) and (..., in), rounded for each run as if it were alone.

    A batch of one matrix times a vector goes another way through torch's products than a batch of two.

    >>> times(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2))
    tensor([3., 7.])
    """
    return (W * v[..., None, :]).sum(-1)
