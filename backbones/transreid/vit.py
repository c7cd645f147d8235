"""A vision transformer with overlapping patches and camera embedding, made of timm's blocks, with timm's names."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from backbones.layers import PatchEmbedding, camera_parameter, camera_term
from harness.errors import UsageError

WIDTHS = {"base": (768, 12, 12), "tiny": (96, 4, 4)}
"""Width of a token, blocks, attention heads; `base` is ViT-B, `tiny` is for demonstrations on a CPU."""

norm_layer = partial(nn.LayerNorm, eps=1e-6)


def transformer_block(dim: int, heads: int, drop_path: float) -> Block:
    """A pre-norm block of timm. It always uses `scaled_dot_product_attention`, so that speed is comparable."""
    norm: Any = norm_layer
    block = Block(dim, heads, mlp_ratio=4.0, qkv_bias=True, drop_path=drop_path, norm_layer=norm)
    setattr(block.attn, "fused_attn", True)  # noqa: B010, a plain attribute of the module
    return block


def initialise(module: nn.Module) -> None:
    """Draws linear weights from N(0, 0.02^2) and zeroes their biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class VisionTransformer(nn.Module):
    """A vision transformer without head, which returns the tokens.

    Args:
        image_size: (height, width) in pixels.
        width: a key of `WIDTHS`.
        patch_size: side of a patch in pixels.
        stride: step between patches in pixels.
        num_cameras: size of the camera embedding, 0 for none.
        drop_path: rate of stochastic depth in the last block; rates increase linearly from 0.
        leave_out: number of blocks at the end that the caller builds itself, together with the final norm.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        width: str,
        patch_size: int,
        stride: int,
        num_cameras: int,
        drop_path: float,
        leave_out: int,
    ) -> None:
        super().__init__()
        if width not in WIDTHS:
            raise UsageError(f"transreid.width must be one of {', '.join(WIDTHS)}, found '{width}'.")
        self.dim, depth, self.heads = WIDTHS[width]
        rates = [drop_path * i / (depth - 1) for i in range(depth)]
        self.camera_mode = "on" if num_cameras else "off"
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, self.dim), std=0.02))
        self.patch_embed = PatchEmbedding(image_size, self.dim, patch_size=patch_size, stride=stride)
        positions = torch.empty(1, 1 + self.patch_embed.num_patches, self.dim)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(positions, std=0.02))
        self.sie_embed = camera_parameter(num_cameras, self.dim) if num_cameras else None
        self.blocks = nn.ModuleList(transformer_block(self.dim, self.heads, r) for r in rates[: depth - leave_out])
        self.norm = nn.Identity() if leave_out else norm_layer(self.dim)
        self.apply(initialise)

    def forward(self, images: Tensor, camera_ids: Tensor | None) -> Tensor:
        """Maps images [B, 3, H, W] and cameras [B] to tokens [B, 1 + N, dim], the class token first."""
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        tokens = tokens + camera_term(self.sie_embed, camera_ids, self.camera_mode)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)
