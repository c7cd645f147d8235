"""Checks of image files: their sizes, their bit depth, and one error that lists all unreadable files."""

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
"""The gray values of black and white."""

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of gray images with more than 8 bits."""

EXAMPLES = 3


def to_rgb8(image: Image.Image, value_range: Range | None = None) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB.

    Gray values of more than 8 bits are scaled from `value_range` to 0 .. 255 and clipped. The range applies to the
    whole dataset, because a range per image would hide differences in brightness between images.

    Raises:
        DataError: a gray image of more than 8 bits without a range, or with values that are not finite.
    """
    if image.mode not in DEEP:
        if image.mode == "P":  # avoids Pillow's warning about transparency, which does not change the colours
            image.info.pop("transparency", None)
        return image.convert("RGB")
    if value_range is None:
        raise DataError(no_range(image))
    low, high = value_range
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("it contains gray values that are not finite")
    levels = np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255))
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def no_range(image: Image.Image) -> str:
    """Returns the reason why a gray image of more than 8 bits cannot be read; a part of a sentence."""
    return (
        f"it is a gray image with more than 8 bits (mode {image.mode}), and its values of black and white are unknown; "
        "set value_range in the dataset's card (run `validate` to measure them), or convert it to 8 bits"
    )


class UnreadableImages(DataError):
    """Images cannot be read. The message shows the first ones and the total number.

    Args:
        reasons: one sentence per image.

    Attributes:
        reasons: the same, without duplicates.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = list(dict.fromkeys(reasons))
        more = len(self.reasons) - EXAMPLES
        count = f"{len(self.reasons):,} images cannot be read. " if len(self.reasons) > 1 else ""
        rest = f" And {more:,} more." if more > 0 else ""
        super().__init__(count + " ".join(self.reasons[:EXAMPLES]) + rest)


def read_sizes(paths: Iterable[Path], workers: int = 4, value_range: Range | None = None) -> dict[Path, Size | str]:
    """Reads the header of every image, each file once; returns its size, or a sentence why it cannot be read."""
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
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        unknown = type(error).__name__ == "UnidentifiedImageError"
        reason = "it is not an image" if unknown else getattr(error, "strerror", None) or str(error) or repr(error)
        return f"Cannot read the image {readable(str(path))}: {reason}. Extract the archive again, or remove the image."


def summary(sizes: Sequence[Size]) -> dict[str, Any]:
    """Summarises sizes for the record: minimum, median and maximum of height and width, and the distinct sizes."""
    heights, widths = zip(*sizes, strict=True)
    return {
        "height": [min(heights), median_low(heights), max(heights)],
        "width": [min(widths), median_low(widths), max(widths)],
        "distinct": len(set(sizes)),
    }


def resized_copy(official: Size | str, sizes: Sequence[Size]) -> str:
    """Returns a sentence if the images contradict the size in the dataset's card; an empty string otherwise.

    Args:
        official: (height, width) of all official images, `varies`, or empty for unknown.
        sizes: sizes of the images.
    """
    counted = Counter(sizes).most_common()
    if official == VARIES and len(sizes) > 1 and len(counted) == 1:
        return (
            f"All {len(sizes):,} images are {_text(sizes[0])} pixels (height x width), but the official images vary in "
            "size, so this is a resized copy."
        )
    if isinstance(official, str) or not (others := [(size, n) for size, n in counted if size != official]):
        return ""
    return (
        f"{sum(n for _, n in others):,} of {len(sizes):,} images do not have the official size of {_text(official)} "
        f"pixels (height x width), for example {_text(others[0][0])}, so this is a resized copy."
    )


def _text(size: Size) -> str:
    return "x".join(map(str, size))
