"""Every strength of the generated people and cameras that decides how hard they are to tell apart.

Calibrated on CUHK03 (detected): in the stand-in of CUHK03 the colour histogram, untrained networks and trained ones
reach mAP within a factor of two of what they reach on as many photographs of as many people, under the recipe `demo`
(`python -m benchmarks.people --real DATA_ROOT`; the table is in `datasets/README.md`). The other stand-ins take the
same strengths, scaled by their `Climate`; they were not compared with photographs.
"""

from __future__ import annotations

from typing import NamedTuple

Colour = tuple[int, int, int]


class Dye(NamedTuple):
    """A colour of clothes, as a neutral camera sees it, and how often each thing has it (relative)."""

    colour: Colour
    top: float
    bottom: float
    shoes: float
    bag: float


# -- people: most wear black, grey, white and denim, so that colour alone tells few of them apart ----------------------

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
"""Greatest change of a channel from garment to garment of one colour, grey levels."""

PLAIN = 0.50
"""Share of tops without a pattern."""

FRONT_ONLY = 0.5
"""Share of the patterned tops whose pattern, a print or an open jacket, does not show on the back."""

SKIN_ODDS = (0.30, 0.45, 0.17, 0.08)
HAIR_ODDS = (0.72, 0.16, 0.05, 0.03, 0.04)
HAIR_STYLE_ODDS = (0.46, 0.30, 0.08, 0.03, 0.08, 0.05)
BAG_ODDS = (0.38, 0.28, 0.18, 0.12, 0.04)
"""Shares of `people.SKIN`, `HAIR`, `HAIR_STYLES` and `BAGS`, in their order: most look alike in each of them."""

# -- cameras: the difference between two opposite cameras of a world with `Climate` strengths of 1 ---------------------

CAST = 0.08
"""White balance: red gains and blue loses this share at the warmest camera."""
TINT = 0.05
"""White balance: green against magenta."""
LEVEL = 0.20
"""Exposure of the brightest and the darkest camera, stops from the middle."""
GAMMA = 0.15
"""Logarithm of the exponent of the tone curve."""
CONTRAST = (0.4, 0.8)
"""Least and greatest share of an S-shaped tone curve, which drowns dark clothes in black."""
DULLNESS = 0.35
"""Greatest loss of saturation."""
HAZE = 0.04
"""Greatest veil of light, share of white."""
SHARPNESS = (0.55, 1.0)
"""Share of the resolution that survives."""
HALO = 90
"""Greatest sharpening by the camera's own software, per cent."""
NOISE = (2.0, 8.0)
"""Standard deviation of the sensor noise, grey levels."""
JPEG_QUALITY = (45, 85)
"""Quality of the camera's own compression."""
CROP = 0.08
"""Standard deviation of the box error, share of the height."""
ELEVATION = 0.24
"""Perspective of the highest camera; also how much of the picture is ground."""

# -- passages: one person walking by one camera; its shots are alike, as the frames of a track are ---------------------

PASSAGE_EXPOSURE = 0.25
"""Standard deviation of the exposure from passage to passage, stops at `Climate.light` 1."""
PASSAGE_TINT = 0.05
"""Standard deviation of the white balance from passage to passage."""
SHOT_SHARE = 0.3
"""How far the shots of a passage differ: share of the spread of direction, exposure and box between passages."""
SHADE = 0.25
"""Greatest slope of the light across a picture."""
FOLDS = 0.18
"""Standard deviation of the brightness of folds and soft shadows, share."""
PASSERS_BY = 0.45
"""Share of the passages in which somebody else walks in the background."""
STONES = 0.35
"""Standard deviation of the brightness of a wall's or pavement's stones, share."""
