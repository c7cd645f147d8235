"""A record without the results of its run; written by the worker, or by the driver if the worker has died."""

from __future__ import annotations

import sys
from typing import Any, cast

from harness.records.environment import capture
from harness.records.schema import Asked, Error, Record, new
from harness.spec.job import Job
from harness.spec.names import PURPOSES, STAGES, Stage, Status


def base_record(job: Job, status: str, stage: str | None, error: dict[str, Any] | None) -> Record:
    """Returns a record without results, with spec, status, environment and request.

    Args:
        job: the job of the run.
        status: final status.
        stage: stage in which the run failed; ignored for status `ok`.
        error: the `error` block of the record.
    """
    device = job.spec.device if "torch" in sys.modules else "cpu"
    record = new(job.spec, source=PURPOSES[job.spec.purpose].source)
    record["status"], record["error"] = cast(Status, status), cast("Error | None", error)
    record["stage"] = cast(Stage, stage) if stage in STAGES and status != "ok" else None
    record["environment"] = {**capture(device), "threads": job.threads}
    record["ray_trial_id"], record["attempts"] = job.ray_trial_id or None, job.attempt
    if job.asked:
        record["request"] = cast(Asked, job.asked)
    return record
