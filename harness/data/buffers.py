"""Reusable memory for batches. Touching newly allocated memory costs more time than filling it with pixels."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray


class Buffers:
    """Returns float32 tensors of one shape and reuses the memory of tensors that were freed.

    The memory of a tensor is reused only after the tensor and all its views are gone, so callers need not return it.

    Args:
        shape: shape of each tensor.
        pin_memory: whether to use page-locked memory, which torch caches by itself.
    """

    def __init__(self, shape: tuple[int, ...], *, pin_memory: bool = False) -> None:
        self.shape, self.pin_memory = shape, pin_memory
        self._free: deque[NDArray[np.float32]] = deque()

    def take(self) -> torch.Tensor:
        """Returns an uninitialised tensor."""
        if self.pin_memory:
            return torch.empty(self.shape, pin_memory=True)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self.shape, dtype=np.float32)
        held = memory[:]  # only the tensor and its views keep this object alive
        weakref.finalize(held, self._free.append, memory).atexit = False
        return torch.from_numpy(held)

    def like(self, values: NDArray[np.int64]) -> torch.Tensor:
        """Returns the values as a tensor in the same kind of memory; copies from pageable memory block the GPU."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.pin_memory else tensor
