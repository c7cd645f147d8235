"""Losses over the pairs of a batch: the triplet loss of three kinds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.losses.precision import full, products

MINIMUM_SQUARED_DISTANCE = 1e-12


def euclidean_distances(features: Tensor, *, autocast: bool = False) -> Tensor:
    """Computes the distances [B, B] between all pairs of features [B, D].

    Distances are at least 1e-6, because the square root has no finite gradient at 0. With `autocast` the inner
    products are computed in the caller's autocast precision; the squared lengths stay in float32.
    """
    with products(features, autocast):
        features = full(features)
        squares = features.square().sum(1)
        squared = squares[:, None] + squares[None] - 2 * (features @ features.T)
        return squared.clamp(min=MINIMUM_SQUARED_DISTANCE).sqrt()


def triplet(features: Tensor, pids: Tensor, margin: float | None, *, autocast: bool = False) -> Tensor:
    """Triplet loss with batch-hard mining (Hermans et al. 2017, arXiv 1703.07737, section 2).

    Each image is an anchor. Its positive is the farthest image of its identity (the image itself if there is no
    other), its negative the nearest image of another identity. Distances are Euclidean; features are not normalised.

    Args:
        features: [B, D], not normalised.
        pids: [B].
        margin: the loss is the mean of max(0, d_positive - d_negative + margin). `None` is the soft margin: the mean
            of log(1 + exp(d_positive - d_negative)).
        autocast: whether the inner products use autocast's precision; by default they are float32.

    Returns:
        The loss, a scalar; 0 for a batch of one identity, which has no triplets.
    """
    distances = euclidean_distances(features, autocast=autocast)
    same = pids[:, None] == pids[None]
    hardest_positive = distances.masked_fill(~same, -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    gap = hardest_positive - hardest_negative
    return F.softplus(gap).mean() if margin is None else F.relu(gap + margin).mean()


NORMALISER = 1e-6
"""AGW's code adds it to the sums that normalise weights."""


def weighted_triplet(features: Tensor, pids: Tensor, *, autocast: bool = False) -> Tensor:
    """Weighted-regularised triplet loss of AGW (Ye et al. 2021, arXiv 2001.04193, section 4.1), without margin.

    Each image is an anchor. Its positive distance is a mean over all images of its identity, itself included, with
    weights that grow as exp(distance). Its negative distance is a mean over all others, with weights that fall as
    exp(-distance). As in the original code, the negative distance tends to 0 where all negatives are farther than 14.

    Args:
        features: [B, D], not normalised.
        pids: [B].
        autocast: whether the inner products use autocast's precision; by default they are float32.

    Returns:
        The mean of log(1 + exp(d_positive - d_negative)), a scalar.
    """
    distances = euclidean_distances(features, autocast=autocast)
    same = pids[:, None] == pids[None]
    farthest = distances.masked_fill(~same, 0.0).amax(1, keepdim=True)
    # Masked before the exponential: exp of the distance of another identity may overflow, and its gradient with it.
    near = (distances - farthest).masked_fill(~same, -torch.inf).exp()
    far = (-distances).masked_fill(same, -torch.inf).exp()
    positive, negative = ((w * distances).sum(1) / (w.sum(1) + NORMALISER) for w in (near, far))
    return F.softplus(positive - negative).mean()


SIMILARITY_CENTER, POSITIVE_SCALE, NEGATIVE_SCALE = 0.5, 2.0, 40.0
SAME_IMAGE = 1 - 1e-5
"""Images that are at least as similar as this count as the anchor itself."""


def multi_similarity(features: Tensor, pids: Tensor, margin: float, *, autocast: bool = False) -> Tensor:
    """Multi-similarity loss (Wang et al. 2019, arXiv 1904.06627), with the constants of LightMBN's code.

    Each image is an anchor, and similarities are cosines. A negative counts if it is less than `margin` below the least
    similar positive, a positive if it is less than `margin` above the most similar negative.

    Args:
        features: [B, D], not normalised.
        pids: [B].
        margin: margin of the choice of pairs.
        autocast: whether the inner products use autocast's precision; by default they are float32.

    Returns:
        The mean over the batch, a scalar; 0 for anchors without a positive or without a negative that counts.
    """
    with products(features, autocast):
        unit = F.normalize(full(features), dim=1)
        similarities = full(unit @ unit.T)
        same = pids[:, None] == pids[None]
        positive = same & (similarities < SAME_IMAGE)
        least = similarities.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        most = similarities.masked_fill(same, -torch.inf).amax(1, keepdim=True)
        negative = ~same & (similarities + margin > least)
        positive = positive & (similarities - margin < most)
        counts = positive.any(1) & negative.any(1)
        from_center = similarities - SIMILARITY_CENTER
        pull = _log_one_plus_sum(-POSITIVE_SCALE * from_center, positive) / POSITIVE_SCALE
        push = _log_one_plus_sum(NEGATIVE_SCALE * from_center, negative) / NEGATIVE_SCALE
        return torch.where(counts, pull + push, 0.0).mean()


def _log_one_plus_sum(exponents: Tensor, chosen: Tensor) -> Tensor:
    """Returns log(1 + sum of exp(exponents)) over the chosen entries of each row."""
    return F.pad(exponents.masked_fill(~chosen, -torch.inf), (1, 0)).logsumexp(1)
