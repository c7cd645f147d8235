"""Checks of everything that will be trained on or scored, before training: labels, cameras and images."""

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
    """Refuses a test split that cannot be scored.

    Raises:
        ProtocolError: no query has a match in the gallery.
    """
    query, gallery = (
        np.array([item[1:] for item in split], dtype=np.int64) for split in (splits.query, splits.gallery)
    )
    require_match(find_matches(query[:, 0], gallery[:, 0], query[:, 1], gallery[:, 1]))


def cameras(
    backbone: BackboneEntry, rows: Collection[int], items: Sequence[Item], instead: str = "--camera-embedding off"
) -> None:
    """Refuses test images from cameras that a camera embedding has no row for.

    Args:
        backbone: embeds cameras.
        rows: the cameras (`camid`) that it has a row for.
        items: test images.
        instead: the option that does without the embedding.

    Raises:
        DataError: names the cameras, one image and what to do.
    """
    first = {item.camid: item for item in reversed(items) if item.camid not in rows}
    if not first:
        return
    numbers = sorted(first)
    more = f" and {len(numbers) - EXAMPLES} more" if len(numbers) > EXAMPLES else ""
    raise DataError(
        f"{backbone.name} embeds the camera of every image, but {len(numbers)} of the test split's cameras have no "
        f"embedding: {', '.join(str(number) for number in numbers[:EXAMPLES])}{more} (counted from zero), for example "
        f"{readable(str(first[numbers[0]].path))}. Add training images of these cameras, or pass "
        f"{instead}."
    )


def images(entry: DatasetEntry, splits: Splits, used: Sequence[str]) -> dict[str, Any]:
    """Reads the header of every image; returns the sizes by split for the record, and notes a resized copy.

    Args:
        entry: the dataset.
        splits: what was read; `notes` gains `image_sizes` where the images contradict the card.
        used: the splits whose images must be readable.

    Raises:
        UnreadableImages: images of these splits.
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
