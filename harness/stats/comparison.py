"""Comparing runs on the same queries: difference and interval first, the p-value last."""

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
    return _test_pairs([(values_a, values_b)], groups, confidence, resamples, seed)[0]


def _test_pairs(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], groups: Any, confidence: float, resamples: int, seed: int
) -> list[PairedTest]:
    """`paired_test` of pairs that share their queries, on the same resamples."""
    differences = []
    for values_a, values_b in pairs:
        (first, identities), (second, _) = as_scores(values_a, groups), as_scores(values_b, groups)
        if (np.isnan(first) != np.isnan(second)).any():
            raise StatsError("Some queries have a score in one run only; compare runs on the same queries and gallery.")
        differences.append(first - second)
    intervals = bootstrap_intervals(differences, identities, confidence=confidence, resamples=resamples, seed=seed)
    clusters = [cluster(difference, identities) for difference in differences]
    signs = _sign_flip_tests([each.sums for each in clusters], resamples, seed)
    return [
        PairedTest(each.mean, interval, p_value, int(each.counts.sum()), len(each.counts), exact)
        for each, interval, (exact, p_value) in zip(clusters, intervals, signs, strict=True)
    ]


def _sign_flip_tests(series: Sequence[np.ndarray], resamples: int, seed: int) -> list[tuple[bool, float]]:
    """Whether each test was exact, and p for each sum under independent changes of sign; [series], [identities]."""
    found: dict[int, tuple[bool, float]] = {}
    lengths = [int((sums != 0).sum()) for sums in series]
    for length in set(lengths):  # those of one length have the same changes of sign
        members = [i for i, other in enumerate(lengths) if other == length]
        # Sums added in another order differ in the last digits and must still count as equal.
        thresholds = [abs(series[i].sum()) - 1e-12 * np.abs(series[i]).sum() for i in members]
        sums = np.stack([series[i][series[i] != 0] for i in members], axis=1)
        exact, p_values = _flip(sums, np.array(thresholds), resamples, seed)
        found |= {i: (exact, float(p_value)) for i, p_value in zip(members, p_values, strict=True)}
    return [found[i] for i in range(len(series))]


def _flip(sums: np.ndarray, thresholds: np.ndarray, resamples: int, seed: int) -> tuple[bool, np.ndarray]:
    """Flips the rows of sums [identities, series]; returns whether all ways were counted, and p, [series]."""
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
    if not pairs:
        return []
    tests = _test_pairs([(scores[a], scores[b]) for a, b in pairs], groups, confidence, resamples, seed)
    adjusted = holm([test.p_value for test in tests])
    return [
        Comparison(first, second, test.difference, test.interval, test.p_value, float(p_holm))
        for (first, second), test, p_holm in zip(pairs, tests, adjusted, strict=True)
    ]
