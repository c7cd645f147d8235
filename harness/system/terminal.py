"""What the terminal can show: its width, colours, and lines that are updated in place."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

PLAIN_WIDTH = 100
"""Columns of output that is piped or redirected."""

NARROWEST = 40
"""Narrower terminals get lines of this width, which then wrap."""


def width(stream: TextIO) -> int:
    """Returns the columns to use: $COLUMNS, else those of the terminal, else 100."""
    fallback = (PLAIN_WIDTH, 24)
    if not stream.isatty() and not os.environ.get("COLUMNS"):
        return PLAIN_WIDTH
    return max(NARROWEST, shutil.get_terminal_size(fallback).columns)


def steers(stream: TextIO) -> bool:
    """Returns whether the stream is a terminal that obeys escape codes; `TERM=dumb` does not."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def colours(stream: TextIO) -> bool:
    """Returns whether to print colours: on a terminal that obeys escape codes, unless $NO_COLOR is set."""
    return steers(stream) and not os.environ.get("NO_COLOR")
