"""Checks whether the device was unused by others and constantly fast during a measurement."""

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
"""Mean number of CPU cores used by other processes above which the device counts as shared."""

STEADY = 0.05
"""Relative change of the fixed work above which the device counts as unsteady."""

FOREIGN_GPU_BYTES = 2**30
"""Bytes of GPU memory outside torch's allocator above which other processes must have a part of it."""


class Conditions:
    """Watches the device between `start` and `stop`.

    Args:
        device: the measured device.
        thorough: also time a fixed piece of work before and after, which takes half a second each.
    """

    def __init__(self, device: torch.device, *, thorough: bool = True) -> None:
        self.device, self.thorough = device, thorough
        self.values: dict[str, Any] = {}

    def start(self) -> None:
        """Times the fixed work and reads the processor times so far."""
        self.values["load_average"] = round(os.getloadavg()[0], 2)
        if self.thorough:
            self.values["fixed_work_ms"] = [fixed_work(self.device)]
        self._busy, self._own, self._since = busy_seconds(), own_seconds(), time.monotonic()

    def stop(self, drift: float) -> dict[str, Any]:
        """Completes the record of the conditions.

        Args:
            drift: median time of the second half of the repeats over that of the first.

        Returns:
            `fixed_work_ms` (before and after), `others_cores` (mean number of cores used by other processes),
            `load_average`, `drift`, on a GPU the output of `nvidia-smi`, and `notes`: one phrase per condition that
            makes the measurement doubtful.
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
    """Phrases about conditions that make a measurement doubtful; empty if there are none."""
    found = []
    if (others := values.get("others_cores", 0.0)) > SHARED_CORES:
        found.append(f"other work used {others:.1f} cores during the measurement")
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
    """Milliseconds of a fixed matrix product, to separate the speed of the machine from that of the backbone.

    On a CPU this is processor time, so it shows the speed of the cores; `others_cores` shows their use by others.
    """
    size = 4096 if device.type == "cuda" else 768
    a = torch.ones(size, size, device=device)
    timing = repeat(lambda: a @ a, device, seconds=0.3, least=9)
    return round(1000 * (timing.busy if device.type == "cpu" else timing.low), 4)


def busy_seconds() -> float | None:
    """Core seconds used by all processes since the machine started; None if the system does not report them."""
    with suppress(OSError, ValueError, IndexError):
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _, _, irq, soft, steal = fields
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return None


def own_seconds() -> float:
    """Core seconds used by this process, over all threads."""
    return time.process_time()


def gpu_state(command: str = "nvidia-smi") -> dict[str, Any]:
    """Clock, temperature and throttling of the GPU; empty if `nvidia-smi` gives no answer."""
    # The second name is the one of drivers before 535; `nvidia-smi` refuses names it does not know.
    names = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
    answers = (gpu.ask("clocks.sm", "clocks.max.sm", "temperature.gpu", name, command=command) for name in names)
    with suppress(ValueError):
        clock, most, heat, reasons = next(filter(None, answers), [])
        slowed = int(reasons, 16) & _THROTTLED
        return {
            "gpu_clock_mhz": int(clock),
            "gpu_max_clock_mhz": int(most),
            "gpu_celsius": int(heat),
            "throttled": bool(slowed),
        }
    return {}


_THROTTLED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""NVML bits for power cap, hardware slowdown, software and hardware thermal slowdown, and power brake."""


def _foreign_bytes(device: torch.device) -> int:
    """Bytes of GPU memory outside torch's allocator, including the CUDA context of this process."""
    free, total = torch.cuda.mem_get_info(device)
    return max(total - free - torch.cuda.memory_reserved(device), 0)
