"""CLIP-ReID, image side (Li et al. 2023): CLIP's image encoder with two BN necks and a camera embedding.

The text side is missing: learned prompts, text encoder, and the training in two stages. Checkpoints of the whole method
can be scored, because their features come from the images alone.

The state dict has the names of the published checkpoints, so these and our own are loaded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.clip_reid.start import load_start
from backbones.clip_reid.vit import PATCH, WIDTHS, ImageEncoder
from backbones.layers import camera_term, identity_classifier, neck_norm, stride_of
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import strict_load, unwrap

TEXT_SIDE = ("prompt_learner.*", "text_encoder.*")
"""Entries in checkpoints of the whole method that no feature of an image depends on."""

EMBEDDINGS = ("cv_embed", "image_encoder.class_embedding", "image_encoder.positional_embedding")


class ClipReID(nn.Module):
    """The image side of CLIP-ReID.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split.
        image_size: (height, width) in pixels.
        stride: step between patches.
        camera_embedding: whether to add the camera embedding to the class token; also "on" or "off".
        camera_coefficient: weight of the camera embedding (`SIE_COE`), which no checkpoint contains.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN necks.
        width: `base` (ViT-B) or `tiny` (tests).
    """

    def __init__(
        self,
        num_classes: int,
        num_cameras: int,
        image_size: tuple[int, int],
        *,
        stride: int = PATCH,
        camera_embedding: bool | str = False,
        camera_coefficient: float = 1.0,
        neck_feature: str = "before",
        width: str = "base",
    ) -> None:
        super().__init__()
        if neck_feature not in ("before", "after"):
            raise UsageError(f"clip-reid.neck_feature must be 'before' or 'after', found '{neck_feature}'.")
        self.neck_feature, self.camera_coefficient = neck_feature, camera_coefficient
        self.image_encoder = ImageEncoder(image_size, width=width, stride=stride)
        dim, out_dim = self.image_encoder.dim, self.image_encoder.out_dim
        cameras = num_cameras if camera_embedding in (True, "on") else 0
        self.camera_mode = "on" if cameras else "off"
        embedding = nn.init.trunc_normal_(torch.empty(cameras, dim), std=0.02) if cameras else None
        self.cv_embed = None if embedding is None else nn.Parameter(embedding)
        self.bottleneck, self.bottleneck_proj = neck_norm(dim), neck_norm(out_dim)
        self.classifier = identity_classifier(dim, num_classes)
        self.classifier_proj = identity_classifier(out_dim, num_classes)
        self.feature_dim = dim + out_dim

    def no_weight_decay(self) -> set[str]:
        """Embeddings, without weight decay under recipes with `no_decay = "model"`; the original code decays them."""
        return set(EMBEDDINGS) & {name for name, _ in self.named_parameters()}

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] and cameras [B] to logits and features, or to the test-time feature.

        In training, there are two logits but three features: the first is the class token before the last block.
        """
        cameras = None if self.cv_embed is None else self.cv_embed[:, None]
        term = camera_term(cameras, camera_ids, self.camera_mode, self.camera_coefficient)
        earlier, feature, projected = self.image_encoder(images, term)
        if not self.training and self.neck_feature == "before":
            return torch.cat([feature, projected], dim=1)
        normalised, normalised_proj = self.bottleneck(feature), self.bottleneck_proj(projected)
        if not self.training:
            return torch.cat([normalised, normalised_proj], dim=1)
        logits = [self.classifier(normalised), self.classifier_proj(normalised_proj)]
        return TrainingOutput(logits, [earlier, feature, projected])

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of this harness, strictly, without its text side.

        In evaluation mode, classifiers for other identities are ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        optional = () if self.training else ("classifier*",)
        strict_load(self, unwrap(state_dict), ignore=TEXT_SIDE, optional=optional)


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> ClipReID:
    """Builds the image side of CLIP-ReID.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split.
        image_size: (height, width) in pixels.
        pretrained: path of CLIP's weights; `None` for a random start.
        **options: options of `ClipReID`.
    """
    module = ClipReID(num_classes, num_cameras, image_size, **options)
    if pretrained is not None:
        load_start(module.image_encoder, pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of CLIP-ReID with a transformer, or no stride gives its number of patches.
    """
    state = unwrap(state_dict)
    if "image_encoder.layer1.0.conv1.weight" in state:
        raise WeightsError("This is a checkpoint of CLIP-ReID with ResNet-50. The harness has only its ViT-B/16.")
    positions = state.get("image_encoder.positional_embedding")
    if positions is None or positions.dim() != 2:
        raise WeightsError("This is no checkpoint of CLIP-ReID: image_encoder.positional_embedding misfits.")
    count, dim = positions.shape
    width = next((name for name, (known, *_) in WIDTHS.items() if known == dim), None)
    if width is None:
        raise WeightsError(f"This checkpoint of CLIP-ReID has tokens of {dim} numbers; 768 are known.")
    cameras, classifier = state.get("cv_embed"), state.get("classifier.weight")
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0 if cameras is None else len(cameras),
        "options": {
            "stride": stride_of(count - 1, image_size, PATCH),
            "camera_embedding": cameras is not None,
            "width": width,
        },
    }
