"""The metric of the classic CUHK03 protocol: CMC over random galleries with one image per identity."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.metrics.protocol import as_labels, find_matches
from harness.metrics.ranking import Ranking, cmc_curve, evaluate_ranking
from harness.metrics.similarity import FeatureSimilarity


def evaluate_single_shot(
    query_features: Any,
    gallery_features: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    max_rank: int = 50,
    metric: str = "cosine",
    draws: int = 10,
    seed: int = 0,
    device: Any = None,
) -> Ranking:
    """Scores a ranking under the single-gallery-shot protocol of classic CUHK03 (20 splits, 100 test identities).

    After junk and ignored images are removed, one image of every gallery identity is drawn uniformly; for the query's
    own identity, one of its matches. The query is ranked against these images only. The CMC curve and `first_hit` are
    means over all draws. All other results (mAP, mINP, other per-query values) use the full gallery.
    Images of other identities from the query's own camera stay in the gallery, as in torchreid.
    The draws depend only on `seed` and on the order of the queries. The tie rule is that of `evaluate_ranking`.

    Do not use it for the 767/700 protocol, which `evaluate_ranking` scores; the two give very different numbers.

    Args:
        query_features: [n_query, dim]; all features and labels are as for `evaluate_ranking`.
        gallery_features: [n_gallery, dim].
        query_pids: [n_query].
        gallery_pids: [n_gallery].
        query_camids: [n_query].
        gallery_camids: [n_gallery].
        max_rank: length of the CMC curve.
        metric: `cosine` or `euclidean`.
        draws: number of galleries to draw per query.
        seed: seed of the draws.
        device: device to compute on; None for the device of the gallery features.

    Raises:
        FeatureError, ProtocolError: as `evaluate_ranking`.
    """
    if draws < 1:
        raise UsageError(f"draws must be at least 1, found {draws}.")
    labels = (query_pids, gallery_pids, query_camids, gallery_camids)
    full = evaluate_ranking(query_features, gallery_features, *labels, max_rank=max_rank, metric=metric, device=device)
    matches = find_matches(*labels)
    gallery = _Gallery(as_labels(gallery_pids, "gallery pids")[matches.kept])
    similarity = FeatureSimilarity(query_features, gallery_features, metric=metric, kept=matches.kept, device=device)
    generator, ranks = np.random.default_rng(seed), []
    for block in similarity.blocks():
        for row, query in enumerate(range(block.rows.start, block.rows.stop)):
            if full.valid[query]:
                own, is_match = matches.of_query(query)
                rivals, drawn = gallery.draw(own[is_match], draws, generator)
                ahead = block.ahead(row, rivals.ravel(), np.repeat(drawn, rivals.shape[1]))
                ranks.append(1 + ahead.reshape(rivals.shape).sum(axis=1))
    hits = np.full(len(full.valid), np.nan)
    hits[full.valid] = [(of_draws == 1).mean() for of_draws in ranks]
    return dataclasses.replace(full, cmc=cmc_curve(np.concatenate(ranks), max_rank), first_hit=hits)


class _Gallery:
    """Gallery images grouped by identity."""

    def __init__(self, pids: np.ndarray) -> None:
        self.columns = np.argsort(pids, kind="stable")
        self.identities, self.starts, self.counts = np.unique(pids[self.columns], return_index=True, return_counts=True)
        self.pids = pids

    def draw(self, own: np.ndarray, draws: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws one column of every other identity, [draws, n_identities - 1], and one of `own`, [draws]."""
        match = own[generator.integers(len(own), size=draws)]
        picks = self.starts + generator.integers(self.counts, size=(draws, len(self.counts)))
        others = self.identities != self.pids[own[0]]
        return self.columns[picks[:, others]], match
