"""Planning of the efficiency study: conditions x backbones become run specs. Imports no torch.

A cell is a run like any other, so a finished one is not repeated. What it was measured on is part of its key: the
processor or GPU, and the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import PROTOCOL_VERSION, registry
from harness.errors import UsageError, unknown
from harness.planning.plan import (
    BLOCKED,
    CACHED,
    TODO,
    Planned,
    Request,
    check_options,
    chosen_options,
    resolve_device,
    torch_version,
)
from harness.records import environment, store
from harness.registry import BackboneEntry
from harness.spec import recipe
from harness.spec.job import run_folder
from harness.spec.run_spec import RunSpec
from harness.system import gpu, processes

DATASET = "random-images"
"""Stands where a dataset's name would: nothing is read."""

NUM_CLASSES, NUM_CAMERAS = 751, 6
"""Those of Market-1501, for the classifiers and the camera embedding."""

INSTANCES = 4
"""Images of an identity in a training batch, or all where the batch is smaller."""

MEASURES = ("inference", "training")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Condition:
    """What one cell measures.

    Attributes:
        measure: `inference` or `training`.
        image_size: (height, width) in pixels.
        batch_size: images at once.
        precision: `fp32`, or `bf16` and `fp16` for autocast with float32 weights, as in training.
        compiled: whether `torch.compile` is used.
        threads: CPU threads.
        seconds: longest time of the repeats, the first few aside.
    """

    measure: str
    image_size: tuple[int, int]
    batch_size: int
    precision: str = "fp32"
    compiled: bool = False
    threads: int = 1
    seconds: float = 3.0

    def __str__(self) -> str:
        height, width = self.image_size
        compiled = ", compiled" if self.compiled else ""
        return f"{self.measure}, {height}x{width}, batch {self.batch_size}, {self.precision}{compiled}"

    def described(self) -> dict[str, Any]:
        """For the `efficiency` block of the record."""
        return {
            "measure": self.measure,
            "image_size": list(self.image_size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "compiled": self.compiled,
            "threads": self.threads,
        }

    def values(self, hardware: str) -> dict[str, Any]:
        """For the run spec; a training step also needs losses and an optimiser, those of the unified recipe."""
        size = {"image_size": list(self.image_size)}
        values: dict[str, Any] = {"cell": {**self.described(), "seconds": self.seconds}, "hardware": hardware}
        if self.measure == "inference":
            return {**values, "augmentation": size}
        instances = min(INSTANCES, max(1, self.batch_size // 2))  # the losses need two identities
        chosen = recipe.load(
            recipe.find("unified"),
            "",
            {
                "augmentation.image_size": self.image_size,
                "sampler.identities": self.batch_size // instances,
                "sampler.instances": instances,
                "training.precision": self.precision,
                "optimizer.lr": 1e-6,  # the time of a step does not depend on it, a diverged model might
            },
        )
        return {**values, "recipe": chosen.values(), "augmentation": size}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Condition:
        """Rebuilds the condition of a run spec."""
        cell = dict(values["cell"])
        height, width = cell.pop("image_size")
        return cls(image_size=(height, width), **cell)


@dataclass(frozen=True)
class Study:
    """What the user asked to measure; the same for every backbone.

    Attributes:
        image_sizes: (height, width) each.
        batches: batch sizes of inference.
        train_batches: batch sizes of training; none leaves training out.
        precisions: of `PRECISIONS`.
        heights: image heights of the scaling study, at the width of the first image size.
        heights_batch: its batch size.
        compiled: also measure everything with `torch.compile`.
        threads: CPU threads.
        seconds: longest time of one cell's repeats, the first few aside.
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

    def conditions(self) -> list[Condition]:
        """Every condition once, in a fixed order."""
        width = self.image_sizes[0][1]
        found: dict[Condition, None] = {}
        for precision in self.precisions:
            for compiled in (False, True) if self.compiled else (False,):
                cells = [(m, size, b) for size in self.image_sizes for m, b in self._batches()]
                if precision == self.precisions[0] and not compiled:
                    cells += [("inference", (height, width), self.heights_batch) for height in self.heights]
                for cell in cells:
                    found[Condition(*cell, precision, compiled, self.threads, self.seconds)] = None
        return list(found)

    def _batches(self) -> list[tuple[str, int]]:
        return [("inference", b) for b in self.batches] + [("training", b) for b in self.train_batches]


def build(request: Request, study: Study) -> list[Planned]:
    """Plans every backbone under every condition.

    Cells of one condition stand together, and each condition begins with another backbone, so that a machine that
    warms up or tires does so for all of them.

    Raises:
        UsageError: an unknown name or option, or a batch no training step can be made of.
    """
    plugins = Path(request.paths.plugins) if request.paths.plugins else None
    chosen = registry.resolve_backbones(request.backbones, plugins)
    device = resolve_device(request.device)
    _check(study, request, chosen)
    hardware, known = hardware_of(device), store.index(request.results)
    sources = {backbone.name: backbone.source_hash() for backbone in chosen}
    cells = []
    for turn, condition in enumerate(study.conditions()):
        values, first = condition.values(hardware), turn % len(chosen)
        for backbone in [*chosen[first:], *chosen[:first]]:
            spec = RunSpec(
                backbone=backbone.name,
                dataset=DATASET,
                recipe="profile",
                values=values,
                seed=0,
                device=device,
                protocol=PROTOCOL_VERSION,
                torch=torch_version(),
                source=sources[backbone.name],
                options=backbone.options(chosen_options(request, backbone)),
                purpose="profile",
            )
            cells.append(_planned(spec, condition, backbone, request, known))
    return cells


def _planned(
    spec: RunSpec, condition: Condition, backbone: BackboneEntry, request: Request, known: dict[str, store.Entry]
) -> Planned:
    folder = run_folder(request.results, spec)
    problems = backbone.missing()
    if condition.precision == "fp16" and spec.device == "cpu":
        problems = [*problems, "fp16 needs a GPU"]
    if condition.measure == "training" and not backbone.card.trainable:
        problems = [*problems, "nothing to train"]
    if problems:
        return Planned(spec, BLOCKED, " ".join(problems), folder)
    entry = known.get(spec.run_id)
    if entry and entry.status == "ok" and not request.force:
        return Planned(spec, CACHED, "finished", folder)
    return Planned(spec, TODO, f"{entry.status} before" if entry else "new", folder)


def _check(study: Study, request: Request, chosen: Sequence[BackboneEntry]) -> None:
    for precision in study.precisions:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
    for batch in study.train_batches:
        if batch < 2 or batch % min(INSTANCES, batch):
            raise UsageError(f"--train-batch must be 2, 3 or a multiple of {INSTANCES}, found {batch}.")
    check_options(request, chosen)


def hardware_of(device: str) -> str:
    """Name of what is measured: the GPU, or processor and number of cores."""
    if device == "cuda":
        (name,) = gpu.ask("name") or ["NVIDIA"]
        return name
    return f"{environment.capture()['cpu']}, {processes.cores()} cores"
