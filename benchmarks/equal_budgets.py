"""Simulates comparisons of two equally good backbones that need different learning rates. Nothing is trained.

    python -m benchmarks.equal_budgets

Each backbone has a known response: its test mAP is a function of the point of the space `training`, with the same
highest value but at another learning rate. Under one shared recipe, which suits the first backbone, the second seems
worse. With equal budgets, each is judged at the best of its own trials. The points are those of the program's studies,
and the test is that of the page. Trials and final runs have noise: of training, and of the people held out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.tuning import sampler, space
from harness.tuning.sampler import Known
from harness.tuning.space import Point

HIGHEST = 0.8
LOSS = 0.05
"""Loss of mAP at ten times the best learning rate or a tenth of it, as a fraction; four times that at a hundredth."""

HELD_OUT_NOISE, TRAINING_NOISE = 0.01, 0.004
POOL = 360
"""Number of studies whose points are drawn; comparisons reuse them with new noise."""


@dataclass(frozen=True)
class Backbone:
    """A response surface.

    Attributes:
        rates: best learning rate by optimiser.
    """

    rates: dict[str, float]

    def quality(self, point: Point) -> float:
        """Expected test mAP at a point of the space `training`."""
        distance = np.log10(point[f"{point['optimizer']}_rate"] / self.rates[point["optimizer"]])
        others = 0.5 * (point["warmup"] - 0.1) ** 2 + 0.5 * (point["label_smoothing"] - 0.1) ** 2
        return float(HIGHEST - LOSS * distance**2 - others)


FIRST = Backbone({"sgd": 0.008, "adam": 6e-4, "adamw": 6e-4})
SECOND = Backbone({"sgd": 0.002, "adam": 1.5e-4, "adamw": 1.5e-4})
SHARED: Point = {"optimizer": "sgd", "sgd_rate": 0.008, "warmup": 5 / 120, "label_smoothing": 0.1}
"""The recipe `unified`, as far as the responses depend on it."""


@functools.cache
def points(trials: int, pool: int = POOL) -> tuple[tuple[Point, ...], ...]:
    """The points of the program's studies."""
    searched, found = space.load("training"), []
    for seed in range(pool):
        known: list[Known] = []
        for number in range(trials):
            point = sampler.suggest(searched, "random", seed=seed, number=number, samples=trials, known=known)
            assert point is not None
            known.append(Known(point))
        found.append(tuple(trial.point for trial in known))
    return tuple(found)


def judged_different(studies: int, trials: int, comparisons: int = 2000, level: float = 0.05) -> tuple[float, float]:
    """Returns how often the two are judged different: under the shared recipe, and with equal budgets."""
    generator = np.random.default_rng(0)
    drawn = points(trials)
    quality = [np.array([[b.quality(p) for p in study] for study in drawn]) for b in (FIRST, SECOND)]
    shared = tuned = 0
    for _ in range(comparisons):
        chosen = generator.choice(len(drawn), studies, replace=False)
        untuned, best = [], []
        for backbone, values in zip((FIRST, SECOND), quality, strict=True):
            held_out = values[chosen] + generator.normal(0, HELD_OUT_NOISE, (studies, trials))
            picked = values[chosen, held_out.argmax(axis=1)]
            best.append(picked + generator.normal(0, TRAINING_NOISE, studies))
            untuned.append(backbone.quality(SHARED) + generator.normal(0, TRAINING_NOISE, studies))
        shared += stats.compare_studies(*untuned).p_value < level
        tuned += stats.compare_studies(*best).p_value < level
    return shared / comparisons, tuned / comparisons


def main() -> None:
    """Prints a line per budget."""
    print(f"{'studies':>8} {'trials':>7} {'shared recipe':>14} {'equal budgets':>14}")
    for studies, trials in ((3, 20), (3, 6), (5, 20), (2, 6)):
        shared, tuned = judged_different(studies, trials)
        print(f"{studies:8} {trials:7} {shared:14.1%} {tuned:14.1%}")


if __name__ == "__main__":
    main()
