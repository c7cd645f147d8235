"""The Pareto frontier of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence


def frontier(points: Sequence[tuple[float, float]], *, more_is_better: bool) -> list[int]:
    """Indices of the points (cost, accuracy) that no other point beats in both, the cheapest first."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0] if more_is_better else points[i][0], -points[i][1]))
    found: list[int] = []
    for i in order:
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return found
