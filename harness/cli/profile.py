"""`profile`: the efficiency study."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness.cli.launch import check_writable, make_job, parse_duration, stop_on_ctrl_c
from harness.cli.options import (
    format_option,
    make_request,
    mlflow_option,
    plugins_option,
    report_option,
    results_option,
)
from harness.cli.run import finish, make_tracker, send_missing
from harness.errors import UsageError
from harness.execution.progress import ProgressDisplay
from harness.planning import profile
from harness.planning.plan import BLOCKED, TODO, Planned, Request
from harness.records import store
from harness.system import processes

NOT_ASKED: dict[str, Any] = {
    "datasets": profile.DATASET,
    "recipe": "profile",
    "seeds": "0",
    "data_root": "",
    "weights_root": "",
    "cache": "",
    "eval_datasets": "",
    "from_scratch": True,
    "data_option": (),
    "overrides": (),
    "allow_count_mismatch": False,
    "workers": 0,
}
"""What a request of `run` has besides; nothing is read, so none of it matters."""


@click.command(
    epilog="Example: python -m harness profile --backbones all --image-size 256x128,384x128 --batch 1,64,128"
)
@click.option("--backbones", help="Comma list of names, or 'all'.", default="all", show_default=True)
@click.option("--image-size", default="256x128", show_default=True, help="Comma list of HEIGHTxWIDTH.")
@click.option("--batch", default="1,64", show_default=True, help="Batch sizes of inference.")
@click.option("--train-batch", default="64", show_default=True, help="Batch sizes of training; empty leaves it out.")
@click.option("--precision", default="fp32", show_default=True, help="Comma list of fp32, bf16, fp16.")
@click.option("--compile", "compiled", is_flag=True, help="Measure with torch.compile too.")
@click.option(
    "--heights", default="256,512,768,1024", show_default=True, help="Heights of the scaling study, or empty."
)
@click.option("--heights-batch", type=click.IntRange(1), default=4, show_default=True, help="Its batch size.")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Of repeats a cell.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads. [default: all cores; with a GPU 4]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--option", "options", multiple=True, metavar="[BACKBONE.]KEY=VALUE", help="Build option.")
@click.option("--camera-embedding", default="", metavar="on|off", help="Camera embedding of backbones.")
@click.option("--timeout", default="", metavar="10m", help="Hard limit of one cell: 90s, 30m, 10h.")
@click.option("--force", is_flag=True, help="Measure again what is finished.")
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@mlflow_option
@click.option("--no-mlflow", is_flag=True, help="Do not track.")
@report_option
@plugins_option
@format_option
@results_option
def command(form: str, **values: Any) -> int:
    """Measures what backbones cost: parameters, FLOPs, time and memory of inference and of a training step.

    One process a cell, one cell at a time; use a machine that has nothing else to do. Random weights and images:
    cost does not depend on them.
    """
    values = {**NOT_ASKED, **values}
    request, timeout = make_request(values, {}), parse_duration(values["timeout"])
    cells = profile.build(request, _study(values, request))
    if form == "json":
        click.echo(json.dumps([_described(cell) for cell in cells], indent=1))
        return 0
    click.echo(_table(cells))
    if values["dry_run"]:
        return 0
    todo = [cell for cell in cells if cell.state == TODO]
    check_writable(request.results)
    folders = [cell.folder for cell in cells if cell.state != BLOCKED]
    code = _measure(request, todo, values, timeout, folders) if todo else send_missing(request, values, folders)
    finish(request, values)
    return code


def _study(values: dict[str, Any], request: Request) -> profile.Study:
    threads = values["threads"] or processes.cores()
    if not values["threads"] and profile.resolve_device(request.device) == "cuda":
        threads = min(threads, 4)
    sizes = [_size(text) for text in _split(values["image_size"])]
    if not sizes:
        raise UsageError("--image-size is empty; give at least one, for example 256x128.")
    return profile.Study(
        image_sizes=sizes,
        batches=_numbers("--batch", values["batch"]),
        train_batches=_numbers("--train-batch", values["train_batch"]),
        precisions=_split(values["precision"]),
        heights=_numbers("--heights", values["heights"]),
        heights_batch=values["heights_batch"],
        compiled=values["compiled"],
        threads=threads,
        seconds=values["seconds"],
    )


def _measure(
    request: Request, todo: list[Planned], values: dict[str, Any], timeout: float, folders: Sequence[Path]
) -> int:
    """Runs the cells one after another; returns the exit code. A cell that is out of memory is a result."""
    from harness.execution import ray_executor

    jobs = [make_job(cell, request, values, cell.spec.values["cell"]["threads"]) for cell in todo]
    words = {job.folder: str(profile.Condition.from_values(job.spec.values)) for job in jobs}
    stop = threading.Event()
    with ProgressDisplay(sys.stdout, jobs) as board, stop_on_ctrl_c(stop, board):
        tracker = make_tracker(request, values, board, folders)

        def on_event(job: Any, event: dict[str, Any]) -> None:
            if event["event"] == "finished":
                board.say(f"{words[job.folder]}: {_outcome(request, job)}")
            board.event(job, event)
            if tracker:
                tracker.event(job, event)

        statuses = ray_executor.inline(jobs, ray_executor.Resources(max_concurrent=1, timeout=timeout), on_event, stop)
        good = set(statuses.values()) <= {"ok", "oom"}
        if tracker and not tracker.close("interrupted" if stop.is_set() else "ok" if good else "failed"):
            board.say("Not everything reached MLflow; 'python -m harness status --sync' sends the rest.")
    if stop.is_set():
        return 130
    return 0 if good else 1


def _outcome(request: Request, job: Any) -> str:
    """What a cell found out, on one line, with whatever casts doubt on it."""
    record = store.find(request.results, job.spec)
    if record is None or record["status"] != "ok":
        error = (record or {}).get("error")
        return error["message"] if error else "no record"
    numbers = record["efficiency"]
    rate = numbers.get("inference_images_per_second") or numbers.get("train_images_per_second")
    peak = numbers.get("peak_memory_bytes")
    words = [f"{rate:.4g} images/s", f"{numbers['repeats']} repeats, +-{100 * numbers['relative_error']:.1f} %"]
    words += [f"{peak / 2**20:,.0f} MiB"] if peak is not None else []
    doubts = numbers["conditions"]["notes"]
    return ", ".join(words) + (f" ({'; '.join(doubts)})" if doubts else "")


def _table(cells: list[Planned]) -> str:
    lines = [
        f"{cell.state:8} {cell.spec.backbone:24} {profile.Condition.from_values(cell.spec.values)}  {cell.reason}"
        for cell in cells
    ]
    hardware = cells[0].spec.values["hardware"] if cells else ""
    return "\n".join([*lines, "", f"{len(cells)} cells on {hardware}."])


def _described(cell: Planned) -> dict[str, Any]:
    """One object a cell, as `plan` gives them, with its condition."""
    return {**cell.to_dict(), **profile.Condition.from_values(cell.spec.values).described()}


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 0 and int(width) > 0):
        raise UsageError(f"--image-size wants HEIGHTxWIDTH, such as 256x128, found '{text}'.")
    return int(height), int(width)


def _numbers(flag: str, text: str) -> list[int]:
    parts = _split(text)
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{flag} wants whole numbers above zero, separated by commas, found '{text}'.")
    return [int(part) for part in parts]
