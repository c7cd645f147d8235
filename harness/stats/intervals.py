"""Intervals for one run: what another draw of persons would have given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.groups import StatsError, cluster

RESAMPLES = 10_000
_CHUNK = 2**21


def bootstrap_interval(
    values: ArrayLike, groups: Any, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns an interval for the mean score by the bootstrap over identities.

    Identities are drawn with replacement, each with all its queries; the statistic is the ratio of the sum of scores
    to the number of queries. The interval is studentised (bootstrap-t): each resample is measured in its own standard
    error (linearised, between identities), and the quantiles are turned back with that of the data. With few or
    skewed identities this covers better than percentiles. Ends are kept within the range of the scores.

    Args:
        values: score of each query, NaN where it has none, [n].
        groups: identity of each query, [n].
        confidence: coverage wanted.
        resamples: bootstrap samples.
        seed: of the resampling; the same input gives the same interval.

    Returns:
        Lower and upper end; NaN for a single identity, which tells nothing about others.

    Raises:
        StatsError: nothing to infer from, or an option out of range.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise StatsError(f"confidence={confidence}, resamples={resamples}: give 0 < confidence < 1 and resamples >= 1.")
    clusters = cluster(values, groups)
    n = len(clusters.sums)
    if n < 2:
        return float("nan"), float("nan")
    mean = clusters.mean
    deviations = clusters.sums - mean * clusters.counts
    error = _standard_error(deviations, clusters.counts)
    # Equal up to rounding: no resample can differ.
    if error <= 1e-12 * max(1e-300, np.abs(clusters.sums).max()):
        return mean, mean
    pivots = np.concatenate(list(_pivots(deviations, clusters.counts, error, resamples, seed)))
    tail = (1 - confidence) / 2
    low = mean - error * float(np.quantile(pivots, 1 - tail, method="higher"))
    high = mean - error * float(np.quantile(pivots, tail, method="lower"))
    scores = np.asarray(values, dtype=np.float64)
    return float(max(low, np.nanmin(scores))), float(min(high, np.nanmax(scores)))


def _pivots(
    deviations: np.ndarray, counts: np.ndarray, error: float, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields by how many of its own standard errors each resample lies above the data."""
    generator, n = np.random.default_rng(seed), len(counts)
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        drawn = generator.integers(n, size=(min(size, resamples - start), n), dtype=np.int32)
        sampled, queries = deviations[drawn], counts[drawn]
        shift = sampled.sum(axis=1) / queries.sum(axis=1)
        sampled -= shift[:, None] * queries
        errors = _standard_error(sampled, queries)
        # A resample without any spread tells nothing about its error: it counts as infinitely far.
        far = np.where(np.abs(shift) > 1e-9 * error, np.copysign(np.inf, shift), 0.0)
        spread = errors > 1e-9 * error
        yield np.where(spread, shift / np.where(spread, errors, 1), far)


def _standard_error(deviations: np.ndarray, counts: np.ndarray) -> Any:
    """Standard error of a ratio of sums over identities, from deviations of sums; along the last axis."""
    n = counts.shape[-1]
    return np.sqrt((deviations**2).sum(axis=-1) * n / (n - 1)) / counts.sum(axis=-1)


class SeedSpread(NamedTuple):
    """Spread of a score over training seeds: the variance of training, apart from that of the query set."""

    mean: float
    std: float
    n: int


def seed_spread(values: ArrayLike) -> SeedSpread:
    """Returns mean, sample standard deviation (NaN for one seed) and number of seeds."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise StatsError(f"Scores over seeds have shape {scores.shape}; give one number a seed.")
    return SeedSpread(float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else float("nan"), len(scores))
