"""Files: written whole or not at all, locked against other processes, and cleared of what killed writers left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.system import hooks

_WRITER = re.compile(r"\.(?P<host>[\w-]+)~(?P<pid>\d+)\.[^.]+\.tmp$")

STALE_SECONDS = 24 * 3600.0
"""Age at which a temporary file of another machine has no writer any more; they live for seconds."""


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as JSON, whole or not at all."""
    replace(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def replace(path: Path, content: str | bytes, *, flush: bool = True) -> None:
    """Writes a file whole or not at all; see `replacing`."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if flush:
            hooks.reached("write", name=path.name, path=path)


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True, keep: Path | None = None) -> Iterator[Path]:
    """Yields the path of a temporary file in the same folder, which the caller makes; on success it becomes `path`.

    Permissions follow the umask, so a group can share a folder. The temporary file names its writer, so that `sweep`
    can tell what nobody will rename any more.

    Args:
        path: the file to write.
        flush: False where the content can be made again: a power cut may then leave an empty file.
        keep: name under which the former file stays.
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
    """Holds an advisory lock on a file or folder; it ends with the block, or with the process, however that ends.

    Args:
        path: a lock file, or a folder that is there.
        wait: wait for other processes; False raises at once where another one holds the lock.
        shared: other shared locks are compatible.
        make: make the lock file if it is missing.
        on_wait: called once before waiting for another process.

    Raises:
        BlockingIOError: another process holds the lock and `wait` is False.
        OSError: the file cannot be opened, or its file system has no locks.
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


def sweep(folder: Path) -> None:
    """Removes the temporary files that `replace` left in a folder when its process was killed.

    Those of a living process stay, and so do those of another machine for a day: two drivers may be at work.
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
    except OSError:  # it belongs to somebody else
        return True
    return True
