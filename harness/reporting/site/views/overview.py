"""The answer at a glance: what was run, and the plain score of each backbone on each dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.reporting import text
from harness.reporting.accuracy import heading
from harness.reporting.rows import Row
from harness.reporting.significance import ahead
from harness.reporting.site.source import Source, key_of

PURPOSES = {"search": "search trial", "profile": "efficiency measurement"}
MOST_COLUMNS = 8
MOST_ROWS = 60


class Cell(NamedTuple):
    """One score of the grid: its text, the name of its row in the leaderboard, and how it compares with the best."""

    shown: str
    key: str
    mark: str


class Grid(NamedTuple):
    """Columns (one per table), rows (one per backbone) and whether some are left out."""

    columns: list[str]
    rows: list[tuple[str, list[Cell | None]]]
    generated: bool
    more: int


def build(source: Source) -> Mapping[str, Any]:
    """No data: the page itself holds the overview, so it is readable without scripts."""
    return {}


def counts(source: Source) -> list[str]:
    """Numbers of runs by purpose, and of backbones and datasets."""
    records = source.data.records
    kinds = Counter(PURPOSES.get(record["source"], "scored run") for record in records)
    failed = sum(record["status"] != "ok" for record in records)
    names = {key: len({record["spec"][key] for record in records}) for key in ("backbone", "dataset")}
    found = [text.count(kinds[kind], kind) for kind in ("scored run", *PURPOSES.values()) if kinds[kind]]
    found += [text.count(number, noun) for noun, number in names.items()]
    return [*found, *([f"{failed:,} not finished"] if failed else [])]


def grid(source: Source) -> Grid:
    """Best plain score of each backbone in each table of its own dataset, most rows first."""
    order = sorted(range(len(source.tables)), key=lambda i: (-len(source.tables[i].rows), i))
    own = [i for i in order if (key := source.tables[i].key).dataset == key.trained_on and source.tables[i].rows]
    shown = sorted(own[:MOST_COLUMNS])
    cells: dict[str, dict[int, Cell]] = {}
    for number in shown:
        marks = _marks(source, number)
        for row in sorted(source.tables[number].plain(), key=_score):  # the best of a backbone comes last
            cell = Cell(_shown(row), key_of(row, number), marks.get(row.label, ""))
            cells.setdefault(row.setting.backbone, {})[number] = cell
    names = sorted(cells)
    return Grid(
        columns=[heading(source.context, source.tables[i].key) for i in shown],
        rows=[(name, [cells[name].get(i) for i in shown]) for name in names[:MOST_ROWS]],
        generated=any(source.tables[i].key.generated for i in shown),
        more=len(own) - len(shown) + max(0, len(names) - MOST_ROWS),
    )


def _marks(source: Source, number: int) -> dict[str, str]:
    """`best` for the highest mAP of a table, `not different` where no difference from it is shown."""
    rows = source.tables[number].plain()
    best = max(rows, key=_score).label
    comparisons, _ = source.comparisons.get(number, ([], []))
    with_best = [c for c in comparisons if best in (c.first, c.second)]
    alike = {c.first if c.second == best else c.second for c in with_best if not ahead(c)}
    return {**dict.fromkeys(alike, "not different"), **({best: "best"} if len(rows) > 1 else {})}


def _score(row: Row) -> float:
    return row.mean("mAP")


def _shown(row: Row) -> str:
    return f"{text.percent(row.mean('mAP'))} / {text.percent(row.mean('rank-1'))}"
