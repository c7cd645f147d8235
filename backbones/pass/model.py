"""PASS (Zhu et al. 2022): a ViT with three part tokens beside the class token, trained first on images of people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.layers import identity_classifier, neck_norm, stride_of
from backbones.person_vit import (
    PATCH,
    Encoder,
    check_neck_feature,
    embedding,
    load_published,
    load_start,
    size_of,
)
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import unwrap

PARTS = 3
TOKENS = ("cls_token", *(f"part_token{part}" for part in range(1, PARTS + 1)))
POSITIONS = ("cls_pos", *(f"part{part}_pos" for part in range(1, PARTS + 1)))


class PartTransformer(Encoder):
    """A vision transformer with a class token and three part tokens; each has its own position.

    Args:
        image_size: (height, width) in pixels.
        **shape: arguments of `Encoder`.
    """

    def __init__(self, image_size: tuple[int, int], **shape: Any) -> None:
        super().__init__(image_size, **shape)
        for name in (*TOKENS, *POSITIONS):
            self.register_parameter(name, embedding(1, self.dim))
        self.pos_embed = embedding(self.patch_embed.num_patches, self.dim)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to the class token and the part tokens [B, 1 + PARTS, dim]."""
        patches = self.patch_embed(images) + self.pos_embed
        special = torch.cat([self.get_parameter(name) for name in TOKENS], dim=1)
        special = special + torch.cat([self.get_parameter(name) for name in POSITIONS], dim=1)
        tokens = torch.cat([special.expand(patches.shape[0], -1, -1), patches], dim=1)
        return self.encode(tokens)[:, : 1 + PARTS]


class PartAware(nn.Module):
    """The PASS network.

    Args:
        num_classes: number of identities of the training split.
        image_size: (height, width) in pixels.
        size: `small` or `base`.
        stride: step between patches.
        part_fusion: the feature is the class token and the mean part token: side by side (`cat`), or their `mean`.
        necks: `multi` normalises each token by its own BN neck, `single` the fused feature.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN necks.
        drop_path: stochastic depth of the last block.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        size: str = "small",
        stride: int = PATCH,
        part_fusion: str = "cat",
        necks: str = "multi",
        neck_feature: str = "before",
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if part_fusion not in ("cat", "mean"):
            raise UsageError(f"pass.part_fusion must be 'cat' or 'mean', found '{part_fusion}'.")
        if necks not in ("multi", "single"):
            raise UsageError(f"pass.necks must be 'multi' or 'single', found '{necks}'.")
        check_neck_feature(neck_feature)
        self.part_fusion, self.necks, self.neck_feature = part_fusion, necks, neck_feature
        self.base = PartTransformer(image_size, size=size, stem="patch", stride=stride, drop_path=drop_path)
        dim = self.base.dim
        self.feature_dim = 2 * dim if part_fusion == "cat" else dim
        self.neck_names = ["bottleneck", *(f"bottleneck_{part}" for part in range(1, PARTS + 1))]
        for name in self.neck_names if necks == "multi" else self.neck_names[:1]:
            self.add_module(name, neck_norm(dim if necks == "multi" else self.feature_dim))
        self.classifier = identity_classifier(self.feature_dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """Embeddings, without weight decay under recipes with `no_decay = "model"`; the original code decays them."""
        return {f"base.{name}" for name in (*TOKENS, *POSITIONS, "pos_embed")}

    def fused(self, tokens: Tensor) -> Tensor:
        """Returns the feature [B, feature_dim] of the class token and the part tokens [B, 1 + PARTS, dim]."""
        whole, parts = tokens[:, 0], tokens[:, 1:].mean(dim=1)
        return torch.cat([whole, parts], dim=1) if self.part_fusion == "cat" else (whole + parts) / 2

    def normalised(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Returns the feature after the BN necks."""
        if self.necks == "single":
            return self.get_submodule("bottleneck")(features)
        each = zip(self.neck_names, tokens.unbind(1), strict=True)
        return self.fused(torch.stack([self.get_submodule(name)(token) for name, token in each], dim=1))

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        tokens = self.base(images)
        features = self.fused(tokens)
        if not self.training and self.neck_feature == "before":
            return features
        normalised = self.normalised(tokens, features)
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


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> PartAware:
    """Builds PASS.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels.
        pretrained: path of the starting weights; `None` for a random start.
        **options: options of `PartAware`.
    """
    module = PartAware(num_classes, image_size, **options)
    if pretrained is not None:
        load_start(module.base, pretrained, prefix=0)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of PASS, or no stride gives its number of patches.
    """
    state = unwrap(state_dict)
    size = size_of(state)
    if "base.cls_pos" not in state:
        raise WeightsError("This is no checkpoint of PASS: it lacks base.cls_pos.")
    classifier, dim = state.get("classifier.weight"), len(state["base.norm.weight"])
    neck = state.get("bottleneck.weight")
    multi = "bottleneck_1.weight" in state
    width = classifier.shape[1] if classifier is not None else 2 * dim if multi or neck is None else len(neck)
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0,
        "options": {
            "size": size,
            "stride": stride_of(state["base.pos_embed"].shape[1], image_size, PATCH),
            "part_fusion": "cat" if width == 2 * dim else "mean",
            "necks": "multi" if multi else "single",
        },
    }
