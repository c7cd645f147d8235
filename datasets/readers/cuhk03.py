"""Readers of the two protocols of CUHK03, for images named `{pair}_{person:03d}_{view}_{column:02d}.png`.

`prepare` extracts these images from `cuhk-03.mat`.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

from datasets.readers.source import Source, first
from harness.contracts import Item
from harness.errors import DataError, UsageError

NAME = re.compile(r"(\d)_(\d{3})_(\d)_(\d{2})\.png", re.ASCII)
TESTSETS = "cuhk03_testsets.json"
INDICES = {"train": "train_idx", "query": "query_idx", "gallery": "gallery_idx"}
FIELDS = ("filelist", "labels", "camId", *INDICES.values())


def needs(*, images: str = "images_detected", config: str, **_: Any) -> list[str]:
    """Returns the folder of the extracted images and the file of the new protocol."""
    return [images, config]


def read(source: Source, *, config: str, images: str = "images_detected") -> dict[str, list[Item]]:
    """Reads the new protocol (767 training and 700 test identities).

    Args:
        source: the dataset's folder.
        config: the published `cuhk03_new_protocol_config_{detected,labeled}.mat`, with indices from one.
        images: folder of the extracted images.

    Raises:
        DataError: the protocol file is damaged, or an image is missing.
    """
    table = protocol(source.file(config))
    names, labels, views = table["filelist"], table["labels"], table["camId"]
    wanted = [i for split, key in INDICES.items() if split in source.splits for i in table[key]]
    source.require([f"{images}/{names[i]}" for i in wanted], f"{source.folder / config} names")
    prefix = f"{source.folder / images}/"
    splits = {split: sorted(table[key], key=names.__getitem__) for split, key in INDICES.items()}
    return {
        split: [Item(Path(prefix + names[i]), labels[i], views[i] - 1) for i in chosen]
        for split, chosen in splits.items()
    }


def protocol(path: Path) -> dict[str, Any]:
    """Reads a file of the new protocol: image names, labels, views (from 1) and zero-based indices of the splits.

    Raises:
        DataError: the file has another format, or its columns are inconsistent.
    """
    from datasets.readers import matfile  # imported here, because numpy would slow down `plan`

    try:
        table = matfile.read(path.read_bytes())
        names = [str(name) for name in table["filelist"]]
        columns = {key: [int(v) for v in table[key]] for key in FIELDS[1:]}
    except (OSError, ValueError, TypeError, LookupError, OverflowError, struct.error, zlib.error) as error:
        raise DataError(
            f"{path} is not a file of CUHK03's new protocol ({type(error).__name__}). Download it again."
        ) from error
    count = len(names)
    indices = [i for key in INDICES.values() for i in columns[key]]
    if (
        not count == len(columns["labels"]) == len(columns["camId"])
        or any(not 1 <= i <= count for i in indices)
        or len(set(indices)) != len(indices)
        or not set(columns["camId"]) <= {1, 2}
        or any(not NAME.fullmatch(name) for name in names)
    ):
        raise DataError(f"{path} is inconsistent: lengths, indices, views or names do not fit. Download it again.")
    shifted = {key: [i - 1 for i in columns[key]] for key in INDICES.values()}
    return {"filelist": names, "labels": columns["labels"], "camId": columns["camId"], **shifted}


def needs_classic(*, images: str = "images_detected", **_: Any) -> list[str]:
    """Returns the folder of the extracted images and the file of test sets, which `prepare` writes."""
    return [images, TESTSETS]


def read_classic(source: Source, *, images: str = "images_detected", split: int = 0) -> dict[str, list[Item]]:
    """Reads one of the 20 classic splits: 100 test identities, whose images are both query and gallery.

    The number of an identity is `1000 * pair + person`.

    Args:
        source: the dataset's folder.
        images: folder of the extracted images.
        split: number of the test set, from 0.

    Raises:
        DataError: the test sets are damaged, or a person has no images.
        UsageError: the test set does not exist.
    """
    tests = testsets(source.text(TESTSETS), source.folder / TESTSETS)
    if not 0 <= split < len(tests):
        raise UsageError(f"The option split must be from 0 to {len(tests) - 1} for classic CUHK03, found {split}.")
    items: list[Item] = []
    wrong: list[str] = []
    for name in source.images(images):
        if match := NAME.fullmatch(name):
            pair, person, view = int(match[1]), int(match[2]), int(match[3])
            items.append(Item(Path(f"{source.folder / images}/{name}"), 1000 * pair + person, view - 1))
        if not match or view not in (1, 2):
            wrong.append(name)
    if wrong:
        raise DataError(
            f"{source.folder / images} has {len(wrong)} image(s) with names unlike 1_003_2_08.png: {first(wrong)}. "
            "Remove them."
        )
    chosen = {1000 * pair + person for pair, person in tests[split]}
    if (missing := chosen - {item.pid for item in items}) and "query" in source.splits:
        person_id = min(missing)
        raise DataError(
            f"{len(missing)} test identities of classic split {split} have no images in {source.folder / images}, for "
            f"example pair {person_id // 1000}, person {person_id % 1000}. Extract the images again."
        )
    source.notes["split"] = split
    test = [item for item in items if item.pid in chosen]
    return {"train": [item for item in items if item.pid not in chosen], "query": test, "gallery": list(test)}


def testsets(text: str, where: Path) -> list[list[tuple[int, int]]]:
    """Parses the file of test sets: for each split a list of (pair, person), both from 1.

    Raises:
        DataError: the file has another format.
    """
    try:
        sets = [[(int(pair), int(person)) for pair, person in one] for one in json.loads(text)["testsets"]]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise DataError(f"{where} is not a list of CUHK03 test sets. Remove it and run `prepare` again.") from error
    return sets
