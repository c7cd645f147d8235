"""Where the score of one more training run on the same test images would lie."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence

from harness.stats.groups import StatsError


def another_run(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Student's prediction interval for the score of one more run, from runs that differ only in the seed.

    All runs, the further one included, are scored on the same test images. Their scores therefore vary by the
    training alone: mean +- t(n - 1) * s * sqrt(1 + 1 / n), with the standard deviation s of the n scores. The root
    has two parts, the spread of the further run and the error of our mean. For normal scores the coverage is exact.

    Args:
        values: score of each run, at least two, [n].
        confidence: probability that one more run lies inside.

    Raises:
        StatsError: fewer than two scores, which have no spread.
    """
    if len(values) < 2:
        raise StatsError(f"An interval over seeds needs at least two runs, found {len(values)}.")
    mean, n = statistics.fmean(values), len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = student_t(n - 1, confidence) * deviation * math.sqrt(1 + 1 / n)
    return mean - reach, mean + reach


def another_run_of_one(value: float, over_queries: Sequence[float]) -> tuple[float, float]:
    """Returns an interval for the score of another run from a single one, under an assumption.

    One run has no spread over seeds. The interval over identities takes its place: its ends are moved away from
    `value` by the square root of two, because both runs vary. The coverage holds as long as the standard deviation
    over seeds is at most the standard error over identities.

    Args:
        value: score of the run.
        over_queries: its interval over identities, (low, high).
    """
    low, high = over_queries
    return value - math.sqrt(2) * (value - low), value + math.sqrt(2) * (high - value)


def difference_of_means(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Returns Welch's 95 % interval of the difference between the mean scores of two backbones, over seeds.

    Args:
        first: score of each run of the first backbone, at least two.
        second: score of each run of the second backbone, at least two.

    Raises:
        StatsError: a backbone has fewer than two runs.
    """
    if min(len(first), len(second)) < 2:
        raise StatsError("A difference over seeds needs at least two runs of each backbone.")
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    difference, total = statistics.fmean(first) - statistics.fmean(second), sum(parts)
    if total == 0:
        return difference, difference
    freedom = total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    reach = student_t(freedom) * math.sqrt(total)
    return difference - reach, difference + reach


@functools.cache
def student_t(freedom: float, confidence: float = 0.95) -> float:
    """Returns the two-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit  # loads in a quarter of the time of scipy.stats

    return float(stdtrit(freedom, (1 + confidence) / 2))
