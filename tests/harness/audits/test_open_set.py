"""TPIR at FPIR: by hand, and laws that hold for any features."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audits.checks import open_set
from harness.audits.checks.open_set import Searches, searches
from tests.harness.audits.subjects import crowd, subject, values

BY_HAND = Searches(
    score=np.array([0.9, 0.8, 0.6, 0.4, 0.7, 0.5]),
    hit=np.array([True, True, False, True, False, False]),
    mated=np.array([True, True, True, True, False, False]),
    pids=np.array([1, 2, 3, 4, 5, 6]),
)


@pytest.mark.parametrize(
    ("rate", "threshold", "found"),
    [
        (0.0, 0.7, 2 / 4),  # 0.9 and 0.8 are above the highest score of a person who is not there
        (0.49, 0.7, 2 / 4),
        (0.5, 0.5, 2 / 4),  # 0.6 is above, but somebody else
        (1.0, -math.inf, 3 / 4),
    ],
)
def test_by_hand(rate: float, threshold: float, found: float) -> None:
    assert BY_HAND.threshold(rate) == threshold
    assert BY_HAND.true_positives(rate, np.arange(6)) == found


def test_searches_by_hand() -> None:
    made = subject(
        [(1, 0, 0.0), (2, 0, 40.0), (3, 0, 90.0), (4, 0, 60.0)],
        [(1, 1, 10.0), (1, 0, 1.0), (2, 1, 80.0), (2, 1, 41.0), (3, 1, 91.0), (5, 2, 20.0)],
    )
    found = searches(made, np.array([3]))
    assert found.pids.tolist() == [1, 2, 3]  # nobody has left out 4, who has no match
    assert found.mated.tolist() == [True, True, False]
    assert found.hit.tolist() == [True, True, False]
    degrees = np.rad2deg(np.arccos(found.score))
    assert degrees == pytest.approx([10, 1, 10], abs=1e-3)  # 1: same camera ignored; 3: 80 degrees is nearest


@given(st.integers(0, 1000), st.floats(0.3, 3.0))
def test_laws(seed: int, noise: float) -> None:
    """TPIR grows with FPIR, never above the share at FPIR 1, which is rank-1 of the queries in the smaller gallery."""
    made = crowd(people=10, images=4, noise=noise, seed=seed)
    unknown = np.arange(5)
    found = searches(made, unknown)
    everything = np.arange(len(found.score))
    rates = [found.true_positives(rate, everything) for rate in (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)]
    assert rates == sorted(rates)
    kept = np.flatnonzero(made.pids[1] >= 5)
    asked = np.flatnonzero(made.pids[0] >= 5)
    query, gallery = made.features
    smaller = made.rank(query[asked], gallery[kept], queries=asked, images=kept)
    assert rates[-1] == pytest.approx(smaller.rank(1))
    for rate in (0.01, 0.1, 0.5):
        others = found.score[~found.mated]
        assert (others > found.threshold(rate)).mean() <= rate


def test_rows_and_thresholds_of_another_dataset() -> None:
    made = crowd(noise=1.2)
    found = list(open_set.run(made))
    rates = [row for row in found if not isinstance(row, str) and row.name == "TPIR"]
    assert [row.setting["FPIR"] for row in rates] == list(open_set.RATES)
    for row in rates:
        assert row.interval and row.interval[0] <= row.value <= row.interval[1] and row.queries == 36
    rows = [row.to_dict() for row in found if not isinstance(row, str)]
    other = crowd(noise=1.2, seed=5)
    other.dataset, other.earlier = "others", [{"check": "open-set", "dataset": "people", "rows": rows}]
    transferred = values(open_set.run(other))
    key = "threshold of=people FPIR there=0.1"
    assert 0 <= transferred["FPIR at a threshold of another dataset", key] <= 1
    same = values(open_set.run(crowd(noise=1.2)))
    made.dataset, made.earlier = "copy", other.earlier
    again = values(open_set.run(made))
    assert again["TPIR at a threshold of another dataset", key] == same["TPIR", "FPIR=0.1"]
    assert again["FPIR at a threshold of another dataset", key] <= 0.1
