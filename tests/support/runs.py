"""Starts small runs from the command line and finds their records."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.records import store


def arguments(world: Path, folder: Path, *more: object, backbones: str = "dummy", scheduler: str = "") -> list[str]:
    """Returns a command that runs backbones on the stand-in of Market-1501, without tracking.

    Runs are in the process of the command, unless it names a scheduler.
    """
    fixed = ["run", "--backbones", backbones, "--datasets", "market1501", "--recipe", "smoke", "--from-scratch"]
    fixed += ["--data-root", str(world), "--results", str(folder / "results"), "--cache", str(folder / "cache")]
    fixed += ["--report", str(folder / "BENCHMARKS.md"), "--device", "cpu", "--no-mlflow"]
    fixed += ["--scheduler", scheduler] if scheduler else ["--debug"]
    return [*fixed, *map(str, more)]


def only_record(folder: Path) -> store.Record:
    """Returns the record of the only run in the results of a folder."""
    (record,) = store.records(folder / "results")
    return record


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


def running(folder: Path) -> list[str]:
    """Returns the command lines of running `run-one` processes of this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "run-one" in line and str(folder) in line:
            found.append(line)
    return found
