"""The loop of glass blur, compiled with numba: each pixel depends on those before it."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba as nb


@nb.njit(nogil=True, cache=True)
def scatter(image, moves, reach):
    """Replaces pixels by neighbours, in place, from the lower right corner to the upper left one.

    Args:
        image: uint8 [3, H, W].
        moves: steps down and right of each round and pixel, int8 [rounds, H, W, 2], -reach .. reach - 1.
        reach: width of the border that stays as it is.
    """
    _, height, width = image.shape
    for turn in range(len(moves)):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = moves[turn, row, column]
                for channel in range(3):
                    image[channel, row, column] = image[channel, row + down, column + right]
