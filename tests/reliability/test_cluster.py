"""A cluster at `--address` fails during training: a node dies like in a power failure, then the head dies.

Two runs on two nodes that share the results folder. The run of the dead node resumes on the other node. The
other run is still active when the head dies, and a new cluster at the same address finishes it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.records.schema import Record
from tests.support.faults import NONE, Seeds, alive, by_seed, command, drive, leftovers, start, wait_for
from tests.support.nodes import TOKEN, Node, head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("quick_runs")]


@dataclass
class Story:
    folder: Path
    moved: int
    after_node: dict[int, Record]
    after_head: dict[int, Record]
    said: str
    code: int
    last: subprocess.CompletedProcess[str]
    alone: dict[int, Record]


@pytest.fixture(scope="module")
def story(world: Path, pixels: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder, quiet = tmp_path_factory.mktemp("cluster"), tmp_path_factory.mktemp("quiet")
    with ExitStack() as stack, cluster() as (first, address, nodes):
        words = command(world, folder, pixels, "--seeds", "0,1", "--address", address, scheduler="ray")
        nodes += [worker(address, {0: "epoch/3:wait", 1: "epoch/3:wait"}) for _ in range(2)]
        driver = start(words, **TOKEN)
        stack.callback(driver.kill)
        wait_for(lambda: len(waiting(folder)) == 2 or driver.poll() is not None, 120, "for both runs")
        lost = nodes.pop()
        moved = next(seed for seed, pid in waiting(folder).items() if pid in lost.descendants)
        lost.kill()
        nodes.append(worker(address))
        wait_for(lambda: moved in by_seed(folder) or driver.poll() is not None, 120, "for the run to move")
        after_node = by_seed(folder)
        first.kill("gcs_server")
        said = driver.communicate(timeout=120)[0]
        after_head = by_seed(folder)
    with cluster(address) as (_, _, nodes):
        nodes.append(worker(address))
        last = drive(words, **TOKEN)
    assert drive(command(world, quiet, pixels, "--seeds", "0,1")).returncode == 0
    return Story(folder, moved, after_node, after_head, said, driver.returncode, last, by_seed(quiet))


@contextmanager
def cluster(address: str = "") -> Iterator[tuple[Node, str, list[Node]]]:
    """A head, its address, and a list of nodes that are ended with it."""
    first, address = head(address)
    nodes: list[Node] = []
    try:
        yield first, address, nodes
    finally:
        for node in [*nodes, first]:
            node.kill()


def worker(address: str, faults: Seeds = NONE) -> Node:
    return Node(f"--address={address}", "--num-cpus=1", faults=faults)


def waiting(folder: Path) -> dict[int, int]:
    """Returns the waiting processes of runs, by seed."""
    notes = {int(note.name.split(".")[1]): int(note.read_text() or 0) for note in folder.rglob("waiting.*.txt")}
    return {seed: pid for seed, pid in notes.items() if alive(pid)}


def test_run_of_a_lost_node_resumes_elsewhere(story: Story) -> None:
    record = story.after_node[story.moved]
    assert (record["status"], record["attempts"], record["efficiency"]["resumed_at_epoch"]) == ("ok", 1, 2)
    (line,) = [line for line in story.said.splitlines() if "worker was lost" in line]
    assert f"seed {story.moved}" in line and "Traceback" not in story.said


def test_driver_without_its_head_keeps_what_is_finished(story: Story) -> None:
    assert story.code == 1
    (error,) = [line for line in story.said.splitlines() if line.startswith("Error:")]
    assert "no longer answers" in error and "same command" in error
    assert story.after_head == story.after_node


def test_a_cluster_anew_finishes_the_grid_and_repeats_nothing(story: Story) -> None:
    assert story.last.returncode == 0, story.last.stdout + story.last.stderr
    assert "1 cached" in story.last.stdout
    records = by_seed(story.folder)
    assert records[story.moved] == story.after_node[story.moved]
    other = records[1 - story.moved]
    assert other["status"] == "ok" and other["efficiency"]["resumed_at_epoch"] == 2
    assert leftovers(story.folder) == []


def test_what_moved_equals_what_nobody_disturbed(story: Story) -> None:
    for seed, record in by_seed(story.folder).items():
        assert record["evaluations"] == story.alone[seed]["evaluations"]
