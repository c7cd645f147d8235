"""Times a call: warms up, synchronises, and repeats until the median is precise enough."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

LEAST, MOST = 5, 1000
"""Minimum and maximum number of repeats; three are enough if they take more than four times the time limit."""

PRECISE = 0.01
"""Relative standard error of the median below which repeating stops."""


@dataclass(frozen=True)
class Timing:
    """Times of a repeated call, in seconds.

    Attributes:
        median: median time.
        low: lower quartile.
        high: upper quartile.
        error: relative standard error of the median, computed from the quartiles.
        repeats: number of repeats.
        drift: median of the second half over that of the first; 1 on a steady machine.
        busy: median processor time of this process, over all threads; excludes waiting for other processes.
    """

    median: float
    low: float
    high: float
    error: float
    repeats: int
    drift: float
    busy: float

    @classmethod
    def of(cls, times: list[float], busy: list[float]) -> Timing:
        """Summarises at least two times, in order of measurement, and their processor times."""
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        half = len(times) // 2
        drift = statistics.median(times[-half:]) / statistics.median(times[:half])
        error = _error(low, median, high, len(times))
        return cls(median, low, high, error, len(times), drift, statistics.median(busy))


def repeat(
    call: Callable[[], object], device: torch.device, *, seconds: float = 1.0, least: int = LEAST, warm_up: int = 2
) -> Timing:
    """Times a call, synchronised with its device.

    Repeats until the standard error of the median is below 1 %, or `seconds` have passed, but at least `least` times.

    Args:
        call: the function to time.
        device: the device to synchronise with.
        seconds: time limit.
        least: minimum number of repeats.
        warm_up: number of calls before the first measured one.
    """
    for _ in range(warm_up):
        call()
    synchronise(device)
    times: list[float] = []
    busy: list[float] = []
    started = time.perf_counter()
    while len(times) < MOST:
        before, busy_before = time.perf_counter(), time.process_time()
        call()
        synchronise(device)
        times.append(time.perf_counter() - before)
        busy.append(time.process_time() - busy_before)
        spent = time.perf_counter() - started
        if len(times) < (min(least, 3) if spent > 4 * seconds else least):
            continue
        if spent > seconds or (len(times) % 8 == 0 and Timing.of(times, busy).error < PRECISE):
            break
    return Timing.of(times, busy)


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type in ("mps", "xpu"):
        getattr(torch, device.type).synchronize()


def _error(low: float, median: float, high: float, number: int) -> float:
    """Relative standard error: sqrt(pi / 2) sigma / sqrt(n) for normal samples, with quartiles 1.349 sigma apart."""
    return math.sqrt(math.pi / 2) * (high - low) / 1.349 / math.sqrt(number) / median if median else 0.0
