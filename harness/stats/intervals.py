"""Intervals for one run: what another draw of persons would have given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from harness.stats.groups import Clusters, StatsError, cluster

RESAMPLES = 10_000
_CHUNK = 2**21


def bootstrap_interval(
    values: ArrayLike, groups: Any, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns an interval for the mean score by the bootstrap over identities.

    Identities are drawn with replacement, each with all its queries; the statistic is the ratio of the sum of scores
    to the number of queries. Ends are BCa quantiles (Efron 1987), which correct for bias and skew, at levels widened
    for few identities (Hesterberg 2015, "expanded percentile": normal quantiles become sqrt(n / (n - 1)) times
    Student's). Both stay within the range of the scores.

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
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    deviates = np.sqrt(n / (n - 1)) * stdtrit(n - 1, tails)
    means = np.concatenate(list(_resampled_means(clusters, resamples, seed)))
    low, high = np.quantile(means, _bca_levels(clusters, means, deviates))
    return float(low), float(high)


def _resampled_means(clusters: Clusters, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator, n = np.random.default_rng(seed), len(clusters.sums)
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        drawn = generator.integers(n, size=(min(size, resamples - start), n), dtype=np.int32)
        yield clusters.sums[drawn].sum(axis=1) / clusters.counts[drawn].sum(axis=1)


def _bca_levels(clusters: Clusters, means: np.ndarray, deviates: np.ndarray) -> np.ndarray:
    """Returns the levels of the quantiles that make the ends, from the bias and the skew of the statistic."""
    below = ((means < clusters.mean).mean() + (means <= clusters.mean).mean()) / 2
    bias = ndtri(np.clip(below, 1 / (len(means) + 1), len(means) / (len(means) + 1)))
    left_out = (clusters.sums.sum() - clusters.sums) / (clusters.counts.sum() - clusters.counts)
    influence = left_out.mean() - left_out
    spread = (influence**2).sum() ** 1.5
    skew = (influence**3).sum() / (6 * spread) if spread > 0 else 0.0
    shifted = bias + deviates
    scale = 1 - skew * shifted
    # Beyond the pole of the correction (few, very uneven identities) the end is the extreme resample.
    corrected = np.where(scale > 0, bias + shifted / np.where(scale > 0, scale, 1), np.sign(shifted) * np.inf)
    return ndtr(corrected)


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
