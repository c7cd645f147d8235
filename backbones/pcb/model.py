"""PCB (Sun et al. 2018): ResNet-50 whose last map is cut into stripes, each with a classifier of its own.

The state dict has the names of torchreid. Checkpoints with the names of the authors' code are converted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.branches import BLOCKS, CHANNELS, imagenet_weights, keep_resolution, mean, projection, stripes
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import strict_load, unwrap

DROPOUT = 0.5
NEW = ("conv5.*", "classifier.*")
"""Entries that ImageNet weights do not have."""
AUTHORS = {
    r"^base\.": "",
    r"^local_conv\.": "conv5.layers.0.",
    r"^feat_bn2d\.": "conv5.layers.1.",
    r"^instance(\d)\.": r"classifier.\1.",
}
"""From names of the authors' code to those of torchreid."""


class Reduction(nn.Module):
    """The layer, shared by all stripes, from a pooled stripe to the input of its classifier."""

    def __init__(self, reduced: int) -> None:
        super().__init__()
        self.layers = projection(CHANNELS, reduced, "fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, 2048, stripes, 1] to [B, reduced, stripes, 1]."""
        return self.layers(x)


class PCB(ResNet):
    """Part-based convolutional baseline.

    Args:
        num_classes: number of identities of the training split.
        parts: number of stripes.
        reduced: width of the input of a classifier.
    """

    def __init__(self, num_classes: int, *, parts: int = 6, reduced: int = 256) -> None:
        if min(parts, reduced) < 1:
            raise UsageError(f"pcb.parts and pcb.reduced must be at least 1, found {parts} and {reduced}.")
        block: Any = Bottleneck
        super().__init__(block, BLOCKS, num_classes=0)
        keep_resolution(self.get_submodule("layer4"))
        self.parts, self.feature_dim = parts, parts * CHANNELS
        self.dropout = nn.Dropout(DROPOUT)
        self.conv5 = Reduction(reduced)
        self.classifier = nn.ModuleList(_classifier(reduced, num_classes) for _ in range(parts))

    def no_weight_decay(self) -> set[str]:
        """No parameters in addition to those that recipes exempt."""
        return set()

    def forward(  # type: ignore[override]
        self, images: Tensor, camera_ids: Tensor | None = None
    ) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        pooled = [mean(stripe) for stripe in stripes(self.forward_features(images), self.parts)]
        if not self.training:
            return torch.cat([F.normalize(part) for part in pooled], dim=1)
        reduced = self.conv5(self.dropout(torch.stack(pooled, dim=2).unsqueeze(3)))
        return TrainingOutput([layer(reduced[:, :, i, 0]) for i, layer in enumerate(self.classifier)], pooled)

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of torchreid, of the authors' code or of this harness, strictly.

        In evaluation mode, classifiers for other identities are ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        optional = () if self.training else ("classifier.*",)
        strict_load(self, in_our_names(state_dict), ignore=("fc.*",), optional=optional)


def _classifier(reduced: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(reduced, num_classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def in_our_names(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of a checkpoint with the names of torchreid."""
    state = unwrap(state_dict)
    if "local_conv.weight" not in state:
        return dict(state)
    for theirs, ours in AUTHORS.items():
        state = {re.sub(theirs, ours, key): value for key, value in state.items()}
    return state


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> PCB:
    """Builds PCB.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; not used.
        pretrained: `None` (random start), or the path of ImageNet weights.
        **options: options of `PCB`.
    """
    module = PCB(num_classes, **options)
    if pretrained is not None:
        strict_load(module, imagenet_weights(pretrained), optional=NEW)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    A checkpoint without classifiers does not say how many stripes the network has.

    Raises:
        WeightsError: it is not a checkpoint of PCB.
    """
    state = in_our_names(state_dict)
    reduction, classifier = state.get("conv5.layers.0.weight"), state.get("classifier.0.weight")
    if reduction is None or "layer4.2.conv3.weight" not in state:
        raise WeightsError("This is no checkpoint of PCB: conv5 or layer4 misfits.")
    options = {"reduced": len(reduction)}
    if classifier is not None:
        options["parts"] = sum(re.fullmatch(r"classifier\.\d+\.weight", key) is not None for key in state)
    return {"num_classes": 1 if classifier is None else len(classifier), "num_cameras": 0, "options": options}
