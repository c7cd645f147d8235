"""The results as a website in a folder, which opens from the disk and sends no request.

A view is one file in `views/`, which turns records into data, and one of the same name in `assets/views/`, which shows
them. `build(source)` of a view returns data by name; the page loads each when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.reporting import site_link
from harness.reporting.parallel import collector_paused
from harness.reporting.report_data import ReportData
from harness.reporting.site import bundle, folder, pictures
from harness.reporting.site.source import Source
from harness.reporting.site.views import (
    audits,
    claims,
    curves,
    efficiency,
    environments,
    failures,
    leaderboard,
    overview,
    queries,
    records,
    searches,
    significance,
    training,
    tuned,
)

__all__ = ["build", "write"]

VIEWS = (
    *(overview, leaderboard, curves, significance, efficiency, training, searches, tuned),
    *(claims, audits, queries, failures, environments, records),
)


def write(
    results: Path | Sequence[Path], place: Path, plugins: Path | None = None, *, images: Path | None = None
) -> Path:
    """Writes the site of one or several results folders; returns its first page.

    Args:
        results: folders of the records.
        place: folder of the site.
        plugins: folder of further plug-ins.
        images: folder that holds the datasets, to show their images; None shows paths alone.

    Raises:
        UsageError: a folder does not exist, is in use or cannot be written, or an image cannot be read.
    """
    from harness import reporting

    folder.check(place)
    folders = [results] if isinstance(results, Path) else results
    shown = pictures.Images(images, plugins) if images is not None else None
    index = build(reporting.collect_all(folders, plugins), place, results=folders, images=shown)
    for each in folders:
        site_link.remember(each, index)
    return index


def build(
    data: ReportData, place: Path, *, results: Sequence[Path] = (), images: pictures.Images | None = None
) -> Path:
    """Writes the site of the given records; returns its first page. The same records give the same bytes.

    Args:
        data: records, cards and plan.
        place: folder of the site.
        results: folders with the training curves and ranked lists of the runs; without them, these are left out.
        images: opens the images of ranked lists; None shows their paths alone.
    """
    source = Source(data, results, images)
    found: dict[str, Any] = {}
    with collector_paused():
        for view in VIEWS:
            found |= view.build(source)
        files = {**bundle.assets(), **{f"data/{name}.js": bundle.script(name, value) for name, value in found.items()}}
    if images:
        files |= images.files
    return folder.write(place, files, lambda base: bundle.page(source, base))
