"""Changes that corrupt images, for audits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness.audits.subject import Change
from harness.contracts import Item
from harness.data.corruptions import KINDS, LEVELS, corrupt
from harness.data.rng import generator

METRICS = {"mAP": "average_precision", "rank-1": "first_hit", "mINP": "inverse_negative_penalty"}
"""The attribute of a ranking that holds the values per query of each metric."""

VARIANTS = ("query and gallery", "query", "gallery")
"""Which images are corrupted."""

SOURCE = (
    "Chen et al., Benchmarks for Corruption Invariant Person Re-identification, NeurIPS 2021 (arXiv 2111.00880), with "
    "the kinds and levels of Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261). The textures of frost are "
    "generated, not photographs."
)

Choice = Callable[[str], tuple[str, int]]
"""Returns the kind and the level of the corruption of an image, by the name of the image."""


def corrupting(items: Sequence[Item], choice: Choice, *, seed: int = 0) -> Change:
    """Returns a change that corrupts images in their original size. It depends on the name of an image alone.

    Args:
        items: the images.
        choice: kind and level of each image.
        seed: seed of the draws.
    """
    names = [name_of(item.path) for item in items]
    return lambda image, row: corrupt(image, *choice(names[row]), seed, names[row])


def name_of(path: Path) -> str:
    """Returns the name that seeds the draws of an image: its file and folder, wherever the dataset lies."""
    return "/".join(path.parts[-2:])


def always(kind: str, level: int) -> Choice:
    """Returns a choice that gives every image the same corruption."""
    return lambda name: (kind, level)


def drawn(seed: int) -> Choice:
    """Returns a choice that gives each image one of all kinds and one of the levels 1 to 5, at random."""
    kinds = tuple(KINDS)

    def choose(name: str) -> tuple[str, int]:
        kind, level = generator(seed, "corruption of", name).random(2)
        return kinds[int(kind * len(kinds))], LEVELS[int(level * len(LEVELS))]

    return choose


class Averages:
    """Averages values per query over passes, for every variant and metric."""

    def __init__(self) -> None:
        self._passes = 0
        self._sums: dict[tuple[str, str], np.ndarray] = {}

    def add(self, variant: str, ranking: object) -> None:
        """Adds the ranking of one pass."""
        self._passes += variant == VARIANTS[0]
        for metric, attribute in METRICS.items():
            values = np.asarray(getattr(ranking, attribute), dtype=np.float64)
            self._sums[variant, metric] = self._sums.get((variant, metric), 0) + values

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        """Returns the mean of each query for a variant and a metric."""
        return self._sums[key] / self._passes
