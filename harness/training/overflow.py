"""What a batch that overflows float16 must not leave behind: in the losses of an epoch, in running statistics.

Everything stays on the device, so no step waits for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST_SCALE = 2.0**-16
"""A gradient that overflows float16 at this loss scale is above 4e9 without it: a smaller scale helps nobody."""


class Tally:
    """Losses of one epoch. A step whose loss is not finite is counted, but enters no sum."""

    def __init__(self) -> None:
        self.steps = 0
        self._finite: Tensor | int = 0
        self._sums: dict[str, Tensor | int] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        """Adds one step; `parts` are scalars, among them `loss`, the total."""
        finite = parts["loss"].isfinite()
        self.steps += 1
        self._finite = self._finite + finite.long()
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0) + torch.where(finite, value, 0.0)

    @property
    def finite(self) -> int:
        """Steps with a finite loss. Waits for the device."""
        return int(self._finite)

    def means(self) -> dict[str, float]:
        """Means over the steps with a finite loss; there must be one. Waits for the device."""
        finite = self.finite
        return {name: float(value) / finite for name, value in self._sums.items()}


class RunningStatistics:
    """Running statistics of a module, which a batch of infinite activations would spoil for good."""

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]

    def now(self) -> Tensor:
        """A copy of them all, flat."""
        return torch.cat([buffer.flatten() for buffer in self._buffers]) if self._buffers else torch.empty(0)

    def restore(self, before: Tensor, keep: Tensor) -> None:
        """Puts `before`, as `now` gave it, back unless `keep` is true, a scalar on the device."""
        if self._buffers:
            flat = torch.where(keep, self.now(), before)
            parts = flat.split([buffer.numel() for buffer in self._buffers])
            torch._foreach_copy_(self._buffers, [p.view_as(b) for p, b in zip(parts, self._buffers, strict=True)])
