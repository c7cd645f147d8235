"""Checks before training: labels, cameras and images of everything that will be trained on or scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contracts import SPLITS, Item, Splits
from harness.data.images import UnreadableImages, read_sizes, resized_copy, summary
from harness.errors import DataError
from harness.metrics.protocol import find_matches, require_match
from harness.system.redact import readable

if TYPE_CHECKING:
    from harness.registry import BackboneEntry, DatasetEntry

EXAMPLES = 5


def labels(splits: Splits) -> None:
    """Checks that at least one query has a match in the gallery.

    Raises:
        ProtocolError: no query has a match.
    """
    query, gallery = (
        np.array([item[1:] for item in split], dtype=np.int64) for split in (splits.query, splits.gallery)
    )
    require_match(find_matches(query[:, 0], gallery[:, 0], query[:, 1], gallery[:, 1]))


def cameras(
    backbone: BackboneEntry, rows: Collection[int], items: Sequence[Item], instead: str = "--camera-embedding off"
) -> None:
    """Checks that a camera embedding has a row for the camera of every test image.

    Args:
        backbone: a backbone that embeds cameras.
        rows: the cameras (`camid`) that the embedding has a row for.
        items: test images.
        instead: the option that switches the embedding off, for the message.

    Raises:
        DataError: a camera has no row; names the cameras and one image.
    """
    first = {item.camid: item for item in reversed(items) if item.camid not in rows}
    if not first:
        return
    numbers = sorted(first)
    more = f" and {len(numbers) - EXAMPLES} more" if len(numbers) > EXAMPLES else ""
    raise DataError(
        f"{backbone.name} embeds cameras, but {len(numbers)} cameras of the test split have no training images and so "
        f"no embedding: {', '.join(str(number) for number in numbers[:EXAMPLES])}{more} (counted from zero), for "
        f"example {readable(str(first[numbers[0]].path))}. Add training images of these cameras, or pass {instead}."
    )


def images(entry: DatasetEntry, splits: Splits, used: Sequence[str]) -> dict[str, Any]:
    """Reads the header of every image and returns the image sizes of each split for the record.

    Args:
        entry: the dataset.
        splits: its splits; `notes` gains `image_sizes` if the images contradict the size in the card.
        used: names of the splits whose images must be readable.

    Raises:
        UnreadableImages: images of these splits cannot be read; lists all of them.
    """
    found = read_sizes((i.path for split in SPLITS for i in getattr(splits, split)), value_range=splits.value_range)
    bad = [reason for split in used for i in getattr(splits, split) if isinstance(reason := found[i.path], str)]
    if bad:
        raise UnreadableImages(bad)
    sizes = {path: size for path, size in found.items() if not isinstance(size, str)}
    if splits.generated is None and (note := resized_copy(entry.card.image_size, list(sizes.values()))):
        splits.notes["image_sizes"] = note
    by_split = {split: [sizes[i.path] for i in getattr(splits, split) if i.path in sizes] for split in SPLITS}
    return {split: summary(of_split) for split, of_split in by_split.items() if of_split}
