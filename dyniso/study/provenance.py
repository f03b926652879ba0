"""What produces results here and now: versions, commit, hardware. Standard library only: any page can say it."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from .. import __version__
from .sources import PACKAGE
from .specs import Comparison, GameExperiment


def git(*arguments: str) -> str:
    """Output of a git command in the source checkout, '' where there is none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


@functools.cache
def commit() -> str:
    """Short commit of the source, with '+' where the library differs from it; 'unknown' outside git."""
    head = os.environ.get("DYNISO_COMMIT") or (
        git("ls-files", "__init__.py") and git("rev-parse", "--short=10", "HEAD")
    )
    return (head + ("+" if git("status", "--porcelain", "--", ".") else "")) if head else "unknown"


def cpu_name() -> str:
    """Model of the processor and number of usable cores, e.g. 'Intel(R) Xeon(R) CPU @ 2.80GHz, 2 cores'."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores"


def versions(experiment: Comparison) -> dict[str, str]:
    """The packages that compute a run of an experiment, with their versions; "none" for one that is not installed.

    >>> from dyniso.study.specs import get
    >>> sorted(versions(get("random_labels")))
    ['numpy', 'torch']
    """
    names = ("torch", "numpy", *(("jax", "gymnax", "octax") if isinstance(experiment, GameExperiment) else ()))
    return {name: version(name) for name in names}


@functools.cache
def version(package: str) -> str:
    """Of an installed package; "none" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def provenance(hardware: str | None = None) -> dict[str, str]:
    """What produces results here and now: versions, commit, hardware, time (UTC)."""
    return {
        "commit": commit(),
        "dyniso": __version__,
        "torch": version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "hardware": hardware or cpu_name(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
