"""A cache of facts about datasets, valid while the folders of the dataset do not change."""

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

import msgspec

from harness.cards import from_table
from harness.contracts import SPLITS, Splits
from harness.errors import DataError, UsageError
from harness.spec.run_spec import canonical
from harness.system import files, paths

EXAMPLES = 3
SETTLED = 2.0
"""Seconds that a folder must be unchanged before facts are cached; some file systems have such coarse timestamps."""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts about a dataset that planning needs, so that it does not have to read the dataset.

    Attributes:
        fingerprint: see `digest`.
        images: number of training images.
        identities: number of training identities.
        queries: number of query images.
        matched: number of query images with a match in the gallery.
        unseen: one image of each test camera without training images, for the first few cameras.
    """

    fingerprint: str
    images: int
    identities: int
    queries: int
    matched: int
    unseen: tuple[str, ...]

    @classmethod
    def of(cls, splits: Splits) -> Facts:
        """Returns the facts about splits."""
        trained = {item.camid for item in splits.train}
        test = (*splits.query, *splits.gallery)
        unseen = {item.camid: str(item.path) for item in reversed(test) if item.camid not in trained}
        return cls(
            fingerprint=digest(splits),
            images=len(splits.train),
            identities=len({item.pid for item in splits.train}),
            queries=len(splits.query),
            matched=splits.matched,
            unseen=tuple(unseen[camid] for camid in sorted(unseen)[:EXAMPLES]),
        )


def digest(splits: Splits) -> str:
    """Returns the SHA-256 over (split, relative path, size, identity, camera) of every item, sorted.

    Raises:
        DataError: an image has disappeared since the splits were read.
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
    if splits.value_range:  # changes the pixels of the same files
        total.update(b"value_range %r %r\n" % splits.value_range)
    return total.hexdigest()


def key(card_folder: Path, request: list[Any]) -> str:
    """Returns the key of an entry: a hash of the request, the card with its code, and the code of the readers."""
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


def recall(key: str, folder: Path) -> Facts | None:
    """Returns the cached facts, or `None` if there are none or a folder has changed."""
    try:
        entry = json.loads(_file(key).read_text(encoding="utf-8"))
        facts = from_table(Facts, entry["facts"], "facts")
        if not re.fullmatch(r"[0-9a-f]{64}", facts.fingerprint) or not entry["stamps"]:
            return None
        base = str(folder)
        for name, (modified, size) in entry["stamps"].items():
            state = os.stat(os.path.join(base, name))
            if state.st_mtime_ns != modified or (size and state.st_size != size):
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
        return None
    return facts


def remember(key: str, facts: Facts, stamps: dict[str, tuple[int, int]]) -> None:
    """Caches facts, unless the cache cannot be written or a folder has changed within the last seconds."""
    if not stamps or max(modified for modified, _ in stamps.values()) > (time.time() - SETTLED) * 1e9:
        return
    target = _file(key)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, json.dumps({"facts": msgspec.to_builtins(facts), "stamps": stamps}), flush=False)


def _file(key: str) -> Path:
    return paths.cache_folder() / "fingerprints" / f"{key}.json"
