"""Aligned tables and wrapped sentences that fit the terminal; colours only where it shows them."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click

from harness.system import terminal

GAP = "  "
NARROWEST = 8
"""Columns below which no column of a table is shrunk."""

WIDEST_PROSE = 100
"""Longer lines of prose are hard to read, however wide the terminal is."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        right: whether to align it to the right, as numbers are.
        folds: whether its cells may be broken over several lines where the terminal is narrow.
        optional: whether it may be left out where the terminal is narrow and all of its cells are the same.
        colours: colour of a cell by its text.
    """

    title: str
    right: bool = False
    folds: bool = False
    optional: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)


STATES = {"cached": "green", "to do": "cyan", "blocked": "red"}
STATUSES = {
    "ok": "green",
    "failed": "red",
    "oom": "red",
    "timeout": "red",
    "diverged": "red",
    "interrupted": "yellow",
    "stopped": "yellow",
}


def columns_of_terminal() -> int:
    """Columns that standard output has."""
    return terminal.width(sys.stdout)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int = 0) -> str:
    """Lays rows out below a header; no line is wider than the terminal.

    Columns without any text are left out. Columns that fold shrink first, the widest before the others.

    Args:
        columns: the columns.
        rows: a text per column.
        width: columns to use; 0 is those of the terminal.
    """
    width = width or columns_of_terminal()
    kept = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    if not kept:
        return ""
    for n in [n for n in kept if columns[n].optional and len({row[n] for row in rows}) == 1]:
        if _whole(_natural([columns[n] for n in kept], [[row[n] for n in kept] for row in rows])) > width:
            kept.remove(n)
    columns, rows = [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]
    widths = _shrunk(columns, _natural(columns, rows), width)
    header = [[column.title.upper()] for column in columns]
    lines = _lines(columns, header, widths, {})
    coloured = terminal.colours(sys.stdout)
    for row in rows:
        cells = [_fold(text, w) if c.folds else [text] for c, text, w in zip(columns, row, widths, strict=True)]
        colours = {n: c.colours.get(row[n], "") for n, c in enumerate(columns)} if coloured else {}
        lines += _lines(columns, cells, widths, colours)
    return "\n".join(lines)


def _natural(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Width of every column where nothing is folded."""
    return [max([len(c.title), *(len(row[n]) for row in rows)]) for n, c in enumerate(columns)]


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _shrunk(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Widths that fit, as far as columns fold."""
    folding = [n for n, c in enumerate(columns) if c.folds]
    while folding and _whole(widths) > width:
        widest = max(folding, key=lambda n: widths[n])
        if widths[widest] <= max(NARROWEST, len(columns[widest].title)):
            break
        widths[widest] -= 1
    return widths


def _fold(text: str, width: int) -> list[str]:
    """Breaks a text at blanks, and a long word behind one of its marks where it has some."""
    lines: list[str] = []
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]:
        while len(line) > width:
            at = max((line.rfind(mark, width // 2, width) for mark in "._:-/,"), default=-1) + 1 or width
            lines.append(line[:at])
            line = line[at:]
        lines.append(line)
    return lines


def _lines(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int], colours: Mapping[int, str]
) -> list[str]:
    lines = []
    for turn in range(max(map(len, cells))):
        texts = [cell[turn] if turn < len(cell) else "" for cell in cells]
        padded = [t.rjust(w) if c.right else t.ljust(w) for c, t, w in zip(columns, texts, widths, strict=True)]
        end = max((n for n, text in enumerate(texts) if text), default=0)
        padded[end] = padded[end].rstrip()
        shown = [click.style(t, fg=colours[n]) if colours.get(n) else t for n, t in enumerate(padded[: end + 1])]
        lines.append(GAP.join(shown))
    return lines


def prose(text: str, indent: str = "", first: str | None = None) -> str:
    """Wraps a text; the lines after the first are indented.

    Args:
        text: one paragraph.
        indent: before every line but the first.
        first: before the first line; the same by default.
    """
    width = min(columns_of_terminal(), WIDEST_PROSE)
    start = indent if first is None else first
    return textwrap.fill(
        text, width, initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def shell(command: str, indent: str = "  ") -> str:
    """Breaks a command that is too long before an option, with backslashes, so that it can be copied."""
    width = columns_of_terminal() - len(indent) - len(" \\")
    parts: list[str] = []
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if parts and not word.startswith("--"):
            parts[-1] += f" {quoted}"
        else:
            parts.append(quoted)
    lines = parts[:1]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}")
    return indent + f" \\\n{indent}".join(lines)
