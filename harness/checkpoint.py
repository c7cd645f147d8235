"""Epoch checkpoints of a run: the newest and the one before, written by rename, loaded without unpickling code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the newest checkpoint and keeps the one before; a failure in between leaves both old ones."""
    temporary = folder / f"{NEWEST}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if (folder / NEWEST).exists():
            os.replace(folder / NEWEST, folder / PREVIOUS)
        os.replace(temporary, folder / NEWEST)
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
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged archive raises many types; all mean the same here
            warn(f"{name} cannot be read ({type(error).__name__}); trying the one before.")
            continue
        if isinstance(state, dict) and state.get("run_id") == run_id:
            return state
        warn(f"{name} belongs to another run; ignored.")
    return None


def remove(folder: Path) -> None:
    """Removes what a killed writer left behind."""
    for path in folder.glob(f"{NEWEST}.*.tmp"):
        path.unlink(missing_ok=True)
