"""Per-query values as files beside a record: how well every query was ranked."""

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
"""The floating-point ones have gaps where a query has no match."""

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


def read(folder: Path, name: str, wanted: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
    """Reads the wanted per-query columns; a query without a match has NaN for AP and INP, and rank 0.

    Raises:
        RecordError: absent, or not what `render` writes.
    """
    path = folder / Path(name).name
    try:
        return parse(path.read_bytes(), str(path), wanted)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error


def parse(data: bytes, where: str, wanted: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
    """Parses per-query values; `where` names them in errors."""
    import pandas

    header, _, body = data.partition(b"\n")
    if header.decode(errors="replace") != ",".join(COLUMNS):
        raise RecordError(f"{where} does not have the columns {', '.join(COLUMNS)}.")
    lines = body.count(b"\n") + bool(body and not body.endswith(b"\n"))
    if body.count(b",") != (len(COLUMNS) - 1) * lines:
        raise RecordError(f"{where} is damaged: not every line has {len(COLUMNS)} values.")
    try:
        table = pandas.read_csv(io.BytesIO(data), usecols=list(wanted), dtype=_TYPES, index_col=False)
        if "first_match_rank" in wanted:
            table["first_match_rank"] = table["first_match_rank"].fillna(0).astype("int64")
        return {name: table[name].to_numpy() for name in wanted}
    except (ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"{where} is damaged: {' '.join(str(error).split())}.") from None
