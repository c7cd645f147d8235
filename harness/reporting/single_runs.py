"""The score of every run, with links to its record and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.records import store
from harness.reporting import grids, text
from harness.reporting.rows import Table
from harness.reporting.section import Context, Section, folded, paragraphs

MOST_LINES = 100
"""Number of rows of a grid; one row per configuration and seed."""

RANKED = "ranked_lists.png"
"""Shows images of people. For real people it is not linked, because git ignores it."""


def build(context: Context) -> Section:
    """One grid per recipe, with a row per configuration and seed."""
    parts = [part for kind, tables in grids.kinds(context.with_tuned).items() if (part := _one(context, kind, tables))]
    if not parts:
        return Section()
    about = (
        "mAP / rank-1 in percent of the plain test. Each score leads to the folder of its run, if the results are "
        "beside this page. Distances are histograms for pairs of the same and of different identities; ranked lists "
        "show the worst, median and best queries. Ranked lists of real people stay in the local results folder."
    )
    return Section(folded("Single runs", "seed, score, record and pictures of every run", about, *parts))


def _one(context: Context, kind: grids.Kind, tables: Sequence[Table]) -> str:
    cells = {
        (row.label, run["spec"]["seed"], grids.column(context, table)): _cell(context, table, run, evaluation)
        for table in tables
        for row in table.plain()
        for run, evaluation in row.scored
    }
    rows = sorted({key[:2] for key in cells})
    kept = set(rows[:MOST_LINES])
    shown: grids.Cells = {
        ((text.escape(label), str(seed)), column): cells[label, seed, column]
        for label, seed, column in sorted(cells, key=lambda key: key[:2])
        if (label, seed) in kept
    }
    columns = [grids.column(context, table) for table in tables if table.plain()]
    rest = f"{text.count(len(rows) - MOST_LINES, 'more row')} not shown." if len(rows) > MOST_LINES else ""
    if not shown:
        return ""
    return paragraphs(grids.caption(context, kind), grids.grid(columns, shown, ("Backbone", "Seed"), wraps=True), rest)


def _cell(context: Context, table: Table, run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    scores = grids.score(text.percent(evaluation["mAP"]), text.percent(evaluation["rank-1"]))
    if context.results is None:
        return f"{scores} {text.code(run['run_id'][:12])}"
    folder = f"{context.results}/{store.folder_of(Path(), run).as_posix()}".removeprefix("/")
    pictures = [
        f"[{text.escape(Path(name).stem.replace('_', ' '))}](<{text.address(f'{folder}/{name}')}>)"
        for name in sorted(run.get("pictures") or ())
        if ".." not in Path(name).parts and (Path(name).name != RANKED or table.key.generated)
    ]
    return ", ".join([f"[{scores}](<{text.address(f'{folder}/record.json')}>)", *pictures])
