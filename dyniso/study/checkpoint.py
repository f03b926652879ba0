"""Where a group of runs stands between two parts, on disk: whole or not at all, and gone once the group is stored."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .files import SEAL, UnusableError, is_whole, write_whole


class OutOfTime(Exception):
    """The time budget is spent; what was trained is in a checkpoint, and the same call goes on from there."""


class Checkpoint:
    """One file for the runs that are trained together: a line of seal, a line of their names, and what was saved.

    Args:
        folder: of the runs' files.
        members: names of these files, in the order in which the runs are stacked. They hold the digests of settings,
            code and package versions, so no other run can take the checkpoint up; and they do not change while the
            runs are stored one after another, so it is found until all of them are.
        every_s: seconds between two saves; one is due at the end of the part (task, or update of PPO) in which they
            have passed.
        deadline: `time.monotonic()` after which a save is made at once and `OutOfTime` raised; None for no limit.
    """

    def __init__(self, folder: Path, members: Sequence[str], every_s: float = 60.0, deadline: float | None = None):
        self.path, self.members = folder / checkpoint_name(members), list(members)
        self.every_s, self.deadline = every_s, deadline
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
        content = self.path.read_bytes()
        if not is_whole(content):
            raise damaged(self.path)
        _, _, payload = content.split(b"\n", 2)
        saved: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
        self.earlier_s = saved["elapsed_s"]
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
        """Write it, sealed, whole or not at all (`dyniso.study.files.write_whole`)."""
        payload = io.BytesIO()
        torch.save(state | {"elapsed_s": self.elapsed_s}, payload)
        head = f"{SEAL}\n{json.dumps(self.members)}\n".encode()
        write_whole(self.path, lambda temporary: temporary.write_bytes(head + payload.getbuffer()))

    def remove(self) -> None:
        """Forget it: the runs are stored."""
        self.path.unlink(missing_ok=True)


def checkpoint_name(members: Sequence[str]) -> str:
    """The first run's method, and a digest of what all the runs' files are called."""
    return f"{members[0].split('-')[0]}-{hashlib.sha256(json.dumps(members).encode()).hexdigest()[:16]}.checkpoint"


def damaged(path: Path) -> UnusableError:
    """What to say of a checkpoint that is not as it was written."""
    return UnusableError(f"{path} is damaged; delete it and this group of runs starts anew")


def checkpoints(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every checkpoint in a folder, with the names of its runs' files.

    Raises:
        UnusableError: one whose names are damaged: they are not those of which its own name is the digest.
    """
    for path in sorted(folder.glob("*.checkpoint")):
        try:
            with open(path, "rb") as file:
                file.readline()
                members = json.loads(file.readline())
            named = checkpoint_name(members) == path.name
        except FileNotFoundError:  # another process has stored its runs meanwhile
            continue
        except (ValueError, TypeError, LookupError, AttributeError):
            named = False
        if not named:
            raise damaged(path)
        yield path, members


def begun(folder: Path, wanted: Collection[str], missing: Collection[str]) -> list[list[str]]:
    """What some checkpoints can go on with: the runs of each, all of them wanted, and at least one of them missing.

    No run comes twice: of two checkpoints with a run in common, the one with more runs counts.
    """
    found: list[list[str]] = []
    for _, members in sorted(checkpoints(folder), key=lambda pair: -len(pair[1])):
        fits = set(members) <= set(wanted) and set(members) & set(missing)
        if fits and not any(set(members) & set(other) for other in found):
            found.append(members)
    return found


def sweep(folder: Path) -> None:
    """Remove the checkpoints whose runs are all stored: their process died before it could."""
    for path, members in checkpoints(folder):
        if all((folder / name).exists() for name in members):
            path.unlink(missing_ok=True)
