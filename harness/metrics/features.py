"""Reads features for the metrics: any array or tensor, without changing its numbers, and checks them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import FeatureError

if TYPE_CHECKING:
    import torch

_ELEMENTS = {"cpu": 2**15, "cuda": 2**24}
"""Size of a float64 work array. On a CPU it fits the cache, and is too small for torch to use several threads."""


class FeatureReader:
    """Reads rows of a feature matrix on one device, in a type that represents every number of the matrix exactly.

    The type is float32 for float32, half precision and integers of 8 and 16 bits, and float64 for all others.

    Args:
        features: [n, dim], numpy array or torch tensor on any device; copied only if its type, device or strides
            have to change.
        side: `query` or `gallery`, for messages.
        device: device to compute on; None for the device of the features.
        kept: indices of the rows to use; None for all.

    Raises:
        FeatureError: the features are empty or not a matrix of real numbers.
    """

    def __init__(self, features: Any, side: str, device: Any = None, kept: np.ndarray | None = None) -> None:
        import torch

        self.side = side
        source = features.detach() if isinstance(features, torch.Tensor) else np.asarray(features)
        if source.ndim != 2 or 0 in source.shape:
            raise FeatureError(
                f"The {side} features have shape {tuple(source.shape)}; pass a matrix [N, D] with one row per image."
            )
        source = _as_tensor(source, side)
        self.dtype = exact_type(source)
        self.matrix = source.to(source.device if device is None else device, self.dtype).contiguous()
        self.device = self.matrix.device
        self.dim = self.matrix.shape[1]
        everything = kept is None or len(kept) == len(self.matrix)
        self._kept = None if everything else kept
        self.index = torch.arange(len(self.matrix)) if everything else torch.as_tensor(kept)
        self.index = self.index.to(self.device)

    def __len__(self) -> int:
        return len(self.index)

    def blocks(self, among: slice | None = None) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yields rows in order, in small blocks: the rows, copies of their features [n, dim] and their norms [n].

        Features and norms are float64.

        Args:
            among: rows to read; None for all.

        Raises:
            FeatureError: a row contains NaN or infinity, is too large to be squared, or has zero norm.
        """
        import torch

        among = among or slice(0, len(self))
        size = max(1, _ELEMENTS.get(self.device.type, 2**15) // self.dim)
        for start in range(among.start, among.stop, size):
            rows = slice(start, min(start + size, among.stop))
            block = self.matrix[rows if self._kept is None else self.index[rows]].to(torch.float64, copy=True)
            norms = row_norms(block)
            self._check(norms, rows)
            yield rows, block, norms

    def sample(self, n: int) -> torch.Tensor:
        """Returns at most `n` rows, evenly spaced, in float64."""
        return self.matrix[self.index[:: -(-len(self) // n)]].double()

    def _check(self, norms: torch.Tensor, rows: slice) -> None:
        bad = ~norms.isfinite()
        if bool(bad.any()):
            raise FeatureError(
                f"The {self.side} feature at index {self._first(bad, rows)} contains NaN, infinity or values too large "
                "to be squared. Training may have diverged: check the loss, and the model's output for that image."
            )
        if bool((norms == 0).any()):
            raise FeatureError(
                f"The {self.side} feature at index {self._first(norms == 0, rows)} has zero norm, so it cannot be "
                "ranked. Check the model's output for that image."
            )

    def _first(self, bad: torch.Tensor, rows: slice) -> int:
        return int(self.index[rows][bad][0])


def _as_tensor(features: Any, side: str) -> torch.Tensor:
    import torch

    if not isinstance(features, torch.Tensor):
        if features.dtype.kind not in "fiu":
            raise FeatureError(f"The {side} features have the type {features.dtype}; pass real numbers.")
        features = np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("="))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns of read-only arrays; nothing here writes to them
            features = torch.from_numpy(features)
    if features.dtype.is_complex or features.dtype == torch.bool:
        raise FeatureError(f"The {side} features have the type {features.dtype}; pass real numbers.")
    return features


def exact_type(values: torch.Tensor) -> torch.dtype:
    """Returns float32 if it represents every number of the tensor's type exactly, and float64 otherwise."""
    import torch

    short = torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.uint16
    return torch.float32 if values.dtype in short else torch.float64


def row_sums(values: torch.Tensor) -> torch.Tensor:
    """Sums rows [n, dim] in place by adding halves repeatedly, and returns the sums [n].

    The order of additions is the same for all shapes, threads and devices. Only ceil(log2(dim)) additions are
    consecutive, which bounds the rounding error.
    """
    width = values.shape[1]
    while width > 1:
        half = (width + 1) // 2
        values[:, : width - half] += values[:, half:width]
        width = half
    return values[:, 0]


def row_norms(features: torch.Tensor) -> torch.Tensor:
    """Returns the Euclidean norm of every row of float64 features, [n]."""
    return row_sums(features.square()).sqrt()
