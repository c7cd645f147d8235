"""Re-ranking of each query by itself, as an application does that gets one query at a time.

In `rerank`, the other queries are neighbours, too: the result of a query depends on what else is asked. Here U is one
query followed by the gallery. The neighbours within the gallery are computed once; each query is inserted into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.errors import FeatureError
from harness.metrics.reranking import finish, nearest
from harness.metrics.similarity import FeatureSimilarity


def rerank_alone(
    query_features: Any,
    gallery_features: Any,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    metric: str = "euclidean",
    block_size: int = 512,
) -> np.ndarray:
    """Returns the distances that `rerank` gives to each query without the others, [n_query, n_gallery].

    The arguments are those of `rerank`. The time per query grows with the gallery, not with its square.

    Raises:
        FeatureError: as `rerank`, or the gallery has fewer images than neighbours are needed.
    """
    import torch

    query, gallery = (torch.as_tensor(one).detach() for one in (query_features, gallery_features))
    count = max(k1 + 1, k2)
    if len(gallery) < count:
        raise FeatureError(f"Re-ranking needs at least {count} gallery images, found {len(gallery)}.")
    among = FeatureSimilarity(gallery, gallery, metric=metric, block_size=block_size)
    neighbours, reach, largest, _ = nearest(among, 0, count)
    rows = [
        _alone(one, gallery, neighbours, reach, largest, k1, k2, lambda_value, metric)
        for one in query.to(gallery.device).split(1)
    ]
    return np.concatenate(rows)


def _alone(
    query: Any,
    gallery: Any,
    neighbours: np.ndarray,
    reach: np.ndarray,
    largest: np.ndarray,
    k1: int,
    k2: int,
    lambda_value: float,
    metric: str,
) -> np.ndarray:
    """Re-ranks one query, whose number in U is 0; gallery images follow from 1."""
    import torch

    everything = torch.cat([query, gallery])
    similarity = FeatureSimilarity(everything, everything, metric=metric, block_size=1)
    distance = _distances(similarity)
    count = neighbours.shape[1]
    own = np.argsort(distance, kind="stable")[: count - 1] + 1
    grown = insert(neighbours + 1, reach, distance)
    top = float(distance.max()) ** 2
    result = (distance[None] ** 2 / top).astype(largest.dtype)
    finish(
        result,
        similarity,
        np.concatenate([np.concatenate([[0], own])[None], grown]),
        np.concatenate([[top], np.maximum(largest, distance**2)]).astype(largest.dtype),
        k1,
        k2,
        lambda_value,
    )
    return result


def _distances(similarity: FeatureSimilarity) -> np.ndarray:
    """D of the query and each gallery image, [n_gallery]."""
    block = next(iter(similarity.blocks()))
    distances: np.ndarray = (
        block.squared_distance(block.similarity[:, : similarity.n_query]).clamp_min_(0).cpu().numpy()
    )
    return distances[0, 1:]


def insert(neighbours: np.ndarray, reach: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Inserts image 0 into sorted lists of neighbours, where it is nearer than the last of them.

    Args:
        neighbours: images by distance, [n, count].
        reach: their distances, ascending, [n, count].
        distance: distance of image 0, [n].
    """
    place = (reach <= distance[:, None]).sum(axis=1)[:, None]
    columns = np.arange(neighbours.shape[1])[None]
    shifted = np.concatenate([neighbours[:, :1], neighbours[:, :-1]], axis=1)
    return np.where(columns < place, neighbours, np.where(columns == place, 0, shifted))
