"""Epoch checkpoints of a run: the newest and the one before, written by rename, loaded without unpickling code.

A checkpoint also holds the key of its training (`harness.spec.run_spec.training_key`), so that a run that differs
only in what it scores takes it over instead of training the same model again.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.errors import RunError
from harness.system import files, hooks

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
METRICS = "metrics.jsonl"


class CheckpointError(RunError):
    """A checkpoint that could not be written."""

    stage = "checkpoint"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the newest checkpoint and keeps the one before; a failure in between leaves both old ones.

    Raises:
        CheckpointError: the disk did not take it.
    """
    try:
        with files.replacing(folder / NEWEST, keep=folder / PREVIOUS) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            hooks.reached("checkpoint", epoch=state["epoch"] + 1)
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        reason = getattr(error, "strerror", None) or _cause(error)
        raise CheckpointError(
            f"The checkpoint in {folder} could not be written ({reason}); the one before is kept. "
            "Free space and start the same command again: it resumes from there."
        ) from error


def load(folder: Path, run_id: str, warn: Callable[[str], None], training: str = "") -> dict[str, Any] | None:
    """Returns the newest readable checkpoint of this run, or of a run with the same training key, or `None`.

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
        if isinstance(state, dict) and (state.get("run_id") == run_id or _same(state, training)):
            return state
        warn(f"{name} belongs to another run; ignored.")
    return None


def take_over(folder: Path, training: str) -> None:
    """Puts the checkpoint of another run with this training key into the folder, the most advanced one there is.

    Runs of the same backbone and dataset are looked at. Their files stay as they are: checkpoints are replaced whole,
    never written into, so a hard link is as good as a copy.
    """
    found = [(epoch, path) for path in folder.parent.glob(f"*/{NEWEST}") if (epoch := _epoch(path, training)) >= 0]
    if not found:
        return
    epoch, source = max(found)
    try:
        with files.replacing(folder / NEWEST) as temporary:
            _link(source, temporary)
        _copy_metrics(source.parent, folder, epoch + 1)
    except (OSError, ValueError, KeyError, TypeError):
        return  # a full disk, or a run that was just removed: training begins with what is there


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _copy_metrics(source: Path, folder: Path, epochs: int) -> None:
    """The metrics of the epochs that were taken over, for the curves of the run."""
    lines = (source / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epochs]
    (folder / METRICS).write_text("".join(kept), encoding="utf-8")


def _epoch(path: Path, training: str) -> int:
    """The last epoch in a checkpoint with this training key, told without reading its tensors; or -1."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["epoch"]) if _same(state, training) else -1
    except Exception:  # damaged, foreign or from an older harness
        return -1


def _same(state: dict[str, Any], training: str) -> bool:
    return bool(training) and state.get("training") == training


def _cause(error: BaseException) -> str:
    """The first line of the error that began it."""
    while error.__context__ is not None:
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
