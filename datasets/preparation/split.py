"""Finds identities and cameras in the paths of images, and splits the images by identity."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.readers.folders import JUNK
from datasets.readers.source import Source, first, number, order, pattern_of, printable, shown
from harness.contracts import SPLITS
from harness.errors import DataError, UsageError

LEAST = 2
"""Minimum number of training identities, and of test identities."""

EXAMPLES = 6
"""Number of names to print as examples of identities or cameras."""

TRAIN_FOLDERS = ("train", "training", "train_all", "bbox_train", "bounding_box_train")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation", "query", "gallery", "bbox_test", "bounding_box_test")

KNOWN_PATTERNS = (
    r"(?:^|/)(?P<pid>-1|\d+)_c(?P<camid>\d+)[^/]*$",  # Market-1501
    r"C(?P<camid>\d+)T\d+F\d+[^/]*$",  # MARS
    r"(?:^|[/_-])cam(?:era)?[_-]?(?P<camid>\d+)(?![^/_.-])",
)
"""Patterns to try in this order if the user gives none; a pattern must fit every image."""


class Photo(NamedTuple):
    """An image and what its path says about it.

    Attributes:
        path: path below the folder.
        identity: name of the identity.
        camera: name of the camera; empty if unknown.
        part: `train` or `test` if a folder of the path says so; otherwise empty.
    """

    path: str
    identity: str
    camera: str
    part: str


@dataclass(frozen=True)
class FolderSettings:
    """Settings for creating a dataset from a folder.

    Attributes:
        name: name of the dataset; by default derived from the name of the folder.
        seed: seed of the choice of test identities and queries.
        test_fraction: fraction of test identities.
        pattern: regular expression with the groups `pid` and `camid`, or one of them, searched for in the path below
            the folder. Without `pid`, the identity is the image's folder.
        cameras: whether the cameras are known.
    """

    name: str = ""
    seed: int = 0
    test_fraction: float = 0.5
    pattern: str = ""
    cameras: bool = True


def find_photos(folder: Path, settings: FolderSettings) -> tuple[list[Photo], list[str]]:
    """Returns all images with identity and camera, and sentences about what was found.

    Raises:
        DataError: there are no images, or an image has no identity or camera.
        UsageError: the pattern has no group.
    """
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist.")
    source = Source(folder)
    paths = sorted(source.tree(""), key=order)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in source.notes.get("ignored_kinds", {}).items())
    if not paths:
        only = f", only files of other formats: {kinds}" if kinds else ""
        raise DataError(f"{folder} contains no images{only}. Pass the folder that contains the identities.")
    sentences = [f"Left out files that are not images: {kinds}."] if kinds else []
    folders, parts = _levels(paths)
    flat = [path for path in paths if not folders[path]]
    pattern = settings.pattern or _known(paths, bool(flat))
    fits = pattern_of(pattern) if pattern else None
    if fits and not {"pid", "camid"} & fits.groupindex.keys():
        raise UsageError(f"The pattern '{pattern}' needs a group (?P<pid>...), (?P<camid>...), or both.")
    has_pid = fits is not None and "pid" in fits.groupindex and (bool(settings.pattern) or bool(flat))
    has_camera = fits is not None and "camid" in fits.groupindex and settings.cameras
    if flat and not has_pid:
        raise DataError(
            f"{len(flat):,} image(s) are not in the folder of an identity: {first(flat)}. Create one folder per "
            "identity, or pass a pattern that finds the identity in the path, for example "
            "--pattern '(?P<pid>\\d+)_c(?P<camid>\\d+)'."
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
        raise DataError(
            f"The pattern '{pattern}' does not fit {len(wrong)} of {len(paths)} images: {first(wrong)}. Change the "
            "pattern, or remove these images."
        )
    kept = [photo for photo in photos if photo.identity not in JUNK]
    if dropped := len(photos) - len(kept):
        sentences.append(f"Left out {dropped:,} junk image(s), of the identities {' and '.join(JUNK)}.")
    if not kept:
        raise DataError(f"{folder} contains only junk images, of the identities {' and '.join(JUNK)}.")
    names = f"the pattern '{pattern}'" if settings.pattern else f"names such as {shown(kept[0].path)}"
    identities = _listed({photo.identity for photo in kept})
    sentences.append(f"Images: {len(kept):,}.")
    sentences.append(f"Identities: {identities}, from {names if has_pid else 'the names of folders'}.")
    if has_camera:
        cameras = {photo.camera for photo in kept}
        sentences.append(f"Cameras: {_listed(cameras)}, from {names}. If these are not cameras, pass --no-cameras.")
        if any(number(camera) is None for camera in cameras):
            sentences.append("Cameras are numbered from 0, in sorted order.")
    else:
        sentences.append("The cameras are unknown, so no gallery image will be ignored for the query's camera.")
    return kept, sentences


def _listed(names: Collection[str]) -> str:
    """Returns the number of names with the first ones in brackets."""
    examples = [printable(name) for name in sorted(names, key=lambda name: (number(name) or 0, name))[:EXAMPLES]]
    return f"{len(names):,} ({', '.join(examples)}{', ...' if len(names) > EXAMPLES else ''})"


def _levels(paths: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns for every image the folder of its identity, and `train` or `test` if the folder above has such a name.

    A top folder that contains all images is not an identity, and neither is the folder of a split.
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
    """Returns a known pattern that fits every image and finds at least two cameras; empty if there is none."""
    for pattern in KNOWN_PATTERNS:
        matches = [re.search(pattern, path, re.ASCII) for path in paths]
        names_cameras = all(matches) and len({match["camid"] for match in matches if match}) > 1
        if names_cameras and ("(?P<pid>" in pattern or not flat):
            return pattern
    return ""


def split(photos: Sequence[Photo], settings: FolderSettings) -> tuple[dict[str, list[Photo]], list[str]]:
    """Splits images by identity into train, query and gallery; also returns sentences about the choice.

    A test identity needs images from two cameras, or two images if the cameras are unknown. As in Market-1501, one
    image per camera of each test identity is a query, as long as every query has a match. With unknown cameras, one
    image in total is a query. The choice depends only on the seed and the names.

    Raises:
        DataError: there are too few identities for training or test.
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
            f"Training and test need at least {LEAST} identities each, found {len(people)} in total: {names}. Pass the "
            "folder that contains the folders of identities, or a --pattern that finds the identities."
        )
    if len(testable) >= LEAST:
        return
    need = "images from two cameras" if cameras else "two images"
    advice = (
        " Pass --no-cameras if the numbers in the names are not cameras, or a --pattern that finds identity and camera "
        "in the path."
        if cameras
        else ""
    )
    raise DataError(
        f"Only {len(testable)} of {len(people)} identities have {need}; at least {LEAST} are needed, because every "
        f"query needs a match.{advice}"
    )


def _tested(
    people: dict[str, list[Photo]], testable: Sequence[str], settings: FolderSettings
) -> tuple[Collection[str], list[str]]:
    """Returns the test identities: those of test folders if there are any, otherwise a random choice by the seed."""
    by_part = {
        part: {name for name, own in people.items() if any(p.part == part for p in own)} for part in ("train", "test")
    }
    if by_part["train"] and by_part["test"]:
        if not by_part["train"] & by_part["test"]:
            if len(by_part["test"].intersection(testable)) < LEAST or len(by_part["train"]) < LEAST:
                raise DataError(
                    f"The train and test folders need at least {LEAST} usable identities each, found "
                    f"{len(by_part['train'])} and {len(by_part['test'].intersection(testable))}."
                )
            return by_part["test"], ["The split into train and test folders is kept."]
        how = ["The train and test folders have identities in common, so all images are split again by identity."]
    else:
        how = []
    wanted = round(settings.test_fraction * len(people))
    most = min(len(testable), len(people) - LEAST)
    count = max(LEAST, min(wanted, most))
    chosen = sorted(testable, key=lambda name: _draw(settings.seed, name))[:count]
    how.append(f"{count:,} of {len(people):,} identities are test identities, chosen with seed {settings.seed}.")
    if count < wanted:
        how.append(
            f"The test fraction asks for {wanted:,}, but only {len(testable):,} identities have enough images for a "
            f"query, and {LEAST} must remain for training."
        )
    return set(chosen), how


def _queries(own: Sequence[Photo], seed: int) -> set[Photo]:
    """Returns one image per camera, or a single one if cameras are unknown, such that every query has a match."""
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
    """Returns a sort key for a random order that depends only on seed and name, not on libraries or other images."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
