"""Atomic file writes, file locks between processes, and removal of temporary files of killed processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.system import hooks

_WRITER = re.compile(r"\.(?P<host>[\w-]+)~(?P<pid>\d+)\.[^.]+\.tmp$")

STALE_SECONDS = 24 * 3600.0
"""Age after which temporary files of other machines are removed; normally they exist for seconds."""


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as JSON, atomically."""
    replace(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def replace(path: Path, content: str | bytes, *, flush: bool = True) -> None:
    """Writes a file atomically; see `replacing`."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if flush:
            hooks.reached("write", name=path.name, path=path)


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True, keep: Path | None = None) -> Iterator[Path]:
    """Yields the path of a temporary file in the same folder, which the caller writes; on success it becomes `path`.

    Permissions follow the umask, so a group can share a folder. The name of the temporary file contains host and
    process id, so that `sweep` can find files whose process has ended.

    Args:
        path: the file to write.
        flush: whether to flush the file to disk first. Without it, a power failure may leave an empty file.
        keep: new name of the previous file, if it should be kept.
    """
    temporary = path.with_name(f".{path.name}.{_host()}~{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        if flush:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    wait: bool = True,
    shared: bool = False,
    make: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds an advisory lock on a file or folder. It is released with the block, or when the process ends.

    Args:
        path: a lock file, or an existing folder.
        wait: whether to wait for other processes; if False, a held lock raises an error at once.
        shared: whether other processes may hold a shared lock at the same time.
        make: whether to create a missing lock file.
        on_wait: called once before waiting for another process.

    Raises:
        BlockingIOError: another process holds the lock and `wait` is False.
        OSError: the file cannot be opened, or the file system does not support locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    handle = os.open(path, os.O_RDWR | os.O_CREAT if make and not path.is_dir() else os.O_RDONLY, 0o666)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if on_wait:
                on_wait()
            fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turns errors of the disk in its block, which writes a file or folder of the user, into one sentence.

    Raises:
        UsageError: the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        advice = "Free some space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
        raise UsageError(
            f"Cannot write {path} ({error.strerror or error}). {advice} another path with {option}."
        ) from error


def sweep(folder: Path) -> None:
    """Removes temporary files of `replacing` whose process was killed.

    Files of running processes are kept, as are files of other machines for a day, because these may still be in use.
    """
    for path in folder.glob(".*.tmp"):
        if (writer := _WRITER.search(path.name)) is None:
            continue
        with contextlib.suppress(OSError):
            ours, pid = writer["host"] == _host(), int(writer["pid"])
            if not _alive(pid) if ours else time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"\W", "-", os.uname().nodename)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True
