"""The rule about published numbers: by hand, by properties, and by simulation of seeds and queries together.

The simulations draw a test set of 750 identities and several trainings. Identities differ in difficulty, which all
trainings share. Each training adds noise per identity and noise to all identities. One training is the published one.
docs/claims.md shows the figures.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.claims.rule import RULE, judge
from harness.system.paths import REPOSITORY

ORDER = {"below": -1, "reproduced": 0, "not comparable": 0, "above": 1}
IDENTITIES, DIFFICULTY, OWN = 750, 25.0, 5.0
QUERY_ERROR = math.hypot(DIFFICULTY, OWN) / math.sqrt(IDENTITIES)
"""Standard error over identities, 0.93 points: identities differ, and each training adds noise to each of them."""

SEED_SPREAD = 0.3
"""Standard deviation over seeds, in points."""


def scores(
    generator: np.random.Generator, repetitions: int, runs: int, *, spread: float = SEED_SPREAD, shared: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """mAP [repetitions, runs], and the standard error over identities of the first run [repetitions].

    Args:
        generator: source of random numbers.
        repetitions: number of test sets.
        runs: number of trainings.
        spread: standard deviation over seeds; what noise per identity does not explain is common to all identities.
        shared: whether the last run is scored on the same identities as the others.
    """
    common = math.sqrt(spread**2 - OWN**2 / IDENTITIES)
    hard = 60 + DIFFICULTY * generator.standard_normal((repetitions, 2, IDENTITIES), dtype=np.float32)
    values = hard[:, [0] * (runs - 1) + [0 if shared else 1]]
    values += OWN * generator.standard_normal(values.shape, dtype=np.float32)
    values += common * generator.standard_normal((repetitions, runs, 1), dtype=np.float32)
    return values.mean(axis=2, dtype=np.float64), values[:, 0].std(axis=1, ddof=1) / math.sqrt(IDENTITIES)


def rates(seeds: int, repetitions: int, *, shift: float = 0.0, best_of: int = 1, **how: Any) -> dict[str, float]:
    """Share of each verdict.

    Args:
        seeds: number of our runs.
        repetitions: number of experiments.
        shift: true difference, ours minus published, in points.
        best_of: the published number is the best of so many runs.
        **how: see `scores`.
    """
    found = dict.fromkeys(ORDER, 0)
    generator = np.random.default_rng(seeds)
    for _ in range(repetitions // 500):
        values, errors = scores(generator, 500, seeds + best_of, **how)
        for row, error in zip(values, errors, strict=True):
            ours = (row[:seeds] + shift).tolist()
            interval = (ours[0] - 1.96 * error, ours[0] + 1.96 * error)
            found[judge(round(float(row[seeds:].max()), 1), ours, interval).verdict] += 1
    return {verdict: number / repetitions for verdict, number in found.items()}


def false(seeds: int, repetitions: int = 1000, **how: Any) -> float:
    shares = rates(seeds, repetitions, **how)
    return shares["below"] + shares["above"]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_published_number_from_the_same_distribution_is_rarely_called_below_or_above(seeds: int) -> None:
    assert false(seeds) <= 0.065  # 5 %, and two standard errors of the simulation


def test_one_seed_keeps_the_level_while_seeds_spread_less_than_identities() -> None:
    assert false(1, spread=QUERY_ERROR / 2) <= 0.01
    assert false(1, spread=QUERY_ERROR) <= 0.065
    assert false(1, spread=2 * QUERY_ERROR) >= 0.15  # the caution of the verdict is needed


def test_a_real_difference_is_found() -> None:
    """Five seeds find 1.5 points, five times their spread, in nine of ten cases; three seeds in six of ten."""
    assert rates(5, 500, shift=-1.5)["below"] >= 0.85
    assert rates(5, 500, shift=1.5)["above"] >= 0.85
    assert 0.5 <= rates(3, 500, shift=-1.5)["below"] <= 0.7


def test_a_published_best_run_makes_below_more_likely() -> None:
    assert rates(5, 1000, best_of=5)["below"] > 2 * rates(5, 1000)["below"]


def test_other_test_images_break_the_rule() -> None:
    """So the spread of queries may only be left out where both numbers are about the same images."""
    assert false(5, 500, shared=False) > 0.3


@pytest.mark.parametrize(
    ("published", "ours", "verdict"),
    [
        # mean 89, s 0.1, t(2) = 4.303: 0.4968 to a side, and 0.05 for the last digit
        (89.5, [88.9, 89.0, 89.1], "reproduced"),
        (89.6, [88.9, 89.0, 89.1], "below"),
        (88.4, [88.9, 89.0, 89.1], "above"),
        (89.54, [88.9, 89.0, 89.1], "below"),  # two digits are printed, so rounding explains 0.005 only
        (89.0, [88.0, 89.0, 90.0], "not comparable"),  # 4.97 to a side
        (95.0, [88.0, 89.0, 90.0], "below"),  # a wide interval can still exclude
        (89.0, [89.0, 89.0], "reproduced"),
        (89.04, [89.04, 89.04], "reproduced"),
        (89.1, [89.0, 89.0], "below"),
    ],
)
def test_several_seeds_by_hand(published: float, ours: list[float], verdict: str) -> None:
    assert judge(published, ours).verdict == verdict


@pytest.mark.parametrize(
    ("published", "verdict", "reason"),
    [
        # sqrt(2) * 1 to a side, and 0.05 for the last digit
        (90.4, "reproduced", "one seed says little: less than 1.4 points would not show"),
        (90.5, "below", "one seed says little: it is assumed that seeds spread by at most 0.5 points"),
        (87.5, "above", "one seed says little: it is assumed that seeds spread by at most 0.5 points"),
    ],
)
def test_one_seed_by_hand(published: float, verdict: str, reason: str) -> None:
    assert judge(published, [89.0], (88.0, 90.0))[:2] == (verdict, reason)


def test_one_seed_without_an_interval_decides_nothing() -> None:
    for interval in (None, (math.nan, math.nan)):
        assert judge(89.0, [89.0], interval)[:2] == ("not comparable", "one seed, and no interval over identities")
    outcome = judge(89.0, [89.0], (86.0, 92.0))
    assert outcome[:2] == ("not comparable", "one seed is too few: the interval is ±4.2 points")


@pytest.mark.parametrize(
    ("published", "verdict"),
    [(89.1, "reproduced"), (89.2, "below"), (88.9, "reproduced"), (88.8, "above"), (88.89, "above")],
)
def test_a_checkpoint_is_the_same_training(published: float, verdict: str) -> None:
    assert judge(published, [89.0], (88.0, 90.0), checkpoint=True)[:2] == (verdict, "")


PERCENT = st.floats(1, 99)


@given(
    published=PERCENT.map(lambda value: round(value, 1)),
    ours=st.lists(PERCENT, min_size=1, max_size=6),
    reach=st.floats(0.01, 5),
    added=st.floats(0, 50),
    checkpoint=st.booleans(),
)
def test_a_higher_score_moves_a_verdict_only_up(
    published: float, ours: list[float], reach: float, added: float, checkpoint: bool
) -> None:
    def rank(more: float) -> int:
        interval = (ours[0] + more - reach, ours[0] + more + reach)
        return ORDER[judge(published, [value + more for value in ours], interval, checkpoint=checkpoint).verdict]

    assert rank(added) >= rank(0.0)


def test_the_page_has_the_rule_word_for_word() -> None:
    page = " ".join((REPOSITORY / "docs" / "claims.md").read_text(encoding="utf-8").split())
    for sentence in RULE:
        assert re.sub(r"(not comparable|reproduced|below, above):", r"**\1**:", sentence) in page
