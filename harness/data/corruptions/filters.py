"""Filters that several corruptions share. Images are float32, [3, H, W] or one layer [H, W]."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""


def gaussian(image: Floats, sigma: float | tuple[float, float], *, mode: str = "nearest", reach: float = 4.0) -> Floats:
    """Smooths an image along both axes.

    A product with a matrix per axis is several times faster than a convolution at the sizes of person crops.

    Args:
        image: the image.
        sigma: standard deviation in pixels, or one for the height and one for the width.
        mode: how `scipy.ndimage` continues the image beyond its border.
        reach: half the width of the filter, in standard deviations.
    """
    down, right = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    rows = _gaussian_matrix(image.shape[-2], down, mode, reach)
    columns = _gaussian_matrix(image.shape[-1], right, mode, reach)
    return np.asarray(rows @ image @ columns.T)


@lru_cache(maxsize=1024)
def _gaussian_matrix(size: int, sigma: float, mode: str, reach: float) -> Floats:
    """Returns the filter of one axis as a matrix [size, size]."""
    smooth = ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode=mode, truncate=reach)
    return np.asarray(smooth, dtype=np.float32)


def box(image: Floats, size: int) -> Floats:
    """Averages squares of size x size pixels; the image is mirrored at its border."""
    for axis in (-2, -1):
        image = ndimage.uniform_filter1d(image, size, axis=axis, mode="mirror")
    return image


def streak(image: Floats, radius: int, sigma: float, angle: float) -> Floats:
    """Averages copies of the image that are shifted by 0 .. 2 * radius pixels in one direction.

    The weight of a copy is Gaussian in its shift. Pixels at the border are repeated.

    Args:
        image: the image.
        radius: half of the largest shift, in pixels.
        sigma: standard deviation of the weights, in pixels.
        angle: direction in degrees; 0 is horizontal.
    """
    height, width = image.shape[-2:]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    down = -np.ceil(steps * np.sin(np.deg2rad(angle)) - 0.5).astype(int)
    right = -np.ceil(steps * np.cos(np.deg2rad(angle)) - 0.5).astype(int)
    inside = np.cumprod((abs(down) < height) & (abs(right) < width)).astype(bool)
    most = 2 * radius
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(most, most)] * 2, mode="edge")
    total, copy = np.zeros_like(image), np.empty_like(image)
    for weight, dy, dx in zip(weights[inside], down[inside], right[inside], strict=True):
        top, left = most - dy, most - dx
        np.multiply(padded[..., top : top + height, left : left + width], weight, out=copy)
        total += copy
    return total


def enlarge(image: Floats, factor: float) -> Floats:
    """Magnifies the centre of an image by linear interpolation.

    The result is at least as large as the image; its corners are the corners of the centre.
    """
    for axis in (-2, -1):
        size = image.shape[axis]
        kept = int(np.ceil(size / factor))
        first = (size - kept) // 2
        positions = np.linspace(first, first + kept - 1, round(kept * factor))
        image = _sample(image, positions, axis)
    return image


def _sample(image: Floats, positions: NDArray[np.float64], axis: int) -> Floats:
    """Interpolates linearly at positions along one axis."""
    low = np.minimum(positions.astype(int), image.shape[axis] - 1)
    high = np.minimum(low + 1, image.shape[axis] - 1)
    share = (positions - low).astype(np.float32)
    share = share[:, None] if axis == -2 else share
    below, above = image.take(low, axis), image.take(high, axis)
    above -= below
    above *= share
    above += below
    return above


def gray(image: Floats) -> Floats:
    """Returns the luma [H, W] of an image [3, H, W]."""
    return np.asarray(np.tensordot(GRAY, image, 1))


def levels(image: Floats) -> NDArray[np.uint8]:
    """Converts values of 0 .. 1 to 0 .. 255; clips and rounds down, as the published code does."""
    scaled = image * np.float32(255)
    scaled += np.float32(1e-3)  # a value that was a whole number stays one
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)
