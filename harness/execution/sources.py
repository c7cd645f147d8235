"""Sources of jobs for executors: a fixed list, or a search that chooses each job when it can start."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from harness.spec.job import Job


@runtime_checkable
class TrialSource(Protocol):
    """Provides jobs and receives their events. Methods are called from several threads.

    Attributes:
        ahead: how many jobs may be requested before earlier ones end; 0 means as many as run at the same time.
    """

    @property
    def ahead(self) -> int: ...

    def next(self) -> Job | None:
        """Returns the next job; None if there is nothing to start now."""

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Takes an event of a job; returns whether the job must stop."""


class JobList:
    """A fixed list of jobs, in order; no job is stopped."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._pending, self._lock = deque(jobs), threading.Lock()
        self.ahead = len(jobs)

    def next(self) -> Job | None:
        """Returns the next job; None after the last."""
        with self._lock:
            return self._pending.popleft() if self._pending else None

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Ignores the event; never stops a job."""
        return False
