"""Random numbers that depend only on a seed and a purpose, not on earlier draws or on the process.

Only uniform doubles are taken from numpy's generator, because its shuffling has changed between versions of numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.system.seeding import derive


def generator(seed: int, *purpose: Any) -> np.random.Generator:
    """Returns the generator for a purpose, for example `generator(0, "batch", epoch, iteration)`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *purpose)))


def permutation(rng: np.random.Generator, count: int) -> NDArray[np.intp]:
    """Returns 0 .. count - 1 in random order."""
    return np.argsort(rng.random(count), kind="stable")


def integers(rng: np.random.Generator, count: int, below: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns `count` integers, uniform over 0 .. below - 1; `below` is one number or an array [count]."""
    return (rng.random(count) * below).astype(np.int64)
