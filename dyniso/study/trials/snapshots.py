"""The weights of one run before any training and after each task, for pages that look into a net while it learns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import train
from ..specs import Experiment, Method
from ..stack import Run
from ..tasks import Source, load_task, task_order


class Snapshots(NamedTuple):
    """What `snapshots` has seen; index 0 of `weights` is before any training."""

    weights: list[dict[str, Tensor]]  # tasks + 1 of them; every parameter of one net by name
    accuracy: list[float]  # online accuracy of each task


def snapshots(experiment: Experiment, method: Method, seed: int, source: Source) -> Snapshots:
    """Train one run through all tasks of a stream and keep its weights in between.

    Args:
        method: of the experiment or any other.
        source: what the tasks draw from, of `dyniso.study.tasks.load_source`; its device trains.
    """
    trainer = train.Trainer(experiment, [Run(method, seed)], source)

    def now() -> dict[str, Tensor]:
        return {name: p[0].detach().clone() for name, p in trainer.stack.params.items()}

    seen = Snapshots([now()], [])
    for index in range(experiment.tasks):
        if index:
            trainer.new_task(index)
        task = load_task(experiment, [seed], index, source)
        order = task_order(experiment, [seed], index).to(source.inputs.device)
        hits, _ = trainer.train(task, order)
        seen.accuracy.append(float(torch.mean(hits)))
        seen.weights.append(now())
    return seen
