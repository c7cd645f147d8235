"""Counts negatives on the CPU, compiled with numba. It releases the interpreter lock, so threads run in parallel."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba as nb
import numpy as np

_CHUNK = 128
_BINS = 4096

# Reordering sums allows vector instructions. It is safe here, because the sums are whole numbers below 2^24.
_counting = nb.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
_settling = nb.njit(nogil=True, cache=True)


@_settling
def count_rows(
    similarity, first, last, offsets, columns, is_match, starts, height, tallest, lift, base,
    again, fine_lift, fine_base, exact, relative, linear, floor, at_least, above,
):  # fmt: skip
    """Computes the counts of `counting.count_ahead` for rows `first` to `last`, into the last two arrays.

    `again` holds query and gallery features as they were multiplied, `exact` the arrays of `ExactDistances`. Both
    galleries are empty if similarities are not rounded.
    """
    n_gallery = similarity.shape[1]
    places, near = np.empty(n_gallery, np.int32), np.empty(n_gallery, np.int32)
    bins, mixed = np.empty((2, _BINS), np.int32), np.empty(_BINS, np.bool_)
    finer, distances = np.empty(n_gallery), np.empty(n_gallery)
    work = np.empty(again[0].shape[1] // 4, similarity.dtype)
    rounded = len(again[1]) > 0
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
        lowest = low.min()
        density = np.float32((_BINS - 4) / max(high.max() - lowest, np.float32(1e-30)))
        n_near = _sort_in(scores, low, high, lowest, density, bins, mixed, places, near)
        finer[:n_near], distances[:n_near] = np.nan, -1.0
        for match in range(n_match):
            column = own[match]
            around = fine_lift[row] * (height[column] + tallest) + 2 * fine_base[row]
            of_match, distance = np.nan, -1.0
            last_bin = _bin(high[match], lowest, density)
            ahead, closer = bins[0, last_bin + 1], bins[0, last_bin + 1]
            for k in range(bins[1, _bin(low[match], lowest, density)], bins[1, last_bin + 1]):
                score = scores[near[k]]
                if score < low[match]:
                    continue
                if score > high[match] or not rounded:
                    ahead += 1
                    closer += score > high[match]
                    continue
                if np.isnan(of_match):
                    of_match = _product(again[0][row], again[1][column], work)
                if np.isnan(finer[k]):
                    finer[k] = _product(again[0][row], again[1][near[k]], work)
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
            at_least[begin + match], above[begin + match] = ahead, closer


@_settling
def _sort_in(scores, low, high, lowest, density, bins, mixed, places, near):
    """Writes the columns whose bin contains a match to `near`, sorted by bin; returns their number.

    Afterwards `bins[0]` holds the number of scores in each bin or above it, and `bins[1]` where the columns of each bin
    begin in `near`. A greater score never has a smaller bin, even with rounding, so all scores in bins above that of
    `high` are above the match.
    """
    bins[:], mixed[:] = 0, False
    for match in range(len(low)):
        mixed[_bin(low[match], lowest, density) : _bin(high[match], lowest, density) + 1] = True
    counts, begins = bins
    of_chunk, found = np.empty(_CHUNK, np.int32), 0
    for begin in range(0, len(scores), _CHUNK):
        chunk = scores[begin : begin + _CHUNK]
        if not _any_reaches(chunk, lowest):
            continue
        for k in range(len(chunk)):
            of_chunk[k] = _bin(chunk[k], lowest, density)
        for k in range(len(chunk)):
            place = of_chunk[k]
            counts[place] += 1
            places[found] = begin + k
            found += mixed[place]
    total = 0
    for place in range(_BINS):
        begins[place] = total
        total += counts[place] if mixed[place] else 0
    for k in range(found):
        place = _bin(scores[places[k]], lowest, density)
        near[begins[place]] = places[k]
        begins[place] += 1
    for place in range(_BINS - 1, 0, -1):
        begins[place] = begins[place - 1]
        counts[place - 1] += counts[place]
    begins[0] = 0
    return found


@nb.njit(inline="always")
def _bin(score, lowest, density):
    """Returns the bin of a score, with `density` bins per unit: 0 below `lowest`, at most the second to last bin."""
    place = (score - lowest) * density + np.float32(1)
    place = place if place > np.float32(0) else np.float32(0)
    return np.int32(place if place < np.float32(_BINS - 2) else np.float32(_BINS - 2))


@_counting
def _any_reaches(chunk, lowest):
    one, zero = np.float32(1), np.float32(0)
    hits = zero
    for score in chunk:
        hits += one if score >= lowest else zero
    return hits > zero


@_settling
def _product(query, gallery, work):
    """Returns the dot product of two rows whose width is a multiple of four.

    The quarters of the rows are added, then halves on halves, which bounds the rounding error.
    """
    quarter = len(work)
    for k in range(quarter):
        one = query[k] * gallery[k] + query[k + quarter] * gallery[k + quarter]
        two = query[k + 2 * quarter] * gallery[k + 2 * quarter] + query[k + 3 * quarter] * gallery[k + 3 * quarter]
        work[k] = one + two
    return np.float64(_halve(work))


@_settling
def _squared(row, column, exact):
    """Returns the squared distance of `harness.metrics.exact`, with the same order of roundings."""
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
