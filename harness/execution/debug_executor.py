"""Runs jobs one after the other in this process, so that a debugger can stop inside a run."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

from harness.execution.options import Resources
from harness.execution.process import leave_record
from harness.execution.sources import TrialSource
from harness.registry.imports import forget_plugins
from harness.spec.job import Job
from harness.worker import main as worker
from harness.worker.events import Interrupted, Progress


class Here(Progress):
    """Calls a function with each event. If it returns True, the run is interrupted, once.

    Args:
        told: the function.
    """

    def __init__(self, told: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__(io.StringIO())
        self._told, self._stopped = told, False

    def emit(self, event: str, **values: Any) -> None:
        """Sends one event.

        Raises:
            Interrupted: the run must stop.
        """
        must_stop = self._told({"event": event, **values}) and event != "end" and self.stage != "record"
        if must_stop and not self._stopped:
            self._stopped = True
            raise Interrupted


def run_here(source: TrialSource, resources: Resources, stop: threading.Event) -> None:
    """Runs the jobs of a source in this process, with all its resources; their records have no speed and memory."""
    while not stop.is_set() and (job := source.next()) is not None:
        source.event(job, {"event": "start"})
        source.event(job, {"event": "finished", "status": _status(job, source, stop)})


def _status(job: Job, source: TrialSource, stop: threading.Event) -> str:
    """Runs one job; returns its status."""
    end: dict[str, Any] = {}

    def told(event: dict[str, Any]) -> bool:
        if event["event"] == "end":
            end.update(event)
        return source.event(job, event) or stop.is_set()

    forget_plugins()  # their code may have changed since an earlier run in this process
    with _torch_as_before():
        worker.execute_here(job, Here(told))
    if end["status"] == "ok":
        return "ok"
    return leave_record(job, end["status"], end.get("error") or "The run left no record.", end.get("stage"))


@contextlib.contextmanager
def _torch_as_before() -> Iterator[None]:
    """Restores the settings of torch that a run changes for its process."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
