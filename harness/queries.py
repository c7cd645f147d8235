"""Per-query values as files beside a record: how well every query was ranked."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.job import slug

COLUMNS = ("query", "pid", "camid", "AP", "INP", "first_match_rank", "positives")

Rows = Sequence[Mapping[str, Any]]
"""One mapping a query, with the keys `COLUMNS`; a query without a match has None for what is undefined."""


def render(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        if set(row) != set(COLUMNS):
            raise RecordError(f"Per-query values need {', '.join(COLUMNS)}; there are {', '.join(row)}.")
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Nine digits are more than the single precision of the distances; undefined is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return "" if value is None else value


def file_name(dataset: str, *, flip: bool, rerank: bool, first: bool) -> str:
    """File name of an evaluation's per-query values; `first` is the plain test on the run's own dataset."""
    if first:
        return "per_query.csv"
    return f"per_query.{slug(dataset)}{'.flip' * flip}{'.rerank' * rerank}.csv"


def read(folder: Path, name: str, wanted: Sequence[str] = COLUMNS) -> dict[str, list[Any]]:
    """Reads the wanted per-query columns; a query without a match has NaN for AP and INP, and rank 0.

    Raises:
        RecordError: absent, or not what `write` writes.
    """
    path = folder / Path(name).name
    try:
        return parse(path.read_text(encoding="utf-8"), str(path), wanted)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}.") from error


def parse(text: str, where: str, wanted: Sequence[str] = COLUMNS) -> dict[str, list[Any]]:
    """Parses the text of per-query values; `where` names it in errors."""
    try:
        columns = _split(text)
        if columns is None:
            raise RecordError(f"{where} does not have the columns {', '.join(COLUMNS)}.")
        return {name: _column(name, columns.get(name, ())) for name in wanted}
    except (ValueError, csv.Error) as error:
        raise RecordError(f"{where} is damaged: {error}.") from None


def _split(text: str) -> dict[str, Sequence[str]] | None:
    """The columns of a table, empty if it has no rows; None if they are others."""
    header, _, body = text.partition("\n")
    lines = body.removesuffix("\n").split("\n")
    width = len(COLUMNS)
    plain = header == ",".join(COLUMNS) and '"' not in body and "\r" not in body
    if plain and set(map(methodcaller("count", ","), lines)) == {width - 1}:  # as written here: one split for all
        cells = ",".join(lines).split(",")
        return {name: cells[i::width] for i, name in enumerate(COLUMNS)}
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(rows[0]) != COLUMNS:
        return None
    return dict(zip(COLUMNS, zip(*rows[1:], strict=True), strict=True)) if rows[1:] else {}


def _column(name: str, texts: Sequence[str]) -> list[Any]:
    """Values of a column; nearly all have no gap, and then no line of Python a value."""
    plain, careful = _CONVERT[name]
    return list(map(plain if all(texts) else careful, texts))


def _number(text: str) -> int:
    return int(text or 0)


def _real(text: str) -> float:
    return float(text) if text else math.nan


_CONVERT: dict[str, tuple[Callable[[str], Any], Callable[[str], Any]]] = {
    "query": (str, str),
    **dict.fromkeys(("pid", "camid", "first_match_rank", "positives"), (int, _number)),
    **dict.fromkeys(("AP", "INP"), (float, _real)),
}
"""How a value is read where a column has no gaps, and where it has."""
