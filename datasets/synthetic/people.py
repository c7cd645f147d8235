"""Generated people: an appearance for every seed.

An identity is a combination of attributes: build, hair, cut, colour and pattern of clothes, shoes and a bag. A model
that is trained on some people has seen all attributes of the other people, but not their combinations.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.synthetic import calibration
from datasets.synthetic.calibration import COLOURS, Colour

SKIN: tuple[Colour, ...] = ((244, 208, 180), (224, 178, 140), (188, 134, 94), (122, 80, 54))
HAIR: tuple[Colour, ...] = ((30, 24, 22), (86, 54, 32), (206, 168, 96), (164, 74, 38), (176, 176, 178))

PATTERNS = ("plain", "hoops", "band", "bars", "split", "sash", "checks", "yoke", "panel")
HAIR_STYLES = ("short", "long", "bun", "bald", "cap", "hood")
BOTTOMS = ("trousers", "two-tone", "side-stripe", "shorts", "skirt", "long-skirt")
BAGS = ("none", "backpack", "shoulder", "hand", "trolley")

# A wardrobe is the season of a dataset: probabilities of long sleeves, of a coat, and of each kind of bottom.
WARDROBES: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "summer": (0.25, 0.10, (0.22, 0.10, 0.12, 0.24, 0.20, 0.12)),
    "winter": (0.90, 0.50, (0.40, 0.20, 0.18, 0.04, 0.06, 0.12)),
    "mixed": (0.55, 0.25, (0.30, 0.14, 0.14, 0.14, 0.16, 0.12)),
}


def derive(seed: int, *parts: object) -> int:
    """Returns a seed derived from ``seed`` and ``parts`` (words or numbers); the same on every machine."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Garment:
    """A garment whose pattern is drawn in the colour ``second`` on ``first``; with ``front_only``, not on the back."""

    first: Colour
    second: Colour
    pattern: str
    front_only: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """The attributes of one generated identity; lengths are fractions of the body height."""

    girth: float
    shoulders: float
    leg_top: float
    skin: Colour
    hair_style: str
    hair: Colour
    top: Garment
    sleeves: str
    coat: bool
    bottom_kind: str
    bottom: Garment
    shoes: Colour
    bag: str
    bag_colour: Colour
    bag_side: int
    scarf: Colour | None


@lru_cache(maxsize=4096)
def person(seed: int, wardrobe: str = "mixed") -> Person:
    """Returns the person for a seed, dressed from a wardrobe (a key of ``WARDROBES``)."""
    rng = np.random.default_rng(derive(seed, "person"))
    long_sleeves, coat, bottoms = WARDROBES[wardrobe]

    def pick(options, odds=None):  # type: ignore[no-untyped-def]
        return options[int(rng.choice(len(options), p=odds))]

    def dye(use: str, *without: str) -> tuple[str, Colour]:
        odds = np.array([0.0 if name in without else getattr(dye, use) for name, dye in COLOURS.items()])
        name = pick(list(COLOURS), odds / odds.sum())
        shift = rng.integers(-calibration.DYE_SPREAD, calibration.DYE_SPREAD + 1, 3)
        red, green, blue = (np.array(COLOURS[name].colour) + shift).clip(12, 245).tolist()
        return name, (red, green, blue)

    top_name, top = dye("top")
    second = dye("top", top_name)[1]
    bottom_name, bottom = dye("bottom")
    patterns = (calibration.PLAIN, *[(1 - calibration.PLAIN) / (len(PATTERNS) - 1)] * (len(PATTERNS) - 1))
    return Person(
        girth=float(rng.uniform(0.95, 1.45)),
        shoulders=float(rng.uniform(0.115, 0.15)),
        leg_top=float(rng.uniform(0.47, 0.53)),
        skin=pick(SKIN, calibration.SKIN_ODDS),
        hair_style=pick(HAIR_STYLES, calibration.HAIR_STYLE_ODDS),
        hair=pick(HAIR, calibration.HAIR_ODDS),
        top=Garment(top, second, pick(PATTERNS, patterns), bool(rng.random() < calibration.FRONT_ONLY)),
        sleeves="long" if rng.random() < long_sleeves else pick(("short", "none"), (0.75, 0.25)),
        coat=bool(rng.random() < coat),
        bottom_kind=pick(BOTTOMS, bottoms),
        bottom=Garment(bottom, dye("bottom", bottom_name)[1], "plain"),
        shoes=dye("shoes")[1],
        bag=pick(BAGS, calibration.BAG_ODDS),
        bag_colour=dye("bag", top_name)[1],
        bag_side=pick((-1, 1)),
        scarf=dye("top", top_name)[1] if rng.random() < 0.15 else None,
    )
