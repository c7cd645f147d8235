"""Users as containers and shared machines have them: without a home folder, or two in one results folder."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records import store
from harness.system.paths import REPOSITORY

pytestmark = pytest.mark.usefixtures("quick_runs")
Call = Callable[..., subprocess.CompletedProcess[str]]
NOBODY = 54321
"""A number without an entry in the table of users."""

WORDS = ["run", "--preset", "smoke", "--backbones", "dummy", "--datasets", "market1501"]
GONE = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "HARNESS_CACHE", "NUMBA_CACHE_DIR")


@pytest.fixture
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """Runs the harness as a user of no name and no home, who may read everything and write nothing but one folder.

    The right to read is for the interpreter, which may lie in another user's home.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv of util-linux: sudo make test")
    place = Path("/tmp") / f"reid-harness-test-{os.getpid()}"  # folders of pytest are closed to others
    (place / "tmp").mkdir(parents=True)
    (place / "work").mkdir()
    for folder in (place / "tmp", place / "work"):
        os.chown(folder, NOBODY, NOBODY)
    rights = [f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient")]
    become = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *rights]
    become += ["--bounding-set=-all,+dac_read_search"]
    if subprocess.run([*become, sys.executable, "-c", ""], capture_output=True).returncode != 0:
        pytest.skip("needs an interpreter that another user may start: sudo make test PYTHON=/usr/bin/python3")
    environment = {name: value for name, value in os.environ.items() if name not in GONE}
    environment |= {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(place / "tmp")}

    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*become, sys.executable, "-m", "harness", *words]
        done = subprocess.run(
            command, cwd=place / "work", env={**environment, **more}, capture_output=True, text=True, timeout=280
        )
        done.place = place  # type: ignore[attr-defined]
        return done

    yield call  # type: ignore[misc]
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["inline", "ray"])
def test_a_user_without_home_and_name_runs_tracks_and_reports(nobody: Call, scheduler: str) -> None:
    listed = nobody("list", "backbones")
    assert listed.returncode == 0 and "reidmamba" in listed.stdout, listed.stderr
    done = nobody(*WORDS, "--scheduler", scheduler)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "home directory" not in done.stderr and "MLflow at" not in done.stdout
    place = done.place  # type: ignore[attr-defined]
    (record,) = store.records(place / "work" / "demo" / "smoke" / "results")
    assert record["status"] == "ok"
    if (REPOSITORY / ".git").exists():
        assert record["environment"]["git_commit"], "git refuses other users' checkouts unless asked not to"
    assert [path.name for path in (place / "work").iterdir()] == ["demo"], "no folder called ~"
    assert f"reid-harness-{NOBODY}" in {path.name for path in (place / "tmp").iterdir()}
    status = nobody("status", "--results", "demo/smoke/results", "--format", "json")
    assert len(json.loads(status.stdout)) == 1


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_no_obstacle(nobody: Call) -> None:
    done = nobody(*WORDS, "--scheduler", "inline", "--no-mlflow", HOME="/")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr


@pytest.mark.slow
def test_group_can_write_in_a_shared_results_folder(world: Path, tmp_path: Path) -> None:
    words = ["run", "--backbones", "dummy", "--datasets", "market1501", "--recipe", "smoke", "--from-scratch"]
    words += ["--data-root", str(world), "--results", str(tmp_path), "--scheduler", "inline", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=REPOSITORY, umask=0o002, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "mlflow.db").is_file() and store.paths_of(tmp_path)
    closed = [path for path in tmp_path.rglob("*") if not path.stat().st_mode & stat.S_IWGRP]
    assert closed == []
    again = subprocess.run(
        [sys.executable, "-m", "harness", *words, "--force"], cwd=REPOSITORY, umask=0o077, capture_output=True
    )
    assert again.returncode == 0
    open_ = [p for p in store.paths_of(tmp_path) if os.stat(p).st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    assert open_ == [], "and who closes files, has them closed"
