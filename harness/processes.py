"""Ends what this process started and what that started in turn, told from /proc; without one it does nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


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
