"""The overview of some runs alone, for the page of their parent run in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import RecordError
from harness.records import per_query, store
from harness.reporting import overview, text
from harness.reporting.report_data import COMPARED, ReportData
from harness.reporting.section import Context, paragraphs
from harness.system import files

SITE = ".site"
"""File in a results folder that names the website that was written last for it."""


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
    context, site = Context(data, "figures"), site_of(results)
    parts = overview.grids_of(context)
    website = f"Website: {text.code(site)}" if site else ""
    return paragraphs(*parts, overview.LEGEND if parts else "", website, overview.costs_and_places(context))


def remember_site(results: Path, index: Path) -> None:
    """Stores where the website of a results folder is."""
    files.replace(results / SITE, f"{index.resolve()}\n")


def site_of(results: Path) -> str:
    """Where the website of a results folder is; empty if there is none."""
    try:
        place = Path((results / SITE).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return ""
    return str(place) if place.is_file() else ""


def _per_query(results: Path, record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return per_query.read(store.folder_of(results, record), name, COMPARED)
