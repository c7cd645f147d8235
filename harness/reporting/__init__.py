"""Generates BENCHMARKS.md and its figures from records; the same records give the same bytes.

Needs neither torch nor Ray nor MLflow. To add a section, write a function `Context -> Section` and add it to
`SECTIONS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.figures.style import same_picture
from harness.reporting import (
    accuracy,
    audits,
    diagrams,
    efficiency_table,
    environments,
    failures,
    generalisation,
    header,
    other_tests,
    overview,
    parallel,
    profiles,
    published,
    search,
    setup,
    significance,
    single_runs,
    tuned,
)
from harness.reporting.claims import section as claims_section
from harness.reporting.report_data import ReportData, gather
from harness.reporting.section import Builder, Context, Section
from harness.system import files, hooks

__all__ = ["SECTIONS", "Context", "ReportData", "Section", "build", "check", "collect", "gather", "write"]

PAGE, FIGURES, DOCS = "BENCHMARKS.md", "figures", "docs"


def details(context: Context) -> Section:
    """Heading of the sections that are folded."""
    return Section("## Details\n\nWhat is behind the numbers above. Click a line to open it." if context.tables else "")


SECTIONS: list[Builder] = [
    header.build,
    overview.build,
    accuracy.build,
    tuned.build,
    failures.build,
    claims_section.build,
    generalisation.build,
    profiles.build,
    search.build,
    details,
    significance.build,
    diagrams.build,
    other_tests.build,
    single_runs.build,
    efficiency_table.build,
    audits.build,
    setup.build,
    environments.build,
    published.build,  # last, because it ends with the footnotes of all sections
]

NEED_COMPARISONS = (overview.build, significance.build)


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


def collect_all(results: Sequence[Path], plugins: Path | None = None) -> ReportData:
    """As `collect`, of one or several results folders; several are merged.

    Raises:
        UsageError: a folder does not exist or is given twice.
    """
    from harness.reporting.others import merge

    if len(results) == 1:
        return collect(results[0], plugins)
    origins = merge.names(results)
    return merge.merge([collect(folder, plugins) for folder in results], origins)


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


def write(results: Path | Sequence[Path], out: Path, plugins: Path | None = None) -> list[Path]:
    """Builds the report of one or several results folders; returns its files, the page first."""
    hooks.reached("report")
    folders = [results] if isinstance(results, Path) else results
    return build(
        collect_all(folders, plugins),
        out,
        figures=figures_of(out),
        results=_relative(folders[0], out) if len(folders) == 1 else None,
        docs=_docs(out),
    )


def write_flat(results: Sequence[Path], folder: Path, plugins: Path | None = None) -> list[Path]:
    """Writes the numbers of one or several results folders as CSV files; returns them. See `harness.reporting.flat`."""
    from harness.reporting import flat

    return flat.write(collect_all(results, plugins), folder)


def check(results: Path | Sequence[Path], out: Path, plugins: Path | None = None) -> list[str]:
    """Builds the report in memory and compares it with the files; returns stale, missing and superfluous files.

    Bytes must be equal. A figure drawn by another version of the drawing libraries counts as equal if the drawn
    values are equal.
    """
    figures = figures_of(out)
    folders = [results] if isinstance(results, Path) else results
    links = _relative(folders[0], out) if len(folders) == 1 else None
    page, pictures = _render(collect_all(folders, plugins), figures, links, _docs(out))
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
    many = expected_figures >= parallel.MANY
    with (
        # The comparisons take as long as all other sections together.
        parallel.in_background(significance.compare_all, context, worth_it=many) as compared,
        parallel.drawing(expected_figures) as context.draw,
    ):
        made = {builder: builder(context) for builder in SECTIONS if builder not in NEED_COMPARISONS}
        context.comparisons = compared()
        made |= {builder: builder(context) for builder in NEED_COMPARISONS}
        sections = [section for builder in SECTIONS if (section := made[builder]).markdown]
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
