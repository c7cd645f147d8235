"""`run`: plan, schedule, track, report."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness.cli.launch import (
    check_writable,
    execution_options,
    generate_people,
    make_job,
    parse_duration,
    resources,
    short,
    stop_on_ctrl_c,
)
from harness.cli.options import apply_preset, load_preset, make_request, plugins_path, report_option, request_options
from harness.cli.plan import table
from harness.errors import HarnessError, UsageError
from harness.execution.progress import ProgressDisplay
from harness.planning import plan
from harness.planning.plan import Planned, Request
from harness.records import store
from harness.spec.job import Job
from harness.system.redact import mask


@click.command(
    epilog="Exit codes: 0 all ok or cached, 1 some run failed, 2 wrong usage or no data, 130 interrupted. "
    "Example: python -m harness run --backbones reidmamba,transreid --datasets all --data-root D --weights-root W"
)
@request_options
@execution_options
@report_option
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
def command(preset: str, **values: Any) -> int:
    """Trains and scores every backbone on every dataset, logs to MLflow and writes the report.

    Finished runs are never repeated; an interrupted one goes on from its last epoch.
    """
    settings = load_preset(preset)
    values = apply_preset(values, settings)
    request = make_request(values, settings)
    timeout = parse_duration(values["timeout"])
    if generate := settings.get("generate"):
        generate_people(request, generate, values["dry_run"])
    cells = plan.build(request)
    click.echo(table(cells))
    if values["dry_run"]:
        return 0
    if all(cell.state == plan.BLOCKED for cell in cells):
        raise UsageError("Nothing can run: every run of the plan is blocked, for the reasons above.")
    check_writable(request.results)
    try:
        store.write_plan(request.results, [cell.to_dict() for cell in cells])
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{request.results} takes no files ({why}); free space, or choose --results.") from error
    todo = [cell for cell in cells if cell.state == plan.TODO]
    folders = [cell.folder for cell in cells if cell.state != plan.BLOCKED]
    code = _run(request, todo, values, timeout, folders) if todo else send_missing(request, values, folders)
    finish(request, values)
    return code


def _run(request: Request, todo: list[Planned], values: dict[str, Any], timeout: float, folders: Sequence[Path]) -> int:
    """Runs what is to do; returns the exit code."""
    from harness.execution import ray_executor

    share = resources(values, len(todo), todo[0].spec.device, timeout)
    jobs = [make_job(cell, request, values, share.cpus) for cell in todo]
    stop = threading.Event()
    with ProgressDisplay(sys.stdout, jobs) as board, stop_on_ctrl_c(stop, board):
        tracker = make_tracker(request, values, board, folders)

        def on_event(job: Job, event: dict[str, Any]) -> None:
            board.event(job, event)
            if tracker:
                tracker.event(job, event)

        statuses = ray_executor.SCHEDULERS[values["scheduler"]](jobs, share, on_event, stop)
        good = len(statuses) == len(jobs) and all(s == "ok" for s in statuses.values())
        if tracker and not tracker.close("ok" if good else "interrupted" if stop.is_set() else "failed"):
            board.say("Not everything reached MLflow; 'python -m harness status --sync' sends the rest.")
    if stop.is_set():
        on = "without --force goes on with the runs that had begun" if request.force else "goes on from here"
        click.echo(f"Interrupted; what was finished is kept, and the same command {on}.", err=True)
        return 130
    return 0 if good else 1


def make_tracker(request: Request, values: dict[str, Any], board: ProgressDisplay, folders: Sequence[Path]) -> Any:
    """The tracker of an invocation, whose runs have these folders; None if it is not tracked."""
    if values["no_mlflow"]:
        return None
    from harness import tracking

    uri, (name, tags) = tracking.address(request.results, values["mlflow_uri"]), _described(request)
    return tracking.Tracker(request.results, uri, board.say, name=name, tags=tags, folders=lambda: folders)


def send_missing(request: Request, values: dict[str, Any], folders: Sequence[Path]) -> int:
    """Tracks what a driver that was killed, or whose server was away, did not; returns the exit code, always 0."""
    if not values["no_mlflow"]:
        from harness import tracking

        uri = tracking.address(request.results, values["mlflow_uri"])
        try:
            if sent := tracking.send_missing(request.results, uri, folders, *_described(request)):
                click.echo(f"Sent {sent} finished runs to MLflow that were missing there.")
        except HarnessError as error:
            click.echo(f"{error} {tracking.LATER}")
    return 0


def _described(request: Request) -> tuple[str, dict[str, str]]:
    """Name and tags of the parent run of an invocation."""
    tags = {"backbones": request.backbones, "datasets": request.datasets, "recipe": request.recipe}
    return f"{request.backbones} on {request.datasets}", tags


def finish(request: Request, values: dict[str, Any]) -> None:
    """Writes the report and says where everything is."""
    from harness import reporting, tracking

    page = Path(values["report_path"] or reporting.page_of(request.results)).absolute()
    reporting.write(request.results, page, plugins_path(request.paths.plugins))
    click.echo(f"\nReport: {short(page)}")
    if not values["no_mlflow"]:
        uri = tracking.address(request.results, values["mlflow_uri"])
        if uri.startswith("sqlite:"):
            words = [short(Path(sys.executable)), "-m", "mlflow", "ui", "--backend-store-uri", uri]
            click.echo(f"MLflow: {shlex.join(words)}")
        else:
            click.echo(f"MLflow: {mask(uri)}")
