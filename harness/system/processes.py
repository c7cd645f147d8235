"""Processes and the cores they may use; what a process started is told from /proc, without which nothing is ended."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def descendants(ancestor: int) -> list[int]:
    """Processes that a process started, directly or not, and that were not left to another one since."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # ended while we looked
            parent = int(stat.read_text(errors="replace").rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(ancestor, []))
    for pid in found:  # grows meanwhile
        found += children.get(pid, [])
    return found


def end_descendants() -> None:
    """Ends them at once."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
