"""Reader of a CSV file with the columns `path`, `pid`, `camid` and `split`, for any dataset."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.readers.source import LARGEST_NUMBER, Source, below, number, order, shown
from harness.contracts import SPLITS, UNKNOWN_CAMERAS, Item
from harness.errors import DataError

COLUMNS = ("path", "pid", "camid", "split")
SEPARATORS = ",;\t"


def needs(*, file: str = "items.csv", **_: Any) -> list[str]:
    """Returns the file that must exist."""
    return [file]


def read(
    source: Source,
    *,
    file: str = "items.csv",
    first_camera: int = 0,
    own_train_labels: bool = False,
    cameras: bool = True,
) -> dict[str, list[Item]]:
    """Reads the table. Paths are relative to the dataset's folder; `split` is train, query or gallery.

    Values are separated by commas, semicolons or tabs. Rows with `pid` -1 are junk, which is dropped and counted. Other
    columns and blank rows are ignored.

    Args:
        source: the dataset's folder.
        file: name of the table.
        first_camera: number of the first camera in the table.
        own_train_labels: whether training and test splits use the same numbers for different people.
        cameras: whether the cameras are known; if not, the column `camid` is ignored and may be missing.

    Raises:
        DataError: a column is missing, a value is wrong, or an image is missing, listed twice or outside the folder.
    """
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    junk: dict[str, int] = {}
    rows = [row for row in _rows(source, file, first_camera, cameras) if row[3] in source.splits]
    keys = [f"{split}: {path}" for path, _, _, split in rows]
    if len(set(keys)) != len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"{source.folder / file} lists an image twice in one split, {shown(twice)}. Remove one row.")
    source.require(dict.fromkeys(row[0] for row in rows), str(source.folder / file))
    for path, pid, camid, split in sorted(rows, key=lambda row: order(row[0])):
        if pid < 0:
            junk[split] = junk.get(split, 0) + 1
        else:
            splits[split].append(Item(Path(f"{source.folder}/{path}"), pid, camid))
    if junk:
        source.notes["junk"] = junk
    if own_train_labels:
        source.notes["own_train_labels"] = True
    if not cameras:
        source.notes["cameras"] = UNKNOWN_CAMERAS
    return splits


def _rows(source: Source, file: str, first_camera: int, cameras: bool) -> Iterator[tuple[str, int, int, str]]:
    """Yields relative path, identity, zero-based camera (0 if cameras are unknown) and split of every row."""
    where = source.folder / file
    columns = COLUMNS if cameras else tuple(column for column in COLUMNS if column != "camid")
    for line, values in _values(source.text(file), where, columns):
        camera = values.get("camid", str(first_camera))
        person, camid, split = number(values["pid"]), number(camera), values["split"].lower()
        if person is None or person < -1:
            raise _wrong(where, line, f"pid must be a whole number from -1 to {LARGEST_NUMBER}", values["pid"])
        if camid is None or camid < first_camera:
            raise _wrong(where, line, f"camid must be a whole number from {first_camera} to {LARGEST_NUMBER}", camera)
        if split not in SPLITS:
            raise _wrong(where, line, f"split must be one of {', '.join(SPLITS)}", values["split"])
        if not (path := below(source.folder, values["path"])):
            raise _wrong(where, line, f"path must be below {source.folder}", values["path"])
        yield path, person, camid - first_camera, split


def _values(text: str, where: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line number and the values of the given columns for every row that is not blank."""
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        header = [name.strip().lower() for name in next(table, [])]
        if missing := [column for column in columns if column not in header]:
            raise DataError(
                f"{where} lacks the column(s) {', '.join(missing)}. Its first line must name the columns "
                f"{', '.join(columns)}, found {shown(text.partition(chr(10))[0].strip())}."
            )
        if twice := [column for column in columns if header.count(column) > 1]:
            raise DataError(f"{where} has the column {twice[0]} twice. Remove one of them.")
        for row in table:
            if not any(value.strip() for value in row):
                continue
            if len(row) < len(header) or any(value.strip() for value in row[len(header) :]):
                advice = f" Put values that contain {separator!r} in quotes." if len(row) > len(header) else ""
                raise DataError(
                    f"{where}, line {table.line_num}: found {len(row)} values, expected {len(header)}.{advice}"
                )
            yield table.line_num, {column: row[header.index(column)].strip() for column in columns}
    except csv.Error as error:
        raise DataError(f"{where}, line {table.line_num}: not valid CSV: {error}.") from error


def _wrong(where: Path, line: int, rule: str, found: str) -> DataError:
    return DataError(f"{where}, line {line}: {rule}, found {shown(found)}.")
