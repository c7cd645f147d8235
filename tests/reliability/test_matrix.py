"""Each fault at each stage, in the real process of a run; then the same command again must finish the grid.

One driver, whose own clock runs backwards, runs a grid whose seeds are broken differently. Then a record is damaged,
and a second driver goes on without faults. A third one runs the same grid undisturbed in another folder. A fourth one
goes on from a copy of what the first one left, with protections taken out: the checks must fail there. What is compared
is told in `docs/reliability.md`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.records import store
from harness.records.schema import Record
from tests.support.faults import EPOCHS, by_seed, command, drive, leftovers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Cell:
    """A fault, how the record tells it, and after which epoch the second attempt goes on."""

    fault: str
    status: str
    stage: str | None
    message: str
    resumed: int


CELLS = [
    Cell("data:raises", "failed", "data", "injected | fault", 0),
    Cell("build:raises", "failed", "build", "injected | fault", 0),
    Cell("train:raises", "failed", "train", "injected | fault", 0),
    Cell("evaluate:raises", "failed", "evaluate", "injected | fault", EPOCHS),
    Cell("measure:raises", "failed", "measure", "injected | fault", EPOCHS),
    Cell("checkpoint:raises", "failed", "train", "injected | fault", 2),
    Cell("record:raises", "failed", None, "without a record (exit code 1)", EPOCHS),
    Cell("start:kill", "failed", None, "SIGKILL", 0),
    Cell("data:kill", "failed", None, "SIGKILL", 0),
    Cell("build:kill", "failed", None, "SIGKILL", 0),
    Cell("epoch:kill", "failed", None, "SIGKILL", 2),
    Cell("checkpoint:kill", "failed", None, "SIGKILL", 2),
    Cell("evaluate:kill", "failed", None, "SIGKILL", EPOCHS),
    Cell("measure:kill", "failed", None, "SIGKILL", EPOCHS),
    Cell("write:kill", "failed", None, "SIGKILL", EPOCHS),
    Cell("epoch:truncate_newest", "failed", None, "SIGKILL", 1),
    Cell("save:file_limit", "failed", "checkpoint", "File too large", 2),
    Cell("write:file_limit", "failed", "record", "File too large", EPOCHS),
    Cell("data:file_limit", "failed", "checkpoint", "File too large", 0),
    Cell("build:host_memory", "oom", "build", "memory", 0),
    Cell("train:host_memory", "oom", "train", "memory", 0),
    Cell("epoch:gpu_memory", "oom", "train", "CUDA out of memory", 2),
    Cell("evaluate:gpu_memory", "oom", "evaluate", "CUDA out of memory", EPOCHS),
    Cell("measure:gpu_memory", "oom", "measure", "CUDA out of memory", EPOCHS),
    Cell("start:clock", "ok", None, "", 0),
]
DAMAGED = next(seed for seed, cell in enumerate(CELLS) if cell.fault == "evaluate:raises")
"""The run whose record is cut off between the first and the second driver."""
RESUMED = [seed for seed, cell in enumerate(CELLS) if 0 < cell.resumed < EPOCHS]
SEEDS = ",".join(map(str, range(len(CELLS))))
WITHOUT = {"epoch:truncate_newest": "fallback", "epoch:kill": "optimizer", "checkpoint:kill": "cleaning"}
"""Protections that the fourth driver goes without, by the fault they are for."""
BARE = {i: WITHOUT[c.fault] for i, c in enumerate(CELLS) if c.fault in WITHOUT}
BY_FAULT = pytest.mark.parametrize("seed", range(len(CELLS)), ids=[cell.fault for cell in CELLS])


@dataclass
class Story:
    """Folders and records by seed after the broken, the repairing, the undisturbed and the unprotected grid."""

    folder: Path
    other: Path
    bare: Path
    broken: dict[int, Record]
    mended: dict[int, Record]
    straight: dict[int, Record]
    unprotected: dict[int, Record]
    codes: tuple[int, ...]
    told: str


@pytest.fixture(scope="module")
def story(world: Path, pixels: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder, other, bare = (tmp_path_factory.mktemp(name) for name in ("broken", "straight", "bare"))
    more = ("--max-concurrent", 2, "--seeds")
    faults = {"driver": "start:clock", **{i: cell.fault for i, cell in enumerate(CELLS)}}
    first = drive(command(world, folder, pixels, *more, SEEDS), faults)
    broken = by_seed(folder)
    for seed in BARE:
        left = store.folder_of(folder / "results", broken[seed])
        shutil.copytree(left, bare / left.relative_to(folder))
    damaged = store.folder_of(folder / "results", broken[DAMAGED]) / store.RECORD
    damaged.write_bytes(damaged.read_bytes()[:100])
    runs = [
        first,
        drive(command(world, folder, pixels, *more, SEEDS)),
        drive(command(world, other, pixels, *more, ",".join(map(str, RESUMED)))),
        drive(command(world, bare, pixels, *more, ",".join(map(str, BARE))), without=BARE),
    ]
    codes = tuple(run.returncode for run in runs)
    told = "\n".join(part for run in runs for part in (run.stdout, run.stderr))
    return Story(folder, other, bare, broken, by_seed(folder), by_seed(other), by_seed(bare), codes, told)


def test_the_exit_codes_say_what_happened(story: Story) -> None:
    assert story.codes == (1, 0, 0, 0), story.told


@BY_FAULT
def test_the_fault_is_on_record(story: Story, seed: int) -> None:
    cell, record = CELLS[seed], story.broken[seed]
    assert (record["status"], record["stage"]) == (cell.status, cell.stage), record["error"]
    assert cell.message in (record["error"] or {"message": ""})["message"]
    assert record["spec"] == story.mended[seed]["spec"], "the batch size and all else stay as planned"


@BY_FAULT
def test_the_same_command_finishes_the_run_from_its_last_checkpoint(story: Story, seed: int) -> None:
    assert_mended(story, story.mended, seed)


def assert_mended(story: Story, records: dict[int, Record], seed: int) -> None:
    record = records[seed]
    assert record["status"] == "ok", record["error"]
    if CELLS[seed].status == "ok":
        assert record == story.broken[seed], "a finished run is not repeated"
    else:
        assert record["attempts"] == 2 and record["efficiency"]["resumed_at_epoch"] == CELLS[seed].resumed


@pytest.mark.parametrize("seed", RESUMED, ids=[CELLS[seed].fault for seed in RESUMED])
def test_what_was_resumed_equals_what_was_not_bit_for_bit(story: Story, seed: int) -> None:
    assert_straight(story, story.folder, story.mended[seed])


def assert_straight(story: Story, folder: Path, resumed: Record) -> None:
    straight = story.straight[resumed["spec"]["seed"]]
    for part in ("module", "optimizer"):
        assert_equal(last_checkpoint(folder, resumed)[part], last_checkpoint(story.other, straight)[part])
    assert resumed["evaluations"] == straight["evaluations"]


def test_a_damaged_record_is_named_and_run_again(story: Story) -> None:
    assert story.broken[DAMAGED]["run_id"][:12] in "".join(
        line for line in story.told.splitlines() if "damaged or truncated: run it again" in line
    )
    assert_mended(story, story.mended, DAMAGED)


def test_nothing_is_left_behind(story: Story) -> None:
    assert_nothing_left(story.folder)


def assert_nothing_left(folder: Path) -> None:
    assert leftovers(folder) == []


CHECKS: dict[str, Callable[[Story, int], None]] = {
    "fallback": lambda story, seed: assert_mended(story, story.unprotected, seed),
    "optimizer": lambda story, seed: assert_straight(story, story.bare, story.unprotected[seed]),
    "cleaning": lambda story, seed: assert_nothing_left(story.bare),
}
"""What the tests above look at, by the protection it must fail without."""


@pytest.mark.parametrize("seed", BARE, ids=BARE.values())
def test_without_its_protection_the_check_fails(story: Story, seed: int) -> None:
    assert story.unprotected[seed]["status"] == "ok", story.told
    with pytest.raises(AssertionError):
        CHECKS[BARE[seed]](story, seed)


def test_the_report_of_the_mended_grid_has_no_failure(story: Story) -> None:
    page = (story.folder / "BENCHMARKS.md").read_text()
    assert "injected" not in page and "SIGKILL" not in page


def last_checkpoint(folder: Path, record: Record) -> dict[str, Any]:
    state = torch.load(store.folder_of(folder / "results", record) / "checkpoint.pt", weights_only=True)
    assert isinstance(state, dict)
    return state


def assert_equal(a: Any, b: Any) -> None:
    """Trees of tensors that are equal in every bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
