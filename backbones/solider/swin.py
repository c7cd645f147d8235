"""The Swin transformer of SOLIDER, with timm's window attention and the names of the original code.

It differs from timm's Swin in three things:

- Maps are padded to whole windows before they are shifted, not after. Padded positions take part in attention.
- Every second block shifts and masks its windows, also where a single window covers the map.
- Merged patches are in another order: by channel first, then by position.
"""

from __future__ import annotations

import itertools

import torch
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.layers import DropPath
from backbones.parts import check_image_size
from harness.errors import UsageError

SIZES = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
"""Width of the first stage, blocks per stage, heads per stage: Swin-T, Swin-S and Swin-B."""

PATCH = 4
WINDOW = 7
SHIFT = WINDOW // 2
HIDDEN = -100.0
"""What is added to the attention between parts of a window that are no neighbours in the image."""


def _initialise(module: nn.Module) -> None:
    """Draws linear weights from N(0, 0.02^2) and zeroes their biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def shift_mask(height: int, width: int) -> Tensor:
    """Returns the mask of a shifted map whose sides are multiples of `WINDOW`.

    Returns:
        [windows, WINDOW^2, WINDOW^2]: 0 between positions that are neighbours without the shift, else `HIDDEN`.
    """
    parts = torch.zeros(1, height, width, 1)
    sides = (slice(0, -WINDOW), slice(-WINDOW, -SHIFT), slice(-SHIFT, None))
    for number, (rows, columns) in enumerate(itertools.product(sides, sides)):
        parts[:, rows, columns] = number
    windows = window_partition(parts, (WINDOW, WINDOW)).flatten(1)
    return HIDDEN * (windows[:, None] != windows[:, :, None])


class ShiftedWindows(nn.Module):
    """Attention within windows of a map that is first padded, and then shifted in every second block.

    Args:
        dim: width of a token.
        heads: number of heads.
        grid: (height, width) of the map.
        shifted: whether to shift the map.
    """

    mask: Tensor | None

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], *, shifted: bool) -> None:
        super().__init__()
        self.w_msa = WindowAttention(dim, heads, window_size=WINDOW)
        setattr(self.w_msa, "fused_attn", True)  # noqa: B010, scaled_dot_product_attention, as in other transformers
        self.bottom, self.right = (-side % WINDOW for side in grid)
        height, width = grid[0] + self.bottom, grid[1] + self.right
        self.register_buffer("mask", shift_mask(height, width) if shifted else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, height, width, dim] to the same shape."""
        _, height, width, _ = x.shape
        x = F.pad(x, (0, 0, 0, self.right, 0, self.bottom))
        if self.mask is not None:
            x = x.roll((-SHIFT, -SHIFT), dims=(1, 2))
        windows = window_partition(x, (WINDOW, WINDOW)).flatten(1, 2)
        windows = self.w_msa(windows, self.mask).unflatten(1, (WINDOW, WINDOW))
        x = window_reverse(windows, (WINDOW, WINDOW), x.shape[1], x.shape[2])
        if self.mask is not None:
            x = x.roll((SHIFT, SHIFT), dims=(1, 2))
        return x[:, :height, :width]


class FeedForward(nn.Module):
    """Two linear layers, under the names of the original code."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU()), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [..., dim] to the same shape."""
        return self.layers(x)


class Block(nn.Module):
    """A pre-norm block of window attention; see `ShiftedWindows` for the arguments."""

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], *, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ShiftedWindows(dim, heads, grid, shifted=shifted)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim)
        self.drop = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, height, width, dim] to the same shape."""
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.ffn(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Patches without overlap; images are padded at the bottom and the right to whole patches."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to tokens [B, rows, columns, dim]."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        return self.norm(self.projection(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Merges squares of four tokens into one of twice the width; odd maps are padded."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, height, width, dim] to [B, height / 2, width / 2, 2 * dim]."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        squares = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, height / 2, 2, width / 2, 2, dim]
        return self.reduction(self.norm(squares.permute(0, 1, 3, 5, 2, 4).flatten(3)))


class Stage(nn.Module):
    """Blocks of one width, and the step to the next stage, except in the last."""

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], rates: list[float], *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, grid, shifted=i % 2 == 1, drop_path=rate) for i, rate in enumerate(rates)
        )
        self.downsample = nn.Identity() if last else PatchMerging(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, height, width, dim] to those of the next stage."""
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class SemanticSwin(nn.Module):
    """Swin with SOLIDER's controller, which scales and shifts the tokens of each stage by a semantic weight.

    The controller's layers are trained in pretraining only; they are frozen here, as in the original code.

    Args:
        image_size: (height, width) in pixels; `forward` refuses other sizes.
        size: a key of `SIZES`.
        semantic_weight: from 0 (appearance) to 1 (semantics); `None` builds no controller.
        drop_path: rate of stochastic depth in the last block; rates increase linearly from 0.
    """

    weight: Tensor

    def __init__(
        self, image_size: tuple[int, int], *, size: str, semantic_weight: float | None, drop_path: float
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise UsageError(f"solider.size must be one of {', '.join(SIZES)}, found '{size}'.")
        width, depths, heads = SIZES[size]
        self.image_size, dims = image_size, [width * 2**stage for stage in range(len(depths))]
        self.patch_embed = PatchEmbedding(width)
        rates = iter([drop_path * i / (sum(depths) - 1) for i in range(sum(depths))])
        self.stages = nn.ModuleList()
        for stage, dim in enumerate(dims):
            reduction = PATCH * 2**stage
            grid = (-(-image_size[0] // reduction), -(-image_size[1] // reduction))  # rounded up
            own = list(itertools.islice(rates, depths[stage]))
            self.stages.append(Stage(dim, heads[stage], grid, own, last=dim == dims[-1]))
        self.norm3 = nn.LayerNorm(dims[-1])
        self.controlled, self.dim = semantic_weight is not None, dims[-1]
        if semantic_weight is not None:
            self.semantic_embed_w = nn.ModuleList(nn.Linear(2, dim) for dim in dims[1:]).requires_grad_(False)
            self.semantic_embed_b = nn.ModuleList(nn.Linear(2, dim) for dim in dims[1:]).requires_grad_(False)
            weight = torch.tensor([semantic_weight, 1 - semantic_weight])
            self.register_buffer("weight", weight, persistent=False)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to features [B, dim], the mean over the last map."""
        check_image_size(images, self.image_size)
        x = self.patch_embed(images)
        *earlier, last = self.stages
        for i, stage in enumerate(earlier):
            x = stage(x)
            if self.controlled:
                scale, shift = self.semantic_embed_w[i](self.weight), self.semantic_embed_b[i](self.weight)
                x = x * F.softplus(scale) + shift
        return self.norm3(last(x)).mean(dim=(1, 2))
