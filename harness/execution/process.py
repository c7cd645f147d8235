"""Runs `run-one` in its own process group: forwards events, enforces the timeout, ensures that a record exists."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records import store
from harness.records.skeleton import base_record
from harness.spec.job import Job
from harness.spec.names import STATUSES
from harness.system import files, gpu
from harness.system.paths import REPOSITORY
from harness.system.redact import mask, readable

OnEvent = Callable[[dict[str, Any]], None]
GRACE_SECONDS = 20.0
"""Seconds from the stop request, or from the last event of a run, until its process group is killed."""
DRAIN_SECONDS = 2.0
"""Seconds to read remaining output after the process has ended: a leftover helper process may keep the pipe open."""
LONGEST_LINE = 1 << 20
REQUIRED_KEYS = {"epoch": "metrics", "stage": "stage", "warning": "text"}
"""The key that each kind of event must have."""


def run(
    job: Job,
    on_event: OnEvent,
    *,
    timeout: float | None = None,
    stop: threading.Event | None = None,
    devices: str | None = None,
) -> str:
    """Runs a job until it ends and returns its status.

    Args:
        job: what to run; creates its folder and writes `job.json` into it.
        on_event: receives every event of the run as a dict.
        timeout: hard limit in seconds; then the whole process group is killed.
        stop: set by the caller to request a graceful stop.
        devices: value of `CUDA_VISIBLE_DEVICES` for the run; None keeps that of this process.
    """
    deadline = time.monotonic() + timeout if timeout else None
    ooms = _oom_kills()
    try:
        process = _start(job, devices)
    except OSError as error:  # a full or read-only disk must not end other runs
        text = f"Cannot start the run in {job.folder}: {error.strerror or error}."
        on_event({"event": "warning", "text": text})
        return leave_record(job, "failed", text)
    try:
        end, reason = _follow(process, on_event, deadline, stop)
    finally:
        _end_group(process)
    status = (end or {}).get("status")
    if reason == "timeout":
        status = leave_record(job, "timeout", f"Stopped at the time limit of {timeout:.0f} s (--timeout).")
    elif reason == "stop":
        status = leave_record(job, "interrupted", "Stopped on request.")
    elif end and status != "ok":
        status = leave_record(job, str(status), end.get("error") or "The run left no record.", end.get("stage"))
    elif status is None:
        status = _record_crash(job, process.returncode, _oom_kills() > ooms)
    return str(status)


def _start(job: Job, devices: str | None) -> subprocess.Popen[bytes]:
    """Starts the process of a run, with standard error going to the log in its folder."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "job.json", job.to_dict())
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", "run-one", str(folder)],
            cwd=REPOSITORY,
            env=_environment(job, devices),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _follow(
    process: subprocess.Popen[bytes], on_event: OnEvent, deadline: float | None, stop: threading.Event | None
) -> tuple[dict[str, Any] | None, str]:
    """Forwards events until the run ends; returns its end event and, if it was stopped, `timeout` or `stop`."""
    events = _events(process)
    end, reason, kill_at = None, "", None
    open_, heard, gone = True, 0.0, None
    while True:
        if open_:
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=0.2)
                open_, heard = event is not None, time.monotonic()
                if event and event["event"] == "end":  # the record is written; do not wait long for the exit
                    end, kill_at = event, kill_at or heard + GRACE_SECONDS
                if event:
                    on_event(event)
        else:  # the process may outlive its output
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        now = time.monotonic()
        if process.poll() is not None:
            gone = gone or now
            if not open_ or now - max(gone, heard) > DRAIN_SECONDS:
                return end, reason if end is None or (reason == "stop" and end["status"] != "ok") else ""
        if deadline and now > deadline and not reason:
            reason = "timeout"
            _signal_group(process, signal.SIGKILL)
        if stop is not None and stop.is_set() and not reason:
            reason, kill_at = "stop", now + GRACE_SECONDS
            _signal_group(process, signal.SIGTERM)
        if kill_at and now > kill_at:
            _signal_group(process, signal.SIGKILL)


def _events(process: subprocess.Popen[bytes]) -> queue.Queue[dict[str, Any] | None]:
    """Reads JSON lines in a thread; None marks the end. Ignores lines that are not events."""
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as out:
            for line in iter(lambda: out.readline(LONGEST_LINE), b""):
                with contextlib.suppress(ValueError, RecursionError):
                    if _is_event(value := json.loads(line)):
                        events.put(value)
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    return events


def _is_event(value: Any) -> bool:
    """Whether a line was written by `worker.events.Progress`; libraries may print other lines."""
    if not isinstance(value, dict) or not isinstance(kind := value.get("event"), str):
        return False
    return value.get("status") in STATUSES if kind == "end" else REQUIRED_KEYS.get(kind, "event") in value


def _environment(job: Job, devices: str | None = None) -> dict[str, str]:
    """Environment variables of the run: its threads and GPUs; no GPU is visible to a CPU run."""
    threads = str(job.threads)
    environment = {
        **gpu.ORDER,
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMBA_NUM_THREADS": threads,
        "HARNESS_PARENT": str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    if job.spec.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _record_crash(job: Job, code: int | None, oom: bool) -> str:
    """Writes the record of a run whose process ended without an end event."""
    if oom and code == -signal.SIGKILL:
        return leave_record(job, "oom", "The operating system killed the run for lack of memory.")
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return leave_record(job, "failed", f"The process of the run ended without a record ({how}).")


def _finished(job: Job) -> str | None:
    """Status of the record on disk, if this attempt wrote it or another driver finished the run in the meantime."""
    with contextlib.suppress(HarnessError):
        record = store.read(Path(job.folder) / "record.json")
        if record.get("attempts") == job.attempt or (record["status"] == "ok" and not job.force):
            return str(record["status"])
    return None


def leave_record(job: Job, status: str, message: str, stage: str | None = None) -> str:
    """Writes a record for a run that could not write its own; returns the final status.

    Keeps a record that the run wrote before it ended, and does nothing while another driver works on the run.
    """
    folder = Path(job.folder)
    with contextlib.suppress(OSError, HarnessError):  # on a full disk the driver still gets the status
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / ".lock", wait=False):
            if (known := _finished(job)) is not None:
                return known
            tail = readable(mask(_tail(folder / "log.txt")))
            error = {"type": status, "message": readable(mask(message)), "log_tail": tail}
            store.write(folder, base_record(job, status, stage, error))
    return status


def _tail(path: Path, size: int = 2000) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes()[-size:].decode(errors="replace")
    return ""


def _oom_kills() -> int:
    """How often the kernel has killed a process of this control group for lack of memory."""
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kills all remaining processes of the run, such as loader processes."""
    _signal_group(process, signal.SIGKILL)
    process.wait()
