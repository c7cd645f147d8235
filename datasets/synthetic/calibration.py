"""The parameters of generated people and cameras that determine the difficulty of re-identification.

They are calibrated on CUHK03 (detected): on its stand-in, a colour histogram, untrained networks and trained networks
reach an mAP within a factor of two of that on the same number of photographs and people, under the recipe `demo`
(`python -m benchmarks.people --real DATA_ROOT`; the table is in `datasets/README.md`). The other stand-ins use the
same parameters, scaled by their `Climate`. Limitation: they were not compared with photographs.
"""

from __future__ import annotations

from typing import NamedTuple

Colour = tuple[int, int, int]


class Dye(NamedTuple):
    """A colour of clothes under a neutral camera, and the relative frequency of this colour for each item."""

    colour: Colour
    top: float
    bottom: float
    shoes: float
    bag: float


# -- people: most wear black, grey, white and denim, so that colour alone distinguishes few of them --------------------

COLOURS: dict[str, Dye] = {
    "black": Dye((30, 30, 34), 26, 34, 40, 36),
    "charcoal": Dye((62, 63, 68), 10, 12, 10, 10),
    "grey": Dye((124, 126, 130), 13, 9, 13, 10),
    "white": Dye((222, 221, 218), 17, 5, 22, 5),
    "navy": Dye((38, 46, 78), 9, 13, 5, 9),
    "denim": Dye((72, 90, 124), 5, 16, 2, 4),
    "beige": Dye((180, 164, 134), 3, 5, 2, 4),
    "brown": Dye((92, 70, 54), 2, 2, 3, 6),
    "olive": Dye((86, 90, 62), 3, 2, 0, 4),
    "red": Dye((166, 44, 48), 4, 0.5, 2, 5),
    "green": Dye((54, 112, 74), 2, 0.5, 0, 3),
    "sky": Dye((128, 166, 200), 3, 0.5, 1, 2),
    "pink": Dye((204, 138, 158), 2, 0.5, 0, 1),
    "yellow": Dye((206, 178, 84), 1, 0, 0, 1),
}
DYE_SPREAD = 9
"""Maximum deviation of a channel between garments of the same colour, in grey levels."""

PLAIN = 0.50
"""Fraction of tops without a pattern."""

FRONT_ONLY = 0.5
"""Fraction of patterned tops whose pattern (a print or an open jacket) is not visible from behind."""

SKIN_ODDS = (0.30, 0.45, 0.17, 0.08)
HAIR_ODDS = (0.72, 0.16, 0.05, 0.03, 0.04)
HAIR_STYLE_ODDS = (0.46, 0.30, 0.08, 0.03, 0.08, 0.05)
BAG_ODDS = (0.38, 0.28, 0.18, 0.12, 0.04)
"""Probabilities of `people.SKIN`, `HAIR`, `HAIR_STYLES` and `BAGS`, in their order; most people look similar."""

# -- cameras: the difference between two opposite cameras of a world with `Climate` strengths of 1 --------------------

CAST = 0.08
"""White balance of the warmest camera: red is multiplied by 1 + CAST, blue by 1 - CAST."""
TINT = 0.05
"""White balance between green and magenta."""
LEVEL = 0.20
"""Exposure of the brightest and the darkest camera, in stops from the middle."""
GAMMA = 0.15
"""Logarithm of the exponent of the tone curve."""
CONTRAST = (0.4, 0.8)
"""Minimum and maximum weight of an S-shaped tone curve, which makes dark clothes black."""
DULLNESS = 0.35
"""Maximum loss of saturation."""
HAZE = 0.04
"""Maximum haze, as a fraction of white."""
SHARPNESS = (0.55, 1.0)
"""Minimum and maximum resolution of the sensor, relative to the image."""
HALO = 90
"""Maximum sharpening by the camera, in per cent."""
NOISE = (2.0, 8.0)
"""Minimum and maximum standard deviation of the sensor noise, in grey levels."""
JPEG_QUALITY = (45, 85)
"""Minimum and maximum JPEG quality of the camera."""
CROP = 0.08
"""Standard deviation of the error of boxes, relative to their height."""
ELEVATION = 0.24
"""Perspective of the highest camera; also determines how much of the image is ground."""

# -- passages: one person walks past one camera; its images are similar, like the frames of a track --------------------

PASSAGE_EXPOSURE = 0.25
"""Standard deviation of the exposure between passages, in stops, for `Climate.light` 1."""
PASSAGE_TINT = 0.05
"""Standard deviation of the white balance between passages."""
SHOT_SHARE = 0.3
"""Deviation of direction, exposure and box between images of a passage, relative to that between passages."""
SHADE = 0.25
"""Maximum brightness gradient across an image."""
FOLDS = 0.18
"""Relative standard deviation of the brightness of folds and soft shadows."""
PASSERS_BY = 0.45
"""Fraction of passages with another person in the background."""
STONES = 0.35
"""Relative standard deviation of the brightness of the stones of walls and pavements."""
