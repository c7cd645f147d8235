"""Weather: snow, frost, fog, rain, and spatter of water or mud."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from harness.data.corruptions import filters
from harness.data.corruptions.filters import Floats
from harness.data.rng import generator

Generator = np.random.Generator

MUD: Floats = np.array([63, 42, 20], dtype=np.float32)[:, None, None] / np.float32(255)
WATER: Floats = np.array([175, 238, 238], dtype=np.float32)[:, None, None] / np.float32(255)

FROST_SIZE = 512
FROST_SCALES = (0.5, 1.0, 2.0, 5.0, 12.0, 40.0)
"""Standard deviations of the smoothed noise that makes up a texture of frost, in pixels."""

FROST = (
    ((78, 149, 166), (6.3, 6.9, 0, 2.1, 6.0, 9.6)),
    ((201, 205, 214), (5.6, 10.4, 4.5, 7.9, 2.2, 8.9)),
    ((201, 205, 214), (5.6, 10.4, 4.5, 7.9, 2.2, 8.9)),
    ((138, 153, 165), (10.1, 16.1, 0, 8.6, 0, 12.0)),
    ((112, 123, 135), (13.3, 17.1, 12.5, 17.9, 11.6, 10.9)),
)
"""The colour of each texture of frost, and the contrast of its noise at each of the scales, in levels of 0 .. 255."""


def snow(
    image: Floats,
    rng: Generator,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    kept: float,
) -> Floats:
    """Whitens the image and adds flakes, which are thresholded noise, enlarged and smeared as if they fell."""
    height, width = image.shape[-2:]
    noise = np.float32(mean) + np.float32(deviation) * rng.standard_normal((height, width), np.float32)
    layer = filters.enlarge(noise, zoom)
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1).astype(np.float32)
    layer = filters.streak(layer, radius, sigma, rng.uniform(-135, -45))[:height, :width]
    whitened = np.maximum(image, filters.gray(image) * np.float32(1.5) + np.float32(0.5))
    return np.float32(kept) * image + np.float32(1 - kept) * whitened + layer + layer[::-1, ::-1]


def frost(image: Floats, rng: Generator, kept: float, ice: float) -> Floats:
    """Adds a part of a texture of ice to a part of the image.

    ImageNet-C uses photographs of frost. These textures are noise with the colour and contrast of those photographs.
    """
    height, width = image.shape[-2:]
    texture = frost_textures()[int(rng.random() * len(FROST))]
    rows = (np.arange(height) + int(rng.random() * FROST_SIZE)) % FROST_SIZE
    columns = (np.arange(width) + int(rng.random() * FROST_SIZE)) % FROST_SIZE
    return np.float32(kept) * image + np.float32(ice) * texture[:, rows[:, None], columns]


@lru_cache(maxsize=1)
def frost_textures() -> list[Floats]:
    """Returns textures [3, 512, 512] that continue periodically: noise whose power is the sum of several scales."""
    down, right = np.fft.fftfreq(FROST_SIZE)[:, None], np.fft.rfftfreq(FROST_SIZE)
    textures = []
    for number, (colour, contrasts) in enumerate(FROST):
        power = np.zeros((FROST_SIZE, len(right)))
        for sigma, contrast in zip(FROST_SCALES, contrasts, strict=True):
            scale = np.exp(-4 * np.pi**2 * sigma**2 * (down**2 + right**2))
            power += contrast**2 * scale * 4 * np.pi * sigma**2
        white = generator(0, "frost", number).standard_normal((FROST_SIZE, FROST_SIZE))
        noise = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(power), s=white.shape)
        pixels = np.array(colour)[:, None, None] + noise
        textures.append((np.clip(pixels, 0, 255) / 255).astype(np.float32))
    return textures


def fog(image: Floats, rng: Generator, density: float, decay: float) -> Floats:
    """Adds a cloud, and rescales the image to its former maximum."""
    height, width = image.shape[-2:]
    brightest = image.max()
    cloud = np.float32(density) * plasma(max(height, width), decay, rng)[:height, :width]
    return (image + cloud) * (brightest / (brightest + np.float32(density)))


def plasma(size: int, decay: float, rng: Generator) -> Floats:
    """Returns a random height map in 0 .. 1, square and periodic, of at least `size` pixels.

    Each step of the diamond-square algorithm halves the distance of known points: first the centres of squares, then
    those of diamonds, each the mean of its four neighbours and a uniform draw. The range of draws falls by decay ** 2.
    """
    side = 1 << (size - 1).bit_length()
    heights = np.zeros((side, side))
    step, spread = side, 100.0**2
    while step > 1:
        half = step // 2
        corners = heights[::step, ::step]
        beside = corners + np.roll(corners, -1, 1)
        centres = (beside + np.roll(beside, -1, 0)) / 4 + rng.uniform(-spread, spread, corners.shape)
        heights[half::step, half::step] = centres
        for axis, place in ((0, np.s_[::step, half::step]), (1, np.s_[half::step, ::step])):
            around = centres + np.roll(centres, 1, axis) + corners + np.roll(corners, -1, 1 - axis)
            heights[place] = around / 4 + rng.uniform(-spread, spread, corners.shape)
        step, spread = half, spread / decay**2
    heights -= heights.min()
    return (heights / (heights.max() or 1)).astype(np.float32)


def spatter(
    image: Floats,
    rng: Generator,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Floats:
    """Adds drops of water with bright edges, or covers parts with mud. An image without a drop stays as it is."""
    noise = np.float32(mean) + np.float32(deviation) * rng.standard_normal(image.shape[-2:], np.float32)
    liquid = filters.gaussian(noise, sigma)
    wet = liquid >= threshold
    if mud:
        cover = filters.gaussian(wet.astype(np.float32), strength)
        cover[cover < 0.8] = 0
        return image * (1 - cover) + MUD * cover
    if not wet.any():
        return image
    drops = np.where(wet, np.floor(liquid * 255), 0).astype(np.float32) * _relief(wet)
    most = drops.max()
    return image + WATER * (drops * np.float32(strength / most)) if most > 0 else image


def _relief(wet: np.ndarray) -> Floats:
    """Returns the light on drops, 0 .. 255: their distance to the rim, equalised and lit from the upper left."""
    rim = wet & ~ndimage.binary_erosion(wet, border_value=1)
    distance = np.minimum(ndimage.distance_transform_edt(~rim), 20).astype(np.float32)
    depth = filters.box(distance, 3).astype(np.uint8)
    counts = np.cumsum(np.bincount(depth.ravel(), minlength=256))
    lowest = counts[np.flatnonzero(counts)[0]]
    equal = np.rint((counts - lowest) * (255 / max(1, depth.size - lowest))).clip(0, 255)[depth]
    lit = ndimage.correlate(equal, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror")
    return filters.box(np.clip(lit, 0, 255).astype(np.float32), 3)


def rain(image: Floats, rng: Generator, area_of_drop: int, length: int, width: int, darker: float) -> Floats:
    """Draws slanted gray lines, one per `area_of_drop` pixels, averages `width` x `width` pixels, and darkens all."""
    rows, columns = image.shape[-2:]
    drops, slant = rows * columns // area_of_drop, int(rng.uniform(-10, 10))
    first, last = (slant, columns) if slant < 0 else (0, columns - slant)
    left = np.floor(first + rng.random(drops) * (last - first + 1))
    top = np.floor(rng.random(drops) * (max(0, rows - length) + 1))
    along = np.arange(length + 1)
    down = (top[:, None] + along).astype(int)
    right = (left[:, None] + np.rint(slant * along / length)).astype(int)
    inside = (down < rows) & (right >= 0) & (right < columns)
    drawn = image.copy()
    drawn[:, down[inside], right[inside]] = 200 / 255
    return np.asarray(filters.box(drawn, width) - np.float32(darker))
