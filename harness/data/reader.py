"""How the images of a split are read: resized, or in their original sizes, from a cache where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from harness.contracts import Item
from harness.data.cache import Progress, open_images
from harness.data.images import Range
from harness.data.native import open_native
from harness.data.transforms import Images, Pixels, resize


@dataclass(frozen=True)
class Reader:
    """Reads images of one dataset.

    Attributes:
        image_size: (height, width) after resizing.
        interpolation: `bicubic` or `bilinear`.
        folder: folder of the caches of decoded images; `None` reads the image files.
        value_range: the gray values of black and white in images of more than 8 bits.
        workers: number of threads that decode while a cache is built.
        progress: called while a cache is built.
    """

    image_size: tuple[int, int]
    interpolation: str
    folder: Path | None = None
    value_range: Range | None = None
    workers: int = 0
    progress: Progress | None = None

    def resized(self, items: Sequence[Item]) -> Images:
        """Returns resized images, uint8 [3, H, W] by index."""
        return open_images(
            [item.path for item in items],
            self.image_size,
            self.interpolation,
            folder=self.folder,
            value_range=self.value_range,
            workers=self.workers,
            progress=self.progress,
        )

    def originals(self, items: Sequence[Item]) -> Images:
        """Returns images in their original sizes, uint8 [3, H, W] by index."""
        return open_native(
            [item.path for item in items],
            folder=self.folder,
            value_range=self.value_range,
            workers=self.workers,
            progress=self.progress,
        )

    def resize(self, image: Pixels) -> Pixels:
        """Resizes an image in its original size; the result is that of `resized`."""
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        return resize(picture, self.image_size, self.interpolation)
