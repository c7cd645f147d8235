"""The folder a dataset is read from: lists images by name, reads lists, remembers what it looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contracts import SPLITS
from harness.errors import DataError, UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
LARGEST_NUMBER = 2**31 - 1
EXAMPLES = 3
NUMBER = re.compile(r"\s*[+-]?\d{1,10}\s*", re.ASCII)


@dataclass
class Source:
    """A dataset folder while it is read.

    Attributes:
        folder: the folder; every name below is relative to it, with forward slashes.
        notes: facts for the record, such as `junk` (dropped images of each split) and `ignored_files`.
        stamps: modification time (nanoseconds) and size of every folder and file that was looked at.
        splits: the splits that are wanted; a reader leaves the images of the others alone.
    """

    folder: Path
    notes: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    splits: Sequence[str] = SPLITS

    def images(self, sub: str) -> list[str]:
        """Base names of the images directly in the folder `sub`, sorted.

        Other files (`Thumbs.db`, hidden files) and folders are left out and counted in the notes.

        Raises:
            DataError: the folder is missing or unreadable, or holds a link to nothing.
        """
        names: list[str] = []
        place = self.folder / sub if sub else self.folder
        self._stamp(sub, folder=True)
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.name.lower().endswith(IMAGE_SUFFIXES) or entry.name.startswith("."):
                        if entry.name.startswith(".") or not entry.is_dir():
                            self.notes["ignored_files"] = self.notes.get("ignored_files", 0) + 1
                    elif entry.is_file():
                        names.append(entry.name)
                    elif entry.is_dir():
                        self.notes.setdefault("ignored_folders", []).append(f"{sub}/{printable(entry.name)}")
                    else:
                        raise DataError(f"{place}: {printable(entry.name)} is a link to nothing. Restore its target.")
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror}.") from error
        return sorted(names)

    def text(self, name: str) -> str:
        """Text of the file `name`, UTF-8 with or without a byte-order mark.

        Raises:
            DataError: it is missing, unreadable or not text.
        """
        self._stamp(name)
        try:
            return (self.folder / name).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.folder / name} is not a text file in UTF-8.") from error
        except OSError as error:
            raise DataError(f"{self.folder / name} cannot be read: {error.strerror}.") from error

    def file(self, name: str) -> Path:
        """Path of the file `name`, for a reader that opens it itself."""
        self._stamp(name)
        return self.folder / name

    def absent(self, names: list[str]) -> list[str]:
        """Those of `names` (relative paths) that are absent, by listing every folder named once."""
        known: dict[str, frozenset[str]] = {}
        absent = []
        for name in names:
            sub, _, base = name.rpartition("/")
            if sub not in known:
                known[sub] = frozenset(self.images(sub) if os.path.isdir(self.folder / sub) else ())
            if base not in known[sub]:
                absent.append(name)
        return absent

    def _stamp(self, name: str, folder: bool = False) -> None:
        """Remembers the state before reading, so that a change during reading shows later."""
        try:
            state = os.stat(self.folder / name)
        except OSError:
            return
        self.stamps[name] = (state.st_mtime_ns, 0 if folder else state.st_size)


def pattern_of(text: str, *groups: str) -> re.Pattern[str]:
    """Compiles a name pattern of a card; it must have the named groups.

    Raises:
        UsageError: not a regular expression, or a group is missing.
    """
    try:
        pattern = re.compile(text, re.ASCII)
    except re.error as error:
        raise UsageError(f"The name pattern {text!r} is not a regular expression: {error}.") from error
    if missing := [group for group in groups if group not in pattern.groupindex]:
        raise UsageError(f"The name pattern {text!r} has no group {' and '.join(missing)}.")
    return pattern


def number(text: str) -> int | None:
    """Reads a whole number of sane size; `None` for anything else."""
    if len(text) < 10 and text.isascii() and text.isdigit():  # nearly all
        return int(text)
    if not NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if abs(value) <= LARGEST_NUMBER else None


def order(name: str) -> str:
    """Sort key that puts relative paths in the order of `Path` objects."""
    return name.replace("/", "\0")


def inside(name: str) -> bool:
    """Whether a relative path from a list stays below its folder."""
    return bool(name) and name[0] != "/" and "\0" not in name and "/../" not in f"/{name}/"


def printable(name: str) -> str:
    """A file name as it can be shown, also where it is not valid Unicode."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(text: str, limit: int = 80) -> str:
    """A value from a list as it can be shown in a message."""
    return repr(printable(text[:limit]))


def first(names: list[str]) -> str:
    """The first few names of a list, for a message."""
    examples = ", ".join(shown(name) for name in names[:EXAMPLES])
    return examples + (f", and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else "")
