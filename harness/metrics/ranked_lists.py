"""Data for the figures of a report: ranked lists, and distance histograms of same and different identities."""

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
    """The nearest gallery images of some queries, without junk and ignored images.

    Attributes:
        indices: gallery images, nearest first; -1 beyond the end of the gallery, [n_query, k].
        distances: their distances; NaN beyond the end of the gallery, [n_query, k].
        is_match: whether the image has the query's identity, [n_query, k].
    """

    indices: np.ndarray
    distances: np.ndarray
    is_match: np.ndarray


@dataclass(frozen=True)
class DistanceHistogram:
    """Histograms of the distances between queries and gallery images.

    Attributes:
        edges: edges of the bins, [bins + 1].
        same: number of pairs of one identity under different cameras, [bins].
        different: number of pairs of two identities, [bins].
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def filled(self, bins: int = 80) -> DistanceHistogram:
        """Crops the histogram to the bins with pairs and joins neighbouring bins until at most `bins` are left."""
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

    A match that ties with a negative ranks behind it. Ties among negatives, and among matches, are in gallery order.
    For a single query pass one row: `features[i : i + 1]` and the same for its labels.

    Args:
        query_features: [n_query, dim]; all features and labels are as for `evaluate_ranking`.
        gallery_features: [n_gallery, dim].
        query_pids: [n_query].
        gallery_pids: [n_gallery].
        query_camids: [n_query].
        gallery_camids: [n_gallery].
        k: length of the list, at least 1.
        metric: `cosine` or `euclidean`.
        device: device to compute on; None for the device of the gallery features.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, found {k}.")
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
    """Puts matches at their ranks and negatives in between; returns columns, `is_match` and distances, each [k]."""
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
    """Counts the distances of all pairs in bins of equal width, without junk and ignored pairs.

    Args:
        query_features: [n_query, dim]; all features and labels are as for `evaluate_ranking`.
        gallery_features: [n_gallery, dim].
        query_pids: [n_query].
        gallery_pids: [n_gallery].
        query_camids: [n_query].
        gallery_camids: [n_gallery].
        bins: number of bins.
        limits: lower end of the first bin and upper end of the last; distances beyond count in these bins. None for
            limits that no pair can exceed.
        metric: `cosine` or `euclidean`.
        device: device to compute on; None for the device of the gallery features.
        block_size: number of queries to process at once.
    """
    import torch

    low, high = limits or (0.0, 2.0 if metric == "cosine" else _longest(query_features) + _longest(gallery_features))
    if bins < 1 or not low < high:
        raise UsageError(f"A histogram needs bins >= 1 and low < high, found {bins} bins from {low} to {high}.")
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
