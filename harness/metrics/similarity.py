"""Similarities of queries to the gallery, one block of queries at a time, and the rule that makes two of them tie.

Cosine: features are divided by their norm, similarity is the dot product s, distance is 1 - s.
Euclidean: similarity is s = q.g - |g|^2 / 2, which orders the gallery as the distance sqrt(|q|^2 - 2 s) does, so that
ranking needs no square root. Both features are first moved by the gallery mean: no distance changes, and features
with a large common part lose no digits.

Everything is float32; float64 features stay float64; half precision is raised to float32.

A negative ties with a match when their similarities differ by at most `TIE_ULPS` * eps * scale, eps being the spacing
of the type at 1 and scale the size of what was added up: 1 for cosine, the larger of |q|^2 and the match's |g|^2 for
Euclidean, the largest magnitude in the row for given distances. Exact equality would not do: the same product summed
in another order differs in its last digits, so that copies of one feature would not tie. For the same reason gallery
and blocks are padded to whole tiles of the matrix product, where equal columns are summed in equal order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.errors import FeatureError, unknown
from harness.metrics.features import ROWS, FeatureReader, row_norms

if TYPE_CHECKING:
    import torch

TIE_ULPS = 4
METRICS = ("cosine", "euclidean")
_TILE = 16
_BLOCK_ELEMENTS = 2**26


@dataclass(frozen=True)
class Block:
    """Similarities of some queries to the whole gallery.

    Attributes:
        rows: which queries.
        similarity: [n_rows, n_gallery or more]; columns beyond the gallery are padding. One buffer serves all blocks,
            so a consumer may overwrite it and must copy what it keeps.
        query_tolerance: largest difference from a match that is still a tie, [n_rows] ...
        gallery_tolerance: ... unless this is larger for the match, [n_gallery].
        offset: distance of a similarity of zero: 1 for cosine, |q|^2 (squared) for Euclidean, 0 for given; [n_rows].
        euclidean: whether distances are Euclidean.
    """

    rows: slice
    similarity: torch.Tensor
    query_tolerance: torch.Tensor
    gallery_tolerance: torch.Tensor
    offset: torch.Tensor
    euclidean: bool = False

    def squared_distance(self, similarity: torch.Tensor) -> torch.Tensor:
        """Turns similarities [n_rows, n] into squared Euclidean distances; cosine and given ones are as they are."""
        if self.euclidean:
            return (self.offset[:, None] - 2 * similarity).clamp_min_(0)
        return self.offset[:, None] - similarity

    def distance(self, similarity: torch.Tensor) -> torch.Tensor:
        """Turns similarities [n_rows, n] into distances."""
        squared = self.squared_distance(similarity)
        return squared.sqrt_() if self.euclidean else squared


class Similarity(Protocol):
    """Where similarities come from."""

    n_query: int
    n_gallery: int

    def blocks(self) -> Iterator[Block]:
        """Yields the similarities of all queries in order."""
        ...


class FeatureSimilarity:
    """Similarities between features; the gallery is prepared once, the queries block by block.

    Args:
        query_features: [n_query, dim], array or tensor.
        gallery_features: [n_gallery, dim], array or tensor.
        metric: `cosine` or `euclidean`.
        kept: indices of the gallery images that take part; all where None.
        device: where to compute; where the gallery features are if None.
        block_size: queries a block; as many as give 256 MB of float32 if None.

    Raises:
        FeatureError: a feature is not finite or has zero norm, all are the same, or the dimensions differ.
    """

    def __init__(
        self,
        query_features: Any,
        gallery_features: Any,
        *,
        metric: str = "cosine",
        kept: np.ndarray | None = None,
        device: Any = None,
        block_size: int | None = None,
    ) -> None:
        import torch

        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        gallery = FeatureReader(gallery_features, "gallery", device, kept)
        self._query = FeatureReader(query_features, "query", gallery.device)
        if self._query.dim != gallery.dim:
            raise FeatureError(
                f"Query features have {self._query.dim} dimensions and gallery features {gallery.dim}; "
                "extract both with the same model."
            )
        self.n_query, self.n_gallery = len(self._query), len(gallery)
        self.euclidean = metric == "euclidean"
        self.device = gallery.device
        self.dtype = torch.promote_types(self._query.dtype, gallery.dtype)
        self._mean = gallery.mean().to(self.dtype) if self.euclidean else None
        self._padded_gallery = self._zeros(_padded(self.n_gallery), gallery.dim)
        for rows, features, norms in gallery.blocks(ROWS, self.dtype):
            self._padded_gallery[rows] = self._prepare(features, norms)
        self._half_square = row_norms(self._padded_gallery).square_().div_(2) if self.euclidean else None
        self._unit = TIE_ULPS * torch.finfo(self.dtype).eps
        self._gallery_tolerance = self._zeros(self.n_gallery)
        if self._half_square is not None:
            self._gallery_tolerance = 2 * self._unit * self._half_square[: self.n_gallery]
        self.block_size = block_size or max(1, min(self.n_query, _BLOCK_ELEMENTS // len(self._padded_gallery)))
        self._refuse_constant()

    @property
    def gallery(self) -> torch.Tensor:
        """Gallery features as they are compared: of unit norm, or moved by their mean; [n_gallery, dim]."""
        return self._padded_gallery[: self.n_gallery]

    def blocks(self) -> Iterator[Block]:
        """Yields the similarities of all queries in order; every block overwrites the one before."""
        buffer = self._zeros(_padded(self.block_size), len(self._padded_gallery))
        queries = self._zeros(len(buffer), self._padded_gallery.shape[1])
        for rows, features, norms in self._query.blocks(self.block_size, self.dtype):
            n_rows = rows.stop - rows.start
            queries[:n_rows] = self._prepare(features, norms)
            self._multiply(queries[: _padded(n_rows)], buffer[: _padded(n_rows)])
            square = row_norms(queries[:n_rows]).square() if self.euclidean else self._zeros(n_rows) + 1
            yield Block(rows, buffer[:n_rows], self._unit * square, self._gallery_tolerance, square, self.euclidean)

    def _multiply(self, queries: torch.Tensor, out: torch.Tensor) -> None:
        import torch

        with full_precision(self.device):
            torch.mm(queries, self._padded_gallery.T, out=out)
        if self._half_square is not None:
            out -= self._half_square

    def _prepare(self, features: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        return features - self._mean if self._mean is not None else features / norms[:, None]

    def _refuse_constant(self) -> None:
        """Raises when every query and gallery image has the same feature; stops at the first block that differs."""
        if self.n_gallery < 2:
            return
        first = self.gallery[0]
        scale = first.abs().max() + (self._mean.abs().max() if self._mean is not None else 0)
        bound = self._unit * scale
        queries = (self._prepare(features, norms) for _, features, norms in self._query.blocks(ROWS, self.dtype))
        for features in itertools.chain(self.gallery.split(ROWS), queries):
            if bool((features - first).abs().max() > bound):
                return
        raise FeatureError(
            f"All {self.n_query} query and {self.n_gallery} gallery features are the same, so there is nothing to "
            "rank: the model has collapsed or its output does not depend on the image."
        )

    def _zeros(self, *shape: int) -> torch.Tensor:
        import torch

        return torch.zeros(shape, dtype=self.dtype, device=self.device)


class DistanceSimilarity:
    """Similarities that are distances somebody else computed, with the sign turned.

    Args:
        distances: [n_query, n_gallery], array or tensor; smaller is nearer.
        kept: indices of the gallery images that take part; all where None.
        block_size: queries a block.

    Raises:
        FeatureError: not a matrix, or a distance is not finite.
    """

    def __init__(self, distances: Any, *, kept: np.ndarray | None = None, block_size: int | None = None) -> None:
        self._distances = distances.detach() if hasattr(distances, "detach") else np.asarray(distances)
        if self._distances.ndim != 2 or 0 in self._distances.shape:
            raise FeatureError(f"Distances have shape {tuple(self._distances.shape)}; give [n_query, n_gallery].")
        everything = kept is None or len(kept) == self._distances.shape[1]
        self._kept = None if everything else kept
        self.n_query = self._distances.shape[0]
        self.n_gallery = self._distances.shape[1] if self._kept is None else len(self._kept)
        self.block_size = block_size or max(1, min(self.n_query, _BLOCK_ELEMENTS // self._distances.shape[1]))

    def blocks(self) -> Iterator[Block]:
        """Yields the negated distances of all queries in order."""
        import torch

        for start in range(0, self.n_query, self.block_size):
            rows = slice(start, min(start + self.block_size, self.n_query))
            block = self._distances[rows] if self._kept is None else self._distances[rows][:, self._kept]
            block = block if isinstance(block, torch.Tensor) else torch.from_numpy(np.array(block, order="C"))
            similarity = -block.contiguous().to(torch.float64 if block.dtype == torch.float64 else torch.float32)
            if not bool(similarity.isfinite().all()):
                row = rows.start + int((~similarity.isfinite()).any(dim=1).nonzero()[0])
                raise FeatureError(f"Row {row} of the distances holds NaN or infinity; compute them again.")
            unit = TIE_ULPS * torch.finfo(similarity.dtype).eps
            tolerance = unit * similarity.abs().amax(dim=1)
            yield Block(rows, similarity, tolerance, torch.zeros_like(similarity[0]), torch.zeros_like(tolerance))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keeps TF32, bfloat16 and autocast, which training may have switched on, out of the products inside."""
    import torch

    switches: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def _padded(n: int) -> int:
    return -(-n // _TILE) * _TILE
