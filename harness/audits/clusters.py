"""Clusters of features, and how much they agree with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ITERATIONS = 20
_BLOCK = 4096


def k_means(features: Any, clusters: int, *, seed: int = 0) -> np.ndarray:
    """Returns the cluster of each feature by k-means on features of unit length, [N].

    Args:
        features: [N, D].
        clusters: number of clusters, at most N; a cluster may end up empty.
        seed: seed of the first centres, which are features.
    """
    import torch

    unit = torch.nn.functional.normalize(torch.as_tensor(features).float(), dim=1)
    first = np.random.default_rng(seed).choice(len(unit), size=clusters, replace=False)
    centres = unit[torch.as_tensor(first, device=unit.device)]
    found = _nearest(unit, centres)
    for _ in range(ITERATIONS):
        sums = torch.zeros_like(centres).index_add_(0, found, unit)
        filled = sums.abs().sum(dim=1, keepdim=True) > 0
        centres = torch.nn.functional.normalize(torch.where(filled, sums, centres), dim=1)
        before, found = found, _nearest(unit, centres)
        if torch.equal(before, found):
            break
    return found.cpu().numpy()


def _nearest(unit: Tensor, centres: Tensor) -> Tensor:
    import torch

    return torch.cat([(block @ centres.T).argmax(dim=1) for block in unit.split(_BLOCK)])


def normalised_mutual_information(first: Any, second: Any) -> float:
    """Returns the mutual information of two labellings divided by the mean of their entropies, 0 to 1.

    It is 0 for independent labels, and 1 if each determines the other. Two constant labellings give 0.

    Args:
        first: label of each item, whole numbers from 0, [N].
        second: likewise.
    """
    return information(first, second)(np.arange(len(first)))


def information(first: Any, second: Any) -> Callable[[np.ndarray], float]:
    """Returns a function of rows: the normalised mutual information of two labellings on these rows."""
    first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    pairs = np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]

    def of(rows: np.ndarray) -> float:
        one, other, both = (_entropy(np.bincount(labels[rows])) for labels in (first, second, pairs))
        return max(0.0, 2 * (one + other - both) / (one + other)) if one + other > 0 else 0.0

    return of


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
