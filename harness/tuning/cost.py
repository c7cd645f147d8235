"""What runs will cost: seconds of training, from the images per second that earlier runs measured."""

from __future__ import annotations

import os
import statistics
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.records import store
from harness.spec.run_spec import RunSpec

RUNS, PROFILE = ("trained", "search"), ("profile",)
"""Sources of records with a training speed: runs are asked first."""

NEWEST = {RUNS: 5, PROFILE: 40}
"""Number of newest records of a backbone that are read."""


class Speeds:
    """Measured training speeds of the results folder.

    Args:
        results: folder of the records.
        index: its entries by run id.
    """

    def __init__(self, results: Path, index: Mapping[str, store.Entry]) -> None:
        self._paths: dict[tuple[str, str], list[Path]] = {}
        for entry in index.values():
            if entry.status == "ok":
                self._paths.setdefault((entry.backbone, entry.source), []).append(results / entry.path)
        self._records: dict[tuple[str, tuple[str, ...]], list[store.Record]] = {}

    def of(self, spec: RunSpec, searched: Collection[str] = ()) -> float | None:
        """Median images per second of runs like this one; None if none was measured.

        Args:
            spec: the run. Device, image size and build options must be equal.
            searched: build options that may differ.
        """
        wanted = _network(spec.to_dict(), searched)
        for sources in NEWEST:
            alike = [r for r in self._newest(spec.backbone, sources) if _network(r["spec"], searched) == wanted]
            if rates := [rate for r in alike if (rate := images_per_second(r["efficiency"]))]:
                return statistics.median(rates)
        return None

    def _newest(self, backbone: str, sources: tuple[str, ...]) -> list[store.Record]:
        if (backbone, sources) not in self._records:
            paths = [path for source in sources for path in self._paths.get((backbone, source), [])]
            newest = sorted(paths, key=_modified, reverse=True)[: NEWEST[sources]]
            self._records[backbone, sources] = list(_readable(newest))
        return self._records[backbone, sources]


def images_per_second(efficiency: Mapping[str, Any]) -> float | None:
    """Training speed of a run or of a profiled training step, per process (on GPUs per GPU)."""
    if rate := efficiency.get("train_images_per_second"):
        return float(rate) / (efficiency.get("train_processes") or 1)
    if (step := efficiency.get("train_step_ms")) and (batch := efficiency.get("batch_size")):
        return 1000 * float(batch) / float(step)
    return None


def spent(records: Iterable[Mapping[str, Any]]) -> float:
    """Seconds that runs took, times the number of processes (on GPUs one per GPU) that trained together."""
    return sum(
        sum((record["timing"].get("seconds") or {}).values()) * (record["efficiency"].get("train_processes") or 1)
        for record in records
    )


def hours(seconds: float) -> str:
    """Hours in two digits."""
    return f"{seconds / 3600:,.0f}" if seconds >= 36000 else f"{seconds / 3600:.2g}"


def _network(spec: Mapping[str, Any], searched: Collection[str]) -> list[Any]:
    """What the speed of training depends on."""
    size = list((spec["values"].get("augmentation") or {}).get("image_size") or ())
    return [spec["device"], size, {k: v for k, v in spec["options"].items() if k not in searched}]


def _readable(paths: Iterable[Path]) -> Iterable[store.Record]:
    for path in paths:
        try:
            yield store.read(path)
        except RecordError:
            continue


def _modified(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
