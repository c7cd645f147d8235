"""Features as the metrics read them: any array or tensor, a few rows at a time, checked before they are ranked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import FeatureError

if TYPE_CHECKING:
    import torch

ROWS = 4096
"""Rows read at once, so that a copy of the features never exists beside the features."""


class FeatureReader:
    """Reads rows of a feature matrix as float32 (float64 where it is float64) on one device.

    Args:
        features: [n, dim], numpy array or torch tensor on any device.
        side: `query` or `gallery`, for messages.
        device: where rows are wanted; where the features are if None.
        kept: indices of the rows that take part; all where None.

    Raises:
        FeatureError: not a matrix of floating point numbers, or empty.
    """

    def __init__(self, features: Any, side: str, device: Any = None, kept: np.ndarray | None = None) -> None:
        import torch

        self.side = side
        self._features = features.detach() if isinstance(features, torch.Tensor) else np.asarray(features)
        if self._features.ndim != 2 or 0 in self._features.shape:
            shape = tuple(self._features.shape)
            raise FeatureError(f"The {side} features have shape {shape}; give a matrix of one row an image.")
        source = _torch_dtype(self._features, side)
        self.dtype = torch.float64 if source == torch.float64 else torch.float32
        own = self._features.device if isinstance(self._features, torch.Tensor) else "cpu"
        self.device = torch.device(own if device is None else device)
        self.dim = self._features.shape[1]
        everything = kept is None or len(kept) == len(self._features)
        self._kept = None if everything else kept
        self._length = len(self._features) if self._kept is None else len(self._kept)

    def __len__(self) -> int:
        return self._length

    def blocks(self, size: int, dtype: torch.dtype | None = None) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yields all rows in order, `size` at a time: which, features [n, dim] and norms [n], checked.

        Raises:
            FeatureError: a row holds NaN or infinity, is too large to be squared, or has zero norm.
        """
        import torch

        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            chosen = self._features[rows if self._kept is None else self._kept[rows]]
            if not isinstance(chosen, torch.Tensor):
                chosen = torch.from_numpy(np.array(chosen, dtype=chosen.dtype.newbyteorder("=")))
            block = chosen.to(self.device, dtype or self.dtype)
            norms = row_norms(block)
            self._check(norms, rows)
            yield rows, block, norms

    def mean(self) -> torch.Tensor:
        """Returns the mean row [dim], summed in float64."""
        import torch

        total = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        for _, block, _ in self.blocks(ROWS):
            total += block.double().sum(dim=0)
        return total / len(self)

    def _check(self, norms: torch.Tensor, rows: slice) -> None:
        bad = ~norms.square().isfinite()
        if bool(bad.any()):
            raise FeatureError(
                f"The {self.side} feature at index {self._first(bad, rows)} holds NaN, infinity or values too large "
                "to be squared; training has diverged or extraction is faulty, so look at the loss and that image."
            )
        if bool((norms == 0).any()):
            raise FeatureError(
                f"The {self.side} feature at index {self._first(norms == 0, rows)} has zero norm, so it is no nearer "
                "to one image than to another; check the model's output for that image."
            )

    def _first(self, bad: torch.Tensor, rows: slice) -> int:
        row = rows.start + int(bad.nonzero()[0])
        return row if self._kept is None else int(self._kept[row])


def _torch_dtype(features: Any, side: str) -> torch.dtype:
    import torch

    if isinstance(features, torch.Tensor):
        dtype = features.dtype
    else:
        dtype = torch.float64 if features.dtype == np.float64 else torch.float32
        if features.dtype.kind not in "fiu":
            raise FeatureError(f"The {side} features are of type {features.dtype}; give real numbers.")
    if dtype.is_complex or dtype == torch.bool:
        raise FeatureError(f"The {side} features are of type {dtype}; give real numbers.")
    return dtype


def row_norms(features: torch.Tensor) -> torch.Tensor:
    """Returns the Euclidean norm of every row, [n], summed in float64 so that copies of other scale stay copies."""
    import torch

    norms = [torch.linalg.vector_norm(part.double(), dim=1) for part in features.split(1024)]
    return torch.cat(norms).to(features.dtype)
