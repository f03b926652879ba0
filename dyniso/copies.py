"""A model of its own modules to run somebody's code on, with the parameters of the original."""

from __future__ import annotations

import copy

from torch import nn


def apart(model: nn.Module) -> nn.Module:
    """The same parameters and buffers in modules of their own: what a forward pass notes there stays out of the model.

    Returns:
        A copy; the model itself where something in it cannot be copied.

    >>> twin = apart(model := nn.Linear(2, 2))
    >>> twin is model, twin.weight is model.weight
    (False, True)
    """
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    try:
        return copy.deepcopy(model, shared)
    except Exception:  # an attribute of any kind: a file, a lock, a tensor with a graph
        return model
