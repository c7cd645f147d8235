"""Memory for batches that is used again, because first use of fresh memory costs more than filling it."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray


class Buffers:
    """Hands out float32 tensors of one shape, from memory that no tensor refers to any more.

    A batch stays as it is for as long as anyone holds it or a view of it; nobody need give it back.

    Args:
        shape: of each tensor.
        pin_memory: page-locked memory, for which torch itself keeps used memory.
    """

    def __init__(self, shape: tuple[int, ...], *, pin_memory: bool = False) -> None:
        self.shape, self.pin_memory = shape, pin_memory
        self._free: deque[NDArray[np.float32]] = deque()

    def take(self) -> torch.Tensor:
        """Returns a tensor whose values are arbitrary."""
        if self.pin_memory:
            return torch.empty(self.shape, pin_memory=True)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self.shape, dtype=np.float32)
        held = memory[:]  # the tensor and all its views keep this object alive, and nothing else does
        weakref.finalize(held, self._free.append, memory).atexit = False
        return torch.from_numpy(held)

    def like(self, values: NDArray[np.int64]) -> torch.Tensor:
        """The values as a tensor in the same kind of memory: one in other memory makes a GPU wait for its copy."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.pin_memory else tensor
