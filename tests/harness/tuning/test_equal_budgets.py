"""What equal budgets and early stopping do, on responses and curves that are known: the numbers of docs/tuning.md."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from benchmarks import early_stopping, equal_budgets
from harness import stats

FRACTIONS = st.lists(st.floats(0, 1), min_size=1, max_size=7)


def test_equally_good_backbones_are_told_apart_by_a_shared_recipe_and_not_by_equal_budgets() -> None:
    shared, tuned = equal_budgets.judged_different(studies=3, trials=20, comparisons=2000)
    assert shared > 0.5, "the shared recipe suits the first one"
    assert tuned <= 0.06, "at the 5 % level"


def test_late_stopping_chooses_slow_starters_nearly_as_often_as_no_stopping() -> None:
    found = {name.partition(":")[0]: early_stopping.measure(rule, 200) for name, rule in early_stopping.RULES.items()}
    assert found["none"].lost == 0 and found["none"].epochs == 1
    assert found["early"].slow < found["late"].slow < found["none"].slow + 0.05
    assert found["late"].lost < 0.3 < 1.0 < found["early"].lost, "points of mAP"
    assert found["late"].epochs < 0.9


@given(FRACTIONS)
def test_the_expected_best_is_the_mean_over_all_subsets(values: list[float]) -> None:
    expected = [np.mean([max(s) for s in itertools.combinations(values, n)]) for n in range(1, len(values) + 1)]
    assert stats.expected_best(values) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_the_expected_best_holds_what_it_says() -> None:
    generator = np.random.default_rng(0)
    many = 0.8 - 0.5 * generator.beta(1, 3, size=(100_000, 10))
    truth = np.maximum.accumulate(many, axis=1).mean(axis=0)
    hits = []
    for _ in range(300):
        drawn = 0.8 - 0.5 * generator.beta(1, 3, size=(3, 20))
        _, low, high = stats.expected_best_of_studies(drawn.tolist())
        hits.append((low[:10] <= truth) & (truth <= high[:10]))
    assert (np.mean(hits, axis=0) > 0.9).all(), "nominally 95 %, up to half of the trials"


def test_the_test_over_studies_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(2).normal(0.8, 0.02, (2, 4))
    found, expected = stats.compare_studies(first, second), ttest_rel(first, second)
    assert (found.p_value, *found.interval) == pytest.approx((expected.pvalue, *expected.confidence_interval()))


def test_the_test_over_studies_holds_its_level_and_needs_two_studies() -> None:
    generator = np.random.default_rng(1)
    p = [stats.compare_studies(*generator.normal(0.8, 0.01, (2, 3))).p_value for _ in range(2000)]
    assert 0.035 < np.mean(np.array(p) < 0.05) < 0.065
    found = stats.compare_studies([0.8, 0.81, 0.82], [0.7, 0.71, 0.72])
    assert found.difference == pytest.approx(0.1) and found.interval == pytest.approx((0.1, 0.1))
    with pytest.raises(stats.StatsError):
        stats.compare_studies([0.8], [0.7])
