"""Breaks a run from inside its real process. On PYTHONPATH of a test, Python imports this before anything else.

`HARNESS_TEST_FAULTS` is a JSON object from seed to `place:kind`. Nothing of the harness knows about it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS: dict[str, Callable[[], None]] = {}


def kind(function: Callable[[], None]) -> Callable[[], None]:
    KINDS[function.__name__] = function
    return function


@kind
def raises() -> None:
    raise ValueError("injected | fault")


@kind
def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@kind
def hang() -> None:
    subprocess.Popen(["sleep", "600"])  # a helper that hangs as well
    time.sleep(600)


@kind
def host_memory() -> None:
    import torch

    torch.empty(1 << 50, dtype=torch.uint8)


@kind
def gpu_memory() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (faked)")


@kind
def file_limit() -> None:
    """Every further write to a file beyond 100 bytes fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@kind
def clock() -> None:
    """Each look at the clock is a day before the last one."""
    from datetime import UTC, datetime, timedelta

    from harness import runner

    looks = [0]

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            looks[0] += 1
            return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=looks[0])

    runner.datetime = Backwards  # type: ignore[misc,assignment]
    real = time.time
    time.time = lambda: 2 * START - real()


START = time.time()


def at_stage(stage: str, fault: Callable[[], None]) -> None:
    from harness import runner

    enter = runner.Progress.enter

    def faulty(self: runner.Progress, name: str) -> None:
        enter(self, name)
        if name == stage:
            fault()

    runner.Progress.enter = faulty  # type: ignore[method-assign]


def in_epoch(fault: Callable[[], None]) -> None:
    """Strikes when the third epoch begins, so that two checkpoints are there."""
    from harness import train

    step = train.seed_torch

    def faulty(seed: int, *parts: Any) -> None:
        if parts == ("epoch", 2):
            fault()
        step(seed, *parts)

    train.seed_torch = faulty


def in_write(module: Any, number: int, fault: Callable[[], None]) -> None:
    """Strikes while a file is written: its temporary file is there, its name is not yet taken."""
    calls = [0]

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fsync(self, handle: int) -> None:
            calls[0] += 1
            if calls[0] == number:
                fault()
            os.fsync(handle)

    module.os = Os()


def before_save(number: int, fault: Callable[[], None]) -> None:
    from harness import checkpoint

    save, calls = checkpoint.save, [0]

    def faulty(folder: Path, state: dict[str, Any]) -> None:
        calls[0] += 1
        if calls[0] == number:
            fault()
        save(folder, state)

    checkpoint.save = faulty


def truncate_newest() -> None:
    """What a power cut does where the disk lied about flushing."""
    path = Path(sys.orig_argv[-1]) / "checkpoint.pt"
    os.truncate(path, path.stat().st_size // 2)
    kill()


def install(place: str, fault: Callable[[], None]) -> None:
    if place == "epoch":
        in_epoch(fault)
    elif place == "checkpoint":
        from harness import checkpoint

        in_write(checkpoint, 3, fault)
    elif place == "save":
        before_save(3, fault)
    elif place == "write":
        from harness import store

        in_write(store, 1, fault)
    elif place == "start":
        fault()
    else:
        at_stage(place, fault)


KINDS["truncate_newest"] = truncate_newest


def spy(place: Path) -> None:
    """Replaces the whole run: it only notes when it ran, and what it was given."""
    from harness import runner

    def main(folder: Path) -> int:
        began = time.monotonic()
        progress = runner.Progress(runner._private_stdout())
        time.sleep(float(os.environ.get("HARNESS_TEST_SPY_SECONDS", "1")))
        note = {"run": str(folder), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "node": os.getppid()}
        note |= {"raylet": parent_of(os.getppid()), "began": began, "ended": time.monotonic()}
        (place / f"{os.getpid()}.json").write_text(json.dumps(note))
        progress.emit("end", status="ok")
        return 0

    runner.main = main


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


if "run-one" in sys.orig_argv:
    if place := os.environ.get("HARNESS_TEST_SPY"):
        spy(Path(place))
    if faults := os.environ.get("HARNESS_TEST_FAULTS"):
        job = json.loads((Path(sys.orig_argv[-1]) / "job.json").read_text())
        if chosen := json.loads(faults).get(str(job["spec"]["seed"])):
            where, what = chosen.split(":")
            install(where, KINDS[what])
