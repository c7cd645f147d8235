"""BENCHMARKS.md and its figures, made from records alone: the same records give the same bytes.

Needs neither torch nor Ray nor MLflow. A section is a function `Context -> Section`; add one to `SECTIONS`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import UsageError
from harness.figures.style import same_picture
from harness.reporting import (
    accuracy,
    efficiency_table,
    environments,
    failures,
    header,
    image_links,
    overview,
    parallel,
    profiles,
    published,
    search,
    significance,
)
from harness.reporting.report_data import ReportData, gather
from harness.reporting.section import Builder, Context, Section
from harness.system import files, hooks

__all__ = ["SECTIONS", "Context", "ReportData", "Section", "build", "check", "collect", "gather", "write"]

PAGE, FIGURES = "BENCHMARKS.md", "figures"

SECTIONS: list[Builder] = [
    header.build,
    overview.build,
    accuracy.build,
    significance.build,
    efficiency_table.build,
    profiles.build,
    search.build,
    failures.build,
    image_links.build,
    environments.build,
    published.build,  # last: it ends with the footnotes of all
]


def build(material: ReportData, out: Path, *, figures: str = FIGURES, results: str | None = None) -> list[Path]:
    """Writes the page and its figures.

    Args:
        material: what the page is made of.
        out: the page; figures go into a folder beside it.
        figures: name of that folder.
        results: path of the results folder from the page, for links to pictures; None leaves links out.

    Returns:
        The files of the report, the page first. Figures that a former page showed and this one does not are removed.
    """
    page, pictures = _render(material, figures, results)
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
        raise UsageError(f"The report cannot be written to {out} ({error.strerror}); choose another --out.") from error


def page_of(results: Path) -> Path:
    """Where the page of a results folder lies: beside the checkout's own results, inside any other folder."""
    from harness.system.paths import REPOSITORY

    own = results.resolve() == (REPOSITORY / "results").resolve()
    return (REPOSITORY if own else results.absolute()) / PAGE


def figures_of(out: Path) -> str:
    """Name of the folder with the figures of a page; pages of other names beside it have folders of their own."""
    return FIGURES if out.name == PAGE else f"{FIGURES}-{re.sub(r'[^A-Za-z0-9_-]+', '-', out.stem)}"


def collect(results: Path, plugins: Path | None = None) -> ReportData:
    """The material of a results folder with the cards of every registered plug-in, and of those in a folder."""
    from harness import registry

    backbones = [entry.card for entry in registry.backbones(plugins)]
    return gather(results, backbones, [entry.card for entry in registry.datasets(plugins)])


def write(results: Path, out: Path, plugins: Path | None = None) -> list[Path]:
    """Builds the report of a results folder; returns its files, the page first."""
    hooks.reached("report")
    return build(collect(results, plugins), out, figures=figures_of(out), results=_way(results, out))


def check(results: Path, out: Path, plugins: Path | None = None) -> list[str]:
    """Builds the report again and compares: returns the files that are stale, missing or left over.

    Bytes must be equal. A figure drawn by another version of the drawing libraries counts as equal if the values in
    it are.
    """
    figures = figures_of(out)
    page, pictures = _render(collect(results, plugins), figures, _way(results, out))
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


def _render(material: ReportData, figures: str, results: str | None) -> tuple[bytes, dict[str, bytes]]:
    context = Context(material, figures, results)
    figures_to_come = 2 * len(context.tables)
    with (
        # Alone it takes as long as the rest.
        parallel.beside(significance.build, context, worth_it=figures_to_come >= parallel.MANY) as compared,
        parallel.at_work(figures_to_come) as context.draw,
    ):
        made = [compared() if builder is significance.build else builder(context) for builder in SECTIONS]
        sections = [section for section in made if section.markdown]
        drawn = {name: data for section in sections for name, data in section.figures.items()}
        pictures = {name: data if isinstance(data, bytes) else data() for name, data in drawn.items()}
    text = "\n\n".join(section.markdown.strip("\n") for section in sections) + "\n"
    return text.encode(), pictures


def _way(results: Path, out: Path) -> str | None:
    """Path of the results from the page, if they lie below its folder."""
    way = os.path.relpath(results.absolute(), out.absolute().parent)
    return None if way.startswith("..") else Path(way).as_posix()


def _linked(page: str, figures: str) -> set[str]:
    """Names of the figures that a page shows."""
    return set(re.findall(rf"\]\({re.escape(figures)}/([\w.-]+\.png)\)", page))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _put(path: Path, data: bytes, *, flush: bool = True) -> Path:
    """Writes a file whole or not at all, and not if it is there already."""
    if _read(path) != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, data, flush=flush)
    return path
