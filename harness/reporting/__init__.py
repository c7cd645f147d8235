"""Generates BENCHMARKS.md and its figures from records; the same records give the same bytes.

Needs neither torch nor Ray nor MLflow. To add a section, write a function `Context -> Section` and add it to
`SECTIONS`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import UsageError
from harness.figures.style import same_picture
from harness.reporting import (
    accuracy,
    audits,
    efficiency_table,
    environments,
    failures,
    generalisation,
    header,
    image_links,
    overview,
    parallel,
    profiles,
    published,
    search,
    significance,
    tuned,
)
from harness.reporting.claims import section as claims_section
from harness.reporting.report_data import ReportData, gather
from harness.reporting.section import Builder, Context, Section
from harness.system import files, hooks

__all__ = ["SECTIONS", "Context", "ReportData", "Section", "build", "check", "collect", "gather", "write"]

PAGE, FIGURES, DOCS = "BENCHMARKS.md", "figures", "docs"

SECTIONS: list[Builder] = [
    header.build,
    overview.build,
    accuracy.build,
    tuned.build,
    generalisation.build,
    significance.build,
    efficiency_table.build,
    profiles.build,
    claims_section.build,
    audits.build,
    search.build,
    failures.build,
    image_links.build,
    environments.build,
    published.build,  # last, because it ends with the footnotes of all sections
]


def build(
    data: ReportData, out: Path, *, figures: str = FIGURES, results: str | None = None, docs: str | None = None
) -> list[Path]:
    """Writes the page and its figures; removes figures that only the previous page showed.

    Args:
        data: records, cards and plan.
        out: the page; figures go into a folder beside it.
        figures: name of that folder.
        results: path of the results folder relative to the page, for links to figures of runs; None omits the links.
        docs: path of the documentation relative to the page; None omits the links.

    Returns:
        The files of the report, the page first.

    Raises:
        UsageError: a file cannot be written.
    """
    page, pictures = _render(data, figures, results, docs)
    former = _linked(_read(out).decode(errors="replace"), figures)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for folder in (out.parent, out.parent / figures):
            files.sweep(folder)
        written = [_put(out.parent / figures / name, data, flush=False) for name, data in sorted(pictures.items())]
        for name in former - pictures.keys():
            (out.parent / figures / name).unlink(missing_ok=True)
        return [_put(out, page), *written]
    except OSError as error:
        raise UsageError(
            f"Cannot write the report to {out} ({error.strerror}). Choose another path with --out."
        ) from error


def page_of(results: Path) -> Path:
    """Path of the page of a results folder: in the checkout for its own results, else inside the results folder."""
    from harness.system.paths import REPOSITORY

    own = results.resolve() == (REPOSITORY / "results").resolve()
    return (REPOSITORY if own else results.absolute()) / PAGE


def figures_of(out: Path) -> str:
    """Name of the folder with the figures of a page; each page name has its own folder."""
    return FIGURES if out.name == PAGE else f"{FIGURES}-{re.sub(r'[^A-Za-z0-9_-]+', '-', out.stem)}"


def collect(results: Path, plugins: Path | None = None) -> ReportData:
    """Reads a results folder, and the cards of all registered plug-ins and of those in `plugins`."""
    from harness import registry

    backbones = registry.backbones(plugins)
    return gather(
        results,
        [entry.card for entry in backbones],
        [entry.card for entry in registry.datasets(plugins)],
        {entry.name: entry.folder for entry in backbones},
    )


def write(results: Path, out: Path, plugins: Path | None = None) -> list[Path]:
    """Builds the report of a results folder; returns its files, the page first."""
    hooks.reached("report")
    return build(
        collect(results, plugins),
        out,
        figures=figures_of(out),
        results=_relative(results, out),
        docs=_docs(out),
    )


def check(results: Path, out: Path, plugins: Path | None = None) -> list[str]:
    """Builds the report in memory and compares it with the files; returns stale, missing and superfluous files.

    Bytes must be equal. A figure drawn by another version of the drawing libraries counts as equal if the drawn
    values are equal.
    """
    figures = figures_of(out)
    page, pictures = _render(collect(results, plugins), figures, _relative(results, out), _docs(out))
    old = _read(out)
    stale = [] if old == page else [str(out)]
    folder = out.parent / figures
    stale += [
        str(folder / name) for name, data in sorted(pictures.items()) if not same_picture(_read(folder / name), data)
    ]
    return stale + sorted(
        str(folder / name)
        for name in _linked(old.decode(errors="replace"), figures) - pictures.keys()
        if (folder / name).exists()
    )


def _render(data: ReportData, figures: str, results: str | None, docs: str | None) -> tuple[bytes, dict[str, bytes]]:
    """Returns the page and its figures by name."""
    context = Context(data, figures, results, docs)
    expected_figures = 2 * len(context.tables)
    with (
        # The comparisons take as long as all other sections together.
        parallel.in_background(significance.build, context, worth_it=expected_figures >= parallel.MANY) as compared,
        parallel.drawing(expected_figures) as context.draw,
    ):
        made = [compared() if builder is significance.build else builder(context) for builder in SECTIONS]
        sections = [section for section in made if section.markdown]
        drawn = {name: figure for section in sections for name, figure in section.figures.items()}
        pictures = {name: figure if isinstance(figure, bytes) else figure() for name, figure in drawn.items()}
    text = "\n\n".join(section.markdown.strip("\n") for section in sections) + "\n"
    return text.encode(), pictures


def _relative(folder: Path, out: Path) -> str | None:
    """Path of a folder relative to the page; None if it is not below the folder of the page."""
    path = os.path.relpath(folder.absolute(), out.absolute().parent)
    return None if path.startswith("..") else Path(path).as_posix()


def _docs(out: Path) -> str | None:
    """Path of this repository's documentation relative to the page, or None."""
    from harness.system.paths import REPOSITORY

    return _relative(REPOSITORY / DOCS, out)


def _linked(page: str, figures: str) -> set[str]:
    """Names of the figures shown on a page."""
    return set(re.findall(rf"\]\({re.escape(figures)}/([\w.-]+\.png)\)", page))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _put(path: Path, data: bytes, *, flush: bool = True) -> Path:
    """Writes a file atomically, unless it has this content already."""
    if _read(path) != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, data, flush=flush)
    return path
