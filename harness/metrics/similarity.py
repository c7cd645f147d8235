"""Similarities of queries to the gallery, one block of queries at a time, and how far their rounding can reach.

Both metrics rank by Euclidean distance; cosine divides features by their norms first, so that the squared distance is
twice the cosine distance. With q and g moved by a common point and divided by a common scale, the similarity
s = q.g - (|g|^2 - t) / 2 orders the gallery as the distance does, and |q - g|^2 = |q|^2 + t - 2 s. The point is the
mean of some gallery features, and t lies amid the |g|^2: what all features have in common costs no digits.

Features are prepared in float64 and multiplied in float32, or in float64 where float32 does not hold their numbers.

Two similarities of a query that differ by more than the sum of their errors are in the right order. The others are
settled by `harness.metrics.exact`, after the compiled counter has multiplied them again in shorter sums. The error of a
similarity is at most

    gamma (|q| |g| + ||g|^2 - t| / 2) + what the rule for ties and float64 add,
    gamma = n u / (1 - n u) + 5 u,    u = eps / 2,    n = dimensions multiplied at once + number of such steps.

Whatever the order of the sums in a step, at most n roundings follow one another (Higham, Accuracy and Stability of
Numerical Algorithms, chapter 3), and sum |q_i g_i| is at most |q| |g|. The 5 are the rounding of both features, of the
half square and of the comparison. The sum of a step must begin at zero, not at the sum of the steps before it, as in
every BLAS that scales it by alpha; a test shows that it does.
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
_BLOCK_ELEMENTS = 2**27
_SAMPLE = 1024
_SAME = 4 * 2.0**-23


@dataclass(frozen=True)
class Block:
    """Similarities of some queries to the whole gallery.

    Attributes:
        rows: which queries.
        similarity: [n_rows, n_gallery]. One buffer serves all blocks, so a consumer may overwrite it and must copy
            what it keeps.
        offset: (squared) distance of a similarity of zero, [n_rows].
        slope: what a similarity takes from it, [n_rows].
        margin: how far rounding may part the similarities of two pairs that tie; None where nothing was rounded.
        exact: distances that settle what lies within the margin; None likewise.
        scale: what Euclidean distances were divided by; None where the distance is no square root.
        again: what single similarities are computed from again; None where nothing was rounded.
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
        """Returns how far apart two similarities of a row may be and yet be in another order than their distances."""
        margin = self.margin
        return 0.0 if margin is None else 2 * float(margin.lift[row] * margin.tallest + margin.base[row])

    def distances(self, row: int, columns: np.ndarray) -> np.ndarray:
        """Returns distances of one query in float64, [n]."""
        import torch

        pairs = torch.as_tensor(columns, device=self.similarity.device)
        rows = torch.full_like(pairs, row)
        if self.exact is None:
            return -self.similarity[rows, pairs].double().cpu().numpy()
        squared = self.exact.squared(rows, pairs)
        return (squared / 2 if self.scale is None else squared.sqrt()).cpu().numpy()

    def ahead(self, row: int, columns: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Returns for pairs of a negative and a match of one query whether the negative is ahead or ties, bool [n]."""
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
        """Turns similarities [n_rows, n] into squared distances over `scale`; cosine and given ones are no squares."""
        squared = self.offset[:, None] - self.slope[:, None] * similarity
        return squared if self.scale is None else squared.clamp_min_(0)

    def distance(self, similarity: torch.Tensor) -> torch.Tensor:
        """Turns similarities [n_rows, n] into distances."""
        squared = self.squared_distance(similarity)
        return squared if self.scale is None else squared.sqrt_().mul_(self.scale)


@dataclass(frozen=True)
class Margin:
    """Bound of the error of a similarity: `lift` of the query times `height` of the gallery image, plus `base`.

    Attributes:
        lift: [n_rows], float64.
        base: [n_rows], float64.
        height: [n_gallery], float64.
        tallest: largest height.
    """

    lift: torch.Tensor
    base: torch.Tensor
    height: torch.Tensor
    tallest: float

    def around(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Returns how far from the similarity of each pair others of its row are not in order for certain, [n]."""
        return self.lift[rows] * (self.height[columns] + self.tallest) + 2 * self.base[rows]


@dataclass(frozen=True)
class Again:
    """What was multiplied, and the margin of products of single pairs, summed in quarters and these in halves.

    Attributes:
        queries: [n_rows, width].
        gallery: [n_gallery, width].
        margin: smaller than that of the block.
    """

    queries: torch.Tensor
    gallery: torch.Tensor
    margin: Margin


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
        block_size: queries a block; as many as give 512 MB of float32 if None.

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
        self.block_size = block_size or max(1, min(self.n_query, _BLOCK_ELEMENTS // self.n_gallery))
        self._refuse_constant()

    @property
    def gallery(self) -> torch.Tensor:
        """Gallery features as they are compared: of unit norm for cosine, moved and scaled; [n_gallery, dim]."""
        return self._gallery[:, : self.dim]

    def blocks(self) -> Iterator[Block]:
        """Yields the similarities of all queries in order; every block overwrites the one before."""
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
        """Returns queries as they are multiplied, in float64 before they are moved, norms and further divisors."""
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
            # A query far from the gallery is divided once more, which leaves the order of its row.
            reach[place] = torch.exp2(norms[place].log2().ceil().clamp_min(0))
            queries[place, : self.dim] = features / reach[place, None]
        queries[:, self.dim] = 1 / reach
        return queries, before, norms, reach

    def _margin(self, norms: torch.Tensor, reach: torch.Tensor, n: int) -> Margin:
        """Returns the margin of products in which at most `n` roundings follow one another."""
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
        # More steps make the error smaller, but the product slower.
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
        """Allocates memory; on a CPU from numpy, which asks for huge pages, in which single rows are found faster."""
        import torch

        if self.device.type == "cpu":
            return torch.from_numpy(np.empty(shape, np.float64 if self.dtype == torch.float64 else np.float32))
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _refuse_constant(self) -> None:
        """Raises when every query and gallery image has the same feature; stops at the first block that differs.

        The same is what float32 cannot tell apart, for float64 features too: no network is more precise.
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
            f"All {self.n_query} query and {self.n_gallery} gallery features are the same, so there is nothing to "
            "rank: the model has collapsed or its output does not depend on the image."
        )


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
            similarity = -block.contiguous().to(exact_type(block))
            if not bool(similarity.isfinite().all()):
                row = rows.start + int((~similarity.isfinite()).any(dim=1).nonzero()[0])
                raise FeatureError(f"Row {row} of the distances holds NaN or infinity; compute them again.")
            yield Block(rows, similarity, torch.zeros_like(similarity[:, 0]), torch.ones_like(similarity[:, 0]))


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
