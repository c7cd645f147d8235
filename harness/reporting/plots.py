"""The report's figures: accuracy against cost, CMC curves, memory against resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.figures import style
from harness.reporting.pareto import frontier

Looks = Mapping[str, Mapping[str, Any]]

CMC_RANKS = 20


class Point(NamedTuple):
    """One configuration in a scatter plot.

    Attributes:
        name: label.
        backbone: selects colour and marker.
        x: cost.
        y: accuracy in percent.
        error: standard deviation of the accuracy over seeds.
    """

    name: str
    backbone: str
    x: float
    y: float
    error: float


def cost(title: str, panels: Sequence[tuple[str, bool, Sequence[Point]]], looks: Looks) -> bytes:
    """Draws accuracy against cost, one panel per cost with a common mAP axis and a line through unbeaten points.

    Args:
        title: title of the figure.
        panels: label of the cost, whether more is better, and its points.
        looks: colour and marker by backbone.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    most = max(len(points) for _, _, points in panels)
    with style.style():
        made, grid = style.figure(
            max(7.2, 4.6 * len(panels) + 0.4), 3.9 + 0.12 * max(0, most - 10), title, panels=len(panels)
        )
        low, high = _range([p.y + s * p.error for _, _, points in panels for p in points for s in (-1, 1)], 0, 100)
        for axes, (label, more_is_better, points) in zip(grid, panels, strict=True):
            several = [p for p in points if p.error]
            low_ends, high_ends = [p.y - p.error for p in several], [p.y + p.error for p in several]
            colours = [looks[p.backbone]["color"] for p in several]
            axes.vlines([p.x for p in several], low_ends, high_ends, colors=colours, linewidth=1.2)
            for p in points:
                look = {**looks[p.backbone], "linestyle": "none", "markersize": 8}
                axes.plot(p.x, p.y, markeredgecolor="white", markeredgewidth=0.6, **look)
            unbeaten = [points[i] for i in frontier([(p.x, p.y) for p in points], more_is_better=more_is_better)]
            axes.plot([p.x for p in unbeaten], [p.y for p in unbeaten], color="0.8", linewidth=1, zorder=0)
            axes.set_xscale("log")
            xs = [p.x for p in points]
            axes.set_xlim(min(xs) / 1.6, max(xs) * 1.6)
            axes.set_ylim(low, high)
            axes.xaxis.set_major_locator(_log_ticks(*axes.get_xlim()))
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}")
            )
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(f"{label}, {'more' if more_is_better else 'less'} is better")
        grid[0].set_ylabel("mAP (%), mean ± std over seeds")
        for axes, (_, _, points) in zip(grid, panels, strict=True):
            style.label_points(axes, [(p.x, p.y, p.name, looks[p.backbone]["color"]) for p in points])
        return style.png(made, [title, "with frontier", [list(panel) for panel in panels]])


def cmc(title: str, curves: Sequence[tuple[str, str, Sequence[float]]], looks: Looks) -> bytes:
    """Draws CMC curves.

    Args:
        title: title of the figure.
        curves: label, backbone, and values at rank 1, 2, ... as fractions.
        looks: colour and marker by backbone.
    """
    with style.style():
        right = style.room(label for label, _, _ in curves)
        made, (axes,) = style.figure(5.4 + right, max(4.2, 0.17 * len(curves) + 1.2), title, right=right)
        ends = []
        longest = max(min(len(values), CMC_RANKS) for _, _, values in curves)
        for label, backbone, values in curves:
            shown = [100 * v for v in values[:CMC_RANKS]]
            axes.plot(range(1, len(shown) + 1), shown, markersize=3.5, linewidth=1.6, **looks[backbone])
            ends.append((len(shown), shown[-1], label, looks[backbone]["color"]))
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_ylim(*_range([100 * v for _, _, values in curves for v in values[:CMC_RANKS]], 0, 100))
        axes.set_xticks([rank for rank in (1, 5, 10, 15, 20) if rank <= longest] or [1])
        axes.set_xlabel("rank k")
        axes.set_ylabel("queries with a match among the first k (%)")
        style.label_line_ends(axes, ends)
        return style.png(made, [title, [[*curve[:2], list(curve[2])[:CMC_RANKS]] for curve in curves]])


def lines(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """Draws one line per series, with its name at the right end.

    Args:
        title: title of the figure.
        x_label: label with unit.
        y_label: label with unit.
        series: points (x, y) by name.
    """
    looks: Any = style.looks(series)
    with style.style():
        right = style.room(series)
        made, (axes,) = style.figure(5.4 + right, max(3.9, 0.17 * len(series) + 1.2), title, right=right)
        ends = []
        for name, points in sorted(series.items()):
            xs, ys = zip(*sorted(points), strict=True)
            axes.plot(xs, ys, markersize=5, linewidth=1.6, **looks[name])
            ends.append((xs[-1], ys[-1], name, looks[name]["color"]))
        axes.set_xlim(*_range([x for points in series.values() for x, _ in points], 0, float("inf")))
        axes.set_ylim(*_range([0.0, *(y for points in series.values() for _, y in points)], 0, float("inf")))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        style.label_line_ends(axes, ends)
        return style.png(made, [title, x_label, y_label, {k: sorted(v) for k, v in series.items()}])


def _range(values: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Axis limits with a margin around the values, within [least, most] and never of zero width."""
    low, high = min(values), max(values)
    air = max((high - low) * 0.12, 0.02 * abs(high), 0.5)
    return max(least, low - air), min(most + 0.02 * (most if most < 1e9 else 0), high + air)


def _log_ticks(low: float, high: float) -> Any:
    """Ticks at round numbers between the limits, at most seven."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    decades = [d * 10.0**e for e in range(-6, 16) for d in (1, 2, 5)]
    ticks = [t for t in decades if low <= t <= high]
    if len(ticks) > 7:
        ticks = [t for t in ticks if f"{t:e}".startswith("1")]
    return FixedLocator(ticks) if len(ticks) > 1 else MaxNLocator(4)
