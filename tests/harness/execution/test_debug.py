"""`--debug`: runs in the process of the command."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.execution.debug_executor import run_here
from harness.execution.options import Execution, Resources
from harness.execution.sources import JobList
from harness.records import store
from harness.spec.job import Job, LocalPaths
from harness.system.paths import REPOSITORY
from tests.support.record_samples import spec
from tests.support.runs import arguments, only_record

Cli = Callable[..., tuple[int, str, str]]
OF_THE_PROCESS = ("inference_images_per_second", "train_images_per_second", "peak_memory_bytes", "conditions")


@pytest.mark.usefixtures("quick_runs")
def test_it_scores_as_in_a_process_of_its_own(cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    for scheduler in ("", "local"):
        words = arguments(world, tmp_path / scheduler, backbones="pixels", scheduler=scheduler)
        assert cli(*words, "--plugins", plugin_folder, "--cpus-per-run", 1)[0] == 0
    here, there = only_record(tmp_path), only_record(tmp_path / "local")
    assert here["run_id"] == there["run_id"] and here["evaluations"] == there["evaluations"]
    assert here["efficiency"]["parameters"] == there["efficiency"]["parameters"]
    assert [here["efficiency"][key] for key in OF_THE_PROCESS] == [None] * 4  # type: ignore[literal-required]
    assert all(there["efficiency"][key] for key in OF_THE_PROCESS)  # type: ignore[literal-required]


def test_a_breakpoint_stops_in_the_model(world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    model = plugin_folder / "pixels" / "model.py"
    text = model.read_text()
    model.write_text(
        text.replace("        if not self.training:\n", "        breakpoint()\n        if not self.training:\n", 1)
    )
    words = arguments(world, tmp_path, "--plugins", plugin_folder, backbones="pixels")
    command = [sys.executable, "-m", "harness", *words]
    typed = "p 'width', features.shape[1]\nq\n"
    done = subprocess.run(command, input=typed, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert "(Pdb) ('width', 24)" in done.stdout, done.stdout + done.stderr


def test_a_failing_run_has_a_record_and_the_next_one_starts(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    more = ["--plugins", plugin_folder, "--option", "pixels.fault=raise"]
    code, out, err = cli(*arguments(world, tmp_path, *more, backbones="pixels,dummy"))
    found = {record["spec"]["backbone"]: record for record in store.records(tmp_path / "results")}
    assert code == 1 and found["dummy"]["status"] == "ok", out + err
    error = found["pixels"]["error"]
    assert error and "breaks | on purpose" in error["message"] and "in forward" in error["log_tail"]
    assert "Traceback" in err, "where the user debugs it"


def test_it_stops_at_the_next_event_with_a_record(world: Path, tmp_path: Path) -> None:
    class Stopping(JobList):
        def event(self, job: Job, event: dict[str, Any]) -> bool:
            told.append(event)
            return event["event"] == "stage" and event["stage"] == "data"

    told: list[dict[str, Any]] = []
    job = Job(spec(), str(tmp_path / "run"), LocalPaths(str(world)))
    run_here(Stopping([job]), Resources(), threading.Event())
    assert told[-1] == {"event": "finished", "status": "interrupted"}
    assert store.read(tmp_path / "run")["status"] == "interrupted"


def test_a_time_limit_needs_a_process() -> None:
    with pytest.raises(UsageError, match="Leave out --timeout or --debug"):
        Execution.of({"debug": True, "timeout": "3s"})
