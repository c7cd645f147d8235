"""Ray on several nodes of one machine: who runs where, on which GPU, and what happens when one is lost.

GPUs are declared, not there: what a run was given is read from its environment.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RunError
from harness.execution import process
from harness.execution.local_executor import run_locally
from harness.execution.options import Resources
from harness.execution.ray_executor import _Experiment, run_with_ray
from harness.spec.job import Job
from tests.support.executing import execute
from tests.support.faults import environment
from tests.support.record_samples import spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes with two declared GPUs each, whose runs only note what they were given."""
    import ray
    from ray.cluster_utils import Cluster

    notes = tmp_path_factory.mktemp("notes")
    with pytest.MonkeyPatch.context() as patch:
        told = {"HARNESS_TEST_NOTES": str(notes), "HARNESS_TEST_NOTE_SECONDS": "2"}
        for name, value in environment({"*": "start:note"}, **told).items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False})
        made.add_node(num_cpus=4, num_gpus=2)
        made.notes = notes
        yield made
        ray.shutdown()
        made.shutdown()


def carry_out(cluster: Any, folder: Path, count: int, resources: Resources) -> list[dict[str, Any]]:
    """Runs jobs on the cluster; returns what each noted."""
    for note in cluster.notes.glob("*.json"):
        note.unlink()
    jobs = [Job(spec=spec(seed=seed, device="cuda"), folder=str(folder / str(seed))) for seed in range(count)]
    statuses = execute(run_with_ray, jobs, resources)
    assert set(statuses.values()) == {"ok"} and len(statuses) == count
    return [json.loads(note.read_text()) for note in cluster.notes.glob("*.json")]


def busiest(notes: list[dict[str, Any]]) -> dict[tuple[int, str], int]:
    """The most runs at one time on each GPU of each node."""
    at_once: dict[tuple[int, str], int] = {}
    for one in notes:
        where = (one["raylet"], one["gpus"])
        beside = [n for n in notes if (n["raylet"], n["gpus"]) == where and n["began"] <= one["began"] < n["ended"]]
        at_once[where] = max(at_once.get(where, 0), len(beside))
    return at_once


def test_runs_spread_and_an_exclusive_gpu_is_never_shared(cluster: Any, tmp_path: Path) -> None:
    notes = carry_out(cluster, tmp_path, 6, Resources(gpus=1.0, cpus=1, address=cluster.address))
    assert len(notes) == 6
    assert len({note["raylet"] for note in notes}) == 2, "both nodes were used"
    assert {note["gpus"] for note in notes} == {"0", "1"}
    assert set(busiest(notes).values()) == {1}


def test_half_a_gpu_a_run_is_two_runs_a_gpu_at_most(cluster: Any, tmp_path: Path) -> None:
    notes = carry_out(cluster, tmp_path, 6, Resources(gpus=0.5, cpus=1, address=cluster.address))
    assert len(notes) == 6 and max(busiest(notes).values()) <= 2


def test_the_gpus_of_a_run_are_on_one_node(cluster: Any, tmp_path: Path) -> None:
    notes = carry_out(cluster, tmp_path, 2, Resources(gpus=2.0, cpus=1, address=cluster.address, processes=2))
    assert {note["gpus"] for note in notes} == {"0,1"}
    with pytest.raises(RunError, match="needs 3 GPU on one node, but no node has more than 2"):
        carry_out(cluster, tmp_path, 1, Resources(gpus=3.0, address=cluster.address, processes=3))


def test_what_no_node_has_is_refused(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="needs 9 GPU, but the cluster has 4"):
        carry_out(cluster, tmp_path, 1, Resources(gpus=9.0, address=cluster.address))


def test_a_cluster_that_is_not_there_is_said() -> None:
    with pytest.raises(RunError, match=r"127\.0\.0\.1:1.*--scheduler local"):
        execute(run_with_ray, [], Resources(address="127.0.0.1:1"))


def test_runs_of_a_lost_node_move(cluster: Any, tmp_path: Path) -> None:
    """Runs take two seconds, but minutes on a third node, which is lost when all others are done."""
    for note in cluster.notes.glob("*.json"):
        note.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_TEST_NOTE_SECONDS", "300")
        extra = cluster.add_node(num_cpus=4, num_gpus=2)
    jobs = [Job(spec=spec(seed=seed, device="cuda"), folder=str(tmp_path / str(seed))) for seed in range(8)]
    started: list[int] = []
    ended: list[int] = []

    def listen(job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "start":
            started.append(job.spec.seed)
        if event["event"] == "finished":
            ended.append(job.spec.seed)
            if len(ended) == 6:  # the two others are on the slow node
                threading.Thread(target=cluster.remove_node, args=(extra, False)).start()

    resources = Resources(gpus=1.0, cpus=1, address=cluster.address)
    statuses = execute(run_with_ray, jobs, resources, listen)
    assert list(statuses.values()) == ["ok"] * 8
    assert len(started) > 8, "a lost run was started again"
    assert len({json.loads(note.read_text())["run"] for note in cluster.notes.glob("*.json")}) == 8


def test_a_cpu_run_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert process._environment(Job(spec=spec(), folder=""))["CUDA_VISIBLE_DEVICES"] == ""
    assert process._environment(Job(spec=spec(device="cuda"), folder=""))["CUDA_VISIBLE_DEVICES"] == "0"


def test_inline_stops_what_waits_and_needs_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, ran = threading.Event(), []

    def one(job: Job, *_: Any, **__: Any) -> str:
        ran.append(job.spec.seed)
        stop.set()
        return "interrupted"

    monkeypatch.setattr(process, "run", one)
    monkeypatch.setitem(sys.modules, "ray", None)
    jobs = [Job(spec=spec(seed=seed), folder=str(tmp_path / str(seed))) for seed in range(3)]
    assert list(execute(run_locally, jobs, Resources(), stop=stop).values()) == ["interrupted"]
    assert ran == [0] and signal.SIGTERM


def test_a_worker_that_is_lost_after_its_last_report_is_no_error() -> None:
    _Experiment(object(), threading.Event()).listen("gone", {"event": "finished", "status": "failed"})
