"""Parts of networks with several branches: a ResNet-50 cut before its last stages, and stripes of a map."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from harness.weights import load_state, strict_load

BLOCKS = (3, 4, 6, 3)
CHANNELS = 2048
"""Channels of the last map of ResNet-50."""


def stripes(x: Tensor, count: int) -> list[Tensor]:
    """Cuts a map [B, C, H, W] into horizontal stripes of equal height, from the top.

    If `count` does not divide the height, stripes overlap by one row, as adaptive pooling of torch has it.
    """
    height = x.shape[2]
    return [x[:, :, i * height // count : -(-(i + 1) * height // count)] for i in range(count)]


def mean(x: Tensor) -> Tensor:
    """Mean of a map over its positions: [B, C, H, W] to [B, C]."""
    return x.mean(dim=(2, 3))


def largest(x: Tensor) -> Tensor:
    """Maximum of a map over its positions: [B, C, H, W] to [B, C]."""
    return x.amax(dim=(2, 3))


def imagenet_resnet(pretrained: str | Path | None) -> ResNet:
    """Returns ResNet-50 without classifier; `pretrained` is a file of ImageNet weights with torchvision's names."""
    block: Any = Bottleneck
    net = ResNet(block, BLOCKS, num_classes=0)
    if pretrained is not None:
        strict_load(net, imagenet_weights(pretrained))
    return net


def imagenet_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads ImageNet weights with torchvision's names, without the classifier."""
    return {key: value for key, value in load_state(path).items() if not key.startswith("fc.")}


def projection(channels: int, feats: int, mode: Literal["fan_in", "fan_out"] = "fan_in") -> nn.Sequential:
    """A 1x1 convolution with batch norm and ReLU; weights as He et al. (2015) over inputs or outputs."""
    convolution = nn.Conv2d(channels, feats, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode=mode)
    return nn.Sequential(convolution, nn.BatchNorm2d(feats), nn.ReLU())


def keep_resolution(stage: nn.Module) -> None:
    """Gives the first block of a stage the stride 1, without dilation."""
    for name in ("0.conv2", "0.downsample.0"):
        convolution = stage.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (1, 1)


def cut(net: ResNet) -> tuple[nn.Sequential, nn.Sequential]:
    """Cuts a ResNet after the first block of its third stage: what branches share, and what each has a copy of."""
    first, *others = net.get_submodule("layer3").children()
    stem = (net.get_submodule(name) for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2"))
    return nn.Sequential(*stem, first), nn.Sequential(nn.Sequential(*others), net.get_submodule("layer4"))


def branch(rest: nn.Sequential, *, full: bool) -> nn.Sequential:
    """Copies the second part of a cut ResNet; a `full` branch has the resolution of the third stage to its end."""
    copied = copy.deepcopy(rest)
    if full:
        keep_resolution(copied[1])
    return copied
