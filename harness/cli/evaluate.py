"""`evaluate`: score a checkpoint or stored features, without training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from harness.cli.launch import check_writable, make_job
from harness.cli.options import UserPath, apply_preset, load_preset, make_request, mlflow_option, setting_options
from harness.cli.run import make_tracker
from harness.errors import UsageError
from harness.execution.progress import ProgressDisplay
from harness.planning import input_file
from harness.planning.plan import Request
from harness.records import store
from harness.records.schema import matched
from harness.spec.job import Job
from harness.system import processes


@click.command(
    epilog="Example: python -m harness evaluate --backbone transreid --checkpoint transformer_120.pth "
    "--dataset market1501 --recipe native --data-root DIR"
)
@click.option("--backbone", required=True, help="Backbone of the checkpoint; with --features any name for the row.")
@click.option("--dataset", required=True, help="Dataset to score on.")
@click.option(
    "--checkpoint",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="File of the original code, or a checkpoint.pt of a run.",
)
@click.option(
    "--features",
    default="",
    metavar="FILE|DIR",
    type=UserPath(),
    help="Features of query and gallery: .npz, .mat, a torch file, or a folder of .npy; see docs/features.md.",
)
@click.option(
    "--camera-embedding",
    type=click.Choice(["on", "off", "mean"]),
    default=None,
    help="Of the checkpoint: on another dataset cameras are unknown, and their mean is the neutral choice.",
)
@click.option("--trust-pickle", is_flag=True, help="Allow a file that runs code when it is read.")
@click.option("--allow-count-mismatch", is_flag=True, help="Go on when counts differ from the card; recorded.")
@click.option("--force", is_flag=True, help="Score again what was scored.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads. [default: all cores]")
@click.option("--workers", type=click.IntRange(0), default=0, help="Loader threads; scores do not depend on it.")
@mlflow_option
@click.option("--no-mlflow", is_flag=True, help="Do not track.")
@setting_options
def command(
    backbone: str,
    dataset: str,
    checkpoint: str,
    features: str,
    camera_embedding: str | None,
    trust_pickle: bool,
    threads: int,
    preset: str,
    **values: Any,
) -> int:
    """Scores a checkpoint or stored features with this harness's evaluator and writes a record.

    A file that does not fit is refused with exit code 2, and nothing is written.
    """
    if bool(checkpoint) == bool(features):
        raise UsageError("Give either --checkpoint FILE or --features FILE.")
    stored = Path(checkpoint or features).absolute()
    if not (stored.is_file() or (features and stored.is_dir())):
        raise UsageError(f"{stored} does not exist.")
    settings = load_preset(preset)
    one = {"backbones": backbone, "datasets": dataset, "seeds": "0", "eval_datasets": "", "from_scratch": True}
    one["camera_embedding"] = camera_embedding if camera_embedding in ("on", "off") else ""
    request = make_request({**apply_preset(values, settings), **one}, settings)
    if checkpoint:
        typed = make_request({**values, **one}, {})  # without the preset, which nobody typed option by option
        cell = input_file.plan_checkpoint(
            request, typed, stored, camera_embedding=camera_embedding or "", trust_pickle=trust_pickle
        )
    elif camera_embedding:
        raise UsageError("--camera-embedding is of a checkpoint; stored features are scored as they are.")
    else:
        cell = input_file.plan_features(request, stored)
    check_writable(request.results)
    job = replace(
        make_job(cell, request, values, threads or processes.cores()), input_file=str(stored), trust_pickle=trust_pickle
    )
    return _run(request, job, cell.folder, values)


def _run(request: Request, job: Job, folder: Path, values: dict[str, Any]) -> int:
    from harness.execution import process

    with ProgressDisplay(sys.stdout, [job]) as board:
        tracker = make_tracker(request, values, board, [folder])

        def on_event(event: dict[str, Any]) -> None:
            board.event(job, event)
            if tracker:
                tracker.event(job, event)

        status = process.run(job, on_event)
        on_event({"event": "finished", "status": status})
        if tracker and not tracker.close("ok" if status == "ok" else "failed"):
            board.say("Not everything reached MLflow; 'python -m harness status --sync' sends the rest.")
    record = store.read(folder)
    for row in record["evaluations"]:
        click.echo(_in_words(row))
    if record["error"]:
        click.echo(f"Error: {record['error']['message']}", err=True)
    click.echo(f"Record: {folder / 'record.json'}")
    return 0 if status == "ok" else 1


def _in_words(row: Mapping[str, Any]) -> str:
    marks = "".join(f" +{m}" for m in ("flip", "rerank") if row[m])
    bounds = row["interval"].get("mAP")
    interval = " (95% interval {:.2%} to {:.2%})".format(*bounds) if bounds else ""
    scores = [f"mAP {row['mAP']:.2%}{interval}", f"rank-1 {row['rank-1']:.2%}", f"mINP {row['mINP']:.2%}", matched(row)]
    return f"{row['dataset']}{marks}: {', '.join(filter(None, scores))}"
