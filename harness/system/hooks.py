"""Named points of the program at which a test may inject a fault. Nothing happens there otherwise.

A test registers a function with `inject`; the program calls `reached` with the name of the point and what it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

POINTS = {
    "start": "the process of a run is tied to its parent; nothing slow is imported yet",
    "data": "the stage begins",
    "build": "the stage begins",
    "train": "the stage begins",
    "evaluate": "the stage begins",
    "measure": "the stage begins",
    "record": "the stage begins",
    "cache": "a cache of decoded images is begun; the disk seemed to have room",
    "epoch": "a training epoch begins (`epoch`, from 1)",
    "save": "an epoch is over and its checkpoint is next (`epoch`)",
    "checkpoint": "a checkpoint is written but has neither been flushed to disk nor taken its name (`epoch`)",
    "write": "a small file is written but has neither been flushed to disk nor taken its name (`name`, `path`)",
    "track": "the driver is about to send the end of a run to the tracking server",
    "report": "the report is about to be written",
}
"""What has just happened, or comes next, by the name of a point."""

Fault = Callable[..., object]

_faults: dict[str, Fault] = {}


def reached(point: str, **facts: Any) -> None:
    """Says that the program is at a point; carries out the fault injected there, if there is one."""
    if (fault := _faults.get(point)) is not None:
        fault(**facts)


def inject(point: str, fault: Fault) -> None:
    """Has a fault carried out whenever a point is reached; it gets the facts of the point by keyword.

    Raises:
        KeyError: there is no such point.
    """
    if point not in POINTS:
        raise KeyError(f"{point!r} is not a point; the points are {', '.join(POINTS)}.")
    _faults[point] = fault
