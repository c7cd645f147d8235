"""OSNet (Zhou et al. 2019) and OSNet-AIN (2021): light blocks of several scales, joined by one shared gate.

The state dict has the names of the published checkpoints. They differ between OSNet and OSNet-AIN.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import load_state, strict_load, unwrap

WIDTHS: dict[str, tuple[int, int, int, int]] = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
"""Channels of the stem and of the three stages."""

ARCHS = (*(f"osnet_{width}" for width in WIDTHS), "osnet_ibn_x1_0", *(f"osnet_ain_{width}" for width in WIDTHS))
FEATURE_DIM = 512
SCALES = 4
"""Number of streams of a block. Stream t has t light units, so its receptive field is 2t + 1."""
REDUCTION = 4
GATE_REDUCTION = 16
SMALLEST_SIDE = 13
"""Sides of fewer pixels leave nothing after the four steps to a sixteenth of the image."""

NORMALISED: dict[str, tuple[tuple[str, str], ...]] = {
    "": (("", ""), ("", ""), ("", "")),
    "ibn": (("sum", "sum"), ("", ""), ("", "")),
    "ain": (("branch", "branch"), ("", "branch"), ("branch", "")),
}
"""Where each block of each stage has instance norm: on the `sum` with the shortcut, or on the `branch` before it."""


def conv_unit(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, instance: bool = False) -> nn.Sequential:
    """A convolution with batch norm, or instance norm, and ReLU."""
    parts = _conv_norm(inputs, outputs, kernel, stride=stride, instance=instance)
    return nn.Sequential(OrderedDict(**parts, relu=nn.ReLU(inplace=True)))


def linear_unit(inputs: int, outputs: int, *, norm: bool = True) -> nn.Sequential:
    """A 1x1 convolution without ReLU, with or without batch norm."""
    parts = _conv_norm(inputs, outputs, 1)
    return nn.Sequential(OrderedDict(parts if norm else {"conv": parts["conv"]}))


def _conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, instance: bool = False
) -> dict[str, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    norm = nn.InstanceNorm2d(outputs, affine=True) if instance else nn.BatchNorm2d(outputs)
    return {"conv": convolution, "bn": norm}


def light_unit(channels: int) -> nn.Sequential:
    """The light 3x3 convolution: 1x1, then 3x3 per channel, then batch norm and ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, channels, 1, bias=False),
            conv2=nn.Conv2d(channels, channels, 3, padding=1, bias=False, groups=channels),
            bn=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
        )
    )


class Gate(nn.Module):
    """The aggregation gate: weighs every channel of a stream by a function of its mean over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // GATE_REDUCTION
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to the same shape."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class OmniScaleBlock(nn.Module):
    """A residual block of `SCALES` streams, joined by one gate.

    Args:
        inputs: channels before the block.
        outputs: channels after it.
        instance: where it has instance norm, see `NORMALISED`.
        ain_names: whether its streams have the names of OSNet-AIN in the state dict.
    """

    def __init__(self, inputs: int, outputs: int, *, instance: str, ain_names: bool) -> None:
        super().__init__()
        middle = outputs // REDUCTION
        self.instance = instance
        self.conv1 = conv_unit(inputs, middle)
        self.names = [f"conv2.{i}" if ain_names else f"conv2{'abcd'[i]}" for i in range(SCALES)]
        if ain_names:
            streams = [nn.Sequential(*(light_unit(middle) for _ in range(i + 1))) for i in range(SCALES)]
            self.conv2 = nn.ModuleList(nn.Sequential(OrderedDict(layers=stream)) for stream in streams)
        else:
            self.conv2a = light_unit(middle)
            for name, depth in zip(self.names[1:], range(2, SCALES + 1), strict=True):
                self.add_module(name, nn.Sequential(*(light_unit(middle) for _ in range(depth))))
        self.gate = Gate(middle)
        self.conv3 = linear_unit(middle, outputs, norm=instance != "branch")
        self.downsample = linear_unit(inputs, outputs) if inputs != outputs else None
        self.IN = nn.InstanceNorm2d(outputs, affine=True) if instance else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, inputs, H, W] to [B, outputs, H, W]."""
        reduced = self.conv1(x)
        joined = self.gate(self.get_submodule(self.names[0])(reduced))
        for name in self.names[1:]:
            joined = joined + self.gate(self.get_submodule(name)(reduced))
        branch = self.conv3(joined)
        if self.IN is not None and self.instance == "branch":
            branch = self.IN(branch)
        total = branch + (x if self.downsample is None else self.downsample(x))
        if self.IN is not None and self.instance == "sum":
            total = self.IN(total)
        return torch.relu(total)


class OSNet(nn.Module):
    """OSNet of any width, with or without instance norm.

    Args:
        num_classes: number of identities of the training split.
        arch: one of `ARCHS`.
    """

    def __init__(self, num_classes: int, *, arch: str = "osnet_x1_0") -> None:
        super().__init__()
        if arch not in ARCHS:
            raise UsageError(f"osnet.arch must be one of {', '.join(ARCHS)}, found '{arch}'.")
        kind, width = _parts(arch)
        stem, *channels = WIDTHS[width]
        self.ain = kind == "ain"
        self.conv1 = conv_unit(3, stem, 7, stride=2, instance=kind != "")
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = zip([stem, *channels], channels, NORMALISED[kind], strict=False)
        for number, (inputs, outputs, instance) in enumerate(widths, start=2):
            blocks: list[nn.Module] = [
                OmniScaleBlock(inputs, outputs, instance=instance[0], ain_names=self.ain),
                OmniScaleBlock(outputs, outputs, instance=instance[1], ain_names=self.ain),
            ]
            shrink = nn.Sequential(conv_unit(outputs, outputs), nn.AvgPool2d(2)) if number < 4 else None
            if shrink is not None and not self.ain:
                blocks.append(shrink)
            self.add_module(f"conv{number}", nn.Sequential(*blocks))
            if shrink is not None and self.ain:
                self.add_module(f"pool{number}", shrink)
        self.conv5 = conv_unit(channels[-1], channels[-1])
        self.fc = nn.Sequential(nn.Linear(channels[-1], FEATURE_DIM), nn.BatchNorm1d(FEATURE_DIM), nn.ReLU())
        self.classifier = nn.Linear(FEATURE_DIM, num_classes)
        self.apply(_initialise)

    def no_weight_decay(self) -> set[str]:
        """No parameters in addition to those that recipes exempt."""
        return set()

    def feature_map(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to the last map [B, C, H / 16, W / 16]."""
        x = self.maxpool(self.conv1(images))
        for name in ("conv2", "pool2", "conv3", "pool3", "conv4") if self.ain else ("conv2", "conv3", "conv4"):
            x = self.get_submodule(name)(x)
        return self.conv5(x)

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        features = self.fc(self.feature_map(images).mean(dim=(2, 3)))
        if not self.training:
            return features
        return TrainingOutput([self.classifier(features)], [features])

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of this harness, strictly.

        In evaluation mode, a classifier for other identities is ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        strict_load(self, unwrap(state_dict), optional=() if self.training else ("classifier*",))

    def load_imagenet(self, path: str | Path) -> None:
        """Loads the authors' ImageNet weights; the classifier is not changed."""
        weights = {key: value for key, value in load_state(path).items() if not key.startswith("classifier.")}
        strict_load(self, weights, optional=("classifier*",))


def _parts(arch: str) -> tuple[str, str]:
    """Splits the name of an architecture into its kind of instance norm and its width."""
    kind, _, width = arch.removeprefix("osnet_").rpartition("_x")
    return (kind, f"x{width}") if kind else ("", arch.removeprefix("osnet_"))


def _initialise(module: nn.Module) -> None:
    """Draws convolutions as He et al. (2015) over their outputs, and linear weights from N(0, 0.01^2)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def check_sides(image_size: tuple[int, int]) -> None:
    """Raises UsageError if an image is too small for OSNet."""
    height, width = image_size
    if min(image_size) < SMALLEST_SIDE:
        raise UsageError(f"OSNet needs images of at least {SMALLEST_SIDE} pixels per side, found {height}x{width}.")


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> OSNet:
    """Builds OSNet.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; only checked.
        pretrained: `None` (random start), or the path of ImageNet weights.
        **options: options of `OSNet`.
    """
    check_sides(image_size)
    module = OSNet(num_classes, **options)
    if pretrained is not None:
        module.load_imagenet(pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of OSNet.
    """
    state = unwrap(state_dict)
    stem = state.get("conv1.conv.weight")
    width = next((w for w, channels in WIDTHS.items() if stem is not None and channels[0] == len(stem)), None)
    if width is None or "conv2.0.gate.fc1.weight" not in state:
        raise WeightsError("This is no checkpoint of OSNet: conv1.conv or conv2.0.gate misfits.")
    kind = "ain_" if "pool2.0.conv.weight" in state else "ibn_" if "conv2.0.IN.weight" in state else ""
    classifier = state.get("classifier.weight")
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0,
        "options": {"arch": f"osnet_{kind}{width}"},
    }
