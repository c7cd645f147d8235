"""Re-ranking of one query at a time is re-ranking without the other queries."""

from __future__ import annotations

import numpy as np
import pytest

from harness import metrics
from harness.audits.checks import re_ranking
from harness.errors import FeatureError
from harness.metrics.reranking_alone import insert
from tests.harness.audits.subjects import crowd, values


def test_insert_by_hand() -> None:
    neighbours, reach = np.array([[5, 6, 7], [8, 9, 4]]), np.array([[-1.0, 1.0, 3.0], [-1.0, 2.0, 2.5]])
    assert insert(neighbours, reach, np.array([2.0, 9.0])).tolist() == [[5, 6, 0], [8, 9, 4]]
    assert insert(neighbours, reach, np.array([0.5, 2.2])).tolist() == [[5, 0, 6], [8, 9, 0]]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_each_query_is_ranked_as_if_it_were_the_only_one(metric: str) -> None:
    features = crowd(images=10).features
    query, gallery = np.asarray(features[0])[:9], np.asarray(features[1])
    alone = metrics.rerank_alone(query, gallery, metric=metric)
    one_by_one = [metrics.rerank(query[row : row + 1], gallery, metric=metric)[0] for row in range(len(query))]
    assert alone == pytest.approx(np.stack(one_by_one), abs=1e-5)
    assert not np.allclose(alone, metrics.rerank(query, gallery, metric=metric), atol=1e-3)


def test_too_small_a_gallery_is_refused() -> None:
    with pytest.raises(FeatureError, match="at least 21 gallery images, found 5"):
        metrics.rerank_alone(np.eye(5), np.eye(5))
    made = crowd(people=3, images=4)
    assert list(re_ranking.run(made)) == ["Re-ranking needs more than 20 gallery images; there are 12."]


def test_rows() -> None:
    made = crowd(noise=1.5)
    found = values(re_ranking.run(made))
    assert found["mAP", "re-ranking=off"] == pytest.approx(made.ranking.mAP)
    together, alone = found["mAP", "re-ranking=all queries at once"], found["mAP", "re-ranking=one query at a time"]
    assert found["mAP", "re-ranking=all at once minus one at a time"] == pytest.approx(together - alone)
    query, gallery = made.features
    expected = metrics.evaluate_distances(metrics.rerank(query, gallery, metric="cosine"), *made.pids, *made.camids)
    assert together == pytest.approx(expected.mAP)
