"""A table of images in one CSV file, for any dataset: columns `path`, `pid`, `camid`, `split`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from datasets.readers.source import Source, first, inside, number, order, shown
from harness.contracts import SPLITS, Item
from harness.errors import DataError

COLUMNS = ("path", "pid", "camid", "split")


def needs(*, file: str = "items.csv", **_: Any) -> list[str]:
    """The file that must exist."""
    return [file]


def read(
    source: Source, *, file: str = "items.csv", first_camera: int = 0, own_train_labels: bool = False
) -> dict[str, list[Item]]:
    """Reads the table; paths are relative to the dataset's folder, `split` is train, query or gallery.

    Rows with `pid` -1 are junk: dropped and counted. Other columns are ignored.

    Args:
        source: the dataset's folder.
        file: name of the table.
        first_camera: number of the first camera in the table; inside the program cameras count from zero.
        own_train_labels: training and test labels overlap in number but mean different people.

    Raises:
        DataError: a column is missing, a value does not fit, or a path is absent, repeated or leaves the folder.
    """
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    junk: dict[str, int] = {}
    rows = [row for row in _rows(source, file, first_camera) if row[3] in source.splits]
    keys = [f"{split}: {path}" for path, _, _, split in rows]
    if len(set(keys)) != len(keys):
        raise DataError(f"{source.folder / file} names an image twice in one split.")
    if absent := source.absent(list(dict.fromkeys(row[0] for row in rows))):
        raise DataError(f"{source.folder / file} names {len(absent)} image(s) that are absent: {first(absent)}.")
    for path, pid, camid, split in sorted(rows, key=lambda row: order(row[0])):
        if pid < 0:
            junk[split] = junk.get(split, 0) + 1
        else:
            splits[split].append(Item(Path(f"{source.folder}/{path}"), pid, camid))
    if junk:
        source.notes["junk"] = junk
    if own_train_labels:
        source.notes["own_train_labels"] = True
    return splits


def _rows(source: Source, file: str, first_camera: int) -> list[tuple[str, int, int, str]]:
    where = source.folder / file
    rows = []
    try:
        table = csv.DictReader(io.StringIO(source.text(file), newline=""), strict=True)
        if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
            raise DataError(f"{where} lacks the column(s) {', '.join(missing)}; it needs {', '.join(COLUMNS)}.")
        for row in table:
            path, pid, camera, split = (str(row[column] or "").strip() for column in COLUMNS)
            person, camid = number(pid), number(camera)
            if person is None or person < -1:
                raise DataError(f"{where}, line {table.line_num}: pid must be -1 or above, found {shown(pid)}.")
            if camid is None or camid < first_camera:
                raise DataError(
                    f"{where}, line {table.line_num}: camid must be {first_camera} or above, found {shown(camera)}."
                )
            if split not in SPLITS:
                raise DataError(
                    f"{where}, line {table.line_num}: split must be one of {', '.join(SPLITS)}, found {shown(split)}."
                )
            path = path.replace("\\", "/").removeprefix("./")
            if not inside(path):
                raise DataError(f"{where}, line {table.line_num}: the path {shown(path)} leaves the folder.")
            rows.append((path, person, camid - first_camera, split))
    except csv.Error as error:
        raise DataError(f"{where} is not a CSV table: {error}.") from error
    return rows
