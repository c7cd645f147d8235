"""How the generated cameras see: place, view, light, colour cast, resolution, noise and crop quality."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from datasets.synthetic.people import Colour, derive

INDOORS = ("door", "poster", "gap", "pillar")
OUTDOORS = ("tree", "window", "gap", "pole", "car")


@dataclass(frozen=True, slots=True)
class Climate:
    """How far the cameras of one dataset differ; all strengths are 0 (none) to about 1 (strong)."""

    cast: float = 0.6
    light: float = 0.5
    indoor: float = 0.0
    crop: float = 0.5
    noise: float = 0.5
    view_spread: float = 0.5


@dataclass(frozen=True, slots=True)
class Camera:
    """One generated camera.

    Attributes:
        seed: decides the scene behind the people.
        indoor: a corridor instead of a street.
        yaw: the direction most people walk in, radians; 0 faces the camera.
        view_spread: standard deviation of that direction, radians.
        elevation: perspective of a high camera, which enlarges the head; share of the body height.
        gain: red, green and blue cast.
        gamma: tone curve of the sensor.
        saturation: 1 leaves colours alone.
        haze: light added everywhere, share of white.
        exposure_spread: standard deviation of the exposure from shot to shot, in stops.
        shade: strength of the light gradient across a picture.
        sharpness: share of the resolution that survives.
        noise: standard deviation in grey levels.
        crop: standard deviation of the box error, share of its height.
    """

    seed: int
    indoor: bool
    yaw: float
    view_spread: float
    elevation: float
    gain: tuple[float, float, float]
    gamma: float
    saturation: float
    haze: float
    exposure_spread: float
    shade: float
    sharpness: float
    noise: float
    crop: float


def camera(seed: int, climate: Climate | None = None) -> Camera:
    """Return the camera of ``seed``; ``climate`` bounds how far it may be from a neutral one."""
    climate = climate or Climate()
    rng = np.random.default_rng(derive(seed, "camera"))
    indoor = bool(rng.random() < climate.indoor)
    warmth, tint = rng.uniform(-1, 1, 2) * climate.cast
    warmth += 0.35 * climate.cast * indoor
    level = float(np.exp(rng.uniform(-0.5, 0.3) * climate.light))
    gain = (level * (1 + 0.38 * warmth), level * (1 + 0.20 * tint), level * (1 - 0.38 * warmth))
    return Camera(
        seed=seed,
        indoor=indoor,
        yaw=float(rng.uniform(-np.pi, np.pi)),
        view_spread=climate.view_spread,
        elevation=float(rng.uniform(0.0, 0.22)),
        gain=gain,
        gamma=float(np.exp(rng.uniform(-0.45, 0.45) * climate.light)),
        saturation=float(1 - rng.uniform(0.0, 0.5) * climate.cast),
        haze=float(rng.uniform(0.0, 0.16) * climate.light),
        exposure_spread=0.30 * climate.light,
        shade=0.35 * climate.light,
        sharpness=float(rng.uniform(0.45, 1.0)),
        noise=float(rng.uniform(2.0, 9.0) * climate.noise),
        crop=float(rng.uniform(0.4, 1.0) * 0.045 * climate.crop),
    )


def expose(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Return ``picture`` [H, W, 3] uint8 as ``camera`` records it: cast, light, tone curve and noise."""
    height, width = picture.shape[:2]
    grey = (1 - camera.saturation) * np.array([0.299, 0.587, 0.114])
    mix = (camera.saturation * np.eye(3) + grey[:, None]) * np.array(camera.gain)
    exposure = 2.0 ** (rng.normal() * camera.exposure_spread)
    seen = picture.astype(np.float32) @ (mix * exposure / 255).astype(np.float32)
    seen *= _light(height, width, camera.shade, rng)[:, :, None]
    np.clip(seen, 0.0, 1.0, out=seen)
    levels = (np.linspace(0, 1, 1024) ** camera.gamma * (1 - camera.haze) + camera.haze) * 255
    seen = levels.astype(np.float32)[(seen * 1023).astype(np.int32)]
    seen += camera.noise * _grain(height, width, rng)
    return np.clip(seen, 0, 255).astype(np.uint8)


def _light(height: int, width: int, shade: float, rng: np.random.Generator) -> np.ndarray:
    """Return [height, width] brightness: a slope across the picture, and folds and soft shadows."""
    slope_x, slope_y = rng.uniform(-shade, shade, 2)
    slope = 1 + slope_x * np.linspace(-1, 1, width)[None, :] + slope_y * np.linspace(-1, 1, height)[:, None]
    coarse = rng.normal(128, 9, (12, 7)).clip(90, 166).astype(np.uint8)
    folds = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return (slope * np.asarray(folds) / 128).astype(np.float32)


@lru_cache(maxsize=1)
def _film() -> np.ndarray:
    """Return the common sheet of unit noise from which every picture takes a piece (drawing it anew is slow)."""
    return np.random.default_rng(20210).standard_normal(1 << 19, dtype=np.float32)


def _grain(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return [height, width, 3] unit noise."""
    film, count = _film(), height * width * 3
    if count >= film.size:
        return rng.standard_normal((height, width, 3), dtype=np.float32)
    start = int(rng.integers(film.size - count))
    return film[start : start + count].reshape(height, width, 3)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, channel * factor)) for channel in colour)
    return red, green, blue


@lru_cache(maxsize=64)
def scene(seed: int, indoor: bool, height: int, width: int) -> Image.Image:
    """Return the wide view [height, 6 * width] of one place; every picture shows another piece of it."""
    rng = np.random.default_rng(derive(seed, "scene"))

    def tone(low: int, high: int, tint: int = 14) -> Colour:
        base, shift = int(rng.integers(low, high)), rng.integers(-tint, tint + 1, 3)
        red, green, blue = (int(np.clip(base + change, 0, 255)) for change in shift)
        return red, green, blue

    length, horizon = 6 * width, round(height * float(rng.uniform(0.4, 0.6)))
    wall, floor = tone(138, 162, 6), tone(112, 136, 6)
    image = Image.new("RGB", (length, height))
    image.paste(_stones(wall, length, horizon, height // 20, 0.5, rng), (0, 0))
    image.paste(_stones(floor, length, height - horizon, height // 13, 0.5, rng), (0, horizon))
    draw = ImageDraw.Draw(image)
    x = 0.0
    while x < length:  # what stands along the wall
        span = width * float(rng.uniform(0.25, 0.9))
        thing = str(rng.choice(INDOORS if indoor else OUTDOORS))
        top, colour = horizon * float(rng.uniform(0.05, 0.5)), tone(60, 200, 24)
        if thing in ("door", "car"):
            top = horizon * (0.12 if thing == "door" else 0.75)
            draw.rectangle((x, top, x + span, horizon * (1.0 if thing == "door" else 1.12)), fill=colour)
        elif thing in ("poster", "window"):
            draw.rectangle((x, top, x + span, top + horizon * 0.35), fill=colour, outline=_shade(wall, 0.6))
        elif thing in ("pillar", "pole"):
            draw.rectangle((x, 0, x + span * 0.25, horizon * 1.06), fill=_shade(wall, 0.75))
        elif thing == "tree":
            green = (int(rng.integers(40, 90)), int(rng.integers(90, 140)), int(rng.integers(40, 80)))
            draw.rectangle((x + span * 0.45, top, x + span * 0.55, horizon * 1.04), fill=(92, 72, 54))
            draw.ellipse((x, top * 0.3, x + span, top + horizon * 0.35), fill=green)
        x += span + width * float(rng.uniform(0.05, 0.5))
    return image


def _stones(tone: Colour, width: int, height: int, rise: int, spread: float, rng: np.random.Generator) -> Image.Image:
    """Return a wall or pavement of stones that differ in brightness, so that no single colour marks the place."""
    rows, columns = height // rise + 1, width // (2 * rise) + 1
    bright = rng.normal(1.0, spread, (rows, columns)).clip(0.15, 1.85).repeat(rise, 0).repeat(2 * rise, 1)
    for row in range(1, rows, 2):  # every other row is shifted by half a stone
        bright[row * rise : (row + 1) * rise] = np.roll(bright[row * rise : (row + 1) * rise], rise, axis=1)
    stones = bright[:height, :width, None] * np.array(tone)
    return Image.fromarray(np.clip(stones, 0, 255).astype(np.uint8))
