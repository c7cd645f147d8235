"""The list of all runs, and their records as they are on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.records import store
from harness.reporting.site.source import Source, columnar


def build(source: Source) -> Mapping[str, Any]:
    """One line per run, and the records in several files."""
    lines = columnar(_line(source, record) for record in source.sorted)
    whole = {source.short(record): record for record in source.sorted}
    return {"records": lines, **source.by_file("records", whole)}


def _line(source: Source, record: Mapping[str, Any]) -> dict[str, Any]:
    spec, plain = record["spec"], store.plain(record) or {}
    return {
        "run": source.short(record),
        "dataset": source.data.title(spec["dataset"]),
        "backbone": spec["backbone"],
        "recipe": spec["recipe"],
        "seed": spec["seed"],
        "purpose": record["source"],
        "status": record["status"],
        "mAP": plain.get("mAP"),
        "rank-1": plain.get("rank-1"),
        "started": record["timing"].get("started"),
    }
