"""Files that are written whole or not at all, and what killed writers leave of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import uuid
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
    """Writes a file whole or not at all: a temporary file in the same folder, flushed to disk, then renamed.

    Its permissions follow the umask, so a group can share a folder. The temporary file names its writer, so that
    `sweep` can tell what nobody will rename any more. Without `flush` a power cut may leave an empty file, which is
    enough for what can be made again.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{_host()}~{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if flush:
                file.flush()
                hooks.reached("write", name=path.name, path=path)
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
