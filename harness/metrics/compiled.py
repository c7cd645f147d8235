"""The counter for the CPU, compiled. It releases the interpreter lock, so plain threads run it side by side."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba as nb
import numpy as np

_CHUNK = 256
_BINS = 4096

# Sums may be reordered, or the compiler could not use vector instructions; they are whole numbers below 2^24.
_counting = nb.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
_settling = nb.njit(nogil=True, cache=True)


@_settling
def count_rows(
    similarity, first, last, offsets, columns, is_match, starts, height, tallest, lift, base,
    again, fine_lift, fine_base, exact, relative, linear, floor, at_least, above,
):  # fmt: skip
    """Counts for rows `first` to `last` what `counting.count_ahead` returns, into the last two arrays.

    `again` holds query and gallery features as they were multiplied, `exact` the arrays of `ExactDistances`. Both
    galleries are empty where nothing was rounded.
    """
    n_gallery = similarity.shape[1]
    values, places = np.empty(n_gallery, similarity.dtype), np.empty(n_gallery, np.int32)
    bins, mixed = np.empty(_BINS, np.int64), np.empty(_BINS, np.bool_)
    near, seen = np.empty(n_gallery, np.int32), np.zeros(n_gallery, np.bool_)
    finer, distances, work = (
        np.empty(n_gallery),
        np.empty(n_gallery),
        np.empty(again[0].shape[1] // 4, similarity.dtype),
    )
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
        n_mixed = _sort_in(scores, low, high, bins, mixed, above[begin:], values, places)
        at_least[begin : begin + n_match] = above[begin : begin + n_match]
        n_near = _count(values[:n_mixed], places, low, high, at_least[begin:], above[begin:], near, seen)
        for k in range(n_near):
            seen[near[k]] = False
        if len(again[1]) == 0:
            continue
        for k in range(n_near):
            values[k] = scores[near[k]]
            finer[k], distances[k] = _product(again[0][row], again[1][near[k]], work), -1.0
        for match in range(n_match):
            if at_least[begin + match] == above[begin + match]:
                continue
            column = own[match]
            around = fine_lift[row] * (height[column] + tallest) + 2 * fine_base[row]
            of_match, distance = _product(again[0][row], again[1][column], work), -1.0
            ahead, closer = 0, 0
            for k in range(n_near):
                if values[k] < low[match] or values[k] > high[match]:
                    continue
                lead = finer[k] - of_match
                if abs(lead) > around:
                    ahead += lead > 0
                    closer += lead > 0
                    continue
                if distance < 0:
                    distance = _squared(row, column, exact)
                if distances[k] < 0:
                    distances[k] = _squared(row, near[k], exact)
                larger = max(distance, distances[k])
                slack = relative * larger + linear * np.sqrt(larger) + floor
                ahead += distances[k] - distance <= slack
                closer += distance - distances[k] > slack
            at_least[begin + match] = above[begin + match] + ahead
            above[begin + match] += closer


@_settling
def _sort_in(scores, low, high, bins, mixed, above, values, places):
    """Counts scores in bins that lie above each match; gathers the scores of bins in which a match lies.

    A greater score never has a smaller bin, however it is rounded, so a bin above that of `high` is above the match.
    """
    lowest = low.min()
    width = np.float32(max((high.max() - lowest) / (_BINS - 4), np.float32(1e-37)))
    bins[:], mixed[:] = 0, False
    for match in range(len(low)):
        mixed[_bin(low[match], lowest, width) : _bin(high[match], lowest, width) + 1] = True
    work, n_mixed = np.empty(_CHUNK, np.int32), 0
    for begin in range(0, len(scores), _CHUNK):
        chunk = scores[begin : begin + _CHUNK]
        if not _any_reaches(chunk, lowest):
            continue
        for k in range(len(chunk)):
            work[k] = _bin(chunk[k], lowest, width)
        for k in range(len(chunk)):
            place = work[k]
            bins[place] += 1
            values[n_mixed], places[n_mixed] = chunk[k], begin + k
            n_mixed += mixed[place]
    bins[mixed] = 0
    for place in range(_BINS - 2, -1, -1):
        bins[place] += bins[place + 1]
    for match in range(len(low)):
        above[match] += bins[_bin(high[match], lowest, width) + 1]
    return n_mixed


@nb.njit(inline="always")
def _bin(score, lowest, width):
    """Returns the bin of a score: 0 below the lowest, at most the last but one."""
    place = (score - lowest) / width + np.float32(1)
    place = place if place > np.float32(0) else np.float32(0)
    return np.int32(place if place < np.float32(_BINS - 2) else np.float32(_BINS - 2))


@_counting
def _any_reaches(chunk, lowest):
    one, zero = np.float32(1), np.float32(0)
    hits = zero
    for score in chunk:
        hits += one if score >= lowest else zero
    return hits > zero


@_counting
def _count(pool, places, low, high, at_least, above, near, seen):
    """Counts scores not below and above each match; collects the columns between, and returns how many they are."""
    one, zero = np.float32(1), np.float32(0)
    n_near = 0
    for match in range(len(low)):
        least, more = low[match], high[match]
        n_least, n_more = zero, zero
        for score in pool:
            n_least += one if score >= least else zero
            n_more += one if score > more else zero
        at_least[match] += np.int64(n_least)
        above[match] += np.int64(n_more)
        if n_least > n_more:
            for k in range(len(pool)):
                if least <= pool[k] <= more and not seen[places[k]]:
                    seen[places[k]] = True
                    near[n_near] = places[k]
                    n_near += 1
    return n_near


@_settling
def _product(query, gallery, work):
    """The product of two rows, a multiple of four wide, in quarters and these in halves, which bounds its error."""
    quarter = len(work)
    for k in range(quarter):
        one = query[k] * gallery[k] + query[k + quarter] * gallery[k + quarter]
        two = query[k + 2 * quarter] * gallery[k + 2 * quarter] + query[k + 3 * quarter] * gallery[k + 3 * quarter]
        work[k] = one + two
    return np.float64(_halve(work))


@_settling
def _squared(row, column, exact):
    """The squared distance of `harness.metrics.exact`, rounded in the same order."""
    queries, gallery, index, inverse = exact
    query, other, factor = queries[row], gallery[index[column]], inverse[column]
    work = np.empty(len(query))
    for k in range(len(query)):
        difference = query[k] - np.float64(other[k]) * factor
        work[k] = difference * difference
    return _halve(work)


@_settling
def _halve(values):
    """Sums values in the order of `harness.metrics.features.row_sums`."""
    width = len(values)
    while width > 1:
        half = (width + 1) // 2
        for k in range(width - half):
            values[k] += values[half + k]
        width = half
    return values[0]
