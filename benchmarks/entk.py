"""Layer-wise eNTK against `torch.func` Jacobians: time and peak memory, 10 outputs, the paper's MLP 3072-512x4-10.

256 inputs where the Jacobian (24 GB) fits, that is on a large GPU; 32 inputs on a CPU (3 GB).
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
from bench import interleaved, ratio

from dyniso.entk import empirical_ntk
from dyniso.nets import mlp

INPUTS = 3072


def problem(device: torch.device, samples: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """The paper's net and random inputs."""
    generator = torch.Generator().manual_seed(0)
    return mlp(INPUTS, 10, 512, 4, seed=0).to(device), torch.randn(samples, INPUTS, generator=generator).to(device)


def cpu_peak(method: str, samples: int) -> float:
    """Bytes by which one call raises the peak memory of a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_cpu_peak, (method, samples))


def _cpu_peak(method: str, samples: int) -> float:
    torch.set_num_threads(1)
    net, x = problem(torch.device("cpu"), samples)
    empirical_ntk(net, x[:2], method=method)  # code and small buffers are loaded
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    before = memory("VmRSS")
    empirical_ntk(net, x, method=method)
    return memory("VmHWM") - before


def memory(field: str) -> float:
    """Bytes of this process: VmRSS resident now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return 1024.0 * float(line.split()[1])


def cuda_peak(method: str, samples: int, device: torch.device) -> float:
    """Bytes by which one call raises the allocated memory."""
    net, x = problem(device, samples)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    empirical_ntk(net, x, method=method)
    return float(torch.cuda.max_memory_allocated(device) - before)


def rows(device: torch.device) -> list[dict[str, object]]:
    """Time and memory of the Jacobian over those of the layer-wise path, and their relative difference."""
    samples = 256 if device.type == "cuda" else 32
    net, x = problem(device, samples)
    calls = {m: (lambda m=m: empirical_ntk(net, x, method=m)) for m in ("jacobian", "layerwise")}
    times = interleaved(calls, device, rounds=3)
    peak = {m: cuda_peak(m, samples, device) if device.type == "cuda" else cpu_peak(m, samples) for m in calls}
    a, b = (calls[m]() for m in calls)
    size = f"{samples} inputs"
    return [
        {
            "what": f"eNTK of {size}, time, Jacobian / layer-wise",
            **ratio(times, "jacobian", "layerwise"),
            "aim_at_least": 30.0,
        },
        {
            "what": f"eNTK of {size}, peak memory, Jacobian / layer-wise",
            "ratio": peak["jacobian"] / peak["layerwise"],
            "base_bytes": peak["layerwise"],
            "aim_at_least": 50.0,
        },
        {"what": f"eNTK of {size}, relative difference of the two", "value": float((a - b).norm() / a.norm())},
    ]
