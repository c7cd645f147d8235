"""Ranked lists, stored as a CSV file next to a record: the nearest gallery images of every query."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import RecordError
from harness.spec.job import slug

COLUMNS = ("query", "rank", "path", "pid", "camid", "distance")
LENGTH = 10
"""Number of gallery images per query."""


class Image(NamedTuple):
    """One image of a ranked list.

    Attributes:
        path: relative to the folder that holds all test images.
        pid: its identity.
        camid: its camera; None if cameras are unknown.
        distance: distance to the query; None for the query itself.
    """

    path: str
    pid: int
    camid: int | None
    distance: float | None


def file_name(dataset: str) -> str:
    """Name of the file for a dataset."""
    return f"ranked_lists.{slug(dataset)}.csv"


def names_of(query: Sequence[Any], gallery: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Paths of test images, relative to the folder that holds them all; bytes that are no Unicode are escaped."""
    folder = os.path.commonpath([item.path.parent for item in (*query, *gallery)])
    return tuple(  # type: ignore[return-value]
        [_readable(os.path.relpath(item.path, folder)) for item in items] for items in (query, gallery)
    )


def render(indices: Any, distances: Any, query: Sequence[Any], gallery: Sequence[Any], *, cameras: bool = True) -> str:
    """Returns the CSV text; rank 0 is the query itself.

    Args:
        indices: gallery image at each rank, -1 beyond the end, [n_query, k].
        distances: its distance, [n_query, k].
        query: query items.
        gallery: gallery items.
        cameras: whether the cameras are known.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    query_names, gallery_names = names_of(query, gallery)
    for row, item in enumerate(query):
        writer.writerow([row, 0, query_names[row], item.pid, item.camid if cameras else "", ""])
        for rank, (column, distance) in enumerate(zip(indices[row].tolist(), distances[row].tolist(), strict=True), 1):
            if column >= 0:
                found = gallery[column]
                camera = found.camid if cameras else ""
                writer.writerow([row, rank, gallery_names[column], found.pid, camera, f"{distance:.6g}"])
    return text.getvalue()


def read(folder: Path, dataset: str, wanted: set[int]) -> Mapping[int, list[Image]]:
    """Reads the lists of some queries, each with the query itself first.

    Args:
        folder: folder of the record.
        dataset: the scored dataset.
        wanted: numbers of the queries.

    Raises:
        RecordError: the file is missing or damaged.
    """
    path = folder / file_name(dataset)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _parse(csv.reader(file), wanted)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, csv.Error) as error:
        raise RecordError(f"{path} is damaged: {' '.join(str(error).split())}.") from None


def _parse(lines: Iterator[list[str]], wanted: set[int]) -> dict[int, list[Image]]:
    if tuple(next(lines, ())) != COLUMNS:
        raise ValueError(f"it does not have the columns {', '.join(COLUMNS)}")
    lists: dict[int, list[Image]] = {}
    for query, rank, path, pid, camid, distance in lines:
        if int(query) not in wanted:
            continue
        images = lists.setdefault(int(query), [])
        if int(rank) != len(images):
            raise ValueError(f"rank {rank} of query {query} is not in order")
        images.append(
            Image(path, int(pid), int(camid) if camid else None, float(distance) if distance else None),
        )
    return lists


def _readable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
