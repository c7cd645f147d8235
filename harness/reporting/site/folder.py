"""Writes the files of a site: all but the first page lie in a folder named by their hash.

The first page is replaced last and names that folder, so a reader sees either the old site or the new one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import UsageError
from harness.system import files

PAGE = "index.html"
MARK = '<meta name="generator" content="reid-harness">'
_PARTS = re.compile(r"site-[0-9a-f]{12}")


def check(place: Path) -> None:
    """Checks that a folder is free for a site.

    Raises:
        UsageError: it is a file, or has a first page that this program did not write.
    """
    page = place / PAGE
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place} is a file, and --html needs a folder. Choose another path.")
    if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace")[:4096]:
        raise UsageError(f"{page} was not written by this program. Choose another folder with --html, or delete it.")


def write(place: Path, contents: Mapping[str, bytes], page: Callable[[str], bytes]) -> Path:
    """Writes a site; returns its first page. Other files of the folder stay.

    Args:
        place: folder of the site.
        contents: all files but the first page, by path.
        page: returns the first page for the name of the folder of the others.

    Raises:
        UsageError: the folder is in use for something else or cannot be written.
    """
    check(place)
    name = f"site-{_hash(contents)}"
    with files.writing(place, "--html"):
        for path, content in sorted(contents.items()):
            _put(place / name / path, content)
        _put(place / PAGE, page(name))
        for old in place.iterdir():
            if old.is_dir() and _PARTS.fullmatch(old.name) and old.name != name:
                shutil.rmtree(old)
        files.sweep(place)
    return place / PAGE


def _hash(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(contents.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _put(path: Path, content: bytes) -> None:
    """Writes a file atomically, unless it is there: its folder has the hash of its content, or it is compared."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, content, flush=False)
