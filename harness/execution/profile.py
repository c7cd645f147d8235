"""The efficiency study: plans its cells, then measures them one after another."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TextIO

from harness.errors import UsageError
from harness.execution.progress import ProgressDisplay
from harness.execution.run import Outcome, run
from harness.execution.settings import Asked, resolve
from harness.planning import profile
from harness.planning.plan import Planned
from harness.planning.profile import Study
from harness.planning.request import Names, resolve_device
from harness.records import store
from harness.spec.condition import DATASET
from harness.spec.job import Job
from harness.system import processes

THREADS_BESIDE_A_GPU = 4


def plan(backbones: Names, given: Mapping[str, Any]) -> tuple[Asked, list[Planned]]:
    """Plans the cells of a study.

    Args:
        backbones: names of backbones.
        given: settings of requests and executions, and those of `Study`.

    Raises:
        UsageError: an unknown name or setting, or an invalid batch size for the training step.
    """
    measured = Study.__dataclass_fields__
    fixed = {"recipe": "profile", "from_scratch": True}
    asked = resolve(backbones, DATASET, {**given, **fixed}, grid=False, others=measured)
    if asked.execution.audit:
        raise UsageError("A measurement scores nothing, so there is nothing to audit. Leave out the audit.")
    study = Study(**asked.others)
    if not study.image_sizes:
        raise UsageError("--image-size is empty. Pass at least one size, for example 256x128.")
    if not study.threads:
        most = THREADS_BESIDE_A_GPU if resolve_device(asked.request.device) == "cuda" else processes.cores()
        study = replace(study, threads=min(processes.cores(), most))
    return asked, profile.build(asked.request, study)


def measure(asked: Asked, cells: Sequence[Planned]) -> Outcome:
    """Measures the missing cells, one at a time; running out of memory counts as a result."""
    execution = replace(asked.execution, scheduler="local", max_concurrent=1, gpus_per_run=0)

    def display(jobs: list[Job]) -> CellDisplay:
        return CellDisplay(sys.stdout, jobs, asked)

    return run(asked.request, cells, execution, display=display, accepted=("ok", "oom"))


class CellDisplay(ProgressDisplay):
    """Prints the result of each cell as soon as it ends."""

    def __init__(self, out: TextIO, jobs: list[Job], asked: Asked) -> None:
        super().__init__(out, jobs)
        self.asked = asked

    def result(self, job: Job) -> tuple[list[str], str]:
        """The result of a cell, and notes on problems of the measurement."""
        record = store.find(self.asked.request.results, job.spec)
        if record is None or record["status"] != "ok":
            return [], ""
        numbers: Any = record["efficiency"]
        rate = numbers.get("inference_images_per_second") or numbers.get("train_images_per_second")
        peak = numbers.get("peak_memory_bytes")
        words = [f"{rate:,.0f} images/s" if rate >= 1000 else f"{rate:.4g} images/s"]
        words += [f"{numbers['repeats']} repeats, +-{100 * numbers['relative_error']:.1f} %"]
        words += [f"{peak / 2**20:,.0f} MiB"] if peak is not None else []
        notes = "; ".join(numbers["conditions"]["notes"])
        return words, f"Note: {notes}." if notes else ""
