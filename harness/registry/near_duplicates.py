"""What `validate --near-duplicates` reports of a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.registry.entries import DatasetEntry
from harness.registry.findings import EXAMPLES, Finding
from harness.system import files
from harness.system.redact import readable

if TYPE_CHECKING:
    from harness.data.near_duplicates import Pair

KINDS = (
    ("warning", "training images look like test images", lambda pair: pair.is_leak),
    (
        "info",
        "query images look like gallery images of the same identity and camera, which the protocol ignores",
        lambda pair: pair.is_ignored,
    ),
    (
        "warning",
        "query images look like gallery images of another camera or identity",
        lambda pair: not pair.is_leak and not pair.is_ignored,
    ),
)


def check(
    entry: DatasetEntry,
    root: str | os.PathLike[str],
    *,
    pairs_file: Path | None = None,
    pictures: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 4,
) -> list[Finding]:
    """Looks for near-duplicates between the splits of a dataset. If it cannot be read, the result is one error.

    Args:
        entry: the dataset.
        root: folder that contains the datasets, or the dataset's own folder.
        pairs_file: CSV file for all pairs.
        pictures: folder for pictures of the 100 most similar pairs.
        progress: called with the number of read images and the total.
        workers: number of threads that read images.
    """
    from harness.data import near_duplicates

    try:
        splits = entry.load(root)
        pairs = near_duplicates.find(splits, workers=workers, progress=progress)
    except DataError as error:
        return [Finding("error", str(error))]
    if pairs_file:
        pairs_file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(pairs_file, near_duplicates.table(pairs))
    if pictures:
        near_duplicates.draw(pairs, pictures, value_range=splits.value_range)
    return findings(pairs)


def findings(pairs: Sequence[Pair]) -> list[Finding]:
    """Returns one finding per kind of pair."""
    if not pairs:
        return [Finding("info", "No near-duplicates between training, query and gallery images.")]
    found = []
    for level, what, chosen in KINDS:
        if own := [pair for pair in pairs if chosen(pair)]:
            images = len({pair.items[0].path for pair in own})
            examples = tuple(" ~ ".join(readable(str(item.path)) for item in pair.items) for pair in own[:EXAMPLES])
            found.append(Finding(level, f"Near-duplicates: {images:,} {what} ({len(own):,} pairs).", examples))
    return found
