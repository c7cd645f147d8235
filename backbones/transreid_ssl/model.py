"""TransReID-SSL (Luo et al. 2021): a plain ViT, trained first on images of people without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.person_vit import PersonViT, infer

__all__ = ["build", "infer"]


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    start: str = "",
    **options: Any,
) -> PersonViT:
    """Builds the transformer; see `PersonViT` for options.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split.
        image_size: (height, width) in pixels.
        pretrained: path of the starting weights; `None` for a random start.
        start: name of the starting weights, from which the file name is derived; the network does not depend on it.
        **options: options of `PersonViT`.
    """
    module = PersonViT(num_classes, num_cameras, image_size, **options)
    if pretrained is not None:
        module.load_start(pretrained)
    return module
