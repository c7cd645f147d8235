"""CMC curves of every row that has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting.rows import Row
from harness.reporting.site.source import Source, rounded


def build(source: Source) -> Mapping[str, Any]:
    """One file per table: the mean curve over seeds, in percent, by name of the row."""
    found = {}
    for number, table in enumerate(source.tables):
        curved = [row for row in table.rows if all(e["cmc"] for _, e in row.scored)]
        found[f"curves/{number}"] = {source.key(row, number): rounded(mean(row), 4) for row in curved}
    return found


def mean(row: Row) -> list[float]:
    """Mean CMC curve over seeds in percent, up to the shortest."""
    curves = [e["cmc"] for _, e in row.scored]
    length = min(map(len, curves))
    return [100 * sum(curve[k] for curve in curves) / len(curves) for k in range(length)]
