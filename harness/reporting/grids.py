"""Grids with one column per dataset: tables of one recipe beside each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from harness.reporting import text
from harness.reporting.rows import Table
from harness.reporting.section import Context

Cells = dict[tuple[tuple[str, ...], str], str]
"""Cells by row and column; a row is the texts of its first columns."""


class Kind(NamedTuple):
    """What all columns of a grid have in common; sorts real data before generated data."""

    generated: bool
    recipe: str
    protocol: str


def kinds(tables: Sequence[Table]) -> dict[Kind, list[Table]]:
    """The tables of each grid; a table is a column."""
    found: dict[Kind, list[Table]] = defaultdict(list)
    for table in tables:
        found[Kind(table.key.generated, table.key.recipe, table.key.protocol)].append(table)
    return dict(sorted(found.items()))


def caption(context: Context, kind: Kind) -> str:
    """Title of a grid."""
    words = [f"Recipe {kind.recipe}"]
    words += [f"protocol {kind.protocol}"] if len(context.protocols) > 1 else []
    words += ["generated data"] if kind.generated else []
    return f"**{text.escape(', '.join(words))}**"


def column(context: Context, table: Table) -> str:
    """Header of a table's column: the dataset, and where the networks come from if they were trained on another."""
    name, trained_on = (context.data.title(part) for part in (table.key.dataset, table.key.trained_on))
    return text.escape(name if name == trained_on else f"{trained_on} to {name}")


def place(context: Context, table: Table) -> dict[str, str]:
    """First cells of a line about a table: its dataset, and what else tells it from others."""
    several = len(kinds(context.tables)) > 1
    words = caption(context, Kind(table.key.generated, table.key.recipe, table.key.protocol)).strip("*")
    return {"Dataset": column(context, table)} | ({"Kind": words.removeprefix("Recipe ")} if several else {})


def named(context: Context, table: Table) -> str:
    """The same in one text."""
    return ", ".join(place(context, table).values())


def score(mAP: str, rank1: str) -> str:
    """One cell for mAP and rank-1."""
    return f"{mAP} / {rank1}"


def grid(columns: Sequence[str], cells: Cells, corner: Sequence[str], *, wraps: bool = False) -> str:
    """A Markdown table.

    Args:
        columns: headers of the columns with numbers.
        cells: the texts. Missing ones are “–”.
        corner: headers of the first columns.
        wraps: as for `text.table`.
    """
    rows = list(dict.fromkeys(row for row, _ in cells))
    lines = [
        dict(zip(corner, row, strict=True)) | {name: cells.get((row, name), text.NOT_APPLICABLE) for name in columns}
        for row in rows
    ]
    return text.table(lines, columns, wraps=wraps)
