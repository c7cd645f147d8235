"""Style of all figures: colours for colour-blind readers, labels without overlap, reproducible PNG bytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.spec.run_spec import canonical

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#5A5A5A")
"""Palette of Okabe and Ito, with its yellow replaced by a purple and its black by a grey, for a white background."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")

FIXED = ("reidmamba", "transreid", "bot", "dummy")
"""Backbones with the same colour and marker in every report: the first ones of the palette."""

SAME, DIFFERENT = "#009E73", "#CC3311"
"""Colours of same and different identities: a green and a red that also differ in lightness."""

LEADER: dict[str, Any] = {"linewidths": 0.6, "alpha": 0.7, "clip_on": False, "zorder": 1.5}
FAR = 20
"""Distance in pixels between a point and its label from which a leader line connects them."""

TITLE_LETTER, TITLE_LINE = 0.094, 0.19
"""Width of a letter and height of a line of titles, in inches."""

DPI = 144
COMPRESSION = 3
"""Compression level of PNG files: takes half the time of the default for 10 % larger files."""
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.hinting": "none",  # draws in a third of the time
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
    """Applies Matplotlib's defaults and `STYLE`, independent of the user's settings."""
    import matplotlib
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield


def figure(width: float, height: float, title: str, *, panels: int = 1, right: float = 0.15) -> tuple[Figure, Any]:
    """Creates a figure with a title and a row of panels; uses Agg, without a display or pyplot.

    Margins are fixed in inches, because a layout engine would draw everything several times.

    Args:
        width: width of the figure, in inches.
        height: height of the figure with a title of one line, in inches; further lines make it higher.
        title: text at the upper left; it is wrapped.
        panels: number of panels side by side, with a common y axis.
        right: right margin in inches, for the names of lines.

    Returns:
        The figure and its panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(plain(title, 160), int((width - 0.2) / TITLE_LETTER)) or [""]
    above = (len(lines) - 1) * TITLE_LINE
    height += above
    made = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(made)
    made.subplots_adjust(0.65 / width, 0.5 / height, 1 - right / width, 1 - (0.4 + above) / height, wspace=0.08)
    place: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 11, "fontweight": "bold"}
    made.text(0.1 / width, 1 - 0.1 / height, "\n".join(lines), **place)
    return made, made.subplots(1, panels, sharey=True, squeeze=False)[0]


def room(names: Iterable[str]) -> float:
    """Width in inches that the longest name needs beside a panel."""
    return 0.35 + 0.064 * max(len(plain(name)) for name in names)


def png(made: Figure, drawn: Any) -> bytes:
    """Renders a figure as PNG; the same values give the same bytes with the same libraries.

    Args:
        made: the figure.
        drawn: the drawn values, as plain data; their hash is stored in the file (see `same_picture`).
    """
    import matplotlib
    import PIL
    from PIL import Image, PngImagePlugin

    digest = hashlib.sha256(canonical(drawn).encode()).hexdigest()
    comment = f"values {digest}; matplotlib {matplotlib.__version__}, pillow {PIL.__version__}"
    data, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", comment)
    canvas: Any = made.canvas
    canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    image.convert("RGB").save(data, "png", pnginfo=info, dpi=(DPI, DPI), compress_level=COMPRESSION)
    return data.getvalue()


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two PNG files are equivalent: equal bytes, or equal values drawn by other library versions."""
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
    """Assigns a colour and a marker to each name, the same in every figure of a report.

    Those of `FIXED` are the same in all reports; the others take the rest in alphabetical order.
    """
    given = set(names)
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}
        for i, name in enumerate((*FIXED, *sorted(given.difference(FIXED))))
        if name in given
    }


def separate(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Shifts positions so that neighbours are at least `gap` apart and all are within [low, high].

    Args:
        targets: preferred positions, in any order.
        gap: minimum distance; reduced if the range is too small.
        low: smallest position.
        high: largest position.

    Returns:
        The new positions, in the given order.
    """
    order = sorted(range(len(targets)), key=lambda i: (targets[i], i))
    gap = min(gap, (high - low) / max(1, len(targets) - 1))
    groups: list[list[float]] = []  # [start, size]: groups of positions exactly one gap apart
    for i in order:
        groups.append([min(max(targets[i], low), high), 1])
        while len(groups) > 1 and groups[-2][0] + groups[-2][1] * gap > groups[-1][0]:
            start, size = groups.pop()
            left, count = groups[-1]
            middle = (left + (count - 1) * gap / 2) * count + (start + (size - 1) * gap / 2) * size
            total = count + size
            first = middle / total - (total - 1) * gap / 2
            groups[-1] = [min(max(first, low), high - (total - 1) * gap), total]
    placed = [start + k * gap for start, size in groups for k in range(int(size))]
    positions = [0.0] * len(targets)
    for i, position in zip(order, placed, strict=True):
        positions[i] = position
    return positions


def label_line_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes the name of each line beside its right end, without overlap, connected by a thin leader.

    Args:
        axes: the panel; its final limits must be set.
        ends: x, y, name and colour of the end of each line.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    gap = (high - low) * 10.5 / (axes.get_window_extent().height * 72 / DPI)  # 10.5 points
    beside = right + (right - left) * 0.035
    places = separate([y for _, y, _, _ in ends], gap, low, high)
    for (_, _, name, colour), at in zip(ends, places, strict=True):
        axes.text(beside, at, plain(name), va="center", fontsize=8, color=colour)
    to = beside - (right - left) * 0.01
    _leaders(axes, [(x, y, to, at, colour) for (x, y, _, colour), at in zip(ends, places, strict=True)])


def label_points(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes the name of each point near it, without covering other points or names; call it last.

    Args:
        axes: the panel; its final limits must be set.
        points: x, y, name and colour of each point.
    """
    import numpy as np

    made: Any = axes.figure
    renderer = made.canvas.get_renderer()
    frame = axes.get_window_extent(renderer).extents
    to_data = axes.transData.inverted()
    pixels = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels]
    leaders: list[tuple[float, float, float, float, str]] = []
    for (x, y, name, colour), at in zip(points, pixels, strict=True):
        note = axes.text(x, y, plain(name), fontsize=8, color=colour, va="bottom")
        box = note.get_window_extent(renderer)
        left, bottom = at + _free_place(at, (box.width, box.height), taken, frame)
        note.set_position(tuple(to_data.transform((left, bottom))))
        taken.append((left, bottom, left + box.width, bottom + box.height))
        nearest = (np.clip(at[0], left, left + box.width), np.clip(at[1], bottom, bottom + box.height))
        if np.hypot(*(nearest - at)) > FAR:
            leaders.append((x, y, *to_data.transform(nearest), colour))
    _leaders(axes, leaders)


def _leaders(axes: Axes, ties: Sequence[tuple[float, float, float, float, str]]) -> None:
    """Draws thin lines, given as x, y, x, y and colour."""
    from matplotlib.collections import LineCollection

    lines = [((x, y), (to_x, to_y)) for x, y, to_x, to_y, _ in ties]
    axes.add_collection(LineCollection(lines, colors=[tie[4] for tie in ties], **LEADER), autolim=False)


def _free_place(at: Any, size: tuple[float, float], taken: Any, frame: Any) -> Any:
    """The nearest offset of a label's lower left corner without overlap, or else with the least overlap.

    Args:
        at: the point, in pixels.
        size: width and height of the label.
        taken: boxes (left, bottom, right, top) that should not be covered, [n, 4].
        frame: box that should contain the label.
    """
    import numpy as np

    width, height = size
    corners = np.array([_around(10 + 16 * ring, width, height) for ring in range(8)]).reshape(-1, 2)
    boxes = np.concatenate([corners + at, corners + at + size], axis=1)[:, None]
    cost = _overlap(boxes, np.asarray(taken)[None]).sum(axis=1)
    cost += 3 * (width * height - _overlap(boxes, np.asarray(frame)[None, None])[:, 0]).clip(0)
    free = np.flatnonzero(cost <= 1e-6)
    return corners[free[0] if len(free) else cost.argmin()]


def _around(reach: float, width: float, height: float) -> list[tuple[float, float]]:
    """Lower left corners of a label to the right, left, above, below and at the corners of a point."""
    left, right = -reach - width, reach
    below, above = -reach / 2 - height, reach / 2
    sides = [(right, -height / 2), (left, -height / 2), (-width / 2, reach), (-width / 2, -reach - height)]
    return sides + [(x, y) for x in (right, left) for y in (above, below)]


def _overlap(a: Any, b: Any) -> Any:
    """Area of the intersection of boxes."""
    import numpy as np

    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    high = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return wide.clip(0) * high.clip(0)


def write(path: Path, data: bytes) -> Path:
    """Writes a figure; creates its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def plain(name: str, limit: int = 48) -> str:
    """Prepares text for drawing: no mathematics mode, no control characters, at most `limit` characters."""
    name = "".join(c if c.isprintable() else " " for c in name)
    return (name if len(name) <= limit else f"{name[: limit - 1]}…").replace("$", r"\$")
