"""Unpacks untrusted zip and tar archives."""

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
"""Called with the amount of work done and the total."""

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, LookupError, OverflowError, MemoryError),
)
"""Exceptions that the libraries raise for damaged or encrypted archives, in addition to OSError and ValueError."""

CHUNK = 1 << 20
DRIVE = re.compile(r"[A-Za-z]:")
CLUTTER = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True)
class Limits:
    """Limits of an unpacked archive. Images hardly compress, so a high ratio indicates a decompression bomb.

    Attributes:
        bytes: maximum number of unpacked bytes.
        files: maximum number of files.
        ratio: maximum ratio of unpacked to packed bytes.
        ratio_from: number of unpacked bytes from which the ratio is checked.
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
    """Returns whether a file is a zip or tar archive, by its content."""
    try:
        return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))
    except (OSError, ValueError, *DAMAGE):
        return False


def top_folders(archive: Path) -> list[str]:
    """Returns the top folders of an archive; of a tar archive only the first, because listing reads the whole file."""
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
    """Unpacks a zip or tar archive into the new folder `target`, atomically.

    Links, devices, absolute names, names with `..` and duplicate names are refused. Permissions are not restored.
    Backslashes separate folders, as in archives created on Windows.

    Args:
        archive: the archive; its compression is detected by content.
        target: folder to create; if it exists, nothing is done.
        limits: limits of the unpacked files.
        progress: called with the number of unpacked bytes and the total, or the size of the archive if it is unknown.

    Returns:
        The number of bytes written.

    Raises:
        DataError: the file is not an archive, is damaged, unsafe or too large, or the disk is full.
    """
    if not is_archive(archive):
        raise DataError(f"{archive} is not a zip or tar archive, or it is truncated. Download it again.")
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
            raise DataError(f"{archive} cannot be unpacked: {error}. Download it again.") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}.") from error


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path | None]:
    """Yields an empty temporary folder that is renamed to `target` on success, or `None` if `target` exists.

    Only one process at a time works in a parent folder; leftovers of interrupted processes are removed.
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
    """Locks a folder for one process at a time; the folder is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder):
        yield


def _check_room(archive: Path, target: Path, total: int, limits: Limits) -> None:
    packed = max(1, archive.stat().st_size)
    if total > limits.bytes or (total > limits.ratio_from and total > limits.ratio * packed):
        raise DataError(
            f"{archive} is refused: its {packed:,} bytes would unpack to {total:,} bytes, which is too much for images."
        )
    if (free := shutil.disk_usage(target.parent).free) < total:
        raise DataError(
            f"{archive} needs {total:,} bytes, but {target.parent} has only {free:,} bytes free. Free disk space."
        )


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = info.external_attr >> 28  # upper bits of the Unix mode; 0 for archives of other systems
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
            raise DataError(
                f"{archive} is refused: it contains more than {limits.files:,} files, which is too much for a dataset."
            )
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            output = target.open("xb")
        except FileExistsError as error:
            raise _refused(archive, member.name, "occurs twice") from error
        with output, member.open() as source:
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > limits.bytes or (written > limits.ratio_from and written > limits.ratio * packed):
                    raise DataError(
                        f"{archive} is refused: its {packed:,} bytes unpack to more than {written:,} bytes, which is "
                        "too much for images."
                    )
                output.write(chunk)
        if target.stat().st_size != member.size:
            raise DataError(f"{archive} is truncated in {member.name!r}. Download it again.")
        if progress is not None:
            progress(written, max(total or packed, written))
    return written


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _parts(archive: Path, name: str) -> list[str]:
    """Returns the parts of a member's name, and checks that they stay below the target."""
    parts = [part for part in _slashes(name).split("/") if part not in ("", ".")]
    if not parts or "\0" in name:
        raise _refused(archive, name, "is not a valid file name")
    if _slashes(name).startswith("/") or DRIVE.match(name) or ".." in parts:
        raise _refused(archive, name, "would be written outside its folder")
    return parts


def _refused(archive: Path, name: str, reason: str) -> DataError:
    return DataError(f"{archive} is refused: {name!a} {reason}. Nothing was unpacked.")
