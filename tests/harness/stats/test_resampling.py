"""Intervals of statistics that are not means: coverage of known truth, and agreement with known formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.stats import StatsError, jackknife_interval, percentile_interval
from harness.stats.prediction import student_t


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    low, high = jackknife_interval(lambda rows: float(scores[rows].mean()), np.arange(40))
    reach = student_t(39) * scores.std(ddof=1) / math.sqrt(40)
    assert (low, high) == pytest.approx((scores.mean() - reach, scores.mean() + reach))


def test_coverage_of_a_median_over_identities() -> None:
    draw, hits = np.random.default_rng(0), 0
    for seed in range(100):
        pids = np.repeat(np.arange(60), 3)
        scores = draw.normal(size=60)[pids] + 0.3 * draw.normal(size=180)
        low, high = percentile_interval(
            lambda rows, s=scores: float(np.median(s[rows])), pids, resamples=200, seed=seed
        )
        hits += low <= 0 <= high
    assert 88 <= hits <= 100


def test_one_identity_has_no_interval_and_no_rows_are_an_error() -> None:
    for interval in (percentile_interval, jackknife_interval):
        assert all(map(math.isnan, interval(lambda rows: 0.0, [3, 3])))
        with pytest.raises(StatsError, match="one identity per row"):
            interval(lambda rows: 0.0, [])


def test_undefined_resamples_are_left_out() -> None:
    seen = iter([math.nan, 1.0] * 50)
    assert percentile_interval(lambda rows: next(seen), [1, 2], resamples=100) == (1.0, 1.0)
    assert all(map(math.isnan, percentile_interval(lambda rows: math.nan, [1, 2], resamples=3)))
