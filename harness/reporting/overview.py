"""The answer in short: a grid of scores, accuracy against cost, and what was run where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.reporting import commands, environments, frontier, grids, significance, text
from harness.reporting.rows import Row, Table
from harness.reporting.section import Context, Section, paragraphs

CHANCE, UNTESTED = "≈", "?"

LEGEND = (
    f"mAP / rank-1 in percent, mean over seeds ± standard deviation, plain test. Bold: the highest mAP. {CHANCE}: the "
    "difference from it may be chance, over identities (p ≥ 0.05) or within the spread over seeds. "
    f"{UNTESTED}: not tested."
)
GENERATED = (
    "**Generated stand-ins, not the real datasets.** The scores only show that the program works. They say nothing "
    "about accuracy on real people, and no published number applies."
)


def build(context: Context) -> Section:
    """One grid of backbones and datasets per recipe, without cross-domain scores; then costs and machines."""
    if not context.data.records:
        return Section()
    parts = grids_of(context)
    shown = [paragraphs(title, grid) for title, grid in parts]
    return Section(paragraphs("## Overview", LEGEND if parts else "", *shown, costs_and_places(context)))


def grids_of(context: Context) -> list[tuple[str, str]]:
    """Title and grid of each recipe."""
    own = [table for table in context.tables if table.key.dataset == table.key.trained_on]
    return [_grid(context, kind, tables) for kind, tables in grids.kinds(own).items()]


def costs_and_places(context: Context) -> str:
    """Markdown with accuracy against cost, and what was run where."""
    return paragraphs(frontier.build(context), "**What was run where**", environments.places(context))


def _grid(context: Context, kind: grids.Kind, tables: Sequence[Table]) -> tuple[str, str]:
    plan = () if kind.generated else context.data.plan
    planned = {(cell["dataset"], cell["backbone"]): cell["state"] for cell in plan if cell["recipe"] == kind.recipe}
    datasets = {table.key.dataset: table for table in tables} | {
        name: None for name, _ in sorted(planned) if name not in {table.key.dataset for table in tables}
    }
    of = {name: _cells(context, table) if table else {} for name, table in sorted(datasets.items())}
    labels = sorted({label for found in of.values() for label in found} | {backbone for _, backbone in planned})
    cells: grids.Cells = {
        ((text.escape(label),), text.escape(context.data.title(name))): found.get(label)
        or ("blocked" if planned.get((name, label)) == "blocked" else "not run")
        for label in labels
        for name, found in of.items()
    }
    columns = list(dict.fromkeys(column for _, column in cells))
    warning = [GENERATED] if kind.generated else []
    more = " ".join([*_about(tables), *warning])
    title = grids.caption(context, kind) + (f". {more}" if more else "")
    return title, grids.grid(columns, cells, ("Backbone",))


def _about(tables: Sequence[Table]) -> list[str]:
    """The description of the recipe, if all backbones have the same."""
    found = {commands.about_recipe(setting) for table in tables for setting in table.settings()}
    return [text.escape(about) for about in found] if len(found) == 1 and found != {""} else []


def _cells(context: Context, table: Table) -> Mapping[str, str]:
    """Scores by label, with marks; the status of configurations without a score."""
    rows = table.plain()
    best = max(rows, key=lambda row: row.mean("mAP"), default=None)
    scores = {row.label: _marked(context, table, row, best) for row in rows}
    return {label: setting.runs[-1]["status"] for label, setting in table.unfinished} | scores


def _marked(context: Context, table: Table, row: Row, best: Row | None) -> str:
    shown = grids.score(row.mAP(), row.shown("rank-1"))
    if best is None or len(table.plain()) == 1:
        return shown
    if row is best:
        return f"**{shown}**"
    verdict = significance.found(context).verdict(table, row, best)
    return shown if verdict is True else f"{shown} {UNTESTED if verdict is None else CHANCE}"
