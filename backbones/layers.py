"""Modules that several backbones share: overlapping patches, the BN neck, the camera embedding."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.errors import UsageError, WeightsError

CAMERA_COEFFICIENT = 3.0
"""Weight of the camera embedding in TransReID's and ReIDMamba's code (`SIE_COE`)."""

CAMERA_MODES = ("on", "off", "mean")
"""`on`: the embedding of each image's camera; `off`: none; `mean`: the mean over all trained cameras."""


def neck_norm(dim: int) -> nn.BatchNorm1d:
    """Batch norm of the BN neck: weight one, bias zero and frozen (Luo et al. 2019, section 3.5)."""
    norm = nn.BatchNorm1d(dim)
    norm.bias.requires_grad_(False)
    return norm


def identity_classifier(dim: int, num_classes: int) -> nn.Linear:
    """Bias-free classifier over the training identities, weights from N(0, 0.001^2)."""
    classifier = nn.Linear(dim, num_classes, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier


class BNNeck(nn.Module):
    """BN neck with its classifier, as `bn` and `cls` in the state dict.

    Backbones whose published files have other names for the two (`bottleneck`, `classifier`) build them with
    `neck_norm` and `identity_classifier`.

    Args:
        dim: width of the feature.
        num_classes: number of identities of the training split.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.bn = neck_norm(dim)
        self.cls = identity_classifier(dim, num_classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features [B, dim] to (normalised features [B, dim], logits [B, num_classes])."""
        normalised = self.bn(features)
        return normalised, self.cls(normalised)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, drops each sample with a probability, and scales the others.

    Like timm's, but the rate is a tensor: `torch.compile` would compile a block again for every other number.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop_prob = rate  # to be read by people; a number that `forward` reads would be a constant of its code
        self.keep: Tensor
        self.register_buffer("keep", torch.tensor(1.0 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, ...] to the same shape."""
        if not self.training:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) < self.keep
        return x * kept / self.keep


def patch_grid(image_size: Iterable[int], patch_size: int, stride: int) -> tuple[int, int]:
    """Returns the number of rows and columns of patches: `(side - patch) // stride + 1`.

    Raises:
        UsageError: the image is smaller than one patch.
    """
    height, width = image_size
    if min(height, width) < patch_size or stride < 1:
        raise UsageError(
            f"An image of {height}x{width} has no patch of {patch_size}x{patch_size} at stride {stride}; "
            "choose a larger image, a smaller patch_size, or a stride of at least 1."
        )
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


def stride_of(num_patches: int, image_size: Iterable[int], patch_size: int) -> int:
    """Returns the largest stride that gives `num_patches`, the length of a checkpoint's position embedding.

    Raises:
        WeightsError: no stride gives this number.
    """
    height, width = image_size
    for stride in range(patch_size, 0, -1):
        if math.prod(patch_grid((height, width), patch_size, stride)) == num_patches:
            return stride
    raise WeightsError(
        f"The checkpoint has {num_patches} patches, which no stride up to {patch_size} gives at {height}x{width}; "
        "give the image size it was trained at."
    )


class PatchEmbedding(nn.Module):
    """Overlapping patches: a convolution whose stride may be smaller than its kernel, `proj` in the state dict.

    Args:
        image_size: (height, width) in pixels; `forward` refuses other sizes.
        dim: width of a token.
        patch_size: side of a patch.
        stride: step between patches.
    """

    def __init__(self, image_size: Iterable[int], dim: int, *, patch_size: int = 16, stride: int = 16) -> None:
        super().__init__()
        height, width = image_size
        self.image_size = (height, width)
        self.grid = patch_grid(self.image_size, patch_size, stride)
        self.proj = nn.Conv2d(3, dim, patch_size, stride=stride)
        nn.init.normal_(self.proj.weight, std=math.sqrt(2 / (patch_size * patch_size * dim)))

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to tokens [B, rows * columns, dim], row by row."""
        if tuple(images.shape[-2:]) != self.image_size:
            raise UsageError(
                f"The model was built for images of {self.image_size[0]}x{self.image_size[1]}, found "
                f"{images.shape[-2]}x{images.shape[-1]}; build it with image_size of the data."
            )
        return self.proj(images).flatten(2).transpose(1, 2)


def camera_parameter(num_cameras: int, dim: int) -> nn.Parameter:
    """Camera embedding (SIE) [num_cameras, 1, dim], drawn from N(0, 0.02^2)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(num_cameras, 1, dim), std=0.02))


def camera_term(
    embedding: Tensor | None, camera_ids: Tensor | None, mode: str = "on", coefficient: float = CAMERA_COEFFICIENT
) -> Tensor | float:
    """Returns the term to add to every token: `coefficient * embedding[camera_ids]`.

    Args:
        embedding: [C, 1, D], or `None` for a model without camera embedding.
        camera_ids: [B], zero-based; on the CPU, so that checking their range does not wait for the device. Compiled
            code does not check it.
        mode: one of `CAMERA_MODES`.
        coefficient: weight of the embedding.

    Returns:
        [B, 1, D], [1, 1, D] for the mean, or 0.0 for no embedding.

    Raises:
        UsageError: the mode is unknown, camera ids are missing, or the model has no embedding of a camera.
    """
    if mode not in CAMERA_MODES:
        raise UsageError(f"Camera embedding '{mode}' is none of {', '.join(CAMERA_MODES)}.")
    if embedding is None or mode == "off":
        return 0.0
    if mode == "mean":
        return coefficient * embedding.mean(dim=0, keepdim=True)
    if camera_ids is None:
        raise UsageError("This model needs the camera of each image; give camera ids, or --camera-embedding off.")
    if not torch.compiler.is_compiling():  # the range is a value, which a compiled graph cannot depend on
        _check_cameras(camera_ids, len(embedding))
    return coefficient * embedding[camera_ids.to(embedding.device, non_blocking=True)]


def _check_cameras(camera_ids: Tensor, cameras: int) -> None:
    """Raises UsageError if a camera has no embedding."""
    low, high = (int(v) for v in torch.aminmax(camera_ids))
    if low < 0 or high >= cameras:
        raise UsageError(
            f"Camera {high if high >= cameras else low} is outside the {cameras} cameras (0 to "
            f"{cameras - 1}) this model was trained with; for images of another dataset use "
            "--camera-embedding mean, or --camera-embedding off."
        )
