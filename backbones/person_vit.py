"""Vision transformers that start from weights trained on images of people, shared by several backbones.

`TransReID-SSL`, `PersonViT` and `PASS` train the same transformer in different ways. All names in the state dict are
those of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.layers import (
    PatchEmbedding,
    camera_parameter,
    camera_term,
    identity_classifier,
    neck_norm,
    patch_grid,
    stride_of,
)
from backbones.parts import HalfInstanceNorm, check_image_size, generalised_mean
from backbones.transreid.vit import initialise, norm_layer, transformer_block
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import load_state, strict_load, unwrap

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
"""Width of a token, blocks, attention heads: ViT-Ti, ViT-S and ViT-B."""

PATCH = 16
POOLS = ("token", "gem", "avg", "avgmax")
POWER = 3.0
"""Exponent of the pool `gem`; fixed, not learned."""
NEIGHBOURS = 4
"""The pool `avgmax` averages over the maxima of so many consecutive patches."""

DEAD = ("base.fc.*",)
"""The ImageNet head in published files, which no forward pass uses."""
START_ONLY = ("fc.*", "masked_embed", "mask_token")
"""Entries of starting files that only pretraining uses."""


class ConvolutionStem(nn.Module):
    """The ICS stem: three 3-pixel convolutions with half instance norm before patches of 8 pixels.

    Args:
        image_size: (height, width) in pixels; `forward` refuses other sizes.
        dim: width of a token.
    """

    CHANNELS = 64

    def __init__(self, image_size: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.image_size = image_size
        patch_grid(image_size, PATCH, PATCH)  # refuses images that are smaller than one patch
        height, width = (-(-side // 2) for side in image_size)  # the first convolution rounds up
        self.grid = patch_grid((height, width), PATCH // 2, PATCH // 2)
        channels = self.CHANNELS
        self.conv = nn.Sequential(
            nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            HalfInstanceNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            HalfInstanceNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.proj = nn.Conv2d(channels, dim, PATCH // 2, stride=PATCH // 2)

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to tokens [B, rows * columns, dim], row by row."""
        check_image_size(images, self.image_size)
        return self.proj(self.conv(images)).flatten(2).transpose(1, 2)


def patches_of(image_size: tuple[int, int], dim: int, stem: str, stride: int) -> PatchEmbedding | ConvolutionStem:
    """Returns the first layer: patches cut directly from the image (`patch`), or the ICS stem (`ics`).

    Raises:
        UsageError: the stem is unknown, or the ICS stem is combined with another stride.
    """
    if stem == "patch":
        return PatchEmbedding(image_size, dim, patch_size=PATCH, stride=stride)
    if stem != "ics":
        raise UsageError(f"stem must be 'patch' or 'ics', found '{stem}'.")
    if stride != PATCH:
        raise UsageError(f"The ICS stem has a fixed stride of {PATCH}, found stride {stride}. Set stride to {PATCH}.")
    return ConvolutionStem(image_size, dim)


def embedding(tokens: int, dim: int) -> nn.Parameter:
    """Learned tokens or positions [1, tokens, dim], drawn from N(0, 0.02^2)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens, dim), std=0.02))


class Encoder(nn.Module):
    """The parts that all these transformers share: the first layer, the blocks and the final norm.

    Subclasses add their learned tokens and positions, and a `forward`.

    Args:
        image_size: (height, width) in pixels.
        size: a key of `SIZES`.
        stem: `patch` or `ics`.
        stride: step between patches in pixels.
        drop_path: rate of stochastic depth in the last block; rates increase linearly from 0.
    """

    def __init__(self, image_size: tuple[int, int], *, size: str, stem: str, stride: int, drop_path: float) -> None:
        super().__init__()
        if size not in SIZES:
            raise UsageError(f"size must be one of {', '.join(SIZES)}, found '{size}'.")
        self.dim, depth, heads = SIZES[size]
        self.patch_embed = patches_of(image_size, self.dim, stem, stride)
        rates = [drop_path * i / (depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(transformer_block(self.dim, heads, rate) for rate in rates)
        self.norm = norm_layer(self.dim)
        self.apply(initialise)

    def encode(self, tokens: Tensor) -> Tensor:
        """Applies blocks and final norm to tokens [B, N, dim]."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class PersonTransformer(Encoder):
    """A vision transformer with one class token and an optional camera embedding, as in TransReID.

    Args:
        image_size: (height, width) in pixels.
        num_cameras: size of the camera embedding, 0 for none.
        **shape: arguments of `Encoder`.
    """

    def __init__(self, image_size: tuple[int, int], *, num_cameras: int, **shape: Any) -> None:
        super().__init__(image_size, **shape)
        self.camera_mode = "on" if num_cameras else "off"
        self.cls_token = embedding(1, self.dim)
        self.pos_embed = embedding(1 + self.patch_embed.num_patches, self.dim)
        self.sie_embed = camera_parameter(num_cameras, self.dim) if num_cameras else None

    def forward(self, images: Tensor, camera_ids: Tensor | None) -> Tensor:
        """Maps images [B, 3, H, W] and cameras [B] to tokens [B, 1 + N, dim], the class token first."""
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        return self.encode(tokens + camera_term(self.sie_embed, camera_ids, self.camera_mode))


class PersonViT(nn.Module):
    """A `PersonTransformer` with a BN neck.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split.
        image_size: (height, width) in pixels.
        size: a key of `SIZES`.
        stem: `patch`, or `ics` for the stem of convolutions.
        stride: step between patches.
        camera_embedding: whether to add the camera embedding to every token; also "on" or "off".
        pool: what the feature is made of, one of `POOLS`.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN neck.
        drop_path: stochastic depth of the last block.
    """

    def __init__(
        self,
        num_classes: int,
        num_cameras: int,
        image_size: tuple[int, int],
        *,
        size: str = "small",
        stem: str = "patch",
        stride: int = PATCH,
        camera_embedding: bool | str = False,
        pool: str = "token",
        neck_feature: str = "before",
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise UsageError(f"pool must be one of {', '.join(POOLS)}, found '{pool}'.")
        check_neck_feature(neck_feature)
        self.pool, self.neck_feature = pool, neck_feature
        cameras = num_cameras if camera_embedding in (True, "on") else 0
        self.base = PersonTransformer(
            image_size, num_cameras=cameras, size=size, stem=stem, stride=stride, drop_path=drop_path
        )
        if pool == "avgmax" and self.base.patch_embed.num_patches < NEIGHBOURS:
            raise UsageError(
                f"The pool 'avgmax' needs at least {NEIGHBOURS} patches, found {self.base.patch_embed.num_patches}; "
                "choose a larger image or another pool."
            )
        self.feature_dim = self.base.dim
        self.bottleneck = neck_norm(self.feature_dim)
        self.classifier = identity_classifier(self.feature_dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """Embeddings, without weight decay under recipes with `no_decay = "model"`; the original code decays them."""
        names = {"base.cls_token", "base.pos_embed", "base.sie_embed"}
        return names & {name for name, _ in self.named_parameters()}

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] and cameras [B] to logits and features, or to the test-time feature."""
        features = pooled(self.base(images, camera_ids), self.pool)
        if not self.training and self.neck_feature == "before":
            return features
        normalised = self.bottleneck(features)
        if not self.training:
            return normalised
        return TrainingOutput([self.classifier(normalised)], [features])

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of this harness, strictly.

        In evaluation mode, a classifier for other identities is ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        load_published(self, state_dict)

    def load_start(self, path: str | Path) -> None:
        """Loads weights trained on images of people, or on ImageNet; camera embedding, neck and classifier stay."""
        load_start(self.base, path, prefix=1)


def check_neck_feature(value: str) -> None:
    """Raises UsageError if the option `neck_feature` is unknown."""
    if value not in ("before", "after"):
        raise UsageError(f"neck_feature must be 'before' or 'after', found '{value}'.")


def pooled(tokens: Tensor, pool: str) -> Tensor:
    """Returns the feature [B, dim] of tokens [B, 1 + N, dim].

    `token` is the class token, `gem` the class token plus the generalised mean of the patches, `avg` the mean of the
    patches, and `avgmax` the mean over the maxima of `NEIGHBOURS` consecutive patches.
    """
    token, patches = tokens[:, 0], tokens[:, 1:]
    if pool == "gem":
        return token + generalised_mean(patches, POWER, dim=1)
    if pool == "avg":
        return patches.mean(dim=1)
    if pool == "avgmax":
        return F.max_pool1d(patches.transpose(1, 2), NEIGHBOURS).mean(dim=2)
    return token


def load_published(module: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Loads a checkpoint strictly; in evaluation mode, a classifier for other identities is ignored."""
    optional = () if module.training else ("classifier*",)
    strict_load(module, unwrap(state_dict), ignore=DEAD, optional=optional)


def load_start(base: Encoder, path: str | Path, *, prefix: int) -> None:
    """Loads the transformer's starting weights, and resizes its positions to the grid of the images.

    Args:
        base: the transformer.
        path: a file of ImageNet weights, or of self-supervised training (the teacher's network is taken).
        prefix: number of rows of `pos_embed` that belong to no patch.
    """
    weights = read_start(path)
    if "pos_embed" in weights:
        weights["pos_embed"] = resize_positions(weights["pos_embed"], base.patch_embed.grid, prefix)
    strict_load(base, weights, ignore=START_ONLY, optional=("sie_embed",))


def read_start(path: str | Path) -> dict[str, Tensor]:
    """Reads the transformer of a starting file, without the heads of its pretraining."""
    state = load_state(path)
    inner = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    return {
        key: value
        for key, value in (inner or state).items()
        if not any(part in key for part in ("head", "dist", "pre_logits"))
    }


def resize_positions(positions: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Resizes a grid of position embeddings: bilinear, half-pixel centres, no antialiasing.

    The grid of the file is square, as for ImageNet, or twice as high as wide, as for images of people.

    Args:
        positions: [1, prefix + N, dim].
        grid: number of rows and columns of the result.
        prefix: number of rows that belong to no patch and stay as they are.

    Returns:
        [1, prefix + rows * columns, dim]

    Raises:
        WeightsError: N is neither a square nor twice a square.
    """
    count = positions.shape[1] - prefix
    if count == grid[0] * grid[1]:
        return positions
    width = math.isqrt(count) if math.isqrt(count) ** 2 == count else math.isqrt(count // 2)
    if width * width not in (count, count / 2):
        raise WeightsError(
            f"pos_embed holds {count} patches, which is no grid of a starting file; load a trained checkpoint with "
            "--checkpoint."
        )
    rows = positions[:, prefix:].reshape(1, count // width, width, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(rows, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :prefix], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def size_of(state: Mapping[str, Tensor]) -> str:
    """Returns the size of a checkpoint's transformer from the width of its final norm.

    Raises:
        WeightsError: it is no transformer of a known size.
    """
    norm = state.get("base.norm.weight")
    size = next((name for name, (dim, _, _) in SIZES.items() if norm is not None and dim == len(norm)), None)
    if size is None or "base.pos_embed" not in state or "base.patch_embed.proj.weight" not in state:
        raise WeightsError("This is no checkpoint of such a transformer: base.norm, base.pos_embed or patches misfit.")
    return size


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the `PersonViT` that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of a `PersonViT`, or no stride gives its number of patches.
    """
    state = unwrap(state_dict)
    options = {"size": size_of(state)}
    if "base.cls_pos" in state:
        raise WeightsError("This is a checkpoint of PASS, which has part tokens. Pass --backbone pass.")
    cameras, classifier = state.get("base.sie_embed"), state.get("classifier.weight")
    ics = "base.patch_embed.conv.0.weight" in state
    stride = PATCH if ics else stride_of(state["base.pos_embed"].shape[1] - 1, image_size, PATCH)
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0 if cameras is None else len(cameras),
        "options": {
            **options,
            "stem": "ics" if ics else "patch",
            "stride": stride,
            "camera_embedding": cameras is not None,
        },
    }
