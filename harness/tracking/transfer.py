"""Results to a tracking server, and a results folder back from one."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness import store
from harness.errors import HarnessError, RecordError
from harness.masking import mask
from harness.tracking.content import SIDECAR, epochs_of, finish, name_of, parameters_of, tags_of
from harness.tracking.presence import Presence
from harness.tracking.server import EXPERIMENT, Server, quiet, reason


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
    presence = Presence(results)
    try:
        server = Server.connect(uri, results)
        parent = server.start("sync", {"command": "status --sync", **presence.tags})
        for folder in folders:
            record = store.read(folder)
            _drop_partial(server, record)
            run = server.start(name_of(record["spec"]), tags_of(record["spec"], record.get("attempts", 1)), parent)
            server.parameters(run, parameters_of(record["spec"]))
            server.metrics(run, list(epochs_of(folder)))
            finish(server, run, folder, record)
        server.end(parent, "ok")
        presence.end()
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(
            f"MLflow at {mask(uri)} does not answer ({reason(error, uri)}); start it, or set MLFLOW_TRACKING_URI, "
            "then try again."
        ) from error
    return len(folders)


def restore(uri: str, results: Path) -> int:
    """Rebuilds a results folder from a tracking server alone: the newest attempt of every run; returns how many.

    Raises:
        HarnessError: the server or its artifact store cannot be reached, or has no runs of this harness.
    """
    quiet()
    try:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = children(client, experiment.experiment_id) if experiment else []
    except Exception as error:
        raise HarnessError(f"MLflow at {mask(uri)} does not answer ({reason(error, uri)}).") from error
    seen: set[str] = set()
    try:
        for run in runs:
            run_id = run.data.tags["harness.run_id"]
            files = [f.path for f in client.list_artifacts(run.info.run_id) if not f.is_dir]
            if run_id in seen or "record.json" not in files:
                continue
            seen.add(run_id)
            _download(client, run.info.run_id, files, results)
    except HarnessError:
        raise
    except Exception as error:  # the files of runs may lie elsewhere than what is known of the runs
        raise HarnessError(
            f"MLflow at {mask(uri)} does not give the files of its runs ({reason(error, uri)}); "
            "see whether its artifact store is up, then try again."
        ) from error
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


def children(client: Any, experiment: str) -> list[Any]:
    """Every child run, the last attempt first (clocks may go backwards), page by page."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], "", max_results=1000, page_token=token)
        runs += [run for run in page if "harness.run_id" in run.data.tags]
        if not (token := page.token):
            return sorted(runs, key=lambda run: (-int(run.data.tags.get("harness.attempt", 1)), -run.info.start_time))


def _drop_partial(server: Server, record: Any) -> None:
    """Deletes what an earlier, broken attempt to send this record left on the server."""
    attempt = record.get("attempts", 1)
    query = f"tags.`harness.run_id` = '{record['run_id']}' AND tags.`harness.attempt` = '{attempt}'"
    for run in server.client.search_runs([server.experiment], query):
        server.client.delete_run(run.info.run_id)
