"""ResNet-50 from LUPerson (Fu et al. 2021): trained by MoCo on images of people without labels, with a BN neck."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from backbones.agw import model as agw
from harness.errors import WeightsError
from harness.weights import load_state, strict_load

ENCODER = "encoder_q."
"""Prefix of the network in a checkpoint of MoCo. The published file has the network alone."""


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    pool: str = "gem",
    neck_feature: str = "after",
) -> agw.AGW:
    """Builds ResNet-50 with a last stride of 1 and, unlike BoT and AGW, with the ReLU after the stem.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels; not used.
        pretrained: `None` (random start), or the path of weights of MoCo with torchvision's names.
        pool: `gem` for generalised mean pooling, `avg` for the mean.
        neck_feature: whether the test-time feature is the one `before` or `after` the BN neck.
    """
    module = agw.AGW(num_classes, non_local=False, pool=pool, neck_feature=neck_feature)
    module.base.act1 = nn.ReLU(inplace=True)
    if pretrained is not None:
        strict_load(module.base, read_start(pretrained))
    return module


def read_start(path: str | Path) -> dict[str, Any]:
    """Reads the ResNet of a file, without the head of its pretraining."""
    state = load_state(path)
    encoder = {key.removeprefix(ENCODER): value for key, value in state.items() if key.startswith(ENCODER)}
    return {key: value for key, value in (encoder or state).items() if not key.startswith("fc.")}


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of this network.
    """
    found = agw.infer(state_dict, image_size)
    if found["options"].pop("non_local") or found["options"].pop("ibn"):
        raise WeightsError("This is a checkpoint of AGW or ResNet-50-IBN. Pass --backbone agw.")
    return found
