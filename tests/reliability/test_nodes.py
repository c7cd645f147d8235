"""A node with its own results folder: its results are copied to the driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.execution import result_transfer
from harness.records import store
from tests.support.disks import Disks
from tests.support.faults import by_seed, command, drive, leftovers
from tests.support.nodes import TOKEN, Node, head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("quick_runs")]


@pytest.fixture
def address(tmp_path: Path, disks: Disks, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head that runs no jobs, and a node with another disk at the results folder."""
    monkeypatch.setenv("HARNESS_PICTURES", "1")  # files to copy
    first, address = head()
    disks.mount(tmp_path / "results", 64)
    node = Node(f"--address={address}", "--num-cpus=2", faults={1: "train:raises"}, inside=disks.inside)
    try:
        yield address
    finally:
        node.stop()
        first.stop()


def test_results_of_a_node_with_its_own_disk_are_brought_home(
    world: Path, pixels: Path, tmp_path: Path, disks: Disks, address: str
) -> None:
    done = drive(command(world, tmp_path, pixels, "--address", address, "--seeds", "0,1", scheduler="ray"), **TOKEN)
    assert done.returncode == 1, done.stdout + done.stderr
    records, there = by_seed(tmp_path), by_seed(disks.look(tmp_path))
    assert records == there and [records[seed]["status"] for seed in (0, 1)] == ["ok", "failed"]
    here = store.folder_of(tmp_path / "results", records[0])
    tables = {evaluation["per_query"] for evaluation in records[0]["evaluations"]}
    brought = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert len(records[0]["pictures"]) == 2
    others = {"record.json", "metrics.jsonl", "job.json", "log.txt", "ranked_lists.market1501.csv"}
    assert brought == tables | set(records[0]["pictures"]) | others
    assert result_transfer.pack(here) == result_transfer.pack(disks.look(here)), "byte for byte"
    assert (disks.look(here) / "checkpoint.pt").exists() and leftovers(tmp_path) == []


def test_full_disk_is_said_where_results_should_go(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert "could not be written" in result_transfer.unpack(tmp_path / "run", {"record.json": b"{}"})
