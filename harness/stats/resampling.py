"""Confidence intervals of statistics that are not means, by leaving out or drawing whole identities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.stats.groups import StatsError
from harness.stats.prediction import student_t


def percentile_interval(
    statistic: Callable[[np.ndarray], float],
    groups: Any,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile interval of a statistic by the bootstrap over identities.

    Args:
        statistic: takes indices of rows, some of them several times, and returns a number. NaN, for a resample in
            which the statistic is not defined, is left out.
        groups: identity of each row, [n].
        confidence: coverage of the interval.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Lower and upper end; NaN for a single identity.
    """
    members = _members(groups)
    if len(members) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(members), size=len(members)) for _ in range(resamples))
    values = [statistic(np.concatenate([members[i] for i in rows])) for rows in drawn]
    if all(map(math.isnan, values)):
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def jackknife_interval(
    statistic: Callable[[np.ndarray], float], groups: Any, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns an interval of a smooth statistic from its values with one identity left out (Tukey's jackknife).

    A bootstrap would shift a statistic such as mutual information, because it repeats rows.

    Args:
        statistic: takes indices of rows, each once, and returns a number.
        groups: identity of each row, [n].
        confidence: coverage of the interval.

    Returns:
        Lower and upper end; NaN for a single identity.
    """
    members = _members(groups)
    n = len(members)
    if n < 2:
        return math.nan, math.nan
    everything = np.arange(sum(map(len, members)))
    values = np.array([statistic(np.delete(everything, rows)) for rows in members])
    error = math.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum())
    value, reach = statistic(everything), student_t(n - 1, confidence) * error
    return value - reach, value + reach


def _members(groups: Any) -> list[np.ndarray]:
    """Rows of each identity.

    Raises:
        StatsError: there are no rows.
    """
    identities = np.asarray(groups)
    if identities.ndim != 1 or not len(identities):
        raise StatsError(f"The groups have shape {identities.shape}; pass one identity per row.")
    order = np.argsort(identities, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(identities[order])) + 1)
