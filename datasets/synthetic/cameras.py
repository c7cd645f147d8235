"""Generated cameras: their place, view, light, colour cast, resolution, noise and crop quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.synthetic import calibration as strength
from datasets.synthetic.calibration import Colour
from datasets.synthetic.passages import Passage
from datasets.synthetic.people import derive

INDOORS = ("door", "poster", "gap", "pillar")
OUTDOORS = ("tree", "window", "gap", "pole", "car")
GREY = np.array([[0.299], [0.587], [0.114]])


@dataclass(frozen=True, slots=True)
class Climate:
    """How much the cameras of one dataset differ: factors of the parameters in `calibration`.

    Attributes:
        cast: factor of the colour cast.
        light: factor of exposure and tone curve.
        indoor: fraction of indoor cameras.
        crop: factor of the error of boxes.
        noise: factor of the sensor noise.
        view_spread: standard deviation of the walking direction between passages, in radians.
    """

    cast: float = 1.0
    light: float = 1.0
    indoor: float = 0.0
    crop: float = 1.0
    noise: float = 1.0
    view_spread: float = 0.4


@dataclass(frozen=True, slots=True)
class Camera:
    """One generated camera.

    Attributes:
        seed: seed of the scene behind the people.
        indoor: whether the scene is a corridor instead of a street.
        yaw: direction in which people walk, in radians; 0 is towards the camera.
        view_spread: standard deviation of this direction between passages, in radians.
        elevation: perspective of a high camera, which enlarges the head, as a fraction of the body height.
        gain: factors of red, green and blue.
        gamma: exponent of the tone curve of the sensor.
        contrast: weight of an S-shaped tone curve.
        saturation: factor of the saturation.
        haze: light added everywhere, as a fraction of white.
        exposure_spread: standard deviation of the exposure between passages, in stops.
        tint_spread: standard deviation of the white balance between passages, as a fraction of each channel.
        shade: strength of the brightness gradient across an image.
        sharpness: resolution of the sensor, relative to the image.
        halo: sharpening by the camera, in per cent.
        noise: standard deviation of the noise, in grey levels.
        quality: JPEG quality.
        crop: standard deviation of the error of boxes, relative to their height.
    """

    seed: int
    indoor: bool
    yaw: float
    view_spread: float
    elevation: float
    gain: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    haze: float
    exposure_spread: float
    tint_spread: float
    shade: float
    sharpness: float
    halo: int
    noise: float
    quality: int
    crop: float


def camera(seed: int, climate: Climate | None = None, turns: Sequence[float] | None = None) -> Camera:
    """Returns the camera for a seed.

    Args:
        seed: determines the scene and everything that ``turns`` does not determine.
        climate: how much the camera may differ from a neutral one.
        turns: position on the circles of colour, light and view, each in [0, 1); random if not given. Cameras half a
            turn apart differ most, so evenly spread positions give different cameras for every seed.
    """
    climate = climate or Climate()
    rng = np.random.default_rng(derive(seed, "camera"))
    colour, light, view = rng.random(3) if turns is None else turns
    indoor = bool(rng.random() < climate.indoor)
    warmth, tint = (climate.cast * part for part in _circle(colour))
    warmth += 0.35 * climate.cast * indoor
    bright, tone = _circle(light)
    level = 2.0 ** (strength.LEVEL * climate.light * bright)
    warm, green = strength.CAST * warmth, strength.TINT * tint
    high, steep = (0.5 + 0.5 * part for part in _circle(view + 0.125))

    def between(bounds: tuple[float, float], share: float) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * share

    return Camera(
        seed=seed,
        indoor=indoor,
        yaw=float(np.pi * view),
        view_spread=climate.view_spread,
        elevation=float(strength.ELEVATION * high),
        gain=(level * (1 + warm), level * (1 + green), level * (1 - warm)),
        gamma=float(np.exp(strength.GAMMA * climate.light * tone)),
        contrast=between(strength.CONTRAST, steep),
        saturation=float(1 - strength.DULLNESS * climate.cast * (0.5 + 0.5 * _circle(colour + 0.125)[0])),
        haze=float(strength.HAZE * climate.light * (0.5 - 0.5 * bright)),
        exposure_spread=strength.PASSAGE_EXPOSURE * climate.light,
        tint_spread=strength.PASSAGE_TINT * climate.cast,
        shade=strength.SHADE * climate.light,
        sharpness=between(strength.SHARPNESS, rng.random()),
        halo=round(strength.HALO * rng.random()),
        noise=between(strength.NOISE, rng.random()) * climate.noise,
        quality=round(between(strength.JPEG_QUALITY, rng.random())),
        crop=strength.CROP * climate.crop * between((0.6, 1.0), rng.random()),
    )


def _circle(turn: float) -> tuple[float, float]:
    return float(np.cos(2 * np.pi * turn)), float(np.sin(2 * np.pi * turn))


def expose(picture: np.ndarray, camera: Camera, walk: Passage, moment: float, rng: np.random.Generator) -> np.ndarray:
    """Applies colour cast, light, tone curve and noise of a camera to an image.

    Args:
        picture: uint8 [H, W, 3].
        camera: the camera.
        walk: the passage of the person.
        moment: exposure of this image relative to that of its passage, in the same unit.
        rng: random generator of this image.

    Returns:
        The recorded image, uint8 [H, W, 3].
    """
    height, width = picture.shape[:2]
    stops = camera.exposure_spread * (walk.stops + moment)
    balance = np.array(camera.gain) * (1 + camera.tint_spread * np.array(walk.gains)) * (2.0**stops / 255)
    mix = (camera.saturation * np.eye(3) + (1 - camera.saturation) * GREY) * balance
    seen = picture.astype(np.float32) @ mix.astype(np.float32)
    seen *= _falling(height, width, camera.shade * walk.slope[0], camera.shade * walk.slope[1], rng)[:, :, None]
    np.clip(seen, 0.0, 1.0, out=seen)
    seen = _tones(camera.gamma, camera.contrast, camera.haze)[(seen * 1023).astype(np.int32)]
    seen += camera.noise * _grain(height, width, rng)
    return np.clip(seen, 0, 255).astype(np.uint8)


@lru_cache(maxsize=256)
def _tones(gamma: float, contrast: float, haze: float) -> np.ndarray:
    """Returns the grey levels of 1,024 steps of light."""
    tone = np.linspace(0, 1, 1024) ** gamma
    tone = (1 - contrast) * tone + contrast * tone * tone * (3 - 2 * tone)
    return ((tone * (1 - haze) + haze) * 255).astype(np.float32)


@lru_cache(maxsize=8)
def _ramp(length: int) -> np.ndarray:
    return np.linspace(-1, 1, length, dtype=np.float32)


def _falling(height: int, width: int, across: float, down: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a map of brightness [height, width]: a gradient, and folds and soft shadows."""
    coarse = rng.normal(128, 128 * strength.FOLDS, (12, 7)).clip(40, 216).astype(np.uint8)
    folds = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    slope = (1 / 128 + across / 128 * _ramp(width))[None, :] + (down / 128 * _ramp(height))[:, None]
    return slope * np.asarray(folds)


def record(canvas: Image.Image, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Resizes the canvas to the resolution of the sensor and then to (height, width); returns [height, width, 3]."""
    height, width = size
    sensor = (max(8, round(width * camera.sharpness)), max(16, round(height * camera.sharpness)))
    seen = canvas.resize(sensor, Image.Resampling.BOX)
    if camera.halo:
        seen = seen.filter(ImageFilter.UnsharpMask(1.0, camera.halo, 0))
    if sensor != (width, height):
        seen = seen.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(seen)


@lru_cache(maxsize=1)
def _film() -> np.ndarray:
    """Returns a shared array of standard normal noise. Images use parts of it, because drawing noise is slow."""
    return np.random.default_rng(20210).standard_normal(1 << 19, dtype=np.float32)


def _grain(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns standard normal noise, [height, width, 3]."""
    film, count = _film(), height * width * 3
    if count >= film.size:
        return rng.standard_normal((height, width, 3), dtype=np.float32)
    start = int(rng.integers(film.size - count))
    return film[start : start + count].reshape(height, width, 3)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, channel * factor)) for channel in colour)
    return red, green, blue


@lru_cache(maxsize=64)
def scene(seed: int, indoor: bool, elevation: float, height: int, width: int) -> Image.Image:
    """Returns a wide background [height, 6 * width], from which images show parts; high cameras see more ground."""
    rng = np.random.default_rng(derive(seed, "scene"))

    def tone(low: int, high: int, tint: int = 14) -> Colour:
        base, shift = int(rng.integers(low, high)), rng.integers(-tint, tint + 1, 3)
        red, green, blue = (int(np.clip(base + change, 0, 255)) for change in shift)
        return red, green, blue

    length, horizon = (
        6 * width,
        round(height * (0.62 - 0.42 * elevation / strength.ELEVATION + float(rng.uniform(-0.08, 0.08)))),
    )
    wall, floor = tone(80, 150, 8), tone(90, 150, 8)
    image = Image.new("RGB", (length, height))
    image.paste(_stones(wall, length, horizon, height // 20, strength.STONES, rng), (0, 0))
    image.paste(_stones(floor, length, height - horizon, height // 13, strength.STONES, rng), (0, horizon))
    draw = ImageDraw.Draw(image)
    x = 0.0
    while x < length:  # objects along the wall
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
    """Returns a wall or pavement of stones with different brightness, so that no single colour identifies the place."""
    rows, columns = height // rise + 1, width // (2 * rise) + 1
    bright = rng.normal(1.0, spread, (rows, columns)).clip(0.15, 1.85).repeat(rise, 0).repeat(2 * rise, 1)
    for row in range(1, rows, 2):  # shift every other row by half a stone
        bright[row * rise : (row + 1) * rise] = np.roll(bright[row * rise : (row + 1) * rise], rise, axis=1)
    stones = bright[:height, :width, None] * np.array(tone)
    return Image.fromarray(np.clip(stones, 0, 255).astype(np.uint8))
