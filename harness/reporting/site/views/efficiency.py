"""Every measured cell of the efficiency study, and the measurements of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.reporting.cells import current, is_training, named
from harness.reporting.rows import device, image_size, other_work
from harness.reporting.site.source import Source, columnar

INFERENCE, TRAINING = "inference_images_per_second", "train_images_per_second"


def build(source: Source) -> Mapping[str, Any]:
    """One row per cell and measure, sorted."""
    ok = [record for record in source.sorted if record["status"] == "ok"]
    cells = current([record for record in ok if record["source"] == "profile"])
    runs = [record for record in ok if record["source"] in ("trained", "published-checkpoint")]
    rows = [*(_cell(source, record) for record in cells), *(row for record in runs for row in _run(source, record))]
    return {"efficiency": columnar(sorted(rows, key=lambda row: tuple(map(str, row.values()))))}


def _row(source: Source, record: Mapping[str, Any], origin: str, training: bool) -> dict[str, Any]:
    numbers, size = record["efficiency"], image_size(record)
    return {
        "origin": origin,
        "measure": "training" if training else "inference",
        "device": device(record),
        "backbone": named(source.data, record),
        "height": size[0] if size else None,
        "width": size[1] if size else None,
        "batch": None,
        "precision": None,
        "compiled": bool(numbers.get("compiled")),
        "threads": numbers.get("threads"),
        "images_per_second": None,
        "latency": None,
        "error": numbers.get("relative_error"),
        "memory": numbers.get("peak_memory_bytes"),
        "parameters": numbers.get("parameters"),
        "parameters_inference": numbers.get("parameters_inference"),
        "flops": numbers.get("flops"),
        "shared": bool(other_work(numbers)),
        "run": source.short(record),
    }


def _cell(source: Source, record: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of `profile`."""
    training, numbers = is_training(record), record["efficiency"]
    rate, time = (TRAINING, "train_step_ms") if training else (INFERENCE, "latency_ms")
    return {
        **_row(source, record, "profile", training),
        "batch": numbers.get("batch_size"),
        "precision": numbers.get("precision"),
        "images_per_second": numbers.get(rate),
        "latency": numbers.get(time),
    }


def _run(source: Source, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a run measured while it trained and was scored."""
    numbers = record["efficiency"]
    for training, prefix, rate in ((False, "", INFERENCE), (True, "train_", TRAINING)):
        if numbers.get(rate) is not None:
            yield {
                **_row(source, record, "run", training),
                "batch": numbers.get(f"{prefix}batch_size"),
                "precision": numbers.get(f"{prefix}precision"),
                "images_per_second": numbers[rate],
            }
