"""Executes planned runs for `run`, `profile` and `evaluate`: checks, drives, tracks and writes the report."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from click import echo

from harness.errors import HarnessError, UsageError
from harness.execution import auditing
from harness.execution.driver import Driver, Invocation
from harness.execution.options import Execution, Resources
from harness.execution.progress import ProgressDisplay
from harness.planning.plan import BLOCKED, TODO, Planned
from harness.planning.request import Request
from harness.records import store
from harness.records.schema import Record
from harness.spec.job import Job
from harness.system import files
from harness.system.paths import short
from harness.system.redact import mask

INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """Result of an invocation.

    Attributes:
        code: 0 if all runs succeeded, 1 if any failed, 130 if the user stopped them.
        folders: folders of the runs, in the order of the plan, without the blocked ones.
    """

    code: int
    folders: list[Path] = field(default_factory=list)

    def finished(self) -> list[Path]:
        """Returns the folders of all runs.

        Raises:
            KeyboardInterrupt: the user stopped the runs.
        """
        if self.code == INTERRUPTED:
            raise KeyboardInterrupt
        return self.folders

    def records(self) -> list[Record]:
        """Reads the records of the runs that have one.

        Raises:
            KeyboardInterrupt: the user stopped the runs.
        """
        return [store.read(folder) for folder in self.finished() if (folder / store.RECORD).is_file()]


def run(
    request: Request,
    cells: Sequence[Planned],
    execution: Execution,
    *,
    keep_plan: bool = False,
    display: Callable[[list[Job]], ProgressDisplay] | None = None,
    accepted: Iterable[str] = ("ok",),
) -> Outcome:
    """Executes the runs of a plan that are not finished yet.

    Args:
        request: the request behind the plan.
        cells: the plan.
        execution: how runs are executed.
        keep_plan: write the plan into the results folder, so that the report shows missing runs.
        display: creates the progress display of the jobs.
        accepted: statuses that count as success.

    Raises:
        UsageError: every run is blocked, or the results folder is not writable.
    """
    if all(cell.state == BLOCKED for cell in cells):
        raise UsageError(
            f"Nothing can run: all {len(cells)} runs of the plan are blocked. Reason of the first: {cells[0].reason}"
        )
    check_writable(request.results)
    if keep_plan:
        _write_plan(request.results, cells)
    folders = [cell.folder for cell in cells if cell.state != BLOCKED]
    todo = [cell for cell in cells if cell.state == TODO]
    if execution.audit:
        auditing.finished(cells, request, execution)
    if not todo:
        if execution.mlflow:
            send_missing(request, execution, folders)
        return Outcome(0, folders)
    resources = execution.resources(len(todo), todo[0].spec.device)
    jobs = [make_job(cell, request, execution, resources) for cell in todo]
    invocation = Invocation(*describe(request), folders=lambda: folders)
    with Driver(request.results, execution, invocation, accepted=accepted) as driver:
        driver.drive(jobs, resources, display(jobs) if display else ProgressDisplay(sys.stdout, jobs))
    return Outcome(INTERRUPTED if driver.interrupted else 0 if driver.good else 1, folders)


def make_job(cell: Planned, request: Request, execution: Execution, resources: Resources) -> Job:
    """Creates the job of a planned run; its attempt number is one above that on record."""
    attempt = 1
    try:
        if (known := store.find(request.results, cell.spec)) is not None:
            attempt = int(known.get("attempts", 1)) + 1
    except HarnessError:
        attempt = 2
    return Job(
        spec=cell.spec,
        folder=str(cell.folder.absolute()),
        paths=request.paths,
        threads=cell.spec.values.get("cell", {}).get("threads") or resources.threads,
        workers=execution.workers,
        processes=resources.processes,
        allow_count_mismatch=execution.allow_count_mismatch,
        trust_pickle=cell.trust_pickle,
        force=request.force,
        input_file=cell.input_file,
        attempt=attempt,
        audits=execution.audit,
        asked=cell.asked,
    )


def check_writable(results: Path) -> None:
    """Creates the results folder if needed, and removes temporary files of killed drivers.

    Raises:
        UsageError: the folder is not writable.
    """
    from harness.tuning import state

    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
        for folder in (results, *(results / state.FOLDER).glob("*")):
            files.sweep(folder)
    except OSError as error:
        raise UsageError(
            f"The results folder {results} is not writable ({error.strerror}). Choose another with --results."
        ) from error


def _write_plan(results: Path, cells: Sequence[Planned]) -> None:
    """Writes the plan.

    Raises:
        UsageError: the file could not be written.
    """
    try:
        store.write_plan(results, [cell.to_dict() for cell in cells])
    except OSError as error:
        why = error.strerror or error
        raise UsageError(
            f"Cannot write to {results} ({why}). Free some space, or choose another folder with --results."
        ) from error


def send_missing(request: Request, execution: Execution, folders: Sequence[Path]) -> None:
    """Sends finished runs that are missing on the tracking server, for example after a crash."""
    from harness import tracking

    uri = tracking.address(request.results, execution.mlflow_uri)
    try:
        if sent := tracking.send_missing(request.results, uri, folders, *describe(request)):
            echo(f"Sent {sent} finished runs to MLflow that were missing there.")
    except HarnessError as error:
        echo(f"{error} {tracking.LATER}")


def describe(request: Request) -> tuple[str, dict[str, str]]:
    """Returns name and tags of an invocation."""
    tags = {"backbones": request.backbones, "datasets": request.datasets, "recipe": request.recipe}
    return f"{request.backbones} on {request.datasets}", tags


def page_of(request: Request, execution: Execution) -> Path:
    """Returns the path of the report of the results folder."""
    from harness import reporting

    return Path(execution.report_path or reporting.page_of(request.results)).absolute()


def write_page(request: Request, execution: Execution) -> Path:
    """Writes the report of the results folder and prints its path and the MLflow address; returns the path."""
    from harness import reporting, tracking

    page = page_of(request, execution)
    reporting.write(request.results, page, request.plugins)
    echo(f"\nReport: {short(page)}")
    if execution.mlflow:
        uri = tracking.address(request.results, execution.mlflow_uri)
        words = [short(Path(sys.executable)), "-m", "mlflow", "ui", "--backend-store-uri", uri]
        echo(f"MLflow: {shlex.join(words) if uri.startswith('sqlite:') else mask(uri)}")
    return page
