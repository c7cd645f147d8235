"""The folder of a dataset while it is read: lists images, reads text files, and notes the state of what it reads."""

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
"""File extensions of the formats that every build of Pillow reads. Importing Pillow would slow down planning."""

SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
LARGEST_NUMBER = 2**63 - 1
DEEPEST = 12
"""Maximum depth of folders below a dataset's folder; deeper folders mean a circular link."""

EXAMPLES = 3
NUMBER = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)
DRIVE = re.compile(r"[A-Za-z]:")


@dataclass
class Source:
    """A dataset folder while it is read.

    Attributes:
        folder: the folder; all names are relative to it, with forward slashes.
        notes: facts for the record, such as `junk` (dropped images of each split) and `ignored_files`.
        stamps: modification time (in nanoseconds) and size of every folder and file that was read.
        splits: the splits to read.
    """

    folder: Path
    notes: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    splits: Sequence[str] = SPLITS

    def images(self, sub: str) -> list[str]:
        """Returns the sorted file names of the images directly in the folder `sub`; see `listing`."""
        return self.listing(sub)[0]

    def listing(self, sub: str) -> tuple[list[str], list[str]]:
        """Returns the sorted names of the images and of the folders directly in the folder `sub`.

        Other files (`Thumbs.db`, hidden files) and folders with names like image files are left out and noted.

        Raises:
            DataError: the folder is missing or unreadable, or contains a broken link.
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
        """Yields the paths of the images in the folder `sub` and all folders below, relative to the dataset's folder.

        Raises:
            DataError: as `listing`, or folders are nested too deeply.
        """
        if sub.count("/") > DEEPEST:
            raise DataError(
                f"{self.folder / sub} is more than {DEEPEST} folders deep. Check whether it contains a circular link."
            )
        names, folders = self.listing(sub)
        prefix = f"{sub}/" if sub else ""
        yield from (prefix + name for name in names)
        for folder in folders:
            yield from self.tree(prefix + folder)

    def _scan(self, sub: str) -> tuple[list[str], list[str], list[str]]:
        """Returns the names in a folder: images (sorted), folders (sorted), and all other names."""
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
                        raise DataError(
                            f"{place}: {printable(entry.name)} is a broken link. Restore its target or remove the link."
                        )
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror}.") from error
        return sorted(names), sorted(folders), ignored

    def text(self, name: str) -> str:
        """Returns the text of the file `name`, UTF-8 with or without a byte-order mark.

        Raises:
            DataError: the file is missing, unreadable or not UTF-8.
        """
        self._stamp(name)
        try:
            return (self.folder / name).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.folder / name} is not a UTF-8 text file. Save it as UTF-8.") from error
        except OSError as error:
            raise DataError(f"{self.folder / name} cannot be read: {error.strerror}.") from error

    def file(self, name: str) -> Path:
        """Returns the path of the file `name`, for readers that open it themselves, and notes its state."""
        self._stamp(name)
        return self.folder / name

    def require(self, names: Iterable[str], subject: str, advice: str = "") -> None:
        """Checks that the images of a list exist. Every folder is listed only once.

        Args:
            names: relative paths.
            subject: start of the message: the list file, for example `items.csv`.
            advice: end of the message: what to do about missing images.

        Raises:
            DataError: images are missing, or have an unsupported format.
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
            near = f" {shown(alike)} exists; its name differs in case or Unicode normalisation." if alike else ""
            raise DataError(f"{subject}: {len(absent)} listed image(s) do not exist: {first(absent)}.{near}{advice}")
        if others := [name for name in present if not is_image(name)]:  # a listed hidden image is accepted
            raise DataError(
                f"{subject}: {len(others)} listed file(s) have an unsupported format: {first(others)}. "
                f"Convert them to one of {supported()}."
            )

    def _alike(self, name: str) -> str:
        """Returns an existing path that differs from `name` only in case or Unicode normalisation; empty for none."""
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
        """Notes the state before reading, so that a change during reading is detected later."""
        try:
            state = os.stat(self.folder / name)
        except OSError:
            return
        self.stamps[name] = (state.st_mtime_ns, 0 if folder else state.st_size)


def is_image(name: str) -> bool:
    """Returns whether a file name has the extension of a supported image format."""
    _, dot, kind = name.rpartition(".")
    return bool(dot) and kind.lower() in IMAGE_KINDS


def supported() -> str:
    """Returns the extensions of supported image formats, for messages."""
    return ", ".join(f".{kind}" for kind in sorted(IMAGE_KINDS))


def pattern_of(text: str, *groups: str) -> re.Pattern[str]:
    """Compiles a name pattern and checks that it has the given groups.

    Raises:
        UsageError: it is not a regular expression, or a group is missing.
    """
    try:
        pattern = re.compile(text, re.ASCII)
    except re.error as error:
        raise UsageError(f"The name pattern '{text}' is not a valid regular expression: {error}.") from error
    if missing := [group for group in groups if group not in pattern.groupindex]:
        groups_needed = " and ".join(f"(?P<{group}>...)" for group in missing)
        raise UsageError(f"The name pattern '{text}' needs the group {groups_needed}.")
    return pattern


def number(text: str) -> int | None:
    """Returns the whole number in a text; `None` if there is none or it exceeds 63 bits."""
    if len(text) < 10 and text.isascii() and text.isdigit():  # fast path for nearly all numbers
        return int(text)
    if not NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if abs(value) <= LARGEST_NUMBER else None


def order(name: str) -> str:
    """Returns a sort key that gives relative paths the order of `Path` objects."""
    return name.replace("/", "\0")


def below(folder: Path, text: str) -> str:
    """Converts a path from a list to a relative path with forward slashes; empty if it is not below the folder.

    Accepts `./` and `..` inside the folder, backslashes, and absolute paths below the folder.
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
    """Returns a file name for printing, with invalid Unicode escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(text: str, limit: int = 80) -> str:
    """Returns a quoted and shortened text for messages."""
    return repr(printable(text[:limit]))


def first(names: list[str]) -> str:
    """Returns the first few names of a list and the number of all others, for messages."""
    examples = ", ".join(shown(name) for name in names[:EXAMPLES])
    return examples + (f", and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else "")
