"""Image files before they are decoded: their sizes, and all of those that cannot be read in one error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median_low
from typing import Any

from PIL import Image

from harness.cards import VARIES
from harness.errors import DataError
from harness.masking import readable

Size = tuple[int, int]
"""Height and width in pixels."""

EXAMPLES = 3


class UnreadableImages(DataError):
    """Images that cannot be read: the message shows the first ones and the number of all.

    Args:
        reasons: one sentence per image.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = list(dict.fromkeys(reasons))
        more = len(self.reasons) - EXAMPLES
        count = f"{len(self.reasons):,} images cannot be read. " if len(self.reasons) > 1 else ""
        rest = f" And {more:,} more." if more > 0 else ""
        super().__init__(count + " ".join(self.reasons[:EXAMPLES]) + rest)


def read_sizes(paths: Iterable[Path], workers: int = 4) -> dict[Path, Size | str]:
    """Reads the header of every image, each file once: its size, or a sentence that says why it cannot be read."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return dict(zip(unique, pool.map(_size, unique, chunksize=64), strict=True))


def _size(path: Path) -> Size | str:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # damaged files raise whatever their decoder raises
        unknown = type(error).__name__ == "UnidentifiedImageError"
        reason = "it is not an image" if unknown else getattr(error, "strerror", None) or str(error) or repr(error)
        return f"Cannot read the image {readable(str(path))}: {reason}. Extract the archive again, or remove the image."


def summary(sizes: Sequence[Size]) -> dict[str, Any]:
    """For the record: least, median and greatest height and width, and the number of distinct sizes."""
    heights, widths = zip(*sizes, strict=True)
    return {
        "height": [min(heights), median_low(heights), max(heights)],
        "width": [min(widths), median_low(widths), max(widths)],
        "distinct": len(set(sizes)),
    }


def resized_copy(official: Size | str, sizes: Sequence[Size]) -> str:
    """A sentence where the images contradict the size that the dataset's card declares; empty where they do not.

    Args:
        official: (height, width) of all official images, `varies`, or empty for unknown.
        sizes: of all images that were read.
    """
    counted = Counter(sizes).most_common()
    if official == VARIES and len(sizes) > 1 and len(counted) == 1:
        return (
            f"All {len(sizes):,} images are {_text(sizes[0])} pixels (height x width); the official images vary in "
            "size, so this is a resized copy."
        )
    if isinstance(official, str) or not (others := [(size, n) for size, n in counted if size != official]):
        return ""
    return (
        f"{sum(n for _, n in others):,} of {len(sizes):,} images are not {_text(official)} pixels (height x width) as "
        f"the official ones, for example {_text(others[0][0])}, so this is a resized copy."
    )


def _text(size: Size) -> str:
    return "x".join(map(str, size))
