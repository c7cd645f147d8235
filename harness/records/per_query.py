"""Per-query values, stored as CSV files next to a record: the scores of every query."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RecordError
from harness.spec.job import slug

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("query", "pid", "camid", "AP", "INP", "first_match_rank", "positives")

_TYPES = {**dict.fromkeys(COLUMNS, "int64"), **dict.fromkeys(("AP", "INP", "first_match_rank"), "float64")}
"""Columns of floating-point type may be empty for queries without a match."""

Rows = Sequence[Mapping[str, Any]]
"""One mapping per query with the keys `COLUMNS`; undefined values of a query without a match are None."""


def render(rows: Rows) -> str:
    """Returns the CSV text of per-query values.

    Raises:
        RecordError: a row has other keys than `COLUMNS`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        if set(row) != set(COLUMNS):
            raise RecordError(f"Per-query values need the keys {', '.join(COLUMNS)}; found {', '.join(row)}.")
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Formats a value: nine digits, which exceeds the float32 precision of distances; undefined values are empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return "" if value is None else value


def file_name(dataset: str, *, flip: bool, rerank: bool, first: bool) -> str:
    """Returns the file name of the per-query values of an evaluation.

    Args:
        dataset: name of the scored dataset.
        flip: whether features were flip-averaged.
        rerank: whether re-ranking was used.
        first: whether this is the plain evaluation on the run's own dataset.
    """
    if first:
        return "per_query.csv"
    return f"per_query.{slug(dataset)}{'.flip' * flip}{'.rerank' * rerank}.csv"


def read(folder: Path, name: str, wanted: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
    """Reads columns of per-query values; a query without a match has NaN for AP and INP, and rank 0.

    Args:
        folder: folder of the record.
        name: name of the file.
        wanted: names of the columns to read.

    Raises:
        RecordError: the file is missing or damaged.
    """
    path = folder / Path(name).name
    if path.exists() and not path.is_file():  # a pipe or device would never end
        raise RecordError(f"{path} is not a regular file.")
    try:
        return parse(path.read_bytes(), str(path), wanted)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error


def parse(data: bytes, where: str, wanted: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
    """Parses columns of per-query values; `where` names them in messages.

    Raises:
        RecordError: the data is damaged.
    """
    import pandas

    header, _, body = data.partition(b"\n")
    if header.decode(errors="replace") != ",".join(COLUMNS):
        raise RecordError(f"{where} does not have the columns {', '.join(COLUMNS)}.")
    lines = body.count(b"\n") + bool(body and not body.endswith(b"\n"))
    if body.count(b",") != (len(COLUMNS) - 1) * lines:
        raise RecordError(f"{where} is damaged: some lines do not have {len(COLUMNS)} values.")
    try:
        table = pandas.read_csv(io.BytesIO(data), usecols=list(wanted), dtype=_TYPES, index_col=False)
        if "first_match_rank" in wanted:
            table["first_match_rank"] = table["first_match_rank"].fillna(0).astype("int64")
        return {name: table[name].to_numpy() for name in wanted}
    except (ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"{where} is damaged: {' '.join(str(error).split())}.") from None
