"""Where the website of a results folder was written last, for pages that link to it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from harness.system import files

NAME = ".site"
"""File in the results folder; git ignores it."""


def remember(results: Path, index: Path) -> None:
    """Stores where the website is; ignores a folder that cannot be written."""
    with contextlib.suppress(OSError):
        files.replace(results / NAME, f"{index.resolve()}\n")


def last(results: Path) -> str:
    """Where the website is; empty if there is none."""
    try:
        place = Path((results / NAME).read_text(encoding="utf-8").strip())
        return str(place) if place.is_file() else ""
    except (OSError, ValueError):
        return ""
