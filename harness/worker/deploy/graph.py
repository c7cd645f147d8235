"""The module that is exported: pixels in, features of unit length out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.contracts import set_camera_mode
from harness.errors import UsageError
from harness.worker.deploy.embedder import Embedder

INPUT, CAMERAS, OUTPUT, BATCH = "images", "camera_ids", "features", "batch"
LARGEST_BATCH = 65535


@dataclass(frozen=True)
class Contract:
    """What an exported network reads and returns.

    Attributes:
        image_size: (height, width) in pixels.
        normalised: whether the file normalises. If so it reads uint8, else float32 that is normalised already.
        mean: mean of each channel, for images in 0 .. 1.
        std: standard deviation of each channel, likewise.
        camera: `none`, `input`, `mean`, or the number of a trained camera.
        num_cameras: trained cameras; 0 for a backbone without a camera embedding.
        batch: images per call; 0 for any number.
        feature_dim: width of a feature.
    """

    image_size: tuple[int, int]
    normalised: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    camera: str
    num_cameras: int
    batch: int
    feature_dim: int

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Contract:
        """Reads the contract of a file's metadata."""
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            value = described[name]
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def described(self) -> dict[str, Any]:
        """The contract for the metadata of a file, with words for a reader."""
        dtype, values = ("uint8", "0 to 255") if self.normalised else ("float32", "(x / 255 - mean) / std")
        height, width = self.image_size
        return {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()},
            "input": f"{INPUT}: {dtype} [{self.batch or 'N'}, 3, {height}, {width}], RGB, {values}",
            "cameras": f"{CAMERAS}: int64 [N], 0 to {self.num_cameras - 1}" if self.camera == "input" else self.camera,
            "output": f"{OUTPUT}: float32 [{self.batch or 'N'}, {self.feature_dim}], unit length",
        }


class Exported(nn.Module):
    """Normalises if asked for, calls the backbone, and scales features to unit length.

    Args:
        module: the backbone in evaluation mode.
        contract: what it reads.
    """

    pixel_mean: Tensor  # the exporter gives names such as `mean` to constants of its own
    pixel_std: Tensor

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.module, self.contract = module, contract
        for name in ("mean", "std"):
            values = torch.tensor(getattr(contract, name), dtype=torch.float32) * 255
            self.register_buffer(f"pixel_{name}", values.reshape(3, 1, 1))

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> Tensor:
        """Features [N, feature_dim] of images [N, 3, height, width]."""
        if self.contract.normalised:
            images = (images.to(torch.float32) - self.pixel_mean) / self.pixel_std
        if camera_ids is None:
            fixed = int(self.contract.camera) if self.contract.camera.isdecimal() else 0
            camera_ids = torch.full((images.shape[0],), fixed, dtype=torch.int64)
        return nn.functional.normalize(self.module(images, camera_ids), dim=1)

    def example(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of the right types."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (batch, 3, *self.contract.image_size), generator=generator, dtype=torch.uint8)
        cameras = torch.randint(0, max(1, self.contract.num_cameras), (batch,), generator=generator)
        if not self.contract.normalised:
            images = (images.to(torch.float32) - self.pixel_mean) / self.pixel_std
        return (images, cameras) if self.contract.camera == "input" else (images,)


def prepare(network: Embedder, *, normalize: bool, camera: str, batch: int) -> Exported:
    """Builds the module to export.

    Args:
        network: the network, on the CPU.
        normalize: whether the file normalises.
        camera: `input`, `mean`, a trained camera from 0, or empty for the mean where the backbone embeds cameras.
        batch: images per call; 0 for any number.

    Raises:
        UsageError: cameras for a backbone without them, or a camera that the network was not trained on.
    """
    card, rows = network.source.entry.input, network.num_cameras if network.embeds_cameras else 0
    if camera and not rows:
        raise UsageError(f"{network.source.entry.name} does not use cameras. Leave --camera out.")
    chosen = (camera or "mean") if rows else "none"
    if chosen not in ("none", "input", "mean") and not (chosen.isdecimal() and int(chosen) < rows):
        raise UsageError(f"--camera must be input, mean or a trained camera from 0 to {rows - 1}, found '{chosen}'.")
    if chosen == "mean":
        set_camera_mode(network.module, "mean")
    size = network.image_size
    with torch.inference_mode():
        cameras = torch.zeros(1, dtype=torch.int64)
        width = network.module(torch.zeros(1, 3, *size), cameras).shape[1]
    contract = Contract(size, normalize, card.mean, card.std, chosen, rows, batch, width)
    return Exported(network.module, contract).eval().requires_grad_(False)
