"""Epoch checkpoints of a run: the newest and the previous one, written atomically, loaded without running pickled code.

A checkpoint also contains the key of its training (`harness.spec.run_spec.training_key`). A run that differs only in
its evaluation reuses the checkpoint instead of training the same model again.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.errors import RunError
from harness.records import epochs
from harness.system import files, hooks

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class CheckpointError(RunError):
    """A checkpoint could not be written."""

    stage = "checkpoint"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the newest checkpoint and keeps the previous one. If writing fails, both existing ones are kept.

    Raises:
        CheckpointError: the file could not be written.
    """
    try:
        with files.replacing(folder / NEWEST, keep=folder / PREVIOUS) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            hooks.reached("checkpoint", epoch=state["epoch"] + 1)
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError) as error:  # torch raises a RuntimeError if writing fails
        reason = getattr(error, "strerror", None) or _cause(error)
        raise CheckpointError(
            f"The checkpoint in {folder} could not be written ({reason}); the previous one is kept. "
            "Free disk space and run the same command again to resume from it."
        ) from error


def load(folder: Path, run_id: str, warn: Callable[[str], None], training: str = "") -> dict[str, Any] | None:
    """Returns the newest readable checkpoint of this run, or of a run with the same training key, or `None`.

    If the newest file is damaged or belongs to another run, the previous one is used.

    Args:
        folder: folder of the run.
        run_id: id of the run.
        warn: called with a sentence for every file that is not used.
        training: key of the training; may be empty.
    """
    for name in (NEWEST, PREVIOUS):
        if not (path := folder / name).exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:  # torch does not check the checksums
                    raise zipfile.BadZipFile(f"{part} is damaged")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged archives raise many kinds of exceptions
            then = "trying the previous checkpoint" if name == NEWEST else "ignored"
            warn(f"{name} cannot be read ({type(error).__name__}); {then}.")
            continue
        if isinstance(state, dict) and (state.get("run_id") == run_id or _same(state, training)):
            return state
        warn(f"{name} belongs to another run; ignored.")
    return None


def take_over(folder: Path, training: str) -> None:
    """Links the checkpoint of another run with this training key, the one with the most epochs, into the folder.

    Only runs of the same backbone and dataset are searched. A hard link is safe, because checkpoints are replaced and
    never modified.
    """
    found = [(epoch, path) for path in folder.parent.glob(f"*/{NEWEST}") if (epoch := _epoch(path, training)) >= 0]
    if not found:
        return
    epoch, source = max(found)
    try:
        with files.replacing(folder / NEWEST) as temporary:
            _link(source, temporary)
        epochs.copy(source.parent, folder, epoch + 1)
    except (OSError, ValueError, KeyError, TypeError):
        return  # a full disk, or a run that was just removed: train without this checkpoint


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _epoch(path: Path, training: str) -> int:
    """Returns the last epoch of a checkpoint with this training key, without reading its tensors; otherwise -1."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["epoch"]) if _same(state, training) else -1
    except Exception:  # damaged, or from another program or version
        return -1


def _same(state: dict[str, Any], training: str) -> bool:
    return bool(training) and state.get("training") == training


def _cause(error: BaseException) -> str:
    """Returns the first line of the original error."""
    while error.__context__ is not None:
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
