"""What the tracer knows of torch's operations, by name: which are layers, activations, or keep units apart."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from .activations import ACTIVATION_TYPES
from .units import MOVES, POOLS, REDUCTIONS, words

LAYERS = (  # modules that mix units by weights of their own
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
)
PRODUCTS = words(  # functions that are a layer where one of their arguments is a matrix that the model owns
    """linear conv1d conv2d conv3d convtranspose1d convtranspose2d convtranspose3d matmul rmatmul mm bmm mv addmm
    baddbmm einsum tensordot bilinear embedding lstm gru rnntanh rnnrelu multiheadattentionforward"""
)
FUNCTIONS = words(" ".join(kind.__name__.lower() for kind in ACTIVATION_TYPES)) - words("abs groupsort householder")
ALIKE = words(  # an entry of the result reads the same entry of the arguments: units stay apart
    """add sub mul div truedivide rsub rdiv pow rpow square sqrt rsqrt exp log sin cos erf abs sign neg where lerp fmod
    maximum minimum clamp clampmin clampmax clip addcmul addcdiv maskedfill gt lt ge le eq ne logicalnot logicaland
    round floor ceil to float double half bfloat16 type typeas requiresgrad cpu cuda nantonum dropout dropout1d
    dropout2d dropout3d alphadropout featuredropout featurealphadropout batchnorm layernorm groupnorm instancenorm
    rmsnorm localresponsenorm normalize positive reciprocal log1p expm1 setitem copy"""
)
JOINS = words("cat concat concatenate stack hstack vstack")
RESHAPED = MOVES | words("to float double half bfloat16")  # after which a weight is still that weight
BENDS = FUNCTIONS | words("pow square exp sin cos erf abs where maximum minimum clamp clampmin sort")
UNLIKE = PRODUCTS | REDUCTIONS | {name for name in ALIKE if "norm" in name or "dropout" in name}  # never inside one


class Call(NamedTuple):
    """One operation: its name without underscores, the function, and what it was given."""

    name: str
    func: Any
    args: Any
    kwargs: Any

    def activation(self) -> str:
        """The kind of activation that it is, "" if none: a function of torch's, or a way to write relu."""
        others = [*self.args[1:], *self.kwargs.values()]
        low = self.kwargs.get("min", self.args[1] if len(self.args) > 1 else None)
        if self.name in ("clamp", "clip", "clampmin") and is_zero(low):
            return "relu" if sum(a is not None for a in others) == 1 else "clamp"
        if self.name in ("maximum", "max") and len(self.args) == 2:
            return "relu" if any(isinstance(a, Tensor) and is_zero(a) for a in self.args) else ""
        return self.name if self.name in FUNCTIONS else ""

    def keeps_units_apart(self) -> bool:
        """Whether one tensor goes in and its units come out, each by itself."""
        return self.name in ALIKE | REDUCTIONS or is_pool(self.name)

    def makes_constant(self) -> bool:
        """Whether it takes the shape of a tensor and nothing else, as zeros_like(x)."""
        return self.name.endswith("like") or self.name.startswith("new")


def name_of(func: Any) -> str:
    """Without underscores; of a property that is read, the property's name.

    >>> name_of(Tensor.relu_), name_of(Tensor.mT.__get__)
    ('relu', 'mT')
    """
    name = getattr(func, "__name__", "")
    return (func.__self__.__name__ if name == "__get__" else name).replace("_", "")


def is_pool(name: str) -> bool:
    """Whether an operation reads neighbouring positions and leaves the axes where they are.

    >>> is_pool("adaptiveavgpool2d")
    True
    """
    return any(part in name for part in POOLS)


def is_zero(value: Any) -> bool:
    """Whether a number, or every entry of a tensor, is zero; False for one that vmap hides.

    >>> is_zero(0.0), is_zero(None)
    (True, False)
    """
    try:
        return not bool(value.any()) if isinstance(value, Tensor) else value is not None and value == 0
    except RuntimeError:
        return False


def unit_axis(module: nn.Module) -> int:
    """Where a layer's units lie, in what it reads and in what it puts out.

    >>> unit_axis(nn.Conv2d(1, 2, 3)), unit_axis(nn.Linear(1, 2))
    (-3, -1)
    """
    return -len(module.kernel_size) - 1 if isinstance(module, nn.modules.conv._ConvNd) else -1
