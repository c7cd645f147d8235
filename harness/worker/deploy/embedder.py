"""A trained backbone that converts images to the features used for ranking."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from harness import weights
from harness.contracts import Item, camera_parts, feature_dim
from harness.data.images import Range
from harness.data.loader import EvaluationData
from harness.data.transforms import Images, decode, resize
from harness.errors import UsageError
from harness.planning.request import resolve_device
from harness.system.device import check, exact_float32, place
from harness.training.trained import from_checkpoint
from harness.worker.deploy.source import Source, find
from harness.worker.pipeline import mean_camera
from harness.worker.scoring import features_by_batch

Pictures = Tensor | np.ndarray | Sequence[Any]
"""Images as a tensor, or as a sequence of paths, PIL images and arrays."""

Progress = Callable[[int, int], None]
"""Called with the number of images done and the total."""


class Embedder(nn.Module):
    """A backbone in evaluation mode. It reads, resizes and normalises images with the code of the evaluation.

    Calling it calls the backbone on normalised tensors; `embed` converts images to features.

    Args:
        module: the backbone.
        source: where its weights come from, and how its evaluation reads images.
        device: where it runs.
        num_cameras: rows of its camera embedding.
    """

    def __init__(self, module: nn.Module, source: Source, device: torch.device, num_cameras: int) -> None:
        super().__init__()
        self.module = place(module, device, source.entry.input).eval()
        self.source, self.device, self.num_cameras = source, device, num_cameras
        self.image_size = source.image_size

    @property
    def embeds_cameras(self) -> bool:
        """Whether the features depend on the camera of an image."""
        return bool(camera_parts(self.module))

    def forward(self, images: Tensor, camera_ids: Tensor) -> Tensor:
        """Returns the features [B, feature_dim] of normalised images [B, 3, height, width]."""
        feature: Tensor = self.module(images, camera_ids)
        return feature

    def embed(
        self,
        images: Pictures,
        camera_ids: Sequence[int] | None = None,
        *,
        flip: bool = False,
        precision: str = "fp32",
        workers: int = 0,
        progress: Progress | None = None,
    ) -> Tensor:
        """Returns features [N, feature_dim] of unit length on the CPU.

        Args:
            images: paths, PIL images or uint8 arrays [height, width, 3], of any size; or tensors [3, height, width] of
                the backbone's size, uint8, or float from 0 to 1.
            camera_ids: camera of each image, numbered from zero in the order of the training cameras. Without them, a
                backbone with a camera embedding uses the mean of its trained cameras.
            flip: whether to average the features of each image and its mirror image.
            precision: `fp32`, `bf16` or, on a GPU, `fp16`.
            workers: number of threads that read images; 0 is the same as 1.
            progress: called after each batch.

        Raises:
            UsageError: an image of another size or type, or a number of cameras that differs from that of images.
            DataError: an image that cannot be read.
        """
        if isinstance(images, str | os.PathLike | Image.Image) or not hasattr(images, "__len__"):
            raise UsageError(f"Pass a list of images, also for one image; found {type(images).__name__}.")
        count = len(images)
        if camera_ids is not None and len(camera_ids) != count:
            raise UsageError(f"Found {len(camera_ids)} camera ids for {count} images; pass one per image.")
        paths = isinstance(images, Sequence) and all(isinstance(image, str | os.PathLike) for image in images)
        cameras = [0] * count if camera_ids is None else [int(camera) for camera in camera_ids]
        items = [Item(Path(image) if paths else Path(), 0, c) for image, c in zip(images, cameras, strict=True)]
        if not items:
            return torch.empty(0, feature_dim(self.module, self.source.entry.card.feature_dim))
        features = torch.empty(0)
        batches = self.stream(
            items,
            pictures=None if paths else _Given(images, self.image_size, self.source.interpolation),
            mean=camera_ids is None,
            flip=flip,
            precision=precision,
            value_range=self.source.value_range,
            workers=workers,
        )
        for done, batch in batches:
            if not len(features):
                features = torch.empty(count, batch.shape[1])
            features[done - len(batch) : done] = batch
            if progress:
                progress(done, count)
        return features

    def stream(
        self,
        items: Sequence[Item],
        *,
        pictures: Images | None = None,
        rows: Mapping[int, int] | None = None,
        mean: bool = False,
        value_range: Range | None = None,
        flip: bool = False,
        precision: str = "fp32",
        unit: bool = True,
        workers: int = 0,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yields the number of images done and the features [B, feature_dim] of each batch, on the CPU.

        Args:
            items: images with their cameras.
            pictures: resized images in place of the files of the items.
            rows: row of each `camid` in the camera embedding; `None` uses the `camid` itself.
            mean: whether to use the mean of the trained cameras for every image.
            value_range: the gray values of black and white in images of more than 8 bits.
            flip: whether to average the features of each image and its mirror image.
            precision: `fp32`, `bf16` or, on a GPU, `fp16`.
            unit: whether to scale features to unit length; the evaluation ranks them as they are.
            workers: number of threads that read images; 0 is the same as 1.

        Raises:
            UsageError: a camera that the network was not trained on.
        """
        if not mean:
            self._check(items, rows)
        data = self.data(items, pictures=pictures, rows=rows, value_range=value_range, workers=workers)
        done = 0
        with mean_camera(self.module) if mean else contextlib.nullcontext():
            for plain, flipped in features_by_batch(self.module, data, self.device, flip=flip, precision=precision):
                found = (plain if flipped is None else flipped).cpu()
                done += len(found)
                yield done, nn.functional.normalize(found, dim=1) if unit else found

    def data(
        self,
        items: Sequence[Item],
        *,
        pictures: Images | None = None,
        rows: Mapping[int, int] | None = None,
        value_range: Range | None = None,
        workers: int = 0,
        batch_size: int = 0,
    ) -> EvaluationData:
        """Returns the batches of images as the evaluation reads them; the arguments are those of `stream`.

        A batch has `batch_size` images; 0 for as many as in the evaluation.
        """
        card = self.source.entry.input
        return EvaluationData(
            items,
            image_size=self.image_size,
            interpolation=self.source.interpolation,
            mean=card.mean,
            std=card.std,
            batch_size=batch_size or self.source.batch_size,
            cameras=rows,
            value_range=value_range,
            workers=workers,
            pin_memory=self.device.type == "cuda",
            images=pictures,
        )

    def _check(self, items: Sequence[Item], rows: Mapping[int, int] | None) -> None:
        """Checks that every camera has a row in the camera embedding, if there is one."""
        known = rows if rows is not None else range(self.num_cameras)
        if self.embeds_cameras and (wrong := sorted({i.camid for i in items if i.camid not in known})):
            raise UsageError(
                f"Camera {wrong[0]} has no embedding: the model was trained on {self.num_cameras} cameras, numbered "
                f"0 to {self.num_cameras - 1}. Omit the camera to use their mean."
            )


class _Given:
    """Images in memory by index, resized on access: uint8, or float from 0 to 255; [3, height, width]."""

    def __init__(self, images: Pictures, image_size: tuple[int, int], interpolation: str) -> None:
        self.images, self.image_size, self.interpolation = images, image_size, interpolation

    def __getitem__(self, index: int) -> Any:
        image = self.images[index]
        if isinstance(image, Tensor):
            return self._pixels(image.detach())
        if isinstance(image, str | os.PathLike):
            return decode(Path(image), self.image_size, self.interpolation)
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UsageError(
                    f"Arrays of images must be uint8 [height, width, 3], found {image.dtype} {list(image.shape)}."
                )
            image = Image.fromarray(image)
        if not isinstance(image, Image.Image):
            raise UsageError(f"Images must be paths, PIL images, arrays or tensors; found {type(image).__name__}.")
        return resize(image, self.image_size, self.interpolation)

    def _pixels(self, image: Tensor) -> np.ndarray:
        height, width = self.image_size
        if image.shape != (3, height, width):
            raise UsageError(
                f"Tensors of images must have shape [3, {height}, {width}], found {list(image.shape)}. Pass paths, PIL "
                "images or arrays to have them resized."
            )
        if image.dtype == torch.uint8:
            return image.cpu().numpy()
        if not (image.is_floating_point() and image.min() >= 0 and image.max() <= 1):
            raise UsageError(
                f"Tensors of images must be uint8, or floats from 0 to 1; found {image.dtype} from {image.min():g} to "
                f"{image.max():g}."
            )
        return (image.float() * 255).cpu().numpy()


def load(
    name: str = "",
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    run: str | None = None,
    device: str = "auto",
    trust_pickle: bool = False,
    batch_size: int = 0,
    **settings: Any,
) -> Embedder:
    """Loads a trained backbone; see `harness.load_backbone`."""
    exact_float32()
    chosen = torch.device(resolve_device(device))
    check(chosen.type)
    source = find(name, checkpoint=checkpoint, run=run, **settings)
    if batch_size < 0:
        raise UsageError(f"A batch must have at least one image, found {batch_size}.")
    source = replace(source, batch_size=batch_size or source.batch_size)
    module, num_cameras = _module(source, trust_pickle)
    return Embedder(module, source, chosen, num_cameras)


def _module(source: Source, trust_pickle: bool) -> tuple[nn.Module, int]:
    """Builds the module; returns it with the number of rows of its camera embedding."""
    options = dict(source.options)
    if source.checkpoint is None:
        return source.entry.build(num_classes=1, num_cameras=1, image_size=source.image_size, **options), 1
    return from_checkpoint(
        source.entry,
        weights.load_state(source.checkpoint, trust_pickle),
        options,
        image_size=source.image_size,
        num_classes=source.identities,
        num_cameras=source.cameras,
    )
