"""A driver's sign of life: a locked file in the results folder, whose lock ends with its process, however that ends.

Runs of a driver that was killed would stay open on the server for ever. The next driver on the same results folder
finds files nobody locks, closes what they name, and removes them.
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
    """Holds the sign of life of this process until `end`.

    Args:
        results: the results folder. Where it takes no file, there is no sign, and `tags` is empty.
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
        """What a parent run is marked with, to be found by."""
        return {TAG: self._path.name} if self._held else {}

    @staticmethod
    def dead(results: Path) -> bool:
        """Whether a driver of this folder is gone without having closed its runs."""
        for path in (results / FOLDER).glob("*"):
            with contextlib.suppress(OSError), _of_dead(path, shared=True):
                return True
        return False

    def close_dead(self, server: Server) -> None:
        """Closes the runs of drivers that are gone."""
        for path in sorted(self._folder.glob("*")) if self._held else ():
            with contextlib.suppress(OSError), _of_dead(path):
                for parent in server.find({TAG: path.name}, running=True):
                    for child in server.find({"mlflow.parentRunId": parent}, running=True):
                        server.end(child, "interrupted")
                    server.end(parent, "interrupted")
                path.unlink(missing_ok=True)

    def end(self) -> None:
        """The process closed its runs itself."""
        if self._held:
            self._path.unlink(missing_ok=True)
            self._lock.close()


def _of_dead(path: Path, *, shared: bool = False) -> contextlib.AbstractContextManager[None]:
    """Holds the sign of life of another driver; raises where that driver lives."""
    return files.locked(path, wait=False, shared=shared, make=False)
