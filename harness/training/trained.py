"""A trained module out of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import contracts
from harness.contracts import Inferred, Splits
from harness.data import camera_rows, checks
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
    """Builds the module that a checkpoint fits, in evaluation mode, and loads it.

    What the file says of its build goes before what is given. The classifier plays no part in scoring: it may be
    absent from the file, or be over any number of classes.

    Args:
        entry: the backbone.
        state: tensors by name.
        options: build options.
        image_size: (height, width) in pixels.
        num_classes: classes where the file does not say.
        num_cameras: rows of a camera embedding where the file does not say.

    Returns:
        the module, and the number of rows of its camera embedding.

    Raises:
        WeightsError: the checkpoint is another module's.
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
    module.eval()  # in which loading leaves the classifier out
    load = contracts.published_loader(module) or partial(strict_load, module, optional=("classifier*",))
    load(state)
    if bad := [name for name, values in module.named_parameters() if not values.isfinite().all()]:
        raise WeightsError(f"The checkpoint holds NaN or infinity in {len(bad)} tensors, for example {bad[0]}.")
    if cameras in (False, "mean"):
        contracts.set_camera_mode(module, cameras or "off")
    return module, rows


def check_cameras(entry: BackboneEntry, module: nn.Module, rows: int, splits: Splits) -> dict[int, int] | None:
    """Returns the row of each camera in a camera embedding; None where the cameras' numbers are the rows.

    Args:
        entry: the backbone.
        module: from `from_checkpoint`.
        rows: rows of its camera embedding; another number than cameras here means that it was trained on others.
        splits: the dataset that is scored.

    Raises:
        DataError: the module embeds cameras, and they are unknown or a test image is of a camera without a row.
    """
    own = camera_rows(splits.train)
    known = own if rows == (len(own) or 1) else None
    if contracts.camera_parts(module):
        if not splits.knows_cameras:
            raise DataError(
                f"{entry.name} embeds the camera of every image, and the cameras of the images in {splits.root} are "
                "unknown: pass --camera-embedding mean or off."
            )
        items = [*splits.query, *splits.gallery]
        checks.cameras(entry, range(rows) if known is None else known, items, "--camera-embedding mean or off")
    return known
