"""What audits found, by table and audit; one column per configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting.audits import Found, blocks_of
from harness.reporting.rows import Row
from harness.reporting.site.source import Source


def build(source: Source) -> Mapping[str, Any]:
    """One entry per table and audit; values are means over seeds."""
    entries = []
    for number, table in enumerate(source.tables):
        checks: dict[str, list[tuple[Row, Found]]] = {}
        for row in table.plain():
            for check, blocks in blocks_of(row, table.key.dataset).items():
                checks.setdefault(check, []).append((row, Found(row.label, blocks)))
        entries += [_entry(source, number, check, found) for check, found in sorted(checks.items())]
    return {"audits": entries}


def _entry(source: Source, number: int, check: str, found: list[tuple[Row, Found]]) -> dict[str, Any]:
    columns = [one.rows() for _, one in found]
    names = list(dict.fromkeys(key for column in columns for key in column))
    first = found[0][1].blocks[0]
    return {
        "table": number,
        "check": check,
        "about": first.get("about") or "",
        "source": first.get("source") or "",
        "keys": [source.key(row, number) for row, _ in found],
        "labels": [row.label for row, _ in found],
        "rows": [[*name, *(_value(column.get(name)) for column in columns)] for name in names],
        "notes": [[one.label, note] for _, one in found for note in _notes(one)],
    }


def _value(row: Mapping[str, Any] | None) -> list[Any] | None:
    return None if row is None or row["value"] is None else [row["value"], *(row["interval"] or ())]


def _notes(found: Found) -> list[str]:
    """Sentences of all seeds, each once, and the reasons of audits that failed."""
    notes = [note for block in found.blocks for note in block.get("notes") or ()]
    notes += [f"The audit failed: {block['error']}" for block in found.blocks if block.get("error")]
    return list(dict.fromkeys(notes))
