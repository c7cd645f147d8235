"""Named points of the program at which tests inject faults. In normal use, they do nothing.

A test registers a function with `inject`; the program calls `reached` with the name of the point and some facts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

POINTS = {
    "start": "the process of a run will end with its parent; slow imports have not started",
    "data": "the stage begins",
    "build": "the stage begins",
    "train": "the stage begins",
    "evaluate": "the stage begins",
    "audit": "the stage begins",
    "measure": "the stage begins",
    "record": "the stage begins",
    "cache": "writing of a cache of decoded images begins; the disk has enough free space",
    "epoch": "a training epoch begins (`epoch`, from 1)",
    "save": "an epoch has ended, and its checkpoint will be written (`epoch`)",
    "checkpoint": "a checkpoint is written, but not yet flushed and renamed (`epoch`)",
    "write": "a small file is written, but not yet flushed and renamed (`name`, `path`)",
    "track": "the driver will send the end of a run to the tracking server",
    "report": "the report will be written",
}
"""Names of the points, with the state of the program and the facts passed to `reached`."""

Fault = Callable[..., object]

_faults: dict[str, Fault] = {}


def reached(point: str, **facts: Any) -> None:
    """Runs the fault injected at a point, if there is one."""
    if (fault := _faults.get(point)) is not None:
        fault(**facts)


def inject(point: str, fault: Fault) -> None:
    """Registers a function to call whenever a point is reached, with the facts of the point as keyword arguments.

    Raises:
        KeyError: the point does not exist.
    """
    if point not in POINTS:
        raise KeyError(f"Unknown point {point!r}. Known: {', '.join(POINTS)}.")
    _faults[point] = fault
