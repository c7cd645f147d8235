"""MLflow as a view of `results/`: a parent run an invocation, a child run a run, off the training path.

The only module that names MLflow. The driver is the only writer, in one thread of its own; a tracker that is slow,
down or full loses nothing, because records are written first. What was not sent is sent by `status --sync`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import store
from harness.errors import HarnessError, RecordError
from harness.job import Job
from harness.masking import mask
from harness.spec import canonical

EXPERIMENT = "reid-harness"
SIDECAR = ".mlflow.json"
EVERY = 10.0
"""Seconds between two calls with the epochs of one run."""
AWAY = 30.0
"""Seconds without a call after one that failed."""
BATCH = 100
"""Parameters or tags in one call; the server takes no more. Metrics go ten times as many."""

Warn = Callable[[str], None]


def default_uri(results: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else a sqlite file in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results / 'mlflow.db').resolve()}"


@dataclass
class Sink:
    """A tracking server and one experiment on it, made if absent."""

    client: Any
    experiment: str
    uri: str

    @classmethod
    def connect(cls, uri: str, results: Path) -> Sink:
        """Connects; for a local file store, artifacts lie beside the results."""
        _quiet()
        from mlflow import MlflowClient

        local = uri.startswith("sqlite:")
        with _alone(results) if local else contextlib.nullcontext():  # two that make one database break it
            if local:
                _make_sqlite(Path(uri.removeprefix("sqlite:///")))
            client = MlflowClient(tracking_uri=uri)
            return cls._open(client, uri, (results / ".mlflow-artifacts").resolve().as_uri() if local else None)

    @classmethod
    def _open(cls, client: Any, uri: str, place: str | None) -> Sink:
        if (experiment := client.get_experiment_by_name(EXPERIMENT)) is not None:
            return cls(client, experiment.experiment_id, uri)
        with contextlib.suppress(Exception):  # another driver may have made it in between
            return cls(client, client.create_experiment(EXPERIMENT, artifact_location=place), uri)
        if (experiment := client.get_experiment_by_name(EXPERIMENT)) is None:
            raise HarnessError(f"MLflow at {mask(uri)} does not take the experiment '{EXPERIMENT}'.")
        return cls(client, experiment.experiment_id, uri)

    def start(self, name: str, tags: dict[str, str], parent: str = "") -> str:
        """Creates a run and returns its id."""
        tags = {**tags, "mlflow.runName": name, **({"mlflow.parentRunId": parent} if parent else {})}
        return str(self.client.create_run(self.experiment, tags=tags).info.run_id)

    def parameters(self, run: str, values: dict[str, Any]) -> None:
        """Logs flat scalars; they can never be changed afterwards."""
        from mlflow.entities import Param

        params = [Param(name, str(value)[:500]) for name, value in values.items()]
        for first in range(0, len(params), BATCH):
            self.client.log_batch(run, params=params[first : first + BATCH])

    def metrics(self, run: str, rows: list[tuple[int, dict[str, Any]]]) -> None:
        """Logs finite numbers by step, as few calls as the server allows."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), now, step)
            for step, values in rows
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        for first in range(0, len(metrics), 10 * BATCH):
            self.client.log_batch(run, metrics=metrics[first : first + 10 * BATCH])

    def find(self, tags: dict[str, str]) -> str:
        """Id of the newest run that has all these tags, or empty."""
        query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self.client.search_runs([self.experiment], query, max_results=1)
        return str(found[0].info.run_id) if found else ""

    def end(self, run: str, status: str) -> None:
        """Closes a run; MLflow knows fewer statuses than a record, which stays in the tag `status`."""
        self.client.set_tag(run, "status", status)
        known = {"ok": "FINISHED", "interrupted": "KILLED"}
        self.client.set_terminated(run, known.get(status, "FAILED"))


def _make_sqlite(path: Path) -> None:
    """Makes a new store beside its place and renames it, so that a driver killed meanwhile leaves no half store."""
    from mlflow import MlflowClient

    if not path.exists():
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{fresh}").search_experiments()
        os.replace(fresh, path)


def parameters_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec as flat parameters: `recipe.loss.margin`, `option.stride`, `seed`, ..."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", {"recipe": spec["values"], "option": spec["options"]})
    plain = {k: v for k, v in spec.items() if k not in ("values", "options", "holdout", "evaluate_on")}
    return {**{("recipe.name" if k == "recipe" else k): v for k, v in plain.items()}, **flat}


def metrics_of(record: Any) -> dict[str, Any]:
    """The figures of a record as flat metrics; the plain test has the bare names."""
    values: dict[str, Any] = {}
    for row in record["evaluations"]:
        marks = [] if row["trained"] else ["untrained"]
        marks += [row["dataset"]] if row["dataset"] != record["spec"]["dataset"] else []
        marks += [mark for mark in ("flip", "rerank") if row[mark]]
        prefix = "".join(f"{mark}/" for mark in marks)
        values |= {prefix + name: row[name] for name in ("mAP", "mINP", "rank-1", "rank-5", "rank-10")}
    return {**values, **{f"efficiency/{k}": v for k, v in record["efficiency"].items() if not isinstance(v, bool)}}


class Tracker:
    """Sends events and records to MLflow from a thread of its own; never raises, never waits.

    Args:
        results: the results folder.
        uri: the tracking server.
        warn: told once when the server cannot be reached.
        name: name of the parent run.
        tags: tags of the parent run, for example the command.
        search: id of a search, whose one parent run and child runs are gone on with.
    """

    def __init__(
        self, results: Path, uri: str, warn: Warn, *, name: str, tags: dict[str, str], search: str = ""
    ) -> None:
        self.results, self.uri, self.warn = results, uri, warn
        self._name, self._tags = name, {**tags, **({"harness.search": search} if search else {})}
        self._search = search
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._sink: Sink | None = None
        self._parent = ""
        self._down_until = 0.0
        self._children: dict[str, str] = {}
        self._rows: dict[str, list[tuple[int, dict[str, Any]]]] = {}  # epochs that wait to be sent together
        self._sent: dict[str, set[int]] = {}
        self._flushed: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._queue.put(self._connect)
        self._thread.start()

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Takes an event of a run; epochs and ends are logged, the rest is not."""
        if event["event"] == "epoch":
            self._queue.put(lambda: self._epoch(job, event))
        elif event["event"] == "finished":
            self._queue.put(lambda: self._finished(job, event["status"]))

    def close(self, status: str, timeout: float = 120.0) -> bool:
        """Sends what is queued; returns False if that took too long or something was not sent."""
        self._queue.put(lambda: self._require().end(self._parent, status) if self._parent else None)
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._down_until

    def _work(self) -> None:
        while (action := self._queue.get()) is not None:
            if time.monotonic() < self._down_until and action != self._connect:
                continue
            try:
                action()
            except Exception as error:
                if not self._down_until:
                    self.warn(
                        f"MLflow at {mask(self.uri)} does not answer ({_brief(error)}). Results are kept; "
                        "'python -m harness status --sync' sends them later."
                    )
                self._down_until = time.monotonic() + AWAY

    def _connect(self) -> None:
        self._sink = Sink.connect(self.uri, self.results)
        known = self._sink.find({"harness.search": self._search}) if self._search else ""
        if known:
            self._sink.client.update_run(known, status="RUNNING")
        self._parent = known or self._sink.start(self._name, self._tags)

    def _require(self) -> Sink:
        if self._sink is None or not self._parent:
            self._connect()
        assert self._sink is not None
        return self._sink

    def _child(self, job: Job) -> str:
        """The child run of a job's attempt; its parameters are logged when it is made."""
        key = job.folder
        if key not in self._children:
            sink = self._require()
            spec = job.spec.to_dict()
            family = {"harness.run_id": job.spec.run_id, "mlflow.parentRunId": self._parent}
            if self._search and (known := sink.find(family)):
                self._children[key] = known
                self._sent[key] = {metric.step for metric in sink.client.get_metric_history(known, "lr")}
                return known
            self._children[key] = sink.start(_run_name(spec), _tags(spec, job.attempt), self._parent)
            sink.parameters(self._children[key], parameters_of(spec))
        return self._children[key]

    def _epoch(self, job: Job, event: dict[str, Any]) -> None:
        """Keeps epochs together for a while: one call is as dear as ten epochs."""
        rows = self._rows.setdefault(job.folder, [])
        rows.append((int(event["epoch"]), event["metrics"]))
        now = time.monotonic()
        if job.folder not in self._flushed or now - self._flushed[job.folder] > EVERY:
            self._flushed[job.folder] = now
            self._send(job, rows)
            rows.clear()

    def _send(self, job: Job, rows: list[tuple[int, dict[str, Any]]]) -> None:
        self._require().metrics(self._child(job), rows)
        self._sent.setdefault(job.folder, set()).update(epoch for epoch, _ in rows)

    def _finished(self, job: Job, status: str) -> None:
        """Sends the epochs that wait or that were lost while the server was away, then the record."""
        folder = Path(job.folder)
        rows = dict([*self._rows.pop(job.folder, []), *_epochs(folder)])
        sent = self._sent.pop(job.folder, set())
        self._send(job, [(epoch, values) for epoch, values in sorted(rows.items()) if epoch not in sent])
        run = self._child(job)
        try:
            record = store.read(folder)
        except RecordError:  # a full disk, or a folder that only another node sees
            self._require().end(run, status)
        else:
            finish(self._require(), run, folder, record)


def finish(sink: Sink, run: str, folder: Path, record: Any) -> None:
    """Logs the figures and files of a record and closes its run; then notes that all was sent."""
    sink.metrics(run, [(0, metrics_of(record))])
    names = [
        "record.json",
        "metrics.jsonl",
        *sorted({e["per_query"] for e in record["evaluations"] if e["per_query"]}),
    ]
    for name in names:
        if (folder / name).is_file():
            sink.client.log_artifact(run, str(folder / name))
    for picture in sorted((folder / "pictures").glob("*.png")):
        sink.client.log_artifact(run, str(picture), "pictures")
    if record["error"]:
        sink.client.set_tag(run, "reason", mask(record["error"]["message"])[:500])
    sink.end(run, record["status"])
    sent = {"uri": mask(sink.uri), "run": run, "attempts": record.get("attempts", 1)}
    store.replace(folder / SIDECAR, json.dumps(sent) + "\n")


def unsent(results: Path, uri: str) -> list[Path]:
    """Folders of records that this server has not got whole."""
    folders = []
    for entry in store.index(results).values():
        folder = (results / entry.path).parent
        try:
            sent = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
            current = sent["uri"] == mask(uri) and sent["attempts"] == store.read(folder).get("attempts", 1)
        except (OSError, ValueError, KeyError, RecordError):
            current = False
        if not current:
            folders.append(folder)
    return folders


def sync(results: Path, uri: str) -> int:
    """Sends every record the server has not got; returns how many.

    Raises:
        HarnessError: the server cannot be reached.
    """
    folders = unsent(results, uri)
    if not folders:
        return 0
    try:
        sink = Sink.connect(uri, results)
        parent = sink.start("sync", {"command": "status --sync"})
        for folder in folders:
            record = store.read(folder)
            _drop_partial(sink, record)
            run = sink.start(_run_name(record["spec"]), _tags(record["spec"], record.get("attempts", 1)), parent)
            sink.parameters(run, parameters_of(record["spec"]))
            sink.metrics(run, list(_epochs(folder)))
            finish(sink, run, folder, record)
        sink.end(parent, "ok")
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(
            f"MLflow at {mask(uri)} does not answer ({_brief(error)}); start it, or set MLFLOW_TRACKING_URI, "
            "then try again."
        ) from error
    return len(folders)


def restore(uri: str, results: Path) -> int:
    """Rebuilds a results folder from a tracking server alone: the newest attempt of every run; returns how many.

    Raises:
        HarnessError: the server cannot be reached or has no runs of this harness.
    """
    _quiet()
    try:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = _runs(client, experiment.experiment_id) if experiment else []
    except Exception as error:
        raise HarnessError(f"MLflow at {mask(uri)} does not answer ({_brief(error)}).") from error
    seen: set[str] = set()
    for run in runs:
        run_id = run.data.tags["harness.run_id"]
        files = [f.path for f in client.list_artifacts(run.info.run_id) if not f.is_dir]
        if run_id in seen or "record.json" not in files:
            continue
        seen.add(run_id)
        _download(client, run.info.run_id, files, results)
    if not seen:
        raise HarnessError(f"MLflow at {mask(uri)} has no finished runs of the experiment '{EXPERIMENT}'.")
    return len(seen)


def _download(client: Any, run: str, files: list[str], results: Path) -> None:
    """Brings the record of a run and its per-query values into their folder below `results`."""
    with tempfile.TemporaryDirectory(prefix="harness-mlflow-") as place:
        wanted = [f for f in files if f == "record.json" or (f.startswith("per_query") and f.endswith(".csv"))]
        for file in wanted:
            client.download_artifacts(run, file, place)
        folder = store.folder_of(results, store.read(Path(place)))
        folder.mkdir(parents=True, exist_ok=True)
        for file in wanted:
            shutil.copyfile(Path(place) / Path(file).name, folder / Path(file).name)


def _runs(client: Any, experiment: str) -> list[Any]:
    """Every child run, the last attempt first (clocks may go backwards), page by page."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], "", max_results=1000, page_token=token)
        runs += [run for run in page if "harness.run_id" in run.data.tags]
        if not (token := page.token):
            return sorted(runs, key=lambda run: (-int(run.data.tags.get("harness.attempt", 1)), -run.info.start_time))


@contextlib.contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Waits until no other driver opens the database of this folder."""
    results.mkdir(parents=True, exist_ok=True)
    with (results / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _drop_partial(sink: Sink, record: Any) -> None:
    """Deletes what an earlier, broken attempt to send this record left on the server."""
    attempt = record.get("attempts", 1)
    query = f"tags.`harness.run_id` = '{record['run_id']}' AND tags.`harness.attempt` = '{attempt}'"
    for run in sink.client.search_runs([sink.experiment], query):
        sink.client.delete_run(run.info.run_id)


def _epochs(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with contextlib.suppress(OSError):
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                values = json.loads(line)
                yield int(values.pop("epoch")), values


def _tags(spec: dict[str, Any], attempt: int) -> dict[str, str]:
    return {
        "harness.run_id": hashlib.sha256(canonical(spec).encode()).hexdigest(),
        "harness.attempt": str(attempt),
        "backbone": spec["backbone"],
        "dataset": spec["dataset"],
        "recipe": spec["recipe"],
    }


def _run_name(spec: dict[str, Any]) -> str:
    return f"{spec['backbone']} on {spec['dataset']}, seed {spec['seed']}"


def _brief(error: BaseException) -> str:
    """The first line of what began it: MLflow and its database wrap a full disk in pages about sessions."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines()
    return mask(f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__)


def _quiet() -> None:
    """A server that is down should be noticed in seconds, and nobody phones home."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_LOGGING_LEVEL", "CRITICAL"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("GIT_PYTHON_REFRESH", "quiet"),
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
