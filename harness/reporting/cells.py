"""Records of the efficiency study: which are current, under which condition, and of which build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reporting.report_data import ReportData
from harness.reporting.rows import device, image_size
from harness.spec.run_spec import canonical


def current(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The newest record of each backbone, options and condition; changed code leaves older records beside it."""
    newest: dict[str, Mapping[str, Any]] = {}
    for record in sorted(records, key=lambda r: (str(r["timing"].get("started")), r["run_id"])):
        spec = record["spec"]
        newest[canonical([spec["backbone"], spec["options"], spec["values"], device(record)])] = record
    return list(newest.values())


def is_training(record: Mapping[str, Any]) -> bool:
    """Whether a record is about a training step, not about inference."""
    return record["efficiency"].get("measure") == "training"


def condition(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that must be equal for two records of one device to be comparable."""
    numbers = record["efficiency"]
    size = image_size(record) or []
    return (
        str(numbers.get("measure", "inference")),
        *size,
        int(numbers.get("batch_size") or 0),
        str(numbers.get("precision")),
        bool(numbers.get("compiled")),
        int(numbers.get("threads") or 0),
    )


def named(data: ReportData, record: Mapping[str, Any]) -> str:
    """Name of the backbone, with the build options that differ from its card."""
    spec = record["spec"]
    card = data.backbone(spec["backbone"])
    if card is None:
        return str(spec["backbone"])
    variant = card.variants.get(spec["backbone"].partition(":")[2])
    usual = {**card.options, **(variant.options if variant else {})}
    different = [f"{k}={v}" for k, v in sorted(spec["options"].items()) if k in usual and usual[k] != v]
    return f"{spec['backbone']} ({', '.join(different)})" if different else str(spec["backbone"])


def is_usual(data: ReportData, record: Mapping[str, Any]) -> bool:
    """Whether the backbone was built with the options of its card and variant."""
    return named(data, record) == record["spec"]["backbone"]
