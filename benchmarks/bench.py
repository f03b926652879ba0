"""Shared by the benchmarks: interleaved timing, memory, and where the numbers go.

Every figure is a ratio of two things timed in one process, in alternating rounds, so that a change in the machine's
load falls on both. The median over rounds is reported with the range.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from dyniso.study.provenance import provenance
from dyniso.study.runner import hardware_name

RESULTS = Path(__file__).parent / "results"


def synchronise(device: torch.device) -> None:
    """Wait for the device, so that a host clock measures its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of one call, device work included."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def interleaved(
    calls: dict[str, Callable[[], object]], device: torch.device, rounds: int = 7
) -> dict[str, list[float]]:
    """Seconds of each call in each round; one warm-up round is dropped."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            took = seconds(call, device)
            if round_:
                times[name].append(took)
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Median and range over rounds of time[name] / time[base]."""
    ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
    return {"ratio": median(ratios), "low": min(ratios), "high": max(ratios), "base_s": median(times[base])}


def record(name: str, device: torch.device, rows: list[dict[str, object]], out: Path | None) -> None:
    """Print rows and put them into <out>/<name>-<cpu|cuda>.json with the machine and the commit."""
    folder = out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    facts = provenance(hardware_name(device))
    kept = {k: facts[k] for k in ("commit", "torch", "python", "hardware")} | {"threads": torch.get_num_threads()}
    (folder / f"{name}-{device.type}.json").write_text(json.dumps({"made_by": kept, "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(name, device.type, row, flush=True)
