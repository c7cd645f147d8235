"""Backbones that were tuned with equal budgets: one row per backbone, over its studies."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness.reporting.site.source import Source
from harness.reporting.tuned_results import Table, Tuned
from harness.tuning.studies import BEST, UNTUNED


def build(source: Source) -> Mapping[str, Any]:
    """One entry per dataset, space and budget."""
    return {"tuned": [_entry(source, table) for table in source.context.tuned]}


def _entry(source: Source, table: Table) -> dict[str, Any]:
    key = table.key
    return {
        "title": table.title(source.data.title(key.dataset)),
        "rows": [_row(source, row) for row in table.rows],
    }


def _row(source: Source, row: Tuned) -> dict[str, Any]:
    chosen = [search.best.value for search in row.searches if search.best and search.best.value is not None]
    return {
        "label": row.label,
        "mAP": _median(list(row.scores(BEST).values())),
        "untuned": _median(list(row.scores(UNTUNED).values())),
        "gain": _median(row.gains),
        "rank-1": _median(list(row.scores(BEST, "rank-1").values())),
        "held_out": _median(chosen),
        "studies": [len(row.scores(BEST)), len(row.searches)],
        "hours": row.seconds / 3600,
        "searches": [search.id for search in row.searches],
        "runs": source.shorts(row.runs(BEST)),
    }


def _median(values: Sequence[float]) -> list[float] | None:
    """Median, smallest and largest value; None without values."""
    return [statistics.median(values), min(values), max(values)] if values else None
