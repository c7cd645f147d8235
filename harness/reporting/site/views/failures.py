"""What has no score and why: failed runs, blocked cells of the plan, and records that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting.site.source import Source


def build(source: Source) -> Mapping[str, Any]:
    """Failed runs, blocked cells that have not finished since, and messages about files."""
    failed = [record for record in source.sorted if record["status"] != "ok" and record["source"] != "search"]
    done = {_cell(r["spec"]) for r in source.data.records if r["status"] == "ok"}
    blocked = [cell for cell in source.data.plan if cell["state"] == "blocked" and _cell(cell) not in done]
    unique = sorted({tuple(sorted(cell.items())) for cell in blocked})
    return {
        "failures": {
            "failed": [_failed(source, record) for record in failed],
            "blocked": [{**dict(cell), "dataset": source.data.title(dict(cell)["dataset"])} for cell in unique],
            "problems": sorted(source.data.problems),
            "remarks": list(source.data.remarks),
        }
    }


def _cell(spec: Mapping[str, Any]) -> tuple[str, str, str]:
    return spec["backbone"], spec["dataset"], spec["recipe"]


def _failed(source: Source, record: Mapping[str, Any]) -> dict[str, Any]:
    spec, error = record["spec"], record["error"] or {}
    return {
        "dataset": source.data.title(spec["dataset"]),
        "backbone": spec["backbone"],
        "recipe": spec["recipe"],
        "seed": spec["seed"],
        "status": record["status"],
        "stage": record["stage"] or "unknown",
        "reason": f"{error.get('type', '')}: {error.get('message', '')}".removeprefix(": "),
        "run": source.short(record),
    }
