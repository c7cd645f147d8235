"""What sections share: the material as tables, footnotes, one look a backbone; and what a section returns."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.figures import style
from harness.reporting import parallel, rows, text
from harness.reporting.parallel import Draw, Drawn
from harness.reporting.report_data import ReportData


@dataclass(frozen=True)
class Section:
    """One section of the page, with its heading; empty Markdown leaves the section out.

    Attributes:
        markdown: starts with a heading of level two.
        figures: PNG files by name, or what waits for them, linked from the Markdown through `Context.image`.
    """

    markdown: str = ""
    figures: Mapping[str, Drawn] = field(default_factory=dict)


@dataclass
class Context:
    """What every section builder gets.

    Attributes:
        material: records, cards and plan.
        figures: folder of the figures as the page links it, relative to the page.
        results: folder of the results relative to the page, or None where it does not lie below the page.
        draw: calls a function that draws with its arguments, here or in another process.
    """

    material: ReportData
    figures: str
    results: str | None = None
    draw: Draw = parallel.draw_here
    _notes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def tables(self) -> list[rows.Table]:
        """One table a dataset and recipe, sorted."""
        return rows.tables(self.material)

    @cached_property
    def by_id(self) -> dict[str, Mapping[str, Any]]:
        """Records by run id."""
        return {record["run_id"]: record for record in self.material.records}

    @cached_property
    def looks(self) -> dict[str, dict[str, Any]]:
        """Colour and marker of each backbone, the same in every figure."""
        return style.looks(r["spec"]["backbone"] for r in self.material.records)

    def note(self, footnote: str) -> str:
        """A mark for a footnote; numbers count up in order of first use."""
        return f"[^{self._notes.setdefault(footnote, len(self._notes) + 1)}]"

    @property
    def noted(self) -> list[tuple[int, str]]:
        """The footnotes that were marked, with their numbers."""
        return [(number, footnote) for footnote, number in self._notes.items()]

    @cached_property
    def protocols(self) -> list[str]:
        """Protocol versions of the scored runs."""
        return sorted({table.key.protocol for table in self.tables})

    def image(self, name: str, alt: str) -> str:
        """Markdown that shows a figure of the section."""
        return f"![{text.escape(alt)}]({self.figures}/{name})"


Builder = Callable[[Context], Section]
"""A section builder is a pure function of the context."""


def file_name(*parts: str) -> str:
    """A file name that differs where the parts do: what is not a plain letter, digit or hyphen becomes a hash."""
    plain = [re.sub(r"[^a-z0-9_-]+", "-", part.lower()).strip("-")[:40] for part in parts]
    changed = [] if plain == list(parts) else [hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]]
    return ".".join([*plain, *changed])


def paragraphs(*parts: str) -> str:
    """Joins what is not empty by blank lines."""
    return "\n\n".join(part for part in parts if part)


def bullets(lines: Sequence[str]) -> str:
    """A list, one line an entry."""
    return "\n".join(f"- {line}" for line in lines)
