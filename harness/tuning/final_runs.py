"""Plans the final runs of a search, which train on the whole training set and score the test split."""

from __future__ import annotations

from collections.abc import Callable

from harness.planning.plan import Planned
from harness.tuning.space import Point
from harness.tuning.state import Final, Search

PlanFinal = Callable[[Point], list[Planned]]
"""Takes a point; returns its planned runs, one per seed."""


def chosen(search: Search) -> list[tuple[str, Point]]:
    """The best point by held-out mAP, and the named points marked as final."""
    named = [(p.name, search.space.canonical(p.values)) for p in search.space.points if p.final]
    return [("best", search.best.point), *named] if search.best else named


def plan(search: Search, plan_final: PlanFinal) -> list[Planned]:
    """Plans the final runs and adds them to the search; equal points share their runs."""
    cells: dict[str, Planned] = {}
    finals = []
    for name, point in chosen(search):
        planned = plan_final(point)
        finals.append(Final(name, point, [cell.spec.run_id for cell in planned]))
        cells |= {cell.spec.run_id: cell for cell in planned}
    search.finals = finals
    return list(cells.values())
