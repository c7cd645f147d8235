"""Breaks a run from inside its real process. On PYTHONPATH of a test, Python imports this before anything else.

`HARNESS_TEST_FAULTS` is a JSON object from seed to `place:kind`, several with commas. `HARNESS_TEST_WITHOUT`, likewise
by seed or under `driver`, names a protection that is taken out. Faults may be those of the `driver`, too, at its
`start`, in its `tracking` and in its `report`. Nothing of the harness knows about it.
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

import quick_runs  # noqa: F401 - the sitecustomize of other tests, which this one hides

KINDS: dict[str, Callable[[], None]] = {}
FOLDER = Path(sys.orig_argv[-1])
"""The run's folder, in the process of a run."""


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
def kill_driver() -> None:
    """Both at once, as a power cut does: nobody is left who could mend anything."""
    os.kill(os.getppid(), signal.SIGKILL)
    kill()


@kind
def hang() -> None:
    helper = subprocess.Popen(["sleep", "600"])  # hangs as well
    (FOLDER / "helper.txt").write_text(str(helper.pid))
    time.sleep(600)


@kind
def wait() -> None:
    seed = json.loads((FOLDER / "job.json").read_text())["spec"]["seed"]
    (FOLDER / f"waiting.{seed}.txt").write_text(str(os.getpid()))
    time.sleep(600)


@kind
def wait_once() -> None:
    if not list(FOLDER.glob("waiting.*.txt")):
        wait()


@kind
def meet() -> None:
    """Waits until two processes work on the run."""
    (FOLDER / f"here.{os.getpid()}.txt").touch()
    end = time.monotonic() + 60
    while len(list(FOLDER.glob("here.*.txt"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)


@kind
def fill() -> None:
    fill_disk(FOLDER)


@kind
def fill_cache() -> None:
    fill_disk(Path(json.loads((FOLDER / "job.json").read_text())["paths"]["cache"]))


@kind
def fill_tracking() -> None:
    """Once the tracking database is there."""
    place = Path(os.environ["HARNESS_TEST_TRACKING"])
    while not (place / "mlflow.db").exists():
        time.sleep(0.1)
    fill_disk(place)


def fill_disk(place: Path) -> None:
    """Takes every byte the disk has left."""
    with (place / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass


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

    from harness.worker import events

    looks = [0]

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            looks[0] += 1
            return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=looks[0])

    events.datetime = Backwards  # type: ignore[misc,assignment]
    real = time.time
    time.time = lambda: 2 * START - real()


START = time.time()


def at_stage(stage: str, fault: Callable[[], None]) -> None:
    from harness.worker import events

    enter = events.Progress.enter

    def faulty(self: events.Progress, name: str) -> None:
        enter(self, name)
        if name == stage:
            fault()

    events.Progress.enter = faulty  # type: ignore[method-assign]


def at_begin(fault: Callable[[], None]) -> None:
    """Strikes once the run has bound itself to its parent, before anything slow is imported."""
    from harness.worker import main

    alone = main._only_one

    def faulty(*arguments: Any) -> Any:
        fault()
        return alone(*arguments)

    main._only_one = faulty


def in_epoch(fault: Callable[[], None]) -> None:
    """Strikes when the third epoch begins, so that two checkpoints are there."""
    from harness.training import trainer

    step = trainer.seed_torch

    def faulty(seed: int, *parts: Any) -> None:
        if parts == ("epoch", 2):
            fault()
        step(seed, *parts)

    trainer.seed_torch = faulty


def in_write(module: Any, number: int, fault: Callable[[], None], name: str = "") -> None:
    """Strikes while a file is written, of those with this in their name: its own name is not yet taken."""
    calls = [0]

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fsync(self, handle: int) -> None:
            if name in os.readlink(f"/proc/self/fd/{handle}"):
                calls[0] += 1
                if calls[0] == number:
                    fault()
            os.fsync(handle)

    module.os = Os()


def before_save(number: int, fault: Callable[[], None]) -> None:
    from harness.training import checkpoint

    save, calls = checkpoint.save, [0]

    def faulty(folder: Path, state: dict[str, Any]) -> None:
        calls[0] += 1
        if calls[0] == number:
            fault()
        save(folder, state)

    checkpoint.save = faulty


def in_cache(fault: Callable[[], None]) -> None:
    """Strikes when the first image is decoded for the cache, on a disk that seemed to have room."""
    from harness.data import cache

    in_order = cache.in_order

    def faulty(*arguments: Any, **more: Any) -> Any:
        for number, image in enumerate(in_order(*arguments, **more)):
            if number == 0:
                fault()
            yield image

    cache.in_order, cache.SPARE = faulty, 0


def in_driver(place: str, fault: Callable[[], None]) -> None:
    """Strikes in the driver: at once, when it tracks the end of a run, or when it writes the report."""
    if place == "start":
        return fault()
    from harness import reporting
    from harness.tracking.tracker import Tracker

    owner, name = {"report": (reporting, "write"), "tracking": (Tracker, "_finished")}[place]
    work = getattr(owner, name)

    def faulty(*arguments: Any) -> Any:
        fault()
        return work(*arguments)

    setattr(owner, name, faulty)


def truncate_newest() -> None:
    """What a power cut does where the disk lied about flushing."""
    path = FOLDER / "checkpoint.pt"
    os.truncate(path, path.stat().st_size // 2)
    kill()


def install(place: str, fault: Callable[[], None]) -> None:
    if place == "epoch":
        in_epoch(fault)
    elif place == "checkpoint":
        from harness.system import files

        in_write(files, 3, fault, "checkpoint.pt")
    elif place == "save":
        before_save(3, fault)
    elif place == "write":
        from harness.system import files

        in_write(files, 1, fault, ".csv")
    elif place == "write_record":
        from harness.system import files

        in_write(files, 1, fault, "record.json")
    elif place == "cache":
        in_cache(fault)
    elif place == "start":
        fault()
    elif place == "begin":
        at_begin(fault)
    else:
        at_stage(place, fault)


KINDS["truncate_newest"] = truncate_newest


def break_it(who: str, how: Callable[[str, Callable[[], None]], None]) -> None:
    """Installs the faults of a run or of the driver."""
    for chosen in filter(None, json.loads(os.environ.get("HARNESS_TEST_FAULTS", "{}")).get(who, "").split(",")):
        where, what = chosen.split(":")
        how(where, KINDS[what])


def spy(place: Path) -> None:
    """Replaces the whole run: it only notes when it ran, and what it was given."""
    from harness.worker import main as worker

    def main(folder: Path) -> int:
        began = time.monotonic()
        progress = worker.Progress(worker._private_stdout())
        time.sleep(float(os.environ.get("HARNESS_TEST_SPY_SECONDS", "1")))
        note = {"run": str(folder), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "node": os.getppid()}
        note |= {"raylet": parent_of(os.getppid()), "began": began, "ended": time.monotonic()}
        (place / f"{os.getpid()}.json").write_text(json.dumps(note))
        progress.emit("end", status="ok")
        return 0

    worker.main = main


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def without_rename() -> None:
    """Files are written in place."""
    from harness.system import files

    def replace(path: Path, content: str | bytes, *, flush: bool = True) -> None:
        data = content.encode() if isinstance(content, str) else content
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            files.os.fsync(file.fileno())
            file.write(data[len(data) // 2 :])

    files.replace = replace


def without_fallback() -> None:
    """A checkpoint that cannot be read is not followed by the one before."""
    from harness.training import checkpoint

    checkpoint.PREVIOUS = checkpoint.NEWEST


def without_cleaning() -> None:
    """Half-written files stay."""
    from harness.worker import main

    main._clear = lambda *_, **__: None


def without_optimizer() -> None:
    """A resumed training begins with a fresh optimizer."""
    from torch.optim import AdamW

    AdamW.load_state_dict = lambda *_: None  # type: ignore[assignment,method-assign]


def without_lock() -> None:
    """Two processes may work on one run."""
    from harness.worker import main

    main._only_one = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]


def without_group() -> None:
    """Only the run's own process is ended."""
    from harness.execution import process

    process._signal_group = lambda process, number: process.send_signal(number)  # type: ignore[assignment]


def take_out(who: str) -> None:
    if name := json.loads(os.environ.get("HARNESS_TEST_WITHOUT", "{}")).get(who):
        globals()[f"without_{name}"]()


if "harness" in sys.orig_argv and "run-one" not in sys.orig_argv:
    take_out("driver")
    break_it("driver", in_driver)
if "run-one" in sys.orig_argv:
    seed = str(json.loads((FOLDER / "job.json").read_text())["spec"]["seed"])
    take_out(seed)
    if place := os.environ.get("HARNESS_TEST_SPY"):
        spy(Path(place))
    break_it(seed, install)
