"""Text for Markdown: escaping, number formats, and tables by tabulate."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_APPLICABLE = "–"
"""Shown where no number can exist, for example a published result on a generated dataset."""

NOT_RECORDED = "not recorded"

_PUNCTUATION = re.compile(r"([\\`*_\[\]|~$]|^[#+=-])")
_URL = re.compile(r"(?<![^\s(])(https://[a-z0-9-]+(?:\.[a-z0-9-]+)+(?:/[A-Za-z0-9._/-]*[A-Za-z0-9_/-])?)(?=[\s,;)]|$)")
"""A URL without user, port, query and percent signs, between spaces or in brackets."""

_SPACE = re.compile(r"\s+")


def escape(value: Any, limit: int = 0) -> str:
    """Escapes text so that Markdown, HTML and table cells show it unchanged, on one line.

    Names, file names and error messages are untrusted: they must not end a cell, start a tag, link, image or
    formula, or mention a user.

    Args:
        value: shown as text.
        limit: maximum length in characters; longer text ends in an ellipsis. 0 means no limit.
    """
    text = "".join(c if _printable(c) else " " for c in str(value))
    text = _SPACE.sub(" ", text).strip()
    if limit and len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _PUNCTUATION.sub(r"\\\1", text)
    text = text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")
    return re.sub(r"^(\d+)([.)])(?=\s|$)", lambda m: f"{m[1]}&#{ord(m[2])};", text)  # prevents a numbered list


def escape_except_urls(value: str) -> str:
    """Escapes text, but shows plain https URLs as links; for sources on cards, not for names and messages."""
    shown = ""
    for i, part in enumerate(_URL.split(value)):  # every second part is a URL
        shown += f"<{part}>" if i % 2 else " " * part[:1].isspace() + escape(part) + " " * part[-1:].isspace()
    return _SPACE.sub(" ", shown).strip()


def code(value: Any) -> str:
    """Formats text as a code span that is safe inside a table cell."""
    text = _SPACE.sub(" ", "".join(c if _printable(c) else " " for c in str(value))).strip()
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text.replace('|', chr(92) + '|')}{pad}{fence}" if text else ""


def address(path: str) -> str:
    """Quotes a relative path as the target of a link."""
    return urllib.parse.quote(path, safe="/._-+")


def table(rows: Iterable[Mapping[str, str]], right: Sequence[str] = (), *, wraps: bool = False) -> str:
    """Renders rows as a Markdown table; the keys of the first row are the header.

    Args:
        rows: cells by column, already in Markdown; no cell may be missing.
        right: columns to align right.
        wraps: whether cells are long and may take several lines; the source then has no padding.

    Raises:
        ValueError: a cell is missing.
    """
    import tabulate

    tabulate.WIDE_CHARS_MODE = False  # otherwise the padding depends on whether wcwidth is installed
    cells = list(rows)
    if not cells:
        return ""
    columns = list(cells[0])
    lines = [[row.get(column) for column in columns] for row in cells]
    if any(None in line for line in lines):
        raise ValueError("A table cell is empty; write the reason for the missing value into it.")
    align = ["right" if column in right else "left" for column in columns]
    made = tabulate.tabulate(lines, headers=columns, tablefmt="pipe", disable_numparse=True, colalign=align)
    if not wraps:
        return made
    header, rule, *body = re.sub(" {2,}", " ", made).split("\n")
    return "\n".join([header, re.sub(":?-{3,}:?", "---", rule), *body])


def percent(fraction: float | None) -> str:
    """0.8512 -> '85.1'."""
    return NOT_RECORDED if fraction is None else f"{100 * fraction:.1f}"


def spread(mean: float, deviation: float | None) -> str:
    """Mean and standard deviation over seeds, in percent; a single seed has no deviation."""
    return percent(mean) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def signed(points: float) -> str:
    """A difference in percentage points, with its sign; never '-0.0'."""
    return f"{points:+.1f}" if abs(round(points, 1)) > 0 else "0.0"


def interval(bounds: Sequence[float] | None) -> str:
    """Converts bounds from fractions to percent: '[84.0, 86.2]'."""
    return NOT_RECORDED if not bounds else f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def millions(count: float | None) -> str:
    """Parameters in millions."""
    return NOT_RECORDED if count is None else f"{count / 1e6:.2f}"


def giga(count: float | None) -> str:
    """FLOPs in units of 10^9."""
    return NOT_RECORDED if count is None else f"{count / 1e9:.2f}"


def gibibytes(count: float | None) -> str:
    """Bytes in GiB."""
    return NOT_RECORDED if count is None else f"{count / 2**30:.2f}"


def rate(value: float | None) -> str:
    """Images per second, with three significant digits below 100."""
    if value is None:
        return NOT_RECORDED
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(number: int, noun: str) -> str:
    """Number and noun: '1 run', '2,000 runs', '3 queries'; `noun` is the singular."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def size(value: Sequence[int] | None) -> str:
    """(256, 128) -> '256 × 128', height first."""
    return " × ".join(str(v) for v in value) if value else NOT_RECORDED


def _printable(char: str) -> bool:
    """Excludes control, format, surrogate and private characters, which can hide or reverse text."""
    return unicodedata.category(char)[0] != "C"
