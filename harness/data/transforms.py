"""Resizes images with PIL, and crops, flips, normalises and erases the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.data.images import Range, to_rgb8
from harness.data.rng import integers
from harness.errors import DataError
from harness.spec.recipe import Augmentation, Erasing

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Pixels = NDArray[np.uint8]


class Images(Protocol):
    """Resized images by index, each uint8 [3, H, W]: an array, or files that are decoded on access."""

    def __getitem__(self, index: int, /) -> Pixels: ...


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel for images in 0 .. 255, float32 [3, 1, 1]."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float]) -> Normalization:
        """Builds it from the values for images in 0 .. 1, as in cards and papers."""
        return cls(*(np.asarray(v, dtype=np.float32).reshape(3, 1, 1) * np.float32(255) for v in (mean, std)))

    def apply(self, image: NDArray[np.float32]) -> None:
        """Normalises an image with values in 0 .. 255, [3, H, W], in place."""
        image -= self.mean
        image /= self.std


class Draws(NamedTuple):
    """The random augmentation of each of B images.

    Attributes:
        down: shift downwards in pixels, -pad .. pad; uncovered pixels become black, [B].
        right: shift to the right, likewise, [B].
        flip: whether the image is mirrored after the shift, [B].
        box: top, left, height and width of the erased rectangle; height 0 if nothing is erased, [B, 4].
    """

    down: NDArray[np.int64]
    right: NDArray[np.int64]
    flip: NDArray[np.bool_]
    box: NDArray[np.int64]


def decode(path: Path, image_size: tuple[int, int], interpolation: str, value_range: Range | None = None) -> Pixels:
    """Reads an image as RGB and resizes it with PIL, which applies antialiasing when it shrinks an image.

    Args:
        path: the image file.
        image_size: (height, width) in pixels.
        interpolation: `bicubic` or `bilinear`.
        value_range: the gray values of black and white in images of more than 8 bits.

    Returns:
        The pixels, uint8 [3, H, W].

    Raises:
        DataError: the file is missing or not a complete image, or has more than 8 gray bits and no range is given.
    """
    try:
        with Image.open(path) as image:
            return resize(image, image_size, interpolation, value_range)
    except DataError as error:
        raise DataError(f"Cannot read the image {path}: {error}.") from error
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        raise DataError(
            f"Cannot read the image {path}: {error}. Extract the archive again, or remove the image."
        ) from error


def resize(
    image: Image.Image, image_size: tuple[int, int], interpolation: str, value_range: Range | None = None
) -> Pixels:
    """Resizes an image as `decode` does.

    Raises:
        DataError: the image has more than 8 gray bits and no range is given.
    """
    height, width = image_size
    resized = to_rgb8(image, value_range).resize((width, height), FILTERS[interpolation])
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def draw(rng: np.random.Generator, count: int, augmentation: Augmentation) -> Draws:
    """Draws the augmentation of `count` images. Padding by `pad` and a random crop equal a shift by -pad .. pad."""
    height, width = augmentation.image_size
    places = 2 * augmentation.pad + 1
    return Draws(
        down=integers(rng, count, places) - augmentation.pad,
        right=integers(rng, count, places) - augmentation.pad,
        flip=rng.random(count) < augmentation.flip,
        box=draw_boxes(rng, count, augmentation.erasing, (height, width)),
    )


def draw_boxes(
    rng: np.random.Generator, count: int, erasing: Erasing, image_size: tuple[int, int]
) -> NDArray[np.int64]:
    """Draws the rectangles of random erasing, [count, 4]: top, left, height, width.

    Area and aspect ratio (height / width) are drawn up to `attempts` times, until the rectangle is smaller than the
    image in both directions. If no attempt fits, the image stays unchanged. Source: Zhong et al., "Random Erasing Data
    Augmentation". The logarithm of the aspect ratio is uniform in torchvision and timm, the ratio itself in BoT.
    """
    height, width = image_size
    shape = (count, erasing.attempts)
    area = height * width * _between(rng.random(shape), *erasing.area)
    if erasing.aspect_draw == "log-uniform":
        aspect = np.exp(_between(rng.random(shape), *np.log(erasing.aspect)))
    else:
        aspect = _between(rng.random(shape), *erasing.aspect)
    high, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (high < height) & (wide < width)
    erased = fits.any(axis=1) & (rng.random(count) < erasing.probability)
    first = np.arange(count), fits.argmax(axis=1)
    high, wide = high[first].astype(np.int64), wide[first].astype(np.int64)
    place = rng.random((2, count))
    top, left = (place[0] * (height - high + 1)).astype(np.int64), (place[1] * (width - wide + 1)).astype(np.int64)
    return np.stack([top, left, high, wide], axis=1) * erased[:, None]


def augment(
    images: Images,
    rows: NDArray[np.int64],
    augmentation: Augmentation,
    normalization: Normalization,
    rng: np.random.Generator,
    batch: torch.Tensor,
    part: slice = slice(None),
) -> None:
    """Fills a batch, float32 [B, 3, H, W], with augmented and normalised images.

    Args:
        images: resized images.
        rows: indices of the images of this batch, [B].
        augmentation: settings of the recipe.
        normalization: mean and standard deviation.
        rng: generator of this batch.
        batch: tensor to fill, in place.
        part: the images of the batch to compute; the tensor holds these alone.
    """
    draws = draw(rng, len(rows), augmentation)
    canvas = np.empty(batch.shape[1:], dtype=np.uint8)
    own = (values[part] for values in (rows, *draws[:3]))
    for out, row, down, right, flip in zip(batch.numpy(), *own, strict=True):
        shift(images[int(row)], int(down), int(right), canvas)
        out[:] = canvas[:, :, ::-1] if flip else canvas
        normalization.apply(out)
    erase(batch, draws.box, augmentation.erasing, seed=int(rng.random() * 2**53), part=part)


def shift(image: Pixels, down: int, right: int, canvas: Pixels) -> None:
    """Writes the shifted image to a canvas of the same size, in place; uncovered pixels become black."""
    _, height, width = image.shape
    canvas.fill(0)
    rows, into_rows = _overlap(down, height)
    columns, into_columns = _overlap(right, width)
    canvas[:, into_rows, into_columns] = image[:, rows, columns]


def erase(
    batch: torch.Tensor, boxes: NDArray[np.int64], erasing: Erasing, *, seed: int, part: slice = slice(None)
) -> None:
    """Fills the rectangles of normalised images in place, with noise from N(0, 1) or with one value per channel.

    `boxes` are those of the whole batch, and `part` are the images that the tensor holds.
    """
    if erasing.fill == "noise":
        # With its own generator, torch draws normal numbers on one thread, more than twice as fast as numpy.
        total = 3 * int((boxes[:, 2] * boxes[:, 3]).sum())
        noise = torch.randn(total, generator=torch.Generator().manual_seed(seed)).numpy()
    value = np.asarray(erasing.value, dtype=np.float32).reshape(3, 1, 1)
    used = 3 * int((boxes[: part.start or 0, 2] * boxes[: part.start or 0, 3]).sum())
    for image, (top, left, high, wide) in zip(batch.numpy(), boxes[part].tolist(), strict=True):
        place = image[:, top : top + high, left : left + wide]
        if erasing.fill == "noise":
            place[:] = noise[used : used + place.size].reshape(place.shape)
            used += place.size
        else:
            place[:] = value


def _between(uniform: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * uniform


def _overlap(offset: int, size: int) -> tuple[slice, slice]:
    """Returns which pixels of the source stay visible after a shift by `offset`, and their new place."""
    offset = max(-size, min(size, offset))
    return slice(max(0, -offset), size - max(0, offset)), slice(max(0, offset), size + min(0, offset))
