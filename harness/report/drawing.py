"""One style for all figures, colours that do not depend on colour vision, labels that do not overlap, PNG bytes that
depend on the drawn values alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.spec import canonical

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#5A5A5A")
"""Okabe and Ito's palette, its yellow replaced by a purple and its black by a grey that show on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")

SAME, DIFFERENT = "#009E73", "#CC3311"
"""Same and different identities, right and wrong: a green and a red that differ in lightness, too."""

LEADER = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.7, "shrinkA": 1, "shrinkB": 3}

DPI = 144
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "path.simplify": False,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with `STYLE`, whatever the user's own settings are."""
    import matplotlib
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield


def figure(width: float, height: float, title: str, *, panels: int = 1, right: float = 0.15) -> tuple[Figure, Any]:
    """A figure with a title and a row of panels, drawn by Agg without a window system and without pyplot's state.

    Margins are fixed in inches: a layout engine would draw everything several times to find them.

    Args:
        width: in inches, as are the other lengths.
        height: of the whole figure.
        title: at the upper left.
        panels: panels side by side, with a common y axis.
        right: room at the right, for the names of lines.

    Returns:
        The figure and its panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(made)
    made.subplots_adjust(0.65 / width, 0.5 / height, 1 - right / width, 1 - 0.4 / height, wspace=0.08)
    made.text(0.1 / width, 1 - 0.1 / height, plain(title, 110), ha="left", va="top", fontsize=11, fontweight="bold")
    return made, made.subplots(1, panels, sharey=True, squeeze=False)[0]


def room(names: Iterable[str]) -> float:
    """Inches that the longest of some names needs beside a panel."""
    return 0.35 + 0.064 * max(len(plain(name)) for name in names)


def png(made: Figure, drawn: Any) -> bytes:
    """Renders a figure; the same values give the same bytes with the same libraries.

    Args:
        made: the figure.
        drawn: the values that were drawn, as plain data; their hash is kept in the file (see `same_picture`).
    """
    import matplotlib
    import PIL

    digest = hashlib.sha256(canonical(drawn).encode()).hexdigest()
    comment = f"values {digest}; matplotlib {matplotlib.__version__}, pillow {PIL.__version__}"
    data = io.BytesIO()
    made.savefig(data, format="png", dpi=DPI, metadata={"Software": None, "Comment": comment})
    return data.getvalue()


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two PNG files show the same: equal bytes, or equal values drawn by other versions of the libraries."""
    if one == other:
        return True
    (values_a, libraries_a), (values_b, libraries_b) = _comment(one), _comment(other)
    return bool(values_a) and values_a == values_b and libraries_a != libraries_b


def _comment(data: bytes) -> tuple[str, str]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            values, _, libraries = image.info.get("Comment", "").partition("; ")
    except (OSError, ValueError, SyntaxError):
        return "", ""
    return values, libraries


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each name, the same in every figure of a report."""
    order = sorted(set(names))
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}
        for i, name in enumerate(order)
    }


def separate(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves positions as little as an even push allows until neighbours are `gap` apart and all lie in range.

    Args:
        wanted: positions in any order.
        gap: least distance; made smaller where the range cannot hold it.
        low: least position.
        high: greatest position.

    Returns:
        The new positions in the given order.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    groups: list[list[float]] = []  # [start, size]: runs of positions exactly one gap apart
    for i in order:
        groups.append([min(max(wanted[i], low), high), 1])
        while len(groups) > 1 and groups[-2][0] + groups[-2][1] * gap > groups[-1][0]:
            start, size = groups.pop()
            left, count = groups[-1]
            middle = (left + (count - 1) * gap / 2) * count + (start + (size - 1) * gap / 2) * size
            total = count + size
            first = middle / total - (total - 1) * gap / 2
            groups[-1] = [min(max(first, low), high - (total - 1) * gap), total]
    placed = [start + k * gap for start, size in groups for k in range(int(size))]
    positions = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        positions[i] = position
    return positions


def label_line_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each line's name beside its right end, apart from one another, tied by a thin leader.

    Args:
        axes: final limits must be set.
        ends: x, y, name and colour of each line's end.
    """
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height * 72 / DPI  # in points
    gap = (high - low) * 10.5 / height
    right = axes.get_xlim()[1]
    for (x, y, name, colour), at in zip(ends, separate([e[1] for e in ends], gap, low, high), strict=True):
        axes.annotate(
            plain(name),
            xy=(x, y),
            xytext=(right + (right - axes.get_xlim()[0]) * 0.035, at),
            annotation_clip=False,
            va="center",
            fontsize=8,
            color=colour,
            arrowprops={**LEADER, "color": colour, "relpos": (0, 0.5)},
        )


def label_points(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each point's name near it where it covers no other point or name; call it last.

    Args:
        axes: final limits must be set.
        points: x, y, name and colour.
    """
    made: Any = axes.figure
    renderer = made.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    pixels = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels]
    for (x, y, name, colour), (px, py) in zip(points, pixels, strict=True):
        note = axes.annotate(plain(name), (x, y), (0, 0), textcoords="offset pixels", fontsize=8, color=colour)
        box = note.get_window_extent(renderer)
        dx, dy = _free_place(px, py, box.width, box.height, taken, (frame.x0, frame.y0, frame.x1, frame.y1))
        note.set_position((dx, dy))
        taken.append((px + dx, py + dy, px + dx + box.width, py + dy + box.height))
        if abs(dx + box.width / 2) > box.width / 2 + 24 or abs(dy + box.height / 2) > 36:
            axes.annotate(
                "",
                (x, y),
                (dx + box.width / 2, dy + (0 if dy > 0 else box.height)),
                textcoords="offset pixels",
                arrowprops={**LEADER, "color": colour},
            )


def _free_place(
    px: float, py: float, width: float, height: float, taken: Sequence[Sequence[float]], frame: Sequence[float]
) -> tuple[float, float]:
    """The nearest offset of a label's lower left corner that covers nothing; the least bad one if there is none."""
    best, least = (12.0, -height / 2), float("inf")
    for ring in range(8):
        reach = 10 + 16 * ring
        for dx, dy in (
            (reach, -height / 2),
            (-reach - width, -height / 2),
            (-width / 2, reach),
            (-width / 2, -reach - height),
            (reach, reach / 2),
            (reach, -reach / 2 - height),
            (-reach - width, reach / 2),
            (-reach - width, -reach / 2 - height),
        ):
            box = (px + dx, py + dy, px + dx + width, py + dy + height)
            covered = sum(_overlap(box, other) for other in taken)
            outside = width * height - _overlap(box, frame)
            if (cost := covered + 3 * max(0.0, outside)) < least:
                best, least = (dx, dy), cost
            if cost <= 0:
                return dx, dy
    return best


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def write(path: Path, data: bytes) -> Path:
    """Writes a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def plain(name: str, limit: int = 40) -> str:
    """Text that is drawn as it is: no mathematics mode, no control characters, not endless."""
    name = "".join(c if c.isprintable() else " " for c in name)
    return (name if len(name) <= limit else f"{name[: limit - 1]}…").replace("$", r"\$")
