"""The counter for the CPU, compiled. It releases the interpreter lock, so plain threads run it side by side."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba as nb
import numpy as np

_CHUNK = 512

# Sums may be reordered, or the compiler could not use vector instructions; they are whole numbers below 2^24.
_counting = nb.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
_settling = nb.njit(nogil=True, cache=True)


@_settling
def count_rows(
    similarity, first, last, offsets, columns, is_match, starts, lift, base, height, tallest,
    query, gallery, index, inverse, relative, linear, floor, at_least, above,
):  # fmt: skip
    """Counts for rows `first` to `last` what `counting.count_ahead` returns, into the last two arrays."""
    n_gallery = similarity.shape[1]
    pool, places = np.empty(n_gallery, similarity.dtype), np.empty(n_gallery, np.int32)
    near, seen = np.empty(n_gallery, np.int32), np.zeros(n_gallery, np.bool_)
    distances, work = np.empty(n_gallery), np.empty(query.shape[1])
    for row in range(first, last):
        begin, n_match = starts[row], starts[row + 1] - starts[row]
        if n_match == 0:
            continue
        scores = similarity[row]
        low, high = np.empty(n_match, scores.dtype), np.empty(n_match, scores.dtype)
        own = np.empty(n_match, np.int32)
        found = 0
        for pair in range(offsets[row], offsets[row + 1]):
            column = columns[pair]
            if is_match[pair]:
                around = lift[row] * (height[column] + tallest) + 2 * base[row]
                low[found], high[found], own[found] = scores[column] - around, scores[column] + around, column
                found += 1
        for pair in range(offsets[row], offsets[row + 1]):
            scores[columns[pair]] = -np.inf
        n_pool = _gather(scores, low.min(), pool, places)
        n_near = _count(pool[:n_pool], places, low, high, at_least[begin:], above[begin:], near, seen)
        if n_near and len(gallery):
            for k in range(n_near):
                column = near[k]
                seen[column] = False
                distances[k] = _squared(query[row], gallery[index[column]], inverse[column], work)
            for match in range(n_match):
                if at_least[begin + match] > above[begin + match]:
                    of_match = _squared(query[row], gallery[index[own[match]]], inverse[own[match]], work)
                    ahead, closer = 0, 0
                    for k in range(n_near):
                        if low[match] <= scores[near[k]] <= high[match]:
                            larger = max(of_match, distances[k])
                            slack = relative * larger + linear * np.sqrt(larger) + floor
                            ahead += distances[k] - of_match <= slack
                            closer += of_match - distances[k] > slack
                    at_least[begin + match] = above[begin + match] + ahead
                    above[begin + match] += closer
        elif n_near:
            seen[near[:n_near]] = False


@_counting
def _gather(scores, lowest, pool, places):
    """Copies the scores that are at least the lowest match's, and few others, with their columns; returns how many."""
    one, zero = np.float32(1), np.float32(0)
    n_pool = 0
    for begin in range(0, len(scores), _CHUNK):
        chunk = scores[begin : begin + _CHUNK]
        hits = zero
        for score in chunk:
            hits += one if score >= lowest else zero
        if hits == zero:
            continue
        if hits * 4 > len(chunk):
            for k in range(len(chunk)):
                pool[n_pool + k] = chunk[k]
                places[n_pool + k] = begin + k
            n_pool += len(chunk)
        else:
            for k in range(len(chunk)):
                if chunk[k] >= lowest:
                    pool[n_pool] = chunk[k]
                    places[n_pool] = begin + k
                    n_pool += 1
    return n_pool


@_counting
def _count(pool, places, low, high, at_least, above, near, seen):
    """Counts scores not below and above each match; collects the columns between, and returns how many they are."""
    one, zero = np.float32(1), np.float32(0)
    n_near = 0
    for begin in range(0, len(pool), _CHUNK):
        chunk = pool[begin : begin + _CHUNK]
        for match in range(len(low)):
            least, more = low[match], high[match]
            n_least, n_more = zero, zero
            for score in chunk:
                n_least += one if score >= least else zero
                n_more += one if score > more else zero
            at_least[match] += np.int64(n_least)
            above[match] += np.int64(n_more)
            if n_least > n_more:
                for k in range(len(chunk)):
                    if least <= chunk[k] <= more and not seen[places[begin + k]]:
                        seen[places[begin + k]] = True
                        near[n_near] = places[begin + k]
                        n_near += 1
    return n_near


@_settling
def _squared(query, gallery, inverse, work):
    """The squared distance of `harness.metrics.exact`, rounded in the same order."""
    for k in range(len(query)):
        difference = query[k] - np.float64(gallery[k]) * inverse
        work[k] = difference * difference
    width = len(query)
    while width > 1:
        half = (width + 1) // 2
        for k in range(width - half):
            work[k] += work[half + k]
        width = half
    return work[0]
