"""Intervals and tests are correct in simulations with known truth, and agree with scipy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.stats import (
    StatsError,
    bootstrap_interval,
    compare_many,
    holm,
    paired_test,
)


def draw_scores(generator, n_identities, level=0.0):
    """Per-query scores of one run: persons differ in difficulty, so queries of one person are correlated."""
    queries = generator.integers(1, 7, size=n_identities)
    pids = np.repeat(np.arange(n_identities), queries)
    difficulty = generator.standard_normal(n_identities)[pids]
    noise = 0.6 * generator.standard_normal(len(pids))
    return 1 / (1 + np.exp(-(level + difficulty + noise))), pids


def coverage(n_identities, level, repetitions, by_identity=True):
    """Share of intervals that contain the mean of a million such persons."""
    truth = draw_scores(np.random.default_rng(0), 300_000, level)[0].mean()
    generator = np.random.default_rng(1)
    hits = 0
    for repetition in range(repetitions):
        scores, pids = draw_scores(generator, n_identities, level)
        groups = pids if by_identity else np.arange(len(scores))
        low, high = bootstrap_interval(scores, groups, resamples=499, seed=repetition)
        hits += low <= truth <= high
    return hits / repetitions


@pytest.mark.slow
@pytest.mark.parametrize(("n_identities", "level"), [(20, 0.0), (100, 0.0), (100, 2.0)])
def test_interval_covers_as_often_as_it_says(n_identities, level):
    assert 0.93 <= coverage(n_identities, level, repetitions=2000) <= 0.97


@pytest.mark.slow
def test_resampling_queries_instead_of_identities_does_not_cover():
    assert coverage(100, 0.0, repetitions=500, by_identity=False) < 0.85


def rejections(repetitions, n_identities, by_identity=True):
    """Share of tests at 5 % that reject although both runs have the same expectation for every person."""
    generator = np.random.default_rng(2)
    hits = 0
    for repetition in range(repetitions):
        scores, pids = draw_scores(generator, n_identities)
        luck = 0.1 * generator.standard_normal(n_identities)[pids]
        other = scores + luck + 0.05 * generator.standard_normal(len(pids))
        groups = pids if by_identity else np.arange(len(pids))
        hits += paired_test(scores, other, groups, resamples=199, seed=repetition).p_value <= 0.05
    return hits / repetitions


@pytest.mark.slow
@pytest.mark.parametrize("n_identities", [12, 60])
def test_level_of_the_test_is_kept(n_identities):
    assert 0.035 <= rejections(1500, n_identities) <= 0.06


def test_flipping_queries_rejects_too_often():
    assert rejections(300, 60, by_identity=False) > 0.15


def test_a_real_difference_is_found():
    generator = np.random.default_rng(3)
    scores, pids = draw_scores(generator, 200)
    worse = scores - 0.02 + 0.05 * generator.standard_normal(len(pids))
    result = paired_test(scores, worse, pids)
    assert result.difference == pytest.approx(0.02, abs=0.01)
    assert result.interval[0] > 0 and result.p_value < 0.001
    assert (result.n_groups, result.n_queries, result.exact) == (200, len(pids), False)


def differences(generator, n_identities):
    first, pids = draw_scores(generator, n_identities)
    second = np.clip(first + 0.05 + 0.1 * generator.standard_normal(len(pids)), 0, 1)
    return first, second, pids


def scipy_p_value(first, second, pids, **options):
    sums = [np.bincount(pids, weights=scores) for scores in (first, second)]
    return scipy.stats.permutation_test(
        sums, lambda a, b, axis: (a - b).sum(axis=axis), permutation_type="samples", vectorized=True, **options
    ).pvalue


@pytest.mark.parametrize("n_identities", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("seed", range(3))
def test_exact_p_value_is_scipys(n_identities, seed):
    first, second, pids = differences(np.random.default_rng(seed), n_identities)
    result = paired_test(first, second, pids)
    assert result.exact
    assert result.p_value == pytest.approx(scipy_p_value(first, second, pids, n_resamples=np.inf))


def test_drawn_p_value_is_near_the_exact_one():
    first, second, pids = differences(np.random.default_rng(5), 13)
    drawn = paired_test(first, second, pids, resamples=8000)
    assert not drawn.exact
    assert drawn.p_value == pytest.approx(scipy_p_value(first, second, pids, n_resamples=np.inf), abs=0.02)


def test_difference_of_nothing_is_not_significant():
    scores, pids = draw_scores(np.random.default_rng(0), 30)
    result = paired_test(scores, scores, pids)
    assert (result.difference, result.interval, result.p_value) == (0, (0, 0), 1)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, 24, elements=st.floats(0, 1)), arrays(np.float64, 24, elements=st.floats(0, 1)))
def test_swapping_the_runs_turns_the_difference(first, second):
    pids = np.arange(24) // 3
    one, other = paired_test(first, second, pids), paired_test(second, first, pids)
    assert one.difference == pytest.approx(-other.difference, abs=1e-12)
    assert one.p_value == other.p_value


def test_interval_by_hand():
    """Two persons: resamples give 0, 1/2 or 1, and 95 % of a quarter, a half, a quarter reach from end to end."""
    assert bootstrap_interval([0.0, 1.0], [1, 2]) == (0.0, 1.0)
    assert bootstrap_interval([0.5, 0.5, 0.5], [1, 2, 2]) == (0.5, 0.5)


def test_interval_is_around_the_mean_over_queries():
    scores = np.concatenate([np.ones(900), np.zeros(100)])
    pids = np.concatenate([np.arange(900) // 9, 100 + np.arange(100)])
    low, high = bootstrap_interval(scores, pids)
    assert low < 0.9 < high and low > 0.8


def test_one_failure_among_perfect_persons_keeps_interval_finite():
    scores = np.ones(30)
    scores[4] = 0.2
    low, high = bootstrap_interval(scores, np.arange(30))
    assert 0.2 <= low < scores.mean() < high <= 1


@pytest.mark.parametrize(("hits", "most"), [(1, 0.0080), (2, 0.0103), (5, 0.0166)])
def test_few_hits_among_many_persons_give_a_narrow_interval(hits, most):
    """The upper ends are those of Clopper and Pearson for so many of 700."""
    low, high = bootstrap_interval([1.0] * hits + [0.0] * (700 - hits), range(700))
    assert 0 <= low < hits / 700 < high <= most
    low, high = bootstrap_interval([0.0] * hits + [1.0] * (700 - hits), range(700))
    assert 1 - most <= low < 1 - hits / 700 < high <= 1


def test_one_person_gives_no_interval():
    assert np.isnan(bootstrap_interval([0.1, 0.9], [4, 4])).all()


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, 20, elements=st.floats(0, 1)), st.integers(2, 20))
def test_interval_lies_within_the_scores(scores, n_identities):
    low, high = bootstrap_interval(scores, np.arange(20) % n_identities, resamples=200)
    assert scores.min() - 1e-12 <= low <= high <= scores.max() + 1e-12


def test_higher_confidence_is_wider_and_seeds_repeat():
    scores, pids = draw_scores(np.random.default_rng(0), 60)
    narrow, wide = (bootstrap_interval(scores, pids, confidence=confidence) for confidence in (0.8, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval(scores, pids, confidence=0.8) == narrow
    assert bootstrap_interval(scores, pids, confidence=0.8, seed=1) != narrow


def test_queries_without_a_match_are_left_out():
    scores, pids = draw_scores(np.random.default_rng(0), 40)
    with_gap, more = np.append(scores, np.nan), np.append(pids, 999)
    assert bootstrap_interval(with_gap, more) == bootstrap_interval(scores, pids)
    assert paired_test(with_gap, with_gap * 0.9, more) == paired_test(scores, scores * 0.9, pids)


def test_names_of_identities_do_not_matter():
    scores, pids = draw_scores(np.random.default_rng(0), 40)
    assert bootstrap_interval(scores, [f"{pid:03d}" for pid in pids]) == bootstrap_interval(scores, pids)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.3]).tolist() == [0.3]
    assert holm([]).tolist() == []


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_lies_between_none_and_bonferroni(p_values):
    adjusted = holm(p_values)
    assert (adjusted >= p_values).all() and (adjusted <= np.minimum(1, p_values * len(p_values)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


def test_comparing_many_is_comparing_pairs():
    generator = np.random.default_rng(0)
    scores, pids = draw_scores(generator, 50)
    runs = {name: np.clip(scores + 0.05 * generator.standard_normal(len(pids)) + shift, 0, 1) for name, shift in
            [("a", 0.0), ("b", 0.01), ("c", 0.1)]}  # fmt: skip
    table = compare_many(runs, pids, resamples=999)
    assert [(row.first, row.second) for row in table] == [("a", "b"), ("a", "c"), ("b", "c")]
    for row in table:
        test = paired_test(runs[row.first], runs[row.second], pids, resamples=999)
        assert (row.difference, row.interval, row.p_value) == (test.difference, test.interval, test.p_value)
    assert [row.p_holm for row in table] == holm([row.p_value for row in table]).tolist()
    assert compare_many({"a": scores}, pids) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([0.1, 0.2], [1]), "one identity per score"),
        (lambda: bootstrap_interval([np.nan], [1]), "None of the 1 queries"),
        (lambda: bootstrap_interval([0.1, 0.2], [1, 2], confidence=95), "found 95 and 10000"),
        (lambda: paired_test([0.1, np.nan], [0.1, 0.2], [1, 2]), "in one run only"),
        (lambda: paired_test([0.1, 0.3], [0.1], [1, 2]), "one identity per score"),
        (lambda: holm([0.1, 1.2]), "from 0 to 1"),
    ],
)
def test_what_cannot_be_inferred_is_said(call, message):
    with pytest.raises(StatsError, match=message):
        call()


def test_statistics_need_no_torch():
    import subprocess

    code = "import sys, harness.stats, harness.metrics; assert not {'torch', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
