"""Planning of the efficiency study: conditions x backbones become run specs. Imports no torch.

A cell is a run like any other, so finished cells are not repeated. The GPU or processor and the number of threads are
part of its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import registry
from harness.errors import UsageError, unknown
from harness.planning.plan import Planned, planned
from harness.planning.problems import Problem, of_backbone, plain
from harness.planning.request import Request, check_options
from harness.planning.run_specs import SpecFactory
from harness.records import environment, store
from harness.registry import BackboneEntry
from harness.spec.condition import DATASET, INSTANCES, PRECISIONS, Condition


@dataclass(frozen=True)
class Study:
    """What to measure, for every backbone.

    Attributes:
        image_sizes: (height, width) each.
        batches: batch sizes of inference.
        train_batches: batch sizes of training; empty skips training.
        precisions: of `PRECISIONS`.
        heights: image heights of the scaling study, at the width of the first image size.
        heights_batch: its batch size.
        compiled: also measure everything with `torch.compile`.
        threads: CPU threads.
        seconds: maximum timing duration per cell, in seconds; the first few repeats are always made.
    """

    image_sizes: Sequence[tuple[int, int]] = ((256, 128),)
    batches: Sequence[int] = (1, 64)
    train_batches: Sequence[int] = (64,)
    precisions: Sequence[str] = ("fp32",)
    heights: Sequence[int] = (256, 512, 768, 1024)
    heights_batch: int = 4
    compiled: bool = False
    threads: int = 0
    seconds: float = 3.0

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

    Cells of one condition are neighbours, and each condition begins with another backbone. So a machine that slows
    down as it warms up does so for all backbones.

    Raises:
        UsageError: an unknown name or option, or a training batch of an impossible size.
    """
    chosen = registry.resolve_backbones(request.backbones, request.plugins)
    specs = SpecFactory(request)
    _check(study, request, chosen)
    hardware, known = environment.hardware(specs.device), store.index(request.results)
    cells = []
    for turn, condition in enumerate(study.conditions()):
        values, first = condition.values(hardware), turn % len(chosen)
        for backbone in [*chosen[first:], *chosen[:first]]:
            spec = specs.make(backbone, DATASET, "profile", values, purpose="profile")
            cells.append(planned(request, spec, known, tuple(_problems(spec.device, condition, backbone))))
    return cells


def _problems(device: str, condition: Condition, backbone: BackboneEntry) -> Iterator[Problem]:
    """Yields why a backbone cannot be measured under a condition."""
    yield from of_backbone(backbone)
    if condition.precision == "fp16" and device == "cpu":
        yield plain("fp16 needs a GPU", "fp16 needs a GPU")
    if condition.measure == "training" and not backbone.card.trainable:
        yield plain("nothing to train", "nothing to train")


def _check(study: Study, request: Request, chosen: Sequence[BackboneEntry]) -> None:
    for precision in study.precisions:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
    for batch in study.train_batches:
        if batch < 2 or batch % min(INSTANCES, batch):
            raise UsageError(f"--train-batch must be 2, 3 or a multiple of {INSTANCES}, found {batch}.")
    check_options(request, chosen)
