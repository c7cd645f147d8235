"""The metrics of every epoch of a run: `metrics.jsonl` beside its record, one JSON object per line.

A process can die while it writes, or the disk can be full, so readers ignore damaged lines. An epoch that was trained
again has several lines.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def append(folder: Path, epoch: int, metrics: Mapping[str, Any]) -> None:
    """Adds an epoch, below a damaged last line if there is one."""
    line = _line({"epoch": epoch, **metrics})
    with (folder / FILE).open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the epochs in the order of writing, each with its number as `epoch`; empty without a file."""
    found = []
    with contextlib.suppress(OSError):
        for line in (folder / FILE).read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                values = json.loads(line)
                found.append({**values, "epoch": int(values["epoch"])})
    return found


def copy(source: Path, folder: Path, epochs: int) -> None:
    """Copies the metrics of the first epochs of a run.

    Raises:
        OSError: the file cannot be written.
    """
    lines = [_line(values) for values in read(source) if values["epoch"] <= epochs]
    (folder / FILE).write_bytes(b"".join(lines))


def seconds(folder: Path) -> float:
    """Duration of all epochs, those that were trained again included."""
    return sum(float(values.get("seconds") or 0) for values in read(folder))


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"
