"""Layer-wise eNTK against `torch.func` Jacobians: time and peak memory, 10 outputs, the paper's MLP 3072-512x4-10.

The Jacobians are those of PyTorch's own tutorial on the kernel, one sample at a time under `vmap`.
256 inputs where the Jacobian (24 GB) fits, that is on a large GPU; 32 inputs on a CPU (3 GB).
"""

from __future__ import annotations

import ctypes
import multiprocessing
from pathlib import Path

import torch
from bench import interleaved, ratio
from torch.func import functional_call, jacrev, vmap

from dyniso.entk import empirical_ntk
from dyniso.nets import mlp

INPUTS = 3072


def problem(device: torch.device, samples: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """The paper's net and random inputs."""
    generator = torch.Generator().manual_seed(0)
    return mlp(INPUTS, 10, 512, 4, seed=0).to(device), torch.randn(samples, INPUTS, generator=generator).to(device)


def by_jacobians(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The kernel as J J', J from `vmap(jacrev)` over samples, contracted parameter by parameter."""
    params = {name: p.detach() for name, p in net.named_parameters()}
    per_sample = vmap(jacrev(lambda p, sample: functional_call(net, p, (sample[None],))[0]), (None, 0))
    J = [j.flatten(2).flatten(0, 1) for j in per_sample(params, x).values()]
    return torch.stack([j @ j.T for j in J]).sum(0)


METHODS = {"jacobian": by_jacobians, "layerwise": empirical_ntk}


def cpu_peak(method: str, samples: int) -> float:
    """Bytes by which one call raises the peak memory of a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_cpu_peak, (method, samples))


def _cpu_peak(method: str, samples: int) -> float:
    torch.set_num_threads(1)
    net, x = problem(torch.device("cpu"), samples)
    METHODS[method](net, x[:2])  # code and small buffers are loaded
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that could be used again must not hide in "before"
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    before = memory("VmRSS")
    METHODS[method](net, x)
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
    METHODS[method](net, x)
    return float(torch.cuda.max_memory_allocated(device) - before)


def rows(device: torch.device) -> list[dict[str, object]]:
    """Time and memory of the Jacobian over those of the layer-wise path, and their relative difference."""
    samples = 256 if device.type == "cuda" else 32
    net, x = problem(device, samples)
    calls = {name: (lambda f=f: f(net, x)) for name, f in METHODS.items()}
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
