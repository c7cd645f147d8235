"""Epoch checkpoints of a run: the newest and the one before, written by rename, loaded without unpickling code."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.errors import RunError

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class CheckpointError(RunError):
    """A checkpoint that could not be written."""

    stage = "checkpoint"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the newest checkpoint and keeps the one before; a failure in between leaves both old ones.

    Raises:
        CheckpointError: the disk did not take it.
    """
    temporary = folder / f"{NEWEST}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if (folder / NEWEST).exists():
            os.replace(folder / NEWEST, folder / PREVIOUS)
        os.replace(temporary, folder / NEWEST)
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        reason = getattr(error, "strerror", None) or _cause(error)
        raise CheckpointError(
            f"The checkpoint in {folder} could not be written ({reason}); the one before is kept. "
            "Free space and start the same command again: it goes on from there."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(folder: Path, run_id: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Returns the newest readable checkpoint of this run, or `None`.

    A truncated or foreign file is named through `warn` and the one before is used.
    """
    for name in (NEWEST, PREVIOUS):
        if not (path := folder / name).exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:  # torch itself does not look at the checksums
                    raise zipfile.BadZipFile(f"{part} is damaged")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged archive raises many types; all mean the same here
            warn(f"{name} cannot be read ({type(error).__name__}); trying the one before.")
            continue
        if isinstance(state, dict) and state.get("run_id") == run_id:
            return state
        warn(f"{name} belongs to another run; ignored.")
    return None


def _cause(error: BaseException) -> str:
    """The first line of the error that began it."""
    while error.__context__ is not None:
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def remove(folder: Path) -> None:
    """Removes what a killed writer left behind."""
    for path in folder.glob(f"{NEWEST}.*.tmp"):
        path.unlink(missing_ok=True)
