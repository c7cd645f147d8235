"""Comparing runs on the same queries: difference and interval first, the p-value last."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.groups import StatsError, as_scores, cluster
from harness.stats.intervals import RESAMPLES, bootstrap_interval

_CHUNK = 2**22


@dataclass(frozen=True)
class PairedTest:
    """Difference of two runs on the same queries.

    Attributes:
        difference: mean score of the first minus that of the second.
        interval: for the difference, by `bootstrap_interval`.
        p_value: two-sided, of the randomisation test with identities as blocks.
        n_queries: queries with a score.
        n_groups: their identities.
        exact: whether all sign assignments were counted rather than drawn.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    n_queries: int
    n_groups: int
    exact: bool


@dataclass(frozen=True)
class Comparison:
    """One pair of a table of runs; `p_holm` is the p-value adjusted for the whole table."""

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float


def paired_test(
    values_a: ArrayLike,
    values_b: ArrayLike,
    groups: Any,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Tests whether two runs differ, by the paired randomisation test on per-query scores.

    If the runs were exchangeable, swapping their scores for all queries of a person would be as likely as not. The
    statistic is the sum of differences; under each assignment the sum of every identity changes sign or not. All
    2^n assignments are counted where they are no more than `resamples`, n being the identities whose sum is not zero;
    otherwise `resamples` are drawn and p = (1 + at least as extreme) / (1 + drawn).

    Args:
        values_a: score of each query in the first run, NaN where it has none, [n].
        values_b: the same queries in the second run.
        groups: identity of each query, [n].
        confidence: coverage of the interval.
        resamples: sign assignments and bootstrap samples.
        seed: of both.

    Raises:
        StatsError: not the same queries, or nothing to infer from.
    """
    first, identities = as_scores(values_a, groups)
    second, _ = as_scores(values_b, groups)
    if (np.isnan(first) != np.isnan(second)).any():
        raise StatsError("Some queries have a score in one run only; compare runs on the same queries and gallery.")
    interval = bootstrap_interval(first - second, identities, confidence=confidence, resamples=resamples, seed=seed)
    clusters = cluster(first - second, identities)
    exact, p_value = _sign_flip_test(clusters.sums, resamples, seed)
    return PairedTest(clusters.mean, interval, p_value, int(clusters.counts.sum()), len(clusters.counts), exact)


def _sign_flip_test(sums: np.ndarray, resamples: int, seed: int) -> tuple[bool, float]:
    """Returns whether the test was exact, and p for the sum of `sums` under independent changes of sign."""
    # Sums added in another order differ in the last digits and must still count as equal.
    threshold = abs(sums.sum()) - 1e-12 * np.abs(sums).sum()
    sums = sums[sums != 0]
    exact = len(sums) < resamples.bit_length()  # 2^n <= resamples
    total = 2 ** len(sums) if exact else resamples
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(1, len(sums)))
    extreme = 0
    for start in range(0, total, size):
        rows = np.arange(start, min(start + size, total))
        if exact:
            flips = rows[:, None] >> np.arange(len(sums)) & 1
        else:
            flips = generator.integers(2, size=(len(rows), len(sums)), dtype=np.int8)
        extreme += int((np.abs(sums.sum() - 2 * (flips @ sums)) >= threshold).sum())
    return exact, extreme / total if exact else (1 + extreme) / (1 + total)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Returns p-values adjusted by Holm's step-down method, in the given order, [n].

    Calling those below alpha significant keeps the chance of any false one at alpha (Holm 1979).
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise StatsError("p-values must be a list of numbers from 0 to 1.")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted


def compare_many(
    scores: Mapping[str, ArrayLike],
    groups: Any,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Compares every pair of runs on the same queries, with Holm's correction over all pairs.

    Args:
        scores: per-query scores of each run by its name, all in the same order of queries.
        groups: identity of each query, [n].
        confidence: coverage of the intervals, each on its own.
        resamples: as for `paired_test`.
        seed: as for `paired_test`.

    Returns:
        The pairs in the order of `scores`: first against second, first against third, ...
    """
    pairs = list(itertools.combinations(scores, 2))
    tests = [
        paired_test(scores[first], scores[second], groups, confidence=confidence, resamples=resamples, seed=seed)
        for first, second in pairs
    ]
    adjusted = holm([test.p_value for test in tests])
    return [
        Comparison(first, second, test.difference, test.interval, test.p_value, float(p_holm))
        for (first, second), test, p_holm in zip(pairs, tests, adjusted, strict=True)
    ]
