"""Fingerprints of datasets, remembered between calls while the folders they were taken from do not change."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from harness import files, places
from harness.contracts import SPLITS, Splits
from harness.errors import DataError
from harness.spec import canonical

SETTLED = 2.0
"""Seconds a folder must have been unchanged to be remembered; some file systems count time no finer."""


def digest(splits: Splits) -> str:
    """SHA-256 over (split, relative path, size, identity, camera) of every item, sorted.

    Raises:
        DataError: an image disappeared meanwhile.
    """
    total = hashlib.sha256()
    skip = len(str(splits.root)) + 1
    for split in SPLITS:
        rows = []
        for path, pid, camid in getattr(splits, split):
            name = str(path)
            try:
                size = os.stat(name).st_size
            except OSError as error:
                raise DataError(f"{name} cannot be read: {error.strerror}.") from error
            rows.append((os.fsencode(name[skip:].replace(os.sep, "/")), size, pid, camid))
        for relative, size, pid, camid in sorted(rows):
            total.update(b"%s\0%s\0%d\0%d\0%d\n" % (split.encode(), relative, size, pid, camid))
    return total.hexdigest()


def key(card_folder: Path, request: list[Any]) -> str:
    """Name of an entry: what was asked for, the card with its code, and the code of the readers."""
    total = hashlib.sha256(canonical(request).encode())
    total.update(_readers().encode())
    for path in [card_folder / "card.toml", *sorted(card_folder.glob("*.py"))]:
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


@functools.cache
def _readers() -> str:
    total = hashlib.sha256()
    here = Path(__file__).parent
    for path in [*sorted(here.glob("*.py")), *sorted((here / "readers").glob("*.py"))]:
        total.update(path.read_bytes())
    return total.hexdigest()


def recall(key: str, folder: Path) -> str:
    """The remembered fingerprint, or an empty string where nothing is remembered or something changed."""
    try:
        entry = json.loads(_file(key).read_text(encoding="utf-8"))
        fingerprint, stamps = entry["fingerprint"], entry["stamps"]
        if not re.fullmatch(r"[0-9a-f]{64}", fingerprint) or not stamps:
            return ""
        base = str(folder)
        for name, (modified, size) in stamps.items():
            state = os.stat(os.path.join(base, name))
            if state.st_mtime_ns != modified or (size and state.st_size != size):
                return ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return fingerprint


def remember(key: str, fingerprint: str, stamps: dict[str, tuple[int, int]]) -> None:
    """Keeps a fingerprint; silently does without where the cache cannot be written or a folder changed just now."""
    if not stamps or max(modified for modified, _ in stamps.values()) > (time.time() - SETTLED) * 1e9:
        return
    target = _file(key)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, json.dumps({"fingerprint": fingerprint, "stamps": stamps}), flush=False)


def _file(key: str) -> Path:
    return places.cache_folder() / "fingerprints" / f"{key}.json"
