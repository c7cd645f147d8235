"""CMC, mAP and mINP from the ranks of the matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.metrics.counting import count_ahead
from harness.metrics.protocol import Matches, ProtocolError, find_matches, require_match
from harness.metrics.similarity import DistanceSimilarity, FeatureSimilarity, Similarity

_NO_LOSS = 1e-6


@dataclass(frozen=True)
class Ranking:
    """Scores of one ranking, as fractions.

    Attributes:
        mAP: mean average precision over the valid queries.
        mINP: mean inverse negative penalty over the valid queries.
        cmc: share of valid queries whose first match is among the first k, for k = 1 to `max_rank`; constant beyond
            the length of the gallery, [max_rank].
        average_precision: AP of each query, NaN for invalid queries, [n_query].
        inverse_negative_penalty: INP of each query, NaN for invalid queries, [n_query].
        first_match_rank: rank of the nearest match, counted from one; 0 for invalid queries, [n_query].
        first_hit: 1 if a match ranks first, else 0; under single-shot, the share of draws in which it does. NaN for
            invalid queries, [n_query]. Its mean over the valid queries is rank-1.
        n_positives: number of matches of each query, [n_query].
        valid: whether the query has a match, [n_query]; invalid queries are excluded from all means.
        tied_queries: number of queries whose AP the tie rule lowers by more than 1e-6. Smaller changes are common,
            because some of many negatives always tie with the farthest matches.
        tie_loss: how much higher mAP would be if matches won every tie.
        n_junk: number of gallery images dropped as junk.
        n_same_camera: number of ignored pairs: the same identity and the same camera.
        match_ranks: ranks of all matches, counted from one, by query and then by rank, [sum of n_positives].
        match_images: gallery image of each of these matches, [sum of n_positives].
    """

    mAP: float
    mINP: float
    cmc: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_match_rank: np.ndarray
    first_hit: np.ndarray
    n_positives: np.ndarray
    valid: np.ndarray
    tied_queries: int
    tie_loss: float
    n_junk: int
    n_same_camera: int
    match_ranks: np.ndarray
    match_images: np.ndarray

    @property
    def n_query(self) -> int:
        """Number of queries, with or without a match."""
        return len(self.valid)

    @property
    def n_valid(self) -> int:
        """Number of queries with a match; means are taken over these."""
        return int(self.valid.sum())

    def rank(self, k: int) -> float:
        """Returns CMC at rank k: the share of valid queries with a match among the first k.

        Raises:
            UsageError: k is below 1 or above `max_rank`.
        """
        if not 1 <= k <= len(self.cmc):
            raise UsageError(f"Rank {k} is outside the CMC curve of ranks 1 to {len(self.cmc)}; raise max_rank.")
        return float(self.cmc[k - 1])


def evaluate_ranking(
    query_features: Any,
    gallery_features: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    max_rank: int = 50,
    metric: str = "cosine",
    device: Any = None,
    block_size: int | None = None,
) -> Ranking:
    """Ranks the gallery for every query and scores the ranking under the standard protocol (see `harness.metrics`).

    Args:
        query_features: [n_query, dim], numpy array or torch tensor.
        gallery_features: [n_gallery, dim], likewise.
        query_pids: identities, [n_query].
        gallery_pids: identities, [n_gallery]; negative is junk.
        query_camids: cameras, [n_query].
        gallery_camids: cameras, [n_gallery].
        max_rank: length of the CMC curve.
        metric: `cosine` or `euclidean`.
        device: device to compute on; None for the device of the gallery features.
        block_size: number of queries to rank at once; None for as many as need 512 MB.

    Raises:
        FeatureError: features are NaN, infinite, of zero norm or constant, or have wrong shapes.
        ProtocolError: the numbers of features and labels differ, or no query has a match.
    """
    matches = find_matches(query_pids, gallery_pids, query_camids, gallery_camids)
    _require_shape(query_features, gallery_features, matches)
    similarity = FeatureSimilarity(
        query_features,
        gallery_features,
        metric=metric,
        kept=matches.kept,
        device=device,
        block_size=block_size,
    )
    return _evaluate(similarity, matches, max_rank)


def evaluate_distances(
    distances: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    max_rank: int = 50,
    block_size: int | None = None,
) -> Ranking:
    """Scores the ranking by given distances [n_query, n_gallery], for example re-ranked ones; smaller is nearer.

    The other arguments, the result and the errors are as for `evaluate_ranking`.
    """
    matches = find_matches(query_pids, gallery_pids, query_camids, gallery_camids)
    shape, expected = tuple(np.shape(distances)), (matches.n_query, matches.n_gallery)
    if shape != expected:
        raise ProtocolError(f"The distances have shape {shape}, but the pids need the shape {expected}.")
    return _evaluate(DistanceSimilarity(distances, kept=matches.kept, block_size=block_size), matches, max_rank)


def _evaluate(similarity: Similarity, matches: Matches, max_rank: int) -> Ranking:
    if max_rank < 1:
        raise UsageError(f"max_rank must be at least 1, found {max_rank}.")
    require_match(matches)
    counts = [count_ahead(block, matches.in_rows(block.rows)) for block in similarity.blocks()]
    at_least, above = (np.concatenate(parts) for parts in zip(*counts, strict=True))

    valid, n_positives = matches.n_positives > 0, matches.n_positives
    rows, ends = matches.rows[matches.is_match], np.cumsum(n_positives)
    position = np.arange(len(rows)) - (ends - n_positives)[rows] + 1

    def order_of(ahead: np.ndarray) -> np.ndarray:
        # Sorts the matches of each query by the negatives ahead of them; equal counts give the same ranks in any order.
        return np.lexsort((ahead, rows))

    def mean_precision(ranks: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=position / ranks, minlength=len(valid))[valid] / n_positives[valid]

    def per_query(values: np.ndarray, fill: float) -> np.ndarray:
        out = np.full(len(valid), fill, dtype=values.dtype)
        out[valid] = values
        return out

    order = order_of(at_least)
    ranks = at_least[order] + position
    precision = mean_precision(ranks)
    tie_loss = mean_precision(above[order_of(above)] + position) - precision
    penalty = n_positives[valid] / ranks[ends[valid] - 1]
    first = ranks[(ends - n_positives)[valid]]
    return Ranking(
        mAP=float(precision.mean()),
        mINP=float(penalty.mean()),
        cmc=cmc_curve(first, max_rank),
        average_precision=per_query(precision, np.nan),
        inverse_negative_penalty=per_query(penalty, np.nan),
        first_match_rank=per_query(first, 0),
        first_hit=per_query((first == 1).astype(float), np.nan),
        n_positives=n_positives,
        valid=valid,
        tied_queries=int((tie_loss > _NO_LOSS).sum()),
        tie_loss=float(tie_loss.mean()),
        n_junk=matches.n_junk,
        n_same_camera=matches.n_same_camera,
        match_ranks=ranks,
        match_images=matches.kept[matches.columns[matches.is_match][order]],
    )


def cmc_curve(first_ranks: np.ndarray, max_rank: int) -> np.ndarray:
    """Returns the share of first-match ranks [n] that are at most k, for k = 1 to `max_rank`."""
    return np.searchsorted(np.sort(first_ranks), np.arange(1, max_rank + 1), side="right") / len(first_ranks)


def _require_shape(query_features: Any, gallery_features: Any, matches: Matches) -> None:
    for side, features, n in (
        ("query", query_features, matches.n_query),
        ("gallery", gallery_features, matches.n_gallery),
    ):
        if len(features) != n:
            raise ProtocolError(
                f"There are {len(features)} {side} features but {n} {side} pids; pass one of each per image."
            )
