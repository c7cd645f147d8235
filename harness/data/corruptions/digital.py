"""Changes of colour, and digital effects: elastic distortion, pixels and JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from harness.data.corruptions import filters
from harness.data.corruptions.filters import Floats

Generator = np.random.Generator


def brightness(image: Floats, rng: Generator, added: float) -> Floats:
    """Adds to the value of HSV; hue and saturation stay."""
    value = image.max(axis=0)
    bright = np.minimum(value + np.float32(added), 1)
    factor = np.divide(bright, value, out=np.zeros_like(value), where=value > 0)
    return np.where(value > 0, image * factor, bright)


def saturate(image: Floats, rng: Generator, factor: float, added: float) -> Floats:
    """Changes the saturation of HSV to factor * saturation + added; hue and value stay. Gray counts as red."""
    value = image.max(axis=0)
    chroma = value - image
    most = chroma.max(axis=0)
    share = np.divide(most, value, out=np.zeros_like(value), where=value > 0)
    wanted = np.clip(share * np.float32(factor) + np.float32(added), 0, 1) * value
    red = np.array([0, 1, 1], dtype=np.float32)[:, None, None]
    relative = np.divide(chroma, most, out=np.broadcast_to(red, image.shape).copy(), where=most > 0)
    return value - wanted * relative


def contrast(image: Floats, rng: Generator, factor: float) -> Floats:
    """Moves each channel towards its mean."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    return (image - mean) * np.float32(factor) + mean


def elastic_transform(image: Floats, rng: Generator, strength: float) -> Floats:
    """Moves each pixel by a smooth random displacement.

    Uniform draws of up to 0.5 % of the height are smoothed over 1 % of the image and multiplied by `strength`.
    """
    height, width = image.shape[-2:]
    sigma, most = (0.01 * height, 0.01 * width), 0.005 * height
    draws = rng.uniform(-most, most, (2, height, width)).astype(np.float32)
    right, down = filters.gaussian(draws, sigma, mode="reflect", reach=3.0) * np.float32(strength)
    rows = _mirrored(np.arange(height, dtype=np.float32)[:, None] + down, height)
    columns = _mirrored(np.arange(width, dtype=np.float32) + right, width)
    return _bilinear(image, rows, columns)


def _mirrored(position: Floats, size: int) -> Floats:
    """Reflects positions at the outer edges of the border pixels, and limits them to pixel centres."""
    period = np.float32(2 * size)
    folded = np.mod(position + np.float32(0.5), period)
    return np.clip(np.minimum(folded, period - folded) - np.float32(0.5), 0, size - 1)


def _bilinear(image: Floats, rows: Floats, columns: Floats) -> Floats:
    """Interpolates linearly at positions [H, W]."""
    width = image.shape[-1]
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    down, right = rows - top, columns - left
    below, beside = (rows < image.shape[-2] - 1) * width, (columns < width - 1).astype(np.int64)
    flat, start = image.reshape(3, -1), top * width + left
    upper = flat.take(start, 1) * (1 - right) + flat.take(start + beside, 1) * right
    lower = flat.take(start + below, 1) * (1 - right) + flat.take(start + below + beside, 1) * right
    return np.asarray(upper * (1 - down) + lower * down)


def pixelate(image: Floats, rng: Generator, factor: float) -> Floats:
    """Shrinks the image by averaging, and enlarges it without smoothing."""
    picture = _picture(image)
    width, height = picture.size
    small = picture.resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BOX)
    return _floats(small.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(image: Floats, rng: Generator, quality: int) -> Floats:
    """Saves and reads the image as JPEG."""
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return _floats(Image.open(file))


def _picture(image: Floats) -> Image.Image:
    values = np.rint(image * np.float32(255)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))


def _floats(picture: Image.Image) -> Floats:
    return np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
