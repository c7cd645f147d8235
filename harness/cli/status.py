"""`status`: the records that are there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from harness.cli.groups import command as grouped
from harness.cli.options import format_option, mlflow_option, results_option
from harness.execution.progress import duration
from harness.records import store
from harness.records.schema import matched
from harness.system.redact import mask, readable


@grouped(epilog="Example: python -m harness status --results demo/results")
@results_option
@format_option
@click.option("--sync", is_flag=True, help="Send unsent records to MLflow.")
@mlflow_option
def command(results: Path, form: str, sync: bool, mlflow_uri: str) -> int:
    """Shows every record: its status, its scores, or why it failed."""
    problems: list[str] = []
    entries = list(store.index(results, lambda error: problems.append(str(error))).values())
    if form == "json":
        click.echo(json.dumps([entry._asdict() for entry in entries], indent=1))
    else:
        for entry in entries:
            click.echo(readable(_line(entry)))
        counts = Counter(entry.status for entry in entries)
        summary = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        click.echo(f"{len(entries)} records in {results}{': ' + summary if summary else ''}.")
    for problem in problems:
        click.echo(f"Warning: {readable(problem)}", err=True)
    if sync or (form == "text" and entries):
        _tracked(results.absolute(), mlflow_uri, sync)
    return 0


def _tracked(results: Path, uri: str, sync: bool) -> None:
    """Sends unsent records to MLflow, or says how many there are."""
    from harness import tracking

    if sync:
        uri = tracking.used_address(results, uri)
        click.echo(f"Sent {tracking.sync(results, uri)} records to MLflow at {mask(uri)}.")
    elif uri or tracking.is_tracked(results):
        uri = tracking.used_address(results, uri, whole=False)
        if missing := tracking.unsent(results, uri):
            click.echo(f"{len(missing)} of them are not sent to MLflow at {mask(uri)}; 'status --sync' sends them.")


def _line(entry: store.Entry) -> str:
    where = f"{entry.status:11} {entry.backbone:24} {entry.dataset:16} {entry.recipe:9} seed {entry.seed}"
    if entry.status == "ok" and entry.mAP is not None:
        scores = [f"mAP {entry.mAP:6.1%}", f"rank-1 {entry.rank1:6.1%}", matched(entry._asdict())]
        return "  ".join(filter(None, [where, *scores, duration(entry.seconds)]))
    stage = f"at {entry.stage}: " if entry.stage else ""
    return f"{where}  {stage}{entry.message.splitlines()[0] if entry.message else ''}"
