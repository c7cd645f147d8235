"""Maps each purpose of a run to its pipeline. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from harness.spec.job import Job
from harness.spec.names import Purpose
from harness.worker.events import Progress
from harness.worker.profile_cell import ProfileCell
from harness.worker.stored_runs import CheckpointRun, FeatureRun
from harness.worker.training_runs import SearchTrial, TrainingRun


class Runnable(Protocol):
    """A run that can be executed.

    Attributes:
        blocks: blocks of the record, each added as soon as it is known.
        tables: per-query rows, by file name.
    """

    blocks: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]

    def run(self) -> None:
        """Executes all stages in order."""


PIPELINES: dict[Purpose, Callable[[Job, Path, Progress], Runnable]] = {
    "test": TrainingRun,
    "search": SearchTrial,
    "checkpoint": CheckpointRun,
    "features": FeatureRun,
    "profile": ProfileCell,
}
