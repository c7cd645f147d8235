"""Average precision by the trapezoidal rule, as in the first scripts of Market-1501."""

from __future__ import annotations

import numpy as np

from harness.metrics.ranking import Ranking


def trapezoid_average_precision(ranking: Ranking) -> np.ndarray:
    """Returns the AP of each query by the trapezoidal rule, NaN for invalid queries, [n_query].

    Let r_1 < ... < r_n be the ranks of the matches. AP = (1/n) sum_i (before_i + i / r_i) / 2, where before_i is the
    precision one rank before the match, (i - 1) / (r_i - 1), and 1 for r_i = 1 (Zheng et al., Scalable Person
    Re-identification: A Benchmark, ICCV 2015, whose scripts integrate the curve of precision over recall).
    """
    counts = ranking.n_positives
    rows = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows] + 1
    ranks = ranking.match_ranks
    before = np.where(ranks > 1, (position - 1) / np.maximum(ranks - 1, 1), 1.0)
    sums = np.bincount(rows, weights=(before + position / ranks) / 2, minlength=len(counts))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
