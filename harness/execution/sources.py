"""Where executors get their jobs from: a list that is known beforehand, or a search that decides as it goes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from harness.spec.job import Job


@runtime_checkable
class TrialSource(Protocol):
    """Jobs that are decided upon while others run. Methods are called from several threads.

    Attributes:
        ahead: jobs that may be asked for before the ones before them ended; 0 is as many as run at the same time.
    """

    @property
    def ahead(self) -> int: ...

    def next(self) -> Job | None:
        """The next job; None if there is nothing to start now."""

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Takes an event of a job; returns whether the job must stop."""


class JobList:
    """Jobs that are known beforehand, in their order; none is stopped."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left, self._lock = deque(jobs), threading.Lock()
        self.ahead = len(jobs)

    def next(self) -> Job | None:
        """The next job; None when all were given out."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Nothing depends on what happens."""
        return False
