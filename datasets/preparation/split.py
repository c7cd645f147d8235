"""Reads identities and cameras off the paths of images, and splits the images by identity."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.readers.folders import JUNK
from datasets.readers.source import Source, first, number, order, pattern_of
from harness.contracts import SPLITS
from harness.errors import DataError, UsageError

LEAST = 2
"""Identities that training and test must have, each."""

TRAIN_FOLDERS = ("train", "training", "train_all", "bbox_train", "bounding_box_train")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation", "query", "gallery", "bbox_test", "bounding_box_test")

KNOWN_PATTERNS = (
    r"(?:^|/)(?P<pid>-1|\d+)_c(?P<camid>\d+)[^/]*$",  # Market-1501
    r"C(?P<camid>\d+)T\d+F\d+[^/]*$",  # MARS
    r"(?:^|[/_-])cam(?:era)?[_-]?(?P<camid>\d+)(?![^/_.-])",
)
"""Tried in this order where the user gives no pattern; one must fit every image."""


class Photo(NamedTuple):
    """An image as its path tells it: `part` is train or test where a folder says so, `camera` may be empty."""

    path: str
    identity: str
    camera: str
    part: str


@dataclass(frozen=True)
class FolderSettings:
    """How a folder becomes a dataset.

    Attributes:
        name: of the dataset; by default made from the folder's name.
        seed: of the choice of test identities and queries.
        test_fraction: fraction of the identities to test on.
        pattern: regular expression with the groups `pid` and `camid`, or one of them, searched for in the path below
            the folder; without `pid` the folder of an image is its identity.
        cameras: False where nobody knows the cameras.
    """

    name: str = ""
    seed: int = 0
    test_fraction: float = 0.5
    pattern: str = ""
    cameras: bool = True


def find_photos(folder: Path, settings: FolderSettings) -> tuple[list[Photo], list[str]]:
    """Every image with its identity and camera, and sentences about what was found.

    Raises:
        DataError: no images, or an image without identity or camera.
        UsageError: a pattern without groups.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.")
    source = Source(folder)
    paths = sorted(source.tree(""), key=order)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in source.notes.get("ignored_kinds", {}).items())
    if not paths:
        raise DataError(f"{folder} holds no images{f', only {kinds}' if kinds else ''}.")
    sentences = [f"Left out files that are not images: {kinds}."] if kinds else []
    folders, parts = _levels(paths)
    flat = [path for path in paths if not folders[path]]
    pattern = settings.pattern or _known(paths, bool(flat))
    fits = pattern_of(pattern) if pattern else None
    if fits and not {"pid", "camid"} & fits.groupindex.keys():
        raise UsageError(f"The name pattern {pattern!r} has neither a group pid nor a group camid.")
    has_pid = fits is not None and "pid" in fits.groupindex and (bool(settings.pattern) or bool(flat))
    has_camera = fits is not None and "camid" in fits.groupindex and settings.cameras
    if flat and not has_pid:
        raise DataError(
            f"{len(flat):,} image(s) lie in no folder of an identity: {first(flat)}. Make one folder per identity, or "
            "say where the identity stands in the path: --pattern '(?P<pid>\\d+)_c(?P<camid>\\d+)'."
        )
    photos, wrong = [], []
    for path in paths:
        found = match.groupdict() if fits and (match := fits.search(path)) else {}
        identity = found.get("pid") if has_pid else folders[path]
        camera = found.get("camid") if has_camera else ""
        if identity is None or camera is None:
            wrong.append(path)
        else:
            photos.append(Photo(path, identity, camera, parts[path]))
    if wrong:
        raise DataError(f"The pattern {pattern!r} does not fit {len(wrong)} of {len(paths)} images: {first(wrong)}.")
    kept = [photo for photo in photos if photo.identity not in JUNK]
    if dropped := len(photos) - len(kept):
        sentences.append(f"Left out {dropped:,} junk image(s) of {' and '.join(JUNK)}.")
    examples = first(sorted({photo.identity for photo in kept}))
    sentences.append(f"Identities are {'in the names' if has_pid else 'the folders'}: {examples}.")
    if has_camera:
        cameras = sorted({photo.camera for photo in kept})
        if any(number(camera) is None for camera in cameras):
            sentences.append(f"Cameras are numbered by order, from 0: {first(cameras)}.")
        sentences.append(f"Cameras are in the names, by {pattern!r}; pass --no-cameras if these are none.")
    else:
        sentences.append("Cameras are unknown: no image will be ignored as taken by the query's own camera.")
    if not kept:
        raise DataError(f"{folder} holds nothing but junk images.")
    return kept, sentences


def _levels(paths: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """For every image the folder of its identity, and train or test where the folder above says so.

    A top folder that holds everything is no identity, and neither is the folder of a split.
    """
    levels = {path: path.split("/")[:-1] for path in paths}
    while all(len(above) > 1 for above in levels.values()) and len({above[0] for above in levels.values()}) == 1:
        if next(iter(levels.values()))[0].lower() in (*TRAIN_FOLDERS, *TEST_FOLDERS):
            break
        levels = {path: above[1:] for path, above in levels.items()}
    tops = {above[0].lower() if above else "" for above in levels.values()}
    if not tops <= {*TRAIN_FOLDERS, *TEST_FOLDERS}:
        return {path: above[0] if above else "" for path, above in levels.items()}, dict.fromkeys(paths, "")
    parts = {path: "train" if above[0].lower() in TRAIN_FOLDERS else "test" for path, above in levels.items()}
    return {path: above[1] if len(above) > 1 else "" for path, above in levels.items()}, parts


def _known(paths: Sequence[str], flat: bool) -> str:
    """A pattern that fits every image and tells two cameras apart at least; empty if there is none."""
    for pattern in KNOWN_PATTERNS:
        matches = [re.search(pattern, path, re.ASCII) for path in paths]
        names_cameras = all(matches) and len({match["camid"] for match in matches if match}) > 1
        if names_cameras and ("(?P<pid>" in pattern or not flat):
            return pattern
    return ""


def split(photos: Sequence[Photo], settings: FolderSettings) -> tuple[dict[str, list[Photo]], list[str]]:
    """Train, query and gallery, by identity, and how they were chosen.

    An identity can be tested if it has images from two cameras, or two images where cameras are unknown. Of each
    tested identity one image per camera is a query, as in Market-1501, as long as every query keeps a match; without
    cameras one image is. The choice depends on the seed and the names alone.

    Raises:
        DataError: too few identities for training or test.
    """
    people: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        people[photo.identity].append(photo)
    testable = [name for name, own in people.items() if len({p.camera or p.path for p in own}) > 1]
    _check_people(people, testable, photos[0].camera != "")
    tested, how = _tested(people, testable, settings)
    splits: dict[str, list[Photo]] = {name: [] for name in SPLITS}
    for name, own in people.items():
        if name not in tested:
            splits["train"] += own
            continue
        queries = _queries(own, settings.seed)
        splits["query"] += [p for p in own if p in queries]
        splits["gallery"] += [p for p in own if p not in queries]
    return {name: sorted(part, key=lambda p: order(p.path)) for name, part in splits.items()}, how


def _check_people(people: dict[str, list[Photo]], testable: Sequence[str], cameras: bool) -> None:
    if len(people) < 2 * LEAST:
        names = first(sorted(people))
        raise DataError(
            f"There are {len(people)} identities ({names}), and training and test need {LEAST} each. Is this the "
            "folder above the identities, and does the pattern find them?"
        )
    if len(testable) >= LEAST:
        return
    lack = "are seen by two cameras" if cameras else "have two images"
    advice = (
        " Pass --no-cameras if the numbers in the names are no cameras, or say with --pattern where identity and "
        "camera stand in the path."
        if cameras
        else ""
    )
    raise DataError(
        f"Only {len(testable)} of {len(people)} identities {lack}, and a query needs another image of its identity to "
        f"find; {LEAST} such identities are needed.{advice}"
    )


def _tested(
    people: dict[str, list[Photo]], testable: Sequence[str], settings: FolderSettings
) -> tuple[Collection[str], list[str]]:
    """The identities to test on: those of the test folders if there are such, else a seeded share."""
    by_part = {
        part: {name for name, own in people.items() if any(p.part == part for p in own)} for part in ("train", "test")
    }
    if by_part["train"] and by_part["test"]:
        if not by_part["train"] & by_part["test"]:
            if len(by_part["test"].intersection(testable)) < LEAST or len(by_part["train"]) < LEAST:
                raise DataError("The folders of train and test do not leave two identities each that can be used.")
            return by_part["test"], ["The folders' own split into train and test identities is kept."]
        how = ["Train and test folders share identities, so they are put together and split again by identity."]
    else:
        how = []
    wanted = round(settings.test_fraction * len(people))
    most = min(len(testable), len(people) - LEAST)
    count = max(LEAST, min(wanted, most))
    chosen = sorted(testable, key=lambda name: _draw(settings.seed, name))[:count]
    how.append(f"{count:,} of {len(people):,} identities are for test, chosen by seed {settings.seed}.")
    if count < wanted:
        how.append(f"Not {wanted:,}: only {len(testable):,} identities can be tested.")
    return set(chosen), how


def _queries(own: Sequence[Photo], seed: int) -> set[Photo]:
    """One image per camera, or one in all where cameras are unknown; each keeps a match among the others."""
    by_camera: dict[str, list[Photo]] = defaultdict(list)
    for photo in own:
        by_camera[photo.camera].append(photo)
    queries: set[Photo] = set()
    for camera in sorted(by_camera):
        chosen = min(by_camera[camera], key=lambda p: _draw(seed, p.path))
        left = [p for p in own if p not in queries and p != chosen]
        if all(any(p.camera != query.camera or not p.camera for p in left) for query in (*queries, chosen)):
            queries.add(chosen)
    return queries


def _draw(seed: int, name: str) -> bytes:
    """A random order that no library's version changes, nor an image more or less."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
