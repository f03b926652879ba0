"""What is done to the weights of an arm, declared: a kind, its settings, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...checks import require, require_range
from .. import declared

KINDS = declared.names("study.interventions", "KINDS")
WHEN = {
    "start": "before the first task",
    "branch": "once, where the arms leave the trunk",
    "boundary": "before every task but the first (after a trunk: from the branch on)",
    "steps": "before the first task (or at the branch), and after every k-th step",
}


@dataclass(frozen=True)
class Intervention:
    """One change of the weights of an arm. Several are made in order; what they measure, they measure before the first.

    Args:
        kind: a key of `dyniso.study.interventions.KINDS`.
        when: a key of `WHEN`; kinds that act on gradients do so all the time.
        settings: of the kind, e.g. (("rule", "flat"),).
        every: k, for "steps" only.
    """

    kind: str
    when: str = "boundary"
    settings: tuple[tuple[str, Any], ...] = ()
    every: int | None = None

    def __post_init__(self) -> None:
        require("intervention.kind", self.kind, KINDS)
        require("intervention.when", self.when, WHEN)
        if self.when == "steps":
            require_range("intervention.every", self.every, 1)
        elif self.every is not None:
            raise ValueError(f"intervention.every={self.every} with when={self.when!r}; it is for 'steps'")

    def __str__(self) -> str:
        values = ", ".join(f"{key} {value}" for key, value in self.settings)
        when = f"every {self.every} steps" if self.every else {"boundary": "at each boundary"}.get(self.when, self.when)
        return " ".join(filter(None, (self.kind, f"({values})" if values else "", when)))


@dataclass(frozen=True)
class Trunk:
    """What all arms of a seed share before they part: plain Adam on the first tasks of the stream, trained once.

    At the branch every arm gets the trunk's weights and a fresh optimizer.
    """

    tasks: int
    lr: float = 1e-3

    def __post_init__(self) -> None:
        require_range("trunk.tasks", self.tasks, 1)
        require_range("trunk.lr", self.lr, 0, kind=float)

    def __str__(self) -> str:
        return f"{self.tasks} tasks at rate {self.lr:g}"
