"""The driver's side of a run's process, with real small processes that behave badly."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.execution import process
from harness.records import store
from harness.spec.job import Job, run_folder
from tests.support.record_samples import ok, spec

Start = Callable[[str], Job]
HEAD = """
import json, os, signal, subprocess, sys, time
folder = sys.argv[-1]
def say(event, **values):
    os.write(1, (json.dumps({"event": event, **values}) + "\\n").encode())
"""


@pytest.fixture
def job_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A job whose process is the given script: it gets the same words, pipes and environment as a run."""

    def make(script: str) -> Job:
        path = tmp_path / "interpreter"
        path.write_text(f"#!{sys.executable} -S\n{HEAD}{script}")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return Job(spec=spec(), folder=str(run_folder(tmp_path / "results", spec())))

    return make


def carry_out(job: Job, **more: Any) -> tuple[str, list[dict[str, Any]], float]:
    events: list[dict[str, Any]] = []
    began = time.monotonic()
    status = process.run(job, events.append, **more)
    return status, events, time.monotonic() - began


def message(job: Job) -> str:
    error = store.read(Path(job.folder))["error"]
    return error["message"] if error else ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_events_come_through_whatever_else_is_printed(job_of: Start) -> None:
    job = job_of(
        """
for line in (b"\\xff\\xfe\\n", b"[" * 100_000 + b"\\n", b"{}\\n", b'{"event": 5}\\n', b'{"event": "epoch"}\\n',
             b'{"event": "end", "status": "fine"}\\n', b"null\\n", b"x" * 3_000_000 + b"\\n", b'{"event": "stage'):
    os.write(1, line)
    os.write(1, b"\\n")
    say("epoch", metrics={"loss": 1.0})
say("end", status="ok")
os.write(1, b"no line end")
"""
    )
    status, events, _ = carry_out(job)
    assert status == "ok"
    assert [event["event"] for event in events] == ["epoch"] * 9 + ["end"]


def test_what_is_printed_beside_events_is_in_the_log(job_of: Start) -> None:
    job = job_of("os.write(2, b'a warning'); say('end', status='ok')")
    assert carry_out(job)[0] == "ok"
    assert (Path(job.folder) / "log.txt").read_text() == "a warning"


def test_a_run_that_closes_its_output_and_lives_on_is_waited_for(job_of: Start) -> None:
    job = job_of("os.close(1); time.sleep(1); open(folder + '/done', 'w').close(); os._exit(7)")
    status, _, _ = carry_out(job)
    assert status == "failed" and "exit code 7" in message(job)
    assert (Path(job.folder) / "done").exists()


@pytest.mark.parametrize("way", ["timeout", "stop"])
def test_run_that_closes_its_output_is_ended(job_of: Start, way: str) -> None:
    job = job_of("say('stage', stage='train'); os.close(1); time.sleep(600)")
    stop = threading.Event()
    if way == "stop":
        stop.set()
    status, _, seconds = carry_out(job, stop=stop, timeout=1.0 if way == "timeout" else None)
    assert status == {"timeout": "timeout", "stop": "interrupted"}[way] and seconds < 15


def test_a_helper_that_holds_the_output_open_holds_nobody_up(job_of: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DRAIN_SECONDS", 0.5)
    job = job_of(
        """
helper = subprocess.Popen(["sleep", "600"])
say("stage", stage=str(helper.pid))
say("end", status="ok")
"""
    )
    status, events, seconds = carry_out(job)
    assert status == "ok" and seconds < 15
    assert gone(int(events[0]["stage"])), "helpers of the group end with the run"


def test_a_helper_in_a_session_of_its_own_holds_nobody_up(job_of: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DRAIN_SECONDS", 0.5)
    job = job_of(
        """
helper = subprocess.Popen(["sleep", "600"], start_new_session=True)
say("stage", stage=str(helper.pid))
os._exit(3)
"""
    )
    status, events, seconds = carry_out(job)
    os.kill(int(events[0]["stage"]), signal.SIGKILL)
    assert status == "failed" and seconds < 15 and "exit code 3" in message(job)


def test_a_run_that_ignores_sigterm_is_killed_after_the_grace(job_of: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 1.0)
    job = job_of("signal.signal(signal.SIGTERM, signal.SIG_IGN); say('stage', stage=str(os.getpid())); time.sleep(600)")
    stop, events = threading.Event(), []

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        stop.set()

    began = time.monotonic()
    assert process.run(job, hear, stop=stop) == "interrupted"
    assert 1.0 <= time.monotonic() - began < 15
    assert gone(int(events[0]["stage"])) and message(job) == "Stopped on request."


def test_run_that_hangs_at_its_end_is_ended_and_counts(job_of: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    status, _, seconds = carry_out(job_of("say('end', status='ok'); time.sleep(600)"))
    assert status == "ok" and seconds < 15


@pytest.mark.parametrize(
    ("ending", "kills", "status", "words"),
    [
        ("os.kill(os.getpid(), 9)", (3, 4), "oom", "lack of memory"),
        ("os.kill(os.getpid(), 9)", (3, 3), "failed", "SIGKILL"),
        ("os._exit(1)", (3, 4), "failed", "exit code 1"),
    ],
    ids=["killed for memory", "killed by somebody", "another process was killed for memory"],
)
def test_the_kernels_count_of_kills_tells_want_of_memory(
    job_of: Start, monkeypatch: pytest.MonkeyPatch, ending: str, kills: tuple[int, int], status: str, words: str
) -> None:
    job, looks = job_of(ending), iter(kills)
    monkeypatch.setattr(process, "_oom_kills", lambda: next(looks))
    assert carry_out(job)[0] == status == store.read(Path(job.folder))["status"]
    assert words in message(job)


def test_what_cannot_be_started_is_a_warning_and_a_record(
    job_of: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = job_of("")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    status, events, _ = carry_out(job)
    assert status == "failed" and "No such file" in message(job)
    assert [event["event"] for event in events] == ["warning"]


def test_a_folder_that_cannot_be_made_ends_this_run_alone(job_of: Start, tmp_path: Path) -> None:
    job = job_of("")
    (tmp_path / "results").write_text("a file")
    status, events, _ = carry_out(job)
    assert status == "failed" and "Cannot start the run" in events[0]["text"]


def test_written_record_holds_whatever_follows(job_of: Start) -> None:
    job = job_of("os.kill(os.getpid(), 11)")
    store.write(Path(job.folder), ok(spec()))
    assert carry_out(job)[0] == "ok"
