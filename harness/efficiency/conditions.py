"""Whether the device was ours alone and equally fast while we measured; says so where it was not."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from harness.efficiency.timing import repeat
from harness.system import gpu

SHARED_CORES = 0.1
"""Cores others may use on average before the device counts as shared."""

STEADY = 0.05
"""Relative change of the fixed work before the device counts as unsteady."""

FOREIGN_GPU_BYTES = 2**30
"""GPU memory outside this process that no context of its own explains."""


class Conditions:
    """Watches the device between `start` and `stop`.

    Args:
        device: what is measured.
        thorough: also do the fixed work before and after, which takes half a second each.
    """

    def __init__(self, device: torch.device, *, thorough: bool = True) -> None:
        self.device, self.thorough = device, thorough
        self.values: dict[str, Any] = {}

    def start(self) -> None:
        """Times the fixed work and remembers who was busy so far."""
        self.values["load_average"] = round(os.getloadavg()[0], 2)
        if self.thorough:
            self.values["fixed_work_ms"] = [fixed_work(self.device)]
        self._busy, self._own, self._since = busy_seconds(), own_seconds(), time.monotonic()

    def stop(self, drift: float) -> dict[str, Any]:
        """Completes the record of the conditions.

        Args:
            drift: of the timing in between, second half over first.

        Returns:
            `fixed_work_ms` (before and after), `others_cores` (mean number of cores that were busy for somebody
            else), `load_average`, on a GPU what `nvidia-smi` tells, and `notes`: a sentence for everything that
            casts doubt on the figures.
        """
        seconds = max(time.monotonic() - self._since, 1e-9)
        busy = busy_seconds()
        if busy is not None and self._busy is not None:
            others = (busy - self._busy - (own_seconds() - self._own)) / seconds
            self.values["others_cores"] = round(max(others, 0.0), 2)
        if self.thorough:
            self.values["fixed_work_ms"].append(fixed_work(self.device))
        self.values["drift"] = round(drift, 3)
        if self.device.type == "cuda":
            self.values |= gpu_state() | {"foreign_gpu_bytes": _foreign_bytes(self.device)}
        self.values["notes"] = notes(self.values)
        return self.values


def notes(values: dict[str, Any]) -> list[str]:
    """What casts doubt on figures measured under these conditions; empty if nothing does."""
    found = []
    if (others := values.get("others_cores", 0.0)) > SHARED_CORES:
        found.append(f"other work used {others:.1f} cores meanwhile")
    if (foreign := values.get("foreign_gpu_bytes", 0)) > FOREIGN_GPU_BYTES:
        found.append(f"other processes held {foreign / 2**30:.1f} GiB of the GPU")
    if values.get("throttled"):
        found.append("the GPU lowered its clock for heat or power")
    before, after = values.get("fixed_work_ms", (1.0, 1.0))
    if abs(after / before - 1) > STEADY:
        found.append(f"the same fixed work took {before:.2f} ms before and {after:.2f} ms after")
    if abs(values.get("drift", 1.0) - 1) > STEADY:
        found.append(f"the second half of the repeats took {values['drift']:.2f} times as long as the first")
    return found


def fixed_work(device: torch.device) -> float:
    """Milliseconds of a matrix product that is the same in every cell: it tells the machine from the backbone.

    On a CPU processor time: how fast the cores are. Whether others used them, `others_cores` tells.
    """
    size = 4096 if device.type == "cuda" else 768
    a = torch.ones(size, size, device=device)
    timing = repeat(lambda: a @ a, device, seconds=0.3, least=9)
    return round(1000 * (timing.busy if device.type == "cpu" else timing.low), 4)


def busy_seconds() -> float | None:
    """Core seconds this machine was busy since it started, for whomever; None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _, _, irq, soft, steal = fields
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return None


def own_seconds() -> float:
    """Core seconds of this process, all threads."""
    return time.process_time()


def gpu_state(command: str = "nvidia-smi") -> dict[str, Any]:
    """Clock, temperature and whether the GPU slowed down for heat or power; empty where it cannot be asked."""
    fields = ("clocks.sm", "clocks.max.sm", "temperature.gpu", "clocks_throttle_reasons.active")
    with suppress(ValueError):
        clock, most, heat, reasons = gpu.ask(*fields, command=command)
        slowed = int(reasons, 16) & _THROTTLED
        return {
            "gpu_clock_mhz": int(clock),
            "gpu_max_clock_mhz": int(most),
            "gpu_celsius": int(heat),
            "throttled": bool(slowed),
        }
    return {}


_THROTTLED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""NVML's reasons: power cap, hardware slowdown, software and hardware thermal slowdown, power brake."""


def _foreign_bytes(device: torch.device) -> int:
    """Memory of the GPU held outside torch's allocator; the context of this process is part of it."""
    free, total = torch.cuda.mem_get_info(device)
    return max(total - free - torch.cuda.memory_reserved(device), 0)
