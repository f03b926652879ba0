"""What a process reads of the stored results and the data, for a tool that wants to know. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def note(path: Path) -> None:
    """Append a path, absolute, to the file that $DYNISO_READS names; without it nothing happens.

    A path is noted whether it exists or not: who asks depends on that too.
    """
    target = os.environ.get("DYNISO_READS")
    if target:
        with open(target, "a", encoding="utf-8") as file:
            file.write(f"{path.absolute()}\n")
