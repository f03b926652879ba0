"""What a traced pass tells: `dyniso.tracing` makes it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
    """

    sites: tuple[ActivationSite, ...]
    layers: tuple[str, ...]
    heads: tuple[str, ...]
    repeated: tuple[str, ...]


def by_unit(output: Tensor, axis: int | None) -> Tensor:
    """A tensor as (samples, units), its units along `axis` now (None: one unit); all other axes count as samples.

    >>> by_unit(Tensor(2, 3, 4, 5), 1).shape
    torch.Size([40, 3])
    """
    return output.reshape(-1, 1) if axis is None else output.movedim(axis, -1).reshape(-1, output.shape[axis])
