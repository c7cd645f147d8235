"""Runs that two processes train together, from the command line: their score, a resumed one, and a lost process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.store import plain
from harness.spec.job import Job
from harness.system.paths import REPOSITORY
from tests.conftest import PIXELS_CARD, PIXELS_MODEL
from tests.support.record_samples import spec
from tests.support.runs import arguments, only_record, running

HANGING = """
import json, subprocess, sys, time
from pathlib import Path
from harness.spec.job import Job
from harness.worker import peers
from harness.worker.events import Progress

peers.REACTION_SECONDS = 0.5
peers._start = lambda *_: subprocess.Popen(["false"], stdout=subprocess.PIPE, text=True)
job = Job.from_dict(json.loads(sys.argv[1]))
others = peers._Peers(job, Path(), Path(), Progress(sys.stdout))
time.sleep(60)
"""

Cli = Callable[..., tuple[int, str, str]]

FIRST_FAULT = '        if self.fault == "nan":'
SECOND = """
        if self.fault in ("lost", "wrong") and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            if self.fault == "lost":
                os.kill(os.getpid(), 9)
            raise torch.OutOfMemoryError("CUDA out of memory (faked)")
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone `pixels`, whose second process fails on request."""
    folder = tmp_path_factory.mktemp("plugins") / "pixels"
    folder.mkdir()
    (folder / "card.toml").write_text(PIXELS_CARD)
    (folder / "model.py").write_text(
        PIXELS_MODEL.replace('        if self.fault == "nan":', SECOND + '        if self.fault == "nan":')
    )
    return folder.parent


@pytest.fixture
def train(world: Path, tmp_path: Path, plugins: Path, cli: Cli, quick_runs: None) -> Callable[..., dict[str, Any]]:
    def call(*more: object, name: str = "run") -> dict[str, Any]:
        folder = tmp_path / name
        code, out, err = cli(
            *arguments(world, folder, "--plugins", plugins, *more, backbones="pixels", scheduler="local")
        )
        assert (folder / "results").is_dir() and code in (0, 1), out + err
        assert not running(folder), "no process is left"
        return dict(only_record(folder))

    return call


def test_two_processes_give_the_record_of_one(train: Callable[..., dict[str, Any]]) -> None:
    one, two = train(name="one"), train("--gpus-per-run", 2, name="two")
    assert (one["status"], two["status"]) == ("ok", "ok"), two["error"]
    assert one["run_id"] == two["run_id"], "the number of processes is no part of a run"
    assert two["efficiency"]["train_processes"] == 2 and one["efficiency"]["train_processes"] == 1
    assert plain(two)["mAP"] == pytest.approx(plain(one)["mAP"], abs=1e-4)  # type: ignore[index,arg-type]


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("lost", "failed", "Process 2 of 2 of the run was lost: it ended with signal SIGKILL"),
        ("wrong", "oom", "out of memory"),
    ],
)
def test_a_lost_process_ends_the_run(train: Callable[..., dict[str, Any]], fault: str, status: str, words: str) -> None:
    record = train("--gpus-per-run", 2, "--option", f"pixels.fault={fault}")
    assert record["status"] == status and record["stage"] == "train"
    assert words in record["error"]["message"]


@pytest.mark.slow
def test_a_first_process_that_hangs_is_ended() -> None:
    job = json.dumps(Job(spec=spec(), folder="", processes=2).to_dict())
    command = [sys.executable, "-c", HANGING, job]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=50)
    event = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 1 and (event["event"], event["status"]) == ("end", "failed")
    assert event["error"] == "Process 2 of 2 of the run was lost: it ended with exit code 1."
