"""Blur: out of focus, through glass, by motion, by zooming, and Gaussian."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from harness.data.corruptions import filters
from harness.data.corruptions.filters import Floats
from harness.data.corruptions.glass import scatter

Generator = np.random.Generator


def gaussian_blur(image: Floats, rng: Generator, sigma: float) -> Floats:
    """Smooths the image."""
    return filters.gaussian(image, sigma)


def defocus_blur(image: Floats, rng: Generator, radius: int, edge: float) -> Floats:
    """Averages a disc around each pixel; the rim of the disc is smoothed by `edge` pixels.

    Each row of the disc is a difference of two running sums, so the cost grows with the radius, not with its square.
    """
    height, width = image.shape[-2:]
    reach = radius + 1
    padded = np.pad(image, [(0, 0), (reach, reach), (reach + 1, reach)], mode="reflect")
    sums = np.cumsum(padded, axis=-1, dtype=np.float32)
    total, wide = np.zeros((3, height + 2, width + 2), np.float32), width + 2
    for down in range(-radius, radius + 1):
        half = int(np.sqrt(radius**2 - down**2))
        rows = sums[:, radius + down : radius + down + height + 2]
        first = radius - half
        total += rows[:, :, first + 2 * half + 1 : first + 2 * half + 1 + wide]
        total -= rows[:, :, first : first + wide]
    soft = _rim(radius, edge)
    for axis in (-2, -1):
        total = ndimage.correlate1d(total, soft, axis=axis)
    area = sum(2 * int(np.sqrt(radius**2 - down**2)) + 1 for down in range(-radius, radius + 1))
    return np.asarray(total[:, 1:-1, 1:-1] / np.float32(area))


@lru_cache
def _rim(radius: int, edge: float) -> Floats:
    """The filter that smooths the rim: 3 pixels wide."""
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * edge**2))
    return np.asarray(soft / soft.sum(), dtype=np.float32)


def glass_blur(image: Floats, rng: Generator, sigma: float, reach: int, rounds: int) -> Floats:
    """Smooths, replaces each pixel by a neighbour at most `reach` pixels away, `rounds` times, and smooths again.

    ImageNet-C describes a swap of the two pixels. Its code overwrites one of them, and so does this function.
    """
    smooth = np.ascontiguousarray(filters.levels(filters.gaussian(image, sigma)))
    moves = rng.integers(-reach, reach, (rounds, *image.shape[1:], 2), dtype=np.int8)
    scatter(smooth, moves, reach)
    return filters.gaussian(smooth.astype(np.float32) / np.float32(255), sigma)


def motion_blur(image: Floats, rng: Generator, radius: int, sigma: float) -> Floats:
    """Smears the image in a direction of at most 45 degrees from horizontal."""
    return filters.streak(image, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(image: Floats, rng: Generator, most: float, step: float) -> Floats:
    """Averages the image and enlarged copies, by factors 1, 1 + step, ... up to `most`."""
    height, width = image.shape[-2:]
    factors = np.arange(1, most, step)
    total = image.copy()
    for factor in factors:
        large = filters.enlarge(image, factor)[:, :height, :width]
        total[:, : large.shape[1], : large.shape[2]] += large
    return total / np.float32(len(factors) + 1)
