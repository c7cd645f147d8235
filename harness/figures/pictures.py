"""Draws ranked lists of chosen queries, and histograms of distances for same and different identities.

The functions take plain values and write a PNG file; the same values give the same bytes. Correct and wrong matches
differ in colour and by a mark, for readers who cannot tell red from green.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.figures import style

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

LoadImage = Callable[[Path], "Image.Image"]

TILE = (96, 192)
"""Width and height of an image on the sheet, in pixels; images keep their aspect ratio."""

GAP, FRAME, TEXT, BESIDE = 10, 4, 15, 84
INK, GREY, PAPER = "#222222", "#e8e8e8", "white"


def choose_queries(average_precision: Sequence[float], each: int = 3) -> list[tuple[str, int]]:
    """Chooses the worst, median and best queries of a run.

    Args:
        average_precision: one value per query; queries without a match (NaN) are never chosen.
        each: number of queries per kind; fewer if there are not enough. No query is chosen twice.

    Returns:
        (kind, index) with kind `worst`, `median` or `best`, sorted by AP and then by index.
    """
    order = sorted((ap, i) for i, ap in enumerate(average_precision) if not math.isnan(ap))
    each = min(each, len(order) // 3) if len(order) >= 3 else len(order)
    middle = max(each, (len(order) - each) // 2)
    worst, best = order[:each], order[max(each, len(order) - each) :]
    median = order[middle : middle + each] if len(order) >= 3 else []
    kinds = (("worst", worst), ("median", median), ("best", best))
    return [(kind, i) for kind, group in kinds for _, i in group]


def ranked_sheet(
    queries: Sequence[Mapping[str, Any]], out: Path, *, title: str = "", load: LoadImage | None = None
) -> Path:
    """Draws queries with their top-ranked gallery images, one query per line.

    Args:
        queries: mappings with `path`, `pid`, `camid`, `ap` (fraction), `results`, and optionally `kind`, such as
            `worst`, which is written beside the line. `results` are mappings with `path`, `pid` and `camid`, nearest
            first. An unknown `camid` is None.
        out: the PNG file.
        title: text above the sheet.
        load: opens an image, by default with Pillow. An unreadable image is drawn as a grey tile.

    Raises:
        UsageError: there is no query to draw.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not queries:
        raise UsageError("There is no query to draw; ranked lists need at least one.")
    columns = 1 + max(len(query["results"]) for query in queries)
    step_x, step_y = TILE[0] + 2 * FRAME + GAP, TILE[1] + 2 * FRAME + TEXT + GAP
    left, top = GAP + BESIDE, 3 * GAP + 2 * TEXT
    sheet = Image.new("RGB", (left + columns * step_x + 3 * GAP, top + len(queries) * step_y + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(12), ImageFont.load_default(16)
    draw.text((GAP, GAP), style.plain(title, 120), INK, large)
    _legend(draw, sheet.width, small)
    for line, query in enumerate(queries):
        y = top + line * step_y
        _tile(sheet, draw, (left, y), _open(query["path"], load), INK)
        draw.multiline_text((GAP, y + FRAME), _about(query), INK, small, spacing=5)
        for place, found in enumerate(query["results"]):
            x = left + (1 + place) * step_x + 2 * GAP
            right = found["pid"] == query["pid"]
            colour = style.SAME if right else style.DIFFERENT
            _tile(sheet, draw, (x, y), _open(found["path"], load), colour)
            _mark(draw, (x + FRAME, y + FRAME), right, colour)
            draw.text((x, y - TEXT), f"{place + 1}   {_camera(found)}", INK, small)
    return _save(sheet, out)


def distance_histogram(
    edges: Sequence[float],
    same_counts: Sequence[int],
    different_counts: Sequence[int],
    out: Path,
    *,
    title: str = "Distances between query and gallery",
    metric: str = "cosine",
) -> Path:
    """Draws histograms of distances between images of the same and of different identities.

    Each histogram is normalised by its own number of pairs, because most pairs are of different identities.

    Args:
        edges: edges of the bins, [bins + 1].
        same_counts: pairs of the same identity, [bins].
        different_counts: pairs of different identities, [bins].
        out: the PNG file.
        title: title of the figure.
        metric: name of the distance.

    Raises:
        UsageError: the lengths are inconsistent.
    """
    if not len(edges) - 1 == len(same_counts) == len(different_counts) > 0:
        raise UsageError(
            f"A histogram with {len(edges)} edges needs {max(0, len(edges) - 1)} counts per kind of pair; "
            f"found {len(same_counts)} and {len(different_counts)}."
        )
    groups = (
        ("same identity", same_counts, style.SAME, "-"),
        ("different identities", different_counts, style.DIFFERENT, "--"),
    )
    with style.style():
        figure, (axes,) = style.figure(7.2, 3.6, title)
        for name, counts, colour, line in groups:
            total = sum(counts)
            shares = [100 * count / max(1, total) for count in counts]
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.2)
            axes.stairs(shares, edges, color=colour, linewidth=1.6, linestyle=line, label=f"{name} ({total:,} pairs)")
        axes.set_xlim(*_filled_range(edges, same_counts, different_counts))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"{style.plain(metric)} distance")
        axes.set_ylabel("share of the pairs (%)")
        axes.legend(frameon=False, loc="upper right")
        values = [list(map(float, edges)), list(map(int, same_counts)), list(map(int, different_counts))]
        return style.write(out, style.png(figure, [title, metric, values]))


def _filled_range(edges: Sequence[float], *counts: Sequence[int]) -> tuple[float, float]:
    """The part of the axis that has pairs, with one empty bin on either side."""
    filled = [i for i, group in enumerate(zip(*counts, strict=True)) if any(group)] or [0, len(edges) - 2]
    return float(edges[max(0, filled[0] - 1)]), float(edges[min(len(edges) - 1, filled[-1] + 2)])


def _open(path: Any, load: LoadImage | None) -> Image.Image | None:
    from PIL import Image

    try:
        if load is not None:
            return load(path).convert("RGB")
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception:  # a decoder may raise anything on damaged input
        return None


def _tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], image: Image.Image | None, colour: str
) -> None:
    """Draws a framed, centred image; a grey tile if it could not be opened."""
    from PIL import Image, ImageOps

    x, y = at
    draw.rectangle((x, y, x + TILE[0] + 2 * FRAME - 1, y + TILE[1] + 2 * FRAME - 1), GREY, colour, FRAME)
    if image is None:
        draw.text((x + FRAME + 6, y + TILE[1] // 2), "not readable", INK)
        return
    fitted = ImageOps.contain(image, TILE, Image.Resampling.BICUBIC)
    sheet.paste(fitted, (x + FRAME + (TILE[0] - fitted.width) // 2, y + FRAME + (TILE[1] - fitted.height) // 2))


def _mark(draw: ImageDraw.ImageDraw, at: tuple[int, int], right: bool, colour: str) -> None:
    """Draws a tick or a cross on a small square in the colour of the frame."""
    x, y = at
    draw.rectangle((x, y, x + 15, y + 15), colour)
    if right:
        draw.line([(x + 3, y + 8), (x + 6, y + 12), (x + 12, y + 3)], PAPER, 2)
    else:
        draw.line([(x + 3, y + 3), (x + 12, y + 12)], PAPER, 2)
        draw.line([(x + 12, y + 3), (x + 3, y + 12)], PAPER, 2)


def _legend(draw: ImageDraw.ImageDraw, width: int, font: Any) -> None:
    x = width - 290
    for right, colour, words in ((True, style.SAME, "same identity"), (False, style.DIFFERENT, "another identity")):
        _mark(draw, (x, GAP), right, colour)
        draw.text((x + 22, GAP), words, INK, font)
        x += 140


def _about(query: Mapping[str, Any]) -> str:
    kind = [str(query["kind"])] if query.get("kind") else []
    return "\n".join([*kind, f"AP {100 * query['ap']:.1f} %", _camera(query)])


def _camera(image: Mapping[str, Any]) -> str:
    return "" if image["camid"] is None else f"camera {image['camid'] + 1}"


def _save(sheet: Image.Image, out: Path) -> Path:
    import io

    data = io.BytesIO()
    sheet.save(data, format="PNG", compress_level=3)  # takes a third of the time of level 6 for 10 % larger files
    return style.write(out, data.getvalue())
