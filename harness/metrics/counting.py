"""How many negatives stand ahead of a match: all that CMC, AP and INP need, found without sorting the gallery.

The rank of the i-th nearest match is i plus the number of negatives at least as similar. On the CPU each row of
similarities is compared with the few values of its matches, chunk by chunk within the cache, by compiled code on as
many threads as torch uses; the cost does not depend on how good the features are. On a GPU, and where there is little
to count, the row is sorted and searched. Both overwrite the similarities of the same identity.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics.protocol import Matches
from harness.metrics.similarity import Block

if TYPE_CHECKING:
    import torch

SMALL = 1 << 20
"""Similarities of a block up to which sorting them takes less time than loading the compiler's work, over a second."""

_CHUNK = 4096


def count_ahead(block: Block, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Counts, for every match of a block of queries, the negatives that are ahead of it.

    Args:
        block: similarities; overwritten at the columns of the same identity.
        matches: pairs of the same queries, numbered from zero.

    Returns:
        Negatives that are at least as similar, ties counted, and negatives that are more similar; both int64 in the
        order of the matches (`matches.is_match`).
    """
    return _counter(block.similarity)(block, matches)


def _counter(similarity: torch.Tensor) -> Callable[[Block, Matches], tuple[np.ndarray, np.ndarray]]:
    compiled = similarity.device.type == "cpu" and similarity.numel() > SMALL
    return _count_compiled if compiled else _count_sorted


def _count_compiled(block: Block, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    import torch

    similarity = block.similarity.numpy()
    tolerances = block.query_tolerance.numpy(), block.gallery_tolerance.numpy()
    out = np.zeros((2, int(matches.is_match.sum())), dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(matches.n_positives)])
    edges = np.linspace(0, len(similarity), min(torch.get_num_threads(), len(similarity)) + 1).astype(int)

    kernel = _kernel()

    def count(first: int, last: int) -> None:
        kernel(
            similarity, len(matches.kept), first, last, matches.offsets, matches.columns, matches.is_match,
            *tolerances, starts, out[0], out[1],
        )  # fmt: skip

    with ThreadPoolExecutor(len(edges) - 1) as pool:
        list(pool.map(count, edges[:-1], edges[1:]))
    return out[0], out[1]


@cache
def _kernel() -> Any:
    """Compiles the CPU counter; it releases the interpreter lock, so plain threads run it side by side."""
    import numba

    # Sums may be reordered, or the compiler could not use vector instructions; they are whole numbers below 2^24.
    return numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})(_count_rows)


def _count_rows(  # type: ignore[no-untyped-def]
    similarity, n_gallery, first, last, offsets, columns, is_match,
    query_tolerance, gallery_tolerance, starts, at_least, above,
):  # fmt: skip
    one, zero = np.float32(1), np.float32(0)
    for row in range(first, last):
        scores = similarity[row, :n_gallery]
        n_match = starts[row + 1] - starts[row]
        low = np.empty(n_match, scores.dtype)
        high = np.empty(n_match, scores.dtype)
        found = 0
        for pair in range(offsets[row], offsets[row + 1]):
            if is_match[pair]:
                tolerance = max(query_tolerance[row], gallery_tolerance[columns[pair]])
                low[found] = scores[columns[pair]] - tolerance
                high[found] = scores[columns[pair]] + tolerance
                found += 1
        for pair in range(offsets[row], offsets[row + 1]):
            scores[columns[pair]] = -np.inf
        for begin in range(0, n_gallery, _CHUNK):
            chunk = scores[begin : begin + _CHUNK]
            for match in range(n_match):
                least, more = low[match], high[match]
                n_least, n_more = zero, zero
                for score in chunk:
                    n_least += one if score >= least else zero
                    n_more += one if score > more else zero
                at_least[starts[row] + match] += np.int64(n_least)
                above[starts[row] + match] += np.int64(n_more)


def _count_sorted(block: Block, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """The same counts by sorting rows, in torch operations, on any device."""
    import torch

    scores = block.similarity[:, : len(matches.kept)]
    device = scores.device
    rows = torch.as_tensor(matches.rows, device=device)
    columns = torch.as_tensor(matches.columns, device=device)
    is_match = torch.as_tensor(matches.is_match, device=device)
    values = scores[rows, columns][is_match]
    scores[rows, columns] = -torch.inf
    ordered = scores.sort(dim=1).values

    starts = np.cumsum(matches.n_positives) - matches.n_positives
    match_rows = matches.rows[matches.is_match]
    slots = torch.as_tensor(np.arange(len(match_rows)) - starts[match_rows], device=device)
    match_rows = torch.as_tensor(match_rows, device=device)
    tolerance = torch.maximum(block.query_tolerance[match_rows], block.gallery_tolerance[columns[is_match]])

    def beyond(edges: torch.Tensor, right: bool) -> np.ndarray:
        table = torch.full((len(scores), int(matches.n_positives.max(initial=1))), torch.inf, device=device)
        table = table.to(scores.dtype)
        table[match_rows, slots] = edges
        counts = scores.shape[1] - torch.searchsorted(ordered, table, right=right)
        return counts[match_rows, slots].cpu().numpy()

    return beyond(values - tolerance, right=False), beyond(values + tolerance, right=True)
