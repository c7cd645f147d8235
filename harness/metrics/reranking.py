"""Re-ranking by k-reciprocal encoding (Zhong et al., CVPR 2017), with sparse matrices and bounded memory.

U is the queries followed by the gallery, N_m(i) the m nearest images of U to i including i, D the distance:

1. Reciprocal neighbours R(i, m) = {j in N_m(i): i in N_m(j)}; A = R(i, k1 + 1).
2. Add to A every R(c, h) with c in A of which more than two thirds lie in A; h = round(k1 / 2) + 1, half to even.
3. d_ij = D_ij^2 / max_l D_il^2; V_ij = exp(-d_ij) in the expanded set and 0 elsewhere, scaled to a row sum of 1.
4. Replace V_i by the mean of V over N_k2(i).
5. Jaccard distance J_ij = 1 - s / (2 - s), s = sum_l min(V_il, V_jl).
6. The result is (1 - lambda) J + lambda d, for queries against the gallery.

The published code is called with squared Euclidean distances and squares them again, so D is the squared Euclidean
distance. For features of unit norm, D is twice the cosine distance; step 3 removes the factor.

No dense matrix over U x U is built: neighbours are computed in blocks, and V has some hundred entries per row. Memory
holds the features twice, the result and one block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import FeatureError, UsageError
from harness.metrics.similarity import FeatureSimilarity

if TYPE_CHECKING:
    import scipy.sparse as sparse

_PAIRS = 2**14
_BLOCK_ELEMENTS = 2**26
"""Number of distances per block; a few arrays of this size exist at the same time."""


def rerank(
    query_features: Any,
    gallery_features: Any,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    metric: str = "euclidean",
    device: Any = None,
    block_size: int | None = None,
) -> np.ndarray:
    """Returns k-reciprocal distances [n_query, n_gallery], float32 (float64 for float64 features).

    Labels are not used. Drop junk first, or keep it deliberately: it counts as a neighbour of other images.

    Args:
        query_features: [n_query, dim], array or tensor.
        gallery_features: [n_gallery, dim], array or tensor.
        k1: number of neighbours for the reciprocal sets.
        k2: number of neighbours for the local query expansion; 1 disables it.
        lambda_value: weight of the original distance, 0 to 1.
        metric: `euclidean` (squared, on the given features) or `cosine` (the same on normalised features).
        device: device for the neighbour search; None for the device of the gallery features.
        block_size: number of images to compare at once.

    Raises:
        FeatureError: as `evaluate_ranking`.
        UsageError: an option is out of range.
    """
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise UsageError(f"k1={k1}, k2={k2}, lambda={lambda_value}: k1 and k2 must be 1 or more, lambda from 0 to 1.")
    n_query = len(query_features)
    everything = _stack(query_features, gallery_features)
    block_size = block_size or max(1, min(len(everything), _BLOCK_ELEMENTS // len(everything)))
    similarity = FeatureSimilarity(everything, everything, metric=metric, device=device, block_size=block_size)
    neighbours, _, largest, result = nearest(similarity, n_query, max(k1 + 1, k2))
    finish(result, similarity, neighbours, largest, k1, k2, lambda_value)
    return result


def finish(
    result: np.ndarray,
    similarity: FeatureSimilarity,
    neighbours: np.ndarray,
    largest: np.ndarray,
    k1: int,
    k2: int,
    lambda_value: float,
) -> None:
    """Steps 1 to 6, in place, from what `nearest` returns."""
    n_query = len(result)
    sets = _expanded_sets(neighbours, k1)
    weights = _weights(sets, similarity, largest)
    if k2 > 1:
        weights = _selection(neighbours[:, :k2], weights.dtype) @ weights / min(k2, neighbours.shape[1])
    _blend_jaccard(result, weights, n_query, lambda_value)


def _stack(query_features: Any, gallery_features: Any) -> Any:
    import torch

    if len(query_features) == 0 or np.shape(query_features)[1:] != np.shape(gallery_features)[1:]:
        shapes = f"{tuple(np.shape(query_features))} and {tuple(np.shape(gallery_features))}"
        raise FeatureError(f"Query and gallery features have the shapes {shapes}; pass two matrices of equal width.")
    if isinstance(gallery_features, torch.Tensor):
        query = torch.as_tensor(query_features).to(gallery_features.device)
        return torch.cat([query.detach(), gallery_features.detach()])
    if isinstance(query_features, torch.Tensor):
        query_features = query_features.detach().cpu().numpy()
    return np.concatenate([query_features, gallery_features])


def nearest(similarity: FeatureSimilarity, n_query: int, count: int) -> tuple[np.ndarray, ...]:
    """Computes, in blocks, what step 1 needs of U.

    Returns:
        The nearest images of each image, [n, count], and their D; the largest D^2 of each image, [n]; and d of queries
        and gallery, [n_query, n_gallery].
    """
    import torch

    n = similarity.n_query
    count = min(count, n)
    found = np.empty((n, count), dtype=np.int64)
    largest = np.empty(n, dtype=np.float64 if similarity.dtype == torch.float64 else np.float32)
    reach = np.empty((n, count), dtype=largest.dtype)
    result = np.empty((n_query, n - n_query), dtype=largest.dtype)
    for block in similarity.blocks():
        distances = block.squared_distance(block.similarity[:, :n]).clamp_min_(0)
        own = torch.arange(len(distances), device=distances.device)
        # Every image must be its own nearest neighbour, even if U contains a copy of it.
        distances[own, own + block.rows.start] = -1
        values, columns = distances.topk(count, dim=1, largest=False)
        found[block.rows], reach[block.rows] = columns.cpu().numpy(), values.cpu().numpy()
        row_max = distances.amax(dim=1).square_()
        largest[block.rows] = row_max.cpu().numpy()
        queries = slice(block.rows.start, min(block.rows.stop, n_query))
        if queries.start < queries.stop:
            used = queries.stop - queries.start
            scaled = distances[:used, n_query:].square_().div_(row_max[:used, None])
            result[queries] = scaled.cpu().numpy()
    return found, reach, largest, result


def _selection(columns: np.ndarray, dtype: Any) -> sparse.csr_array:
    """Returns the sparse matrix [n, n] with a 1 at every (i, columns[i, j])."""
    import scipy.sparse as sparse

    n, count = columns.shape
    return sparse.csr_array(
        (np.ones(columns.size, dtype=dtype), columns.ravel(), np.arange(n + 1) * count), shape=(n, n)
    )


def _reciprocal(neighbours: np.ndarray, count: int) -> sparse.csr_array:
    forward = _selection(neighbours[:, :count], np.int32)
    return forward.multiply(forward.T).tocsr()


def _expanded_sets(neighbours: np.ndarray, k1: int) -> sparse.csr_array:
    """Steps 1 and 2: returns the expanded reciprocal set of every image, as the pattern of a sparse matrix."""
    outer = _reciprocal(neighbours, k1 + 1)
    inner = _reciprocal(neighbours, round(k1 / 2) + 1)
    shared = (outer @ inner.T).multiply(outer).tocoo()
    sizes = inner.sum(axis=1)
    joins = 3 * shared.data > 2 * sizes[shared.col]
    shared.data = joins.astype(np.int32)
    grown = (outer + shared.tocsr() @ inner).tocsr()
    grown.eliminate_zeros()
    grown.sort_indices()
    return grown


def _weights(sets: sparse.csr_array, similarity: FeatureSimilarity, largest: np.ndarray) -> sparse.csr_array:
    """Step 3: returns exp(-d) over the sets, scaled to a row sum of 1."""
    import scipy.sparse as sparse

    rows = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    data = np.empty(sets.nnz, dtype=largest.dtype)
    for start in range(0, sets.nnz, _PAIRS):
        span = slice(start, start + _PAIRS)
        distances = _pair_distances(similarity, rows[span], sets.indices[span])
        data[span] = np.exp(-(distances**2) / largest[rows[span]])
    sums = np.add.reduceat(data, sets.indptr[:-1])
    return sparse.csr_array((data / sums[rows], sets.indices, sets.indptr), shape=sets.shape)


def _pair_distances(similarity: FeatureSimilarity, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns D for pairs of images, [n]; for cosine, half the squared distance of the unit vectors."""
    import torch

    device = similarity.device
    difference = similarity.gallery[torch.as_tensor(first, device=device)]
    difference -= similarity.gallery[torch.as_tensor(second, device=device)]
    squared = difference.square_().sum(dim=1)
    return (squared if similarity.euclidean else squared / 2).cpu().numpy()


def _blend_jaccard(result: np.ndarray, weights: sparse.csr_array, n_query: int, lambda_value: float) -> None:
    """Steps 5 and 6, in place. Only images that share a column of V with the query have s > 0."""
    n_gallery = result.shape[1]
    by_column = weights[n_query:].tocsc()
    starts, lengths = by_column.indptr[:-1], np.diff(by_column.indptr)
    for query in range(n_query):
        span = slice(weights.indptr[query], weights.indptr[query + 1])
        columns, values = weights.indices[span], weights.data[span]
        counts = lengths[columns]
        ends = np.cumsum(counts)
        entries = np.arange(ends[-1]) - np.repeat(ends - counts - starts[columns], counts)
        smaller = np.minimum(by_column.data[entries], np.repeat(values, counts))
        shared = np.bincount(by_column.indices[entries], weights=smaller, minlength=n_gallery)
        result[query] = (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * result[query]
