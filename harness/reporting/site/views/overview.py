"""The answer at a glance: what was run, and the plain score of each backbone on each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.records.schema import ended
from harness.reporting.accuracy import heading
from harness.reporting.environments import covered, kinds
from harness.reporting.overview import CHANCE, UNTESTED
from harness.reporting.rows import Row
from harness.reporting.site.source import Source

MOST_COLUMNS = 8
MOST_ROWS = 60


class Cell(NamedTuple):
    """One score of the grid: its text, the name of its row in the leaderboard, and its mark."""

    shown: str
    key: str
    mark: str


class Grid(NamedTuple):
    """Columns (one per table), rows (one per configuration) and whether some are left out."""

    columns: list[str]
    rows: list[tuple[str, list[Cell | None]]]
    generated: bool
    more: int


def build(source: Source) -> Mapping[str, Any]:
    """No data: the page itself holds the overview, so it is readable without scripts."""
    return {}


def counts(source: Source) -> list[str]:
    """Numbers of runs by purpose, and of backbones and datasets; empty without runs."""
    if not (records := source.data.records):
        return []
    failed = sum(ended(record) not in ("ok", "stopped") for record in records)
    return [kinds(records), *covered(records), *([f"{failed:,} not finished"] if failed else [])]


def grid(source: Source) -> Grid:
    """Plain score of each configuration in each table of its own dataset; the tables with most rows."""
    order = sorted(range(len(source.tables)), key=lambda i: (-len(source.tables[i].rows), i))
    own = [i for i in order if (key := source.tables[i].key).dataset == key.trained_on and source.tables[i].rows]
    shown = sorted(own[:MOST_COLUMNS])
    cells: dict[str, dict[int, Cell]] = {}
    for number in shown:
        plain = source.tables[number].plain()
        best = max(plain, key=lambda row: row.mean("mAP")) if len(plain) > 1 else None
        for row in plain:
            cells.setdefault(row.label, {})[number] = _cell(source, number, row, best)
    names = sorted(cells)
    return Grid(
        columns=[heading(source.context, source.tables[i].key) for i in shown],
        rows=[(name, [cells[name].get(i) for i in shown]) for name in names[:MOST_ROWS]],
        generated=any(source.tables[i].key.generated for i in shown),
        more=len(own) - len(shown) + max(0, len(names) - MOST_ROWS),
    )


def _cell(source: Source, number: int, row: Row, best: Row | None) -> Cell:
    """A score with its mark: `best`, or how it compares with the best, as on the page of results."""
    shown, key = f"{row.shown('mAP')} / {row.shown('rank-1')}", source.key(row, number)
    if best is None:
        return Cell(shown, key, "")
    if row is best:
        return Cell(shown, key, "best")
    verdict = source.comparisons.verdict(source.tables[number], row, best)
    return Cell(shown, key, {True: "", False: CHANCE, None: UNTESTED}[verdict])
