"""Running statistics of a module, such as those of batch norm: copied, restored, and averaged over parts of a batch.

All values stay on the device, so no step has to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Copies and restores the buffers of a module.

    Constants among the buffers are written with their own values, through `.data`: PyTorch would otherwise refuse a
    backward pass that has stored them.
    """

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self._counters = [buffer for buffer in module.buffers() if not buffer.is_floating_point()]

    def now(self) -> Tensor:
        """Returns a flat copy of all statistics."""
        return torch.cat([buffer.flatten() for buffer in self._buffers]) if self._buffers else torch.empty(0)

    def set(self, flat: Tensor) -> None:
        """Sets all statistics to a flat copy."""
        if self._buffers:
            parts = flat.split([buffer.numel() for buffer in self._buffers])
            values = [part.view_as(buffer) for part, buffer in zip(parts, self._buffers, strict=True)]
            torch._foreach_copy_([buffer.data for buffer in self._buffers], values)

    def restore(self, before: Tensor, keep: Tensor) -> None:
        """Restores the copy `before`, returned by `now`, unless `keep` (a bool scalar on the device) is true."""
        if self._buffers:
            self.set(torch.where(keep, self.now(), before))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Restores all buffers at the end, counters of batches included."""
        flat, counters = self.now(), [counter.clone() for counter in self._counters]
        try:
            yield
        finally:
            self.set(flat)
            for counter, before in zip(self._counters, counters, strict=True):
                counter.data.copy_(before)


def has_batch_norm(module: nn.Module) -> bool:
    """Returns whether a module normalises by statistics of the batch."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
