"""Entry point of one run: executes its job and writes a record, whatever happens.

`python -m harness run-one FOLDER` reads FOLDER/job.json and prints events as JSON lines on standard output. It works
the same with and without Ray, so a run on a cluster can be debugged locally.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError, RecordError
from harness.records import epochs, store
from harness.records.schema import Record, matched
from harness.records.skeleton import base_record
from harness.spec.job import Job
from harness.system import files, hooks
from harness.system.redact import mask, readable
from harness.worker.events import Interrupted, Progress, status_of

OF_THE_PROCESS = {"inference_images_per_second", "train_images_per_second", "peak_memory_bytes", "conditions"}
"""Keys of `efficiency` that describe the process of a run as much as the run."""

FORCED = ".forced"
"""File with the number of the attempt for which `--force` removed the old files."""


def main(folder: Path) -> int:
    """Runs the job of a folder; returns the exit code, 0 only for status `ok`."""
    _die_with_parent()
    hooks.reached("start")
    progress = Progress(_private_stdout())
    try:
        job = Job.read(folder / "job.json")
    except RecordError as error:
        progress.emit("end", status="failed", error=str(error))
        return 1
    try:
        with _stop_on_signals(progress), _only_one(folder, progress):
            return _run(job, folder, progress)
    except Interrupted:
        return 130


def follow(folder: Path, rank: int, store: Path) -> int:
    """Trains as one of several processes of a run, see `harness.worker.peers`; prints an event only if it fails."""
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the first process stops and ends the others
    progress, out = Progress(_nowhere()), Progress(_private_stdout())
    try:
        from harness.worker.pipelines import PIPELINES
        from harness.worker.training_runs import TrainingRun

        job = Job.read(folder / "job.json")
        run = PIPELINES[job.spec.purpose](job, folder, progress)
        assert isinstance(run, TrainingRun), job.spec.purpose
        run.follow(rank, store)
    except Exception as problem:
        out.emit("end", status=status_of(problem), error=_described(problem)[0])
        return 1
    return 0


def execute_here(job: Job, progress: Progress) -> None:
    """Runs a job in a process that does other things, too: the record has no speed and memory. Ends with an event."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "job.json", job.to_dict())
    with _only_one(folder, progress):
        _run(job, folder, progress, measured=False)


def _run(job: Job, folder: Path, progress: Progress, *, measured: bool = True) -> int:
    """Executes the job while holding the lock of its folder; returns the exit code."""
    known = _existing_record(folder)
    if known is not None and known["status"] == "ok" and (not job.force or known.get("attempts") == job.attempt):
        progress.emit("end", status="ok", cached=True)
        return 0
    _clear(folder, job)
    record, tables = _attempt(job, folder, progress)
    if not measured:
        record["efficiency"] |= dict.fromkeys(record["efficiency"].keys() & OF_THE_PROCESS)  # type: ignore[typeddict-item]
    try:
        store.write(folder, record, tables)
    except RecordError as error:  # the driver then writes a record without results
        _log(str(error))
        reason, stage = (record["error"]["message"], record["stage"]) if record["error"] else (str(error), "record")
        progress.emit("end", status=record["status"] if record["error"] else "failed", error=reason, stage=stage)
        return 1
    row = store.plain(record)
    scores = {k: row[k] for k in ("mAP", "rank-1")} if row else {}
    progress.emit("end", status=record["status"], scores=scores, matched=matched(row or {}))
    return 0 if record["status"] == "ok" else 1


def _attempt(job: Job, folder: Path, progress: Progress) -> tuple[Record, dict[str, Any]]:
    """Runs the job; returns a record of its success or failure, and the per-query tables."""
    pipeline, status, error, stage = None, "ok", None, None
    try:
        from harness.worker.pipelines import PIPELINES  # imported here, so that a failing import ends in a record

        pipeline = PIPELINES[job.spec.purpose](job, folder, progress)
        pipeline.run()
    except Interrupted:
        status, error = "interrupted", {"type": "Interrupted", "message": "Stopped on request.", "log_tail": ""}
    except Exception as problem:
        status, (text, tail) = status_of(problem), _described(problem)
        stage = getattr(problem, "stage", None)
        error = {"type": type(problem).__name__, "message": text, "log_tail": tail}
    record = base_record(job, status, stage or progress.stage, error)
    record["timing"] = progress.timing()
    if pipeline is None:
        return record, {}
    record.update(pipeline.blocks)  # type: ignore[typeddict-item]
    return record, pipeline.tables if status == "ok" else {}


def _described(problem: Exception) -> tuple[str, str]:
    """Returns the message of an error, and the traceback of one that is not about the user's input; logs it."""
    text = str(problem) if isinstance(problem, HarnessError) else f"{type(problem).__name__}: {problem}"
    tail = "" if isinstance(problem, HarnessError) else traceback.format_exc(limit=-8)
    text, tail = readable(mask(text)), readable(mask(tail))
    _log(tail or text)
    return text, tail


def _log(text: str) -> None:
    """Writes to the log of the run; ignores a full disk, so that the record is still written."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _existing_record(folder: Path) -> Record | None:
    """Reads the existing record; a damaged one counts as missing and is overwritten."""
    with contextlib.suppress(HarnessError):
        return store.read(folder)
    return None


def _clear(folder: Path, job: Job) -> None:
    """Removes temporary files of a killed process; with `--force` also the checkpoints it would resume from.

    Checkpoints are removed once per attempt only: if Ray restarts a lost run, it resumes from its own checkpoint.
    """
    note = folder / FORCED
    everything = job.force and not (note.is_file() and note.read_text(encoding="utf-8") == str(job.attempt))
    stale = [*folder.glob("*.tmp"), *(folder.glob("checkpoint*.pt") if everything else ())]
    if everything or not any(folder.glob("checkpoint*.pt")):
        stale.append(folder / epochs.FILE)
    for path in stale:
        path.unlink(missing_ok=True)
    if everything:
        files.replace(note, str(job.attempt))


def _nowhere() -> IO[str]:
    return Path(os.devnull).open("w", encoding="utf-8")


def _private_stdout() -> IO[str]:
    """Reserves standard output for events; redirects all other prints to standard error, which is the log."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _die_with_parent() -> None:
    """On Linux, lets the kernel kill this process when its driver or Ray worker dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.environ.get("HARNESS_PARENT", str(os.getppid())) != str(os.getppid()):
            os._exit(1)  # the parent died before prctl took effect


@contextlib.contextmanager
def _stop_on_signals(progress: Progress) -> Iterator[None]:
    """Interrupts the run on a signal, unless it already writes its record."""

    def stop(*_: Any) -> None:
        if progress.stage != "record":
            raise Interrupted

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _only_one(folder: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock of the run; a second process waits, then usually finds the run finished."""
    waiting = functools.partial(progress.emit, "warning", text="Another process is working on this run; waiting.")
    with files.locked(folder / ".lock", on_wait=waiting):
        yield
