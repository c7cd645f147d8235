"""What the pictures of a report need: ranked lists, and how far apart the same and different identities lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.metrics.counting import count_ahead
from harness.metrics.protocol import Matches, find_matches
from harness.metrics.similarity import Block, FeatureSimilarity


@dataclass(frozen=True)
class RankedLists:
    """The nearest gallery images of some queries, junk and own-camera views left out.

    Attributes:
        indices: gallery images, nearest first, -1 where the gallery has no more, [n_query, k].
        distances: their distances, NaN where there is none, [n_query, k].
        is_match: whether it is the query's identity, [n_query, k].
    """

    indices: np.ndarray
    distances: np.ndarray
    is_match: np.ndarray


@dataclass(frozen=True)
class DistanceHistogram:
    """How many pairs of a query and a gallery image lie at which distance.

    Attributes:
        edges: [bins + 1].
        same: pairs of one identity under different cameras, [bins].
        different: pairs of two identities, [bins].
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def filled(self, bins: int = 80) -> DistanceHistogram:
        """Joins neighbouring bins until at most `bins` hold all pairs: trained features may lie close together."""
        places = np.flatnonzero(self.same + self.different)
        first, last = (int(places[0]), int(places[-1])) if len(places) else (0, len(self.same) - 1)
        starts = np.arange(first, last + 1, -(-(last + 1 - first) // bins))
        edges = self.edges[[*starts, last + 1]]
        joined = (np.add.reduceat(counts[: last + 1], starts) for counts in (self.same, self.different))
        return DistanceHistogram(edges, *joined)


def ranked_list(
    query_features: Any,
    gallery_features: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    k: int = 10,
    metric: str = "cosine",
    device: Any = None,
) -> RankedLists:
    """Returns the k nearest gallery images of each query, in the order that `evaluate_ranking` scores.

    A match stands at its rank; where it ties with a negative it therefore stands behind. Ties among negatives, and
    among matches, are in gallery order. For a single query give one row: `features[i : i + 1]` and so on.

    Args:
        query_features: [n_query, dim], and so on as for `evaluate_ranking`.
        gallery_features: [n_gallery, dim].
        query_pids: [n_query].
        gallery_pids: [n_gallery].
        query_camids: [n_query].
        gallery_camids: [n_gallery].
        k: length of the list.
        metric: `cosine` or `euclidean`.
        device: where to compute.
    """
    if k < 1:
        raise UsageError(f"k is {k}; give 1 or more.")
    matches = find_matches(query_pids, gallery_pids, query_camids, gallery_camids)
    similarity = FeatureSimilarity(query_features, gallery_features, metric=metric, kept=matches.kept, device=device)
    columns = np.full((matches.n_query, k), -1)
    distances = np.full((matches.n_query, k), np.nan)
    is_match = np.zeros((matches.n_query, k), dtype=bool)
    for block in similarity.blocks():
        part = matches.in_rows(block.rows)
        scores = block.similarity.cpu().numpy().copy()
        ahead = np.split(count_ahead(block, part)[0], np.cumsum(part.n_positives)[:-1])
        for row, query in enumerate(range(block.rows.start, block.rows.stop)):
            columns[query], is_match[query], distances[query] = _merge(scores[row], ahead[row], part, block, row, k)
    return RankedLists(np.where(columns >= 0, matches.kept[columns], -1), distances, is_match)


def _merge(
    scores: np.ndarray, ahead: np.ndarray, matches: Matches, block: Block, row: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Puts matches at their ranks and fills the places between with negatives; returns columns, flags and distances."""
    own, is_match = matches.of_query(row)
    positives = own[is_match]
    negatives = np.ones(len(scores), dtype=bool)
    negatives[own] = False
    candidates = np.flatnonzero(negatives)
    if len(candidates) > k:
        least = np.partition(scores[candidates], -k)[-k]
        candidates = candidates[scores[candidates] >= least - block.widest(row)]

    of_positives, of_candidates = block.distances(row, positives), block.distances(row, candidates)
    order = np.lexsort((positives, of_positives, ahead))
    ranks = ahead[order] + np.arange(1, len(order) + 1)
    shown, order = ranks[ranks <= k] - 1, order[ranks <= k]
    flags = np.zeros(k, dtype=bool)
    flags[shown] = True
    nearest = np.argsort(of_candidates, kind="stable")
    places = np.flatnonzero(~flags)[: len(nearest)]
    nearest = nearest[: len(places)]

    columns, distances = np.full(k, -1), np.full(k, np.nan)
    columns[shown], distances[shown] = positives[order], of_positives[order]
    columns[places], distances[places] = candidates[nearest], of_candidates[nearest]
    return columns, flags, distances


def distance_histogram(
    query_features: Any,
    gallery_features: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    bins: int = 20_000,
    limits: tuple[float, float] | None = None,
    metric: str = "cosine",
    device: Any = None,
    block_size: int = 64,
) -> DistanceHistogram:
    """Counts distances of all pairs into fixed bins, junk and own-camera views left out.

    Args:
        query_features: [n_query, dim], and so on as for `evaluate_ranking`.
        gallery_features: [n_gallery, dim].
        query_pids: [n_query].
        gallery_pids: [n_gallery].
        query_camids: [n_query].
        gallery_camids: [n_gallery].
        bins: number of bins of equal width.
        limits: lower end of the first and upper end of the last bin; what lies beyond counts in that bin. None for
            limits that no pair can exceed.
        metric: `cosine` or `euclidean`.
        device: where to compute.
        block_size: queries at once.
    """
    import torch

    low, high = limits or (0.0, 2.0 if metric == "cosine" else _longest(query_features) + _longest(gallery_features))
    if bins < 1 or not low < high:
        raise UsageError(f"A histogram of {bins} bins from {low} to {high} is empty; give bins >= 1 and low < high.")
    matches = find_matches(query_pids, gallery_pids, query_camids, gallery_camids)
    similarity = FeatureSimilarity(
        query_features,
        gallery_features,
        metric=metric,
        kept=matches.kept,
        device=device,
        block_size=block_size,
    )
    everything, identity, same = (np.zeros(bins, dtype=np.int64) for _ in range(3))
    for block in similarity.blocks():
        part = matches.in_rows(block.rows)
        distances = block.distance(block.similarity)
        places = ((distances - low) * (bins / (high - low))).floor_().clamp_(0, bins - 1).to(torch.int64)
        everything += torch.bincount(places.flatten(), minlength=bins).cpu().numpy()
        own = places[torch.as_tensor(part.rows), torch.as_tensor(part.columns)].cpu().numpy()
        identity += np.bincount(own, minlength=bins)
        same += np.bincount(own[part.is_match], minlength=bins)
    return DistanceHistogram(np.linspace(low, high, bins + 1), same, everything - identity)


def _longest(features: Any) -> float:
    import torch

    return float(torch.linalg.vector_norm(torch.as_tensor(features).float(), dim=1).max())
