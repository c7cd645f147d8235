"""Brings the results of a run home from a node that does not see the driver's results folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.records import store
from harness.system import files

KINDS = {".json", ".jsonl", ".csv", ".txt", ".png"}
"""What is brought: record, per-query values, metrics, log and pictures. Checkpoints stay where they are."""

LARGEST = 1 << 25
"""Bytes of a file that is still brought; only a log that ran wild is larger."""


def stamp(folder: Path) -> str:
    """Tells a run's record from any other, by its bytes; empty where there is none."""
    try:
        return hashlib.sha256((folder / store.RECORD).read_bytes()).hexdigest()
    except OSError:
        return ""


def pack(folder: Path) -> dict[str, bytes]:
    """The small files of a run by their path in its folder."""
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix in KINDS and not p.name.startswith(".") and p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if p.stat().st_size <= LARGEST}


def unpack(folder: Path, contents: dict[str, bytes]) -> str:
    """Writes packed contents into the folder of a run, the record last; returns why that failed, or nothing."""
    try:
        for name in sorted(contents, key=lambda name: name == store.RECORD):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.replace(folder / name, contents[name])
    except OSError as error:
        return f"{folder} could not be written ({error.strerror or error})"
    return ""
