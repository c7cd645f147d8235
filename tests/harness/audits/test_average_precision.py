"""Both average precisions, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness import metrics
from harness.audits.checks import average_precision
from harness.metrics.ranking import Ranking
from tests.harness.audits.subjects import crowd, subject, values


def of_layout(matches: list[bool]) -> Ranking:
    """The ranking of one query whose gallery is sorted, with matches at these places."""
    pids = np.where(matches, 1, 2)
    distances = np.arange(len(matches), dtype=float)[None]
    return metrics.evaluate_distances(distances, [1], pids, [0], np.ones(len(matches), dtype=int))


@pytest.mark.parametrize(
    ("matches", "mean", "trapezoid"),
    [
        ([True, False], 1.0, 1.0),
        ([False, True], 1 / 2, (0 + 1 / 2) / 2),  # before the match the precision is 0 of 1
        ([True, False, True], (1 + 2 / 3) / 2, ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        ([False, False, True, True], (1 / 3 + 2 / 4) / 2, ((0 + 1 / 3) / 2 + (1 / 3 + 2 / 4) / 2) / 2),
    ],
)
def test_by_hand(matches: list[bool], mean: float, trapezoid: float) -> None:
    ranking = of_layout(matches)
    assert ranking.average_precision[0] == pytest.approx(mean)
    assert metrics.trapezoid_average_precision(ranking)[0] == pytest.approx(trapezoid)
    assert ranking.match_ranks.tolist() == (np.flatnonzero(matches) + 1).tolist()
    assert ranking.match_images.tolist() == np.flatnonzero(matches).tolist()


def test_ranks_of_matches_give_the_average_precision_again() -> None:
    made = crowd(noise=1.5)
    ranking = made.ranking
    edges = np.cumsum(ranking.n_positives)[:-1]
    for ranks, images, score, first, item in zip(
        np.split(ranking.match_ranks, edges),
        np.split(ranking.match_images, edges),
        ranking.average_precision,
        ranking.first_match_rank,
        made.query,
        strict=True,
    ):
        assert np.mean(np.arange(1, len(ranks) + 1) / ranks) == pytest.approx(score)
        assert ranks[0] == first and (np.diff(ranks) > 0).all()
        assert {made.gallery[image].pid for image in images} == {item.pid}
        assert item.camid not in {made.gallery[image].camid for image in images}


def test_queries_without_a_match_count_for_neither() -> None:
    made = subject([(1, 0, 0.0), (9, 0, 0.0)], [(2, 1, 5.0), (1, 1, 10.0)])
    assert np.isnan(metrics.trapezoid_average_precision(made.ranking)).tolist() == [False, True]
    found = values(average_precision.run(made))
    assert found["mAP", "AP=mean of precisions"] == pytest.approx(1 / 2)
    assert found["mAP", "AP=trapezoid"] == pytest.approx(1 / 4)
    assert found["mAP", "AP=trapezoid minus mean of precisions"] == pytest.approx(-1 / 4)
