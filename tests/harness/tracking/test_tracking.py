"""MLflow as a view: what it gets, and that nothing is lost when it is away, slow, broken or locked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness import tracking
from harness.errors import HarnessError
from harness.records import store
from harness.reporting import site_link
from harness.spec.job import Job, run_folder
from harness.spec.run_spec import RunSpec
from harness.system.paths import REPOSITORY
from harness.system.redact import mask
from harness.tracking import tracker as tracker_module
from harness.tracking import transfer, view
from harness.tuning import state
from harness.tuning.state import Final
from tests.support import searches
from tests.support.record_samples import evaluation, failed, ok, per_query, spec

Cli = Callable[..., tuple[int, str, str]]


def finished(results: Path, run: RunSpec, epochs: int = 3, record: dict[str, Any] | None = None) -> Job:
    """A run whose files are all there; the job tells the tracker about it."""
    folder = run_folder(results, run)
    row = evaluation(run.dataset, per_query="per_query.csv")
    store.write(folder, record or ok(run, row), {"per_query.csv": per_query([0.2, 0.9, 0.4, 0.7])})
    lines = [json.dumps({"epoch": e, "loss": 1 / e, "lr": 0.1}) for e in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return Job(spec=run, folder=str(folder))


def tell(tracker: tracking.Tracker, job: Job, epochs: int = 3, status: str = "ok") -> None:
    for epoch in range(1, epochs + 1):
        tracker.event(job, {"event": "epoch", "epoch": epoch, "metrics": {"loss": 1 / epoch, "lr": 0.1}})
    tracker.event(job, {"event": "finished", "status": status})


def make(results: Path, uri: str, said: list[str] | None = None) -> tracking.Tracker:
    return tracking.Tracker(results, uri, (said if said is not None else []).append, name="all", tags={"who": "test"})


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder.resolve()}/mlflow.db"


def children(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    return transfer.children(transfer.every_run(client, experiment.experiment_id)) if experiment else []


def running(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    query = "attributes.status = 'RUNNING'"
    return list(client.search_runs([experiment.experiment_id], query)) if experiment else []


def steps(uri: str, run: Any) -> list[int]:
    from mlflow import MlflowClient

    return sorted(m.step for m in MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, "loss"))


@pytest.mark.parametrize(
    ("uri", "hidden"),
    [
        ("https://user:s3cret@host/path", "s3cret"),
        ("https://user:s3@cret@host", "cret"),
        ("https://host/?token=s3cret&x=1", "s3cret"),
        ("https://host/?a=1&X-Amz-Signature=s3cret", "s3cret"),
        ("postgresql://me:s3cret@db/x", "s3cret"),
        ("Max retries exceeded with url: https://h/?api_key=s3cret (Caused by x)", "s3cret"),
    ],
)
def test_no_secret_of_a_url_is_shown(uri: str, hidden: str) -> None:
    assert hidden not in mask(uri)
    assert "host" in mask(uri) or "host" not in uri


def test_plain_test_has_the_bare_metric_names() -> None:
    record = ok(spec(), evaluation(), evaluation(flip=True), evaluation("msmt17"))
    assert tracking.parameters_of(record["spec"])["recipe.training.epochs"] == 3
    values = tracking.metrics_of(record)
    assert {"mAP", "flip/mAP", "msmt17/rank-1", "efficiency/flops"} <= values.keys()


def test_numbers_in_tables_of_a_record_are_metrics_too() -> None:
    record = {**ok(spec(), evaluation()), "efficiency": {"memory_bytes": {"weights": 8}, "scan": "cpu", "pinned": True}}
    assert {k: v for k, v in tracking.metrics_of(record).items() if "efficiency" in k} == {
        "efficiency/memory_bytes/weights": 8
    }


@pytest.mark.slow
def test_every_epoch_and_the_record_arrive_once(tmp_path: Path) -> None:
    uri, job = sqlite(tmp_path), finished(tmp_path, spec())
    tracker = make(tmp_path, uri)
    tell(tracker, job)
    assert tracker.close("ok")
    (run,) = children(uri)
    assert steps(uri, run) == [1, 2, 3] and run.info.status == "FINISHED"
    assert run.data.metrics["mAP"] == 0.5 and run.data.tags["mlflow.parentRunId"]
    assert tracking.unsent(tmp_path, uri) == []
    assert tracking.sync(tmp_path, uri) == 0


@pytest.mark.slow
def test_report_from_the_tracker_equals_that_of_the_results(cli: Cli, tmp_path: Path) -> None:
    results, uri = tmp_path / "results", sqlite(tmp_path)
    for seed in (0, 1):
        finished(results, spec(seed=seed))
    finished(results, spec("beta"), record=failed(spec("beta")))
    assert tracking.sync(results, uri) == 3
    one, other = tmp_path / "one.md", tmp_path / "other.md"
    assert cli("report", "--results", results, "--out", one)[0] == 0
    assert cli("report", "--from-mlflow", uri, "--out", other)[0] == 0
    assert tables(one) == tables(other) and len(tables(one)) > 5


@pytest.mark.slow
def test_searches_come_back_from_the_tracker(cli: Cli, tmp_path: Path) -> None:
    results, uri = tmp_path / "results", sqlite(tmp_path)
    search = searches.new_search(samples_=3)
    searches.play(search, results)
    state.write(results, search)
    assert tracking.sync(results, uri) == 3
    search.trials[0].reason = "written later"
    state.write(results, search)
    finished(results, spec("pixels", seed=7))
    late = finished(results, search.spec)
    search.finals = [Final("best", search.trials[0].point, [late.spec.run_id])]
    state.write(results, search)
    assert tracking.sync(results, uri) == 2
    back = tmp_path / "back"
    assert transfer.restore(uri, back) == 5
    assert [state.read(path).to_dict() for path in state.every(back)] == [search.to_dict()]
    assert len(list(back.rglob("metrics.jsonl"))) == 5


@pytest.mark.slow
def test_the_page_of_the_parent_run_shows_the_grid(cli: Cli, tmp_path: Path) -> None:
    """And a child run what runs are grouped by; the experiment has the charts, but keeps what a user changed."""
    from mlflow import MlflowClient

    results, uri = tmp_path / "results", sqlite(tmp_path)
    finished(results, spec(seed=0))
    finished(results, spec("beta", seed=1))
    (tmp_path / "index.html").touch()
    site_link.remember(results, tmp_path / "index.html")
    assert cli("status", "--results", results, "--sync", "--mlflow-uri", uri)[0] == 0
    client, (one, other) = MlflowClient(tracking_uri=uri), sorted(children(uri), key=lambda run: run.data.tags["seed"])
    parent = client.get_run(one.data.tags["mlflow.parentRunId"])
    note = parent.data.tags["mlflow.note.content"]
    assert "| alpha      | **50.0 / 60.0** |" in note and "| beta       |   50.0 / 60.0 ≈ |" in note
    assert f"Website: `{tmp_path / 'index.html'}`" in note
    (file,) = client.list_artifacts(parent.info.run_id)
    assert file.path == "overview.md"
    assert [
        one.data.tags[name] for name in ("backbone", "dataset", "recipe", "seed", "kind", "device", "generated")
    ] == [*("alpha", "market1501", "unified", "0", "test", "Some CPU", "false")]
    assert one.inputs.dataset_inputs[0].dataset.name == "market1501"
    assert one.data.metrics.keys() == other.data.metrics.keys(), "charts compare metrics of the same name"
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    assert view.tags(experiment.experiment_id).items() <= experiment.tags.items()
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "mine")
    finished(results, spec("gamma"))
    assert tracking.sync(results, uri) == 1
    assert client.get_experiment_by_name(tracking.EXPERIMENT).tags["mlflow.note.content"] == "mine"


def test_the_view_fits_into_a_tag_and_names_known_metrics() -> None:
    tags = view.tags("7")
    assert all(len(value) <= 5000 for value in tags.values())
    run = ok(spec(), evaluation())
    assert {metric for metrics in view.BARS.values() for metric in metrics} <= tracking.metrics_of(run).keys()
    assert view.path("7") in tags["mlflow.note.content"]


@pytest.mark.slow
def test_server_down_from_the_start_loses_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
        uri = f"http://user:s3cret@127.0.0.1:{taken.getsockname()[1]}"
        said: list[str] = []
        tracker = make(tmp_path, uri, said)
        job = finished(tmp_path, spec())
        tell(tracker, job)
        assert not tracker.close("ok", timeout=60)
        assert len(said) == 1 and "--sync" in said[0] and "s3cret" not in said[0]
        with pytest.raises(HarnessError, match="does not answer"):
            tracking.sync(tmp_path, uri)
    uri = sqlite(tmp_path)
    assert tracking.sync(tmp_path, uri) == 1, "what was queued is sent later"
    (run,) = children(uri)
    assert steps(uri, run) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("code", [401, 500])
def test_a_server_that_answers_with_errors_loses_nothing(tmp_path: Path, code: int) -> None:
    with answering(code, 0.0) as uri:
        said: list[str] = []
        tracker = make(tmp_path, uri, said)
        tell(tracker, finished(tmp_path, spec()))
        assert not tracker.close("ok", timeout=60)
    assert len(said) == 1
    assert len(tracking.unsent(tmp_path, uri)) == 1


def test_a_slow_server_holds_up_neither_the_runs_nor_the_end(tmp_path: Path) -> None:
    with answering(200, 60.0) as uri:
        tracker = make(tmp_path, uri)
        job = finished(tmp_path, spec())
        began = time.monotonic()
        tell(tracker, job, epochs=1000)
        assert not tracker.close("ok", timeout=0.5)
        assert time.monotonic() - began < 60, "nobody waited for a single answer"
    assert len(tracking.unsent(tmp_path, uri)) == 1


@pytest.mark.slow
def test_epochs_of_an_outage_are_sent_with_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "AWAY", 0.0)
    monkeypatch.setattr(tracker_module, "EVERY", 0.0)
    send, calls = tracking.Server.metrics, []

    def broken(self: tracking.Server, run: str, rows: list[Any]) -> None:
        calls.append(rows)
        if len(calls) in (2, 3):
            raise ConnectionError("gone for a moment")
        send(self, run, rows)

    monkeypatch.setattr(tracking.Server, "metrics", broken)
    uri, said = sqlite(tmp_path), []
    tracker = make(tmp_path, uri, said)
    tell(tracker, finished(tmp_path, spec(), epochs=5), epochs=5)
    assert tracker.close("ok"), "the end sent what had been kept back"
    (run,) = children(uri)
    assert steps(uri, run) == [1, 2, 3, 4, 5] and run.info.status == "FINISHED" and len(said) == 1


@pytest.mark.slow
def test_a_locked_database_loses_nothing(tmp_path: Path) -> None:
    uri = sqlite(tmp_path)
    tracking.Server.connect(uri, tmp_path)
    lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    tracker = make(tmp_path, uri)
    tell(tracker, finished(tmp_path, spec()))
    assert not tracker.close("ok", timeout=5)
    lock.execute("ROLLBACK")
    lock.close()
    tracker._thread.join(60)
    tracking.sync(tmp_path, uri)
    assert tracking.unsent(tmp_path, uri) == []
    assert [steps(uri, run) for run in children(uri)] == [[1, 2, 3]]


@pytest.mark.slow
def test_next_driver_closes_runs_of_a_dead_one_only(tmp_path: Path) -> None:
    uri = sqlite(tmp_path)
    script = (
        "import os, sys, time; from harness import tracking; from harness.spec.job import Job\n"
        "from pathlib import Path\n"
        "tracker = tracking.Tracker(Path(sys.argv[1]), sys.argv[2], print, name='dead', tags={})\n"
        "job = Job.from_dict(__import__('json').loads(sys.argv[3]))\n"
        "tracker.event(job, {'event': 'epoch', 'epoch': 1, 'metrics': {'loss': 1.0}})\n"
        "time.sleep(600)\n"
    )
    job = json.dumps(Job(spec=spec(), folder=str(tmp_path / "run")).to_dict())
    dead = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), uri, job], cwd=REPOSITORY)
    try:
        until(lambda: (tmp_path / "mlflow.db").exists() and len(children(uri)) == 1)
        living = make(tmp_path, uri)
        until(lambda: len(running(uri)) == 3)
    finally:
        dead.kill()
        dead.wait()
    after = make(tmp_path, uri)
    assert after.close("ok")
    assert [run.data.tags["mlflow.runName"] for run in running(uri)] == ["all"], "the one that lives"
    (child,) = children(uri)
    assert child.info.status == "KILLED" and child.data.tags["status"] == "interrupted"
    assert living.close("ok") and running(uri) == []
    assert list((tmp_path / ".drivers").iterdir()) == []


@pytest.mark.slow
def test_run_without_a_record_is_closed(tmp_path: Path) -> None:
    uri, said = sqlite(tmp_path), []
    tracker = make(tmp_path, uri, said)
    tell(tracker, Job(spec=spec(), folder=str(tmp_path / "nowhere")), status="failed")
    assert tracker.close("failed") and said == []
    (run,) = children(uri)
    assert run.info.status == "FAILED"


@pytest.mark.slow
@pytest.mark.parametrize("call", ["list_artifacts", "download_artifacts"])
def test_an_artifact_store_that_is_down_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    import mlflow

    def down(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the bucket")

    uri = sqlite(tmp_path)
    finished(tmp_path / "results", spec())
    tracking.sync(tmp_path / "results", uri)
    monkeypatch.setattr(mlflow.MlflowClient, call, down)
    with pytest.raises(
        HarnessError, match=r"files of the runs from MLflow at .* \(ConnectionError: no route to the bucket\)"
    ):
        tracking.restore(uri, tmp_path / "restored")


@pytest.mark.slow
def test_last_attempt_counts_if_the_clock_went_backwards(tmp_path: Path) -> None:
    uri, results = sqlite(tmp_path), tmp_path / "results"
    finished(results, spec(), record=failed(spec()))
    tracking.sync(results, uri)
    from mlflow import MlflowClient

    finished(results, spec(), record={**ok(spec(), evaluation(per_query="per_query.csv")), "attempts": 2})
    tracking.sync(results, uri)
    rewind(tmp_path / "mlflow.db", children(uri)[0].info.run_id)
    assert MlflowClient(tracking_uri=uri)
    tracking.restore(uri, tmp_path / "restored")
    (record,) = store.records(tmp_path / "restored")
    assert record["status"] == "ok"


@pytest.mark.slow
def test_two_drivers_may_make_the_database_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from harness import tracking\n"
    code += "tracking.Server.connect(sys.argv[1], Path(sys.argv[2]))"
    words = [sys.executable, "-c", code, sqlite(tmp_path), str(tmp_path)]
    drivers = [subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE) for _ in range(3)]
    assert [driver.wait(120) for driver in drivers] == [0, 0, 0], drivers[0].stderr


@pytest.mark.slow
def test_server_that_dies_in_the_middle_gets_the_rest(tmp_path: Path) -> None:
    port = free_port()
    uri, said = f"http://127.0.0.1:{port}", []
    jobs = [finished(tmp_path / "results", spec(seed=seed)) for seed in (0, 1)]
    with serving(tmp_path, port) as server:
        tracker = make(tmp_path / "results", uri, said)
        tell(tracker, jobs[0])
        tracker.event(jobs[1], {"event": "epoch", "epoch": 1, "metrics": {"loss": 1.0, "lr": 0.1}})
        until(lambda: len(children(uri)) == 2 and tracker._queue.empty())
        os.killpg(server.pid, signal.SIGKILL)
        tracker.event(jobs[1], {"event": "finished", "status": "ok"})
        assert not tracker.close("ok", timeout=60) and len(said) == 1
    assert len(tracking.unsent(tmp_path / "results", uri)) == 1
    with serving(tmp_path, port):
        assert tracking.sync(tmp_path / "results", uri) == 1
        runs = children(uri)
        assert [steps(uri, run) for run in runs] == [[1, 2, 3]] * 2, "the broken half of the second run is gone"
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert tracking.restore(uri, tmp_path / "restored") == 2
    assert list(store.records(tmp_path / "restored")) == list(store.records(tmp_path / "results"))


@contextmanager
def serving(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A tracking server on loopback, with database and artifacts in `folder`."""
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/store"]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: answers(port), 120.0)
        yield server
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(server.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        server.wait()


@contextmanager
def answering(code: int, seconds: float, body: str = "{}") -> Iterator[str]:
    """A web server on loopback that answers everything with one status code, after a while."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            time.sleep(seconds)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client went away
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answers(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


def rewind(database: Path, run: str) -> None:
    """Lets a run have started before all others, as a clock that was set back would."""
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE runs SET start_time = 1 WHERE run_uuid = ?", (run,))


def tables(page: Path) -> list[str]:
    """Rows of all tables but one: a report that comes from elsewhere has no links to single runs."""
    before, rest = page.read_text().split("<b>Single runs</b>")
    text = before + rest.partition("</details>")[2]
    return [line for line in text.splitlines() if line.startswith("|")]
