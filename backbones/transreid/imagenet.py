"""Initialises TransReID from ImageNet weights with timm's names; position embeddings are resized as in its code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from harness.errors import WeightsError
from harness.weights import load_state


def read(path: str | Path) -> dict[str, Tensor]:
    """Reads ViT-B/16 or DeiT-B/16 weights in timm's or Google's (.npz) format, without head and distillation token."""
    if Path(path).suffix == ".npz":
        converter = VisionTransformer(weight_init="skip")
        try:
            converter.load_pretrained(str(path))
        except (KeyError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} is not a ViT-B/16 of Google's .npz layout ({error}).") from error
        state = converter.state_dict()
    else:
        state = load_state(path)
    if "dist_token" in state and "pos_embed" in state:  # DeiT's distillation token, which TransReID leaves out
        state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], state["pos_embed"][:, 2:]], dim=1)
    return {key: value for key, value in state.items() if not any(part in key for part in ("head", "dist"))}


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes a square grid of position embeddings: bilinear, half-pixel centres, no antialiasing.

    timm's default, bicubic with antialiasing, would give other weights (TransReID, vit_pytorch.py:436-450).

    Args:
        positions: [1, 1 + side * side, D], class token first.
        grid: number of rows and columns of the result.

    Returns:
        [1, 1 + rows * columns, D]
    """
    side = int((positions.shape[1] - 1) ** 0.5)
    if side * side != positions.shape[1] - 1:
        raise WeightsError(
            f"pos_embed holds {positions.shape[1] - 1} patches, which is no square grid: this file is not an "
            "ImageNet start; load a trained checkpoint with --checkpoint."
        )
    if positions.shape[1] == 1 + grid[0] * grid[1]:
        return positions
    square = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def under_own_names(weights: Mapping[str, Tensor], last: int, jpm: bool) -> dict[str, Tensor]:
    """Renames timm's entries to TransReID's: below `base.`; JPM's branches get copies of the last block and norm."""
    state: dict[str, Tensor] = {}
    for key, value in weights.items():
        if jpm and key.startswith(f"blocks.{last}."):
            leaf = key.removeprefix(f"blocks.{last}.")
            state |= {f"b1.0.{leaf}": value, f"b2.0.{leaf}": value}
        elif jpm and key.startswith("norm."):
            leaf = key.removeprefix("norm.")
            state |= {f"b1.1.{leaf}": value, f"b2.1.{leaf}": value}
        else:
            state[f"base.{key}"] = value
    return state
