"""Losses of the identity: cross-entropy with label smoothing, and center loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from harness.errors import UsageError
from harness.losses.precision import full, no_autocast


def cross_entropy(logits: Tensor, pids: Tensor, label_smoothing: float, smoothing_over: str = "all") -> Tensor:
    """Cross-entropy of the identity classifier, with label smoothing.

    Args:
        logits: [B, C].
        pids: class of each image, [B].
        label_smoothing: eps, at least 0 and below 1.
        smoothing_over: "all" gives eps / C to every class (BoT, arXiv 1903.07071, section 3.3; PyTorch).
            "others" gives eps / (C - 1) to every wrong class and 1 - eps to the right one (ReIDMamba's code).

    Returns:
        The mean over the batch, a scalar.

    Raises:
        UsageError: `smoothing_over` is neither.
    """
    if smoothing_over not in ("others", "all"):
        raise UsageError(f"smoothing_over must be 'others' or 'all', found '{smoothing_over}'.")
    with no_autocast(logits):
        log_likelihood = F.log_softmax(full(logits), dim=1)
        right = -log_likelihood.gather(1, pids[:, None]).squeeze(1)
        if label_smoothing == 0:
            return right.mean()
        every, classes = -log_likelihood.sum(1), logits.shape[1]
        if smoothing_over == "all":
            return ((1 - label_smoothing) * right + label_smoothing / classes * every).mean()
        return ((1 - label_smoothing) * right + label_smoothing / max(classes - 1, 1) * (every - right)).mean()


def center(features: Tensor, pids: Tensor, centers: Tensor) -> Tensor:
    """Center loss (Wen et al. 2016) as in BoT (arXiv 1903.07071, section 3.6).

    Args:
        features: [B, D], not normalised.
        pids: class of each image, [B].
        centers: center of each class, [C, D].

    Returns:
        Mean squared distance of each feature to the center of its class, without the factor 1/2; a scalar.
    """
    with no_autocast(features):
        return (full(features) - centers[pids]).square().sum(1).mean()
