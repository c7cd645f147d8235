"""Intervals for one more run, and for a difference over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from harness.stats import StatsError, another_run, another_run_of_one, difference_of_means


def test_the_interval_is_students_by_hand():
    low, high = another_run([88.0, 89.0, 90.0])  # mean 89, s 1, t(2) = 4.303, and sqrt(4 / 3)
    assert (low, high) == pytest.approx((89 - 4.9685, 89 + 4.9685), abs=1e-3)


def test_equal_runs_have_no_width():
    assert another_run([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_one_run_has_no_spread():
    with pytest.raises(StatsError, match="at least two runs, found 1"):
        another_run([0.5])
    with pytest.raises(StatsError, match="at least two runs of each"):
        difference_of_means([0.5], [0.4, 0.5])


def test_one_run_takes_the_interval_over_identities():
    low, high = another_run_of_one(80.0, (78.0, 81.0))
    assert (low, high) == pytest.approx((80 - 2 * math.sqrt(2), 80 + math.sqrt(2)))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_more_run_lies_inside_as_often_as_stated(n):
    draws = np.random.default_rng(n).normal(size=(4000, n + 1))
    inside = [low <= further <= high for *runs, further in draws for low, high in (another_run(runs),)]
    assert 0.94 <= np.mean(inside) <= 0.96


def test_the_difference_over_seeds_is_welchs():
    first, second = [0.81, 0.82, 0.80, 0.815], [0.79, 0.80]
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert difference_of_means(first, second) == pytest.approx((expected.low, expected.high))
    assert difference_of_means([0.5, 0.5], [0.4, 0.4]) == pytest.approx((0.1, 0.1))
