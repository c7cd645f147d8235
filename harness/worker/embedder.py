"""A trained backbone that converts images to the features used for ranking."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from harness import registry, weights
from harness.cards import InputCard
from harness.contracts import camera_parts, set_camera_mode
from harness.data.transforms import Normalization, decode, resize
from harness.errors import UsageError
from harness.planning.request import resolve_device
from harness.records import store
from harness.registry import BackboneEntry
from harness.system.device import exact_float32, place
from harness.system.paths import expand
from harness.training.trained import from_checkpoint

Images = Tensor | Sequence[Any]
"""Images as a tensor, or as a sequence of paths and PIL images."""

BATCH = 64


class Embedder(nn.Module):
    """A backbone in evaluation mode.

    Calling it calls the backbone on normalised tensors; `embed` also reads, resizes and normalises images.

    Args:
        module: the backbone.
        input_card: mean, standard deviation and memory format of its input.
        image_size: (height, width) in pixels.
        interpolation: `bicubic` or `bilinear`.
        device: where it runs.
        num_cameras: rows of its camera embedding.
    """

    def __init__(
        self,
        module: nn.Module,
        input_card: InputCard,
        image_size: tuple[int, int],
        interpolation: str,
        device: torch.device,
        num_cameras: int,
    ) -> None:
        super().__init__()
        self.module = place(module, device, input_card).eval()
        self.image_size, self.interpolation, self.device = image_size, interpolation, device
        self.num_cameras = num_cameras
        self._normalization = Normalization.of(input_card.mean, input_card.std)

    def forward(self, images: Tensor, camera_ids: Tensor) -> Tensor:
        """Returns the features [B, feature_dim] of normalised images [B, 3, height, width]."""
        feature: Tensor = self.module(images, camera_ids)
        return feature

    @torch.inference_mode()
    def embed(self, images: Images, camera_ids: Sequence[int] | None = None) -> Tensor:
        """Returns features [N, feature_dim] of unit length on the CPU.

        Args:
            images: paths or PIL images of any size; or a tensor [N, 3, height, width] of the backbone's size, uint8, or
                float from 0 to 1.
            camera_ids: camera of each image, numbered from zero in the order of the training cameras. Without them, a
                backbone with a camera embedding uses the mean of its trained cameras.

        Raises:
            UsageError: a tensor of another size or type, or a number of cameras that differs from that of images.
            DataError: an image that cannot be read.
        """
        count = len(images)
        if camera_ids is not None and len(camera_ids) != count:
            raise UsageError(f"Found {len(camera_ids)} camera ids for {count} images; pass one per image.")
        self._check(camera_ids or [])
        changed = set_camera_mode(self.module, "mean") if camera_ids is None else []
        try:
            found = [self._batch(images, camera_ids, start) for start in range(0, count, BATCH)]
        finally:
            if changed:
                set_camera_mode(self.module, "on", since="mean")
        features = torch.cat(found) if found else torch.empty(0, 0)
        return nn.functional.normalize(features, dim=1) if count else features

    def _check(self, camera_ids: Sequence[int]) -> None:
        """Checks that every camera has a row in the camera embedding, if there is one."""
        if camera_parts(self.module) and (wrong := [c for c in camera_ids if not 0 <= c < self.num_cameras]):
            raise UsageError(
                f"Camera {wrong[0]} has no embedding: the model was trained on {self.num_cameras} cameras, numbered "
                f"0 to {self.num_cameras - 1}. Omit camera_ids to use their mean."
            )

    def _batch(self, images: Images, camera_ids: Sequence[int] | None, start: int) -> Tensor:
        part = images[start : start + BATCH]
        levels = self._levels(part)
        for image in levels:
            self._normalization.apply(image)
        cameras = torch.zeros(len(part), dtype=torch.int64)
        if camera_ids is not None:
            cameras = torch.tensor(list(camera_ids[start : start + BATCH]), dtype=torch.int64)
        return self(torch.from_numpy(levels).to(self.device), cameras).float().cpu()

    def _levels(self, images: Images) -> np.ndarray:
        """Pixel values from 0 to 255 as float32, [B, 3, height, width]."""
        if isinstance(images, Tensor):
            if tuple(images.shape[1:]) != (3, *self.image_size):
                raise UsageError(
                    f"Images must have shape [N, 3, {self.image_size[0]}, {self.image_size[1]}], found "
                    f"{list(images.shape)}. Pass paths or PIL images to have them resized."
                )
            if images.dtype == torch.uint8:
                return images.cpu().numpy().astype(np.float32)
            if not images.is_floating_point():
                raise UsageError(f"Images must be uint8, or floats from 0 to 1; found {images.dtype}.")
            return (images.float() * 255).cpu().numpy()
        return np.stack([self._pixels(image) for image in images]).astype(np.float32)

    def _pixels(self, image: Any) -> np.ndarray:
        if isinstance(image, Image.Image):
            return resize(image, self.image_size, self.interpolation)
        return decode(Path(image), self.image_size, self.interpolation)


def load(
    name: str = "",
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    run: str | None = None,
    device: str = "auto",
    results: str | os.PathLike[str] = "results",
    plugins: str | os.PathLike[str] = "",
    options: Mapping[str, Any] | None = None,
    image_size: Sequence[int] | None = None,
    trust_pickle: bool = False,
) -> Embedder:
    """Loads a trained backbone; see `harness.load_backbone`."""
    exact_float32()
    if run and checkpoint:
        raise UsageError("Pass either checkpoint or run, not both.")
    folder = Path(expand(plugins)) if plugins else None
    interpolation = "bicubic"
    trained = {"identities": 1, "cameras": 1}
    if run:
        record, path = _of_run(Path(expand(results)), run)
        spec = record["spec"]
        if name and registry.backbone(name, folder).name != spec["backbone"]:
            raise UsageError(f"Run {run} trained {spec['backbone']}, not {name}.")
        name, checkpoint = spec["backbone"], path
        trained = record["data"]["splits"]["train"]
        options = {**spec["options"], **(options or {})}
        image_size = image_size or spec["values"]["augmentation"]["image_size"]
        interpolation = spec["values"]["augmentation"]["interpolation_test"]
    elif checkpoint and (facts := weights.published.facts(expand(checkpoint))):
        name, interpolation = name or facts.backbone, facts.interpolation
        if facts.backbone.partition(":")[0] != registry.backbone(name, folder).card.name:
            raise UsageError(f"{checkpoint} was published as {facts.backbone}, not {name}.")
        trained = {"identities": facts.identities, "cameras": facts.cameras}
        options = {**facts.options, **(options or {})}
        image_size = image_size or facts.image_size
    entry = registry.backbone(name, folder)
    height, width = image_size or entry.input.image_size
    chosen = torch.device(resolve_device(device))
    size, given = (int(height), int(width)), entry.options(dict(options or {}))
    module, num_cameras = _module(entry, checkpoint, given, size, trust_pickle, trained)
    return Embedder(module, entry.input, size, interpolation, chosen, num_cameras)


def _module(
    entry: BackboneEntry,
    checkpoint: str | os.PathLike[str] | None,
    options: dict[str, Any],
    image_size: tuple[int, int],
    trust_pickle: bool,
    trained: Mapping[str, int],
) -> tuple[nn.Module, int]:
    """Builds the module; returns it with the number of rows of its camera embedding.

    `trained` has the numbers of `identities` and `cameras` in training, for a checkpoint that does not determine them.
    """
    if checkpoint is None:
        return entry.build(num_classes=1, num_cameras=1, image_size=image_size, **options), 1
    state = weights.load_state(Path(expand(checkpoint)), trust_pickle)
    return from_checkpoint(
        entry,
        state,
        options,
        image_size=image_size,
        num_classes=trained["identities"],
        num_cameras=trained["cameras"],
    )


def _of_run(results: Path, run: str) -> tuple[Any, Path]:
    """Finds the record and checkpoint of a run by the first characters of its id."""
    found = [entry for run_id, entry in store.index(results).items() if run_id.startswith(run)]
    if not found:
        raise UsageError(
            f"No run in {results} has an id that starts with '{run}'. If it is in another folder, pass results=FOLDER."
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} runs in {results} have an id that starts with '{run}'. Pass more characters of the id; "
            "'python -m harness status' lists the runs."
        )
    folder = (results / found[0].path).parent
    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise UsageError(f"Run {run} has no checkpoint in {folder}. Train it here, or pass a checkpoint file.")
    return store.read(folder), path
