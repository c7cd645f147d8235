"""Image files before they are decoded: their sizes, and all of those that cannot be read in one error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
from PIL import Image

from harness.cards import VARIES
from harness.errors import DataError
from harness.system.redact import readable

Size = tuple[int, int]
"""Height and width in pixels."""

Range = tuple[float, float]
"""The gray values that become black and white."""

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of gray images with more than 8 bits."""

EXAMPLES = 3


def to_rgb8(image: Image.Image, value_range: Range | None = None) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB.

    Gray values of more than 8 bits are scaled from `value_range` to 0 .. 255, and clipped. The range is one for a
    whole dataset: one per image would lose how bright an image is beside the others.

    Raises:
        DataError: gray of more than 8 bits without a range, or values that are not finite.
    """
    if image.mode not in DEEP:
        if image.mode == "P":  # Pillow warns of transparent entries, and takes their colours as others'
            image.info.pop("transparency", None)
        return image.convert("RGB")
    if value_range is None:
        raise DataError(no_range(image))
    low, high = value_range
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("it holds gray values that are not finite")
    levels = np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255))
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def no_range(image: Image.Image) -> str:
    """Why a gray image of more than 8 bits cannot be read without a range, for the middle of a sentence."""
    return (
        f"it is gray with more than 8 bits (mode {image.mode}), and the dataset's card does not say which values are "
        "black and white; `validate` measures them for value_range in the layout's options"
    )


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


def read_sizes(paths: Iterable[Path], workers: int = 4, value_range: Range | None = None) -> dict[Path, Size | str]:
    """Reads the header of every image, each file once: its size, or a sentence that says why it cannot be read."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        sizes = pool.map(partial(_size, value_range=value_range), unique, chunksize=64)
        return dict(zip(unique, sizes, strict=True))


def _size(path: Path, value_range: Range | None) -> Size | str:
    try:
        with Image.open(path) as image:
            if image.mode in DEEP and value_range is None:
                return f"Cannot read the image {readable(str(path))}: {no_range(image)}."
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
