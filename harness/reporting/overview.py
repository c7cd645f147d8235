"""Overview of all datasets: mAP of the plain test, or the status of a missing result."""

from __future__ import annotations

from collections import defaultdict

from harness.reporting import text
from harness.reporting.rows import Table
from harness.reporting.section import Context, Section, paragraphs


def build(context: Context) -> Section:
    """One grid of backbones and datasets per recipe, without generated data and cross-domain scores."""
    own = [t for t in context.tables if t.key.dataset == t.key.trained_on and not t.key.generated]
    by_recipe: dict[tuple[str, str], dict[str, Table]] = defaultdict(dict)
    for table in own:
        by_recipe[(table.key.recipe, table.key.protocol)][table.key.dataset] = table
    grids = [_grid(context, *key, tables) for key, tables in sorted(by_recipe.items())]
    if not grids:
        return Section()
    about = (
        "mAP in percent, mean over seeds, without flip test and re-ranking. The tables under Results give intervals, "
        "numbers of seeds and set-ups."
    )
    return Section(paragraphs("## Overview", about, *grids))


def _grid(context: Context, recipe: str, protocol: str, tables: dict[str, Table]) -> str:
    planned = {(c["dataset"], c["backbone"]): c["state"] for c in context.data.plan if c["recipe"] == recipe}
    datasets = sorted({*tables, *(dataset for dataset, _ in planned)})
    cells = {(name, label): word for name, table in tables.items() for label, word in _cells(table).items()}
    labels = sorted({label for _, label in cells} | {backbone for _, backbone in planned})
    lines = [
        {"Backbone": text.escape(label)}
        | {
            text.escape(context.data.title(name)): cells.get((name, label))
            or ("blocked" if planned.get((name, label)) == "blocked" else "not run")
            for name in datasets
        }
        for label in labels
    ]
    title = f"Recipe {recipe}" + (f", protocol {protocol}" if len(context.protocols) > 1 else "")
    return paragraphs(
        f"**{text.escape(title)}**", text.table(lines, [text.escape(context.data.title(n)) for n in datasets])
    )


def _cells(table: Table) -> dict[str, str]:
    scores = {row.label: row.mAP() for row in table.plain()}
    return {label: setting.runs[-1]["status"] for label, setting in table.unfinished} | scores
