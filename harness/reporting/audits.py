"""The section of the report about audits; it is omitted if no run was audited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from harness.audits.layout import Matrix, arranged, described
from harness.reporting import heat_map, text
from harness.reporting.accuracy import heading
from harness.reporting.parallel import Drawn
from harness.reporting.rows import Row, Table
from harness.reporting.section import Context, Section, bullets, file_name, folded, paragraphs

SMALLEST_DRAWN = 3
"""Number of rows from which a matrix is drawn; a smaller one is listed."""


class Found(NamedTuple):
    """What one audit found of one configuration: its blocks, one per seed."""

    label: str
    blocks: Sequence[Mapping[str, Any]]

    def rows(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Rows by name and setting; values and bounds are means over seeds."""
        found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for block in self.blocks:
            for row in block["rows"]:
                found.setdefault((row["name"], described(row["setting"])), []).append(row)
        return {key: _mean(rows) for key, rows in found.items()}


def build(context: Context) -> Section:
    """One part per dataset and recipe, with one table per audit."""
    figures: dict[str, Drawn] = {}
    parts = [part for table in context.with_tuned if (part := _one(context, table, figures))]
    if not parts:
        return Section()
    about = (
        "Values and 95 % intervals are times 100, thresholds are not. They are means over "
        "seeds. An interval is over the identities of the queries. Rows with three and more settings are in the "
        f"records alone. {context.doc('audits.md')} explains the audits."
    )
    return Section(folded("Audits", f"what the scores rest on: {_named(context)}", about, *parts), figures)


def _named(context: Context) -> str:
    """Names of all audits."""
    names = {block["check"] for record in context.data.records for block in record.get("audits") or ()}
    return text.escape(", ".join(sorted(names)), limit=200)


def _one(context: Context, table: Table, figures: dict[str, Drawn]) -> str:
    checks: dict[str, list[Found]] = {}
    for row in table.plain():
        for check, blocks in blocks_of(row, table.key.dataset).items():
            checks.setdefault(check, []).append(Found(row.label, blocks))
    if not checks:
        return ""
    parts = [_check(context, table, check, found, figures) for check, found in sorted(checks.items())]
    return paragraphs(f"### Audits: {text.escape(heading(context, table.key))}", *parts)


def blocks_of(row: Row, dataset: str) -> dict[str, list[Mapping[str, Any]]]:
    """Blocks of the runs of one configuration, by audit."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record, _ in row.scored:
        for block in record.get("audits") or ():
            if block["dataset"] == dataset:
                found.setdefault(block["check"], []).append(block)
    return found


def _check(context: Context, table: Table, check: str, found: Sequence[Found], figures: dict[str, Drawn]) -> str:
    first = found[0].blocks[0]
    note = context.note(text.escape_except_urls(first["source"])) if first.get("source") else ""
    columns = [(one.label, one.rows()) for one in found]
    listed, drawn = _divided(columns)
    lines = [_line(name, setting, columns) for name, setting in listed]
    pictures = [
        _picture(context, table, check, label, matrix, figures) for label, matrices in drawn for matrix in matrices
    ]
    return paragraphs(
        f"#### {text.escape(check)}",
        f"{text.escape(first.get('about') or '')}{note}",
        text.table(lines, [label for label in lines[0] if label not in ("Value of", "Setting")] if lines else ()),
        *pictures,
        bullets(list(_remarks(found))),
    )


Columns = Sequence[tuple[str, Mapping[tuple[str, str], Mapping[str, Any]]]]


def _divided(columns: Columns) -> tuple[list[tuple[str, str]], list[tuple[str, list[Matrix]]]]:
    """Names and settings of the rows to list, and the matrices to draw of each column."""
    listed: dict[tuple[str, str], None] = {}
    drawn = []
    for label, rows in sorted(columns, key=lambda column: -len(column[1])):
        large = [m for m in arranged(list(rows.values())).matrices if len(m.rows) >= SMALLEST_DRAWN]
        names = {(matrix.name, matrix.keys) for matrix in large}
        drawn.append((label, large))
        for key, row in rows.items():
            setting = row["setting"]
            if len(setting) < 2 or (len(setting) == 2 and (row["name"], tuple(setting)) not in names):
                listed[key] = None
    return list(listed), drawn


def _line(name: str, setting: str, columns: Columns) -> dict[str, str]:
    cells = {text.escape(label): _cell(rows.get((name, setting))) for label, rows in columns}
    return {"Value of": text.escape(name), "Setting": text.escape(setting) or text.NOT_APPLICABLE, **cells}


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return text.NOT_APPLICABLE
    bounds = f" {text.interval(row['interval'])}" if row["interval"] else ""
    return f"{row['value']:.6f}" if row["name"] == "threshold" else f"{text.percent(row['value'])}{bounds}"


def _mean(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A row with the mean value and the mean bounds over seeds; undefined if it is so for one seed."""
    values, bounds = [row["value"] for row in rows], [row.get("interval") for row in rows]
    value = None if None in values else fmean(values)
    ends = None if not all(bounds) else [fmean(pair[side] for pair in bounds if pair) for side in (0, 1)]
    return {**rows[0], "value": value, "interval": ends}


def _picture(context: Context, table: Table, check: str, label: str, matrix: Matrix, figures: dict[str, Drawn]) -> str:
    key = table.key
    trained_on = [] if key.trained_on == key.dataset else [f"from-{key.trained_on}"]
    name = f"{file_name('audit', check, matrix.name, key.dataset, *trained_on, key.recipe, label)}.png"
    where = f"{label} on {context.data.title(key.dataset)}{' (generated)' * key.generated}"
    figures[name] = context.draw(heat_map.draw, where, matrix)
    return context.image(name, f"{matrix.name}, {where}, by {matrix.keys[0]} and {matrix.keys[1]}")


def _remarks(found: Sequence[Found]) -> Iterator[str]:
    """Notes and errors, each once, with the configurations that they are about."""
    about: dict[str, dict[str, None]] = {}
    for one in found:
        for block in one.blocks:
            errors = [f"The audit failed: {block['error']}"] if block.get("error") else []
            for note in [*(block.get("notes") or ()), *errors]:
                about.setdefault(note, {})[one.label] = None
    for note, labels in about.items():
        names = "" if len(labels) == len(found) else f"{', '.join(labels)}: "
        yield text.escape(f"{names}{note}")
