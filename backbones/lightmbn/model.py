"""LightMBN (Herzog et al. 2021): a global, a part and a channel branch on OSNet, or on ResNet-50.

The state dict has the names of the published checkpoints, also where these are misspelled.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.branches import branch, cut, imagenet_resnet, largest, mean, projection, stripes
from backbones.layers import identity_classifier, neck_norm
from backbones.osnet.model import OmniScaleBlock, OSNet, check_sides
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import strict_load, unwrap

TRUNKS = {"osnet": 512, "resnet50": 2048}
"""Channels of the last map."""
DROPPED = 0.33
"""Fraction of the rows of a map that are set to zero in training."""
BRANCHES = 7


class Neck(nn.Module):
    """A BN neck, with a 1x1 convolution before it if the width changes.

    Args:
        channels: width of the input; 0 if it has the width of the feature.
        feats: width of the feature.
        num_classes: number of identities of the training split.
    """

    def __init__(self, channels: int, feats: int, num_classes: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(channels, feats, 1, bias=False) if channels else None
        self.bn = neck_norm(feats)
        self.classifier = identity_classifier(feats, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, channels, 1, 1] to the features before and after the norm, each [B, feats]."""
        before = (x if self.reduction is None else self.reduction(x)).flatten(1)
        return before, self.bn(before)


class DropTopRows(nn.Module):
    """A block, and its map without the rows of the largest energy in training (Quispe and Pedrini 2020)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.drop_batch_bottleneck = block

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, C, H, W] to the map of the block without these rows and to the whole map."""
        found = self.drop_batch_bottleneck(x)
        if not self.training:
            return found, found
        energy = found.square().sum(dim=1).amax(dim=2)
        rows = energy.topk(round(DROPPED * found.shape[2]), dim=1).indices
        kept = torch.ones_like(energy).scatter(1, rows, 0.0)
        return found * kept[:, None, :, None], found


class LightMBN(nn.Module):
    """Lightweight multi-branch network.

    Args:
        num_classes: number of identities of the training split.
        trunk: one of `TRUNKS`.
        feats: width of each of the seven features.
        pretrained: path of ImageNet weights of the trunk, or `None`.
    """

    def __init__(
        self, num_classes: int, *, trunk: str = "osnet", feats: int = 512, pretrained: str | Path | None = None
    ) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise UsageError(f"lightmbn.trunk must be one of {', '.join(TRUNKS)}, found '{trunk}'.")
        if feats < 1:
            raise UsageError(f"lightmbn.feats must be at least 1, found {feats}.")
        channels, self.light = TRUNKS[trunk], trunk == "osnet"
        self.feature_dim = BRANCHES * feats
        parts = _osnet(pretrained) if self.light else _resnet(pretrained)
        self.backone, self.global_branch, self.partial_branch, self.channel_branch = parts
        self.dropped_neck = "reduction_4" if self.light else "reduction_drop"
        for name in (*(f"reduction_{i}" for i in range(4)), self.dropped_neck):
            self.add_module(name, Neck(channels, feats, num_classes))
        self.shared = projection(channels // 2, feats)
        self.reduction_ch_0, self.reduction_ch_1 = (Neck(0, feats, num_classes) for _ in range(2))
        self.batch_drop_block = DropTopRows(_osnet_block() if self.light else Bottleneck(channels, channels // 4))

    def no_weight_decay(self) -> set[str]:
        """No parameters in addition to those that recipes exempt."""
        return set()

    def pooled(self, images: Tensor) -> list[tuple[str, Tensor]]:
        """Maps images [B, 3, H, W] to seven vectors [B, C, 1, 1], each with the name of its neck.

        These are the image; the image without its strongest rows; the image, its upper and its lower half in the part
        branch; and both halves of the channels.
        """
        x = self.backone(images)
        parts, channels = self.partial_branch(x), self.channel_branch(x)
        without, whole = self.batch_drop_block(self.global_branch(x))
        pool = mean if self.light else largest
        upper, lower = (mean(half) for half in stripes(parts, 2))
        names = ("reduction_0", self.dropped_neck, "reduction_1", "reduction_2", "reduction_3")
        vectors = [pool(whole), largest(without), largest(parts), upper, lower]
        found = [(name, vector[:, :, None, None]) for name, vector in zip(names, vectors, strict=True)]
        for i, half in enumerate(pool(channels)[:, :, None, None].chunk(2, dim=1)):
            found.append((f"reduction_ch_{i}", self.shared(half)))
        return found

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used.

        The test-time feature consists of seven parts of unit length.
        """
        logits, features, normalised = [], [], []
        for name, vector in self.pooled(images):
            neck: Any = self.get_submodule(name)
            before, after = neck(vector)
            features.append(before)
            normalised.append(after)
            if self.training:
                logits.append(neck.classifier(after))
        if self.training:
            return TrainingOutput(logits, features)
        return torch.cat([F.normalize(part) for part in normalised], dim=1)

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of this harness, strictly.

        In evaluation mode, classifiers for other identities are ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        strict_load(self, unwrap(state_dict), optional=() if self.training else ("reduction_*.classifier.weight",))


def _osnet(pretrained: str | Path | None) -> list[nn.Module]:
    """Returns OSNet up to the first block of its third stage, and three copies of the rest, without its features."""
    net = OSNet(1)
    if pretrained is not None:
        net.load_imagenet(pretrained)
    third, fourth, last = (net.get_submodule(name) for name in ("conv3", "conv4", "conv5"))
    assert isinstance(third, nn.Sequential)
    rest = nn.Sequential(third[1:], fourth, last)
    trunk = nn.Sequential(net.conv1, net.maxpool, net.get_submodule("conv2"), third[0])
    return [trunk, *(copy.deepcopy(rest) for _ in range(3))]


def _osnet_block() -> OmniScaleBlock:
    return OmniScaleBlock(TRUNKS["osnet"], TRUNKS["osnet"], instance="", ain_names=False)


def _resnet(pretrained: str | Path | None) -> list[nn.Module]:
    """Returns the same parts of ResNet-50; the global branch has half the resolution of the others."""
    trunk, rest = cut(imagenet_resnet(pretrained))
    return [trunk, *(branch(rest, full=full) for full in (False, True, True))]


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    start: str = "",
    **options: Any,
) -> LightMBN:
    """Builds LightMBN.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; only checked.
        pretrained: `None` (random start), or the path of ImageNet weights of the trunk.
        start: name of the ImageNet weights, from which the file name is derived; the network does not depend on it.
        **options: options of `LightMBN`.
    """
    module = LightMBN(num_classes, pretrained=pretrained, **options)
    if module.light:
        check_sides(image_size)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of LightMBN.
    """
    state = unwrap(state_dict)
    neck = state.get("reduction_0.reduction.weight")
    trunk = next((t for t, channels in TRUNKS.items() if neck is not None and neck.shape[1] == channels), None)
    if neck is None or trunk is None or "reduction_ch_1.bn.weight" not in state:
        raise WeightsError("This is no checkpoint of LightMBN: reduction_0 or reduction_ch_1 misfits.")
    classifier = state.get("reduction_0.classifier.weight")
    classes = 1 if classifier is None else len(classifier)
    return {"num_classes": classes, "num_cameras": 0, "options": {"trunk": trunk, "feats": len(neck)}}
