"""Runs on this machine without Ray: which GPU each gets, and how they are waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.errors import UsageError
from harness.execution import process
from harness.execution.local_executor import run_locally
from harness.execution.options import Execution, Resources
from harness.spec.job import Job
from tests.support.executing import execute
from tests.support.record_samples import spec


def test_inline_gives_every_run_gpus_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a,7")
    assert process._environment(Job(spec=spec(device="cuda"), folder=""), "5")["CUDA_VISIBLE_DEVICES"] == "5"
    together = threading.Barrier(4)
    seen: list[str] = []

    def one(*_: Any, devices: str, **__: Any) -> str:
        seen.append(devices)
        together.wait(30)
        return "ok"

    monkeypatch.setattr(process, "run", one)
    jobs = [Job(spec=spec(seed=seed, device="cuda"), folder=str(tmp_path / str(seed))) for seed in range(8)]

    def given(gpus: float, at_once: int, count: int) -> list[str]:
        nonlocal together
        together = threading.Barrier(at_once)
        seen.clear()
        execute(run_locally, jobs[:count], Resources(gpus, 1, at_once))
        return sorted(seen)

    assert given(1, 4, 8) == sorted(["4", "5", "GPU-a", "7"] * 2)
    assert given(2, 2, 2) == ["4,5", "GPU-a,7"]
    assert given(0.5, 8, 8) == sorted(["4", "5", "GPU-a", "7"] * 2)
    for gpus, at_once in ((1, 5), (0.5, 9), (2, 3), (0.6, 5)):
        with pytest.raises(UsageError, match=f"{at_once} runs at once .* has 4 GPU"):
            given(gpus, at_once, 8)
    with pytest.raises(UsageError, match="whole number"):
        Execution.of({"gpus_per_run": 1.5})


def test_a_source_that_is_told_to_stop_waits_for_its_runs_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(threading.Event):
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return super().is_set()

        def wait(self, timeout: float | None = None) -> bool:
            self.asked += 1
            return super().wait(timeout)

    class One:
        ahead = 0
        left: ClassVar = [Job(spec=spec(), folder=str(tmp_path))]

        def next(self) -> Job | None:
            return self.left.pop() if self.left else None

        def event(self, job: Job, event: dict[str, Any]) -> bool:
            return False

    stop = Counting()

    def slow(job: Job, listen: Any, *, stop: threading.Event, **_: Any) -> str:
        outer.set()
        assert stop.wait(30)
        threading.Event().wait(0.5)  # it saves its last epoch
        return "interrupted"

    outer = stop
    monkeypatch.setattr(process, "run", slow)
    run_locally(One(), Resources(), stop)
    assert stop.asked < 100


def test_a_free_place_waits_for_a_job_that_a_running_one_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(spec=spec(seed=seed), folder=str(tmp_path / str(seed))) for seed in range(3)]
    together = threading.Barrier(2)

    class Growing:
        """One job; when it has ended, two more that run at the same time."""

        ahead = 0
        left: ClassVar = jobs[:1]

        def next(self) -> Job | None:
            return self.left.pop() if self.left else None

        def event(self, job: Job, event: dict[str, Any]) -> bool:
            if event["event"] == "finished" and job is jobs[0]:
                self.left.extend(jobs[1:])
            return False

    def one(job: Job, *_: Any, **__: Any) -> str:
        if job is not jobs[0]:
            together.wait(20)  # fails unless both run
        return "ok"

    monkeypatch.setattr(process, "run", one)
    run_locally(Growing(), Resources(0, 1, 2), threading.Event())
    assert together.n_waiting == 0 and not together.broken
