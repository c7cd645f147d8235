"""How much of the gain of re-ranking comes from the other queries."""

from __future__ import annotations

import numpy as np

from harness import metrics
from harness.audits.audit import Audit, Found, mean_row
from harness.audits.subject import Subject
from harness.contracts import PROTOCOLS

MOST_QUERIES = 100
"""Number of queries that are re-ranked one at a time."""

SEED = 0
K1 = 20


def run(subject: Subject) -> Found:
    """Yields the scores of the same queries without re-ranking, with it, and one query at a time."""
    if not PROTOCOLS[subject.protocol].reranks:
        yield f"The protocol {subject.protocol} has no re-ranking."
        return
    query, gallery = subject.features
    if len(gallery) <= K1:
        yield f"Re-ranking needs more than {K1} gallery images; there are {len(gallery)}."
        return
    valid = np.flatnonzero(subject.ranking.valid)
    count = min(MOST_QUERIES, len(valid))
    chosen = np.sort(np.random.default_rng(SEED).choice(valid, size=count, replace=False))
    yield f"All rows are of {count:,} queries, drawn from {len(valid):,} with a match."
    (q_pids, g_pids), (q_cams, g_cams) = subject.pids, subject.camids
    pids = q_pids[chosen]
    plain = subject.ranking
    together = metrics.evaluate_distances(
        metrics.rerank(query, gallery, metric=subject.metric)[chosen], pids, g_pids, q_cams[chosen], g_cams
    )
    alone = metrics.evaluate_distances(
        metrics.rerank_alone(query[chosen], gallery, metric=subject.metric), pids, g_pids, q_cams[chosen], g_cams
    )
    for how, average, first in (
        ("off", plain.average_precision[chosen], plain.first_hit[chosen]),
        ("all queries at once", together.average_precision, together.first_hit),
        ("one query at a time", alone.average_precision, alone.first_hit),
        (
            "all at once minus one at a time",
            together.average_precision - alone.average_precision,
            together.first_hit - alone.first_hit,
        ),
    ):
        yield mean_row("mAP", {"re-ranking": how}, average, pids)
        yield mean_row("rank-1", {"re-ranking": how}, first, pids)


AUDIT = Audit(
    run,
    about="How much of the gain of re-ranking comes from the other queries, which an application does not have?",
    source="Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017: its neighbours "
    "include the other queries.",
    default=False,
)
