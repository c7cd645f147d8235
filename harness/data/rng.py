"""Random draws that depend on a seed and a purpose alone, never on what was drawn before or where.

Only uniform doubles are taken from numpy's generator: how it shuffles or chooses has changed between versions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.system.seeding import derive


def generator(seed: int, *purpose: Any) -> np.random.Generator:
    """Returns the generator of a purpose, for example `generator(0, "batch", epoch, iteration)`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *purpose)))


def permutation(rng: np.random.Generator, count: int) -> NDArray[np.intp]:
    """Returns 0 .. count - 1 in random order."""
    return np.argsort(rng.random(count), kind="stable")


def integers(rng: np.random.Generator, count: int, below: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns `count` integers, uniform over 0 .. below - 1; `below` may differ from one to the next."""
    return (rng.random(count) * below).astype(np.int64)
