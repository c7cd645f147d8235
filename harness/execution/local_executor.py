"""Runs jobs on this machine without Ray, each in a child process."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from harness.errors import UsageError
from harness.execution import process
from harness.execution.options import Resources
from harness.execution.sources import TrialSource
from harness.spec.job import Job
from harness.system import gpu

WAIT = 0.5
"""Seconds between two looks for a stop while there is no job to start."""


class Slots:
    """Slots for concurrent runs on this machine, each with the GPUs visible to its run.

    Args:
        resources: GPUs per run and number of concurrent runs.

    Raises:
        UsageError: the machine has too few GPUs.
    """

    def __init__(self, resources: Resources) -> None:
        self.count = max(resources.max_concurrent, 1)
        self._free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for devices in _devices(resources.gpus, self.count):
            self._free.put(devices)

    @contextlib.contextmanager
    def one(self) -> Iterator[str | None]:
        """Reserves a slot; yields its `CUDA_VISIBLE_DEVICES`, or None for the GPUs visible to this process."""
        devices = self._free.get()
        try:
            yield devices
        finally:
            self._free.put(devices)


def _devices(gpus: float, count: int) -> list[str | None]:
    """Returns the GPUs of each of `count` slots; runs with a fraction of a GPU are spread over all GPUs first."""
    if gpus <= 0:
        return [None] * count
    seen = gpu.names()
    if not seen and count == 1:  # the number of GPUs is unknown, so the run itself finds out
        return [None]
    capacity = int(len(seen) / gpus + 1e-9) if gpus >= 1 else len(seen) * math.floor(1 / gpus + 1e-9)
    if count > capacity:
        raise UsageError(
            f"Cannot run {count} runs at once with {gpus:g} GPU each: this machine has {len(seen)} GPU. "
            "Lower --max-concurrent or --gpus-per-run."
        )
    if gpus < 1:
        return [seen[slot % len(seen)] for slot in range(count)]
    each = int(gpus)
    return [",".join(seen[slot * each : (slot + 1) * each]) for slot in range(count)]


def run_locally(source: TrialSource, resources: Resources, stop: threading.Event) -> None:
    """Runs the jobs of a source on this machine without Ray, `max_concurrent` at a time."""
    running: set[threading.Event] = set()
    slots, limit, changed = Slots(resources), resources.timeout or None, threading.Condition()

    def begin() -> tuple[Job, threading.Event] | None:
        """Takes the next job. While there is none, a running job may lead to one."""
        with changed:
            while not stop.is_set():
                if (job := source.next()) is not None:
                    running.add(stopped := threading.Event())
                    return job, stopped
                if not running:
                    return None
                changed.wait(WAIT)
            return None

    def work() -> None:
        while begun := begin():
            job, stopped = begun
            try:
                source.event(job, {"event": "start"})
                with slots.one() as devices:
                    listener = _listener(source, job, stopped)
                    status = process.run(job, listener, timeout=limit, stop=stopped, devices=devices)
                source.event(job, {"event": "finished", "status": status})
            finally:
                with changed:
                    running.discard(stopped)
                    changed.notify_all()

    with ThreadPoolExecutor(slots.count) as pool:
        futures = [pool.submit(work) for _ in range(slots.count)]
        while wait(futures, timeout=0.2).not_done:
            if stop.is_set():
                for stopped in list(running):
                    stopped.set()
        for future in futures:
            future.result()


def _listener(source: TrialSource, job: Job, stopped: threading.Event) -> process.OnEvent:
    def listen(event: dict[str, Any]) -> None:
        if source.event(job, event):
            stopped.set()

    return listen
