"""The thread of a driver that sends events and records to MLflow."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, RecordError
from harness.records import store
from harness.spec.job import Job
from harness.system import hooks
from harness.tracking.content import (
    epochs_of,
    finish,
    is_sent,
    name_of,
    parameters_of,
    send,
    send_searches,
    tags_of,
)
from harness.tracking.presence import Presence
from harness.tracking.server import LATER, Server, trouble

EVERY = 10.0
"""Seconds between two calls with the epochs of one run."""
AWAY = 30.0
"""Seconds to wait after a failed call."""

Warn = Callable[[str], None]


class Tracker:
    """Sends events and records to MLflow from a separate thread; `event` never raises or blocks.

    Args:
        results: the results folder.
        uri: the tracking server.
        warn: called once when the server cannot be reached.
        name: name of the parent run.
        tags: tags of the parent run, for example the command.
        search: id of a search; its existing parent run and child runs are continued.
        folders: returns the folders of all runs of this invocation; `close` sends their missing records.
        overview: returns Markdown about these runs for the page of the parent run; `close` sends it.
    """

    def __init__(
        self,
        results: Path,
        uri: str,
        warn: Warn,
        *,
        name: str,
        tags: dict[str, str],
        search: str = "",
        folders: Callable[[], Iterable[Path]] = tuple,
        overview: Callable[[], str] = str,
    ) -> None:
        self.results, self.uri, self.warn = results, uri, warn
        self._name, self._tags = name, {**tags, **({"harness.search": search} if search else {})}
        self._search, self._folders, self._overview = search, folders, overview
        self._presence = Presence(results)
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._server: Server | None = None
        self._parent = ""
        self._down_until = 0.0
        self._warned = False
        self._complete = False
        self._children: dict[str, str] = {}
        self._rows: dict[str, list[tuple[int, dict[str, Any]]]] = {}  # epochs not sent yet
        self._sent: dict[str, set[int]] = {}
        self._flushed: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._queue.put(self._connect)
        self._thread.start()

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Handles an event of a run; only epochs and ends are logged."""
        if event["event"] == "epoch":
            self._queue.put(lambda: self._epoch(job, event))
        elif event["event"] == "finished":
            self._queue.put(lambda: self._finished(job, event["status"]))

    def close(self, status: str, timeout: float = 120.0) -> bool:
        """Sends all queued events; returns False after `timeout` seconds or if anything was not sent."""
        self._queue.put(lambda: self._end(status))
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive() and self._complete

    def _work(self) -> None:
        while (action := self._queue.get()) is not None:
            if time.monotonic() < self._down_until and action != self._connect:
                continue
            try:
                action()
            except Exception as error:
                if not self._warned:
                    self.warn(f"{trouble(error, self.uri)} {LATER}")
                self._warned = True
                self._down_until = time.monotonic() + AWAY

    def _connect(self) -> None:
        self._server = Server.connect(self.uri, self.results)
        known = self._server.find({"harness.search": self._search})[:1] if self._search else []
        for parent in known:
            self._server.client.update_run(parent, status="RUNNING")
            for name, value in self._presence.tags.items():
                self._server.client.set_tag(parent, name, value)
        self._parent = known[0] if known else self._server.start(self._name, {**self._tags, **self._presence.tags})
        self._presence.close_dead(self._server)

    def _end(self, status: str) -> None:
        if self._parent:
            for folder in self._folders():
                if (folder / store.RECORD).is_file() and not is_sent(folder, self.uri):
                    send(self._require(), folder, self._parent)
            send_searches(self._require(), self._parent, self.results, self._folders())
            with contextlib.suppress(HarnessError):  # such as per-query values that are damaged
                if text := self._overview():
                    self._require().describe(self._parent, text)
            self._require().end(self._parent, status)
            self._complete = True  # whatever an outage had kept back was sent just now
        self._presence.end()

    def _require(self) -> Server:
        if self._server is None or not self._parent:
            self._connect()
        assert self._server is not None
        return self._server

    def _child(self, job: Job) -> str:
        """Returns the MLflow run of a job's attempt; creates it and logs its parameters on first use."""
        key = job.folder
        if key not in self._children:
            server = self._require()
            spec = job.spec.to_dict()
            family = {"harness.run_id": job.spec.run_id, "mlflow.parentRunId": self._parent}
            if self._search and (known := server.find(family)):
                self._children[key] = known[0]
                self._sent[key] = {metric.step for metric in server.client.get_metric_history(known[0], "lr")}
                return known[0]
            self._children[key] = server.start(name_of(spec), tags_of(spec, job.attempt), self._parent)
            server.dataset(self._children[key], spec)
            server.parameters(self._children[key], parameters_of(spec))
        return self._children[key]

    def _epoch(self, job: Job, event: dict[str, Any]) -> None:
        """Collects epochs and sends them in batches, because a call costs as much as ten epochs."""
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
        """Sends all epochs that were not sent yet, then the record."""
        hooks.reached("track")
        folder = Path(job.folder)
        rows = dict([*self._rows.pop(job.folder, []), *epochs_of(folder)])
        sent = self._sent.pop(job.folder, set())
        self._send(job, [(epoch, values) for epoch, values in sorted(rows.items()) if epoch not in sent])
        run = self._child(job)
        try:
            record = store.read(folder)
        except RecordError:  # full disk, or a folder on another node
            self._require().end(run, status)
        else:
            finish(self._require(), run, folder, record)
