"""AGW (Ye et al. 2021): ResNet-50 with non-local blocks, generalised mean pooling and a BN neck; also ResNet-50-IBN.

The state dict has the names of the published checkpoints, so these and our own are loaded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from backbones.layers import identity_classifier, neck_norm
from backbones.parts import GeneralisedMean, HalfInstanceNorm, NonLocal
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import load_state, strict_load, unwrap

BLOCKS = (3, 4, 6, 3)
CHANNELS = (256, 512, 1024, 2048)
NON_LOCAL = {2: 2, 3: 3}
"""Number of non-local blocks by stage; they follow the last blocks of the stage."""
DEAD = ("base.fc.*",)
"""The ImageNet head in published files of ResNet-50-IBN, which no forward pass uses."""


class ReidResNet(ResNet):
    """A ResNet-50 whose last stage has stride 1, with timm's and torchvision's names.

    As in the original code, the network has no ReLU after the stem, except with half instance norm.

    Args:
        non_local: whether to add the non-local blocks.
        ibn: whether the first norm of each block of the first three stages is half instance norm.
    """

    def __init__(self, *, non_local: bool, ibn: bool) -> None:
        block: Any = Bottleneck
        super().__init__(block, BLOCKS, num_classes=0)
        if not ibn:
            self.act1 = nn.Identity()
        for convolution in ("layer4.0.conv2", "layer4.0.downsample.0"):
            part = self.get_submodule(convolution)
            assert isinstance(part, nn.Conv2d)
            part.stride = (1, 1)
        if ibn:
            for name in (f"layer{stage}.{i}" for stage in (1, 2, 3) for i in range(BLOCKS[stage - 1])):
                residual: Any = self.get_submodule(name)
                residual.bn1 = HalfInstanceNorm(residual.bn1.num_features)
        self.attention: dict[str, str] = {}
        for stage, count in NON_LOCAL.items() if non_local else ():
            self.add_module(f"NL_{stage}", nn.ModuleList(NonLocal(CHANNELS[stage - 1]) for _ in range(count)))
            first = BLOCKS[stage - 1] - count
            self.attention |= {f"layer{stage}.{first + i}": f"NL_{stage}.{i}" for i in range(count)}

    def feature_map(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to the last map [B, 2048, H / 16, W / 16]."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        for stage, blocks in enumerate(BLOCKS, start=1):
            for i in range(blocks):
                x = self.get_submodule(f"layer{stage}.{i}")(x)
                if after := self.attention.get(f"layer{stage}.{i}"):
                    x = self.get_submodule(after)(x)
        return x


class AGW(nn.Module):
    """The AGW baseline.

    Args:
        num_classes: number of identities of the training split.
        non_local: whether to add the non-local blocks.
        ibn: whether to use half instance norm (ResNet-50-IBN-a).
        pool: `gem` for generalised mean pooling, `avg` for the mean.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN neck.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        non_local: bool = True,
        ibn: bool = False,
        pool: str = "gem",
        neck_feature: str = "after",
    ) -> None:
        super().__init__()
        if pool not in ("gem", "avg"):
            raise UsageError(f"agw.pool must be 'gem' or 'avg', found '{pool}'.")
        if neck_feature not in ("before", "after"):
            raise UsageError(f"agw.neck_feature must be 'before' or 'after', found '{neck_feature}'.")
        self.neck_feature = neck_feature
        self.base = ReidResNet(non_local=non_local, ibn=ibn)
        self.feature_dim = CHANNELS[-1]
        gem = pool == "gem"
        self.global_pool = GeneralisedMean() if gem else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.bottleneck = neck_norm(self.feature_dim)
        self.classifier = identity_classifier(self.feature_dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """No parameters in addition to those that recipes exempt."""
        return set()

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        features = self.global_pool(self.base.feature_map(images))
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
        strict_load(self, unwrap(state_dict), ignore=DEAD, optional=optional)

    def load_imagenet(self, path: str | Path) -> None:
        """Loads ImageNet weights with torchvision's names into the ResNet; all else is not changed."""
        weights = {key: value for key, value in load_state(path).items() if not key.startswith("fc.")}
        strict_load(self.base, weights, optional=("NL_*",))


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    start: str = "",
    **options: Any,
) -> AGW:
    """Builds AGW.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; not used.
        pretrained: `None` (random start), or the path of ImageNet weights.
        start: name of the ImageNet weights, from which the file name is derived; the network does not depend on it.
        **options: options of `AGW`.
    """
    module = AGW(num_classes, **options)
    if pretrained is not None:
        module.load_imagenet(pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of AGW.
    """
    state = unwrap(state_dict)
    neck = state.get("bottleneck.weight")
    options = {
        "non_local": "base.NL_2.0.g.weight" in state,
        "ibn": "base.layer1.0.bn1.IN.weight" in state,
        "pool": "gem" if "global_pool.p" in state else "avg",
    }
    if neck is None or len(neck) != CHANNELS[-1] or "base.layer4.2.conv3.weight" not in state:
        raise WeightsError("This is no checkpoint of AGW: base.layer4 or bottleneck misfits.")
    classifier = state.get("classifier.weight")
    return {"num_classes": 1 if classifier is None else len(classifier), "num_cameras": 0, "options": options}
