"""A record with everything but the results of its run; driver and worker both write it."""

from __future__ import annotations

import sys
from typing import Any

from harness.records.environment import capture
from harness.records.schema import Record, new
from harness.spec.job import STAGES, Job

SOURCES = {
    "test": "trained",
    "search": "search",
    "checkpoint": "published-checkpoint",
    "features": "features",
    "profile": "profile",
}
"""Source of a record by the purpose of its run."""


def base_record(job: Job, status: str, stage: str | None, error: dict[str, Any] | None) -> Record:
    """A record with everything but what the run found out; also written for a run that died without a word."""
    device = job.spec.device if "torch" in sys.modules else "cpu"
    record = new(job.spec, source=SOURCES[job.spec.purpose])
    record["status"], record["error"] = status, error  # type: ignore[typeddict-item]
    record["stage"] = stage if stage in STAGES and status != "ok" else None
    record["environment"] = {**capture(device), "threads": job.threads}
    record["ray_trial_id"], record["attempts"] = job.ray_trial_id or None, job.attempt
    if job.asked:
        record["request"] = job.asked
    return record
