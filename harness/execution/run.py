"""From planned runs to records, for run, profile and evaluate: check, drive, track, write the page."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from click import echo

from harness.errors import HarnessError, UsageError
from harness.execution.driver import Driver, Invocation
from harness.execution.options import Execution
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
    """What came of an invocation.

    Attributes:
        code: 0 all runs are well, 1 some run failed, 130 the user stopped it.
        folders: folders of the runs, in the order of the plan, without the blocked ones.
    """

    code: int
    folders: list[Path] = field(default_factory=list)

    def finished(self) -> list[Path]:
        """The folders of all runs.

        Raises:
            KeyboardInterrupt: the user stopped the runs.
        """
        if self.code == INTERRUPTED:
            raise KeyboardInterrupt
        return self.folders

    def records(self) -> list[Record]:
        """The records of the runs that have one.

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
    """Carries out the runs of a plan that are to do; finished ones are never repeated.

    Args:
        request: what was asked for.
        cells: the plan.
        execution: how runs are carried out.
        keep_plan: write the plan into the results folder, so that the page shows what is still to come.
        display: makes what shows the jobs.
        accepted: statuses that count as good.

    Raises:
        UsageError: every run is blocked, or the results folder takes no files.
    """
    if all(cell.state == BLOCKED for cell in cells):
        raise UsageError(
            f"Nothing can run: all {len(cells)} runs of the plan are blocked, the first because: {cells[0].reason}"
        )
    check_writable(request.results)
    if keep_plan:
        _keep(request.results, cells)
    folders = [cell.folder for cell in cells if cell.state != BLOCKED]
    todo = [cell for cell in cells if cell.state == TODO]
    if not todo:
        if execution.mlflow:
            send_missing(request, execution, folders)
        return Outcome(0, folders)
    share = execution.share(len(todo), todo[0].spec.device)
    jobs = [make_job(cell, request, execution, share.cpus) for cell in todo]
    invocation = Invocation(*describe(request), folders=lambda: folders)
    with Driver(request.results, execution, invocation, accepted=accepted) as driver:
        driver.drive(jobs, share, display(jobs) if display else ProgressDisplay(sys.stdout, jobs))
    return Outcome(INTERRUPTED if driver.interrupted else 0 if driver.good else 1, folders)


def make_job(cell: Planned, request: Request, execution: Execution, threads: int) -> Job:
    """The job of a planned run; its attempt follows those on record."""
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
        threads=cell.spec.values.get("cell", {}).get("threads") or threads,
        workers=execution.workers,
        allow_count_mismatch=execution.allow_count_mismatch,
        trust_pickle=cell.trust_pickle,
        force=request.force,
        input_file=cell.input_file,
        attempt=attempt,
        asked=cell.asked,
    )


def check_writable(results: Path) -> None:
    """Removes what killed drivers left in a results folder.

    Raises:
        UsageError: the folder cannot be written; said before anything runs.
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
            f"The results folder {results} is not writable ({error.strerror}); choose --results."
        ) from error


def _keep(results: Path, cells: Sequence[Planned]) -> None:
    """Writes the plan; UsageError if the disk does not take it."""
    try:
        store.write_plan(results, [cell.to_dict() for cell in cells])
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{results} takes no files ({why}); free space, or choose --results.") from error


def send_missing(request: Request, execution: Execution, folders: Sequence[Path]) -> None:
    """Tracks finished runs that a killed driver, or one whose server was away, did not."""
    from harness import tracking

    uri = tracking.address(request.results, execution.mlflow_uri)
    try:
        if sent := tracking.send_missing(request.results, uri, folders, *describe(request)):
            echo(f"Sent {sent} finished runs to MLflow that were missing there.")
    except HarnessError as error:
        echo(f"{error} {tracking.LATER}")


def describe(request: Request) -> tuple[str, dict[str, str]]:
    """Name and tags of an invocation."""
    tags = {"backbones": request.backbones, "datasets": request.datasets, "recipe": request.recipe}
    return f"{request.backbones} on {request.datasets}", tags


def write_page(request: Request, execution: Execution) -> Path:
    """Writes the report of the results folder and says where everything is; returns the page."""
    from harness import reporting, tracking

    page = Path(execution.report_path or reporting.page_of(request.results)).absolute()
    reporting.write(request.results, page, request.plugins)
    echo(f"\nReport: {short(page)}")
    if execution.mlflow:
        uri = tracking.address(request.results, execution.mlflow_uri)
        words = [short(Path(sys.executable)), "-m", "mlflow", "ui", "--backend-store-uri", uri]
        echo(f"MLflow: {shlex.join(words) if uri.startswith('sqlite:') else mask(uri)}")
    return page
