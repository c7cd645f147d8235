"""Sends missing results to a tracking server, and restores a results folder from one."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records import epochs, store
from harness.system.redact import mask
from harness.tracking.content import is_sent, send, send_searches
from harness.tracking.presence import Presence
from harness.tracking.server import EXPERIMENT, Server, file_of, quiet, reason, trouble, usable
from harness.tuning import state

Overview = Callable[[Sequence[Path]], str]


def unsent(results: Path, uri: str) -> list[Path]:
    """Returns the folders of records that were not sent to this server completely."""
    folders = [(results / entry.path).parent for entry in store.index(results).values()]
    return [folder for folder in folders if not is_sent(folder, uri)]


def sync(results: Path, uri: str, overview: Overview = lambda folders: "") -> int:
    """Sends all missing records; returns how many.

    Args:
        results: the results folder.
        uri: the tracking server.
        overview: returns Markdown about the runs in these folders, for the page of the parent run.

    Raises:
        HarnessError: the server cannot be reached or returns an error.
    """
    return send_missing(results, uri, unsent(results, uri), "sync", {"command": "status --sync"}, overview)


def send_missing(
    results: Path,
    uri: str,
    folders: Sequence[Path],
    name: str,
    tags: dict[str, str],
    overview: Overview = lambda folders: "",
) -> int:
    """Sends the missing records of some folders as children of a new parent run; returns how many.

    Also closes the open runs of killed drivers of this results folder.

    Raises:
        HarnessError: the server cannot be reached or returns an error.
    """
    missing = [folder for folder in folders if (folder / store.RECORD).is_file() and not is_sent(folder, uri)]
    if not missing and not Presence.dead(results):
        return 0
    presence = Presence(results)
    try:
        server = Server.connect(uri, results)
        presence.close_dead(server)
        if missing:
            parent = server.start(name, {**tags, **presence.tags})
            for folder in missing:
                send(server, folder, parent)
            send_searches(server, parent, results, missing)
            if text := overview(missing):
                server.describe(parent, text)
            server.end(parent, "ok")
        presence.end()
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(trouble(error, uri)) from error
    return len(missing)


def restore(uri: str, results: Path) -> int:
    """Restores a results folder from a tracking server: the newest attempt of every run; returns how many.

    Raises:
        HarnessError: the server or its artifact store cannot be reached, or has no runs of this harness.
    """
    quiet()
    if (path := file_of(uri)) and not path.is_file():
        raise HarnessError(f"The MLflow database {path} does not exist. Check the address.")
    try:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        found = every_run(client, usable(experiment, uri)) if experiment else []
    except Exception as error:
        raise HarnessError(trouble(error, uri)) from error
    seen: set[str] = set()
    try:
        for run in children(found):
            run_id = run.data.tags["harness.run_id"]
            files = [f.path for f in client.list_artifacts(run.info.run_id) if not f.is_dir]
            if run_id in seen or "record.json" not in files:
                continue
            seen.add(run_id)
            _download(client, run.info.run_id, files, results)
        parents = [run.info.run_id for run in found if "harness.run_id" not in run.data.tags]
        _searches(client, parents, results)
    except HarnessError:
        raise
    except Exception as error:  # the artifact store may be another server
        raise HarnessError(
            f"Cannot download the files of the runs from MLflow at {mask(uri)} ({reason(error)}). "
            "Check whether its artifact store is running, then try again."
        ) from error
    if not seen:
        raise HarnessError(f"MLflow at {mask(uri)} has no finished runs in the experiment '{EXPERIMENT}'.")
    return len(seen)


def _download(client: Any, run: str, files: list[str], results: Path) -> None:
    """Downloads what the report needs of a run into its folder in `results`."""
    with tempfile.TemporaryDirectory(prefix="harness-mlflow-") as place:
        needed = [f for f in files if f in (store.RECORD, epochs.FILE) or re.fullmatch(r"per_query.*\.csv", f)]
        for file in needed:
            client.download_artifacts(run, file, place)
        folder = store.folder_of(results, store.read(Path(place)))
        folder.mkdir(parents=True, exist_ok=True)
        for file in needed:
            shutil.copyfile(Path(place) / Path(file).name, folder / Path(file).name)


def _searches(client: Any, parents: Sequence[str], results: Path) -> None:
    """Downloads the file of every search; the newest parent run that has it counts."""
    for parent in parents:
        for folder in client.list_artifacts(parent, state.FOLDER):
            target = results / folder.path / state.FILE
            if target.is_file() or not re.fullmatch(rf"{state.FOLDER}/\w[\w.+-]*", folder.path):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="harness-mlflow-") as place:
                shutil.copyfile(client.download_artifacts(parent, f"{folder.path}/{state.FILE}", place), target)


def every_run(client: Any, experiment: str) -> list[Any]:
    """All runs of an experiment, newest first."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], "", max_results=1000, page_token=token)
        runs += page
        if not (token := page.token):
            return sorted(runs, key=lambda run: -run.info.start_time)


def children(runs: Iterable[Any]) -> list[Any]:
    """The child runs, last attempt first, because clocks may differ; of equal attempts the newest."""
    found = [run for run in runs if "harness.run_id" in run.data.tags]
    return sorted(found, key=lambda run: (-int(run.data.tags.get("harness.attempt", 1)), -run.info.start_time))
