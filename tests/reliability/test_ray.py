"""Ray breaks in the middle of a grid, or is interrupted there: worker, driver, head and raylet killed, Ctrl-C.

One grid of two runs goes through all of this with several drivers, each with its own Ray; the last driver finishes it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.records.schema import Record
from tests.support.faults import alive, by_seed, command, drive, leftovers, parent_of, session, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("quick_runs")]

Driver = subprocess.Popen[str]


@dataclass
class Act:
    """How a driver ended: its exit code, what it said, seconds from the blow, what is left, and the records then."""

    code: int
    said: str
    seconds: float
    left: list[str]
    records: dict[int, Record]
    driver: int


@dataclass
class Story:
    folder: Path
    worker: Act
    driver: Act
    twice: Act
    head: Act
    raylet: Act
    orphan_seconds: float
    last: subprocess.CompletedProcess[str]
    remains: list[str]


@pytest.fixture(scope="module")
def story(world: Path, pixels: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("ray")
    words = command(world, folder, pixels, "--seeds", "0,1", "--max-concurrent", 2, scheduler="ray")
    orphan_seconds = 0.0

    def kill_worker(driver: Driver) -> None:
        """Of the first run, which is then taken over; once it is finished, Ctrl-C while the second one waits."""
        nonlocal orphan_seconds
        orphan = waiting(folder)[0]
        os.kill(parent_of(orphan), signal.SIGKILL)
        since = time.monotonic()
        wait_for(lambda: not alive(orphan), 30, "for the end of the run whose worker was killed")
        orphan_seconds = time.monotonic() - since
        wait_for(lambda: 0 in by_seed(folder), 120, "for the run to be taken over")
        press_ctrl_c(driver)

    def twice(driver: Driver) -> None:
        press_ctrl_c(driver)
        time.sleep(0.3)
        press_ctrl_c(driver)

    worker = act(words, folder, {0: "epoch/3:wait_once", 1: "epoch/3:wait"}, 2, kill_worker)
    driver = act(words, folder, {1: "start:wait"}, 1, lambda driver: driver.kill())
    return Story(
        folder,
        worker,
        driver,
        act(words, folder, {1: "start:wait"}, 1, twice),
        act(words, folder, {1: "start:wait"}, 1, lambda driver: kill(driver, "gcs_server")),
        act(words, folder, {1: "start:wait"}, 1, lambda driver: kill(driver, "raylet")),
        orphan_seconds,
        drive(words),
        left_after(driver.driver, folder, 75),
    )


def act(words: list[str], folder: Path, faults: dict[int, str], runs: int, blow: Callable[[Driver], None]) -> Act:
    """Starts a driver, injects the fault when a number of its runs wait, and returns how it ended."""
    driver = start(words, faults)
    try:
        wait_for(lambda: len(waiting(folder)) == runs or driver.poll() is not None, 120, "for the runs")
        blow(driver)
        since = time.monotonic()
        said = driver.communicate(timeout=120)[0]
        seconds = time.monotonic() - since
        left = left_after(driver.pid, folder, 15)
        return Act(driver.returncode, said, seconds, left, by_seed(folder), driver.pid)
    finally:
        driver.kill()


def left_after(driver: int, folder: Path, seconds: float) -> list[str]:
    """Returns processes and temporary files of a driver that still exist after some seconds."""
    end = time.monotonic() + seconds
    while (left := [*session(driver), *leftovers(folder)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def waiting(folder: Path) -> list[int]:
    """Processes of runs that wait for what is done to them, in order of seed."""
    notes = sorted(folder.rglob("waiting.*.txt"), key=lambda note: note.name)
    return [pid for note in notes if alive(pid := int(note.read_text() or 0))]


def press_ctrl_c(driver: Driver) -> None:
    """Like a terminal: signals every process of the group, including those of Ray."""
    os.killpg(driver.pid, signal.SIGINT)


def kill(driver: Driver, name: str) -> None:
    """A process of the driver's own Ray."""
    (pid,) = [int(line.split()[0]) for line in session(driver.pid) if line.split()[1].endswith(f"/{name}")]
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", ["worker", "twice", "head", "raylet"])
def test_no_process_is_left(story: Story, name: str) -> None:
    assert getattr(story, name).left == []


def test_killed_driver_takes_its_runs_and_ray_along(story: Story) -> None:
    assert story.driver.code == -signal.SIGKILL
    assert all("Agent" in line for line in story.driver.left), "two helpers of Ray wait a minute for their raylet"
    assert story.remains == []


@pytest.mark.parametrize("name", ["worker", "driver", "twice", "head", "raylet"])
def test_every_record_is_valid_and_what_was_finished_is_kept(story: Story, name: str) -> None:
    records = getattr(story, name).records
    assert records[0]["status"] == "ok" and records[0] == story.worker.records[0]
    assert records[1]["status"] == "interrupted"


def test_a_run_whose_worker_is_killed_ends_and_is_taken_over(story: Story) -> None:
    assert story.orphan_seconds < 10
    record = story.worker.records[0]
    assert (record["status"], record["attempts"], record["efficiency"]["resumed_at_epoch"]) == ("ok", 1, 2)
    (line,) = [line for line in story.worker.said.splitlines() if "worker was lost" in line]
    assert "seed 0" in line and "Traceback" not in story.worker.said


def test_ctrl_c_lets_runs_save_and_exits_with_130(story: Story) -> None:
    assert story.worker.code == 130, story.worker.said
    assert (
        "runs keep the checkpoint of their last epoch" in story.worker.said
        and "same command resumes" in story.worker.said
    )


def test_ctrl_c_twice_ends_at_once_with_130(story: Story) -> None:
    assert story.twice.code == 130, story.twice.said
    assert story.twice.seconds < 5 and "Stopping immediately" in story.twice.said


@pytest.mark.parametrize("name", ["head", "raylet"])
def test_a_driver_without_its_head_says_so_and_ends_with_1(story: Story, name: str) -> None:
    act = getattr(story, name)
    assert act.code == 1, act.said
    assert act.seconds < 30 and "Traceback" not in act.said
    (error,) = [line for line in act.said.splitlines() if line.startswith("Error:")]
    assert "no longer answers" in error and "same command" in error


def test_the_same_command_finishes_and_repeats_nothing(story: Story) -> None:
    assert story.last.returncode == 0, story.last.stdout + story.last.stderr
    assert "1 cached" in story.last.stdout
    records = by_seed(story.folder)
    assert records[0] == story.worker.records[0]
    assert records[1]["status"] == "ok" and records[1]["efficiency"]["resumed_at_epoch"] == 2
    assert leftovers(story.folder) == []
