"""Draws the body of a generated person as polygons: a walking figure seen from any side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, sin

from PIL.ImageDraw import ImageDraw

from datasets.synthetic.people import Colour, Garment, Person

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]  # upper left, upper right, lower right, lower left

SHOULDER, WRIST, ANKLE = 0.185, 0.50, 0.955  # heights below the crown, shares of the body height


def _box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    return (left, top), (right, top), (right, bottom), (left, bottom)


# Areas covered by the second colour of each pattern, in the unit square of the garment (left to right, top to bottom).
SHAPES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "plain": (),
    "hoops": tuple(_box(0, top, 1, top + 0.17) for top in (0.16, 0.50, 0.83)),
    "band": (_box(0, 0.36, 1, 0.66),),
    "bars": (_box(0.10, 0, 0.32, 1), _box(0.68, 0, 0.90, 1)),
    "split": (_box(0.5, 0, 1, 1),),
    "sash": (((0, 0), (0.34, 0), (1, 0.72), (1, 1), (0.72, 1), (0, 0.30)),),
    "checks": tuple(
        _box(column / 3, row / 4, (column + 1) / 3, (row + 1) / 4)
        for row in range(4)
        for column in range(3)
        if (row + column) % 2
    ),
    "yoke": (_box(0, 0, 1, 0.42),),
    "panel": (_box(0.33, 0, 0.67, 1),),
}


@dataclass(frozen=True, slots=True)
class Pose:
    """Position and pose of a figure on the canvas.

    Attributes:
        centre: horizontal position of the body axis, in pixels.
        top: vertical position of the crown, in pixels.
        scale: body height, in pixels.
        yaw: direction, in radians; 0 faces the viewer, pi shows the back, pi / 2 walks to the right.
        step: phase of the walk, in radians.
        lift: how far one forearm is raised, 0 to 1.
        elevation: perspective from above, which stretches the upper body.
    """

    centre: float
    top: float
    scale: float
    yaw: float
    step: float
    lift: float = 0.0
    elevation: float = 0.0

    def at(self, x: float, y: float) -> Point:
        """Converts body coordinates (x from the axis, y from the crown, in body heights) to canvas pixels."""
        return self.centre + x * self.scale, self.top + (y + self.elevation * y * (1 - y)) * self.scale


def draw_figure(pen: ImageDraw, person: Person, pose: Pose) -> None:
    """Draws a person in a pose, farthest parts first."""
    _Figure(pen, person, pose).draw()


class _Figure:
    """Draws one figure. Lengths are in body heights; ``_polygon`` and ``_ellipse`` convert them to pixels."""

    def __init__(self, pen: ImageDraw, person: Person, pose: Pose) -> None:
        self.pen, self.person, self.pose = pen, person, pose
        self.facing, self.aside = cos(pose.yaw), sin(pose.yaw)
        self.half = hypot(person.shoulders * self.facing, 0.078 * self.aside) * (0.55 + 0.45 * person.girth)
        self.hips = hypot(0.085 * self.facing, 0.07 * self.aside) * person.girth
        self.near = 1 if self.aside > 0 else -1  # the side of the body that is nearer to the viewer
        self.swing = 0.13 * sin(pose.step)

    def draw(self) -> None:
        back = self.facing < 0
        if not back:
            self._behind()
        for side in (-self.near, self.near):
            self._leg(side)
        self._arm(-self.near)
        self._bottom()
        self._torso()
        if not back and self.person.bag == "backpack":
            self._straps()
        self._arm(self.near)
        self._head()
        if back:
            self._behind()
        self._carried()

    # -- shapes ---------------------------------------------------------------------------------------------------

    def _polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self.pen.polygon([self.pose.at(x, y) for x, y in points], fill=colour)

    def _ellipse(self, x: float, y: float, across: float, down: float, colour: Colour) -> None:
        left, top = self.pose.at(x - across, y - down)
        right, bottom = self.pose.at(x + across, y + down)
        self.pen.ellipse((left, top, right, bottom), fill=colour)

    def _limb(self, start: Point, end: Point, wide: float, narrow: float, colour: Colour) -> None:
        """Draws a limb whose half width decreases from ``wide`` to ``narrow``."""
        run, fall = end[0] - start[0], end[1] - start[1]
        length = hypot(run, fall) or 1.0
        nx, ny = fall / length, -run / length
        quad = (
            (start[0] - nx * wide, start[1] - ny * wide),
            (start[0] + nx * wide, start[1] + ny * wide),
            (end[0] + nx * narrow, end[1] + ny * narrow),
            (end[0] - nx * narrow, end[1] - ny * narrow),
        )
        self._polygon(quad, colour)

    def _cloth(self, quad: Quad, garment: Garment) -> None:
        """Draws a patterned garment; from behind, left and right are swapped."""
        self._polygon(quad, garment.first)
        if self.facing < -0.3 and (garment.front_only or garment.pattern == "panel"):
            return
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
        for shape in SHAPES[garment.pattern]:
            points = []
            for u, v in shape:
                across = 1 - u if self.facing < 0 else u
                upper = ax + (bx - ax) * across, ay + (by - ay) * across
                lower = dx + (cx - dx) * across, dy + (cy - dy) * across
                points.append((upper[0] + (lower[0] - upper[0]) * v, upper[1] + (lower[1] - upper[1]) * v))
            self._polygon(points, garment.second)

    # -- body -----------------------------------------------------------------------------------------------------

    def _torso(self) -> None:
        person, hem = self.person, self.person.leg_top + (0.13 if self.person.coat else 0.03)
        spread = self.hips * (1.12 if person.coat else 1.02)
        neck = 0.035
        self._polygon(_box(-0.026, 0.12, 0.026, 0.2), person.skin)
        half, high = self.half, SHOULDER - 0.01
        self._cloth(((-half, high), (half, high), (spread, hem), (-spread, hem)), person.top)
        collar = person.top.second if person.top.pattern == "yoke" else person.top.first
        self._polygon(((-half, SHOULDER), (-neck, 0.155), (neck, 0.155), (half, SHOULDER)), collar)
        if person.scarf:
            self._polygon(_box(-0.055, 0.14, 0.055, 0.185), person.scarf)

    def _arm(self, side: int) -> None:
        person, pose = self.person, self.pose
        thick = 0.030 * (0.6 + 0.4 * person.girth)
        reach = -side * self.swing * self.aside
        shoulder = (side * self.facing * (self.half - 0.012), SHOULDER + 0.012)
        elbow = (shoulder[0] + side * 0.028 * self.facing + reach * 0.5, 0.345)
        wrist = (elbow[0] + reach * 0.6 + 0.03 * self.aside, WRIST)
        if pose.lift and side == self.near:
            wrist = (elbow[0] + 0.10 * self.aside - side * 0.05 * self.facing, WRIST - 0.26 * pose.lift)
        second = person.top.pattern == "yoke" or (person.top.pattern == "split" and side > 0)
        sleeve = person.top.second if second else person.top.first
        self._limb(elbow, wrist, thick * 0.9, thick * 0.7, sleeve if person.sleeves == "long" else person.skin)
        self._limb(shoulder, elbow, thick * 1.15, thick * 0.95, person.skin if person.sleeves == "none" else sleeve)
        self._ellipse(wrist[0], wrist[1] + 0.012, 0.02, 0.02, person.skin)
        if person.bag == "hand" and side == person.bag_side:
            x, y = wrist
            self._polygon(_box(x - 0.055, y + 0.03, x + 0.055, y + 0.15), person.bag_colour)

    def _leg(self, side: int) -> None:
        person, kind = self.person, self.person.bottom_kind
        cloth, wide = person.bottom.first, 0.052 * person.girth
        stride = side * self.swing
        hip = (side * 0.042 * self.facing * person.girth, person.leg_top)
        ankle = (hip[0] + stride * self.aside, ANKLE - 0.03 * abs(stride * self.facing) * 4 * (stride > 0))
        knee = ((hip[0] + ankle[0]) / 2 + 0.02 * self.aside, (hip[1] + ankle[1]) / 2)
        bare = kind in ("shorts", "skirt", "long-skirt")
        shin = person.bottom.second if kind == "two-tone" else person.skin if bare else cloth
        self._limb(knee, ankle, wide * (0.62 if bare else 0.8), wide * (0.45 if bare else 0.68), shin)
        self._limb(hip, knee, wide, wide * 0.82, person.skin if kind in ("skirt", "long-skirt") else cloth)
        if kind == "side-stripe":
            rim = side * (1 if self.facing > 0 else -1) * wide * 0.55
            middle = hip if abs(self.facing) < 0.4 else (hip[0] + rim, hip[1])
            end = ankle if abs(self.facing) < 0.4 else (ankle[0] + rim * 0.8, ankle[1])
            self._limb(middle, end, wide * 0.3, wide * 0.25, person.bottom.second)
        toe = ankle[0] + 0.04 * self.aside
        self._polygon(_box(min(ankle[0], toe) - 0.03, ANKLE - 0.012, max(ankle[0], toe) + 0.03, 0.995), person.shoes)

    def _bottom(self) -> None:
        person, top = self.person, self.person.leg_top
        if person.bottom_kind in ("skirt", "long-skirt"):
            hem, flare = (0.70, 0.13) if person.bottom_kind == "skirt" else (0.87, 0.14)
            flare *= 0.6 + 0.4 * person.girth
            quad = ((-self.hips, top), (self.hips, top), (flare, hem), (-flare, hem))
            self._polygon(quad, person.bottom.first)
        else:
            self._polygon(_box(-self.hips, top - 0.01, self.hips, top + 0.07), person.bottom.first)

    def _head(self) -> None:
        person, style = self.person, self.person.hair_style
        lean = 0.012 * self.aside
        cover = {"hood": person.top.first, "bald": person.skin}.get(style, person.hair)
        if style == "long" and self.facing >= 0:
            self._polygon(_box(-0.062, 0.06, 0.062, 0.20), person.hair)
        if style == "hood":
            self._ellipse(lean, 0.082, 0.064, 0.082, cover)
        if style == "bun":
            self._ellipse(lean - 0.05 * self.aside, 0.012, 0.028, 0.026, cover)
        self._ellipse(lean, 0.075, 0.05, 0.067, cover)
        if self.facing > -0.45:
            self._ellipse(lean + 0.022 * self.aside, 0.088, 0.042, 0.052, person.skin)
        if style == "cap":
            x, y = self.pose.at(lean, 0.062)
            across, down = 0.055 * self.pose.scale, 0.062 * self.pose.scale
            self.pen.pieslice((x - across, y - down, x + across, y + down), 180, 360, fill=person.bag_colour)
            if self.facing > -0.3:
                self._ellipse(lean + 0.045 * self.aside, 0.066, 0.045, 0.011, person.bag_colour)
        if style == "long" and self.facing < 0:
            self._polygon(((-0.05, 0.07), (0.05, 0.07), (0.068, 0.27), (-0.068, 0.27)), person.hair)

    # -- bags -----------------------------------------------------------------------------------------------------

    def _behind(self) -> None:
        """Draws a backpack or trolley: behind the body, or in front of it if the person is seen from behind."""
        person = self.person
        if person.bag == "backpack":
            x, half = -0.105 * self.aside, 0.05 + 0.05 * abs(self.facing)
            self._polygon(_box(x - half, 0.19, x + half, 0.45), person.bag_colour)
            if self.facing < 0:
                red, green, blue = person.bag_colour
                pocket = int(red * 0.7), int(green * 0.7), int(blue * 0.7)
                self._polygon(_box(x - half * 0.6, 0.33, x + half * 0.6, 0.42), pocket)
        elif person.bag == "trolley":
            x = -0.19 * self.aside + person.bag_side * 0.15 * self.facing
            self._polygon(_box(x - 0.006, 0.52, x + 0.006, 0.72), (60, 60, 64))
            self._polygon(_box(x - 0.06, 0.70, x + 0.06, 0.97), person.bag_colour)

    def _straps(self) -> None:
        for side in (-1, 1):
            x = side * 0.055 * self.facing
            self._polygon(_box(x - 0.016, 0.165, x + 0.016, 0.36), self.person.bag_colour)

    def _carried(self) -> None:
        person = self.person
        if person.bag != "shoulder":
            return
        hip = person.bag_side * (self.hips + 0.025) * self.facing
        if abs(self.facing) > 0.35:
            self._limb((-hip * 0.7, 0.175), (hip * 0.95, 0.46), 0.011, 0.011, person.bag_colour)
        far = abs(self.aside) > 0.7 and person.bag_side != self.near
        half = 0.02 if far else 0.055
        self._polygon(_box(hip - half, 0.44, hip + half, 0.58), person.bag_colour)
