"""Groups per-query scores by identity, because the queries of one person are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import HarnessError


class StatsError(HarnessError):
    """The scores do not allow an interval or a test."""


@dataclass(frozen=True)
class Clusters:
    """Sum and number of scores of every identity.

    Attributes:
        sums: sum of scores, [n_identities].
        counts: number of scores, [n_identities].
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over all queries: the ratio of the sums, not the mean of the means of identities."""
        return float(self.sums.sum() / self.counts.sum())


def as_scores(values: ArrayLike, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores as float64 [n] and identities [n].

    Raises:
        StatsError: their lengths differ.
    """
    scores, identities = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if scores.ndim != 1 or scores.shape != identities.shape:
        raise StatsError(
            f"The scores have shape {scores.shape} and the groups {identities.shape}; pass one identity per score."
        )
    return scores, identities


def cluster(values: ArrayLike, groups: Any) -> Clusters:
    """Groups scores by identity; NaN, the score of a query without a match, is left out.

    Raises:
        StatsError: the lengths differ, or all scores are NaN.
    """
    scores, identities = as_scores(values, groups)
    kept = ~np.isnan(scores)
    if not kept.any():
        raise StatsError(f"None of the {len(scores)} queries has a score, so there is no interval or test.")
    _, index = np.unique(identities[kept], return_inverse=True)
    return Clusters(np.bincount(index, weights=scores[kept]), np.bincount(index).astype(np.float64))
