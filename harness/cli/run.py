"""`run`: plan, schedule, track, report."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from harness import plan, store
from harness.cli.options import apply_preset, load_preset, make_request, request_options
from harness.cli.plan import table
from harness.errors import HarnessError, UsageError
from harness.job import Job
from harness.plan import Planned, Request
from harness.progress import Board


@click.command(
    epilog="Exit codes: 0 all ok or cached, 1 some run failed, 2 wrong usage or no data, 130 interrupted. "
    "Example: python -m harness run --backbones reidmamba,transreid --datasets all --data-root DIR"
)
@request_options
@click.option("--scheduler", type=click.Choice(["ray", "inline"]), default="ray", show_default=True)
@click.option("--gpus-per-run", type=float, default=None, help="GPUs a run, fractions allowed. [default: 1, CPU: 0]")
@click.option("--cpus-per-run", type=int, default=0, help="CPU cores and threads a run. [default: fair share]")
@click.option("--max-concurrent", type=int, default=0, help="Runs at once; 0 is as many as fit.")
@click.option("--timeout", default="", metavar="10h", help="Hard limit of one run: 90s, 30m, 10h.")
@click.option("--address", default="", help="Existing Ray cluster to join, for example 'auto'.")
@click.option("--workers", type=int, default=0, help="Loader processes a run; batches do not depend on it.")
@click.option("--allow-count-mismatch", is_flag=True, help="Go on when counts differ from the card; recorded.")
@click.option("--mlflow-uri", default="", help="Tracking server; $MLFLOW_TRACKING_URI or sqlite in the results.")
@click.option("--no-mlflow", is_flag=True, help="Do not track.")
@click.option("--report", "report_path", default="", metavar="FILE", help="Page to write. [default: BENCHMARKS.md]")
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
        _generate(request, generate, values["dry_run"])
    cells = plan.build(request)
    click.echo(table(cells))
    if values["dry_run"]:
        return 0
    if all(cell.state == plan.BLOCKED for cell in cells):
        raise UsageError("Nothing can run: every run of the plan is blocked, for the reasons above.")
    _writable(request.results)
    store.write_plan(request.results, [cell.to_dict() for cell in cells])
    todo = [cell for cell in cells if cell.state == plan.TODO]
    code = _run(request, todo, values, timeout) if todo else 0
    _finish(request, values, todo)
    return code


def _run(request: Request, todo: list[Planned], values: dict[str, Any], timeout: float) -> int:
    """Runs what is to do; returns the exit code."""
    from harness import schedule

    resources = _resources(values, len(todo), todo[0].spec.device, timeout)
    jobs = [_job(cell, request, values, resources.cpus) for cell in todo]
    stop = threading.Event()
    with Board(sys.stdout, jobs) as board, _stop_on_ctrl_c(stop, board):
        tracker = _tracker(request, values, board)

        def on_event(job: Job, event: dict[str, Any]) -> None:
            board.event(job, event)
            if tracker:
                tracker.event(job, event)

        statuses = schedule.SCHEDULERS[values["scheduler"]](jobs, resources, on_event, stop)
        good = len(statuses) == len(jobs) and all(s == "ok" for s in statuses.values())
        if tracker and not tracker.close("ok" if good else "interrupted" if stop.is_set() else "failed"):
            board.say("Not everything reached MLflow; 'python -m harness status --sync' sends the rest.")
    if stop.is_set():
        click.echo("Interrupted; what was finished is kept, and the same command goes on from here.", err=True)
        return 130
    return 0 if good else 1


def _job(cell: Planned, request: Request, values: dict[str, Any], threads: int) -> Job:
    attempt = 1
    try:
        if (known := store.find(request.results, cell.spec)) is not None:
            attempt = int(known.get("attempts", 1)) + 1
    except HarnessError:
        attempt = 2
    return Job(
        spec=cell.spec,
        folder=str(cell.folder.absolute()),
        places=request.places,
        threads=threads,
        workers=values["workers"],
        allow_count_mismatch=values["allow_count_mismatch"],
        force=request.force,
        attempt=attempt,
    )


def _resources(values: dict[str, Any], runs: int, device: str, timeout: float) -> Any:
    """Fair defaults: a GPU a run, or on a CPU the cores divided by the runs at once."""
    from harness.schedule import Resources

    gpus = values["gpus_per_run"]
    gpus = (1.0 if device == "cuda" else 0.0) if gpus is None else gpus
    if gpus < 0 or values["cpus_per_run"] < 0 or values["max_concurrent"] < 0:
        raise UsageError("--gpus-per-run, --cpus-per-run and --max-concurrent must not be negative.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = values["max_concurrent"] or (1 if values["scheduler"] == "inline" or gpus == 0 else 0)
    cpus = values["cpus_per_run"] or max(1, cores // max(1, min(runs, at_once or 1)))
    if gpus > 0 and not values["cpus_per_run"]:
        cpus = max(1, min(cpus, 4))
    return Resources(gpus, cpus, at_once, timeout, values["address"])


def _tracker(request: Request, values: dict[str, Any], board: Board) -> Any:
    if values["no_mlflow"]:
        return None
    from harness import tracking

    uri = values["mlflow_uri"] or tracking.default_uri(request.results)
    tags = {"backbones": request.backbones, "datasets": request.datasets, "recipe": request.recipe}
    name = f"{request.backbones} on {request.datasets}"
    return tracking.Tracker(request.results, uri, board.say, name=name, tags=tags)


def _finish(request: Request, values: dict[str, Any], todo: list[Planned]) -> None:
    """Writes the report and says where everything is."""
    from harness import report, tracking

    page = Path(values["report_path"] or "BENCHMARKS.md").absolute()
    report.write(request.results, page)
    click.echo(f"\nReport: {_short(page)}")
    if not values["no_mlflow"]:
        uri = values["mlflow_uri"] or tracking.default_uri(request.results)
        if uri.startswith("sqlite:"):
            click.echo(f"MLflow: {_short(Path(sys.executable), resolve=False)} -m mlflow ui --backend-store-uri {uri}")
        else:
            click.echo(f"MLflow: {tracking.mask(uri)}")


def _short(path: Path, *, resolve: bool = True) -> str:
    """A path as the user would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _generate(request: Request, settings: dict[str, Any], dry_run: bool) -> None:
    """Draws the preset's generated people, once."""
    from datasets.synthetic import generate

    root = Path(request.places.data_root)
    if dry_run and not root.is_dir():
        click.echo(f"Generated data would be drawn into {_short(root)} first.")
        return
    size = settings.get("size", [128, 64])
    generate(root, scale=settings["scale"], seed=settings.get("seed", 0), size=tuple(size), progress=_drawn())


def _drawn() -> Any:
    """A progress callback that prints at most once a second."""
    import time

    last = [0.0]

    def show(done: int, total: int) -> None:
        if done == total or time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            click.echo(f"  drawing people: {done}/{total} images")

    return show


def _writable(results: Path) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise UsageError(
            f"The results folder {results} is not writable ({error.strerror}); choose --results."
        ) from error


@contextmanager
def _stop_on_ctrl_c(stop: threading.Event, board: Board) -> Iterator[None]:
    """One Ctrl-C lets runs save and stop; a second one ends them at once."""

    def handler(*_: Any) -> None:
        if stop.is_set():
            board.say("Stopping at once.")
            os.killpg(os.getpgrp(), signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(130)
        board.say("Stopping: runs keep their last epoch. Ctrl-C again stops at once.")
        stop.set()

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def parse_duration(text: str) -> float:
    """Parses `90s`, `30m`, `10h` or plain seconds; empty is no limit."""
    if not text:
        return 0.0
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if seconds <= 0:
        raise UsageError(f"A duration is like 90s, 30m or 10h, found '{text}'.")
    return seconds
