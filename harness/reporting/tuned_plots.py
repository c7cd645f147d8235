"""Figures of `--recipe tuned`: the best of n trials, and the sensitivity to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.figures import style

Looks = Mapping[str, Mapping[str, Any]]
Line = tuple[str, str, Sequence[float], Sequence[float], Sequence[float]]
"""Label, backbone, curve, lower and upper bound, by n, as fractions."""


def best_of(title: str, lines: Sequence[Line], looks: Looks) -> bytes:
    """Draws the expected held-out mAP of the best of n trials; bands are intervals."""
    with style.style():
        right = style.room(label for label, *_ in lines)
        made, (axes,) = style.figure(5.4 + right, 4.0, title, right=right)
        ends = []
        for label, backbone, curve, low, high in lines:
            shown = range(1, len(curve) + 1)
            colour = looks[backbone]["color"]
            axes.plot(shown, [100 * v for v in curve], markersize=3.5, linewidth=1.6, **looks[backbone])
            inside = [n for n in range(len(curve)) if math.isfinite(low[n])]
            axes.fill_between(
                [n + 1 for n in inside],
                [100 * max(0.0, low[n]) for n in inside],
                [100 * min(1.0, high[n]) for n in inside],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            ends.append((len(curve), 100 * curve[-1], label, colour))
        axes.set_xlabel("trials per study")
        axes.set_ylabel("expected held-out mAP of the best trial (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.autoscale(axis="y")
        style.label_line_ends(axes, ends)
        drawn = [[label, list(curve), _plain(low), _plain(high)] for label, _, curve, low, high in lines]
        return style.png(made, [title, drawn])


def rates(title: str, lines: Sequence[tuple[str, str, Mapping[float, float]]], looks: Looks) -> bytes:
    """Draws held-out mAP against the factor of the chosen learning rate."""
    with style.style():
        right = style.room(label for label, *_ in lines)
        made, (axes,) = style.figure(5.4 + right, 3.6, title, right=right)
        factors = sorted({factor for *_, values in lines for factor in values})
        ends = []
        for label, backbone, values in lines:
            ys = [100 * value for value in values.values()]
            axes.plot(list(values), ys, markersize=5, linewidth=1.6, **looks[backbone])
            ends.append((max(values), ys[-1], label, looks[backbone]["color"]))
        axes.set_xscale("log", base=2)
        axes.set_xticks(factors, [f"x {factor:g}" for factor in factors])
        axes.set_xlabel("learning rate, relative to the choice")
        axes.set_ylabel("held-out mAP (%)")
        style.label_line_ends(axes, ends)
        return style.png(made, [title, [[label, sorted(values.items())] for label, _, values in lines]])


def _plain(values: Sequence[float]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
