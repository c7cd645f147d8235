"""Expected best value of n trials of a random search, from the trials at hand.

Dodge, Gururangan, Card, Schwartz and Smith (Show Your Work, EMNLP 2019) compute the expected maximum of n draws with
replacement from the N values. This is biased downwards: a draw may repeat a value. Tang, Lee, Xin, Liu, Yu and Lin
(Showing Your Work Doesn't Always Work, ACL 2020) give the unbiased estimator used here: the mean maximum over all
subsets of n values. It needs independent trials, which a random search gives, and n of at most N.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.groups import StatsError


def expected_best(values: ArrayLike) -> np.ndarray:
    """Returns the expected maximum of n = 1 ... N values, [N], without bias.

    With values v_1 <= ... <= v_N, it is the sum of v_i C(i - 1, n - 1) / C(N, n): v_i is the maximum of that share of
    the subsets.

    Raises:
        StatsError: there are no values.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered):
        raise StatsError("The expected best of no trials is not defined.")
    return ordered @ _shares(len(ordered))


def expected_best_of_studies(
    studies: Sequence[Sequence[float]], *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over studies of `expected_best`, and its interval.

    Studies hold out different people, so values of different studies are not pooled. The interval is a jackknife over
    the trials of each study. A percentile bootstrap would be far too narrow: its samples repeat values.

    Args:
        studies: values of the trials of each study.
        confidence: nominal coverage of the interval at each n.

    Returns:
        Curve, lower and upper bound, each [n], for n up to the size of the smallest study. There is no interval (NaN)
        for n of the smallest study, because leaving out a trial leaves too few.

    Raises:
        StatsError: a study has no values.
    """
    from scipy.stats import t

    length = min(map(len, studies), default=0)
    if not length:
        raise StatsError("The expected best of no trials is not defined.")
    curve = np.mean([expected_best(values)[:length] for values in studies], axis=0)
    variance = sum(_jackknife_variance(np.asarray(values, dtype=np.float64), length) for values in studies)
    freedom = sum(len(values) - 1 for values in studies)
    reach = t.ppf((1 + confidence) / 2, max(1, freedom)) * np.sqrt(variance) / len(studies)
    return curve, curve - reach, curve + reach


def _jackknife_variance(values: np.ndarray, length: int) -> np.ndarray:
    """Variance of `expected_best` for n up to `length`, [n]; NaN where leaving out a value leaves fewer than n."""
    count, found = len(values), np.full(length, np.nan)
    if count > 1:
        without = np.stack([expected_best(np.delete(values, i)) for i in range(count)])[:, :length]
        found[: without.shape[1]] = (count - 1) * without.var(axis=0)
    return found


def _shares(count: int) -> np.ndarray:
    """Share of subsets of n of `count` values whose maximum is the i-th smallest, [i, n]."""
    shares = np.zeros((count, count))
    for n in range(1, count + 1):
        share = n / count  # of the largest value; the next ones follow by ratios of binomial coefficients
        for i in range(count, n - 1, -1):
            shares[i - 1, n - 1] = share
            share *= (i - n) / (i - 1) if i > 1 else 0.0
    return shares
