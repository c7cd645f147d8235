"""Per-query scores gathered by identity: the queries of one person are not independent, the persons are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import HarnessError


class StatsError(HarnessError):
    """Scores from which nothing can be inferred."""


@dataclass(frozen=True)
class Clusters:
    """Sum and number of scores of every identity.

    Attributes:
        sums: [n_identities].
        counts: [n_identities].
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over all queries: the ratio of the sums, not the mean of the identities' means."""
        return float(self.sums.sum() / self.counts.sum())


def as_scores(values: ArrayLike, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores as float64 [n] and identities [n], after checking that they belong together."""
    scores, identities = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if scores.ndim != 1 or scores.shape != identities.shape:
        raise StatsError(
            f"Scores have shape {scores.shape} and groups {identities.shape}; give one identity for each query's score."
        )
    return scores, identities


def cluster(values: ArrayLike, groups: Any) -> Clusters:
    """Gathers scores by identity; NaN, a query without a match, is left out.

    Raises:
        StatsError: lengths differ, or no score is left.
    """
    scores, identities = as_scores(values, groups)
    kept = ~np.isnan(scores)
    if not kept.any():
        raise StatsError(f"None of the {len(scores)} queries has a score; nothing can be inferred from this run.")
    _, index = np.unique(identities[kept], return_inverse=True)
    return Clusters(np.bincount(index, weights=scores[kept]), np.bincount(index).astype(np.float64))
