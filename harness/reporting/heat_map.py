"""Draws a matrix of an audit."""

from __future__ import annotations

from harness.audits.layout import Matrix
from harness.figures import style

CELL = 0.52, 0.32
"""Width and height of a cell, in inches."""

MOST_LABELLED = 24
"""Number of columns up to which values are written into the cells."""


def draw(where: str, matrix: Matrix) -> bytes:
    """Draws a matrix of fractions with its values in percent; missing ones stay empty.

    Args:
        where: the network and the dataset.
        matrix: the matrix.
    """
    import numpy as np

    values = np.array([[np.nan if v is None else 100 * v for v in row] for row in matrix.values])
    rows, columns = ([style.plain(str(name)) for name in names] for names in (matrix.rows, matrix.columns))
    left = 0.5 + 0.075 * max(map(len, rows))
    title = f"{matrix.name} (%)"
    width = max(left + CELL[0] * len(columns) + 0.3, 0.3 + 0.1 * max(len(title), len(where)))
    height = 1.3 + CELL[1] * len(rows)
    with style.style():
        made, (axes,) = style.figure(width, height, title)
        right = 1 - (left + CELL[0] * len(columns)) / width
        made.subplots_adjust(left / width, 0.55 / height, 1 - right, 1 - 0.75 / height)
        made.text(0.1 / width, 1 - 0.35 / height, style.plain(where, 110), ha="left", va="top", fontsize=9)
        axes.imshow(values, cmap="cividis", aspect="auto")
        axes.grid(False)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylabel(matrix.keys[0])
        axes.set_xlabel(matrix.keys[1])
        if len(columns) <= MOST_LABELLED:
            _label(axes, values)
        return style.png(made, [where, title, list(matrix.keys), rows, columns, matrix.values])


def _label(axes: object, values: object) -> None:
    """Writes each value into its cell, dark on light cells and light on dark ones."""
    import numpy as np

    numbers = np.asarray(values)
    middle = np.nanmean([np.nanmin(numbers), np.nanmax(numbers)]) if np.isfinite(numbers).any() else 0.0
    for row, column in np.argwhere(np.isfinite(numbers)):
        value = numbers[row, column]
        colour = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)  # type: ignore[attr-defined]
