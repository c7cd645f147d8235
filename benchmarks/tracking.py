"""Cost of tracking for the runs of a driver and for the tracking thread.

    python -m benchmarks.tracking [--runs 200] [--epochs 120] [--seconds 30] [--at-once 8] [--every 10]

It uses the real `Tracker` as `harness run` does: the threads of runs pass training events to one listener and to the
progress display. It measures a sqlite database and an MLflow server on this machine. Events arrive as fast as the
threads can send them, faster than in any training, so nearly all epochs of a run are sent in one call. `--every 0`
sends each epoch in its own call, as happens with epochs longer than 10 s. Percentages assume epochs of `--seconds`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import _evaluation
from harness import tracking
from harness.execution.progress import ProgressDisplay
from harness.records import schema as records
from harness.records import store
from harness.spec.job import Job, run_folder
from harness.spec.run_spec import RunSpec
from harness.tracking import tracker as tracker_module

CALLS = ("create_run", "log_batch", "log_artifact", "set_tag", "set_terminated", "search_runs", "get_metric_history")


def job(results: Path, seed: int) -> Job:
    """Returns a job with the unified recipe: about sixty parameters."""
    from harness.spec import recipe

    values = recipe.load(recipe.find("unified"), "market1501").values()
    spec = RunSpec("bot", "market1501", "unified", values, seed, "cuda", "1.0", "2.14", fingerprint="0" * 64)
    return Job(spec=spec, folder=str(run_folder(results, spec)))


def finish(job: Job, epochs: list[dict[str, Any]]) -> None:
    """Writes the files of a finished run, which the tracker sends at its end."""
    import random

    rows = [_evaluation("market1501", random.Random(job.spec.seed), flip=flip, rerank=False) for flip in (False, True)]
    rows[0]["per_query"] = "per_query.csv"
    record = {**records.new(job.spec), "status": "ok", "stage": "record", "error": None, "evaluations": rows}
    columns = {"query": 0, "pid": 1, "camid": 1, "AP": 0.123456789, "INP": 0.5, "first_match_rank": 1, "positives": 9}
    store.write(Path(job.folder), record, {"per_query.csv": [{**columns, "query": q} for q in range(3368)]})
    lines = "\n".join(json.dumps({"epoch": e["epoch"], **e["metrics"]}) for e in epochs)
    (Path(job.folder) / "metrics.jsonl").write_text(lines + "\n")


def events(epochs: int) -> list[dict[str, Any]]:
    """Returns one event per epoch, with the metrics of the training loop."""
    names = ("loss", "loss/identity", "loss/triplet", "lr", "images_per_second", "seconds")
    return [
        {
            "event": "epoch",
            "epoch": e,
            "epochs": epochs,
            "metrics": {name: 1.0 / (e + i) for i, name in enumerate(names)},
        }
        for e in range(1, epochs + 1)
    ]


class Counting:
    """Counts the calls of a client, and the seconds its thread spends in them."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds = 0.0

    def watch(self, client: type) -> None:
        for name in CALLS:
            setattr(client, name, self._counted(name, getattr(client, name)))

    def _counted(self, name: str, function: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                self.calls[name] += 1
                self.seconds += time.perf_counter() - began

        return call


def measure(uri: str, results: Path, chosen: argparse.Namespace) -> None:
    """Sends all events to a tracker and prints the cost."""
    counting = Counting()
    import mlflow

    original = {name: getattr(mlflow.MlflowClient, name) for name in CALLS}
    counting.watch(mlflow.MlflowClient)
    jobs = [job(results, seed) for seed in range(chosen.runs)]
    of_a_run = events(chosen.epochs)
    for one in jobs:
        finish(one, of_a_run)
    said: list[str] = []
    waited: list[float] = []
    lock = threading.Lock()
    with ProgressDisplay(io.StringIO(), jobs) as board:
        tracker = tracking.Tracker(results, uri, said.append, name="benchmark", tags={})
        while tracker._queue.qsize() or not tracker._parent:  # a driver does not wait, and start-up is not measured
            time.sleep(0.05)

        def on_event(one: Job, event: dict[str, Any]) -> None:
            board.event(one, event)
            began = time.perf_counter()
            tracker.event(one, event)
            spent = time.perf_counter() - began
            with lock:
                waited.append(spent)

        def run(one: Job) -> None:
            for event in of_a_run:
                on_event(one, event)
            on_event(one, {"event": "finished", "status": "ok"})

        began = time.perf_counter()
        with ThreadPoolExecutor(chosen.at_once) as pool:
            list(pool.map(run, jobs))
        sent = time.perf_counter()
        whole = tracker.close("ok", timeout=3600)
        flushed = time.perf_counter()
    for name, function in original.items():
        setattr(mlflow.MlflowClient, name, function)
    assert whole and not said and not tracking.unsent(results, uri), said
    each, calls = sum(waited) / chosen.runs, sum(counting.calls.values())
    training = chosen.epochs * chosen.seconds
    busy, middle, where = counting.seconds / chosen.runs, statistics.median(waited), uri.split(":")[0]
    print(
        f"{where}: {chosen.runs} runs of {chosen.epochs} epochs, {chosen.at_once} at once, "
        f"every {tracker_module.EVERY:g} s"
    )
    print(f"  in the threads of runs: {middle * 1e6:.1f} us per event (maximum {max(waited) * 1e3:.1f} ms),")
    print(f"    {each * 1e3:.2f} ms per run, {each / training:.5%} of {chosen.epochs} epochs of {chosen.seconds:g} s")
    print(f"  the tracking thread: {counting.seconds:.1f} s in {calls:,} calls ({dict(counting.calls)}),")
    print(f"    {busy:.2f} s per run, {busy / training:.4%} of its training")
    print(f"  events passed in {sent - began:.1f} s; the last was sent {flushed - sent:.1f} s later", flush=True)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Runs a tracking server on this machine, with its database and artifacts in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while not _answers(port):
            if time.monotonic() > end or server.poll() is not None:
                raise SystemExit((folder / "server.log").read_text())
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=30.0, help="assumed length of an epoch, in seconds")
    parser.add_argument("--at-once", type=int, default=8, help="number of parallel runs")
    parser.add_argument("--every", type=float, default=tracker_module.EVERY, help="seconds between calls per run")
    chosen = parser.parse_args()
    tracker_module.EVERY = chosen.every
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="benchmark-tracking-") as place:
        for name in ("sqlite", "server"):
            (folder := Path(place) / name).mkdir()
            if name == "sqlite":
                measure(f"sqlite:///{folder}/mlflow.db", folder / "results", chosen)
            else:
                with serving(folder) as uri:
                    measure(uri, folder / "results", chosen)


if __name__ == "__main__":
    main()
