"""Intervals for one run: what another draw of persons would have given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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
    return bootstrap_intervals([values], groups, confidence=confidence, resamples=resamples, seed=seed)[0]


def bootstrap_intervals(
    series: Sequence[ArrayLike], groups: Any, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float]]:
    """`bootstrap_interval` of several scores of the same queries, [series, n], on the same resamples.

    Raises:
        StatsError: likewise, or series that have no score in different places.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise StatsError(f"confidence={confidence}, resamples={resamples}: give 0 < confidence < 1 and resamples >= 1.")
    clusters = [cluster(values, groups) for values in series]
    counts = clusters[0].counts
    if not all(np.array_equal(each.counts, counts) for each in clusters):
        raise StatsError("Some queries have a score in one run only; compare runs on the same queries and gallery.")
    if len(counts) < 2:
        return [(float("nan"), float("nan"))] * len(clusters)
    deviations = np.stack([each.sums - each.mean * counts for each in clusters])
    errors = _standard_error(deviations, counts)
    pivots = np.concatenate(list(_pivots(deviations, counts, errors, resamples, seed)))
    tail = (1 - confidence) / 2
    lows = np.quantile(pivots, 1 - tail, axis=0, method="higher")
    highs = np.quantile(pivots, tail, axis=0, method="lower")
    intervals = []
    for each, values, error, low, high in zip(clusters, series, errors, lows, highs, strict=True):
        mean, scores = each.mean, np.asarray(values, dtype=np.float64)
        if error <= 1e-12 * max(1e-300, np.abs(each.sums).max()):  # equal up to rounding: no resample can differ
            intervals.append((mean, mean))
            continue
        ends = max(mean - error * low, np.nanmin(scores)), min(mean - error * high, np.nanmax(scores))
        intervals.append((float(ends[0]), float(ends[1])))
    return intervals


def _pivots(
    deviations: np.ndarray, counts: np.ndarray, errors: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields by how many of its own standard errors each resample lies above the data, [some resamples, series].

    How often each identity was drawn, times sums and squares of the identities, is all that a resample is made of.
    """
    generator, n = np.random.default_rng(seed), len(counts)
    known = np.vstack([counts, counts**2, deviations, deviations**2, deviations * counts]).T
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = generator.integers(n, size=(rows, n), dtype=np.int32) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        sums = times @ known
        queries, squared_queries = sums[:, :1], sums[:, 1:2]
        shift, squares, mixed = np.split(sums[:, 2:], 3, axis=1)
        shift = shift / queries
        variance = (squares - 2 * shift * mixed + shift**2 * squared_queries) * n / (n - 1)
        own = np.sqrt(np.maximum(variance, 0)) / queries
        # A resample without any spread, up to rounding, tells nothing about its error: it counts as infinitely far.
        far = np.where(np.abs(shift) > 1e-9 * errors, np.copysign(np.inf, shift), 0.0)
        spread = own > 1e-6 * errors
        yield np.where(spread, shift / np.where(spread, own, 1), far)


def _standard_error(deviations: np.ndarray, counts: np.ndarray) -> Any:
    """Standard error of a ratio of sums over identities, from deviations of sums; along the last axis."""
    n = counts.shape[-1]
    return np.sqrt((deviations**2).sum(axis=-1) * n / (n - 1)) / counts.sum(axis=-1)
