"""CPU cores and child processes. Child processes are found in /proc; systems without it have no such function."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def descendants(ancestor: int) -> list[int]:
    """Returns the ids of a process's children, their children and so on; orphaned processes are not included."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # the process has ended meanwhile
            parent = int(stat.read_text(errors="replace").rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(ancestor, []))
    for pid in found:  # grows during the loop
        found += children.get(pid, [])
    return found


def end_descendants() -> None:
    """Kills all descendants of this process."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
