"""Losses of re-identification, and the criterion that a recipe builds from them.

Every loss is computed in float32 (float64 stays float64), also inside autocast: in half precision, the distance
between two features of length 30 has an error of up to 1. With `autocast=True`, `triplet` and `ratr` compute their
matrix products, and RATR its tanh, in the precision of autocast, as the original code does. All other operations of
the losses are on the float32 list of CUDA's autocast and stay in float32.
"""

from harness.losses.criterion import ReIDCriterion
from harness.losses.identity import center, cross_entropy
from harness.losses.ratr import check_pk_order, ratr
from harness.losses.triplets import euclidean_distances, multi_similarity, triplet, weighted_triplet

__all__ = [
    "ReIDCriterion",
    "center",
    "check_pk_order",
    "cross_entropy",
    "euclidean_distances",
    "multi_similarity",
    "ratr",
    "triplet",
    "weighted_triplet",
]
