"""Counts the negatives ahead of each match, which is all that CMC, AP and INP need, without sorting the gallery.

The rank of the i-th nearest match is i plus the number of negatives that are at least as similar. There are two
implementations:

- On the CPU, compiled code with torch's number of threads collects the images that are at least as similar as the
  farthest match, and compares these with each match.
- On a GPU, and for small inputs, each row is sorted and searched.

If the order of a negative and a match depends on rounding, both compare distances in float64
(`harness.metrics.exact`), computed once per query and image. Both overwrite the similarities of the same identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics.protocol import Matches
from harness.metrics.similarity import Block

if TYPE_CHECKING:
    import torch

SMALL = 1 << 20
"""Number of similarities up to which sorting is used: loading the compiled code takes more than a second."""

_PAIRS = 2**24


def count_ahead(block: Block, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Counts, for every match of a block of queries, the negatives ahead of it.

    Args:
        block: similarities; overwritten at the columns of the same identity.
        matches: the pairs of these queries, numbered from zero.

    Returns:
        Two int64 arrays in the order of the matches (`matches.is_match`): the number of negatives that are more
        similar or tie, and the number of negatives that are more similar.
    """
    return _counter(block.similarity)(block, matches)


def _counter(similarity: torch.Tensor) -> Callable[[Block, Matches], tuple[np.ndarray, np.ndarray]]:
    compiled = similarity.device.type == "cpu" and similarity.numel() > SMALL
    return _count_compiled if compiled else _count_sorted


def _count_compiled(block: Block, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from harness.metrics import compiled

    count_rows: Any = compiled.count_rows
    n_rows, n_gallery = block.similarity.shape
    arguments = (
        _rounded(block) if block.margin is not None else _given(n_rows, n_gallery, block.similarity.numpy().dtype)
    )
    out = np.zeros((2, int(matches.is_match.sum())), dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(matches.n_positives)])
    edges = np.linspace(0, n_rows, min(torch.get_num_threads(), n_rows) + 1).astype(int)

    def count(first: int, last: int) -> None:
        count_rows(
            block.similarity.numpy(), first, last, matches.offsets, matches.columns, matches.is_match, starts,
            *arguments, out[0], out[1],
        )  # fmt: skip

    with ThreadPoolExecutor(len(edges) - 1) as pool:
        list(pool.map(count, edges[:-1], edges[1:]))
    return out[0], out[1]


def _rounded(block: Block) -> list[Any]:
    """Returns the arguments with which the compiled code settles near-ties."""
    margin, again, exact = block.margin, block.again, block.exact
    assert margin is not None and again is not None and exact is not None
    return [
        *_arrays(margin.height), margin.tallest, *_arrays(margin.lift, margin.base),
        _arrays(again.queries, again.gallery), *_arrays(again.margin.lift, again.margin.base),
        _arrays(exact.query, exact.gallery, exact.index, exact.inverse),
        exact.rule.relative, exact.rule.linear, exact.rule.floor,
    ]  # fmt: skip


def _given(n_rows: int, n_gallery: int, dtype: np.dtype) -> list[Any]:
    """Returns the same arguments for given similarities without rounding, where only equal ones tie."""
    nothing, empty = np.zeros(n_rows), np.empty((0, 1), dtype)
    exact = np.empty((0, 1)), np.empty((0, 1), np.float32), np.empty(0, np.int64), np.empty(0)
    return [np.zeros(n_gallery), 0.0, nothing, nothing, (empty, empty), nothing, nothing, exact, 0.0, 0.0, 0.0]


def _arrays(*tensors: torch.Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.contiguous().numpy() for tensor in tensors)


def _count_sorted(block: Block, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Computes the counts by sorting rows with torch, on any device."""
    import torch

    scores = block.similarity
    device = scores.device
    rows = torch.as_tensor(matches.rows, device=device)
    columns = torch.as_tensor(matches.columns, device=device)
    is_match = torch.as_tensor(matches.is_match, device=device)
    values = scores[rows, columns][is_match].double()
    scores[rows, columns] = -torch.inf
    ordered, order = scores.sort(dim=1)
    rows, columns = rows[is_match], columns[is_match]

    starts = np.cumsum(matches.n_positives) - matches.n_positives
    slots = torch.arange(len(rows), device=device) - torch.as_tensor(starts, device=device)[rows]
    table = torch.full((len(scores), int(matches.n_positives.max(initial=1))), torch.inf, device=device)
    table = table.to(scores.dtype)

    def beyond(edges: torch.Tensor, right: bool) -> torch.Tensor:
        table[rows, slots] = edges.to(scores.dtype)
        return scores.shape[1] - torch.searchsorted(ordered, table, right=right)[rows, slots]

    around = torch.zeros_like(values) if block.margin is None else block.margin.around(rows, columns)
    at_least, above = beyond(values - around, right=False), beyond(values + around, right=True)
    if block.exact is not None:
        for some in _groups(at_least - above):
            near = scores.shape[1] - at_least[some], at_least[some] - above[some]
            ahead, closer = _settle(block, rows[some], columns[some], order, *near)
            at_least[some], above[some] = above[some] + ahead, above[some] + closer
    return at_least.cpu().numpy(), above.cpu().numpy()


def _groups(counts: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the matches with near negatives, in order, in groups whose pairs fit into memory."""
    some = counts.nonzero().squeeze(1)
    parts = (counts[some].cumsum(0) // _PAIRS).cpu()
    yield from some.split(parts.unique_consecutive(return_counts=True)[1].tolist()) if len(some) else ()


def _settle(
    block: Block,
    rows: torch.Tensor,
    columns: torch.Tensor,
    order: torch.Tensor,
    first: torch.Tensor,
    counts: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compares near negatives with their match in float64.

    Args:
        block: similarities and exact distances.
        rows: query of each match, [n].
        columns: gallery column of each match, [n].
        order: columns of each row sorted by similarity, [n_rows, n_gallery].
        first: position in `order` of the first negative near each match, [n].
        counts: number of negatives near each match, [n].

    Returns:
        The number of these negatives that are closer than the match or tie, and the number that are closer; [n].
    """
    import torch

    exact = block.exact
    assert exact is not None
    match = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    place = torch.arange(len(match), device=rows.device) - (counts.cumsum(0) - counts)[match] + first[match]
    key = rows[match] * order.shape[1] + order[rows[match], place]
    key, pair = key.unique(return_inverse=True)
    distance = exact.squared(key // order.shape[1], key % order.shape[1])[pair]
    of_match = exact.squared(rows, columns)[match]
    ahead, closer = exact.at_least(distance, of_match), exact.closer(distance, of_match)
    return torch.bincount(match[ahead], minlength=len(rows)), torch.bincount(match[closer], minlength=len(rows))
