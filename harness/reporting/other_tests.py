"""Scores of the other tests: flip, re-ranking, and the model before training."""

from __future__ import annotations

from collections.abc import Sequence

from harness.reporting import grids, published, text
from harness.reporting.rows import EvalVariant, Row, Table
from harness.reporting.section import Context, Section, folded, paragraphs


def build(context: Context) -> Section:
    """One grid per recipe, with a row per configuration and test."""
    found = [
        part
        for kind, tables in grids.kinds(context.with_tuned).items()
        if (part := _one(context, kind, tables)).strip()
    ]
    if not found:
        return Section()
    about = (
        "mAP / rank-1 in percent, mean over seeds ± standard deviation. Flip averages the features of an image and its "
        "mirror image. Before training is the model with its starting weights."
    )
    return Section(folded("Other tests", "flip test, re-ranking, and scores before training", about, *found))


def _one(context: Context, kind: grids.Kind, tables: Sequence[Table]) -> str:
    cells = {
        (row.label, row.test, grids.column(context, table)): _cell(context, table, row)
        for table in tables
        for row in _others(table)
    }
    if not cells:
        return ""
    shown: grids.Cells = {
        ((text.escape(label), test.label), column): cells[label, test, column]
        for label, test, column in sorted(cells, key=lambda key: key[:2])
    }
    columns = [name for table in tables if (name := grids.column(context, table)) in {key[1] for key in shown}]
    return paragraphs(grids.caption(context, kind), grids.grid(columns, shown, ("Backbone", "Test")))


def _others(table: Table) -> list[Row]:
    """Rows that the result table does not show."""
    plain: set[tuple[str, EvalVariant]] = {(row.label, row.test) for row in table.plain()}
    return [row for row in table.rows if (row.label, row.test) not in plain]


def _cell(context: Context, table: Table, row: Row) -> str:
    beside = published.beside(context, table.key, row)
    scores = grids.score(row.mAP(), row.shown("rank-1"))
    return scores if beside == text.NOT_APPLICABLE else f"{scores} (published {beside})"
