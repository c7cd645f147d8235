"""Noise: Gaussian, shot, impulse and speckle noise, independent for each pixel and channel."""

from __future__ import annotations

import numpy as np

from harness.data.corruptions.filters import Floats

Generator = np.random.Generator


def gaussian_noise(image: Floats, rng: Generator, scale: float) -> Floats:
    """Adds normal noise of standard deviation `scale`."""
    return image + np.float32(scale) * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: Floats, rng: Generator, photons: float) -> Floats:
    """Counts light particles: a Poisson number with a mean of `photons` for white."""
    return rng.poisson(image * photons).astype(np.float32) / np.float32(photons)


def impulse_noise(image: Floats, rng: Generator, share: float) -> Floats:
    """Sets a share of the values to black or white, with equal probability."""
    draw = rng.random(image.shape, np.float32)
    return np.where(draw < share, (draw < share / 2).astype(np.float32), image)


def speckle_noise(image: Floats, rng: Generator, scale: float) -> Floats:
    """Multiplies each value by a normal number with mean 1 and standard deviation `scale`."""
    return image * (1 + np.float32(scale) * rng.standard_normal(image.shape, np.float32))
