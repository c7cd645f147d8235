"""Draws one image: a person in front of the background of a camera, possibly occluded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import ImageDraw

from datasets.synthetic import calibration as strength
from datasets.synthetic.cameras import Camera, expose, record, scene
from datasets.synthetic.figure import Pose, draw_figure
from datasets.synthetic.passages import Passage, PasserBy
from datasets.synthetic.passages import passage as passage_of
from datasets.synthetic.people import Person, derive
from datasets.synthetic.people import person as make_person

OVERSAMPLING = 2  # images are drawn larger by this factor and then reduced, for smooth edges


def draw(
    person: Person | None,
    camera: Camera,
    shot: int,
    size: tuple[int, int] = (128, 64),
    *,
    passage: int | None = None,
    occluded: bool = False,
    misaligned: bool = False,
) -> np.ndarray:
    """Draws the image of a person taken by a camera.

    Args:
        person: the person; None for a false alarm of the detector, which shows only the background.
        camera: the camera.
        shot: seed of the step, the noise, and small changes of place, direction, light and box.
        size: (height, width) in pixels.
        passage: seed of the place, direction, light, box and other people, which the images of one person walking past
            have in common; by default `shot`.
        occluded: whether an object covers a quarter to a half of the person.
        misaligned: whether the box is wrong, as in Market-1501's junk images.

    Returns:
        The image, uint8 RGB [height, width, 3]. It depends only on the arguments.
    """
    rng = np.random.default_rng(derive(shot, "shot"))
    walk = passage_of(shot if passage is None else passage)
    height, width = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    place = scene(camera.seed, camera.indoor, camera.elevation, height, width)
    own = strength.SHOT_SHARE * rng.normal(0.0, 1.0, 5).clip(
        -2, 2
    )  # deviations of this image: box, direction, exposure
    left = round(walk.place * (place.width - 1.25 * width) + rng.random() * 0.25 * width)
    canvas = place.crop((left, 0, left + width, height))
    pen = ImageDraw.Draw(canvas)
    pose = _pose(camera, walk, own, rng, height, width, misaligned)
    if walk.other is not None:
        _passer_by(pen, pose, walk.other)
    if person is not None:
        _shadow(pen, pose)
        draw_figure(pen, person, pose)
    if occluded:
        _occlude(pen, pose, height, width, rng)
    return expose(record(canvas, camera, size), camera, walk, float(own[4]), rng)


def _pose(
    camera: Camera,
    walk: Passage,
    own: np.ndarray,
    rng: np.random.Generator,
    height: int,
    width: int,
    misaligned: bool,
) -> Pose:
    """Returns the pose of the person in the box: direction, step, and the error of the box."""
    yaw = camera.yaw + np.pi * walk.away + camera.view_spread * (walk.turn + own[3])
    zoom, shift_x, shift_y = (camera.crop * (shared + more) for shared, more in zip(walk.box, own[:3], strict=True))
    if misaligned:
        zoom, shift_x, shift_y = rng.uniform(0.1, 0.5), rng.choice((-0.28, 0.28)), rng.choice((-0.35, 0.35))
    scale = height * 0.94 * (1 + zoom)
    return Pose(
        centre=float(width / 2 + shift_x * height),
        top=float((height - scale) / 2 + shift_y * height),
        scale=float(scale),
        yaw=float(yaw),
        step=float(rng.uniform(0, 2 * np.pi)),
        lift=walk.lift,
        elevation=camera.elevation,
    )


def _shadow(pen: ImageDraw.ImageDraw, pose: Pose) -> None:
    x, y = pose.at(0, 0.985)
    reach = 0.16 * pose.scale
    pen.ellipse((x - reach, y - reach * 0.16, x + reach, y + reach * 0.2), fill=(70, 70, 74))


def _passer_by(pen: ImageDraw.ImageDraw, pose: Pose, other: PasserBy) -> None:
    """Draws another person in the background, smaller than the main person."""
    away = replace(
        pose,
        centre=pose.centre + other.side * 0.22 * pose.scale,
        top=pose.top + (0.86 - other.share) * pose.scale,
        scale=pose.scale * other.share,
        yaw=other.yaw,
    )
    draw_figure(pen, other.who, away)


def _occlude(pen: ImageDraw.ImageDraw, pose: Pose, height: int, width: int, rng: np.random.Generator) -> None:
    """Draws an object in front of the person: a car, wall or bush below, or a post or pedestrian on one side."""
    kind = str(rng.choice(("car", "wall", "post", "bush", "pedestrian")))
    red, green, blue = (int(channel) for channel in rng.integers(40, 215, 3))
    side = int(rng.choice((-1, 1)))
    edge = min(pose.at(0, float(rng.uniform(0.60, 0.76)))[1], 0.9 * height)  # a misaligned box may end above it
    if kind == "car":
        pen.rectangle((0, min(edge + height * 0.3, height), width, height), fill=(58, 58, 62))
        body = -width * 0.3, edge, width * 1.3, edge + height * 0.34
        pen.rounded_rectangle(body, height // 16, fill=(red, green, blue))
        pen.rectangle((0, edge + height * 0.03, width, edge + height * 0.09), fill=(60, 68, 78))
    elif kind == "wall":
        pen.rectangle((0, edge, width, height), fill=(red, (red + green) // 2, (red + blue) // 2))
        pen.line((0, edge, width, edge), fill=(50, 50, 50), width=max(1, height // 60))
    elif kind == "bush":
        for x in np.linspace(0, width, 6):
            reach = height * float(rng.uniform(0.12, 0.2))
            pen.ellipse((x - reach, edge - reach * 0.4, x + reach, height + reach), fill=(44, 84 + int(x) % 30, 48))
    elif kind == "post":
        x = pose.centre + side * pose.scale * float(rng.uniform(0.02, 0.07))
        reach = pose.scale * float(rng.uniform(0.055, 0.085))
        pen.rectangle((x - reach, 0, x + reach, height), fill=(red, (red + green) // 2, (red + blue) // 2))
    else:
        before = replace(pose, centre=pose.centre + side * 0.19 * pose.scale, yaw=float(rng.uniform(-np.pi, np.pi)))
        before = replace(before, scale=pose.scale * 1.1, top=pose.top + 0.1 * pose.scale)
        draw_figure(pen, make_person(int(rng.integers(1 << 40))), before)
