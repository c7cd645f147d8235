"""Batches for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from harness.contracts import Item
from harness.data.buffers import Buffers
from harness.data.cache import Progress, open_images
from harness.data.images import Range
from harness.data.prefetch import in_order
from harness.data.rng import generator
from harness.data.sampler import PKSampler
from harness.data.transforms import Images, Normalization, augment
from harness.errors import DataError
from harness.spec.recipe import Recipe


class Batch(NamedTuple):
    """One batch.

    Attributes:
        images: normalised images, float32 [B, 3, H, W].
        labels: classes 0 .. C - 1 in training, `pid`s in evaluation, int64 [B].
        camera_ids: rows of the camera embedding, int64 [B].
    """

    images: Tensor
    labels: Tensor
    camera_ids: Tensor


def camera_rows(items: Sequence[Item]) -> dict[int, int]:
    """Returns the row of each `camid` in a camera embedding: 0, 1, ... in the order of the camera numbers."""
    return {camid: row for row, camid in enumerate(sorted({item.camid for item in items}))}


class TrainingData:
    """Augmented batches in PK order: P identities with K consecutive images each.

    A batch depends only on the items, the recipe, the normalisation, the seed, the epoch and the iteration. It does
    not depend on the number of threads or processes, or on earlier batches.

    Args:
        items: training images.
        recipe: image size, augmentation and sampler.
        mean: mean of each channel, for images in 0 .. 1.
        std: standard deviation of each channel, for images in 0 .. 1.
        seed: seed of the run.
        value_range: the gray values of black and white in images of more than 8 bits.
        cache: folder of the cache of decoded images; `None` reads the image files.
        workers: number of threads that prepare batches while the caller trains; 0 is the same as 1.
        progress: called while the cache is built.
        pin_memory: whether batches lie in page-locked memory, which allows asynchronous copies to a GPU.

    Attributes:
        labels: class of each `pid`, in the order of the `pid`s.
        num_classes: number of identities.
        num_cameras: number of cameras.
        cameras: row of each `camid`, see `camera_rows`.
        batch_size: P * K.

    Raises:
        DataError: there are no images, or an image cannot be read.
        UsageError: there are too few identities or images for the sampler.
    """

    def __init__(
        self,
        items: Sequence[Item],
        recipe: Recipe,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        value_range: Range | None = None,
        cache: Path | None = None,
        workers: int = 0,
        progress: Progress | None = None,
        pin_memory: bool = False,
    ) -> None:
        if not items:
            raise DataError("There are no training images. Check the data root and the layout of the dataset.")
        self.recipe, self.seed, self.workers = recipe, seed, workers
        self.labels = {pid: label for label, pid in enumerate(sorted({item.pid for item in items}))}
        self.num_classes = len(self.labels)
        self.cameras = camera_rows(items)
        self.num_cameras = len(self.cameras)
        self._labels = np.array([self.labels[item.pid] for item in items], dtype=np.int64)
        self._cameras = np.array([self.cameras[item.camid] for item in items], dtype=np.int64)
        self._sampler = PKSampler(self._labels, recipe.sampler, seed=seed)
        self.batch_size = self._sampler.batch_size
        self._normalization = Normalization.of(mean, std)
        augmentation, size = recipe.augmentation, _size(recipe.augmentation.image_size)
        self._buffers = Buffers((self.batch_size, 3, *size), pin_memory=pin_memory)
        self._images = open_images(
            [item.path for item in items],
            size,
            augmentation.interpolation_train,
            folder=cache,
            value_range=value_range,
            workers=workers,
            progress=progress,
        )

    def iterations(self, epoch: int) -> int:
        """Returns the number of batches of an epoch."""
        return self._sampler.iterations(epoch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch, from iteration `start` on; earlier ones are not computed."""
        tasks = range(start, self.iterations(epoch))
        return in_order(lambda iteration: self.batch(epoch, iteration), tasks, threads=max(1, self.workers))

    def batch(self, epoch: int, iteration: int) -> Batch:
        """Returns one batch, independent of all others."""
        rows = self._sampler.batches(epoch)[iteration]
        rng = generator(self.seed, "batch", epoch, iteration)
        images = self._buffers.take()
        augment(self._images, rows, self.recipe.augmentation, self._normalization, rng, images)
        return Batch(images, self._buffers.like(self._labels[rows]), self._buffers.like(self._cameras[rows]))


class EvaluationData:
    """Resized and normalised batches in the order of the items. The batch size does not change the pixel values.

    Args:
        items: query or gallery images.
        image_size: (height, width) in pixels.
        interpolation: `bicubic` or `bilinear`.
        mean: mean of each channel, for images in 0 .. 1.
        std: standard deviation of each channel, for images in 0 .. 1.
        batch_size: images per batch; the last batch may be smaller.
        cameras: row of each `camid` in the camera embedding; unknown cameras get the next free row. `None` passes the
            `camid` itself.
        value_range: the gray values of black and white in images of more than 8 bits.
        cache: folder of the cache of decoded images; `None` reads the image files.
        workers: number of threads that prepare batches; 0 is the same as 1.
        progress: called while the cache is built.
        pin_memory: whether batches lie in page-locked memory.
        images: resized images, in place of the files of the items.

    Raises:
        DataError: an image cannot be read.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        image_size: Sequence[int],
        interpolation: str,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        cameras: Mapping[int, int] | None = None,
        value_range: Range | None = None,
        cache: Path | None = None,
        workers: int = 0,
        progress: Progress | None = None,
        pin_memory: bool = False,
        images: Images | None = None,
    ) -> None:
        self.items, self.batch_size, self.workers, self.cameras = items, batch_size, workers, cameras
        size, paths = _size(image_size), [item.path for item in items]
        self._normalization = Normalization.of(mean, std)
        self._buffers = Buffers((batch_size, 3, *size), pin_memory=pin_memory)
        self._images = (
            images
            if images is not None
            else open_images(
                paths, size, interpolation, folder=cache, value_range=value_range, workers=workers, progress=progress
            )
        )

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-len(self.items) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return in_order(self.batch, range(len(self)), threads=max(1, self.workers))

    def batch(self, number: int) -> Batch:
        """Returns one batch, independent of all others."""
        first = number * self.batch_size
        items = self.items[first : first + self.batch_size]
        images = self._buffers.take()[: len(items)]
        for row, out in enumerate(images.numpy(), start=first):
            out[:] = self._images[row]
            self._normalization.apply(out)
        pids, cameras = (np.array(values) for values in zip(*((i.pid, self._row(i)) for i in items), strict=True))
        return Batch(images, self._buffers.like(pids), self._buffers.like(cameras))

    def _row(self, item: Item) -> int:
        return item.camid if self.cameras is None else self.cameras.get(item.camid, len(self.cameras))


def _size(image_size: Sequence[int]) -> tuple[int, int]:
    height, width = image_size
    return height, width
