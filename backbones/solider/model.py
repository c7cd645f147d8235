"""SOLIDER (Chen et al. 2023): a Swin transformer with a semantic controller, trained first on images of people.

The state dict has the names of the published checkpoints, so these and our own are loaded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones.layers import identity_classifier, neck_norm
from backbones.person_vit import check_neck_feature, read_start
from backbones.solider.swin import SIZES, SemanticSwin
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import strict_load, unwrap

DEAD = ("norm[012].*", "semantic_embed_?.3.*", "stages.*.relative_position_index")
"""Entries of the transformer in published files that no feature depends on: norms of maps that are not used, the
controller after the last stage, and a table that is computed."""

CONTROLLER = "semantic_embed_*"


class SOLIDER(nn.Module):
    """SOLIDER's Swin transformer with a BN neck.

    Args:
        num_classes: number of identities of the training split.
        image_size: (height, width) in pixels.
        size: a key of `SIZES`.
        semantic_weight: number from 0 to 1, or "off" for a network without controller. No checkpoint contains it.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN neck.
        drop_path: stochastic depth of the last block.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        size: str = "small",
        semantic_weight: float | str = 0.2,
        neck_feature: str = "before",
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        check_neck_feature(neck_feature)
        self.neck_feature = neck_feature
        weight = None if semantic_weight == "off" else _checked(semantic_weight)
        self.base = SemanticSwin(image_size, size=size, semantic_weight=weight, drop_path=drop_path)
        self.unused = DEAD if self.base.controlled else (*DEAD, CONTROLLER)
        self.feature_dim = self.base.dim
        self.bottleneck = neck_norm(self.feature_dim)
        self.classifier = identity_classifier(self.feature_dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """Position biases, without weight decay under recipes with `no_decay = "model"`; the original decays them."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        features = self.base(images)
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
        optional = () if self.training else ("classifier*",)
        unused = [f"base.{pattern}" for pattern in self.unused]
        strict_load(self, unwrap(state_dict), ignore=unused, optional=optional)

    def load_start(self, path: str | Path) -> None:
        """Loads weights trained on images of people into the transformer; neck and classifier stay."""
        strict_load(self.base, read_start(path), ignore=self.unused)


def _checked(weight: float | str) -> float:
    """Returns the semantic weight as a number.

    Raises:
        UsageError: it is no number from 0 to 1.
    """
    if isinstance(weight, (int, float)) and 0 <= weight <= 1:
        return float(weight)
    raise UsageError(f"solider.semantic_weight must be a number from 0 to 1, or 'off', found {weight!r}.")


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> SOLIDER:
    """Builds SOLIDER.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels.
        pretrained: path of the starting weights; `None` for a random start.
        **options: options of `SOLIDER`.
    """
    module = SOLIDER(num_classes, image_size, **options)
    if pretrained is not None:
        module.load_start(pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of SOLIDER.
    """
    state = unwrap(state_dict)
    patches = state.get("base.patch_embed.projection.weight")
    depth = sum(key.startswith("base.stages.2.blocks.") and key.endswith(".norm1.weight") for key in state)
    found = (0 if patches is None else len(patches), depth)
    size = next((name for name, (width, depths, _) in SIZES.items() if found == (width, depths[2])), None)
    if size is None:
        raise WeightsError("This is no checkpoint of SOLIDER: base.patch_embed.projection or base.stages.2 misfits.")
    options: dict[str, Any] = {"size": size}
    if "base.semantic_embed_w.0.weight" not in state:
        options["semantic_weight"] = "off"
    classifier = state.get("classifier.weight")
    return {"num_classes": 1 if classifier is None else len(classifier), "num_cameras": 0, "options": options}
