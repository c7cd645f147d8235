"""What `run` and `tune` share before and while runs go on: shares of the machine, generated data, Ctrl-C."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cli.options import mlflow_option
from harness.errors import HarnessError, UsageError
from harness.execution.progress import ProgressDisplay
from harness.execution.ray_executor import Resources
from harness.planning.plan import Planned, Request
from harness.records import store
from harness.spec.job import Job
from harness.system import files, gpu, processes


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options about where and how runs are carried out; none of them changes a number."""
    for option in reversed(
        (
            click.option("--scheduler", type=click.Choice(["ray", "inline"]), default="ray", show_default=True),
            click.option("--gpus-per-run", type=float, help="GPUs a run, fractions allowed. [default: 1, CPU: 0]"),
            click.option("--cpus-per-run", type=int, default=0, help="CPU cores, threads a run. [default: fair share]"),
            click.option("--max-concurrent", type=int, default=0, help="Runs at once; 0 is as many as fit."),
            click.option("--timeout", default="", metavar="10h", help="Hard limit of one run: 90s, 30m, 10h."),
            click.option("--address", default="", help="Existing Ray cluster to join, for example 'auto'."),
            click.option("--workers", type=int, default=0, help="Loader threads a run; batches do not depend on it."),
            click.option("--allow-count-mismatch", is_flag=True, help="Go on when counts differ from the card."),
            mlflow_option,
            click.option("--no-mlflow", is_flag=True, help="Do not track."),
        )
    ):
        command = option(command)
    return command


def make_job(cell: Planned, request: Request, values: dict[str, Any], threads: int) -> Job:
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
        threads=threads,
        workers=values["workers"],
        allow_count_mismatch=values["allow_count_mismatch"],
        force=request.force,
        attempt=attempt,
        asked=cell.asked,
    )


def resources(values: dict[str, Any], runs: int, device: str, timeout: float) -> Resources:
    """Fair defaults: a GPU a run, or on a CPU the cores divided by the runs at once."""
    gpus = values["gpus_per_run"]
    gpus = (1.0 if device == "cuda" else 0.0) if gpus is None else gpus
    if gpus < 0 or values["cpus_per_run"] < 0 or values["max_concurrent"] < 0:
        raise UsageError("--gpus-per-run, --cpus-per-run and --max-concurrent must not be negative.")
    alone = values["scheduler"] == "inline" or (gpus == 0 and not values["address"])
    at_once = values["max_concurrent"] or (1 if alone else 0)
    cpus = values["cpus_per_run"] or max(1, processes.cores() // max(1, min(runs, at_once or 1)))
    if gpus > 0 and not values["cpus_per_run"]:
        here = 0 if values["address"] else int(len(gpu.names()) / gpus)  # runs at once; of a cluster nothing is known
        cpus = max(1, min(cpus, 4, processes.cores() // max(1, here)))
    return Resources(gpus, cpus, at_once, timeout, values["address"])


def short(path: Path) -> str:
    """A path as the user would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def generate_people(request: Request, settings: dict[str, Any], dry_run: bool) -> bool:
    """Draws the preset's people for the datasets asked for, once; returns whether a dry run left some undrawn.

    A data root that holds other data is left as it is: stand-ins beside real data look like real data.
    """
    from datasets.synthetic import LAYOUTS, foreign, generate

    root = Path(request.paths.data_root)
    plugins = Path(request.paths.plugins) if request.paths.plugins else None
    asked = ",".join(filter(None, (request.datasets, request.eval_datasets)))
    cards = [entry.card for entry in registry.resolve_datasets(asked, plugins)]
    folders = {folder for card in cards for layout in card.layouts for folder in layout.folders}
    names = [name for name, layout in LAYOUTS.items() if layout.folder in folders]
    absent = [name for name in names if not (root / LAYOUTS[name].folder).exists()]
    other = foreign(root)
    if absent and other:
        click.echo(f"No people are drawn into {short(root)}, because it holds other data ({other}).")
    elif absent and dry_run:
        click.echo(f"People would be drawn into {short(root)} first, for {', '.join(absent)}.")
    if dry_run or other or not names:
        return bool(dry_run and absent and not other)
    generate(
        root,
        layouts=names,
        scale=settings["scale"],
        seed=settings.get("seed", 0),
        size=tuple(settings.get("size", [128, 64])),
        progress=_drawn(),
        workers=min(4, processes.cores()),
    )
    return False


def _drawn() -> Any:
    """A progress callback that prints at most once a second."""
    import time

    last = [0.0]

    def show(done: int, total: int) -> None:
        if done == total or time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            click.echo(f"  drawing people: {done}/{total} images")

    return show


def check_writable(results: Path) -> None:
    """Refuses a results folder that cannot be written, before anything runs; sweeps what killed drivers left."""
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


@contextmanager
def stop_on_ctrl_c(stop: threading.Event, board: ProgressDisplay) -> Iterator[threading.Event]:
    """One Ctrl-C lets runs save and stop; a second one ends them at once.

    Yields whether there was one, which `stop` does not tell: something else may have set it.
    """
    pressed = threading.Event()

    def handler(*_: Any) -> None:
        if pressed.is_set():
            board.say("Stopping at once.")
            processes.end_descendants()
            os._exit(130)
        board.say("Stopping: runs keep their last epoch. Ctrl-C again stops at once.")
        pressed.set()
        stop.set()

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
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
