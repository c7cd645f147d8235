"""Injects every fault at every stage in real processes of runs; the same command must then finish the grid.

A cell is a fault at a point, see `harness.system.hooks`, and can run alone:

    python -m pytest "tests/reliability/test_matrix.py::test_cell[epoch:kill]"

The selected cells share their drivers; each has its own seed. The runs of the first driver have faults. Then a record
is damaged, and a second driver continues without faults. Further drivers run the resumed cells without faults, and
continue from a copy of the broken results with protections disabled, where the checks must fail.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.records import store
from harness.records.schema import Record
from tests.support.faults import EPOCHS, NONE, Seeds, by_seed, command, drive, leftovers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("quick_runs")]


@dataclass(frozen=True)
class Cell:
    """A fault, its status in the record, and the epoch after which the second attempt resumes."""

    fault: str
    status: str
    stage: str | None
    message: str
    resumed: int

    @property
    def name(self) -> str:
        """The fault without the epoch in which it happens, the third."""
        return self.fault.replace("/3", "")

    @property
    def seed(self) -> int:
        return CELLS.index(self)


CELLS = [
    Cell("data:raises", "failed", "data", "injected | fault", 0),
    Cell("build:raises", "failed", "build", "injected | fault", 0),
    Cell("train:raises", "failed", "train", "injected | fault", 0),
    Cell("evaluate:raises", "failed", "evaluate", "injected | fault", EPOCHS),
    Cell("measure:raises", "failed", "measure", "injected | fault", EPOCHS),
    Cell("checkpoint/3:raises", "failed", "train", "injected | fault", 2),
    Cell("record:raises", "failed", None, "without a record (exit code 1)", EPOCHS),
    Cell("start:kill", "failed", None, "SIGKILL", 0),
    Cell("data:kill", "failed", None, "SIGKILL", 0),
    Cell("build:kill", "failed", None, "SIGKILL", 0),
    Cell("epoch/3:kill", "failed", None, "SIGKILL", 2),
    Cell("checkpoint/3:kill", "failed", None, "SIGKILL", 2),
    Cell("evaluate:kill", "failed", None, "SIGKILL", EPOCHS),
    Cell("measure:kill", "failed", None, "SIGKILL", EPOCHS),
    Cell("write:kill", "failed", None, "SIGKILL", EPOCHS),
    Cell("epoch/3:truncate_newest", "failed", None, "SIGKILL", 1),
    Cell("save/3:file_limit", "failed", "checkpoint", "File too large", 2),
    Cell("write:file_limit", "failed", "record", "File too large", EPOCHS),
    Cell("data:file_limit", "failed", "checkpoint", "File too large", 0),
    Cell("build:host_memory", "oom", "build", "memory", 0),
    Cell("train:host_memory", "oom", "train", "memory", 0),
    Cell("epoch/3:gpu_memory", "oom", "train", "CUDA out of memory", 2),
    Cell("evaluate:gpu_memory", "oom", "evaluate", "CUDA out of memory", EPOCHS),
    Cell("measure:gpu_memory", "oom", "measure", "CUDA out of memory", EPOCHS),
    Cell("clock", "ok", None, "", 0),
]
WITHOUT = {"epoch:truncate_newest": "fallback", "epoch:kill": "optimizer", "checkpoint:kill": "cleaning"}
"""Protections that an additional driver disables, by cell."""
DAMAGED = "evaluate:raises"
"""The cell whose record is cut off between the first and the second driver."""


def cells(*names: str) -> pytest.MarkDecorator:
    """Parametrises a test with all cells, or with the given ones."""
    some = [cell for cell in CELLS if not names or cell.name in names]
    return pytest.mark.parametrize("cell", some, ids=lambda cell: cell.name)


@dataclass
class Grid:
    """A folder and the last driver that worked in it."""

    folder: Path
    records: dict[int, Record]
    code: int
    told: str

    def file(self, cell: Cell, name: str) -> Path:
        return store.folder_of(self.folder / "results", self.records[cell.seed]) / name


Run = Callable[..., Grid]


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[Cell]:
    """The cells of the tests that were selected; all of them if none is named."""
    here = [item for item in request.session.items if item.path == request.path]
    names = [getattr(item, "callspec", None) for item in here]
    return [cell for cell in CELLS if any(one and one.params.get("cell") == cell for one in names)] or CELLS


@pytest.fixture(scope="module")
def run(world: Path, pixels: Path) -> Run:
    """Runs a driver for some cells in a folder."""

    def drive_grid(folder: Path, some: Sequence[Cell], faults: Seeds = NONE, without: Seeds = NONE) -> Grid:
        seeds = ",".join(str(cell.seed) for cell in some)
        done = drive(command(world, folder, pixels, "--max-concurrent", 2, "--seeds", seeds), faults, without=without)
        return Grid(folder, by_seed(folder), done.returncode, done.stdout + done.stderr)

    return drive_grid


@pytest.fixture(scope="module")
def broken(run: Run, chosen: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Every run has its fault, and the clock of the driver runs backwards."""
    faults = {"driver": "clock", **{cell.seed: cell.fault for cell in chosen}}
    return run(tmp_path_factory.mktemp("broken"), chosen, faults)


@pytest.fixture(scope="module")
def bare(broken: Grid, chosen: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the results of the runs that continue without their protections."""
    folder = tmp_path_factory.mktemp("bare")
    for cell in chosen:
        if cell.name in WITHOUT:
            left = broken.file(cell, "")
            shutil.copytree(left, folder / left.relative_to(broken.folder))
    return folder


@pytest.fixture(scope="module")
def mended(broken: Grid, bare: Path, run: Run, chosen: list[Cell]) -> Grid:
    """The same command again, without faults, after a record was damaged."""
    for cell in chosen:
        if cell.name == DAMAGED:
            damaged = broken.file(cell, store.RECORD)
            damaged.write_bytes(damaged.read_bytes()[:100])
    return run(broken.folder, chosen)


@pytest.fixture(scope="module")
def straight(run: Run, chosen: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """The runs that were resumed during training, without faults."""
    return run(tmp_path_factory.mktemp("straight"), [cell for cell in chosen if 0 < cell.resumed < EPOCHS])


@pytest.fixture(scope="module")
def unprotected(bare: Path, mended: Grid, run: Run, chosen: list[Cell]) -> Grid:
    """Like `mended`, without the protections."""
    some = [cell for cell in chosen if cell.name in WITHOUT]
    return run(bare, some, without={cell.seed: WITHOUT[cell.name] for cell in some})


@cells()
def test_cell(cell: Cell, broken: Grid, mended: Grid, request: pytest.FixtureRequest) -> None:
    record = broken.records[cell.seed]
    assert (record["status"], record["stage"]) == (cell.status, cell.stage), record["error"]
    assert cell.message in (record["error"] or {"message": ""})["message"]
    assert record["spec"] == mended.records[cell.seed]["spec"], "the batch size and all else stay as planned"
    if cell.status == "ok":
        assert mended.records[cell.seed] == record, "a finished run is not repeated"
        return
    assert_mended(mended, cell)
    if 0 < cell.resumed < EPOCHS:
        assert_equal_to_straight(mended, request.getfixturevalue("straight"), cell)


def assert_mended(grid: Grid, cell: Cell) -> None:
    record = grid.records[cell.seed]
    assert record["status"] == "ok", record["error"]
    assert record["attempts"] == 2 and record["efficiency"]["resumed_at_epoch"] == cell.resumed


def assert_equal_to_straight(resumed: Grid, straight: Grid, cell: Cell) -> None:
    """Resumed runs equal uninterrupted runs in every bit."""
    one, other = (torch.load(grid.file(cell, "checkpoint.pt"), weights_only=True) for grid in (resumed, straight))
    for part in ("module", "optimizer"):
        assert_equal(one[part], other[part])
    assert resumed.records[cell.seed]["evaluations"] == straight.records[cell.seed]["evaluations"]


def test_exit_codes(broken: Grid, mended: Grid, chosen: list[Cell]) -> None:
    assert broken.code == any(cell.status != "ok" for cell in chosen), broken.told
    assert mended.code == 0, mended.told


@cells(DAMAGED)
def test_damaged_record_is_named_and_run_again(cell: Cell, broken: Grid, mended: Grid) -> None:
    lines = [line for line in mended.told.splitlines() if "damaged or truncated. Repeat the run" in line]
    assert broken.records[cell.seed]["run_id"][:12] in "".join(lines)
    assert_mended(mended, cell)


def test_nothing_is_left_behind(mended: Grid) -> None:
    assert_nothing_left(mended)


def assert_nothing_left(grid: Grid) -> None:
    assert leftovers(grid.folder) == []


def test_mended_report_has_no_failure(mended: Grid) -> None:
    page = (mended.folder / "BENCHMARKS.md").read_text()
    assert "injected" not in page and "SIGKILL" not in page


CHECKS: dict[str, Callable[[Grid, Grid, Cell], None]] = {
    "fallback": lambda grid, straight, cell: assert_mended(grid, cell),
    "optimizer": assert_equal_to_straight,
    "cleaning": lambda grid, straight, cell: assert_nothing_left(grid),
}
"""The checks of the tests above, by the protection without which they must fail."""


@cells(*WITHOUT)
def test_unprotected_cell_fails_its_check(cell: Cell, unprotected: Grid, straight: Grid) -> None:
    assert unprotected.records[cell.seed]["status"] == "ok", unprotected.told
    with pytest.raises(AssertionError):
        CHECKS[WITHOUT[cell.name]](unprotected, straight, cell)


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
