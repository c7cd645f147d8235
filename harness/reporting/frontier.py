"""Accuracy against cost: the configurations that no other beats in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.reporting import grids, text
from harness.reporting.pareto import frontier
from harness.reporting.rows import Row, device
from harness.reporting.section import Context, paragraphs

MOST_NAMES = 6


class Cost(NamedTuple):
    """A cost of a configuration.

    Attributes:
        metrics: where a record has it, the first that is there.
        more_is_better: whether a high value is cheap, as for speed.
        shown: the value as text.
        measured: whether it depends on the machine.
    """

    metrics: tuple[str, ...]
    more_is_better: bool
    shown: Callable[[float], str]
    measured: bool = False


def _three(unit: float) -> Callable[[float], str]:
    """A format with three significant digits."""
    return lambda value: f"{value / unit:.3g}" if value < 1000 * unit else f"{value / unit:,.0f}"


COSTS = {
    "Parameters at test (M)": Cost(("parameters_inference", "parameters"), False, _three(1e6)),
    "GFLOPs": Cost(("flops",), False, _three(1e9)),
    "Images/s": Cost(("inference_images_per_second",), True, text.rate, measured=True),
}


def build(context: Context) -> str:
    """Markdown with one row per table that has at least two configurations; empty if there is none."""
    lines = [
        grids.place(context, table) | {name: _cell(table.plain(), cost) for name, cost in COSTS.items()}
        for table in context.tables
        if len([row for row in table.plain() if row.efficiency("parameters_inference", "parameters")]) > 1
    ]
    about = (
        "**Accuracy against cost**: the configurations that no other beats in both mAP and cost, the cheapest first. "
        "Images/s are of the runs, and compare only on one device; “shared” marks disturbed ones."
    )
    return paragraphs(about, text.table(lines, wraps=True)) if lines else ""


def _cell(rows: Sequence[Row], cost: Cost) -> str:
    known = [(row, value) for row in rows if (value := row.efficiency(*cost.metrics)) is not None]
    if not known:
        return text.NOT_RECORDED
    if cost.measured and len({_condition(row) for row, _ in known}) > 1:
        return "not comparable: several devices or settings"
    chosen = frontier([(value, row.mean("mAP")) for row, value in known], more_is_better=cost.more_is_better)
    names = [_named(*known[i], cost) for i in chosen]
    rest = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return ", ".join([*names[:MOST_NAMES], *rest])


def _named(row: Row, value: float, cost: Cost) -> str:
    """A configuration with its cost, marked if other processes used the device while it was measured."""
    shared = ", shared" if cost.measured and row.disturbed() else ""
    return f"{text.escape(row.label)} ({cost.shown(value)}{shared})"


def _condition(row: Row) -> tuple[str, ...]:
    """What must be equal for two speeds to be comparable."""
    record = row.scored[0][0]
    return device(record), *(str(record["efficiency"].get(name)) for name in ("precision", "batch_size", "threads"))
