"""Comparisons of runs on the same queries: differences with intervals and p-values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.groups import StatsError, as_scores, cluster
from harness.stats.intervals import RESAMPLES, bootstrap_intervals

_CHUNK = 2**22


@dataclass(frozen=True)
class PairedTest:
    """Difference of two runs on the same queries.

    Attributes:
        difference: mean score of the first run minus that of the second.
        interval: interval of the difference, by `bootstrap_interval`.
        p_value: two-sided p-value of the randomisation test with identities as blocks.
        n_queries: number of queries with a score.
        n_groups: number of their identities.
        exact: whether all sign assignments were enumerated; otherwise they were sampled.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    n_queries: int
    n_groups: int
    exact: bool


@dataclass(frozen=True)
class Comparison:
    """The comparison of one pair of several runs; `p_holm` is the p-value adjusted for all pairs."""

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

    Under the null hypothesis the runs are exchangeable: swapping the scores of all queries of a person is equally
    likely. The statistic is the sum of differences; each assignment flips the sign of the sum of some identities. Let n
    be the number of identities whose sum is not zero. All 2^n assignments are enumerated if they are at most
    `resamples`. Otherwise `resamples` are sampled, and p = (1 + number at least as extreme) / (1 + number sampled).

    Args:
        values_a: score of each query in the first run, NaN for none, [n].
        values_b: score of the same queries in the second run, [n].
        groups: identity of each query, [n].
        confidence: coverage of the interval.
        resamples: number of sign assignments and of bootstrap samples.
        seed: seed of both.

    Raises:
        StatsError: the runs have scores for different queries, or no query has a score.
    """
    return _test_pairs([(values_a, values_b)], groups, confidence, resamples, seed)[0]


def _test_pairs(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], groups: Any, confidence: float, resamples: int, seed: int
) -> list[PairedTest]:
    """Runs `paired_test` for several pairs with the same queries, on the same resamples."""
    differences = []
    for values_a, values_b in pairs:
        (first, identities), (second, _) = as_scores(values_a, groups), as_scores(values_b, groups)
        if (np.isnan(first) != np.isnan(second)).any():
            raise StatsError("Some queries have a score in one run only. Compare runs on the same queries and gallery.")
        differences.append(first - second)
    intervals = bootstrap_intervals(differences, identities, confidence=confidence, resamples=resamples, seed=seed)
    clusters = [cluster(difference, identities) for difference in differences]
    signs = _sign_flip_tests([each.sums for each in clusters], resamples, seed)
    return [
        PairedTest(each.mean, interval, p_value, int(each.counts.sum()), len(each.counts), exact)
        for each, interval, (exact, p_value) in zip(clusters, intervals, signs, strict=True)
    ]


def _sign_flip_tests(series: Sequence[np.ndarray], resamples: int, seed: int) -> list[tuple[bool, float]]:
    """Runs the sign-flip test for each series of sums [n_identities]; returns whether it was exact, and its p-value."""
    found: dict[int, tuple[bool, float]] = {}
    lengths = [int((sums != 0).sum()) for sums in series]
    for length in set(lengths):  # series of equal length share their sign flips
        members = [i for i, other in enumerate(lengths) if other == length]
        # Sums in another order differ in the last digits, but must count as equal.
        thresholds = [abs(series[i].sum()) - 1e-12 * np.abs(series[i]).sum() for i in members]
        sums = np.stack([series[i][series[i] != 0] for i in members], axis=1)
        exact, p_values = _flip(sums, np.array(thresholds), resamples, seed)
        found |= {i: (exact, float(p_value)) for i, p_value in zip(members, p_values, strict=True)}
    return [found[i] for i in range(len(series))]


def _flip(sums: np.ndarray, thresholds: np.ndarray, resamples: int, seed: int) -> tuple[bool, np.ndarray]:
    """Flips the signs of rows of sums [n_identities, n_series]; returns whether it was exact, and p [n_series]."""
    exact = len(sums) < resamples.bit_length()  # 2^n <= resamples
    total = 2 ** len(sums) if exact else resamples
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(1, len(sums)))
    extreme = np.zeros(len(thresholds), dtype=np.int64)
    for start in range(0, total, size):
        rows = np.arange(start, min(start + size, total))
        if exact:
            flips = rows[:, None] >> np.arange(len(sums)) & 1
        else:
            flips = generator.integers(2, size=(len(rows), len(sums)), dtype=np.int8)
        extreme += (np.abs(sums.sum(axis=0) - 2 * (flips.astype(np.float64) @ sums)) >= thresholds).sum(axis=0)
    return exact, extreme / total if exact else (1 + extreme) / (1 + total)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Returns p-values adjusted by Holm's step-down method, in the given order, [n].

    If adjusted values below alpha are called significant, the probability of any false positive is at most alpha
    (Holm 1979).

    Raises:
        StatsError: the values are not a list of numbers from 0 to 1.
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
        scores: per-query scores [n] by name of the run, all in the same order of queries.
        groups: identity of each query, [n].
        confidence: coverage of each single interval.
        resamples: as for `paired_test`.
        seed: as for `paired_test`.

    Returns:
        The pairs in the order of `scores`: first against second, first against third, ...
    """
    pairs = list(itertools.combinations(scores, 2))
    if not pairs:
        return []
    tests = _test_pairs([(scores[a], scores[b]) for a, b in pairs], groups, confidence, resamples, seed)
    adjusted = holm([test.p_value for test in tests])
    return [
        Comparison(first, second, test.difference, test.interval, test.p_value, float(p_holm))
        for (first, second), test, p_holm in zip(pairs, tests, adjusted, strict=True)
    ]
