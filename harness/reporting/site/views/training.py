"""Training curves: the metrics of each epoch, from `metrics.jsonl` beside the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.records import epochs as records
from harness.reporting.site.source import Source, rounded

LEFT_OUT = ("epoch", "seconds")
MOST_POINTS = 150


def build(source: Source) -> Mapping[str, Any]:
    """Curves by run, null without; long ones keep every n-th epoch and the last."""
    found: dict[str, Any] = {}
    for record in source.sorted:
        if record["source"] in ("trained", "search"):
            folder = source.folder_of(record)
            found[source.short(record)] = (_read(folder) if folder else None) or None
    return source.by_file("training", found)


def _read(folder: Path) -> dict[str, list[Any]]:
    """Values by metric, and the epochs; empty if there are none."""
    by_epoch = {line["epoch"]: line for line in records.read(folder)}  # the last one counts for a repeated epoch
    epochs = sorted(by_epoch)
    step = -(-len(epochs) // MOST_POINTS)
    kept = sorted({*epochs[::step], *epochs[-1:]}) if epochs else []
    names = sorted({name for epoch in kept for name, value in by_epoch[epoch].items() if _is_number(value)})
    curves = {
        name: rounded([_number(by_epoch[e].get(name)) for e in kept], 6) for name in names if name not in LEFT_OUT
    }
    return {"epoch": kept, **curves} if curves else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) else None
