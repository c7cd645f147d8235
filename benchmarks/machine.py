"""Description of the machine and memory measurements, for benchmarks."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from benchmarks.process import process_memory


def describe(threads: int, device: torch.device) -> str:
    """Returns processor or GPU, threads, and versions of torch and Python."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = f"{len(names)} x {names[0]}" if names else model
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{model}{gpu}, {threads} threads, torch {torch.__version__}, Python {platform.python_version()}"


def resident_memory(device: torch.device) -> int:
    """Returns the bytes currently allocated on the GPU, or the resident memory of the process (Linux)."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else process_memory("VmRSS")


def reset_peak_memory(device: torch.device) -> None:
    """Resets the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory in bytes since the last reset."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_memory("VmHWM")
