"""Confidence intervals of one run, over the choice of identities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.groups import Clusters, StatsError, cluster

RESAMPLES = 10_000
_CHUNK = 2**21


def bootstrap_interval(
    values: ArrayLike, groups: Any, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns a confidence interval of the mean score by the bootstrap over identities.

    Identities are drawn with replacement, each with all its queries. The statistic is the sum of scores divided by the
    number of queries. The interval is studentised (bootstrap-t): the deviation of each resample is divided by its own
    standard error (linearised, between identities), and the quantiles are multiplied by that of the data. For few
    identities or skewed scores, its coverage is better than that of percentile intervals. The ends are clipped to the
    range of the scores, and to what the number of identities allows that differ from the others, see `_reach`.

    Args:
        values: score of each query, NaN for none, [n].
        groups: identity of each query, [n].
        confidence: coverage of the interval.
        resamples: number of bootstrap samples.
        seed: seed of the resampling; the same input gives the same interval.

    Returns:
        Lower and upper end; NaN for a single identity.

    Raises:
        StatsError: no query has a score, or an option is out of range.
    """
    return bootstrap_intervals([values], groups, confidence=confidence, resamples=resamples, seed=seed)[0]


def bootstrap_intervals(
    series: Sequence[ArrayLike], groups: Any, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float]]:
    """Computes `bootstrap_interval` for several series of scores of the same queries, on the same resamples.

    Raises:
        StatsError: as `bootstrap_interval`, or the series lack scores for different queries.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise StatsError(
            f"confidence must be between 0 and 1 and resamples at least 1; found {confidence} and {resamples}."
        )
    clusters = [cluster(values, groups) for values in series]
    counts = clusters[0].counts
    if not all(np.array_equal(each.counts, counts) for each in clusters):
        raise StatsError("Some queries have a score in one run only. Compare runs on the same queries and gallery.")
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
        if error <= 1e-12 * max(1e-300, np.abs(each.sums).max()):  # all equal up to rounding
            intervals.append((mean, mean))
            continue
        least, most = _reach(each, float(np.nanmin(scores)), float(np.nanmax(scores)), tail)
        ends = max(mean - error * low, least), min(mean - error * high, most)
        intervals.append((float(ends[0]), float(ends[1])))
    return intervals


def _reach(clusters: Clusters, least: float, most: float, tail: float) -> tuple[float, float]:
    """Returns bounds of the mean score that hold if few identities differ from the median identity.

    The studentised interval is too wide then, because many resamples have none of these identities: of 700 with a
    rank-1 of 0, two with a hit would give an upper end of 100 %. Their share of all identities is at most the upper end
    of the Clopper-Pearson interval, and their scores are between `least` and `most`.
    """
    means, n = clusters.sums / clusters.counts, len(clusters.counts)
    usual = float(np.median(means))
    differing = int((np.abs(means - usual) > 1e-12).sum())
    largest = float(clusters.counts.max() / clusters.counts.mean())  # their share of queries may be larger
    share = min(1.0, largest * _largest_share(differing, n, tail))
    return usual + share * (least - usual), usual + share * (most - usual)


def _largest_share(hits: int, n: int, tail: float) -> float:
    """Returns the upper end of the Clopper-Pearson interval, or 1 if more than a tenth of n hit."""
    from scipy.special import betaincinv

    return 1.0 if hits > n // 10 else float(betaincinv(hits + 1, n - hits, 1 - tail))


def _pivots(
    deviations: np.ndarray, counts: np.ndarray, errors: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields the deviation of each resample from the data, in its own standard errors, [n_resamples, n_series].

    Resamples are computed from the number of draws of each identity, without copying scores.
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
        # A resample without spread, up to rounding, has no standard error; its deviation counts as infinite.
        far = np.where(np.abs(shift) > 1e-9 * errors, np.copysign(np.inf, shift), 0.0)
        spread = own > 1e-6 * errors
        yield np.where(spread, shift / np.where(spread, own, 1), far)


def _standard_error(deviations: np.ndarray, counts: np.ndarray) -> Any:
    """Returns the standard error of a ratio of sums, from the deviations of the sums, along the last axis."""
    n = counts.shape[-1]
    return np.sqrt((deviations**2).sum(axis=-1) * n / (n - 1)) / counts.sum(axis=-1)
