"""Disks that are really full, or read-only: small ones that only these tests see.

Two runs have a disk each, and so have the cache, the tracking database and the report. The faults fill the disk at
the moment given in their name. Then space is freed and the same command resumes.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import tracking
from harness.records import store
from harness.records.schema import Record
from harness.training import checkpoint
from tests.support.disks import Disks
from tests.support.faults import by_seed, command, drive, leftovers
from tests.support.small_datasets import picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("quick_runs")]

FULL = "No space left on device"
FAULTS = {
    0: "cache:fill_cache,save/3:fill",
    1: "cache:fill_cache,train:fill_tracking,record:fill",
}


@dataclass
class Story:
    """A grid on full disks, the files at that time, and the same grid after space was freed."""

    folder: Path
    full: subprocess.CompletedProcess[str]
    records: dict[int, Record]
    epochs: list[int]
    logs: list[str]
    database: str
    room: subprocess.CompletedProcess[str]
    unsent: list[Path]


@pytest.fixture(scope="module")
def story(world: Path, pixels: Path, tmp_path_factory: pytest.TempPathFactory, disks: Disks) -> Story:
    folder = tmp_path_factory.mktemp("full")
    uri = f"sqlite:///{folder}/tracking/mlflow.db"
    drive(command(world, folder, pixels, "--seeds", "0,1"), {0: "start:kill", 1: "start:kill"})
    places = [store.folder_of(folder / "results", record) for _, record in sorted(by_seed(folder).items())]
    for place, megabytes in ((places[0], 8), (places[1], 8), (folder / "cache", 8), (folder / "tracking", 8)):
        disks.mount(place, megabytes)
    words = command(world, folder, pixels, "--seeds", "0,1", "--max-concurrent", 2, "--mlflow-uri", uri)
    seen = disks.look(folder)
    full = drive(
        disks.inside(*words), FAULTS, without={0: "spare", 1: "spare"}, HARNESS_TEST_TRACKING=str(folder / "tracking")
    )
    records = by_seed(seen)
    seen_places = [disks.look(place) for place in places]
    run_ids = [records[seed]["run_id"] for seed in (0, 1)]
    states = [checkpoint.load(p, run_id, pytest.fail) for p, run_id in zip(seen_places, run_ids, strict=True)]
    epochs = [state["epoch"] + 1 if state else 0 for state in states]
    logs = [(place / "log.txt").read_text() for place in seen_places]
    copy = tmp_path_factory.mktemp("copy")  # sqlite resolves links, and would look for the file outside the namespace
    for path in (seen / "tracking").glob("mlflow.db*"):
        shutil.copy(path, copy)
    with sqlite3.connect(copy / "mlflow.db") as database:
        sound = database.execute("pragma integrity_check").fetchone()[0]
    for ballast in (*(place / "ballast" for place in seen_places), *seen.glob("*/ballast")):
        ballast.unlink()
    room = drive(disks.inside(*words))
    return Story(seen, full, records, epochs, logs, sound, room, tracking.unsent(seen / "results", uri))


def test_a_full_disk_is_said_in_one_sentence_each(story: Story) -> None:
    assert story.full.returncode == 1 and "Traceback" not in story.full.stdout + story.full.stderr, story.full
    (saving,) = [line for line in story.full.stdout.splitlines() if "checkpoint" in line and FULL in line]
    assert "seed 0: failed" in saving and "the previous one is kept" in saving
    (recording,) = [line for line in story.full.stdout.splitlines() if "record.json" in line and FULL in line]
    assert "seed 1: failed" in recording
    (tracked,) = [line for line in story.full.stdout.splitlines() if line.startswith("MLflow at")]
    assert FULL in tracked and "status --sync" in tracked


def test_what_was_there_before_stays_readable(story: Story) -> None:
    assert {record["status"] for record in story.records.values()} == {"failed"}
    assert [record["attempts"] for record in story.records.values()] == [1, 1]
    assert story.epochs == [2, 4], "the checkpoint before is whole"
    assert story.database == "ok"


def test_without_room_for_the_cache_images_are_read_from_files(story: Story) -> None:
    assert all("No cache of decoded images" in log for log in story.logs)
    assert any(FULL in log for log in story.logs), "one was writing it, the other one found no room"
    assert story.epochs[1] == 4, "the run trained without the cache"


def test_with_room_the_same_command_finishes(story: Story) -> None:
    assert story.room.returncode == 0, story.room.stdout + story.room.stderr
    records = by_seed(story.folder)
    assert [records[seed]["status"] for seed in (0, 1)] == ["ok", "ok"]
    assert [records[seed]["efficiency"]["resumed_at_epoch"] for seed in (0, 1)] == [2, 4]
    assert story.unsent == [] and leftovers(story.folder) == []


def test_a_full_disk_leaves_the_former_report(story: Story, disks: Disks, tmp_path: Path) -> None:
    page = tmp_path / "page" / "BENCHMARKS.md"
    page.parent.mkdir()
    page.write_text("The former page.\n")
    disks.mount(page.parent, 4)
    ballast = disks.look(page.parent / "ballast")
    results = Path(*("/", *story.folder.parts[4:]), "results")
    words = disks.inside(sys.executable, "-m", "harness", "report", "--results", results, "--out", page)
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match=FULL):
        while file.write(bytes(1 << 16)):
            pass
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and FULL in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert disks.look(page).read_text() == "The former page.\n"
    assert [path.name for path in disks.look(page.parent).rglob(".*")] == []
    ballast.unlink()
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert "pixels" in disks.look(page).read_text()


def test_read_only_results_are_refused_in_one_sentence(world: Path, pixels: Path, disks: Disks, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    disks.read_only(tmp_path / "results")
    done = drive(disks.inside(*command(world, tmp_path, pixels)))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "not writable (Read-only file system)" in done.stderr and "--results" in done.stderr


FILES = """
import sys
import torch
import harness
from harness import registry

place, images = sys.argv[1:]
module = registry.backbone("bot").build(num_classes=2, num_cameras=1, image_size=(32, 16), width="tiny")
torch.save(module.state_dict(), f"{images}/net.pt")
for work, more in ((harness.embed, {"images": images}), (harness.export, {"format": "torch"})):
    suffix = {"embed": "npz", "export": "pt2"}[work.__name__]
    try:
        work("bot", checkpoint=f"{images}/net.pt", image_size=(32, 16), out=f"{place}/x.{suffix}", **more)
    except harness.errors.UsageError as error:
        print(error)
"""


def test_files_of_a_trained_network_need_room(disks: Disks, tmp_path: Path) -> None:
    place, images = tmp_path / "disk", tmp_path / "images"
    images.mkdir()
    for number in range(40):
        picture(images / f"{number}.png", number)
    disks.mount(place, 1)
    ballast = disks.look(place / "ballast")
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match=FULL):
        while file.write(bytes(1 << 16)):
            pass
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - (1 << 16))
    done = subprocess.run(disks.inside(sys.executable, "-c", FILES, place, images), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.partition(" (")[2] for line in done.stdout.splitlines()] == [
        f"{FULL}). Free some space, or choose another path with --out."
    ] * 2
    assert [path.name for path in disks.look(place).iterdir()] == ["ballast"]
