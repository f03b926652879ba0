"""What the isometry step costs: operations as torch counts them, and the tensors that it allocates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..optim import isometry_step


def flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call, as torch counts them.

    >>> flops(lambda: torch.zeros(2, 3) @ torch.zeros(3, 5))
    60
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def step_over_passes(layer: nn.Module, x: Tensor) -> float:
    """Operations of one isometry step of a layer over those of its forward and backward pass.

    With m the smaller side and B samples it is 2m/3B; in a convolution each position counts as a sample. From m = 512
    on, on a CPU, it is 13/16 of that: `dyniso.pull` mirrors blocks of the Gram matrix.

    Args:
        layer: a linear layer or a convolution, e.g. Linear(512, 512).
        x: its input, e.g. (256, 512); the gradient of the input is counted too.

    >>> step_over_passes(nn.Linear(6, 6), torch.zeros(4, 6))
    1.0
    """
    x = x.detach().requires_grad_()
    step = flops(lambda: isometry_step([layer.get_parameter("weight")], 0.01))
    return step / flops(lambda: layer(x).sum().backward())


def gram_deviation_grad_in_blocks(W: Tensor, blocks: int) -> Tensor:
    """The penalty's gradient with one triangle of blocks of the Gram matrix multiplied out and the rest mirrored.

    Args:
        W: shape (out, in) with out >= in.
        blocks: how many parts the columns are cut into; 1 is the whole product.
    Returns:
        Shape (out, in): 4 W (W'W - I), with (2 + (blocks + 1)/blocks) m^2 n operations, n = out, m = in.

    >>> W = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> gram_deviation_grad_in_blocks(W, 2)
    tensor([[24.,  0.],
            [ 0.,  0.]])
    """
    parts = torch.arange(W.shape[1]).chunk(blocks)
    G = W.new_zeros(W.shape[1], W.shape[1])
    for i, first in enumerate(parts):
        for second in parts[i:]:
            G[first[:, None], second] = W[:, first].T @ W[:, second]
            G[second[:, None], first] = G[first[:, None], second].T
    return 4 * (W @ G - W)


class _Allocations(TorchDispatchMode):
    """Notes each tensor with storage of its own; what is written in place or seen anew is not new."""

    def __init__(self, known: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.known, self.found = list(known), []  # type: list[Tensor], list[Tensor]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and look at where its result lies."""
        out = func(*args, **(kwargs or {}))
        if out.untyped_storage().data_ptr() not in {t.untyped_storage().data_ptr() for t in (*self.known, *self.found)}:
            self.found.append(out)
        return out


def allocated(function: Callable[[Tensor], Tensor], W: Tensor) -> list[tuple[int, ...]]:
    """Shapes of the tensors that `function` allocates when it is called with W, in order.

    >>> allocated(lambda W: (2 * W).add_(1), torch.zeros(3, 2))
    [(3, 2)]
    """
    with _Allocations((W,)) as memory:
        function(W)
    return [tuple(tensor.shape) for tensor in memory.found]
