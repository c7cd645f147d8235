"""Marks living drivers by a locked file in the results folder; the lock ends with the process.

The MLflow runs of a killed driver would stay open forever. The next driver on the same results folder finds unlocked
files, closes the runs of their drivers, and removes the files.
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from harness.system import files
from harness.tracking.server import Server

FOLDER = ".drivers"
TAG = "harness.driver"


class Presence:
    """Holds the lock file of this process until `end`.

    Args:
        results: the results folder. If it is not writable, there is no lock file and `tags` is empty.
    """

    def __init__(self, results: Path) -> None:
        self._folder = results / FOLDER
        self._path = self._folder / uuid.uuid4().hex
        self._lock = contextlib.ExitStack()
        self._held = False
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(files.locked(self._path, wait=False))
            self._held = True

    @property
    def tags(self) -> dict[str, str]:
        """Tags by which other drivers find the parent run."""
        return {TAG: self._path.name} if self._held else {}

    @staticmethod
    def dead(results: Path) -> bool:
        """Whether a driver of this folder ended without closing its runs."""
        for path in (results / FOLDER).glob("*"):
            with contextlib.suppress(OSError), _of_dead(path, shared=True):
                return True
        return False

    def close_dead(self, server: Server) -> None:
        """Closes the runs of drivers that ended without closing them."""
        for path in sorted(self._folder.glob("*")) if self._held else ():
            with contextlib.suppress(OSError), _of_dead(path):
                for parent in server.find({TAG: path.name}, running=True):
                    for child in server.find({"mlflow.parentRunId": parent}, running=True):
                        server.end(child, "interrupted")
                    server.end(parent, "interrupted")
                path.unlink(missing_ok=True)

    def end(self) -> None:
        """Removes the lock file; call it after closing the runs."""
        if self._held:
            self._path.unlink(missing_ok=True)
            self._lock.close()


def _of_dead(path: Path, *, shared: bool = False) -> contextlib.AbstractContextManager[None]:
    """Locks the file of another driver; raises BlockingIOError if that driver is alive."""
    return files.locked(path, wait=False, shared=shared, make=False)
