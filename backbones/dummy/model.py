"""Colour histograms of horizontal stripes: a baseline for every trained backbone, and a quick test of the program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.weights import strict_load, unwrap

BINS = 8


class ColourHistogram(nn.Module):
    """RGB histogram, 8x8x8 bins, of each horizontal stripe; no parameters, no training.

    Args:
        stripes: number of horizontal stripes of equal height.
    """

    def __init__(self, *, stripes: int = 6) -> None:
        super().__init__()
        if stripes < 1:
            raise UsageError(f"dummy.stripes must be at least 1, found {stripes}.")
        self.stripes = stripes
        self.feature_dim = stripes * BINS**3

    def no_weight_decay(self) -> set[str]:
        """An empty set, because there are no parameters."""
        return set()

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> Tensor:
        """Maps colours in [0, 1], [B, 3, H, W] (the card's mean is 0 and its std 1), to [B, stripes * 512].

        Raises:
            UsageError: the module is in training mode.
        """
        if self.training:
            raise UsageError("The backbone 'dummy' has nothing to train; call eval(), or choose another backbone.")
        batch, _, height, width = images.shape
        levels = (images.float() * BINS).long().clamp(0, BINS - 1)
        colours = (levels[:, 0] * BINS + levels[:, 1]) * BINS + levels[:, 2]
        stripe = torch.arange(height, device=images.device) * self.stripes // height
        cells = (colours + (stripe * BINS**3)[:, None]).flatten(1)
        counts = torch.zeros(batch, self.feature_dim, device=images.device)
        counts.scatter_add_(1, cells, torch.ones_like(cells, dtype=counts.dtype))
        return counts / (height * width)

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Refuses checkpoints with tensors, because the histogram has no parameters."""
        strict_load(self, unwrap(state_dict))


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> ColourHistogram:
    """Builds the histogram; only `stripes` changes it."""
    return ColourHistogram(**options)


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Raises `UsageError`, because the histogram has no checkpoints."""
    raise UsageError("The backbone 'dummy' has no checkpoints; run it without --checkpoint.")
