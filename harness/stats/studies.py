"""Compares tuned backbones over repeated studies.

One study is one observation: it contains the luck of the search, of the held-out people and of training. Queries do
not appear here, because the test set is the same for all studies; intervals over queries are another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.stats.groups import StatsError


@dataclass(frozen=True)
class StudyTest:
    """Difference of two backbones over the same studies.

    Attributes:
        difference: mean of the first minus mean of the second.
        interval: its confidence interval.
        p_value: two-sided p-value of the paired t-test.
        studies: number of studies.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    studies: int


def compare_studies(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> StudyTest:
    """Paired t-test over studies. Study s of both has the same points, held-out people and seed.

    Args:
        first: final score of each study of one backbone.
        second: final scores of the other, in the same order of studies.
        confidence: coverage of the interval.

    Raises:
        StatsError: fewer than two studies, or different numbers of them.
    """
    from scipy.stats import t

    if len(first) != len(second) or len(first) < 2:
        raise StatsError("A comparison over studies needs two or more studies of both backbones.")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))
    reach = float(t.ppf((1 + confidence) / 2, len(differences) - 1)) * error
    p_value = float(2 * t.sf(abs(mean) / error, len(differences) - 1)) if error > 0 else float(mean == 0)
    return StudyTest(mean, (mean - reach, mean + reach), p_value, len(differences))
