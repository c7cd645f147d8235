"""What the shots of one person walking past one camera share: place, direction, light, box and other people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.synthetic import calibration as strength
from datasets.synthetic.people import Person, derive, person


@dataclass(frozen=True, slots=True)
class PasserBy:
    """Somebody else in the background: who, how large beside the searched person, on which side, walking where."""

    who: Person
    share: float
    side: int
    yaw: float


@dataclass(frozen=True, slots=True)
class Passage:
    """One walk past a camera, in units of the camera's spreads; they become pixels and light in `drawing`.

    Attributes:
        place: piece of the scene, 0 to 1.
        away: the person walks away from where the camera expects people to come from.
        turn: error of the direction.
        box: errors of the box: its size, across, down.
        stops: exposure.
        gains: white balance, red, green, blue.
        slope: of the light, across and down, -1 to 1.
        lift: how far one forearm is raised, 0 to 1.
        other: who else is there.
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
    """Return the passage of ``seed``."""
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
