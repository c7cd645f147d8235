"""Builds a trained module from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import contracts
from harness.contracts import Inferred, Splits
from harness.data import checks
from harness.data.loader import camera_rows
from harness.errors import DataError, WeightsError
from harness.registry import BackboneEntry
from harness.weights.state_dicts import strict_load

if TYPE_CHECKING:
    from torch import Tensor, nn


def from_checkpoint(
    entry: BackboneEntry,
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    num_classes: int,
    num_cameras: int,
) -> tuple[nn.Module, int]:
    """Builds the module for a checkpoint, loads the checkpoint and sets evaluation mode.

    Settings inferred from the checkpoint take precedence over the arguments. Scoring does not use the classifier, so
    it may be missing in the checkpoint or have any number of classes.

    Args:
        entry: the backbone.
        state: tensors by name.
        options: build options.
        image_size: (height, width) in pixels.
        num_classes: number of classes, if the checkpoint does not determine it.
        num_cameras: rows of the camera embedding, if the checkpoint does not determine them.

    Returns:
        The module, and the number of rows of its camera embedding.

    Raises:
        WeightsError: the checkpoint does not fit the backbone, or contains NaN or infinity.
    """
    found = contracts.inferred(entry.model(), state, image_size) or Inferred(num_classes=0, num_cameras=0, options={})
    chosen = {**options, **found["options"]}
    cameras = options.get("camera_embedding")
    if chosen.get("camera_embedding") == "mean":
        chosen["camera_embedding"] = True
    rows = found["num_cameras"] or num_cameras
    module = entry.build(
        num_classes=found["num_classes"] or num_classes, num_cameras=rows, image_size=image_size, **chosen
    )
    module.eval()  # in evaluation mode, load_published skips the classifier
    load = contracts.published_loader(module) or partial(strict_load, module, optional=("classifier*",))
    load(state)
    if bad := [name for name, values in module.named_parameters() if not values.isfinite().all()]:
        raise WeightsError(f"The checkpoint contains NaN or infinity in {len(bad)} tensors, for example {bad[0]}.")
    if cameras in (False, "mean"):
        contracts.set_camera_mode(module, cameras or "off")
    return module, rows


def check_cameras(entry: BackboneEntry, module: nn.Module, rows: int, splits: Splits) -> dict[int, int] | None:
    """Returns the row of each camera in the camera embedding; None if camera numbers are used as rows.

    Args:
        entry: the backbone.
        module: the module from `from_checkpoint`.
        rows: rows of its camera embedding. If the number differs from the cameras of the training split, the module
            was trained on other cameras.
        splits: the dataset to score.

    Raises:
        DataError: the module embeds cameras, but the cameras are unknown or a test camera has no row.
    """
    own = camera_rows(splits.train)
    known = own if rows == (len(own) or 1) else None
    if contracts.camera_parts(module):
        if not splits.knows_cameras:
            raise DataError(
                f"{entry.name} embeds cameras, but the cameras of the images in {splits.root} are unknown. Pass "
                "--camera-embedding mean or off."
            )
        items = [*splits.query, *splits.gallery]
        checks.cameras(entry, range(rows) if known is None else known, items, "--camera-embedding mean or off")
    return known
