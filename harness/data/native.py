"""Decoded images in their original sizes, as one file that all passes over a split map into memory."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.cache import SPARE, FileImages, Progress, attempt, build_once, key
from harness.data.images import Range, UnreadableImages, to_rgb8
from harness.data.prefetch import in_order
from harness.data.transforms import Images, Pixels
from harness.errors import DataError
from harness.system import files

ORIGINAL = ((0, 0), "original")
"""The image size and interpolation in the key of a cache."""


class NativeFiles:
    """Images that are decoded from their files on every access, uint8 [3, H, W], each in its own size."""

    def __init__(self, paths: Sequence[Path], value_range: Range | None = None) -> None:
        self.paths, self.value_range = paths, value_range

    def __getitem__(self, index: int) -> Pixels:
        try:
            with Image.open(self.paths[index]) as image:
                return np.ascontiguousarray(np.asarray(to_rgb8(image, self.value_range)).transpose(2, 0, 1))
        except Exception as error:  # decoders raise many kinds of exceptions for damaged files
            raise DataError(f"Cannot read the image {self.paths[index]}: {error}.") from error


class NativeCache:
    """Images in one array, one after the other, uint8 [3, H, W], each in its own size.

    Args:
        pixels: all values, uint8 [total].
        sizes: height and width of each image, [N, 2].
    """

    def __init__(self, pixels: Pixels, sizes: NDArray[np.int64]) -> None:
        self._pixels, self._sizes = pixels, sizes
        self._ends = np.cumsum(3 * sizes[:, 0] * sizes[:, 1])

    def __getitem__(self, index: int) -> Pixels:
        (height, width), end = self._sizes[index], self._ends[index]
        return self._pixels[end - 3 * height * width : end].reshape(3, height, width)


def open_native(
    paths: Sequence[Path],
    *,
    folder: Path | None,
    value_range: Range | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Images:
    """Returns the images in their original sizes from the cache in `folder`, and builds the cache if there is none.

    The cache is two files, `<key>.bin` with the pixels and `<key>.sizes.npy`. The second is written last, so a crash
    leaves no cache that looks complete. Without a folder, or if it is not writable or too small, files are read.

    Args:
        paths: image files.
        folder: folder of the cache; `None` for no cache.
        value_range: the gray values of black and white in images of more than 8 bits.
        workers: number of threads that decode while the cache is built.
        progress: called while the cache is built.

    Raises:
        DataError: an image is missing.
        UnreadableImages: images cannot be decoded; lists all of them.
    """
    images = NativeFiles(paths, value_range)
    if folder is None or not paths:
        return images
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{key(FileImages(paths, *ORIGINAL, value_range))}.bin"
        build_once(path, lambda: _mapped(path, len(paths)) is not None, lambda: _build(images, path, workers, progress))
        return _mapped(path, len(paths)) or images
    except OSError as error:
        warnings.warn(f"No cache of decoded images in {folder} ({error}); reading image files instead.", stacklevel=2)
        return images


def _sizes(path: Path) -> Path:
    return path.with_suffix(".sizes.npy")


def _mapped(path: Path, count: int) -> NativeCache | None:
    """Maps a complete cache; `None` if it is missing or damaged."""
    try:
        sizes = np.load(_sizes(path), allow_pickle=False)
        pixels = np.memmap(path, dtype=np.uint8, mode="r")
    except Exception:  # numpy parses the header as Python, so damage can raise any exception
        return None
    if sizes.shape != (count, 2) or len(pixels) != 3 * int(np.prod(sizes, axis=1).sum()):
        return None
    return NativeCache(np.asarray(pixels), sizes.astype(np.int64))


def _build(images: NativeFiles, path: Path, workers: int, progress: Progress | None) -> None:
    bad, sizes, total = list[str](), list[tuple[int, ...]](), len(images.paths)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        decoded = in_order(lambda row: attempt(images, row), range(total), threads=max(1, workers), ahead=16)
        for done, image in enumerate(decoded, start=1):
            if isinstance(image, str):
                bad.append(image)
            elif not bad:
                if done % 64 == 1 and shutil.disk_usage(path.parent).free < SPARE:
                    raise OSError(f"the disk is full after {done:,} of {total:,} images")
                file.write(image.data)
                sizes.append(image.shape[1:])
            if progress and (done % 64 == 0 or done == total):
                progress(done, total)
        if bad:
            raise UnreadableImages(bad)
    with files.replacing(_sizes(path)) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(sizes, dtype=np.int64))
