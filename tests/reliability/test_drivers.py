"""Faults around the run: two drivers, an impatient user, a hang with helpers, damaged and unwritable folders."""

from __future__ import annotations

import resource
import signal
import time
from pathlib import Path

import pytest
from faults import by_seed, command, drive, leftovers, processes, start, wait_for

from harness import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_two_drivers_on_one_results_folder_do_each_run_once(world: Path, pixels: Path, tmp_path: Path) -> None:
    words = command(world, tmp_path, pixels, "--seeds", "0,1")
    drivers = [start(words), start(words)]
    told = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    for record in by_seed(tmp_path).values():
        assert (record["status"], record["attempts"]) == ("ok", 1)
        folder = store.folder_of(tmp_path / "results", record)
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == record["efficiency"]["epochs"]
    assert leftovers(tmp_path) == []


def test_ctrl_c_twice_ends_at_once_and_leaves_no_process(world: Path, pixels: Path, tmp_path: Path) -> None:
    driver = start(command(world, tmp_path, pixels), {0: "epoch:hang"})
    wait_for(lambda: list(tmp_path.rglob("checkpoint.previous.pt")), 240)
    driver.send_signal(signal.SIGINT)
    time.sleep(1)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=60)
    wait_for(lambda: not processes("run-one", str(tmp_path)), 60)
    done = drive(command(world, tmp_path, pixels))
    assert done.returncode == 0, done.stdout + done.stderr
    assert by_seed(tmp_path)[0]["efficiency"]["resumed_at_epoch"] == 2


def test_a_hang_is_ended_with_its_helpers(world: Path, pixels: Path, tmp_path: Path) -> None:
    before = set(processes("sleep 600"))
    done = drive(command(world, tmp_path, pixels, "--timeout", "40s"), {0: "data:hang"})
    assert done.returncode == 1 and by_seed(tmp_path)[0]["status"] == "timeout"
    assert set(processes("sleep 600")) <= before


def test_a_disk_without_room_for_anything_is_said_in_one_sentence(world: Path, pixels: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    done = drive(command(world, tmp_path, pixels), before=full)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "File too large" in done.stderr and leftovers(tmp_path) == []


def test_a_damaged_record_is_named_and_run_again(world: Path, pixels: Path, tmp_path: Path) -> None:
    assert drive(command(world, tmp_path, pixels)).returncode == 0
    (path,) = (tmp_path / "results").rglob("record.json")
    path.write_bytes(path.read_bytes()[:100])
    done = drive(command(world, tmp_path, pixels))
    assert done.returncode == 0, done.stdout + done.stderr
    record = by_seed(tmp_path)[0]
    assert record["status"] == "ok" and record["attempts"] == 2
