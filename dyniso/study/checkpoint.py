"""Where a group of runs stands between two parts, on disk: whole or not at all, and gone once the group is stored."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .store import UnusableError


class OutOfTime(Exception):
    """The time budget is spent; what was trained is in a checkpoint, and the same call goes on from there."""


class Checkpoint:
    """One file for one group of runs.

    Args:
        path: of the file; its name holds the digests of settings and code, so no other run can take it up.
        every_s: seconds between two saves; one is due at the end of the part (task, or update of PPO) in which they
            have passed.
        deadline: `time.monotonic()` after which a save is made at once and `OutOfTime` raised; None for no limit.
    """

    def __init__(self, path: Path, every_s: float = 60.0, deadline: float | None = None):
        self.path, self.every_s, self.deadline = path, every_s, deadline
        self.started = self.saved = time.monotonic()
        self.earlier_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds that this group has taken, those before the last stop included."""
        return self.earlier_s + time.monotonic() - self.started

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved, with tensors on the device; None where nothing was.

        Raises:
            UnusableError: the file cannot be read (names it and says to delete it).
        """
        if not self.path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            self.earlier_s = saved["elapsed_s"]
        except Exception as error:  # torch raises many kinds for a broken file
            raise UnusableError(f"{self.path} is damaged; delete it and this group of runs starts anew") from error
        return saved

    def after_part(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save if it is time.

        Args:
            state: makes what is to be saved: tensors, numbers, text, lists, tuples and dicts of them.
        Raises:
            OutOfTime: the deadline has passed; the state is saved.
        """
        now = time.monotonic()
        late = self.deadline is not None and now >= self.deadline
        if late or now - self.saved >= self.every_s:
            self.save(state())
            self.saved = time.monotonic()
        if late:
            raise OutOfTime

    def save(self, state: dict[str, Any]) -> None:
        """Write under a temporary name, flush to disk, then rename."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                torch.save(state | {"elapsed_s": self.elapsed_s}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget it: the runs are stored."""
        self.path.unlink(missing_ok=True)
