"""Finds a trained network: a run among the results, or a checkpoint file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry, weights
from harness.errors import UsageError
from harness.records import store
from harness.records.schema import Record
from harness.registry import BackboneEntry
from harness.spec import recipe
from harness.spec.recipe import Augmentation, Evaluation
from harness.system.paths import expand


@dataclass(frozen=True)
class Source:
    """Where the weights of a network come from, and how its evaluation reads images.

    Attributes:
        entry: the backbone.
        checkpoint: the file; `None` for a network with random weights.
        record: record of the run that wrote the file, or `None`.
        options: build options.
        image_size: (height, width) in pixels.
        interpolation: `bicubic` or `bilinear`.
        batch_size: images per batch. It may change the last bit of a feature.
        metric: distance between features in the evaluation.
        identities: identities in training, for a checkpoint that does not determine them.
        cameras: cameras in training, likewise.
        plugins: folder of further plug-ins.
    """

    entry: BackboneEntry
    checkpoint: Path | None
    record: Record | None
    options: Mapping[str, Any]
    image_size: tuple[int, int]
    interpolation: str
    batch_size: int
    metric: str = "cosine"
    identities: int = 1
    cameras: int = 1
    plugins: Path | None = None

    @property
    def dataset(self) -> str:
        """The dataset that the network was trained on; empty if unknown."""
        return self.record["spec"]["dataset"] if self.record else ""

    @property
    def threads(self) -> int:
        """CPU threads of the run, which may change the last bit of a feature; 0 if unknown, or if it ran on a GPU."""
        on_cpu = self.record is not None and self.record["spec"]["device"] == "cpu"
        return int(self.record["environment"].get("threads") or 0) if self.record and on_cpu else 0

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The gray values of black and white, if the network was trained on images of more than 8 bits."""
        notes = (self.record["data"].get("notes") or {}) if self.record else {}
        low_high = notes.get("value_range")
        return (low_high[0], low_high[1]) if low_high else None

    @property
    def name(self) -> str:
        """The network in one phrase, for messages."""
        if self.record:
            return f"{self.entry.name}, run {self.record['run_id'][:12]}"
        return f"{self.entry.name}, {self.checkpoint.name}" if self.checkpoint else f"{self.entry.name}, untrained"


def find(
    name: str = "",
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    run: str | None = None,
    results: str | os.PathLike[str] = "results",
    plugins: str | os.PathLike[str] = "",
    options: Mapping[str, Any] | None = None,
    image_size: Sequence[int] | None = None,
) -> Source:
    """Finds a network; see `harness.load_backbone`.

    Raises:
        UsageError: an unknown name or run, a run without a checkpoint, or a missing file.
    """
    if run and checkpoint:
        raise UsageError("Pass either a checkpoint or a run, not both.")
    folder = Path(expand(plugins)) if plugins else None
    if run:
        return _of_run(name, run, Path(expand(results)), folder, options or {}, image_size)
    if not name:
        raise UsageError("Pass the name of the backbone, or a run.")
    path = Path(expand(checkpoint)) if checkpoint else None
    if path and not path.is_file():
        raise UsageError(f"The checkpoint {path} does not exist.")
    entry, facts = registry.backbone(name, folder), weights.published.facts(path) if path else None
    if facts and facts.backbone.partition(":")[0] != entry.card.name:
        raise UsageError(f"{path} was published as {facts.backbone}, not {name}.")
    return Source(
        entry=entry,
        checkpoint=path,
        record=None,
        options=entry.options({**(facts.options if facts else {}), **(options or {})}),
        image_size=_size(image_size or (facts.image_size if facts else entry.input.image_size)),
        interpolation=facts.interpolation if facts else Augmentation().interpolation_test,
        batch_size=Evaluation().batch_size,
        identities=facts.identities if facts else 1,
        cameras=facts.cameras if facts else 1,
        plugins=folder,
    )


def _of_run(
    name: str,
    run: str,
    results: Path,
    plugins: Path | None,
    options: Mapping[str, Any],
    image_size: Sequence[int] | None,
) -> Source:
    """Finds the checkpoint of a run by the first characters of its id."""
    folder = store.find_run(results, run)
    path, record = folder / "checkpoint.pt", store.read(folder)
    if not path.is_file():
        raise UsageError(f"Run {run} has no checkpoint in {folder}. Train it here, or pass a checkpoint file.")
    if record["status"] != "ok":
        raise UsageError(
            f"Run {run} did not finish (status {record['status']}). Repeat it, or pass the backbone and {path} as a "
            "checkpoint to use the last epoch that it saved."
        )
    spec, trained = record["spec"], (record["data"].get("splits") or {}).get("train", {})
    ran = recipe.from_values(spec["recipe"], dict(spec["values"]))
    if name and registry.backbone(name, plugins).name != spec["backbone"]:
        raise UsageError(f"Run {run} trained {spec['backbone']}, not {name}.")
    entry = registry.backbone(spec["backbone"], plugins)
    return Source(
        entry=entry,
        checkpoint=path,
        record=record,
        options=entry.options({**spec["options"], **options}),
        image_size=_size(image_size or ran.augmentation.image_size),
        interpolation=ran.augmentation.interpolation_test,
        batch_size=ran.evaluation.batch_size,
        metric=ran.evaluation.metric,
        identities=trained.get("identities", 1),
        cameras=trained.get("cameras", 1),
        plugins=plugins,
    )


def _size(image_size: Sequence[int]) -> tuple[int, int]:
    match image_size:
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise UsageError(f"The image size must be (height, width) in pixels, both above 0; found {image_size}.")
