"""The image encoder of CLIP (Radford et al. 2021): a vision transformer with a projection, under CLIP's own names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.layers import patch_grid
from backbones.parts import check_image_size
from backbones.transreid.vit import initialise
from harness.errors import UsageError

WIDTHS = {"base": (768, 12, 12, 512), "tiny": (96, 4, 4, 64)}
"""Width of a token, blocks, attention heads, width of the projection; `base` is ViT-B/16, `tiny` is for tests."""

PATCH = 16


class QuickGELU(nn.Module):
    """The activation of CLIP, an approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps any tensor to one of the same shape."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Self-attention with the names of torch's `MultiheadAttention`.

    It always uses `scaled_dot_product_attention`, so that speed is comparable.

    Args:
        dim: width of a token.
        heads: number of heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(3 * dim, dim), std=0.02))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, N, dim] to the same shape."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(dim, heads)
        self.ln_1 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * dim, dim))
        self.ln_2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, N, dim] to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """The blocks, one after the other."""

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps tokens [B, N, dim] to those before and after the last block."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x)
        return x, last(x)


class ImageEncoder(nn.Module):
    """CLIP's image encoder.

    Args:
        image_size: (height, width) in pixels; `forward` refuses other sizes.
        width: a key of `WIDTHS`.
        stride: step between patches in pixels.
    """

    def __init__(self, image_size: tuple[int, int], *, width: str, stride: int) -> None:
        super().__init__()
        if width not in WIDTHS:
            raise UsageError(f"clip-reid.width must be one of {', '.join(WIDTHS)}, found '{width}'.")
        self.image_size, self.grid = image_size, patch_grid(image_size, PATCH, stride)
        self.dim, depth, heads, self.out_dim = WIDTHS[width]
        scale = self.dim**-0.5
        self.conv1 = nn.Conv2d(3, self.dim, PATCH, stride=stride, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(self.dim))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + self.grid[0] * self.grid[1], self.dim))
        self.ln_pre = nn.LayerNorm(self.dim)
        self.transformer = Transformer(self.dim, depth, heads)
        self.ln_post = nn.LayerNorm(self.dim)
        self.proj = nn.Parameter(scale * torch.randn(self.dim, self.out_dim))
        self.apply(initialise)

    def forward(self, images: Tensor, class_term: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the class token.

        Args:
            images: [B, 3, H, W].
            class_term: [B, 1, dim], what to add to the class token at the start.

        Returns:
            The class token before the last block [B, dim], the one at the end [B, dim], and the projection of the
            latter [B, out_dim].
        """
        check_image_size(images, self.image_size)
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = (self.class_embedding + class_term).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positional_embedding
        before, after = self.transformer(self.ln_pre(tokens))
        feature = self.ln_post(after[:, 0])
        return before[:, 0], feature, feature @ self.proj
