"""Paired comparisons of all configurations of a table, as on the page of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting import significance
from harness.reporting.site.source import Source


def build(source: Source) -> Mapping[str, Any]:
    """One entry per table with comparable configurations."""
    entries = [_entry(source, number, family) for number, family in source.families]
    return {"significance": {"resamples": source.comparisons.resamples, "families": entries}}


def _entry(source: Source, number: int, family: significance.Family) -> dict[str, Any]:
    compared = source.comparisons.tables[family.table.key]
    place = {row.label: i for i, row in enumerate(family.rows)}
    return {
        "table": number,
        "labels": [row.label for row in family.rows],
        "keys": [source.key(row, number) for row in family.rows],
        "mAP": [row.mean("mAP") for row in family.rows],
        "spread": [row.deviation("mAP") for row in family.rows],
        "seeds": [len(row.scored) for row in family.rows],
        "pairs": [
            {
                "first": place[c.first],
                "second": place[c.second],
                "difference": c.difference,
                "interval": list(c.interval),
                "p": c.p_holm,
                "ahead": significance.ahead(c),
            }
            for c in compared.pairs
        ],
        "remarks": list(compared.remarks),
    }
