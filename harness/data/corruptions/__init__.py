"""Corrupts images in 20 ways at 5 levels, as Market-C, CUHK03-C and MSMT17-C do.

The kinds are the 15 of ImageNet-C and its 4 extra ones (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261), and
rain. CIL-ReID (Chen et al., NeurIPS 2021, arXiv 2111.00880) applies them to images of persons in their original size.
The parameters are those of `imagecorruptions` 1.1.2, which CIL-ReID uses, and of rain in `albumentations` 0.5.2.

Frost differs: the textures are generated, not photographs. So does spatter in images without a drop, which the
published code turns black.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.corruptions import blur, digital, noise, weather
from harness.data.corruptions.filters import levels
from harness.data.rng import generator
from harness.errors import UsageError, unknown

LEVELS = (1, 2, 3, 4, 5)


class Kind(NamedTuple):
    """A corruption.

    Attributes:
        family: `noise`, `blur`, `weather` or `digital`.
        apply: the function; it takes an image in 0 .. 1, float32 [3, H, W], a generator and the parameters of a level.
        parameters: those of levels 1 to 5.
    """

    family: str
    apply: Callable[..., NDArray[np.float32]]
    parameters: tuple[tuple[float, ...], ...]


def _one(*values: float) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) for value in values)


# fmt: off
KINDS = {
    "gaussian_noise": Kind("noise", noise.gaussian_noise, _one(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Kind("noise", noise.shot_noise, _one(60, 25, 12, 5, 3)),
    "impulse_noise": Kind("noise", noise.impulse_noise, _one(0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": Kind("noise", noise.speckle_noise, _one(0.15, 0.2, 0.35, 0.45, 0.6)),
    "defocus_blur": Kind("blur", blur.defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": Kind("blur", blur.glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": Kind("blur", blur.motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": Kind("blur", blur.zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "gaussian_blur": Kind("blur", blur.gaussian_blur, _one(1, 2, 3, 4, 6)),
    "snow": Kind("weather", weather.snow, (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55))),
    "frost": Kind("weather", weather.frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": Kind("weather", weather.fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "rain": Kind("weather", weather.rain, (
        (770, 10, 3, 0.1), (600, 30, 4, 0.15), (600, 30, 5, 0.2), (500, 60, 6, 0.25), (500, 60, 7, 0.3))),
    "spatter": Kind("weather", weather.spatter, (
        (0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False), (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True), (0.67, 0.4, 1, 0.65, 1.5, True))),
    "brightness": Kind("digital", digital.brightness, _one(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Kind("digital", digital.contrast, _one(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Kind("digital", digital.elastic_transform, _one(12.5, 16.25, 21.25, 25, 30)),
    "pixelate": Kind("digital", digital.pixelate, _one(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Kind("digital", digital.jpeg_compression, _one(25, 18, 15, 10, 7)),
    "saturate": Kind("digital", digital.saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
}
# fmt: on
"""The corruptions by name. ImageNet-C counts brightness as weather, and speckle noise, Gaussian blur, spatter and
saturation as extra kinds."""


def corrupt(image: NDArray[np.uint8], kind: str, level: int, seed: int, name: str) -> NDArray[np.uint8]:
    """Corrupts one image. The draws depend only on the seed, the kind, the level and the name of the image.

    Args:
        image: pixels, uint8 [3, H, W], in the original size of the image.
        kind: one of `KINDS`.
        level: 1 to 5; 0 returns the image.
        seed: seed of the draws.
        name: name of the image in its dataset.

    Raises:
        UsageError: an unknown kind or level.
    """
    if kind not in KINDS:
        raise unknown("corruption", kind, KINDS)
    if level == 0:
        return image
    if level not in LEVELS:
        raise UsageError(f"Corruptions have levels 1 to 5, and 0 for none; found {level}.")
    chosen = KINDS[kind]
    rng = generator(seed, "corruption", kind, level, name)
    values = image.astype(np.float32) / np.float32(255)
    return levels(chosen.apply(values, rng, *chosen.parameters[level - 1]))
