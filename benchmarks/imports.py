"""What `import dyniso.optim` costs after torch, and what it did when the optimizer stood on the list of experiments.

Each time is the CPU time of one import in a fresh process with compiled bytecode, the median over such processes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).parents[1]
BEFORE = "91fb579"  # the last commit at which dyniso.optim imported dyniso.specs
PROCESSES = 9
TIMED = (
    "import sys; sys.path.insert(0, sys.argv[1]); {first}; import time; start = time.process_time(); {then}; "
    "print(1e3 * (time.process_time() - start))"
)


def milliseconds(folder: Path, cache: Path, first: str, then: str) -> float:
    """CPU milliseconds of `then` after `first` in a fresh process that finds dyniso in `folder`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    call = [sys.executable, "-c", TIMED.format(first=first, then=then), str(folder)]
    return float(subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout)


def extract(commit: str, folder: Path) -> bool:
    """Put the package as it was at a commit into a folder; False where the history does not have it."""
    made = subprocess.run(["git", "archive", commit, "dyniso"], cwd=ROOT, capture_output=True)
    if made.returncode == 0:
        with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
            archive.extractall(folder, filter="data")
    return made.returncode == 0


def row(what: str, times: list[float], aim: float | None = None) -> dict[str, object]:
    """One measurement: the median and the range, without the first process, which compiles."""
    kept = times[1:]
    return {"what": what, "value": median(kept), "low": min(kept), "high": max(kept), "aim_at_most": aim}


def rows(_device: torch.device) -> list[dict[str, object]]:
    """The optimizer's import now and before, in alternating processes, and the package's own without torch."""
    with tempfile.TemporaryDirectory() as scratch:
        old, cache = Path(scratch, "old"), Path(scratch, "cache")
        calls = {"import dyniso (CPU ms, without torch)": (ROOT, "pass", "import dyniso")}
        calls["import dyniso.optim after torch (CPU ms)"] = ROOT, "import torch", "import dyniso.optim"
        if extract(BEFORE, old):
            calls[f"the same at commit {BEFORE} (CPU ms)"] = old, "import torch", "import dyniso.optim"
        times: dict[str, list[float]] = {what: [] for what in calls}
        for _ in range(PROCESSES + 1):
            for what, (folder, first, then) in calls.items():
                times[what].append(milliseconds(folder, cache, first, then))
    aims = {"import dyniso.optim after torch (CPU ms)": 15.0}
    return [row(what, measured, aims.get(what)) for what, measured in times.items()]
