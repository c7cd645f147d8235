"""Reader of Market-style datasets: one folder per split, with identity and camera in the file names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.readers.source import SPLIT_FOLDERS, Source, first, is_image, number, pattern_of
from harness.contracts import SPLITS, UNKNOWN_CAMERAS, Item
from harness.errors import DataError

PATTERN = r"(?P<pid>-1|\d+)_c(?P<camid>\d+)"
PROBED = 32


def needs(
    *,
    train: str = SPLIT_FOLDERS["train"],
    query: str = SPLIT_FOLDERS["query"],
    gallery: str = SPLIT_FOLDERS["gallery"],
    splits: Sequence[str] = SPLITS,
    **_: Any,
) -> list[str]:
    """Returns the folders that must exist."""
    folders = {"train": train, "query": query, "gallery": gallery}
    return [folders[split] for split in splits]


def probe(
    folder: Path,
    *,
    train: str = SPLIT_FOLDERS["train"],
    pattern: str = PATTERN,
    example: str = "0002_c1s1_000451_03.jpg",
    cameras: bool = True,
    **_: Any,
) -> str:
    """Returns the reason if none of the first training images fits the pattern; empty if one does or there is none."""
    fits = pattern_of(pattern, *groups_of(cameras))
    seen = []
    try:
        with os.scandir(folder / train) as entries:
            for entry in entries:
                if is_image(entry.name) and not entry.name.startswith("."):
                    seen.append(entry.name)
                    if fits.match(entry.name):
                        return ""
                if len(seen) == PROBED:
                    break
    except OSError as error:
        return f"{train} cannot be read: {error.strerror}"
    return f"image names such as {seen[0]!r} are not like {example}" if seen else ""


def read(
    source: Source,
    *,
    train: str = SPLIT_FOLDERS["train"],
    query: str = SPLIT_FOLDERS["query"],
    gallery: str = SPLIT_FOLDERS["gallery"],
    pattern: str = PATTERN,
    example: str = "0002_c1s1_000451_03.jpg",
    first_camera: int = 1,
    own_train_labels: bool = False,
    cameras: bool = True,
) -> dict[str, list[Item]]:
    """Reads three folders of images with identity and camera in the file names.

    Args:
        source: the dataset's folder.
        train: folder of the training images.
        query: folder of the query images.
        gallery: folder of the gallery images.
        pattern: regular expression with the groups `pid` and `camid`, matched at the start of the file name.
        example: a name that fits, for messages.
        first_camera: number of the first camera in the names.
        own_train_labels: whether training and test splits use the same numbers for different people.
        cameras: whether the cameras are known; if not, the pattern needs no `camid`.

    Raises:
        DataError: a folder is missing or empty, or an image's name does not fit.
    """
    fits = pattern_of(pattern, *groups_of(cameras))
    splits: dict[str, list[Item]] = {}
    junk: dict[str, int] = {}
    for split, sub in (("train", train), ("query", query), ("gallery", gallery)):
        if split not in source.splits:
            continue
        prefix = f"{source.folder / sub}/"
        items: list[Item] = []
        wrong: list[str] = []
        for name in source.images(sub):
            match = fits.match(name)
            pid = number(match["pid"]) if match else None
            camera = (number(match["camid"]) if match else None) if cameras else first_camera
            if pid is None or camera is None or camera < first_camera:
                wrong.append(name)
            elif pid < 0:
                junk[split] = junk.get(split, 0) + 1
            else:
                items.append(Item(Path(prefix + name), pid, camera - first_camera))
        if wrong:
            counted = f" with cameras from {first_camera} on" if cameras else ""
            raise DataError(
                f"{prefix[:-1]} has {len(wrong)} image(s) whose name is not like {example}{counted}: {first(wrong)}. "
                "Remove them, or check that this is the right folder."
            )
        splits[split] = items
    if junk:
        source.notes["junk"] = junk
    if own_train_labels:
        source.notes["own_train_labels"] = True
    if not cameras:
        source.notes["cameras"] = UNKNOWN_CAMERAS
    return splits


def groups_of(cameras: bool) -> tuple[str, ...]:
    """Returns the groups that a name pattern must have."""
    return ("pid", "camid") if cameras else ("pid",)
