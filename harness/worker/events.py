"""Events that a run sends to its driver: JSON lines on standard output."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from typing import IO, Any

from harness.errors import out_of_memory
from harness.records.schema import Timing
from harness.spec.names import Status
from harness.system import hooks


class Interrupted(BaseException):
    """The run was asked to stop; it keeps its checkpoint and writes a record with status `interrupted`."""


def status_of(problem: Exception) -> Status:
    """Returns `diverged`, `oom` or `failed`, by the exception's type, or its text where torch has no type."""
    if type(problem).__name__ == "Diverged":
        return "diverged"
    return "oom" if out_of_memory(problem) else "failed"


class Progress:
    """Writes events as JSON lines and measures the duration of each stage, in seconds."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self.stage = "start"
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    def emit(self, event: str, **values: Any) -> None:
        """Writes one event; ignores a closed pipe, so that the run continues."""
        with contextlib.suppress(OSError, ValueError):
            self._out.write(json.dumps({"event": event, **values}) + "\n")
            self._out.flush()

    def enter(self, stage: str) -> None:
        """Starts a stage."""
        now = time.monotonic()
        self.seconds[self.stage] = round(self.seconds.get(self.stage, 0.0) + now - self._since, 3)
        self.stage, self._since = stage, now
        self.emit("stage", stage=stage)
        hooks.reached(stage)

    def timing(self) -> Timing:
        """The timing block of the record."""
        self.enter("record")
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        stages = {stage: seconds for stage, seconds in self.seconds.items() if stage != "start"}
        return {"started": self.started, "ended": ended, "seconds": stages}
