"""The overview of some runs alone, for the page of their parent run in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import RecordError
from harness.records import per_query, store
from harness.reporting import overview, site_link, text
from harness.reporting.report_data import COMPARED, ReportData
from harness.reporting.section import Context, paragraphs


def of_runs(results: Path, folders: Iterable[Path]) -> str:
    """Markdown about the runs in these folders: scores, costs and machines, and the website if there is one.

    Args:
        results: their results folder.
        folders: folders of the runs; those without a readable record are left out.
    """
    records = []
    for folder in folders:
        try:
            records.append(store.read(folder))
        except RecordError:
            continue
    datasets = {entry.card.name: entry.card for entry in registry.datasets()}
    data = ReportData(records, partial(_per_query, results), datasets=datasets)
    if not records:
        return ""
    context, site = Context(data, "figures"), site_link.last(results)
    parts = overview.grids_of(context)
    website = f"Website: {text.code(site)}" if site else ""
    shown = [paragraphs(grid, title) for title, grid in parts]  # MLflow shows the first lines, and the rest on a click
    return paragraphs(*shown, overview.LEGEND if parts else "", website, overview.costs_and_places(context))


def _per_query(results: Path, record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return per_query.read(store.folder_of(results, record), name, COMPARED)
