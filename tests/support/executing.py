"""Jobs on an executor, without a driver around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from harness.execution.options import Resources
from harness.execution.sources import JobList, TrialSource
from harness.spec.job import Job

Executor = Callable[[TrialSource, Resources, threading.Event], None]


def execute(
    executor: Executor,
    jobs: Sequence[Job],
    resources: Resources,
    listen: Callable[[Job, dict[str, Any]], object] = lambda job, event: None,
    stop: threading.Event | None = None,
) -> dict[str, str]:
    """Runs jobs; returns the status by run id."""
    statuses: dict[str, str] = {}

    class Heard(JobList):
        def event(self, job: Job, event: dict[str, Any]) -> bool:
            if event["event"] == "finished":
                statuses[job.spec.run_id] = event["status"]
            listen(job, event)
            return False

    executor(Heard(jobs), resources, stop or threading.Event())
    return statuses
