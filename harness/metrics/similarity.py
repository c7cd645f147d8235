"""Similarities of queries to the gallery, one block of queries at a time, and bounds of their rounding errors.

Both metrics rank by Euclidean distance. Cosine normalises the features first, so that the squared distance is twice
the cosine distance. After q and g are shifted by a common point and divided by a common scale, the similarity
s = q.g - (|g|^2 - t) / 2 sorts the gallery like the distance, and |q - g|^2 = |q|^2 + t - 2 s. The point is the mean of
some gallery features, and t is the middle of the |g|^2. This removes what all features have in common, which would
cost precision.

Features are prepared in float64 and multiplied in float32, or in float64 if float32 cannot represent their numbers.

Two similarities of a query are in the right order if they differ by more than the sum of their errors. All others are
compared again: first by the compiled counter with shorter sums, then by `harness.metrics.exact`. The error of a
similarity is at most

    gamma (|q| |g| + ||g|^2 - t| / 2) + the terms of the tie rule and of float64,
    gamma = n u / (1 - n u) + 5 u,    u = eps / 2,    n = dimensions multiplied at once + number of such steps.

For any order of the sums in a step, at most n roundings are consecutive (Higham, Accuracy and Stability of Numerical
Algorithms, chapter 3), and sum |q_i g_i| is at most |q| |g|. The term 5 u covers the rounding of both features, of the
half square and of the comparison. The sum of a step must start at zero, not at the sum of earlier steps. This holds
for every BLAS that scales the product by alpha; a test checks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.errors import FeatureError, unknown
from harness.metrics.exact import UNIT, ExactDistances, TieRule, depth
from harness.metrics.features import FeatureReader, exact_type, row_norms

if TYPE_CHECKING:
    import torch

METRICS = ("cosine", "euclidean")

_ALIGNED = 16
_BLOCK_ELEMENTS = {"cpu": 2**27}
_ON_OTHER_DEVICES = 2**25  # rows are sorted there, which needs several times the memory
_SAMPLE = 1024
_SAME = 4 * 2.0**-23


@dataclass(frozen=True)
class Block:
    """Similarities of some queries to the whole gallery.

    Attributes:
        rows: the queries of this block.
        similarity: [n_rows, n_gallery]. All blocks share one buffer: callers may overwrite it, and must copy what they
            keep.
        offset: (squared) distance at similarity 0, [n_rows].
        slope: decrease of the (squared) distance per unit of similarity, [n_rows].
        margin: bound of the rounding errors; None if similarities are not rounded.
        exact: distances that decide the order within the margin; None if similarities are not rounded.
        scale: factor by which Euclidean distances were divided; None if the distance is not a square root.
        again: factors from which single similarities are computed again; None if similarities are not rounded.
    """

    rows: slice
    similarity: torch.Tensor
    offset: torch.Tensor
    slope: torch.Tensor
    margin: Margin | None = None
    exact: ExactDistances | None = None
    scale: float | None = None
    again: Again | None = None

    def widest(self, row: int) -> float:
        """Returns the largest gap at which two similarities of a row may be in the wrong order."""
        margin = self.margin
        return 0.0 if margin is None else 2 * float(margin.lift[row] * margin.tallest + margin.base[row])

    def distances(self, row: int, columns: np.ndarray) -> np.ndarray:
        """Returns the distances of one query to some gallery columns, float64 [n]."""
        import torch

        pairs = torch.as_tensor(columns, device=self.similarity.device)
        rows = torch.full_like(pairs, row)
        if self.exact is None:
            return -self.similarity[rows, pairs].double().cpu().numpy()
        squared = self.exact.squared(rows, pairs)
        return (squared / 2 if self.scale is None else squared.sqrt()).cpu().numpy()

    def ahead(self, row: int, columns: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Returns whether each negative of one query is ahead of its match or ties with it.

        Args:
            row: row of the query in the block.
            columns: gallery columns of negatives, [n].
            matches: gallery column of the match to compare each negative with, [n].

        Returns:
            bool [n].
        """
        import torch

        negative, match = (torch.as_tensor(of, device=self.similarity.device) for of in (columns, matches))
        rows = torch.full_like(negative, row)
        lead = self.similarity[rows, negative].double() - self.similarity[rows, match].double()
        ahead = lead >= 0
        if self.exact is not None and self.margin is not None:
            near = lead.abs() <= self.margin.around(rows, match)
            rows, negative, match = rows[near], negative[near], match[near]
            ahead[near] = self.exact.at_least(self.exact.squared(rows, negative), self.exact.squared(rows, match))
        return ahead.cpu().numpy()

    def squared_distance(self, similarity: torch.Tensor) -> torch.Tensor:
        """Converts similarities [n_rows, n] to squared Euclidean distances divided by the square of `scale`.

        Cosine distances and given distances are returned as they are, not squared.
        """
        squared = self.offset[:, None] - self.slope[:, None] * similarity
        return squared if self.scale is None else squared.clamp_min_(0)

    def distance(self, similarity: torch.Tensor) -> torch.Tensor:
        """Converts similarities [n_rows, n] to distances."""
        squared = self.squared_distance(similarity)
        return squared if self.scale is None else squared.sqrt_().mul_(self.scale)


@dataclass(frozen=True)
class Margin:
    """Bound of the rounding error of a similarity: `lift` of the query times `height` of the image, plus `base`.

    Attributes:
        lift: factor of each query, float64 [n_rows].
        base: constant of each query, float64 [n_rows].
        height: norm of each gallery image, float64 [n_gallery].
        tallest: largest `height`.
    """

    lift: torch.Tensor
    base: torch.Tensor
    height: torch.Tensor
    tallest: float

    def around(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Returns the gap around the similarity of each pair within which the order is uncertain, [n]."""
        return self.lift[rows] * (self.height[columns] + self.tallest) + 2 * self.base[rows]


@dataclass(frozen=True)
class Again:
    """The factors of the similarities, to compute the products of single pairs again with a smaller error.

    Attributes:
        queries: [n_rows, width].
        gallery: [n_gallery, width].
        margin: bound of the error of these products, smaller than that of the block.
    """

    queries: torch.Tensor
    gallery: torch.Tensor
    margin: Margin


class Similarity(Protocol):
    """A source of similarities: features, or given distances."""

    n_query: int
    n_gallery: int

    def blocks(self) -> Iterator[Block]:
        """Yields the similarities of all queries in order."""
        ...


class FeatureSimilarity:
    """Similarities between features. The gallery is prepared once, the queries block by block.

    Args:
        query_features: [n_query, dim], array or tensor.
        gallery_features: [n_gallery, dim], array or tensor.
        metric: `cosine` or `euclidean`.
        kept: indices of the gallery images to use; None for all.
        device: device to compute on; None for the device of the gallery features.
        block_size: number of queries per block; None for as many as give 512 MB of float32.

    Raises:
        FeatureError: a feature is not finite or has zero norm, all features are the same, or the dimensions differ.
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
        self._reader = FeatureReader(gallery_features, "gallery", device, kept)
        self._query = FeatureReader(query_features, "query", self._reader.device)
        self.dim = self._reader.dim
        if self._query.dim != self.dim:
            raise FeatureError(
                f"Query features have {self._query.dim} dimensions and gallery features {self.dim}; "
                "extract both with the same model."
            )
        self.n_query, self.n_gallery = len(self._query), len(self._reader)
        self.euclidean = metric == "euclidean"
        self.device = self._reader.device
        self.dtype = torch.promote_types(self._query.dtype, self._reader.dtype)
        self._rule = TieRule.of(self.dim, self.euclidean)
        self._prepare_gallery()
        self.block_size = block_size or _rows(self.n_query, self.n_gallery, self.device.type)
        self._refuse_constant()

    @property
    def gallery(self) -> torch.Tensor:
        """Gallery features as they are compared: normalised for cosine, then shifted and scaled; [n_gallery, dim]."""
        return self._gallery[:, : self.dim]

    def blocks(self) -> Iterator[Block]:
        """Yields the similarities of all queries in order; every block overwrites the previous one."""
        import torch

        buffer = torch.empty(self.block_size, self.n_gallery, dtype=self.dtype, device=self.device)
        for start in range(0, self.n_query, self.block_size):
            rows = slice(start, min(start + self.block_size, self.n_query))
            queries, features, norms, reach = self._prepare_queries(rows)
            self._multiply(queries, buffer[: len(queries)])
            width = self._gallery.shape[1]
            margin = self._margin(norms, reach, self._step + -(-width // self._step))
            fine = self._margin(norms, reach, 3 + depth(width // 4))
            exact = ExactDistances(features, self._reader.matrix, self._reader.index, self._inverse, self._rule)
            offset, slope = norms.square() + self._amid, 2 * reach
            if not self.euclidean:
                offset, slope = offset / 2, slope / 2
            offset, slope = offset.to(self.dtype), slope.to(self.dtype)
            scale = self._scale if self.euclidean else None
            again = Again(queries, self._gallery, fine)
            yield Block(rows, buffer[: len(queries)], offset, slope, margin, exact, scale, again)

    def _prepare_queries(self, rows: slice) -> tuple[torch.Tensor, ...]:
        """Prepares the queries of a block.

        Returns:
            The queries as they are multiplied, the queries in float64 before the shift, their norms after it, and the
            additional divisor of each.
        """
        import torch

        n = rows.stop - rows.start
        queries = torch.zeros(n, self._gallery.shape[1], dtype=self.dtype, device=self.device)
        before = torch.empty(n, self.dim, dtype=torch.float64, device=self.device)
        norms, reach = torch.empty_like(before[:, 0]), torch.empty_like(before[:, 0])
        for part, features, lengths in self._query.blocks(rows):
            place = slice(part.start - rows.start, part.stop - rows.start)
            if not self.euclidean:
                features /= lengths[:, None]
            before[place] = features
            features -= self._centre
            features /= self._scale
            norms[place] = row_norms(features)
            # A query far from the gallery is scaled down, which does not change the order of its row.
            reach[place] = torch.exp2(norms[place].log2().ceil().clamp_min(0))
            queries[place, : self.dim] = features / reach[place, None]
        queries[:, self.dim] = 1 / reach
        return queries, before, norms, reach

    def _margin(self, norms: torch.Tensor, reach: torch.Tensor, n: int) -> Margin:
        """Returns the error bound of products with at most `n` consecutive roundings."""
        import torch

        number = torch.finfo(self.dtype)
        unit = number.eps / 2
        gamma = n * unit / (1 - n * unit) + 5 * unit
        rounded = gamma * self._uneven + (4 * depth(self.dim) + 64) * UNIT * (norms + self._tallest + 1) ** 2
        base = rounded / reach + (2 * self.dim + 4) * number.tiny
        return Margin(gamma * norms / reach, base, self._height, self._tallest)

    def _prepare_gallery(self) -> None:
        import torch

        sample = self._reader.sample(_SAMPLE)
        self._inverse = torch.ones(self.n_gallery, dtype=torch.float64, device=self.device)
        self._scale = 1.0
        if self.euclidean:
            self._centre = sample.mean(dim=0)
            largest = max(float(norms.max()) for _, _, norms in self._reader.blocks())
            self._scale = float(2.0 ** np.ceil(np.log2(largest + float(self._centre.norm()))))
        else:
            self._centre = (sample / row_norms(sample)[:, None]).mean(dim=0)
        width = -(-(self.dim + 1) // _ALIGNED) * _ALIGNED
        # More steps give a smaller error but a slower product.
        self._step = -(-width // int(np.ceil((width / 192) ** 0.5)))
        self._gallery = self._large(self.n_gallery, width).zero_()
        self._height = torch.empty_like(self._inverse)
        for rows, features, norms in self._reader.blocks():
            if not self.euclidean:
                self._inverse[rows] = 1 / norms
                features *= self._inverse[rows, None]
            features -= self._centre
            features /= self._scale
            self._gallery[rows, : self.dim] = features
            self._height[rows] = row_norms(features)
        self._tallest = float(self._height.max())
        squares = self._height.square()
        self._amid = float(squares.max() + squares.min()) / 2
        halves = (self._amid - squares) / 2
        self._gallery[:, self.dim] = halves
        self._uneven = float(halves.abs().max())

    def _multiply(self, queries: torch.Tensor, out: torch.Tensor) -> None:
        import torch

        left, right = queries.split(self._step, dim=1), self._gallery.split(self._step, dim=1)
        with full_precision(self.device):
            torch.mm(left[0], right[0].T, out=out)
            for one, other in zip(left[1:], right[1:], strict=True):
                out.addmm_(one, other.T)

    def _large(self, *shape: int) -> torch.Tensor:
        """Allocates a tensor; on a CPU with numpy, whose huge pages speed up access to single rows."""
        import torch

        if self.device.type == "cpu":
            return torch.from_numpy(np.empty(shape, np.float64 if self.dtype == torch.float64 else np.float32))
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _refuse_constant(self) -> None:
        """Raises `FeatureError` if all query and gallery features are the same; stops at the first block that differs.

        Features are the same if float32 cannot distinguish them, also in float64: no network is more precise.
        """
        if self.n_gallery < 2:
            return
        first = self._reader.matrix[self._reader.index[0]].double() * self._inverse[0]
        bound = _SAME * first.abs().max()
        for reader in (self._reader, self._query):
            for _, features, norms in reader.blocks():
                features = features if self.euclidean else features / norms[:, None]
                if bool((features - first).abs().max() > bound):
                    return
        raise FeatureError(
            f"All {self.n_query} query and {self.n_gallery} gallery features are the same, so they cannot be ranked. "
            "The model has collapsed, or its output does not depend on the image."
        )


class DistanceSimilarity:
    """Given distances, negated to similarities.

    Args:
        distances: [n_query, n_gallery], array or tensor; smaller is nearer.
        kept: indices of the gallery images to use; None for all.
        block_size: number of queries per block.

    Raises:
        FeatureError: the distances are not a matrix, or one is not finite.
    """

    def __init__(self, distances: Any, *, kept: np.ndarray | None = None, block_size: int | None = None) -> None:
        self._distances = distances.detach() if hasattr(distances, "detach") else np.asarray(distances)
        if self._distances.ndim != 2 or 0 in self._distances.shape:
            raise FeatureError(f"The distances have shape {tuple(self._distances.shape)}; pass [n_query, n_gallery].")
        everything = kept is None or len(kept) == self._distances.shape[1]
        self._kept = None if everything else kept
        self.n_query = self._distances.shape[0]
        self.n_gallery = self._distances.shape[1] if self._kept is None else len(self._kept)
        device = getattr(getattr(self._distances, "device", None), "type", "cpu")  # numpy's is a text
        self.block_size = block_size or _rows(self.n_query, self._distances.shape[1], device)

    def blocks(self) -> Iterator[Block]:
        """Yields the negated distances of all queries in order."""
        import torch

        for start in range(0, self.n_query, self.block_size):
            rows = slice(start, min(start + self.block_size, self.n_query))
            block = self._distances[rows] if self._kept is None else self._distances[rows][:, self._kept]
            block = block if isinstance(block, torch.Tensor) else torch.from_numpy(np.array(block, order="C"))
            similarity = -block.contiguous().to(exact_type(block))
            if not bool(similarity.isfinite().all()):
                row = rows.start + int((~similarity.isfinite()).any(dim=1).nonzero()[0])
                raise FeatureError(f"Row {row} of the distances contains NaN or infinity; compute the distances again.")
            yield Block(rows, similarity, torch.zeros_like(similarity[:, 0]), torch.ones_like(similarity[:, 0]))


def _rows(n_query: int, n_gallery: int, device: str) -> int:
    """Returns the number of queries of a block."""
    return max(1, min(n_query, _BLOCK_ELEMENTS.get(device, _ON_OTHER_DEVICES) // n_gallery))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Returns a context without TF32, bfloat16 and autocast, which training may have switched on."""
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
