"""PersonViT (Hu et al. 2024): a plain ViT, trained first on images of people by filling in hidden patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones import person_vit
from backbones.person_vit import PersonViT
from harness.errors import WeightsError


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    start: str = "",
    **options: Any,
) -> PersonViT:
    """Builds the transformer, which has no other stem than patches; see `PersonViT` for options.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split; not used.
        image_size: (height, width) in pixels.
        pretrained: path of the starting weights; `None` for a random start.
        start: name of the starting weights, from which the file name is derived; the network does not depend on it.
        **options: `size`, `stride`, `pool`, `neck_feature` and `drop_path` of `PersonViT`.
    """
    module = PersonViT(num_classes, num_cameras, image_size, **options)
    if pretrained is not None:
        module.load_start(pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns `num_classes`, `num_cameras` and `options` of the module that a checkpoint fits.

    Raises:
        WeightsError: it is not a checkpoint of PersonViT.
    """
    found = person_vit.infer(state_dict, image_size)
    if found["options"].pop("stem") != "patch" or found["options"].pop("camera_embedding"):
        raise WeightsError("This is a checkpoint of TransReID-SSL: it has another stem, or a camera embedding.")
    return found
