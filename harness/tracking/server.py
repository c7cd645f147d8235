"""A tracking server and one experiment on it; no other file calls MLflow to write."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.masking import mask
from harness.places import expand_uri

EXPERIMENT = "reid-harness"
BATCH = 100
"""Parameters or tags in one call; the server takes no more. Metrics go ten times as many."""

SQLITE = "sqlite:///"
NO_ROOM = 1 << 16
"""Bytes of a disk below which a database on it failed for want of room."""


def default_uri(results: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else a sqlite file in the results folder."""
    return expand_uri(os.environ.get("MLFLOW_TRACKING_URI", "")) or f"{SQLITE}{(results / 'mlflow.db').resolve()}"


@dataclass
class Server:
    """A tracking server and one experiment on it, made if absent."""

    client: Any
    experiment: str
    uri: str

    @classmethod
    def connect(cls, uri: str, results: Path) -> Server:
        """Connects; for a local file store, artifacts lie beside the results."""
        quiet()
        from mlflow import MlflowClient

        local = uri.startswith("sqlite:")
        with _alone(results) if local else contextlib.nullcontext():  # two that make one database break it
            if local:
                _make_sqlite(Path(uri.removeprefix(SQLITE)))
            client = MlflowClient(tracking_uri=uri)
            return cls._open(client, uri, (results / ".mlflow-artifacts").resolve().as_uri() if local else None)

    @classmethod
    def _open(cls, client: Any, uri: str, place: str | None) -> Server:
        if (experiment := client.get_experiment_by_name(EXPERIMENT)) is not None:
            return cls(client, experiment.experiment_id, uri)
        try:
            return cls(client, client.create_experiment(EXPERIMENT, artifact_location=place), uri)
        except Exception as error:  # another driver may have made it in between
            if (experiment := client.get_experiment_by_name(EXPERIMENT)) is None:
                raise HarnessError(
                    f"MLflow at {mask(uri)} does not take the experiment '{EXPERIMENT}' ({reason(error, uri)})."
                ) from error
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

    def find(self, tags: dict[str, str], *, running: bool = False) -> list[str]:
        """Ids of the runs that have all these tags, the newest first; only those not closed where `running`."""
        query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        query += " AND attributes.status = 'RUNNING'" if running else ""
        return [str(run.info.run_id) for run in self.client.search_runs([self.experiment], query, max_results=1000)]

    def end(self, run: str, status: str) -> None:
        """Closes a run; MLflow knows fewer statuses than a record, which stays in the tag `status`."""
        self.client.set_tag(run, "status", status)
        known = {"ok": "FINISHED", "interrupted": "KILLED"}
        self.client.set_terminated(run, known.get(status, "FAILED"))


def reason(error: BaseException, uri: str) -> str:
    """What began it, in a line: MLflow and its database wrap that in pages, and tell a full disk in several ways."""
    if uri.startswith(SQLITE):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(Path(uri.removeprefix(SQLITE)).parent).free < NO_ROOM:
                return os.strerror(errno.ENOSPC)
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines()
    return mask(f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__)


def quiet() -> None:
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


@contextlib.contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Waits until no other driver opens the database of this folder."""
    results.mkdir(parents=True, exist_ok=True)
    with (results / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_sqlite(path: Path) -> None:
    """Makes a new store beside its place and renames it, so that a driver killed meanwhile leaves no half store."""
    from mlflow import MlflowClient

    if not path.exists():
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"{SQLITE}{fresh}").search_experiments()
        os.replace(fresh, path)
