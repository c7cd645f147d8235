"""Finds a trained network: a run among the results, or a checkpoint file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
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

    @property
    def dataset(self) -> str:
        """The dataset that the network was trained on; empty if unknown."""
        return self.record["spec"]["dataset"] if self.record else ""

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
    entry = registry.backbone(name, folder)
    height, width = image_size or entry.input.image_size
    return Source(
        entry=entry,
        checkpoint=path,
        record=None,
        options=entry.options(dict(options or {})),
        image_size=(int(height), int(width)),
        interpolation=Augmentation().interpolation_test,
        batch_size=Evaluation().batch_size,
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
    folder = _folder(results, run)
    path, record = folder / "checkpoint.pt", store.read(folder)
    if not path.is_file():
        raise UsageError(f"Run {run} has no checkpoint in {folder}. Train it here, or pass a checkpoint file.")
    spec, trained = record["spec"], (record["data"].get("splits") or {}).get("train", {})
    ran = recipe.from_values(spec["recipe"], dict(spec["values"]))
    if name and registry.backbone(name, plugins).name != spec["backbone"]:
        raise UsageError(f"Run {run} trained {spec['backbone']}, not {name}.")
    entry = registry.backbone(spec["backbone"], plugins)
    height, width = image_size or ran.augmentation.image_size
    return Source(
        entry=entry,
        checkpoint=path,
        record=record,
        options=entry.options({**spec["options"], **options}),
        image_size=(int(height), int(width)),
        interpolation=ran.augmentation.interpolation_test,
        batch_size=ran.evaluation.batch_size,
        metric=ran.evaluation.metric,
        identities=trained.get("identities", 1),
        cameras=trained.get("cameras", 1),
    )


def _folder(results: Path, run: str) -> Path:
    """Finds the folder of a run by the first characters of its id."""
    found = [entry for run_id, entry in store.index(results).items() if run_id.startswith(run)]
    if not found:
        raise UsageError(
            f"No run in {results} has an id that starts with '{run}'. If it is in another folder, pass "
            "--results FOLDER."
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} runs in {results} have an id that starts with '{run}'. Pass more characters of the id; "
            "'python -m harness status' lists the runs."
        )
    return (results / found[0].path).parent
