"""Faults outside the run: two drivers, repeated Ctrl-C, a hang with child processes, power failures, full disks.

If a protection can be disabled, a second test disables it and shows that the check of the first test then fails.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from harness.records import store
from tests.support.faults import (
    EPOCHS,
    NONE,
    Seeds,
    alive,
    by_seed,
    command,
    drive,
    leftovers,
    processes,
    start,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("quick_runs")]


def run_two_drivers(words: list[str], faults: Seeds = NONE, without: Seeds = NONE) -> None:
    drivers = [start(words, faults, without=without) for _ in range(2)]
    told = [driver.communicate(timeout=600)[0] for driver in drivers]
    # Without a protection they may also trip over each other's files.
    assert without or [driver.returncode for driver in drivers] == [0, 0], told


def assert_done_once(folder: Path) -> None:
    for record in by_seed(folder).values():
        assert (record["status"], record["attempts"]) == ("ok", 1)
        epochs = (store.folder_of(folder / "results", record) / "metrics.jsonl").read_text().splitlines()
        assert len(epochs) == record["efficiency"]["epochs"]
    assert leftovers(folder) == []


def test_two_drivers_on_one_results_folder_do_each_run_once(world: Path, pixels: Path, tmp_path: Path) -> None:
    run_two_drivers(command(world, tmp_path, pixels, "--seeds", "0,1"))
    assert_done_once(tmp_path)


def test_without_the_lock_two_drivers_do_a_run_twice(world: Path, pixels: Path, tmp_path: Path) -> None:
    run_two_drivers(command(world, tmp_path, pixels), {0: "epoch/1:meet"}, {0: "lock"})
    with pytest.raises(AssertionError):
        assert_done_once(tmp_path)


def test_ctrl_c_twice_ends_at_once_and_leaves_no_process(world: Path, pixels: Path, tmp_path: Path) -> None:
    driver = start(command(world, tmp_path, pixels), {0: "epoch/3:wait"})
    wait_for(lambda: list(tmp_path.rglob("waiting.*.txt")), 240)
    driver.send_signal(signal.SIGINT)
    time.sleep(1)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=60)
    wait_for(lambda: not processes("run-one", str(tmp_path)), 60)
    done = drive(command(world, tmp_path, pixels))
    assert done.returncode == 0, done.stdout + done.stderr
    assert by_seed(tmp_path)[0]["efficiency"]["resumed_at_epoch"] == 2


def hang(words: list[str], folder: Path, without: Seeds = NONE) -> int:
    """Runs into the limit; returns the process id of the helper that hung as well."""
    done = drive([*words, "--timeout", "5s"], {0: "start:hang"}, without=without)
    assert done.returncode == 1 and by_seed(folder)[0]["status"] == "timeout", done.stdout + done.stderr
    (note,) = folder.rglob("helper.txt")
    return int(note.read_text())


def assert_gone(pid: int) -> None:
    assert not alive(pid)


def test_a_hang_is_ended_with_its_helpers(world: Path, pixels: Path, tmp_path: Path) -> None:
    assert_gone(hang(command(world, tmp_path, pixels), tmp_path))


def test_without_the_process_group_a_helper_outlives_the_hang(world: Path, pixels: Path, tmp_path: Path) -> None:
    helper = hang(command(world, tmp_path, pixels), tmp_path, {"driver": "group"})
    try:
        with pytest.raises(AssertionError):
            assert_gone(helper)
    finally:
        os.kill(helper, signal.SIGKILL)


def test_tracker_and_report_may_break_and_what_was_trained_stays(world: Path, pixels: Path, tmp_path: Path) -> None:
    """Six drivers: one whose run hangs, four that fail or are killed at their end, and one without faults."""
    words = command(world, tmp_path, pixels, "--mlflow-uri", f"sqlite:///{tmp_path}/mlflow.db")
    page = tmp_path / "BENCHMARKS.md"
    hung = drive([*words, "--timeout", "30s"], {0: "evaluate:hang", "driver": "track:raises"})
    assert hung.returncode == 1 and "injected" in hung.stdout and "status --sync" in hung.stdout, hung.stdout
    assert by_seed(tmp_path)[0]["status"] == "timeout" and "timeout" in page.read_text()
    former = page.read_bytes()

    killed = drive(words, {"driver": "track:kill"})
    record = by_seed(tmp_path)[0]
    assert killed.returncode == -signal.SIGKILL and "Report" not in killed.stdout, killed.stdout
    assert record["status"] == "ok" and record["efficiency"]["resumed_at_epoch"] == EPOCHS, record["error"]
    broken = drive(words, {"driver": "report:raises"})
    assert broken.returncode == 1 and "injected" in broken.stderr, broken.stderr
    killed = drive(words, {"driver": "report:kill"})
    assert killed.returncode == -signal.SIGKILL and "1 cached" in killed.stdout, killed.stdout
    full = drive(words, {"driver": "report:file_limit"})
    assert full.returncode == 2 and "Cannot write the report" in full.stderr and "Traceback" not in full.stderr, (
        full.stderr
    )
    assert page.read_bytes() == former and leftovers(tmp_path) == []

    well = drive(words)
    assert well.returncode == 0 and "1 cached" in well.stdout, well.stdout + well.stderr
    assert by_seed(tmp_path)[0] == record and page.read_bytes() != former and "timeout" not in page.read_text()


def cut_power(words: list[str], kind: str = "kill_driver") -> None:
    """A first attempt leaves a record; the second one and its driver end while its own is being written."""
    assert drive(words, {0: "start:kill"}).returncode == 1
    assert drive(words, {0: f"write/record.json:{kind}"}).returncode == -signal.SIGKILL


def assert_first_record_stands(folder: Path) -> None:
    record = by_seed(folder)[0]
    assert (record["status"], record["attempts"]) == ("failed", 1)


def test_power_cut_in_a_record_leaves_the_one_before(world: Path, pixels: Path, tmp_path: Path) -> None:
    cut_power(command(world, tmp_path, pixels))
    assert_first_record_stands(tmp_path)


def test_without_the_rename_a_power_cut_destroys_the_record(world: Path, pixels: Path, tmp_path: Path) -> None:
    cut_power(command(world, tmp_path, pixels), "tear")
    with pytest.raises(AssertionError, match="damaged"):
        assert_first_record_stands(tmp_path)


def test_full_disk_is_said_in_one_sentence(world: Path, pixels: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    done = drive(command(world, tmp_path, pixels), before=full)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "File too large" in done.stderr and leftovers(tmp_path) == []
