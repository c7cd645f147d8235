"""Breaks the driver or a run from inside its real process, at the points of `harness.system.hooks`.

`HARNESS_TEST_FAULTS` is a JSON object. Its keys are a seed, `driver`, or `*` for all other runs. Its values are faults,
separated by commas: `point:kind`, or `point/which:kind` for one value of the point's facts, such as `epoch/3:kill`. A
fault happens once. A kind without a point is active from the start. `HARNESS_TEST_WITHOUT` has the same keys; its
values name what to disable: something that the harness relies on, or one of its protections.
"""

from __future__ import annotations

import contextlib
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

from harness.system import hooks

KINDS: dict[str, Callable[..., None]] = {}
"""Faults by name; each gets the facts of the point."""
FOLDER = Path(sys.orig_argv[-1])
"""The run's folder, in the process of a run."""


def kind(function: Callable[..., None]) -> Callable[..., None]:
    KINDS[function.__name__] = function
    return function


@kind
def raises(**_: Any) -> None:
    raise ValueError("injected | fault")


@kind
def kill(**_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@kind
def kill_driver(**_: Any) -> None:
    """Kills driver and run at the same time, like a power failure."""
    os.kill(os.getppid(), signal.SIGKILL)
    kill()


@kind
def tear(path: Path, **_: Any) -> None:
    """A power failure while a file is written in place, as without the rename."""
    path.write_bytes(path.read_bytes()[:100])
    kill_driver()


@kind
def truncate_newest(**_: Any) -> None:
    """A power failure with a disk that did not really flush."""
    path = FOLDER / "checkpoint.pt"
    os.truncate(path, path.stat().st_size // 2)
    kill()


@kind
def hang(**_: Any) -> None:
    helper = subprocess.Popen(["sleep", "600"])  # a child process that hangs as well
    (FOLDER / "helper.txt").write_text(str(helper.pid))
    time.sleep(600)


@kind
def wait(**_: Any) -> None:
    seed = json.loads((FOLDER / "job.json").read_text())["spec"]["seed"]
    (FOLDER / f"waiting.{seed}.txt").write_text(str(os.getpid()))
    time.sleep(600)


@kind
def wait_once(**_: Any) -> None:
    """Does it only in the first process of the run that gets here."""
    if not list(FOLDER.glob("waiting.*.txt")):
        wait()


@kind
def meet(**_: Any) -> None:
    """Waits until two processes work on the run."""
    (FOLDER / f"here.{os.getpid()}.txt").touch()
    end = time.monotonic() + 60
    while len(list(FOLDER.glob("here.*.txt"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)


@kind
def note(**_: Any) -> None:
    """Replaces the run: notes the time and what it was given, and ends successfully."""
    began = time.monotonic()
    time.sleep(float(os.environ["HARNESS_TEST_NOTE_SECONDS"]))
    told = {"run": str(FOLDER), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "node": os.getppid()}
    told |= {"raylet": parent_of(os.getppid()), "began": began, "ended": time.monotonic()}
    (Path(os.environ["HARNESS_TEST_NOTES"]) / f"{os.getpid()}.json").write_text(json.dumps(told))
    print(json.dumps({"event": "end", "status": "ok"}), flush=True)
    os._exit(0)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@kind
def fill(**_: Any) -> None:
    fill_disk(FOLDER)


@kind
def fill_cache(**_: Any) -> None:
    fill_disk(Path(json.loads((FOLDER / "job.json").read_text())["paths"]["cache"]))


@kind
def fill_tracking(**_: Any) -> None:
    """Does it once the tracking database exists."""
    place = Path(os.environ["HARNESS_TEST_TRACKING"])
    while not (place / "mlflow.db").exists():
        time.sleep(0.1)
    fill_disk(place)


def fill_disk(place: Path) -> None:
    """Fills the disk completely."""
    with (place / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass


@kind
def file_limit(**_: Any) -> None:
    """Every further write to a file beyond 100 bytes fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@kind
def host_memory(**_: Any) -> None:
    import torch

    torch.empty(1 << 50, dtype=torch.uint8)


@kind
def gpu_memory(**_: Any) -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (faked)")


@kind
def clock(**_: Any) -> None:
    """The clock goes back by a day at every call."""
    from datetime import datetime, timedelta

    from harness.worker import events

    began, now = time.time(), time.time
    looks = [0]

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            looks[0] += 1
            return datetime(2030, 1, 1, tzinfo=tz) - timedelta(days=looks[0])

    events.datetime = Backwards  # type: ignore[misc]
    time.time = lambda: 2 * began - now()


def without_spare() -> None:
    """A cache does not leave any space on its disk."""
    from harness.data import cache

    cache.SPARE = 0


def without_fallback() -> None:
    """If a checkpoint cannot be read, the previous one is not used."""
    from harness.training import checkpoint

    checkpoint.PREVIOUS = checkpoint.NEWEST


def without_cleaning() -> None:
    """Half-written files cannot be removed."""
    remove = os.unlink

    def unlink(path: Any, *arguments: Any, **more: Any) -> None:
        if not str(path).endswith(".tmp"):
            remove(path, *arguments, **more)

    os.unlink = unlink


def without_optimizer() -> None:
    """A resumed training starts with a new optimiser."""
    from torch.optim import AdamW

    AdamW.load_state_dict = lambda *_: None  # type: ignore[assignment,method-assign]


def without_lock() -> None:
    """A file system without locks: two processes may work on one run."""
    import fcntl

    fcntl.flock = lambda *_: None  # type: ignore[assignment]


def without_group() -> None:
    """Only the run's own process is killed, not its children."""
    os.killpg = os.kill


def inject(chosen: str) -> None:
    """Registers a fault for the first time that its point is reached, with the given fact if there is one."""
    where, _, what = chosen.rpartition(":")
    point, _, which = where.partition("/")
    if not point:
        return KINDS[what]()
    struck = False

    def fault(**facts: Any) -> None:
        nonlocal struck
        if not struck and (not which or which in map(str, facts.values())):
            struck = True
            KINDS[what](**facts)

    hooks.inject(point, fault)


def chosen(variable: str, who: str) -> list[str]:
    by_name = json.loads(os.environ.get(variable) or "{}")
    return list(filter(None, by_name.get(who, "" if who == "driver" else by_name.get("*", "")).split(",")))


if "harness" in sys.orig_argv:
    who = "driver"
    if "run-one" in sys.orig_argv:
        who = str(json.loads((FOLDER / "job.json").read_text())["spec"]["seed"])
    for name in chosen("HARNESS_TEST_WITHOUT", who):
        globals()[f"without_{name}"]()
    for one in chosen("HARNESS_TEST_FAULTS", who):
        inject(one)
