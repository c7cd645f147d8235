"""Copies the results of a run from a node that cannot see the driver's results folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.records import store
from harness.system import files

KINDS = {".json", ".jsonl", ".csv", ".txt", ".png"}
"""Suffixes of the files to copy: record, per-query values, metrics, log and pictures. Checkpoints are not copied."""

LARGEST = 1 << 25
"""Largest file to copy, in bytes; only a runaway log is larger."""


def stamp(folder: Path) -> str:
    """SHA-256 of a run's record; empty if there is none."""
    try:
        return hashlib.sha256((folder / store.RECORD).read_bytes()).hexdigest()
    except OSError:
        return ""


def pack(folder: Path) -> dict[str, bytes]:
    """Reads the small files of a run; returns their contents by path within its folder."""
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix in KINDS and not p.name.startswith(".") and p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if p.stat().st_size <= LARGEST}


def unpack(folder: Path, contents: dict[str, bytes]) -> str:
    """Writes packed files into the folder of a run, the record last; returns the error message, or an empty string."""
    try:
        for name in sorted(contents, key=lambda name: name == store.RECORD):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.replace(folder / name, contents[name])
    except OSError as error:
        return f"{folder} could not be written ({error.strerror or error})"
    return ""
