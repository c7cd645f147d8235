"""The condition of one cell of the efficiency study, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.spec import recipe

DATASET = "random-images"
"""Dataset name in the specs of measurements, which use random images."""

NUM_CLASSES, NUM_CAMERAS = 751, 6
"""Numbers of training identities and cameras of Market-1501, for classifiers and camera embeddings."""

INSTANCES = 4
"""Maximum number of images per identity in a training batch; small batches have fewer."""

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Condition:
    """The condition of one cell.

    Attributes:
        measure: `inference` or `training`.
        image_size: (height, width) in pixels.
        batch_size: number of images per batch.
        precision: `fp32`, or `bf16` or `fp16` for autocast with float32 weights, as in training.
        compiled: whether `torch.compile` is used.
        threads: number of CPU threads.
        seconds: maximum duration of the measurement, in seconds; a minimum number of repeats runs in any case.
    """

    measure: str
    image_size: tuple[int, int]
    batch_size: int
    precision: str = "fp32"
    compiled: bool = False
    threads: int = 1
    seconds: float = 3.0

    def __str__(self) -> str:
        height, width = self.image_size
        compiled = ", compiled" if self.compiled else ""
        return f"{self.measure}, {height}x{width}, batch {self.batch_size}, {self.precision}{compiled}"

    def described(self) -> dict[str, Any]:
        """Returns the condition for the `efficiency` block of the record."""
        return {
            "measure": self.measure,
            "image_size": list(self.image_size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "compiled": self.compiled,
            "threads": self.threads,
        }

    def values(self, hardware: str) -> dict[str, Any]:
        """Returns the values of the run spec. A training step uses losses and optimiser of the unified recipe."""
        size = {"image_size": list(self.image_size)}
        values: dict[str, Any] = {"cell": {**self.described(), "seconds": self.seconds}, "hardware": hardware}
        if self.measure == "inference":
            return {**values, "augmentation": size}
        instances = min(INSTANCES, max(1, self.batch_size // 2))  # the losses need two identities
        chosen = recipe.load(
            recipe.find("unified"),
            "",
            {
                "augmentation.image_size": self.image_size,
                "sampler.identities": self.batch_size // instances,
                "sampler.instances": instances,
                "training.precision": self.precision,
                "optimizer.lr": 1e-6,  # does not affect the time of a step; a large rate may diverge
            },
        )
        return {**values, "recipe": chosen.values(), "augmentation": size}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Condition:
        """Rebuilds the condition from the values of a run spec."""
        cell = dict(values["cell"])
        height, width = cell.pop("image_size")
        return cls(image_size=(height, width), **cell)
