"""Protects the losses of an epoch from batches that overflow float16.

All values stay on the device, so no step has to wait.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-16
"""Minimum loss scale. A gradient that overflows float16 at this scale is above 4e9; a smaller scale would not help."""


class Tally:
    """Sums of the losses of one epoch. Steps with a loss that is not finite are counted, but not summed."""

    def __init__(self) -> None:
        self.steps = 0
        self._finite: Tensor | int = 0
        self._sums: dict[str, Tensor | int] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        """Adds one step; `parts` are scalars, including the total `loss`."""
        finite = parts["loss"].isfinite()
        self.steps += 1
        self._finite = self._finite + finite.long()
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0) + torch.where(finite, value, 0.0)

    @property
    def finite(self) -> int:
        """Number of steps with a finite loss. Waits for the device."""
        return int(self._finite)

    def means(self) -> dict[str, float]:
        """Returns the means over the steps with a finite loss, at least one. Waits for the device."""
        finite = self.finite
        return {name: float(value) / finite for name, value in self._sums.items()}
