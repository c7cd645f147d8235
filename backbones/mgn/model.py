"""MGN (Wang et al. 2018): ResNet-50 with three branches, which see the whole image, halves and thirds.

The state dict has the names of the checkpoints of both public implementations, which are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.branches import CHANNELS, branch, cut, imagenet_resnet, largest, mean, projection, stripes
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import strict_load, unwrap

POOLS = {"avg": mean, "max": largest}
CLASSIFIERS = (
    *(f"fc_id_2048_{i}" for i in range(3)),
    *(f"fc_id_256_1_{i}" for i in range(2)),
    *(f"fc_id_256_2_{i}" for i in range(3)),
)
"""Names of the classifiers: the whole image in three branches, two halves, three thirds. All read `feats` numbers."""


class MGN(nn.Module):
    """Multiple granularity network.

    Args:
        num_classes: number of identities of the training split.
        feats: width of each of the eight features.
        pool: `avg` or `max` over the positions of a stripe.
        part_norm: whether each of the eight parts of the test-time feature has unit length.
        pretrained: path of ImageNet weights of ResNet-50, or `None`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        feats: int = 256,
        pool: str = "avg",
        part_norm: bool = False,
        pretrained: str | Path | None = None,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise UsageError(f"mgn.pool must be one of {', '.join(POOLS)}, found '{pool}'.")
        if feats < 1:
            raise UsageError(f"mgn.feats must be at least 1, found {feats}.")
        self.pool, self.part_norm = POOLS[pool], part_norm
        self.feature_dim = len(CLASSIFIERS) * feats
        self.backone, rest = cut(imagenet_resnet(pretrained))
        self.p1, self.p2, self.p3 = (branch(rest, full=full) for full in (False, True, True))
        for i in range(len(CLASSIFIERS)):
            self.add_module(f"reduction_{i}", reduction(feats))
        for name in CLASSIFIERS:
            self.add_module(name, classifier(feats, num_classes))

    def no_weight_decay(self) -> set[str]:
        """No parameters in addition to those that recipes exempt."""
        return set()

    def regions(self, images: Tensor) -> list[Tensor]:
        """Maps images [B, 3, H, W] to eight maps: the whole image in each branch, two halves and three thirds."""
        x = self.backone(images)
        whole, halves, thirds = self.p1(x), self.p2(x), self.p3(x)
        return [whole, halves, thirds, *stripes(halves, 2), *stripes(thirds, 3)]

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        pooled = [self.pool(region)[:, :, None, None] for region in self.regions(images)]
        features = [self.get_submodule(f"reduction_{i}")(x).flatten(1) for i, x in enumerate(pooled)]
        if self.training:
            logits = [self.get_submodule(name)(x) for name, x in zip(CLASSIFIERS, features, strict=True)]
            return TrainingOutput(logits, features)
        return torch.cat([F.normalize(x) if self.part_norm else x for x in features], dim=1)

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of this harness, strictly.

        In evaluation mode, classifiers for other identities are ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        strict_load(self, unwrap(state_dict), optional=() if self.training else ("fc_id_*",))


def reduction(feats: int) -> nn.Sequential:
    """The layer from a pooled map to a feature."""
    layer = projection(CHANNELS, feats)
    nn.init.normal_(layer.get_parameter("1.weight"), 1.0, 0.02)
    return layer


def classifier(feats: int, num_classes: int) -> nn.Linear:
    """A classifier of one feature."""
    layer = nn.Linear(feats, num_classes)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.zeros_(layer.bias)
    return layer


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    **options: Any,
) -> MGN:
    """Builds MGN.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; not used.
        pretrained: `None` (random start), or the path of ImageNet weights.
        **options: options of `MGN`.
    """
    return MGN(num_classes, pretrained=pretrained, **options)


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    The checkpoint does not say how the network pools.

    Raises:
        WeightsError: it is not a checkpoint of MGN.
    """
    state = unwrap(state_dict)
    last = state.get("reduction_7.0.weight")
    if last is None or "p3.1.2.conv3.weight" not in state:
        raise WeightsError("This is no checkpoint of MGN: reduction_7 or p3 misfits.")
    weights = state.get(f"{CLASSIFIERS[0]}.weight")
    classes = 1 if weights is None else len(weights)
    return {"num_classes": classes, "num_cameras": 0, "options": {"feats": len(last)}}
