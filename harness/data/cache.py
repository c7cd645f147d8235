"""A cache of decoded images: one file, built once, which all runs on a machine map into memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow_version

from harness.data.images import Range, UnreadableImages
from harness.data.prefetch import in_order
from harness.data.transforms import Images, Pixels, decode
from harness.errors import DataError
from harness.system import files, hooks

Progress = Callable[[int, int], None]
"""Called with the number of images done and the total."""

LAYOUT = 1
SPARE = 1 << 28
"""Bytes to leave free on the disk of the cache."""


class FileImages:
    """Images that are decoded from their files on every access: slow, but needs no disk space."""

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: tuple[int, int],
        interpolation: str,
        value_range: Range | None = None,
    ) -> None:
        self.paths, self.image_size, self.interpolation = paths, image_size, interpolation
        self.value_range = value_range

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        return decode(self.paths[index], self.image_size, self.interpolation, self.value_range)


def open_images(
    paths: Sequence[Path],
    image_size: tuple[int, int],
    interpolation: str,
    *,
    folder: Path | None,
    value_range: Range | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Images:
    """Returns the resized images from the cache in `folder`, and builds the cache if it does not exist.

    The cache is the file `<key>.npy`, uint8 [N, 3, H, W], mapped read-only. The key depends on the paths, sizes and
    modification times of the images and on how they are resized. One process builds the cache while others wait for
    its lock. The file gets its name only when it is complete, so a crash never leaves a damaged cache.
    Without a folder, or if the folder is not writable or too small, images are read from their files.

    Args:
        paths: image files.
        image_size: (height, width) in pixels.
        interpolation: `bicubic` or `bilinear`.
        folder: folder of the cache; `None` for no cache.
        value_range: the gray values of black and white in images of more than 8 bits.
        workers: number of threads that decode while the cache is built.
        progress: called while the cache is built.

    Raises:
        DataError: an image is missing.
        UnreadableImages: images cannot be decoded; lists all of them.
    """
    images = FileImages(paths, image_size, interpolation, value_range)
    if folder is None or not paths:
        return images
    shape = (len(paths), 3, *image_size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{key(images)}.npy"
        build_once(
            path, lambda: _mapped(path, shape) is not None, lambda: _build(images, shape, path, workers, progress)
        )
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        warnings.warn(f"No cache of decoded images in {folder} ({error}); reading image files instead.", stacklevel=2)
        return images


def build_once(path: Path, is_complete: Callable[[], bool], build: Callable[[], None]) -> None:
    """Builds a cache unless it is complete. One process builds it while others wait for its lock."""
    if is_complete():
        return
    with contextlib.ExitStack() as lock:
        with contextlib.suppress(OSError):  # without locks every process builds the file; the last one replaces it
            lock.enter_context(files.locked(path.with_suffix(".lock")))
        if not is_complete():
            files.sweep(path.parent)
            build()


def key(images: FileImages) -> str:
    """Returns the name of a cache: a hash of everything that determines its pixels.

    Raises:
        DataError: an image is missing.
    """
    entries = []
    for path in images.paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"Cannot read the image {path}: {error.strerror}. Extract the archive again.") from error
        entries.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
    scaled = [images.value_range] if images.value_range else []
    text = json.dumps([LAYOUT, pillow_version, images.image_size, images.interpolation, entries, *scaled])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _mapped(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Maps a complete cache; `None` if it is missing or damaged."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # numpy parses the header as Python, so damage can raise any exception
        return None
    return np.asarray(array) if array.shape == shape and array.dtype == np.uint8 else None


def attempt(images: Images, row: int) -> Pixels | str:
    """Returns the pixels, or the error message, so that all bad files are reported together."""
    try:
        return images[row]
    except DataError as error:
        return str(error)


def _build(images: FileImages, shape: tuple[int, ...], path: Path, workers: int, progress: Progress | None) -> None:
    """Writes the cache with `write`: on a full disk it raises an error, while a memory map kills the process."""
    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if free < needed + SPARE:
        raise OSError(f"needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free")
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        hooks.reached("cache")
        bad: list[str] = []
        pixels = in_order(lambda row: attempt(images, row), range(len(images)), threads=max(1, workers), ahead=16)
        for done, image in enumerate(pixels, start=1):
            if isinstance(image, str):
                bad.append(image)
            elif not bad:
                file.write(image.data)
            if progress and (done % 64 == 0 or done == len(images)):
                progress(done, len(images))
        if bad:
            raise UnreadableImages(bad)
