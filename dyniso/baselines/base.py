"""The base class of all methods, and the table of their names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ..checks import require_range

if TYPE_CHECKING:
    from .attached import Attached

CLASSES: dict[str, type[Baseline]] = {}  # name -> method; filled by the classes themselves
ACTS_ON = {
    "all": "all layers alike",
    "hidden": "hidden layers and treats the head apart",
    "head": "the head",
    "units": "single units, each with what it reads and what reads it",
    "outputs": "the net as a whole",
}


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

    def __post_init__(self) -> None:
        self.check()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Real) and hasattr(value, "item"):  # numpy's numbers overflow, Python's do not
                object.__setattr__(self, field.name, value.item())

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""

    @property
    def renews(self) -> bool:
        """Whether a task boundary keeps nothing of the net: who can draw a net by its own law may do so instead."""
        return False

    @property
    def acts_on(self) -> str:
        """A key of `ACTS_ON`; what has to be known of a net follows from it."""
        return "hidden"

    @property
    def reads_features(self) -> bool:
        """Whether it asks for what the head reads, as the one activation of the last forward pass."""
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
