"""Passages: the place, direction, light, box and other people that the images of one walk past a camera share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.synthetic import calibration as strength
from datasets.synthetic.people import Person, derive, person


@dataclass(frozen=True, slots=True)
class PasserBy:
    """Another person in the background.

    Attributes:
        who: the person.
        share: height relative to the main person.
        side: 1 for right, -1 for left.
        yaw: walking direction, in radians.
    """

    who: Person
    share: float
    side: int
    yaw: float


@dataclass(frozen=True, slots=True)
class Passage:
    """One walk past a camera. Values are in units of the camera's standard deviations; `drawing` converts them.

    Attributes:
        place: position in the scene, 0 to 1.
        away: whether the person walks away from the camera instead of towards it.
        turn: deviation of the direction.
        box: errors of the box: size, horizontal position, vertical position.
        stops: deviation of the exposure.
        gains: deviations of the white balance: red, green, blue.
        slope: horizontal and vertical brightness gradient, -1 to 1.
        lift: how far one forearm is raised, 0 to 1.
        other: another person in the background, or None.
    """

    place: float
    away: bool
    turn: float
    box: tuple[float, float, float]
    stops: float
    gains: tuple[float, float, float]
    slope: tuple[float, float]
    lift: float
    other: PasserBy | None


@lru_cache(maxsize=64)
def passage(seed: int) -> Passage:
    """Returns the passage for a seed."""
    rng = np.random.default_rng(derive(seed, "passage"))
    turn, stops, *normal = rng.normal(0.0, 1.0, 8).clip(-2, 2).tolist()
    place, lift, *slope = rng.random(4).tolist()
    away, raised, crowded = (rng.random(3) < (0.5, 0.15, strength.PASSERS_BY)).tolist()
    other = None
    if crowded:
        share, side, yaw = rng.uniform((0.5, -1.0, -np.pi), (0.95, 1.0, np.pi)).tolist()
        other = PasserBy(person(int(rng.integers(1 << 40))), share, 1 if side > 0 else -1, yaw)
    return Passage(
        place=place,
        away=away,
        turn=turn,
        box=(normal[0], normal[1], normal[2]),
        stops=stops,
        gains=(normal[3], normal[4], normal[5]),
        slope=(2 * slope[0] - 1, 2 * slope[1] - 1),
        lift=0.5 + 0.5 * lift if raised else 0.0,
        other=other,
    )
