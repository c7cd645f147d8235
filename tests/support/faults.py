"""Starts real drivers, injects faults, and checks what is left."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.records import store
from harness.records.schema import Record
from harness.system.paths import REPOSITORY

SITE = REPOSITORY / "tests" / "support" / "site"
"""Folder with a `sitecustomize`, which Python imports first if the folder is on PYTHONPATH."""
EPOCHS = 4

Seeds = Mapping[Any, str]
"""Faults by seed of the run, or `driver`."""
NONE: Seeds = {}


def command(world: Path, folder: Path, plugins: Path, *more: object, scheduler: str = "inline") -> list[str]:
    """Returns the command of a small training of the backbone `pixels`, without a tracker unless `more` has one."""
    words = ["run", "--backbones", "pixels", "--datasets", "market1501", "--recipe", "smoke", "--device", "cpu"]
    words += ["--from-scratch", "--data-root", str(world), "--plugins", str(plugins), "--scheduler", scheduler]
    words += ["--results", str(folder / "results"), "--report", str(folder / "BENCHMARKS.md")]
    words += ["--cache", str(folder / "cache"), "--cpus-per-run", "1"]
    words += ["--set", f"training.epochs={EPOCHS}", "--set", "evaluation.untrained=false"]
    words += [] if "--mlflow-uri" in more else ["--no-mlflow"]
    return [sys.executable, "-m", "harness", *words, *map(str, more)]


def environment(faults: Seeds = NONE, without: Seeds = NONE, **more: str) -> dict[str, str]:
    """Returns the environment that injects faults into the processes of runs and disables protections."""
    path = os.pathsep.join([str(SITE), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    injected = {"HARNESS_TEST_FAULTS": json.dumps(dict(faults)), "HARNESS_TEST_WITHOUT": json.dumps(dict(without))}
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **injected, **more}


def drive(
    words: list[str],
    faults: Seeds = NONE,
    *,
    without: Seeds = NONE,
    before: Callable[[], object] | None = None,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Runs a driver to its end."""
    return subprocess.run(
        words,
        cwd=REPOSITORY,
        env=environment(faults, without, **more),
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=before,
    )


def start(words: list[str], faults: Seeds = NONE, *, without: Seeds = NONE, **more: str) -> subprocess.Popen[str]:
    """Starts a driver in its own session, so that killing it does not affect the test."""
    return subprocess.Popen(
        words,
        cwd=REPOSITORY,
        env=environment(faults, without, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def by_seed(folder: Path) -> dict[int, Record]:
    """Returns all records; an unreadable record fails the test."""

    def damaged(error: Exception) -> None:
        raise AssertionError(str(error))

    return {record["spec"]["seed"]: record for record in store.records(folder / "results", damaged)}


def wait_for(condition: Callable[[], object], seconds: float = 90.0, what: str = "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s {what}"
        time.sleep(0.1)


def processes(*words: str) -> list[str]:
    """Returns the command lines of running processes that contain all the words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if all(word in line for word in words) and alive(int(process.name)):
            found.append(f"{process.name} {line}")
    return found


def alive(pid: int) -> bool:
    """Returns whether a process is running, not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def session(leader: int) -> list[str]:
    """Returns the command lines of running processes that a driver started, except runs, which have own sessions."""
    found = []
    for line in processes():
        with contextlib.suppress(OSError):
            if os.getsid(int(line.split()[0])) == leader:
                found.append(line)
    return found


def leftovers(folder: Path) -> list[str]:
    """Returns temporary files and processes that should be gone."""
    names = [str(path) for path in folder.rglob("*.tmp")]
    return names + processes("run-one", str(folder))
