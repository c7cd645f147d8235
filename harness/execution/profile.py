"""The efficiency study: cells are planned, then measured one after another."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TextIO, TypedDict

from harness.errors import UsageError
from harness.execution.progress import ProgressDisplay
from harness.execution.run import Outcome, run
from harness.execution.settings import Asked, resolve
from harness.planning import profile
from harness.planning.plan import Planned
from harness.planning.request import Names, resolve_device
from harness.records import store
from harness.spec.condition import DATASET, Condition
from harness.spec.job import Job
from harness.system import processes

THREADS_BESIDE_A_GPU = 4


class MeasurementSettings(TypedDict, total=False):
    """What is measured. Every key may be left out.

    Attributes:
        image_sizes: (height, width) in pixels. Default 256 x 128.
        batches: batch sizes of inference. Default 1 and 64.
        train_batches: batch sizes of training; empty leaves it out. Default 64.
        precisions: of `fp32`, `bf16` and `fp16`. Default `fp32`.
        heights: image heights of the scaling study. Default 256, 512, 768 and 1024.
        heights_batch: its batch size. Default 4.
        compiled: measure with `torch.compile` too.
        threads: CPU threads. Default all cores, beside a GPU at most 4.
        seconds: maximum timing duration per measurement. Default 3.
    """

    image_sizes: Sequence[tuple[int, int]]
    batches: Sequence[int]
    train_batches: Sequence[int]
    precisions: Sequence[str]
    heights: Sequence[int]
    heights_batch: int
    compiled: bool
    threads: int
    seconds: float


DEFAULTS: MeasurementSettings = {
    "image_sizes": [(256, 128)],
    "batches": [1, 64],
    "train_batches": [64],
    "precisions": ["fp32"],
    "heights": [256, 512, 768, 1024],
    "heights_batch": 4,
    "compiled": False,
    "threads": 0,
    "seconds": 3.0,
}


def plan(backbones: Names, given: Mapping[str, Any]) -> tuple[Asked, list[Planned]]:
    """Plans the cells of a study.

    Args:
        backbones: names.
        given: settings of requests and executions, and those of `MeasurementSettings`.

    Raises:
        UsageError: an unknown name or setting, or a batch that no training step can be made of.
    """
    asked = resolve(backbones, DATASET, {**given, "recipe": "profile", "from_scratch": True}, others=DEFAULTS)
    values: dict[str, Any] = {**DEFAULTS, **asked.others}
    if not values["image_sizes"]:
        raise UsageError("--image-size is empty; give at least one, for example 256x128.")
    if not values["threads"]:
        beside_gpu = resolve_device(asked.request.device) == "cuda"
        values["threads"] = min(processes.cores(), THREADS_BESIDE_A_GPU) if beside_gpu else processes.cores()
    return asked, profile.build(asked.request, profile.Study(**values))


def measure(asked: Asked, cells: Sequence[Planned]) -> Outcome:
    """Measures the cells that are to do, one at a time; a cell that is out of memory is a result."""
    execution = replace(asked.execution, scheduler="local", max_concurrent=1, gpus_per_run=0)

    def display(jobs: list[Job]) -> CellDisplay:
        return CellDisplay(sys.stdout, jobs, asked)

    return run(asked.request, cells, execution, display=display, accepted=("ok", "oom"))


class CellDisplay(ProgressDisplay):
    """Shows what each cell found out as soon as it ends."""

    def __init__(self, out: TextIO, jobs: list[Job], asked: Asked) -> None:
        super().__init__(out, jobs)
        self.asked = asked

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Takes an event of a cell."""
        if event["event"] == "finished":
            self.say(f"{Condition.from_values(job.spec.values)}: {self._outcome(job)}")
        super().event(job, event)

    def _outcome(self, job: Job) -> str:
        """What a cell found out, on one line, with whatever casts doubt on it."""
        record = store.find(self.asked.request.results, job.spec)
        if record is None or record["status"] != "ok":
            error = record["error"] if record else None
            return error["message"] if error else "no record"
        numbers: Any = record["efficiency"]
        rate = numbers.get("inference_images_per_second") or numbers.get("train_images_per_second")
        peak = numbers.get("peak_memory_bytes")
        words = [f"{rate:.4g} images/s", f"{numbers['repeats']} repeats, +-{100 * numbers['relative_error']:.1f} %"]
        words += [f"{peak / 2**20:,.0f} MiB"] if peak is not None else []
        doubts = numbers["conditions"]["notes"]
        return ", ".join(words) + (f" ({'; '.join(doubts)})" if doubts else "")
