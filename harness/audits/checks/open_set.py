"""What happens if half of the persons that are looked for are not in the gallery."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import stats
from harness.audits.audit import Audit, Found, Row, mean_row
from harness.audits.subject import Subject

RATES = (0.001, 0.01, 0.1, 1.0)
"""False positive identification rates at which the true positive rate is given."""

SEED = 0
NAME = "open-set"
_BLOCK = 256


@dataclass(frozen=True)
class Searches:
    """The nearest gallery image of each query.

    Attributes:
        score: similarity of the nearest image, [n].
        hit: whether it is a match, [n]; a negative that ties with it counts as nearer.
        mated: whether the person is in the gallery, [n].
        pids: identity of each query, [n].
    """

    score: np.ndarray
    hit: np.ndarray
    mated: np.ndarray
    pids: np.ndarray

    def threshold(self, rate: float, rows: np.ndarray | None = None) -> float:
        """Returns the lowest threshold that at most this share of the non-mated queries exceeds.

        Args:
            rate: the share, from 0 to 1.
            rows: queries to use, as a bootstrap draws them; all by default.
        """
        rows = np.arange(len(self.score)) if rows is None else rows
        others = np.sort(self.score[rows[~self.mated[rows]]])[::-1]
        allowed = math.floor(rate * len(others) + 1e-9)
        return float(others[allowed]) if allowed < len(others) else -math.inf

    def true_positives(self, rate: float, rows: np.ndarray) -> float:
        """Returns TPIR at this FPIR for some queries; NaN without mated or non-mated ones."""
        mated = rows[self.mated[rows]]
        if not 0 < len(mated) < len(rows):
            return math.nan
        above = self.score[mated] > self.threshold(rate, rows)
        return float((above & self.hit[mated]).mean())


def run(subject: Subject) -> Found:
    """Yields TPIR at each FPIR, the thresholds, and what thresholds of other datasets give here."""
    unknown = _unknown(subject)
    if unknown is None:
        yield "There are fewer than two identities with a match, so none can be left out."
        return
    found = searches(subject, unknown)
    others = int((~found.mated).sum())
    yield (
        f"{len(unknown):,} identities with {others:,} queries have no image in the gallery. The smallest FPIR above "
        f"zero is {1 / others:.2g}; at smaller ones the threshold is the highest score of such a query."
    )
    everything = np.arange(len(found.score))
    for rate in RATES:
        value = found.true_positives(rate, everything)
        bounds = stats.percentile_interval(lambda rows, rate=rate: found.true_positives(rate, rows), found.pids)  # type: ignore[misc]
        yield Row("TPIR", {"FPIR": rate}, value, bounds, int(found.mated.sum()))
    for rate in RATES[:-1]:
        yield Row("threshold", {"FPIR": rate}, found.threshold(rate), None, others)
    yield from _elsewhere(subject, found)


def _unknown(subject: Subject) -> np.ndarray | None:
    """A seeded random half of the identities that have a match."""
    identities = np.unique(subject.pids[0][subject.ranking.valid])
    if len(identities) < 2:
        return None
    return np.sort(np.random.default_rng(SEED).permutation(identities)[: len(identities) // 2])


def searches(subject: Subject, unknown: np.ndarray) -> Searches:
    """Searches each query in the gallery without the images of some identities.

    Queries of other identities that have no match are left out.
    """
    (q_pids, g_pids), (q_cams, g_cams) = subject.pids, subject.camids
    enrolled = np.flatnonzero(~np.isin(g_pids, unknown) & (g_pids >= 0))
    query, gallery = _comparable(subject, *subject.features)
    gallery = gallery[enrolled]
    score, hit, matched = (np.empty(len(q_pids), kind) for kind in (np.float64, bool, bool))
    for start in range(0, len(q_pids), _BLOCK):
        rows = slice(start, start + _BLOCK)
        same = q_pids[rows, None] == g_pids[enrolled]
        match = same & (q_cams[rows, None] != g_cams[enrolled])
        similarity = _similarity(subject, query[rows], gallery)
        of_match = np.where(match, similarity, -np.inf).max(axis=1)
        of_other = np.where(same, -np.inf, similarity).max(axis=1)
        score[rows], hit[rows] = np.maximum(of_match, of_other), of_match > of_other
        matched[rows] = match.any(axis=1)
    used = matched | np.isin(q_pids, unknown)
    return Searches(score[used], hit[used], matched[used], q_pids[used])


def _comparable(subject: Subject, *features: Any) -> Iterator[Any]:
    """Features as they are compared: of unit length for cosine."""
    import torch

    for one in features:
        values = torch.as_tensor(one).float()
        yield torch.nn.functional.normalize(values, dim=1) if subject.metric == "cosine" else values


def _similarity(subject: Subject, query: Any, gallery: Any) -> np.ndarray:
    """Cosine similarity, or the negative Euclidean distance; [n_query, n_gallery]."""
    import torch

    found = query @ gallery.T if subject.metric == "cosine" else -torch.cdist(query, gallery)
    return found.cpu().numpy()


def _elsewhere(subject: Subject, found: Searches) -> Found:
    """Applies the thresholds that were chosen on other datasets."""
    for block in subject.earlier:
        if block["check"] != NAME or block["dataset"] == subject.dataset:
            continue
        for row in block["rows"]:
            if row["name"] != "threshold":
                continue
            setting = {"threshold of": block["dataset"], "FPIR there": row["setting"]["FPIR"]}
            above = found.score > row["value"]
            others, mated = ~found.mated, found.mated
            yield mean_row("FPIR at a threshold of another dataset", setting, above[others], found.pids[others])
            hits = (above & found.hit)[mated]
            yield mean_row("TPIR at a threshold of another dataset", setting, hits, found.pids[mated])


AUDIT = Audit(
    run,
    about="How often is a person found, and how often is somebody else taken for a person who is not in the gallery?",
    source="FPIR: share of queries without a person in the gallery whose nearest image is above the threshold. TPIR: "
    "share of the other queries whose nearest image is above it and a match. Names as in Grother et al., "
    "FRVT Part 2: Identification (NISTIR 8271); Liao et al., Open-set Person Re-identification (arXiv 1408.0872), call "
    "them FAR and DIR at rank 1.",
)
