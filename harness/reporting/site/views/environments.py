"""The hardware and software of the runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting.site.source import Source
from harness.spec.run_spec import canonical

MOST_RUNS = 20


def build(source: Source) -> Mapping[str, Any]:
    """One entry per environment, most runs first, with some of its runs."""
    runs: dict[str, list[str]] = {}
    environments: dict[str, Mapping[str, Any]] = {}
    for record in source.sorted:
        name = canonical(record["environment"])
        environments[name] = record["environment"]
        runs.setdefault(name, []).append(source.short(record))
    order = sorted(runs, key=lambda name: (-len(runs[name]), name))
    return {
        "environments": [
            {"environment": environments[name], "count": len(runs[name]), "runs": runs[name][:MOST_RUNS]}
            for name in order
        ]
    }
