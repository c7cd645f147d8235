"""Unpacks a zip or tar archive that a user brings, trusting nothing in it."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from harness.errors import DataError
from harness.system import files

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, LookupError, OverflowError, MemoryError),
)
"""What the libraries raise on a damaged or encrypted archive, beside OSError and ValueError."""

CHUNK = 1 << 20
DRIVE = re.compile(r"[A-Za-z]:")
CLUTTER = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True)
class Limits:
    """What an archive may become: bytes and files in all, and bytes unpacked per byte packed.

    Pictures hardly shrink when packed, so a high ratio is a sign of a bomb; it counts from `ratio_from` bytes on.
    """

    bytes: int = 64 << 30
    files: int = 1_000_000
    ratio: float = 100.0
    ratio_from: int = 64 << 20


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or tar archive, by its content."""
    try:
        return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))
    except (OSError, ValueError, *DAMAGE):
        return False


def top_folders(archive: Path) -> list[str]:
    """Top folders in an archive; of a tar archive only the first member's, because listing it means reading it."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                return sorted({_slashes(name).split("/")[0] for name in opened.namelist()} - set(CLUTTER))
        with tarfile.open(archive) as stream:
            member = stream.next()
            return [_slashes(member.name).removeprefix("./").split("/")[0]] if member else []
    except (OSError, ValueError, *DAMAGE):
        return []


def unpack(archive: Path, target: Path, *, limits: Limits = Limits(), progress: Progress | None = None) -> int:
    """Unpacks a zip or tar archive into the new folder `target`, which appears complete or not at all.

    Links, devices, absolute names, names with `..` and names given twice are refused; permissions are not taken over.
    Backslashes separate folders, as in archives made on Windows.

    Args:
        archive: the file; compression is recognised by content.
        target: folder to make; nothing is done where it exists.
        limits: what the archive may become.
        progress: called with (bytes unpacked, bytes in all; the archive's own size where that is unknown).

    Returns:
        Bytes that were written.

    Raises:
        DataError: not an archive, damaged, unsafe, too large, or no room on the disk.
    """
    if not is_archive(archive):
        raise DataError(f"{archive} is not a zip or tar archive, or it is cut off.")
    with fresh_folder(target) as folder:
        if folder is None:
            return 0
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    total = sum(info.file_size for info in opened.infolist())
                    _check_room(archive, target, total, limits)
                    return _write(archive, _zip_members(archive, opened), folder, total, limits, progress)
            with tarfile.open(archive) as stream:
                return _write(archive, _tar_members(archive, stream), folder, 0, limits, progress)
        except DAMAGE as error:
            raise DataError(f"{archive} cannot be unpacked: {error}. Fetch it again.") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}.") from error


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path | None]:
    """Yields an empty folder beside `target` that takes its name on success; `None` where `target` is there already.

    One process at a time works in the same parent folder; what an interrupted one left is removed.
    """
    partial = target.with_name(f".{target.name}.partial")
    with only_writer(target.parent):
        if target.exists():
            yield None
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a folder, made if missing, for one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder):
        yield


def _check_room(archive: Path, target: Path, total: int, limits: Limits) -> None:
    packed = max(1, archive.stat().st_size)
    if total > limits.bytes or (total > limits.ratio_from and total > limits.ratio * packed):
        raise DataError(f"{archive} would unpack to {total:,} bytes from {packed:,}; that is no archive of images.")
    if (free := shutil.disk_usage(target.parent).free) < total:
        raise DataError(f"{archive} needs {total:,} bytes, {target.parent} has {free:,} free.")


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = info.external_attr >> 28  # upper bits of the Unix mode; 0 where it was packed elsewhere
        if kind not in (0, 0o04, 0o10):
            raise _refused(archive, info.filename, "is a link or a device")
        if not info.filename.endswith(("/", "\\")):
            yield _Member(info.filename, info.file_size, partial(opened.open, info))


def _tar_members(archive: Path, stream: tarfile.TarFile) -> Iterator[_Member]:
    for info in stream:
        if info.isdir():
            continue
        if not info.isreg():
            raise _refused(archive, info.name, "is a link or a device")
        yield _Member(info.name, info.size, partial(_extract, stream, info))


def _extract(stream: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], stream.extractfile(info))  # never None for a regular file


def _write(
    archive: Path, members: Iterator[_Member], folder: Path, total: int, limits: Limits, progress: Progress | None
) -> int:
    packed = max(1, archive.stat().st_size)
    written = 0
    for count, member in enumerate(members, start=1):
        parts = _parts(archive, member.name)
        if any(part in CLUTTER for part in parts):
            continue
        if count > limits.files:
            raise DataError(f"{archive} holds more than {limits.files:,} files; that is no archive of this dataset.")
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            output = target.open("xb")
        except FileExistsError as error:
            raise _refused(archive, member.name, "is there twice") from error
        with output, member.open() as source:
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > limits.bytes or (written > limits.ratio_from and written > limits.ratio * packed):
                    raise DataError(f"{archive} unpacks to more than {written:,} bytes; that is no archive of images.")
                output.write(chunk)
        if target.stat().st_size != member.size:
            raise DataError(f"{archive} is cut off in {member.name!r}. Fetch it again.")
        if progress is not None:
            progress(written, max(total or packed, written))
    return written


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _parts(archive: Path, name: str) -> list[str]:
    """Parts of a member's name, which must stay below the target."""
    parts = [part for part in _slashes(name).split("/") if part not in ("", ".")]
    if not parts or "\0" in name:
        raise _refused(archive, name, "is no name of a file")
    if _slashes(name).startswith("/") or DRIVE.match(name) or ".." in parts:
        raise _refused(archive, name, "would be written outside its folder")
    return parts


def _refused(archive: Path, name: str, reason: str) -> DataError:
    return DataError(f"{archive} is refused: {name!a} {reason}. Nothing was unpacked.")
