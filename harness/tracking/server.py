"""Calls to one MLflow tracking server and one experiment on it."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import shlex
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from harness.errors import HarnessError, UsageError
from harness.system import files
from harness.system.paths import expand_uri
from harness.system.redact import mask
from harness.tracking import view

EXPERIMENT = "reid-harness"
BATCH = 100
"""Maximum number of parameters or tags per call; ten times as many metrics are allowed."""

LONGEST_NOTE = 5000
"""Characters of a tag that every version of MLflow stores."""

SQLITE = "sqlite:///"
NO_ROOM = 1 << 16
"""Free bytes on a disk below which a database error is reported as a full disk."""


VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE, LAST = "mlflow.db", ".mlflow-uri"
"""Files in a results folder: the default database, and the address that was used last."""
PLAIN = "/ #:~+@"
"""Characters that need no quoting in the path of an address, besides letters and digits."""
LATER = "Results are kept on disk; run 'python -m harness status --sync' to send them later."


def default_uri(results: Path) -> str:
    """Returns `MLFLOW_TRACKING_URI` if it is set, else a SQLite file in the results folder."""
    return expand_uri(os.environ.get(VARIABLE, "")) or local_uri(results)


def address(results: Path, given: str = "") -> str:
    """Returns the tracking address: `given`, or the default.

    Raises:
        UsageError: it is a SQLite address without a file.
    """
    uri = given or default_uri(results)
    file_of(uri)
    return uri


def used_address(results: Path, given: str = "", *, whole: bool = True) -> str:
    """Returns the tracking address of a results folder: given, from the environment, or else the last one used.

    Args:
        results: the results folder.
        given: the address the user gave, or empty.
        whole: whether the address is used for a call, which needs its password.

    Raises:
        UsageError: the password is needed; it is never stored.
    """
    if given or os.environ.get(VARIABLE) or not (last := _last(results)):
        return address(results, given)
    if whole and "***" in last:
        raise UsageError(
            f"The records in {results} are tracked at {last}, but passwords are not stored. "
            f"Pass the full address with --mlflow-uri or {VARIABLE}."
        )
    return last


def is_tracked(results: Path) -> bool:
    """Whether a tracking server is known for a results folder."""
    return bool(os.environ.get(VARIABLE) or _last(results)) or (results / DATABASE).is_file()


def remember_address(results: Path, uri: str) -> None:
    """Stores the tracking address of a results folder, without passwords; ignores an unwritable disk."""
    with contextlib.suppress(OSError):
        if _last(results) != mask(uri):
            results.mkdir(parents=True, exist_ok=True)
            files.replace(results / LAST, mask(uri) + "\n")


def _last(results: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return (results / LAST).read_text(encoding="utf-8").strip()
    return ""


def local_uri(results: Path) -> str:
    """The address of the SQLite file in a results folder; quoted, because `?` would start its options."""
    return SQLITE + quote(str((results / DATABASE).resolve()), safe=PLAIN)


def file_of(uri: str) -> Path | None:
    """Returns the file of a SQLite address, None for other addresses.

    Raises:
        UsageError: the address names no file.
    """
    if not uri.startswith("sqlite:"):
        return None
    path = unquote(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else ""
    if path in ("", ":memory:"):
        raise UsageError(
            f"The tracking address {uri} names no file, so nothing would be stored. Pass one, as sqlite:////path/runs.db."
        )
    return Path(path)


@dataclass
class Server:
    """A tracking server and one experiment on it, created if missing."""

    client: Any
    experiment: str
    uri: str

    @classmethod
    def connect(cls, uri: str, results: Path) -> Server:
        """Connects to a server; with a local database, artifacts are stored in the results folder."""
        quiet()
        remember_address(results, uri)
        from mlflow import MlflowClient

        if (path := file_of(uri)) is None:
            return cls._open(MlflowClient(tracking_uri=uri), uri, None)
        with _alone(results), _no_folder_of_quotes(uri, path):  # concurrent creation breaks the database
            _make_sqlite(path)
            return cls._open(MlflowClient(tracking_uri=uri), uri, (results / ".mlflow-artifacts").resolve().as_uri())

    @classmethod
    def _open(cls, client: Any, uri: str, place: str | None) -> Server:
        if (experiment := client.get_experiment_by_name(EXPERIMENT)) is None:
            try:
                client.create_experiment(EXPERIMENT, artifact_location=place)
            except Exception:  # another driver may have created it in the meantime
                if client.get_experiment_by_name(EXPERIMENT) is None:
                    raise
            experiment = client.get_experiment_by_name(EXPERIMENT)
        found = cls(client, usable(experiment, uri), uri)
        for name, value in view.tags(found.experiment).items():
            if name not in experiment.tags:  # what a user has changed is kept
                client.set_experiment_tag(found.experiment, name, value)
        return found

    def start(self, name: str, tags: dict[str, str], parent: str = "") -> str:
        """Creates a run and returns its id."""
        tags = {**tags, "mlflow.runName": name, **({"mlflow.parentRunId": parent} if parent else {})}
        return str(self.client.create_run(self.experiment, tags=tags).info.run_id)

    def parameters(self, run: str, values: dict[str, Any]) -> None:
        """Logs parameters; MLflow does not allow changing them later."""
        from mlflow.entities import Param

        params = [Param(name, str(value)[:500]) for name, value in values.items()]
        for first in range(0, len(params), BATCH):
            self.client.log_batch(run, params=params[first : first + BATCH])

    def dataset(self, run: str, spec: Mapping[str, Any]) -> None:
        """Names the dataset of a run, so that MLflow shows it in its own column and groups by it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(spec["dataset"], (spec.get("fingerprint") or "")[:36], "local", "{}")
        context = InputTag("mlflow.data.context", "training and test")
        self.client.log_inputs(run, datasets=[DatasetInput(data, [context])])

    def describe(self, run: str, text: str) -> None:
        """Shows Markdown on the page of a run; its full text is an artifact."""
        text += f"\n\n[Charts of all runs](#{view.path(self.experiment)})\n"
        self.client.log_text(run, text, "overview.md")
        shown = text if len(text) <= LONGEST_NOTE else "The overview is long: see the artifact overview.md."
        self.client.set_tag(run, "mlflow.note.content", shown)

    def metrics(self, run: str, rows: list[tuple[int, dict[str, Any]]]) -> None:
        """Logs finite numbers by step, with as few calls as possible."""
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
        """Ids of the runs that have all these tags, newest first; with `running`, only open runs."""
        query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        query += " AND attributes.status = 'RUNNING'" if running else ""
        return [str(run.info.run_id) for run in self.client.search_runs([self.experiment], query, max_results=1000)]

    def end(self, run: str, status: str) -> None:
        """Closes a run; the tag `status` keeps the status of the record, because MLflow has fewer statuses."""
        self.client.set_tag(run, "status", status)
        known = {"ok": "FINISHED", "interrupted": "KILLED"}
        self.client.set_terminated(run, known.get(status, "FAILED"))


def usable(experiment: Any, uri: str) -> str:
    """Returns the id of an experiment.

    Raises:
        HarnessError: it was deleted, or the server is not an MLflow server.
    """
    if not experiment.experiment_id:
        raise HarnessError(f"The server at {mask(uri)} is not an MLflow server. Check the address.")
    if experiment.lifecycle_stage == "deleted":
        command = f"{VARIABLE}={shlex.quote(mask(uri))} python -m mlflow experiments restore --experiment-id"
        raise HarnessError(
            f"The experiment '{EXPERIMENT}' was deleted from MLflow at {mask(uri)}. "
            f"To restore it, run: {command} {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def trouble(error: BaseException, uri: str) -> str:
    """Error message about a tracking server: its own answer, or that it does not answer."""
    if isinstance(error, HarnessError):
        return str(error)
    where, chain = f"MLflow at {mask(uri)}", _chain(error)
    if uri.startswith(SQLITE):
        return f"{where} cannot be used ({_database(chain[-1], uri)})."
    import requests

    if any(isinstance(one, requests.exceptions.RetryError) for one in chain) and (page := _answer(uri)):
        return f"{where} answers with an error: {_shortened(page)}"
    silent = (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)
    if any(isinstance(one, silent) for one in chain):
        last = next(one for one in reversed(chain) if isinstance(one, OSError))
        return f"{where} does not answer ({reason(last)}). Start it, or set {VARIABLE} to another server."
    if not uri.startswith("http") or isinstance(error, OSError | ImportError):
        return f"{where} cannot be used: {_shortened(str(error))}"
    return f"{where} answers with an error: {_shortened(str(error))}"


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes, the root cause last."""
    found = [error]
    while (before := found[-1].__cause__ or found[-1].__context__) is not None:
        found.append(before)
    return found


def _database(error: BaseException, uri: str) -> str:
    """Reason of a database error; databases report a full disk in several ways."""
    with contextlib.suppress(OSError, HarnessError):
        if (path := file_of(uri)) and shutil.disk_usage(path.parent).free < NO_ROOM:
            return os.strerror(errno.ENOSPC)
    return reason(error)


def reason(error: BaseException) -> str:
    """The first line of an error, without the object addresses that requests adds."""
    lines = re.sub(r"<[\w.]+ object at 0x\w+>: ", "", str(error)).splitlines()
    return mask(f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__)


def _shortened(text: str) -> str:
    """The answer of a server in one line; an HTML page means that it is not an MLflow server."""
    line = mask(textwrap.shorten(" ".join(text.split()), 300, placeholder=" ..."))
    return f"{line} Check whether this is the address of an MLflow server." if "<html" in text.lower() else line


def _answer(uri: str) -> str:
    """Asks a failing server for its error message, because MLflow only reports the number of retries."""
    import requests

    place = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name"
    with contextlib.suppress(requests.RequestException):
        reply = requests.get(place, params={"experiment_name": EXPERIMENT}, timeout=10)
        return f"{reply.status_code} {reply.reason}: {reply.text}"
    return ""


def quiet() -> None:
    """Sets short timeouts, disables telemetry and silences MLflow's logs."""
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
    """Holds a lock, so that only one driver opens the database of this folder."""
    results.mkdir(parents=True, exist_ok=True)
    with files.locked(results / ".mlflow.lock"):
        yield


def _make_sqlite(path: Path) -> None:
    """Creates the database under a temporary name and renames it, so that a killed driver leaves no incomplete file."""
    from mlflow import MlflowClient

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as fresh:
            fresh.touch()  # SQLite ignores a umask that lets the group write
            MlflowClient(tracking_uri=SQLITE + quote(str(fresh), safe=PLAIN)).search_experiments()


@contextlib.contextmanager
def _no_folder_of_quotes(uri: str, path: Path) -> Iterator[None]:
    """Removes the empty folder that MLflow creates when it takes a quoted address for a path."""
    written = Path(uri.removeprefix(SQLITE)).parent
    made = [p for p in (written, *written.parents) if not p.exists()] if written != path.parent else []
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
