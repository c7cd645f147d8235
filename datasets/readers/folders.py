"""Reader of datasets with one folder per identity in the folder of each split, as in MARS or an ImageFolder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.readers.source import Source, first, number, order, pattern_of
from harness.contracts import SPLITS, UNKNOWN_CAMERAS, Item
from harness.errors import DataError, UsageError

JUNK = ("-1", "00-1")


def needs(
    *,
    train: str = "train",
    query: str = "query",
    gallery: str = "gallery",
    splits: Sequence[str] = SPLITS,
    **_: Any,
) -> list[str]:
    """Returns the folders that must exist."""
    folders = {"train": train, "query": query, "gallery": gallery}
    return [folders[split] for split in splits]


def read(
    source: Source,
    *,
    train: str = "train",
    query: str = "query",
    gallery: str = "gallery",
    pattern: str = "",
    example: str = "",
    first_camera: int = 1,
    cameras: bool = True,
    junk: Sequence[str] = JUNK,
    own_train_labels: bool = False,
) -> dict[str, list[Item]]:
    """Reads `<split>/<identity>/.../<image>`.

    The number of an identity is the name of its folder. If any name is not a number, identities are numbered in the
    order of their names, over all existing splits.

    Args:
        source: the dataset's folder.
        train: folder of the training identities.
        query: folder of the query identities.
        gallery: folder of the gallery identities.
        pattern: regular expression with the group `camid`, searched for in the path below the identity's folder.
        example: a path that fits, for messages.
        first_camera: number of the first camera in the names.
        cameras: whether the cameras are known; if not, there must be no pattern.
        junk: folders whose images are dropped and counted.
        own_train_labels: whether training and test splits use the same numbers for different people.

    Raises:
        DataError: a folder is missing or empty, or an image's name does not fit.
        UsageError: there is a pattern but no cameras, or the other way round.
    """
    if cameras != bool(pattern):
        raise UsageError(
            "The reader 'folders' needs either a pattern with the group camid, which finds the camera in an image's "
            "path, or cameras = false."
        )
    fits = pattern_of(pattern, *(["camid"] if cameras else []))
    subs = {"train": train, "query": query, "gallery": gallery}
    people = {split: _people(source, sub, split in source.splits) for split, sub in subs.items()}
    pids = numbers({name for names in people.values() for name in names} - set(junk))
    splits: dict[str, list[Item]] = {}
    for split in source.splits:
        items: list[tuple[str, int, int]] = []
        wrong: list[str] = []
        for name in people[split]:
            folder = f"{subs[split]}/{name}"
            paths = list(source.tree(folder))
            if name in junk:
                dropped = source.notes.setdefault("junk", {})
                dropped[split] = dropped.get(split, 0) + len(paths)
                continue
            for path in paths:
                camera = _camera(fits, path[len(folder) + 1 :]) if cameras else first_camera
                if camera is None or camera < first_camera:
                    wrong.append(path)
                else:
                    items.append((path, pids[name], camera - first_camera))
        if wrong:
            like = f"Paths should be like {example}. " if example else ""
            raise DataError(
                f"{source.folder} has {len(wrong)} {split} image(s) in whose path the pattern '{pattern}' finds no "
                f"camera from {first_camera} on: {first(wrong)}. {like}Correct the pattern, or remove the images."
            )
        items.sort(key=lambda row: order(row[0]))
        splits[split] = [Item(Path(f"{source.folder}/{path}"), pid, camid) for path, pid, camid in items]
    if own_train_labels:
        source.notes["own_train_labels"] = True
    if not cameras:
        source.notes["cameras"] = UNKNOWN_CAMERAS
    return splits


def numbers(names: set[str]) -> dict[str, int]:
    """Returns the number of every identity: its name, or its sorted position if the names are not distinct numbers."""
    found = {name: number(name) for name in names}
    values = {value for value in found.values() if value is not None and value >= 0}
    if len(values) == len(names):
        return {name: int(name) for name in names}
    return {name: place for place, name in enumerate(sorted(names))}


def _people(source: Source, sub: str, wanted: bool) -> list[str]:
    """Returns the folders of identities; the folder of a split that is not wanted may be missing."""
    return source.listing(sub)[1] if wanted or (source.folder / sub).is_dir() else []


def _camera(fits: re.Pattern[str], path: str) -> int | None:
    match = fits.search(path)
    return number(match["camid"]) if match else None
