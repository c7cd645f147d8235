"""The folder a dataset is read from: lists images by name, reads lists, remembers what it looked at."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contracts import SPLITS
from harness.errors import DataError, UsageError

IMAGE_KINDS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "tif", "tiff", "webp", "ppm", "pgm", "pbm", "pnm", "pfm"),
        *("gif", "jp2", "j2k", "jpf", "jpx", "tga", "pcx", "sgi"),
    )
)
"""File name endings of the formats that every build of Pillow reads; asking Pillow would slow planning down."""

SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
LARGEST_NUMBER = 2**63 - 1
DEEPEST = 12
"""Folders in each other below a dataset's folder; more is a link that leads back."""

EXAMPLES = 3
NUMBER = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)
DRIVE = re.compile(r"[A-Za-z]:")


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
        """Base names of the images directly in the folder `sub`, sorted; see `listing`."""
        return self.listing(sub)[0]

    def listing(self, sub: str) -> tuple[list[str], list[str]]:
        """Base names of the images and of the folders directly in the folder `sub`, both sorted.

        Other files (`Thumbs.db`, hidden files) are left out and counted in the notes, and so are folders that are
        named like an image.

        Raises:
            DataError: the folder is missing or unreadable, or holds a link to nothing.
        """
        names, folders, ignored = self._scan(sub)
        if ignored:
            self.notes["ignored_files"] = self.notes.get("ignored_files", 0) + len(ignored)
        kinds = Counter(os.path.splitext(name)[1].lower() for name in ignored if not name.startswith("."))
        for kind, count in kinds.items():
            known = self.notes.setdefault("ignored_kinds", {})
            known[printable(kind)] = known.get(printable(kind), 0) + count
        return names, folders

    def tree(self, sub: str) -> Iterator[str]:
        """Paths of the images in the folder `sub` and in the folders below it, relative to the dataset's folder.

        Raises:
            DataError: as `listing`, and where folders lie too deep in each other.
        """
        if sub.count("/") > DEEPEST:
            raise DataError(f"{self.folder / sub} lies more than {DEEPEST} folders deep; does a link lead back?")
        names, folders = self.listing(sub)
        prefix = f"{sub}/" if sub else ""
        yield from (prefix + name for name in names)
        for folder in folders:
            yield from self.tree(prefix + folder)

    def _scan(self, sub: str) -> tuple[list[str], list[str], list[str]]:
        """Base names in a folder: images and folders, sorted, and what is neither."""
        names: list[str] = []
        folders: list[str] = []
        ignored: list[str] = []
        place = self.folder / sub if sub else self.folder
        self._stamp(sub, folder=True)
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        ignored.append(entry.name)
                    elif not is_image(entry.name):
                        (folders if entry.is_dir() else ignored).append(entry.name)
                    elif entry.is_file():
                        names.append(entry.name)
                    elif entry.is_dir():
                        self.notes.setdefault("ignored_folders", []).append(f"{sub}/{printable(entry.name)}")
                    else:
                        raise DataError(f"{place}: {printable(entry.name)} is a link to nothing. Restore its target.")
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror}.") from error
        return sorted(names), sorted(folders), ignored

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

    def require(self, names: Iterable[str], subject: str, advice: str = "") -> None:
        """Checks that images named in a list are there, by listing every folder named once.

        Args:
            names: relative paths.
            subject: start of the message, for example `items.csv names`.
            advice: end of the message, what to do about absent images.

        Raises:
            DataError: some are absent, or of a kind that is not read.
        """
        known: dict[str, frozenset[str]] = {}
        unlisted = []
        for name in names:
            sub, _, base = name.rpartition("/")
            if sub not in known:
                known[sub] = frozenset(self._scan(sub)[0] if os.path.isdir(self.folder / sub) else ())
            if base not in known[sub]:
                unlisted.append(name)
        present = {name: None for name in unlisted if os.path.isfile(self.folder / name)}
        if absent := [name for name in unlisted if name not in present]:
            alike = self._alike(absent[0])
            near = f" {shown(alike)} is there, which differs in case or in its Unicode form." if alike else ""
            raise DataError(f"{subject} {len(absent)} image(s) that are absent: {first(absent)}.{near}{advice}")
        if others := [name for name in present if not is_image(name)]:  # a hidden image is named on purpose
            raise DataError(
                f"{subject} {len(others)} file(s) of a kind that is not supported: {first(others)}. "
                f"Convert them; supported are {supported()}."
            )

    def _alike(self, name: str) -> str:
        """A path below the folder that differs from `name` only in case or in the form of its Unicode letters."""
        place = ""
        for part in name.split("/"):
            try:
                names = sorted(os.listdir(self.folder / place))
            except OSError:
                return ""
            found = next((one for one in names if _folded(one) == _folded(part)), None)
            if found is None:
                return ""
            place = f"{place}/{found}" if place else found
        return place

    def _stamp(self, name: str, folder: bool = False) -> None:
        """Remembers the state before reading, so that a change during reading shows later."""
        try:
            state = os.stat(self.folder / name)
        except OSError:
            return
        self.stamps[name] = (state.st_mtime_ns, 0 if folder else state.st_size)


def is_image(name: str) -> bool:
    """Whether a file's name ends like that of an image that can be read."""
    _, dot, kind = name.rpartition(".")
    return bool(dot) and kind.lower() in IMAGE_KINDS


def supported() -> str:
    """The endings of images, for a message."""
    return ", ".join(f".{kind}" for kind in sorted(IMAGE_KINDS))


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


def below(folder: Path, text: str) -> str:
    """Relative path, with forward slashes, of a path from a list; empty where it is not below the folder.

    Accepts `./` and `..` that stay inside, backslashes, and absolute paths into the folder.
    """
    path = text.replace("\\", "/")
    if "\0" in path or DRIVE.match(path):
        return ""
    path = posixpath.normpath(path or ".")
    if path.startswith("/"):
        return _relative(folder, path)
    return "" if path in (".", "..") or path.startswith("../") else path


def _relative(folder: Path, path: str) -> str:
    real = os.path.realpath(folder)
    for base, name in ((str(folder), path), (real, path), (real, os.path.realpath(path))):
        if name.startswith(f"{base}/"):
            return name[len(base) + 1 :]
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


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
