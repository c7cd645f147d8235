"""Runs jobs on this machine without Ray: each is a child process, some at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from harness import child
from harness.job import Job

OnEvent = Callable[[Job, dict[str, Any]], None]


@dataclass(frozen=True)
class Resources:
    """What a run gets.

    Attributes:
        gpus: GPUs a run, fractions allowed; a fraction is book-keeping, memory is not divided.
        cpus: CPU cores a run; also its number of threads.
        max_concurrent: runs at once; 0 is as many as fit.
        timeout: hard limit of a run in seconds; 0 is none.
        address: an existing Ray cluster, or empty for one of this machine.
    """

    gpus: float = 0.0
    cpus: int = 1
    max_concurrent: int = 0
    timeout: float = 0.0
    address: str = ""


def inline(jobs: Sequence[Job], resources: Resources, on_event: OnEvent, stop: threading.Event) -> dict[str, str]:
    """Runs jobs on this machine without Ray, `max_concurrent` at a time; returns status by run id."""
    statuses: dict[str, str] = {}

    def one(job: Job) -> None:
        if stop.is_set():
            return
        on_event(job, {"event": "start"})
        statuses[job.spec.run_id] = child.run(
            job, lambda event: on_event(job, event), timeout=resources.timeout or None, stop=stop
        )
        on_event(job, {"event": "finished", "status": statuses[job.spec.run_id]})

    with ThreadPoolExecutor(max(resources.max_concurrent, 1)) as pool:
        futures = [pool.submit(one, job) for job in jobs]
        for future in futures:
            future.result()
    return statuses


class Feed(Protocol):
    """Jobs that are decided upon while others run. Methods are called from several threads."""

    def next(self) -> Job | None:
        """The next job; None if there is nothing to start now."""

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Takes an event of a job; returns whether the job must stop."""


def feed_inline(feed: Feed, resources: Resources, stop: threading.Event) -> None:
    """Runs what a feed gives on this machine without Ray, `max_concurrent` at a time."""
    running: set[threading.Event] = set()

    def work() -> None:
        while not stop.is_set() and (job := feed.next()) is not None:
            running.add(stopped := threading.Event())
            feed.event(job, {"event": "start"})
            status = child.run(job, _listener(feed, job, stopped), timeout=resources.timeout or None, stop=stopped)
            running.discard(stopped)
            feed.event(job, {"event": "finished", "status": status})

    with ThreadPoolExecutor(max(resources.max_concurrent, 1)) as pool:
        futures = [pool.submit(work) for _ in range(max(resources.max_concurrent, 1))]
        while not all(future.done() for future in futures):
            if stop.wait(0.2):
                for stopped in list(running):
                    stopped.set()
        for future in futures:
            future.result()


def _listener(feed: Feed, job: Job, stopped: threading.Event) -> child.OnEvent:
    def listen(event: dict[str, Any]) -> None:
        if feed.event(job, event):
            stopped.set()

    return listen
