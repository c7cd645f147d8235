"""Bag of tricks (Luo et al. 2019): ResNet-50 with a last stride of 1, no ReLU after the stem, and a BN neck.

The state dict has the names of the published checkpoints, so these and our own are loaded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from backbones.layers import identity_classifier, neck_norm
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import load_state, strict_load, unwrap

WIDTHS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "resnet50": ((3, 4, 6, 3), (64, 128, 256, 512)),
    "tiny": ((1, 1, 1, 1), (16, 32, 64, 128)),
}
"""Blocks and channels of each stage; `tiny` is for demonstrations on a CPU."""


def strong_resnet(width: str) -> ResNet:
    """The ResNet of the strong baseline (BOT/modeling/backbones/resnet.py:97, 102-110).

    The ReLU after the stem is missing by mistake of the authors, and the published weights were trained without it. The
    last stage has stride 1 without dilation; timm's `output_stride=16` would also dilate, which is a different network.
    """
    if width not in WIDTHS:
        raise UsageError(f"bot.width must be one of {', '.join(WIDTHS)}, found '{width}'.")
    layers, channels = WIDTHS[width]
    block: Any = Bottleneck
    net = ResNet(block, layers, num_classes=0, channels=channels)
    net.act1 = nn.Identity()
    for convolution in ("layer4.0.conv2", "layer4.0.downsample.0"):
        part = net.get_submodule(convolution)
        assert isinstance(part, nn.Conv2d)
        part.stride = (1, 1)
    return net


class BagOfTricks(nn.Module):
    """ResNet-50 strong baseline.

    Args:
        num_classes: number of identities of the training split.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN neck.
        width: `resnet50`, or `tiny` for demonstrations.
    """

    def __init__(self, num_classes: int, *, neck_feature: str = "after", width: str = "resnet50") -> None:
        super().__init__()
        if neck_feature not in ("before", "after"):
            raise UsageError(f"bot.neck_feature must be 'before' or 'after', found '{neck_feature}'.")
        self.neck_feature = neck_feature
        self.base = strong_resnet(width)
        self.feature_dim = self.base.num_features
        self.bottleneck = neck_norm(self.feature_dim)
        self.classifier = identity_classifier(self.feature_dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """No parameters in addition to those that recipes exempt."""
        return set()

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
        strict_load(self, unwrap(state_dict), optional=() if self.training else ("classifier*",))

    def load_imagenet(self, path: str | Path) -> None:
        """Loads ImageNet weights with torchvision's names into the ResNet; the neck is not changed."""
        weights = {f"base.{key}": value for key, value in load_state(path).items() if not key.startswith("fc.")}
        strict_load(self, weights, optional=("bottleneck*", "classifier*"))


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> BagOfTricks:
    """Builds the strong baseline.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; not used.
        pretrained: `None` (random start), or the path of ImageNet weights.
        **options: options of `BagOfTricks`.
    """
    module = BagOfTricks(num_classes, **options)
    if pretrained is not None:
        module.load_imagenet(pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of the strong baseline.
    """
    state = unwrap(state_dict)
    feature = state.get("bottleneck.weight")
    width = next((w for w, (_, c) in WIDTHS.items() if feature is not None and 4 * c[-1] == len(feature)), None)
    if width is None or "base.conv1.weight" not in state:
        raise WeightsError("This is no checkpoint of the ResNet-50 strong baseline: base.conv1 or bottleneck misfits.")
    classifier = state.get("classifier.weight")
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0,
        "options": {"width": width},
    }
