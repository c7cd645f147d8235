"""Context and result of a section builder, and helpers for Markdown."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.figures import style
from harness.reporting import parallel, rows, text, tuned_results
from harness.reporting.parallel import Draw, Drawn
from harness.reporting.report_data import ReportData


@dataclass(frozen=True)
class Section:
    """One section of the page; a section with empty Markdown is omitted.

    Attributes:
        markdown: starts with a heading of level two, or is `folded`.
        figures: PNG files, or functions that return them, by name; linked from the Markdown by `Context.image`.
    """

    markdown: str = ""
    figures: Mapping[str, Drawn] = field(default_factory=dict)


@dataclass
class Context:
    """Input of every section builder.

    Attributes:
        data: records, cards and plan.
        figures: folder of the figures, relative to the page.
        results: folder of the results, relative to the page; None if it is not below the folder of the page.
        docs: folder of the documentation, relative to the page; None if it is not below the folder of the page.
        draw: calls a drawing function with its arguments, in this or another process.
        comparisons: what `significance.compare_all` found, once it was asked for; see `significance.found`.
    """

    data: ReportData
    figures: str
    results: str | None = None
    docs: str | None = None
    draw: Draw = parallel.draw_here
    comparisons: Any = None
    _notes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def tables(self) -> list[rows.Table]:
        """One table per dataset and recipe, sorted."""
        return rows.tables(self.data)

    @cached_property
    def tuned(self) -> list[tuned_results.Table]:
        """One table per dataset and search of `--recipe tuned`."""
        return tuned_results.tables(self.data)

    @cached_property
    def with_tuned(self) -> list[rows.Table]:
        """All tables, and those of the networks that were tuned."""
        return [*self.tables, *(table for tuned in self.tuned for table in tuned.choices())]

    @cached_property
    def by_id(self) -> dict[str, Mapping[str, Any]]:
        """Records by run id."""
        return {record["run_id"]: record for record in self.data.records}

    @cached_property
    def looks(self) -> dict[str, dict[str, Any]]:
        """Colour and marker of each backbone, the same in every figure."""
        return style.looks(r["spec"]["backbone"] for r in self.data.records)

    def note(self, footnote: str) -> str:
        """Returns the mark of a footnote; footnotes are numbered in order of first use."""
        return f"[^{self._notes.setdefault(footnote, len(self._notes) + 1)}]"

    @property
    def noted(self) -> list[tuple[int, str]]:
        """Numbers and texts of all footnotes used so far."""
        return [(number, footnote) for footnote, number in self._notes.items()]

    @cached_property
    def protocols(self) -> list[str]:
        """Protocol versions of the scored runs."""
        return sorted({table.key.protocol for table in self.tables})

    def image(self, name: str, alt: str) -> str:
        """Markdown that shows a figure of the section."""
        return f"![{text.escape(alt)}]({self.figures}/{name})"

    def doc(self, name: str) -> str:
        """Markdown that names a page of the documentation, as a link where possible."""
        return f"[docs/{name}]({self.docs}/{name})" if self.docs else f"`docs/{name}`"


Builder = Callable[[Context], Section]
"""A section builder is a pure function of the context."""


def file_name(*parts: str) -> str:
    """Returns a unique file name: if any part had to be changed to plain characters, a hash is appended."""
    plain = [re.sub(r"[^a-z0-9_-]+", "-", part.lower()).strip("-")[:40] for part in parts]
    changed = [] if plain == list(parts) else [hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]]
    return ".".join([*plain, *changed])


def paragraphs(*parts: str) -> str:
    """Joins the non-empty parts with blank lines."""
    return "\n\n".join(part for part in parts if part)


def folded(title: str, about: str, *parts: str) -> str:
    """Markdown that opens on a click; empty if all parts are. GitHub and the documentation site both read it.

    Args:
        title: title of what is folded.
        about: a few words on it, which are always shown.
        parts: Markdown.
    """
    body = paragraphs(*parts)
    words = f"<b>{html.escape(title)}</b>: {html.escape(about)}"
    opening = f'<details markdown="1"><summary>{words}</summary>'
    return f"{opening}\n\n{body}\n\n</details>" if body else ""


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list with one entry per line."""
    return "\n".join(f"- {line}" for line in lines)
